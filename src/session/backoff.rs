//! How long to wait before the next attempt to connect: doubling, with full jitter, so that many clients of
//! one server do not come back in step; and never long beside the outage itself.

use crate::sys::random;
use std::time::{Duration, Instant};

/// The first wait is at most this long: a restart of the server is often over by then.
const DELAY_FIRST: Duration = Duration::from_millis(50);
/// While the outage is young, no wait is longer: who is back within seconds is used within a second.
const DELAY_YOUNG_MAX: Duration = Duration::from_millis(500);
/// Later a wait may take this part of the outage so far.
const OUTAGE_PARTS: u32 = 4;
/// No wait is longer: people expect a service back within seconds of its database.
const DELAY_MAX: Duration = Duration::from_secs(5);
/// When the server has too many connections, attempts are part of the problem.
const DELAY_CROWDED_MAX: Duration = Duration::from_secs(30);

/// The delays between one success and the next.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    first_failure_at: Option<Instant>,
}

impl Backoff {
    /// The wait after one more failure.
    pub(crate) fn next_delay(&mut self, crowded: bool, now: Instant) -> Duration {
        let outage = now.saturating_duration_since(*self.first_failure_at.get_or_insert(now));
        let delay = if crowded { DELAY_CROWDED_MAX } else { self.delay_max(outage) };
        self.failures = self.failures.saturating_add(1);
        delay.mul_f64(random() as f64 / u64::MAX as f64)
    }

    fn delay_max(&self, outage: Duration) -> Duration {
        let doubled = DELAY_FIRST.saturating_mul(1 << self.failures.min(16));
        doubled.min(DELAY_YOUNG_MAX.max(outage / OUTAGE_PARTS)).min(DELAY_MAX)
    }

    /// Starts afresh after a success.
    pub(crate) fn reset(&mut self) {
        *self = Backoff::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_limit_with_full_jitter() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let mut limits = Vec::new();
        for _ in 0..40 {
            let limit = backoff.delay_max(Duration::from_secs(60));
            assert!(backoff.next_delay(false, start + Duration::from_secs(60)) <= limit);
            limits.push(limit.as_millis());
        }
        assert_eq!(limits[..9], [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(limits[39], 5000);
        backoff.reset();
        assert_eq!(backoff.delay_max(Duration::ZERO), DELAY_FIRST);
        let delays: std::collections::BTreeSet<_> =
            (0..20).map(|_| Backoff::default().next_delay(true, start)).collect();
        assert!(delays.len() > 10 && *delays.last().unwrap() <= DELAY_CROWDED_MAX);
    }

    #[test]
    fn no_wait_is_long_beside_the_outage() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        (0..20).for_each(|_| assert!(backoff.next_delay(false, start) <= DELAY_YOUNG_MAX));
        assert_eq!(backoff.delay_max(Duration::from_secs(1)), DELAY_YOUNG_MAX);
        assert_eq!(backoff.delay_max(Duration::from_secs(8)), Duration::from_secs(2));
        assert_eq!(backoff.delay_max(Duration::from_secs(60)), DELAY_MAX);
    }
}
