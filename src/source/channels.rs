//! LISTEN and NOTIFY over one session: commands in, notifications out, and a gap told after each outage.
//!
//! Promise: at most once, in commit order. Each outage is exactly one gap, after every channel listens again
//! and before the next notification.

use super::overflow::Held;
use super::self_test::{SelfTest, Step};
use super::{Outage, Pull, Report};
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::{Channel, PAYLOAD_BYTES_MAX};
use crate::metrics::Metrics;
use crate::options::SessionOptions;
use crate::pq::Notify;
use crate::session::{Command, Loss, Progress, Session};
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// How many notifications may wait to be sent, and how many bytes they may hold together: a caller that
/// queues faster than the server commits is told to take events first.
const UNSENT_MAX: usize = 65_536;
const UNSENT_BYTES_MAX: usize = 16 << 20;

/// How many batches may be on their way: enough to hide the round trip, few enough to lose when a connection
/// breaks.
const UNANSWERED_MAX: usize = 256;

/// How much is read ahead at most before something is told (some 16 KB a round).
const READ_AHEAD_ROUNDS_MAX: u32 = 64;

const NOTIFY_SQL: &[u8] = b"SELECT pg_catalog.pg_notify($1, $2)";

/// LISTEN or UNLISTEN on a session that is connected already.
#[derive(Debug, Clone)]
pub(super) struct Change {
    listen: bool,
    channel: Channel,
}

/// What is to be notified. Its content never reaches a log, not even by `Debug`.
struct Payload(Box<[u8]>);

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What was sent as one transaction, so that its failure harms nothing else.
#[derive(Debug)]
pub(super) enum Batch {
    /// The client's encoding is set.
    Encoding,
    Change(Change),
    /// Empty; its answer says that all LISTENs of a new connection are answered.
    Prepared,
    Notify(Channel),
    SelfTest(Step),
}

#[derive(Debug)]
pub(crate) struct ChannelSource {
    session: Session,
    db: String,
    backend_pid: i32,
    skip_own: bool,
    /// All channels listen on the connection there is, and what it brings is passed on.
    is_listening: bool,
    /// No further attempt will be made to connect.
    has_failed: bool,
    wanted: BTreeSet<Channel>,
    /// The LISTENs for all that was wanted are sent; what is wanted later needs its own.
    is_prepared: bool,
    changes: VecDeque<Change>,
    /// The server has confirmed these, and they have not been told.
    listened: Vec<Channel>,
    unsent: VecDeque<(Channel, Payload)>,
    unsent_bytes: usize,
    unanswered: VecDeque<Batch>,
    held: Held,
    sent: u64,
    was_listening: bool,
    outage: Option<Outage>,
    reports: VecDeque<Report>,
    /// Until it is passed.
    pub(super) self_test: Option<SelfTest>,
    /// There is more to tell, and others have their turn first.
    wants_turn: bool,
    /// Kept by the loop.
    pub(crate) metrics: Metrics,
}

impl ChannelSource {
    pub(crate) fn new(session: Session, options: &SessionOptions) -> Self {
        ChannelSource {
            db: session.database_asked_for().to_string(),
            session,
            backend_pid: 0,
            skip_own: options.skip_own,
            held: Held::new(options.overflow),
            is_listening: false,
            has_failed: false,
            wanted: BTreeSet::new(),
            is_prepared: false,
            changes: VecDeque::new(),
            listened: Vec::new(),
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            unanswered: VecDeque::new(),
            sent: 0,
            was_listening: false,
            outage: None,
            reports: VecDeque::new(),
            self_test: options.self_test.then(SelfTest::new),
            wants_turn: false,
            metrics: Metrics::default(),
        }
    }

    pub(crate) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// When the last probe was sent that has been answered, and how long that took.
    pub(crate) fn last_probe(&self) -> Option<(Instant, Duration)> {
        self.session.last_probe()
    }

    /// Whether nothing will ever come again.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    #[inline]
    pub(crate) fn db(&self) -> &str {
        &self.db
    }

    pub(crate) fn listen(&mut self, channel: Channel) -> Result<()> {
        self.refuse_if_failed()?;
        if self.wanted.insert(channel.clone()) && self.is_prepared {
            self.changes.push_back(Change { listen: true, channel });
        }
        Ok(())
    }

    pub(crate) fn unlisten(&mut self, channel: Channel) -> Result<()> {
        self.refuse_if_failed()?;
        if self.wanted.remove(&channel) && self.is_prepared {
            self.changes.push_back(Change { listen: false, channel });
        }
        Ok(())
    }

    fn refuse_if_failed(&self) -> Result<()> {
        if !self.has_failed {
            return Ok(());
        }
        let message = "the session has failed for good: disconnect it, mend the cause, and connect again";
        Err(Error::new(ErrorKind::Connection, message))
    }

    pub(crate) fn notify(&mut self, channel: Channel, payload: &[u8]) -> Result<()> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            let n = payload.len();
            let message = format!(
                "the payload has {n} bytes: PostgreSQL takes at most 7999, send a reference to the data"
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        if payload.contains(&0) {
            let message =
                "the payload holds a NUL byte: PostgreSQL has none in text, encode the payload first";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.refuse_if_failed()?;
        if self.unsent.len() >= UNSENT_MAX || self.unsent_bytes + payload.len() > UNSENT_BYTES_MAX {
            let message =
                "too many notifications wait to be sent: take events until `Sent` comes, then go on";
            return Err(Error::new(ErrorKind::QueueFull, message));
        }
        self.unsent_bytes += payload.len();
        self.unsent.push_back((channel, Payload(payload.into())));
        Ok(())
    }

    /// The next thing to tell. Consumes input once for each time that the session was found ready.
    #[inline(always)]
    pub(crate) fn pull(&mut self, now: Instant) -> Pull {
        if self.held.reads_ahead() {
            return self.pull_ahead(now);
        }
        loop {
            if let Some(report) = self.reports.pop_front() {
                return Pull::Report(Box::new(report));
            }
            // A turn begins with consuming: libpq was left empty by the last one.
            if self.is_listening
                && !self.session.is_ready()
                && let Some(notify) = self.next_notification()
            {
                let own = notify.pid() == self.backend_pid;
                if own && self.skip_own {
                    continue;
                }
                return Pull::Notification { notify, own, folded: 0 };
            }
            if !self.go_on(now) {
                return Pull::Idle;
            }
        }
    }

    /// All that was held has been told: see to what comes next; `false` when there is nothing. Once for each
    /// wake-up, so it is kept apart from what runs for each notification.
    #[inline(never)]
    fn go_on(&mut self, now: Instant) -> bool {
        match self.session.progress(now) {
            Progress::Consumed if self.self_test.is_none() => {}
            Progress::Consumed => self.look_for_self_test(),
            Progress::Idle => return self.send_queued(),
            Progress::Opened => self.prepare(),
            Progress::Answered(answer) => self.answered(answer, now),
            Progress::Lost(loss) => self.lost(loss),
        }
        true
    }

    #[inline(always)]
    pub(super) fn next_notification(&mut self) -> Option<Notify> {
        let notify = self.session.connection()?.notifies()?;
        self.session.has_said_something();
        Some(notify)
    }

    /// As `pull`, for a session that reads more than its caller takes, so that what comes neither stays in
    /// the server nor grows here.
    #[cold]
    fn pull_ahead(&mut self, now: Instant) -> Pull {
        if self.held.is_turn_over() {
            self.session.look_ahead();
            self.wants_turn = !self.held.is_empty() || !self.reports.is_empty();
            return Pull::Idle;
        }
        for _ in 0..READ_AHEAD_ROUNDS_MAX {
            while self.is_listening
                && let Some(notify) = self.next_notification()
            {
                if !self.skip_own || notify.pid() != self.backend_pid {
                    self.held.put(notify);
                }
            }
            if !self.go_on(now) && !self.session.look_ahead() {
                break;
            }
        }
        // What was held before a loss is told before it.
        if self.is_listening
            && let Some(report) = self.reports.pop_front()
        {
            return Pull::Report(Box::new(report));
        }
        if let dropped @ 1.. = self.held.take_dropped() {
            let channels = self.wanted.iter().cloned().collect();
            return Pull::Report(Box::new(Report::Overflow { channels, dropped }));
        }
        if let Some((notify, folded)) = self.held.take() {
            let own = notify.pid() == self.backend_pid;
            return Pull::Notification { notify, own, folded };
        }
        self.reports.pop_front().map_or(Pull::Idle, |report| Pull::Report(Box::new(report)))
    }

    /// Whether it wants another turn although nothing will be ready.
    pub(crate) fn takes_turn_wish(&mut self) -> bool {
        std::mem::take(&mut self.wants_turn)
    }

    /// Says on a new connection what has to be said before anything else: the encoding, and every LISTEN.
    #[cold]
    fn prepare(&mut self) {
        let Some(connection) = self.session.connection() else { return };
        self.db = connection.database();
        self.backend_pid = connection.backend_pid();
        // A payload that cannot be converted to the client's encoding would make the server end this session,
        // and anybody may send one. With the server's own encoding nothing is converted.
        let encoding = connection.parameter(c"server_encoding");
        let is_encoding_right = encoding == connection.parameter(c"client_encoding");
        self.changes.clear();
        self.unanswered.clear();
        if !is_encoding_right {
            self.send(Some(format!("SET client_encoding TO '{encoding}'").into_bytes()), Batch::Encoding);
        }
        if !self.begin_self_test() {
            self.prepare_channels();
        }
    }

    /// Every LISTEN, at once.
    #[cold]
    pub(super) fn prepare_channels(&mut self) {
        for channel in self.wanted.clone() {
            self.send_change(Change { listen: true, channel });
        }
        self.send(None, Batch::Prepared);
        self.is_prepared = true;
    }

    pub(super) fn send(&mut self, sql: Option<Vec<u8>>, meaning: Batch) {
        self.session.send(sql.iter().map(|sql| Command { sql, parameters: &[] }));
        self.unanswered.push_back(meaning);
    }

    #[cold]
    fn send_change(&mut self, change: Change) {
        self.send(Some(listen_sql(change.listen, &change.channel)), Batch::Change(change));
    }

    /// Sends what the caller has queued; `false` when there was nothing to send.
    fn send_queued(&mut self) -> bool {
        if !self.is_listening || (self.changes.is_empty() && self.unsent.is_empty()) {
            return false;
        }
        for change in std::mem::take(&mut self.changes) {
            self.send_change(change);
        }
        let room = UNANSWERED_MAX.saturating_sub(self.unanswered.len());
        for (channel, Payload(payload)) in self.unsent.drain(..room.min(self.unsent.len())) {
            let parameters: &[&[u8]] = &[channel.as_bytes(), &payload];
            self.session.send(std::iter::once(Command { sql: NOTIFY_SQL, parameters }));
            self.unsent_bytes -= payload.len();
            self.unanswered.push_back(Batch::Notify(channel));
        }
        room > 0
    }

    #[cold]
    fn answered(&mut self, answer: Result<()>, now: Instant) {
        match (self.unanswered.pop_front(), answer) {
            (Some(Batch::Encoding), Ok(())) | (None, _) => {}
            // A server that refused a LISTEN is not listened to, whatever else it answers.
            (Some(Batch::Prepared), Ok(())) if self.session.is_ending() => {}
            (Some(Batch::Prepared), Ok(())) => self.prepared(now),
            (Some(Batch::Encoding | Batch::Prepared), Err(error)) => self.session.fail(error),
            (Some(Batch::Change(Change { listen, channel })), Ok(())) => {
                if listen {
                    self.listened.push(channel);
                }
            }
            (Some(Batch::Change(change)), Err(error)) => self.refused(change, error),
            (Some(Batch::Notify(_)), Ok(())) => self.sent += 1,
            (Some(Batch::Notify(channel)), Err(error)) => self.report_unsent(channel, error),
            (Some(Batch::SelfTest(step)), answer) => self.self_tested(step, answer),
        }
        let has_more_changes = matches!(self.unanswered.front(), Some(Batch::Change(_)));
        if self.is_listening && !has_more_changes && !self.listened.is_empty() {
            let channels = self.take_listened();
            self.report_listening(channels);
        }
        if self.sent > 0 && self.unsent.is_empty() && self.unanswered.is_empty() {
            self.report_sent();
        }
    }

    /// The server refused a LISTEN or UNLISTEN. What is wrong with one name must not stop the others; a
    /// server that listens to nobody, such as a standby, is not the right one.
    #[cold]
    fn refused(&mut self, Change { listen, channel }: Change, error: Error) {
        let is_about_the_name = error.sqlstate.is_some_and(|sqlstate| sqlstate.is_about_the_command());
        if !self.is_listening && !is_about_the_name {
            return self.session.fail(error);
        }
        let is_newer = |change: &Change| change.channel == channel;
        let is_wanted_anew = self.changes.iter().any(is_newer)
            || self.unanswered.iter().any(|batch| matches!(batch, Batch::Change(change) if is_newer(change)));
        if !is_wanted_anew && listen {
            self.wanted.remove(&channel);
        } else if !is_wanted_anew {
            self.wanted.insert(channel.clone());
        }
        let command = if listen { "listen" } else { "unlisten" };
        self.reports.push_back(Report::CommandFailed { command, channel, error });
    }

    fn prepared(&mut self, now: Instant) {
        self.session.settled(now);
        self.is_listening = true;
        let channels = self.take_listened();
        match self.outage.take() {
            Some(outage) => self.reports.push_back(Report::Gap { channels, outage }),
            None => self.report_listening(channels),
        }
        self.was_listening = true;
    }

    /// What the server has confirmed, as far as it is still wanted.
    fn take_listened(&mut self) -> Vec<Channel> {
        let mut channels = std::mem::take(&mut self.listened);
        channels.retain(|channel| self.wanted.contains(channel));
        channels.sort();
        channels.dedup();
        channels
    }

    fn report_listening(&mut self, channels: Vec<Channel>) {
        let Some(connection) = self.session.connection() else { return };
        let version = connection.parameter(c"server_version");
        self.reports.push_back(Report::Listening {
            channels,
            backend_pid: self.backend_pid,
            // Distributors add a name in brackets.
            server_version: version.split(' ').next().unwrap_or_default().to_string(),
            host: connection.host(),
        });
    }

    fn report_sent(&mut self) {
        self.reports.push_back(Report::Sent { count: std::mem::take(&mut self.sent) });
    }

    fn report_unsent(&mut self, channel: Channel, error: Error) {
        self.reports.push_back(Report::CommandFailed { command: "notify", channel, error });
    }

    #[cold]
    fn lost(&mut self, Loss { error, retry_in, at }: Loss) {
        (self.is_listening, self.is_prepared) = (false, false);
        self.listened.clear();
        self.interrupt_self_test();
        if self.sent > 0 {
            self.report_sent();
        }
        if self.was_listening {
            let outage = self.outage.get_or_insert(Outage { error: error.clone(), lost_at: at, attempts: 0 });
            outage.attempts += 1;
        }
        let message = "the connection was lost before the server answered: it may have been sent or not";
        let unknown =
            Error::new(ErrorKind::Connection, message).with_sqlstate(Some(SqlState::OUTCOME_UNKNOWN));
        for batch in std::mem::take(&mut self.unanswered) {
            if let Batch::Notify(channel) = batch {
                self.report_unsent(channel, unknown.clone());
            }
        }
        let Some(retry_in) = retry_in else {
            self.has_failed = true;
            self.unsent_bytes = 0;
            for (channel, _) in std::mem::take(&mut self.unsent) {
                self.report_unsent(channel, error.clone());
            }
            return self.reports.push_back(Report::Failed { error });
        };
        self.reports.push_back(Report::Disconnected { error, retry_in });
    }
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
