//! When a schedule is due, and what becomes of due times that passed unnoticed.

use super::bounded;
use crate::event::SessionId;
use std::time::Duration;

/// What becomes of due times that have passed without a tick: the process was stopped, the machine slept, the
/// clock was set forward, the last tick was not taken yet.
///
/// A due time that is found within a minute, and before the next one has come, is not missed: its tick is
/// late, and says by how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Missed {
    /// They do not come, and the next tick says how many they were.
    #[default]
    Skip,
    /// The last of them comes, once, and says how many were before it.
    Once,
    /// Each comes, the oldest first.
    All,
}

/// How a schedule works.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ScheduleOptions {
    pub(crate) name: Option<String>,
    pub(crate) time_zone: Option<String>,
    pub(crate) missed: Missed,
    pub(crate) jitter: Duration,
    pub(crate) manual_finish: bool,
    pub(crate) session: Option<SessionId>,
    pub(crate) key: Option<String>,
    pub(crate) sql: Option<String>,
}

impl ScheduleOptions {
    /// The defaults: the system's time zone, no jitter, missed due times are skipped.
    pub fn new() -> Self {
        Self::default()
    }

    /// What [`Tick::schedule`](crate::Tick) says; the expression or the interval unless said otherwise.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The zone in which a cron expression is read, by its name in the IANA database, such as
    /// `Europe/Berlin`; the system's unless said otherwise. An interval has none.
    pub fn time_zone(mut self, time_zone: impl Into<String>) -> Self {
        self.time_zone = Some(time_zone.into());
        self
    }

    /// What becomes of due times that have passed without a tick.
    pub fn missed(mut self, missed: Missed) -> Self {
        self.missed = missed;
        self
    }

    /// Each tick comes up to this much later, at random, so that many processes do not start at once; never
    /// as late as the next due time.
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = bounded(jitter);
        self
    }

    /// The work of a tick goes on after the next event was asked for: no other tick of this schedule comes
    /// before [`EventLoop::finish`](crate::EventLoop::finish) says that it has ended. Due times that pass
    /// meanwhile are missed.
    pub fn manual_finish(mut self, manual_finish: bool) -> Self {
        self.manual_finish = manual_finish;
        self
    }

    /// One of many processes runs each due time: all that have a schedule with this key in the same
    /// database. For each due time the leader is asked for anew, by a lock on this session; only who gets
    /// it has the tick. The lock is held until the work has ended: until the next event is asked for, or
    /// [`manual_finish`](Self::manual_finish). When a leader dies, or its loop stands still for two
    /// heartbeats of the session, the server ends its session, and another gets the lock.
    ///
    /// The schema `pgwake` must be in the database. Its table `pgwake.run` has what became of each due time,
    /// and the last one is kept when nobody runs: what was missed meanwhile is missed as
    /// [`missed`](Self::missed) says. Another expression, interval or zone under the same key begins anew.
    ///
    /// The session needs a self-test ([`SessionOptions::self_test`](crate::SessionOptions::self_test)):
    /// behind a pooler in transaction mode a lock would be somebody else's.
    pub fn leader(mut self, session: SessionId, key: impl Into<String>) -> Self {
        (self.session, self.key) = (Some(session), Some(key.into()));
        self
    }

    /// Runs one command of SQL on this session at each due time; the tick says that it was begun.
    /// [`CommandFailed`](crate::CommandFailed) of the command `sql` reports what the server refuses. While it
    /// runs, all else on the session waits: give it one of its own. Its rows are not kept; more than 16 MB of
    /// them end the connection, and the SQL was done or not. With [`leader`](Self::leader) it is the
    /// leader's session, and the one that is named last counts for both.
    pub fn sql(mut self, session: SessionId, sql: impl Into<String>) -> Self {
        (self.session, self.sql) = (Some(session), Some(sql.into()));
        self
    }
}
