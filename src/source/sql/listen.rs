//! LISTEN and NOTIFY for the caller: a new connection listens on every channel before it delivers anything,
//! each outage is reported as one gap, and what is to be notified is kept until it can be sent.
//!
//! Promise: at most once, in commit order. Each outage is exactly one gap, after every channel listens again
//! and before the next notification.

use super::link::{Link, settings};
use super::tag::{ListenRequest, Subscription, Tag};
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::{Channel, PAYLOAD_BYTES_MAX};
use crate::session::{Loss, Rows};
use crate::source::report::{Outage, Report};
use std::collections::VecDeque;
use std::time::Instant;

/// How many notifications may wait to be sent, and how many bytes they may hold together: a caller that
/// queues faster than the server commits is told to take events first.
const UNSENT_MAX: usize = 65_536;
const UNSENT_BYTES_MAX: usize = 16 << 20;

/// How many requests may be on their way: enough to hide the round trip, few enough to lose when a connection
/// breaks.
const UNANSWERED_MAX: usize = 256;

const NOTIFY_SQL: &[u8] = b"SELECT pg_catalog.pg_notify($1, $2)";

/// What is to be notified. Its content never reaches a log, not even by `Debug`.
struct Payload(Box<[u8]>);

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

#[derive(Debug, Default)]
pub(super) struct Listen {
    unsent: VecDeque<(Channel, Payload)>,
    unsent_bytes: usize,
    /// Committed, and not reported.
    sent: u64,
    was_listening: bool,
    outage: Option<Outage>,
}

impl Listen {
    /// Says on a new connection what has to be said before anything else.
    #[cold]
    pub(super) fn connected(&mut self, link: &mut Link) {
        let Some(connection) = link.session.connection() else { return };
        link.db = connection.database();
        link.backend_pid = connection.backend_pid();
        // A payload that cannot be converted to the client's encoding would make the server end this session,
        // and anybody may send one. With the server's own encoding nothing is converted.
        let encoding = connection.parameter(c"server_encoding");
        if encoding != connection.parameter(c"client_encoding") {
            let sql = format!("SET client_encoding TO '{encoding}'");
            link.send(Tag::Listen(ListenRequest::Setting), Some(sql.as_bytes()), &[]);
        }
    }

    /// The rest, at once: that no time-out is to end the connection, and every LISTEN. These come last: by
    /// them the server shows who listens.
    #[cold]
    pub(super) fn prepare(&mut self, link: &mut Link, has_readers: bool) {
        let (changes, is_lasting) = link.channels.prepare(has_readers);
        link.send(Tag::Listen(ListenRequest::Setting), Some(&settings(is_lasting)), &[]);
        for change in changes {
            subscribe(link, change);
        }
    }

    pub(super) fn notify(&mut self, link: &Link, channel: Channel, payload: &[u8]) -> Result<()> {
        let invalid = |message: &str| Err(Error::new(ErrorKind::InvalidArgument, message));
        if payload.len() > PAYLOAD_BYTES_MAX {
            let n = payload.len();
            return invalid(&format!(
                "the payload has {n} bytes: PostgreSQL takes at most 7999, send a reference to the data"
            ));
        }
        if payload.contains(&0) {
            return invalid(
                "the payload holds a NUL byte: PostgreSQL has none in text, encode the payload first",
            );
        }
        link.refuse_if_failed()?;
        if self.unsent.len() >= UNSENT_MAX || self.unsent_bytes + payload.len() > UNSENT_BYTES_MAX {
            let message =
                "too many notifications wait to be sent: take events until `Sent` comes, then go on";
            return Err(Error::new(ErrorKind::QueueFull, message));
        }
        self.unsent_bytes += payload.len();
        self.unsent.push_back((channel, Payload(payload.into())));
        Ok(())
    }

    /// Sends what the caller has queued; `false` when there was nothing to send.
    #[inline(always)]
    pub(super) fn step(&mut self, link: &mut Link) -> bool {
        link.is_listening && (link.channels.has_changes() || !self.unsent.is_empty()) && self.send_all(link)
    }

    #[cold]
    fn send_all(&mut self, link: &mut Link) -> bool {
        for change in link.channels.take_changes() {
            subscribe(link, change);
        }
        let room = UNANSWERED_MAX.saturating_sub(link.session.unanswered().count());
        for (channel, Payload(payload)) in self.unsent.drain(..room.min(self.unsent.len())) {
            self.unsent_bytes -= payload.len();
            let parameters: &[&[u8]] = &[channel.as_bytes(), &payload];
            link.send(Tag::Listen(ListenRequest::Notify(channel.clone())), Some(NOTIFY_SQL), parameters);
        }
        room > 0
    }

    /// What the server said to a request of this reader.
    pub(super) fn answered(
        &mut self,
        link: &mut Link,
        request: ListenRequest,
        answer: Result<Rows>,
        now: Instant,
    ) {
        match (request, answer) {
            (ListenRequest::Setting, Ok(rows)) => learn_pid(link, rows),
            (ListenRequest::Setting, Err(error)) => link.session.fail(error),
            (ListenRequest::Subscription(Subscription { listen, channel }), Ok(_)) => {
                if listen {
                    link.channels.confirm(channel);
                }
            }
            (ListenRequest::Subscription(change), Err(error)) => refused(link, change, error),
            (ListenRequest::Notify(_), Ok(_)) => self.sent += 1,
            (ListenRequest::Notify(channel), Err(error)) => {
                link.report_failure("notify", Some(channel), error);
            }
        }
        // A server that refused a LISTEN is not listened to, whatever else it answers.
        let is_answered = link.session.unanswered().next().is_none() && !link.session.is_ending();
        if link.channels.is_prepared() && is_answered && !link.is_listening {
            self.prepared(link, now);
        }
    }

    /// All that was asked of a new connection is answered.
    fn prepared(&mut self, link: &mut Link, now: Instant) {
        link.session.settled(now);
        link.is_listening = true;
        let channels = link.channels.take_confirmed();
        match self.outage.take() {
            Some(outage) => link.reports.push_back(Report::Gap { channels, outage }),
            None => report_listening(link, channels),
        }
        self.was_listening = true;
    }

    /// Reports what is complete: channels that were confirmed, and notifications that were committed.
    #[cold]
    pub(super) fn report(&mut self, link: &mut Link) {
        let has_more_changes =
            matches!(link.session.unanswered().next(), Some(Tag::Listen(ListenRequest::Subscription(_))));
        if link.is_listening && !has_more_changes && link.channels.has_confirmed() {
            let channels = link.channels.take_confirmed();
            report_listening(link, channels);
        }
        let is_notify = |tag: &Tag| matches!(tag, Tag::Listen(ListenRequest::Notify(_)));
        if self.sent > 0 && self.unsent.is_empty() && !link.session.unanswered().any(is_notify) {
            self.report_sent(link);
        }
    }

    fn report_sent(&mut self, link: &mut Link) {
        link.reports.push_back(Report::Sent { count: std::mem::take(&mut self.sent) });
    }

    #[cold]
    pub(super) fn lost(&mut self, link: &mut Link, loss: Loss<Tag>) {
        let Loss { error, unanswered, retry_in, at } = loss;
        link.is_listening = false;
        link.channels.lost();
        if self.sent > 0 {
            self.report_sent(link);
        }
        if self.was_listening {
            let outage = self.outage.get_or_insert(Outage { error: error.clone(), lost_at: at, attempts: 0 });
            outage.attempts += 1;
        }
        let message = "the connection was lost before the server answered: it may have been sent or not";
        let unknown =
            Error::new(ErrorKind::Connection, message).with_sqlstate(Some(SqlState::OUTCOME_UNKNOWN));
        for tag in unanswered {
            if let Tag::Listen(ListenRequest::Notify(channel)) = tag {
                link.report_failure("notify", Some(channel), unknown.clone());
            }
        }
        let Some(retry_in) = retry_in else {
            self.unsent_bytes = 0;
            for (channel, _) in std::mem::take(&mut self.unsent) {
                link.report_failure("notify", Some(channel), error.clone());
            }
            return link.reports.push_back(Report::Failed { error });
        };
        link.reports.push_back(Report::Disconnected { error, retry_in });
    }
}

/// The server has said who its process is.
fn learn_pid(link: &mut Link, rows: Rows) {
    let pid = rows.as_ref().and_then(|rows| rows.value(0, 0)?.try_into().ok());
    link.backend_pid = pid.map_or(link.backend_pid, i32::from_be_bytes);
}

#[cold]
fn subscribe(link: &mut Link, change: Subscription) {
    link.make_lasting();
    let sql = listen_sql(change.listen, &change.channel);
    link.send(Tag::Listen(ListenRequest::Subscription(change)), Some(&sql), &[]);
}

/// The server refused a LISTEN or UNLISTEN. What is wrong with one name must not stop the others; a server
/// that listens to nobody, such as a standby, is not the right one.
#[cold]
fn refused(link: &mut Link, change: Subscription, error: Error) {
    let is_about_the_name = error.sqlstate.is_some_and(|sqlstate| sqlstate.is_about_the_command());
    if !link.is_listening && !is_about_the_name {
        return link.session.fail(error);
    }
    let unanswered = link.session.unanswered().filter_map(|tag| match tag {
        Tag::Listen(ListenRequest::Subscription(other)) => Some(other),
        _ => None,
    });
    link.channels.refused(&change, unanswered);
    let command = if change.listen { "listen" } else { "unlisten" };
    link.report_failure(command, Some(change.channel), error);
}

fn report_listening(link: &mut Link, channels: Vec<Channel>) {
    let Some(connection) = link.session.connection() else { return };
    link.reports.push_back(Report::Listening {
        channels,
        backend_pid: link.backend_pid,
        server_version: connection.server_version(),
        host: connection.host(),
    });
}

/// `LISTEN "…"` or `UNLISTEN "…"`. Quoting needs no connection: the client's encoding is the server's, and in
/// those no multi-byte character holds a quote (manual, "Supported Character Sets": server-safe encodings).
pub(super) fn listen_sql(listen: bool, channel: &Channel) -> Vec<u8> {
    let mut sql = if listen { b"LISTEN \"".to_vec() } else { b"UNLISTEN \"".to_vec() };
    for byte in channel.as_bytes() {
        sql.extend(std::iter::repeat_n(*byte, if *byte == b'"' { 2 } else { 1 }));
    }
    sql.push(b'"');
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_quoted_byte_by_byte() {
        let sql = |name: &[u8]| listen_sql(true, &Channel::new(name).unwrap());
        assert_eq!(sql(b"Foo"), b"LISTEN \"Foo\"");
        assert_eq!(sql(b"a\"; DROP TABLE t; --"), b"LISTEN \"a\"\"; DROP TABLE t; --\"");
        assert_eq!(sql(b"caf\xe9"), b"LISTEN \"caf\xe9\"");
    }
}
