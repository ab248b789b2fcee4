//! How long to wait before something that failed is tried again: doubling, with jitter, so that many do not
//! come back to one sink in step.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The first wait is at most this long,
const FIRST: Duration = Duration::from_millis(100);

/// and the longest this.
const MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure: between half of it and all.
    pub(super) fn next_delay(&mut self) -> Duration {
        let longest = FIRST.saturating_mul(1 << self.failures.min(16)).min(MAX);
        self.failures = self.failures.saturating_add(1);
        // The hash of nothing under fresh random keys is a random number.
        let random = RandomState::new().build_hasher().finish();
        longest.mul_f64(0.5 + random as f64 / u64::MAX as f64 / 2.0)
    }

    /// Something succeeded.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_get_longer_up_to_a_limit_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        for failures in 0..40 {
            let longest = FIRST.saturating_mul(1 << failures.min(16)).min(MAX);
            let delay = backoff.next_delay();
            assert!(delay >= longest / 2 && delay <= longest, "{failures}: {delay:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= FIRST);
    }
}
