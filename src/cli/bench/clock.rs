//! Clocks that every process of a measurement shares.

use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};

fn nanoseconds(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// The time since some moment that is the same for all processes of this machine.
#[inline]
pub(super) fn now_ns() -> i64 {
    nanoseconds(ClockId::Monotonic)
}

/// The CPU that this process has used.
pub(super) fn cpu_ns() -> i64 {
    nanoseconds(ClockId::ProcessCPUTime)
}

/// Sleeps until then, or until a signal comes.
pub(super) fn sleep_until(at_ns: i64) {
    let at = Timespec { tv_sec: at_ns / 1_000_000_000, tv_nsec: at_ns % 1_000_000_000 };
    let _ = clock_nanosleep_absolute(ClockId::Monotonic, &at);
}
