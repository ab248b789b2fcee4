//! When something is due: the times of one schedule, on its clock.

#[cfg(feature = "schedules")]
use super::civil::Cron;
use super::clock::{ClockKind, Nanos};

/// So many due times of an expression that have passed are counted; more are more than anybody wants to know.
#[cfg(feature = "schedules")]
const COUNTED_MAX: u64 = 10_000;

#[derive(Debug)]
pub(crate) enum Rule {
    /// So many nanoseconds after the last one.
    Every(Nanos),
    /// A cron expression in a time zone.
    #[cfg(feature = "schedules")]
    Cron(Box<Cron>),
}

impl Rule {
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
            Rule::Cron(cron) => cron.due_after(time),
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
            Rule::Cron(cron) => {
                let (mut latest, mut passed) = (due, 0);
                while let Some(next) = cron.due_after(latest).filter(|next| *next <= now) {
                    if passed == COUNTED_MAX {
                        return (cron.latest(now).unwrap_or(latest), passed);
                    }
                    (latest, passed) = (next, passed + 1);
                }
                (latest, passed)
            }
        }
    }
}
