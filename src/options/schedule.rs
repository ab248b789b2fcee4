//! When a schedule is due, and what becomes of due times that passed unnoticed.

use super::bounded;
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
pub struct ScheduleOptions {
    pub(crate) name: Option<String>,
    pub(crate) time_zone: Option<String>,
    pub(crate) missed: Missed,
    pub(crate) jitter: Duration,
    pub(crate) manual_finish: bool,
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
}
