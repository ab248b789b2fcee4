//! When something is due: the times of one schedule on its clock.

#[cfg(feature = "schedules")]
use super::civil::Civil;
#[cfg(feature = "schedules")]
use crate::error::Result;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds: since 1970 on the wall clock, since an agenda was made on the monotonic one.
pub(crate) type Nanos = i128;

pub(super) fn wall_nanos(wall: SystemTime) -> Nanos {
    match wall.duration_since(UNIX_EPOCH) {
        Ok(since) => nanos(since),
        Err(before) => -nanos(before.duration()),
    }
}

pub(super) fn nanos(duration: Duration) -> Nanos {
    duration.as_nanos() as Nanos
}

/// So many due times of an expression that have passed are counted; more are more than anybody wants to know.
#[cfg(feature = "schedules")]
const COUNTED_MAX: u64 = 10_000;

/// Which clock a schedule goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClockKind {
    Monotonic,
    #[cfg(feature = "schedules")]
    Wall,
}

#[derive(Debug)]
pub(crate) enum Rule {
    /// So many nanoseconds after the last one.
    Every(Nanos),
    /// A cron expression in a time zone.
    #[cfg(feature = "schedules")]
    Cron(Box<Civil>),
}

impl Rule {
    /// A cron expression in the zone of that name, or in the system's.
    #[cfg(feature = "schedules")]
    pub(crate) fn cron(expression: &str, zone: Option<&str>, now: SystemTime) -> Result<Self> {
        Ok(Rule::Cron(Box::new(Civil::new(expression, zone, wall_nanos(now))?)))
    }

    pub(super) fn clock(&self) -> ClockKind {
        match self {
            Rule::Every(_) => ClockKind::Monotonic,
            #[cfg(feature = "schedules")]
            Rule::Cron(_) => ClockKind::Wall,
        }
    }

    /// The first due time behind `time`, which is one itself if the rule is an interval; `None` when there is
    /// none.
    pub(super) fn after(&self, time: Nanos) -> Option<Nanos> {
        match self {
            Rule::Every(interval) => Some(time + interval),
            #[cfg(feature = "schedules")]
            Rule::Cron(civil) => civil.after(time),
        }
    }

    /// The last due time up to `now`, and how many lie before it from `due` on, which is the first of them.
    pub(super) fn latest(&self, due: Nanos, now: Nanos) -> (Nanos, u64) {
        match self {
            Rule::Every(interval) => {
                let passed = (now - due) / interval;
                (due + passed * interval, passed as u64)
            }
            #[cfg(feature = "schedules")]
            Rule::Cron(civil) => {
                let (mut latest, mut passed) = (due, 0);
                while let Some(next) = civil.after(latest).filter(|next| *next <= now) {
                    if passed == COUNTED_MAX {
                        return (civil.latest(now).unwrap_or(latest), passed);
                    }
                    (latest, passed) = (next, passed + 1);
                }
                (latest, passed)
            }
        }
    }
}
