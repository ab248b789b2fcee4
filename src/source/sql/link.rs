//! What the readers of a session share: the session itself, its channels, and the reports for the caller. It
//! knows no reader.

use super::channels::Channels;
use super::tag::{ListenRequest, Tag};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Channel, SessionId};
use crate::metrics::Metrics;
use crate::pq::Notify;
use crate::session::{Command, Session};
use crate::source::report::Report;
use std::collections::VecDeque;

/// By this channel the schema `pgwake` wakes its readers; those of DDL have others that begin with it.
pub(super) const WAKE_CHANNEL: &str = "pgwake";

/// A pooler makes up the PID that it gives with its welcome. Only the server knows the one that stands in
/// notifications.
const WHO: &str = "SELECT pg_catalog.pg_backend_pid()";

/// What a role or a database may have set to end those who are idle, or take long. The first two are in every
/// version.
const TIMEOUTS: [&str; 4] = [
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
];

#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: SessionId,
    pub(super) db: String,
    pub(super) backend_pid: i32,
    pub(super) session: Session<Tag>,
    pub(super) channels: Channels,
    /// All channels listen on the connection there is, and what it brings is delivered.
    pub(super) is_listening: bool,
    pub(super) in_libpq: InLibpq,
    /// There is more to deliver, and others have their turn first.
    pub(super) wants_turn: bool,
    pub(super) reports: VecDeque<Report>,
    pub(super) metrics: Metrics,
}

/// Whether libpq holds notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InLibpq {
    /// Whether it does is seen once input was consumed.
    Unknown,
    /// It held none, and nothing has happened since that may have brought it some.
    Nothing,
    /// The last turn ended for others before all was delivered that it held.
    Rest,
}

/// Asks who the process is and, for a session that is to last, sets the time-outs off for it alone.
pub(super) fn settings(is_lasting: bool) -> Vec<u8> {
    let off = |name: &str| {
        format!(
            ", CASE WHEN pg_catalog.current_setting('{name}', true) IS NOT NULL \
             THEN pg_catalog.set_config('{name}', '0', false) END"
        )
    };
    let off: String = TIMEOUTS.iter().filter(|_| is_lasting).map(|name| off(name)).collect();
    format!("{WHO}{off}").into_bytes()
}

impl Link {
    pub(super) fn new(id: SessionId, session: Session<Tag>, metrics: Metrics) -> Self {
        Link {
            id,
            db: session.database_asked_for().to_string(),
            backend_pid: 0,
            session,
            channels: Channels::default(),
            is_listening: false,
            in_libpq: InLibpq::Unknown,
            wants_turn: false,
            reports: VecDeque::new(),
            metrics,
        }
    }

    /// Sends one command as a transaction of its own; `None`: none at all, only to have an answer.
    pub(super) fn send(&mut self, tag: Tag, sql: Option<&[u8]>, parameters: &[&[u8]]) {
        self.session.send(tag, sql.into_iter().map(|sql| Command::Run { sql, parameters }));
    }

    /// Before a session that was prepared only to notify begins to listen. One that never does leaves the
    /// time-outs alone: behind a pooler in transaction mode, they would be those of others, too.
    #[cold]
    pub(super) fn make_lasting(&mut self) {
        if self.channels.make_lasting() {
            self.send(Tag::Listen(ListenRequest::Setting), Some(&settings(true)), &[]);
        }
    }

    /// Whether an answer is awaited that comes before the next notification.
    pub(super) fn awaits_first(&self) -> bool {
        self.session.unanswered().any(Tag::comes_first)
    }

    /// While somebody's SQL runs the server is silent for as long as that takes, also when its answer is not
    /// wanted any more.
    pub(super) fn see_to_patience(&mut self) {
        let is_patient = self.session.unanswered().any(Tag::takes_its_time);
        self.session.be_patient(is_patient);
    }

    pub(super) fn refuse_if_failed(&self) -> Result<()> {
        if !self.session.has_failed() {
            return Ok(());
        }
        let message = "the session has failed for good: disconnect it, mend the cause, and connect again";
        Err(Error::new(ErrorKind::Connection, message))
    }

    /// The next notification that libpq holds.
    #[inline(always)]
    pub(super) fn next_notification(&mut self) -> Option<Notify> {
        let notify = self.session.connection()?.notifies();
        match &notify {
            Some(_) => self.session.has_said_something(),
            None => self.in_libpq = InLibpq::Nothing,
        }
        notify
    }

    /// Whether libpq may hold one.
    #[inline(always)]
    pub(super) fn may_hold_notifications(&self) -> bool {
        self.is_listening && self.in_libpq != InLibpq::Nothing && !self.is_to_consume()
    }

    /// Whether a turn begins with consuming: the last one has left libpq empty, or there is a rest.
    #[inline(always)]
    pub(super) fn is_to_consume(&self) -> bool {
        self.session.is_ready() && self.in_libpq != InLibpq::Rest
    }

    /// Something has happened that may have brought libpq notifications.
    #[inline(always)]
    pub(super) fn look_again(&mut self) {
        if self.in_libpq == InLibpq::Nothing {
            self.in_libpq = InLibpq::Unknown;
        }
    }

    /// Whether this is the PID of this session's server process.
    #[inline]
    pub(super) fn is_own(&self, pid: i32) -> bool {
        pid == self.backend_pid
    }

    /// Whether the database has another encoding than UTF-8, and what it holds can be converted.
    pub(super) fn is_converted(&mut self) -> bool {
        let encoding = self.session.connection().map(|connection| connection.parameter(c"server_encoding"));
        !matches!(encoding.as_deref(), Some("UTF8" | "SQL_ASCII") | None)
    }

    /// Reports that a command did not succeed; `channel` is the one that it was about, if it was about one.
    pub(super) fn report_failure(&mut self, command: &'static str, channel: Option<Channel>, error: Error) {
        self.reports.push_back(Report::CommandFailed { command, channel, error });
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::pq::Conninfo;
    use crate::reactor::Reactor;
    use crate::session::{Background, Kind};
    use std::time::{Duration, Instant};

    /// A link that is not connected: what a reader sends over it goes nowhere.
    pub(in crate::source::sql) fn link(conninfo: &str, now: Instant) -> Link {
        let id = SessionId(0);
        let jobs = Background::new(Reactor::new().unwrap().nudge().clone()).jobs(id);
        let session = Session::new(Kind::Sql, Conninfo::parse(conninfo).unwrap(), Duration::ZERO, jobs, now);
        Link::new(id, session, Metrics::default())
    }
}
