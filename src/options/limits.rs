//! What durations are by default, and what they are cut to.

use std::time::Duration;

/// How long a session may hear nothing before it asks the server for a sign of life.
pub(crate) const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(5);

/// A duration that can be added to the time of day: 30 years, beyond which nobody waits.
pub(crate) fn bounded(duration: Duration) -> Duration {
    duration.min(Duration::from_secs(30 * 365 * 24 * 3600))
}
