//! How often the loop stood still, and for how long at most.

use std::time::Duration;

#[derive(Debug)]
pub(super) struct Stalls {
    /// Longer than this is a stall; zero: none is.
    warning: Duration,
    pub(super) count: u64,
    pub(super) longest: Duration,
}

impl Stalls {
    pub(super) fn new(warning: Duration) -> Self {
        Stalls { warning, count: 0, longest: Duration::ZERO }
    }

    #[inline(always)]
    pub(super) fn note(&mut self, stood_still: Duration) {
        if stood_still > self.warning && !self.warning.is_zero() {
            self.warn(stood_still);
        }
    }

    #[cold]
    fn warn(&mut self, stood_still: Duration) {
        self.count += 1;
        self.longest = self.longest.max(stood_still);
        log::warn!(
            "the loop stood still for {stood_still:.1?}: take events more often, or let the sessions \
             overflow; meanwhile the server keeps what comes, in a queue that is the same for everybody"
        );
    }
}
