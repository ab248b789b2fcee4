//! What durations are cut to.

use std::time::Duration;

/// A duration that can be added to the time of day: 30 years, beyond which nobody waits.
pub(crate) fn bounded(duration: Duration) -> Duration {
    duration.min(Duration::from_secs(30 * 365 * 24 * 3600))
}
