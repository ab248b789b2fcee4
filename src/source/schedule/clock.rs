//! The two clocks that schedules go by, and times on them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds: since 1970 on the wall clock, since an agenda was made on the monotonic one.
pub(crate) type Nanos = i128;

const NANOS_PER_SECOND: Nanos = 1_000_000_000;

/// Which clock a schedule goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClockKind {
    /// What happens to the time of day is nothing to it.
    Monotonic,
    #[cfg(feature = "schedules")]
    Wall,
}

/// Both clocks, read at one time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    pub(crate) wall: SystemTime,
}

impl Now {
    pub(crate) fn read() -> Self {
        Now { instant: Instant::now(), wall: SystemTime::now() }
    }
}

pub(super) fn nanos(duration: Duration) -> Nanos {
    duration.as_nanos() as Nanos
}

/// A duration; what is less than nothing is nothing, and nobody waits for more than 584 years.
pub(super) fn duration(nanos: Nanos) -> Duration {
    Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
}

pub(super) fn wall_nanos(wall: SystemTime) -> Nanos {
    match wall.duration_since(UNIX_EPOCH) {
        Ok(since) => nanos(since),
        Err(before) => -nanos(before.duration()),
    }
}

/// A time on the wall clock. It is one of an expression, which ends with the year 5000, or close to now.
pub(super) fn wall_time(nanos: Nanos) -> SystemTime {
    let (seconds, rest) = (nanos.div_euclid(NANOS_PER_SECOND), nanos.rem_euclid(NANOS_PER_SECOND));
    let whole = Duration::from_secs(seconds.unsigned_abs() as u64);
    let second = if seconds < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
    second + duration(rest)
}
