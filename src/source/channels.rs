//! LISTEN and NOTIFY over one session: commands in, notifications out, and a gap told after each outage.
//!
//! Promise: at most once, in commit order. Each outage is exactly one gap, after every channel listens again
//! and before the next notification.

use super::overflow::Held;
use super::{Outage, Pull, Report};
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::{Channel, PAYLOAD_BYTES_MAX};
use crate::options::SessionOptions;
use crate::pq::Notify;
use crate::session::{Command, Loss, Progress, Session};
use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

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
struct Change {
    listen: bool,
    channel: Channel,
}

/// A batch that was sent, and what its answer means.
#[derive(Debug)]
enum Batch {
    Prepare,
    Changes(Vec<Change>),
    Notify(Channel),
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
    changes: Vec<Change>,
    unsent: VecDeque<(Channel, Box<[u8]>)>,
    unsent_bytes: usize,
    unanswered: VecDeque<Batch>,
    held: Held,
    sent: u64,
    was_listening: bool,
    outage: Option<Outage>,
    reports: VecDeque<Report>,
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
            changes: Vec::new(),
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            unanswered: VecDeque::new(),
            sent: 0,
            was_listening: false,
            outage: None,
            reports: VecDeque::new(),
        }
    }

    pub(crate) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    #[inline]
    pub(crate) fn db(&self) -> &str {
        &self.db
    }

    pub(crate) fn listen(&mut self, channel: Channel) {
        if self.wanted.insert(channel.clone()) {
            self.changes.push(Change { listen: true, channel });
        }
    }

    pub(crate) fn unlisten(&mut self, channel: Channel) {
        if self.wanted.remove(&channel) {
            self.changes.push(Change { listen: false, channel });
        }
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
        if self.has_failed {
            let message = "the session has failed for good: disconnect it, mend the cause, and connect again";
            return Err(Error::new(ErrorKind::Connection, message));
        }
        if self.unsent.len() >= UNSENT_MAX || self.unsent_bytes + payload.len() > UNSENT_BYTES_MAX {
            let message =
                "too many notifications wait to be sent: take events until `Sent` comes, then go on";
            return Err(Error::new(ErrorKind::QueueFull, message));
        }
        self.unsent_bytes += payload.len();
        self.unsent.push_back((channel, payload.into()));
        Ok(())
    }

    /// The next thing to tell. Consumes input once for each time that the session was found ready.
    #[inline]
    pub(crate) fn pull(&mut self, now: Instant) -> Pull {
        loop {
            if self.is_listening && self.held.reads_ahead() {
                self.read_ahead(now);
            }
            if let Some(report) = self.reports.pop_front() {
                return Pull::Report(report);
            }
            if self.is_listening
                && let Some((notify, folded)) = self.next_notification()
            {
                let own = notify.pid() == self.backend_pid;
                if own && self.skip_own {
                    continue;
                }
                return Pull::Notification { notify, own, folded };
            }
            match self.session.progress(now) {
                Progress::Consumed => {}
                Progress::Idle if !self.send_queued() => return Pull::Idle,
                Progress::Idle => {}
                Progress::Opened => self.prepare(),
                Progress::Answered(answer) => self.answered(answer),
                Progress::Lost(loss) => self.lost(loss),
            }
        }
    }

    #[inline]
    fn next_notification(&mut self) -> Option<(Notify, u64)> {
        if self.held.reads_ahead() {
            return self.held.take();
        }
        Some((self.session.connection()?.notifies()?, 0))
    }

    /// Takes in what has come meanwhile, so that it neither stays in the server nor grows here.
    fn read_ahead(&mut self, now: Instant) {
        for _ in 0..READ_AHEAD_ROUNDS_MAX {
            while let Some(notify) = self.session.connection().and_then(|connection| connection.notifies()) {
                let is_wanted = !self.skip_own || notify.pid() != self.backend_pid;
                if is_wanted {
                    self.held.put(notify);
                }
            }
            if !self.session.read_ahead(now) {
                break;
            }
        }
        let dropped = self.held.take_dropped();
        if dropped > 0 {
            let channels = self.wanted.iter().cloned().collect();
            self.reports.push_back(Report::Overflow { channels, dropped });
        }
    }

    /// Says on a new connection what has to be said before anything else: the encoding and every LISTEN, at
    /// once.
    fn prepare(&mut self) {
        let Some(connection) = self.session.connection() else { return };
        self.db = connection.database();
        self.backend_pid = connection.backend_pid();
        // A payload that cannot be converted to the client's encoding would make the server end this session,
        // and anybody may send one. With the server's own encoding nothing is converted.
        let encoding = connection.parameter(c"server_encoding");
        let set_encoding = (encoding != connection.parameter(c"client_encoding"))
            .then(|| format!("SET client_encoding TO '{encoding}'").into_bytes());
        let listens = self.wanted.iter().map(|channel| listen_sql(true, channel));
        let batch: Vec<Vec<u8>> = set_encoding.into_iter().chain(listens).collect();
        self.changes.clear();
        self.unanswered.clear();
        self.send(&batch, Batch::Prepare);
    }

    fn send(&mut self, batch: &[Vec<u8>], meaning: Batch) {
        self.session.send(batch.iter().map(|sql| Command { sql, parameters: &[] }));
        self.unanswered.push_back(meaning);
    }

    /// Sends what the caller has queued; `false` when there was nothing to send.
    fn send_queued(&mut self) -> bool {
        if !self.is_listening || (self.changes.is_empty() && self.unsent.is_empty()) {
            return false;
        }
        if !self.changes.is_empty() {
            let changes = std::mem::take(&mut self.changes);
            let batch: Vec<_> = changes.iter().map(|c| listen_sql(c.listen, &c.channel)).collect();
            self.send(&batch, Batch::Changes(changes));
            return true;
        }
        let room = UNANSWERED_MAX.saturating_sub(self.unanswered.len());
        for (channel, payload) in self.unsent.drain(..room.min(self.unsent.len())) {
            let parameters: &[&[u8]] = &[channel.as_bytes(), &payload];
            self.session.send(std::iter::once(Command { sql: NOTIFY_SQL, parameters }));
            self.unsent_bytes -= payload.len();
            self.unanswered.push_back(Batch::Notify(channel));
        }
        room > 0
    }

    fn answered(&mut self, answer: Result<()>) {
        match (self.unanswered.pop_front(), answer) {
            (Some(Batch::Prepare), Ok(())) => self.prepared(),
            (Some(Batch::Prepare), Err(error)) => self.session.fail(error),
            (Some(Batch::Changes(changes)), Ok(())) => {
                let channels: Vec<_> = changes.into_iter().filter(|c| c.listen).map(|c| c.channel).collect();
                if !channels.is_empty() {
                    self.report_listening(channels);
                }
            }
            (Some(Batch::Changes(changes)), Err(error)) => {
                for Change { listen, channel } in changes {
                    self.wanted.remove(&channel);
                    let command = if listen { "listen" } else { "unlisten" };
                    self.reports.push_back(Report::CommandFailed { command, channel, error: error.clone() });
                }
            }
            (Some(Batch::Notify(_)), Ok(())) => self.sent += 1,
            (Some(Batch::Notify(channel)), Err(error)) => {
                self.report_unsent(channel, error);
            }
            (None, _) => {}
        }
        if self.sent > 0 && self.unsent.is_empty() && self.unanswered.is_empty() {
            self.reports.push_back(Report::Sent { count: std::mem::take(&mut self.sent) });
        }
    }

    fn prepared(&mut self) {
        self.session.settled();
        self.is_listening = true;
        let channels = self.wanted.iter().cloned().collect();
        match self.outage.take() {
            Some(outage) => self.reports.push_back(Report::Gap { channels, outage }),
            None => self.report_listening(channels),
        }
        self.was_listening = true;
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

    fn report_unsent(&mut self, channel: Channel, error: Error) {
        self.reports.push_back(Report::CommandFailed { command: "notify", channel, error });
    }

    fn lost(&mut self, Loss { error, retry_in, at }: Loss) {
        self.is_listening = false;
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
fn listen_sql(listen: bool, channel: &Channel) -> Vec<u8> {
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
