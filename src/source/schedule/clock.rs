//! The two clocks that schedules go by, and times on them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds: since 1970 on the wall clock, since an agenda was made on the monotonic one.
pub(crate) type Nanos = i128;

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

/// A duration; what is less than nothing is nothing.
pub(super) fn duration(nanos: Nanos) -> Duration {
    Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
}

pub(super) fn wall_nanos(wall: SystemTime) -> Nanos {
    match wall.duration_since(UNIX_EPOCH) {
        Ok(since) => nanos(since),
        Err(before) => -nanos(before.duration()),
    }
}

/// A time on the wall clock. A duration holds 584 years, and who waits for what lies behind them waits in
/// vain.
pub(super) fn wall_time(nanos: Nanos) -> SystemTime {
    let distance = duration(nanos.abs());
    if nanos < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}
