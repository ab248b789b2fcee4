//! What the caller sends: notifications and messages, kept until they can go out, each in a transaction of
//! its own, in their order. What became of them is reported.

use super::link::Link;
use super::tag::{SendRequest, Tag, Verb};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Channel, MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX};
use crate::session::{Command, outcome_unknown};
use crate::source::report::Report;
use std::collections::VecDeque;

/// How much may wait to be sent: a caller that queues faster than the server commits has to take events
/// first.
const UNSENT_MAX: usize = 65_536;

/// How many bytes may wait, unless it is one that is larger; and how many may be on their way.
const BYTES_MAX: usize = 16 << 20;

/// What is larger than this goes over a connection of its own, when nothing else is on its way.
const LARGE_BYTES: usize = 4 << 20;

/// How many requests may be on their way: enough to hide the round trip, few enough to lose when a connection
/// breaks.
const UNANSWERED_MAX: usize = 256;

const NOTIFY_SQL: &[u8] = b"SELECT pg_catalog.pg_notify($1::text, $2::text)";

/// As bytes, which are written and read as they are, whatever they are and whatever the client's encoding is.
const PUBLISH_SQL: &[u8] = b"SELECT pg_catalog.pg_logical_emit_message(true, \
    pg_catalog.convert_from($1::bytea, pg_catalog.getdatabaseencoding()), $2::bytea)";

/// What is to be sent. Its content never reaches a log, not even by `Debug`.
struct Payload(Box<[u8]>);

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

#[derive(Debug, Default)]
pub(super) struct Sender {
    unsent: VecDeque<(SendRequest, Payload)>,
    unsent_bytes: usize,
    unanswered_bytes: usize,
    /// What is on its way over a connection of its own, and how many were before.
    otherwise: Option<SendRequest>,
    sent_otherwise: u64,
    /// Committed, and not reported.
    sent: u64,
}

impl Sender {
    pub(super) fn queue(&mut self, link: &Link, verb: Verb, channel: Channel, payload: &[u8]) -> Result<()> {
        let bytes = payload.len();
        if let Some(problem) = problem(verb, payload) {
            return Err(Error::new(ErrorKind::InvalidArgument, problem));
        }
        link.refuse_if_failed()?;
        let has_room = self.unsent.is_empty() || self.unsent_bytes + bytes <= BYTES_MAX;
        if self.unsent.len() >= UNSENT_MAX || !has_room {
            let message = "too much waits to be sent: take events until it is sent, then go on";
            return Err(Error::new(ErrorKind::QueueFull, message));
        }
        let payload = Payload(copy_of(payload)?);
        self.unsent_bytes += bytes;
        self.unsent.push_back((SendRequest { verb, channel, bytes }, payload));
        Ok(())
    }

    /// Sends what the caller has queued; `false` when there was nothing to send.
    #[inline(always)]
    pub(super) fn step(&mut self, link: &mut Link) -> bool {
        link.is_listening && !self.unsent.is_empty() && self.otherwise.is_none() && self.send_all(link)
    }

    #[cold]
    fn send_all(&mut self, link: &mut Link) -> bool {
        let room = UNANSWERED_MAX.saturating_sub(link.session.unanswered().count());
        let mut sent = 0;
        while sent < room
            && self.otherwise.is_none()
            && let Some((request, _)) = self.unsent.front()
            && self.may_go(link, request.bytes)
            && let Some((request, Payload(payload))) = self.unsent.pop_front()
        {
            sent += 1;
            self.unsent_bytes -= request.bytes;
            self.unanswered_bytes += request.bytes;
            if request.bytes > LARGE_BYTES {
                self.send_otherwise(link, request, payload);
                continue;
            }
            let sql = if request.verb == Verb::Notify { NOTIFY_SQL } else { PUBLISH_SQL };
            let channel = request.channel.clone();
            let parameters: &[&[u8]] = &[channel.as_bytes(), &payload];
            link.session.send(Tag::Send(request), [Command::RunInferred { sql, parameters }].into_iter());
        }
        sent > 0
    }

    fn may_go(&self, link: &Link, bytes: usize) -> bool {
        match bytes > LARGE_BYTES {
            true => !is_any_unanswered(link),
            false => self.unanswered_bytes + bytes <= BYTES_MAX,
        }
    }

    fn send_otherwise(&mut self, link: &mut Link, request: SendRequest, payload: Box<[u8]>) {
        self.sent_otherwise += 1;
        let parameters = [request.channel.as_bytes().into(), payload];
        match link.session.send_otherwise(self.sent_otherwise, PUBLISH_SQL, parameters) {
            Ok(()) => self.otherwise = Some(request),
            Err(error) => self.answered::<()>(link, request, Err(error)),
        }
    }

    /// The one of this number was answered, unless it was given up.
    pub(super) fn sent_otherwise(&mut self, link: &mut Link, number: u64, outcome: Result<()>) {
        if number == self.sent_otherwise
            && let Some(request) = self.otherwise.take()
        {
            self.answered(link, request, outcome);
            self.report(link);
        }
    }

    /// What the server said to one.
    pub(super) fn answered<T>(&mut self, link: &mut Link, request: SendRequest, answer: Result<T>) {
        self.unanswered_bytes -= request.bytes;
        match answer {
            Ok(_) => self.sent += 1,
            Err(error) => link.report_failure(request.verb.as_str(), Some(request.channel), error),
        }
    }

    /// Reports what was committed, once all is. Only then is it looked for among all that is unanswered: that
    /// may be a LISTEN for each of many channels.
    #[cold]
    pub(super) fn report(&mut self, link: &mut Link) {
        if self.sent > 0 && self.unsent.is_empty() && self.otherwise.is_none() && !is_any_unanswered(link) {
            self.report_sent(link);
        }
    }

    fn report_sent(&mut self, link: &mut Link) {
        if self.sent > 0 {
            link.reports.push_back(Report::Sent { count: std::mem::take(&mut self.sent) });
        }
    }

    /// The connection is lost, and these requests were not answered. What was not sent is kept, unless there
    /// will be no other connection, for this reason.
    #[cold]
    pub(super) fn lost(&mut self, link: &mut Link, unanswered: Vec<Tag>, failure: Option<&Error>) {
        self.report_sent(link);
        self.unanswered_bytes = 0;
        if let Some(SendRequest { verb, channel, .. }) = self.otherwise.take() {
            link.report_failure(verb.as_str(), Some(channel), outcome_unknown());
        }
        for tag in unanswered {
            if let Tag::Send(SendRequest { verb, channel, .. }) = tag {
                link.report_failure(verb.as_str(), Some(channel), outcome_unknown());
            }
        }
        let Some(failure) = failure else { return };
        self.unsent_bytes = 0;
        for (SendRequest { verb, channel, .. }, _) in std::mem::take(&mut self.unsent) {
            link.report_failure(verb.as_str(), Some(channel), failure.clone());
        }
    }
}

fn is_any_unanswered(link: &Link) -> bool {
    link.session.unanswered().any(|tag| matches!(tag, Tag::Send(_)))
}

/// A copy, for which there may be no memory: how large it is the caller decides.
fn copy_of(payload: &[u8]) -> Result<Box<[u8]>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(payload.len()).map_err(|_| {
        let n = payload.len();
        let message = format!("there is no memory for a payload of {n} bytes: take events until it is free");
        Error::new(ErrorKind::System, message)
    })?;
    copy.extend_from_slice(payload);
    Ok(copy.into())
}

/// Why a payload cannot be sent, if it cannot.
fn problem(verb: Verb, payload: &[u8]) -> Option<String> {
    let n = payload.len();
    match verb {
        Verb::Notify if n > PAYLOAD_BYTES_MAX => Some(format!(
            "the payload has {n} bytes: PostgreSQL takes at most 7999, publish it or send a reference to the \
             data"
        )),
        Verb::Notify if payload.contains(&0) => Some(
            "the payload holds a NUL byte: PostgreSQL has none in text, publish it or encode the payload \
             first"
                .into(),
        ),
        Verb::Publish if n > MESSAGE_BYTES_MAX => Some(format!(
            "the payload has {n} bytes: a message takes at most {MESSAGE_BYTES_MAX}, send a reference to the \
             data"
        )),
        _ => None,
    }
}
