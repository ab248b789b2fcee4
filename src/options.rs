//! How a loop and a session work: what their owner may choose, with its defaults.

mod limits;
mod poll;
mod schedule;
mod stream;
mod watch;

pub(crate) use limits::{HEARTBEAT_DEFAULT, bounded};
pub use poll::PollOptions;
pub use schedule::{Missed, ScheduleOptions};
use std::time::Duration;
pub use stream::{Origin, StreamOptions, Streaming};
pub use watch::{ChangePayload, DdlOptions, WatchOptions};

/// How long the loop may stand still before it says so.
const STALL_WARNING_DEFAULT: Duration = Duration::from_secs(5);

/// How a loop works.
#[derive(Debug, Clone)]
#[must_use]
pub struct EventLoopOptions {
    pub(crate) spin: Duration,
    pub(crate) spin_adaptive: f64,
    pub(crate) stall_warning: Duration,
}

impl Default for EventLoopOptions {
    fn default() -> Self {
        EventLoopOptions { spin: Duration::ZERO, spin_adaptive: 0.0, stall_warning: STALL_WARNING_DEFAULT }
    }
}

impl EventLoopOptions {
    /// The defaults: sleep whenever there is nothing to do, and warn when nobody calls `next` for 5 s.
    pub fn new() -> Self {
        Self::default()
    }

    /// When the loop stands still for longer while events or its timers wait, because nobody calls `next` or
    /// a turn takes that long, it logs a warning and counts it ([`Metrics::stalls`](crate::Metrics)): what
    /// comes meanwhile is kept by the server, whose queue is the same for everybody. Zero: never. 5 s unless
    /// said otherwise.
    pub fn stall_warning(mut self, stall_warning: Duration) -> Self {
        self.stall_warning = bounded(stall_warning);
        self
    }

    /// Polls that long without sleeping after something came, before sleep. It takes the time of a wake-up by
    /// the kernel off the next notification's latency, for a whole core meanwhile. Zero, unless said
    /// otherwise.
    pub fn spin(mut self, spin: Duration) -> Self {
        self.spin = bounded(spin);
        self
    }

    /// Polls without sleeping while the last arrivals say that the next one comes soon, for at most this
    /// share of a core's time: 0.1 is a tenth. What is not used is saved up to 10 ms.
    pub fn spin_adaptive(mut self, share: f64) -> Self {
        self.spin_adaptive = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        self
    }
}

/// How a session works.
#[derive(Debug, Clone)]
#[must_use]
pub struct SessionOptions {
    pub(crate) heartbeat: Duration,
    pub(crate) skip_own: bool,
    pub(crate) overflow: Overflow,
    pub(crate) self_test: bool,
    pub(crate) count_bytes: bool,
}

/// What is done with notifications that come faster than they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// They stay in the server until they are taken. Nothing is lost and memory stays flat, but a caller that
    /// stays away for long keeps the server's notification queue from being cleaned.
    #[default]
    Block,
    /// One is kept for each channel, the latest, and says how many others it stands for: NOTIFY as a wake-up.
    Coalesce,
    /// That many are kept, and the oldest are dropped for newer ones. A [`Gap`](crate::Gap) says how many.
    DropOldest(usize),
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            heartbeat: HEARTBEAT_DEFAULT,
            skip_own: false,
            overflow: Overflow::Block,
            self_test: false,
            count_bytes: false,
        }
    }
}

impl SessionOptions {
    /// The defaults: a heartbeat of 5 s, own notifications are delivered like others.
    pub fn new() -> Self {
        Self::default()
    }

    /// When nothing came for this long, 5 s unless said otherwise, an empty query is sent; when that is not
    /// answered within the same time again, the connection is given up. Zero sends none: a frozen server then
    /// goes unnoticed.
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = bounded(heartbeat);
        self
    }

    /// What is done with notifications that come faster than they are taken.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Before the session listens for the first time, sends it a notification over a second, short-lived
    /// connection, and waits a heartbeat for it: a pooler in transaction mode takes LISTEN and delivers
    /// nothing. A session that hears nothing twice ends in [`Failed`](crate::Event::Failed) with `0A000`.
    pub fn self_test(mut self, self_test: bool) -> Self {
        self.self_test = self_test;
        self
    }

    /// Counts the bytes of notifications into [`Metrics::bytes`](crate::Metrics). Without it, nobody counts
    /// the lengths of what the caller does not look at ([`Text`](crate::Text)), and floods go a shorter way.
    pub fn count_bytes(mut self, count_bytes: bool) -> Self {
        self.count_bytes = count_bytes;
        self
    }

    /// Leaves out notifications that this session sent itself.
    pub fn skip_own(mut self, skip_own: bool) -> Self {
        self.skip_own = skip_own;
        self
    }
}
