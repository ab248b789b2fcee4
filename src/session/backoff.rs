//! How long to wait before the next attempt to connect: doubling, with full jitter, so that many clients of
//! one server do not come back in step.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The first wait is at most this long: a restart of the server is often over by then.
const DELAY_FIRST: Duration = Duration::from_millis(50);
/// No wait is longer: people expect a service back within seconds of its database.
const DELAY_MAX: Duration = Duration::from_secs(5);
/// When the server has too many connections, attempts are part of the problem.
const DELAY_CROWDED_MAX: Duration = Duration::from_secs(30);

/// The delays between one success and the next.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure.
    pub(crate) fn next_delay(&mut self, crowded: bool) -> Duration {
        let delay = if crowded { DELAY_CROWDED_MAX } else { self.delay_max() };
        self.failures = self.failures.saturating_add(1);
        // The hash of nothing under fresh random keys is a random number.
        let random = RandomState::new().build_hasher().finish();
        delay.mul_f64(random as f64 / u64::MAX as f64)
    }

    fn delay_max(&self) -> Duration {
        DELAY_FIRST.saturating_mul(1 << self.failures.min(16)).min(DELAY_MAX)
    }

    /// Starts afresh after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_limit_with_full_jitter() {
        let mut backoff = Backoff::default();
        let mut limits = Vec::new();
        for _ in 0..40 {
            let limit = backoff.delay_max();
            assert!(backoff.next_delay(false) <= limit);
            limits.push(limit.as_millis());
        }
        assert_eq!(limits[..9], [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(limits[39], 5000);
        backoff.reset();
        assert_eq!(backoff.delay_max(), DELAY_FIRST);
        let delays: std::collections::BTreeSet<_> =
            (0..20).map(|_| Backoff::default().next_delay(true)).collect();
        assert!(delays.len() > 10 && *delays.last().unwrap() <= DELAY_CROWDED_MAX);
    }
}
