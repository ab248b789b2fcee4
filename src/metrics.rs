//! What a session has done so far, in numbers: pure data, copied out of the loop when asked for.

use crate::event::Lsn;
use std::fmt;
use std::time::{Duration, SystemTime};

/// What a session has done since it was added to its loop.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Metrics {
    /// Notifications given to the caller.
    pub notifications: u64,
    /// The bytes of their channels and payloads, if the session was told to
    /// [count them](crate::SessionOptions::count_bytes).
    pub bytes: Option<u64>,
    /// Row changes given to the caller ([`Change`](crate::Change)).
    pub changes: u64,
    /// Queries of polls that were answered without an error, whether they found rows or not.
    pub polls: u64,
    /// Notifications that others stood for ([`Overflow::Coalesce`](crate::Overflow)).
    pub folded: u64,
    /// Notifications that were dropped ([`Overflow::DropOldest`](crate::Overflow)).
    pub dropped: u64,
    /// Gaps that were delivered, of any reason.
    pub gaps: u64,
    /// How often it listened again after an outage.
    pub reconnects: u64,
    /// When the last heartbeat's probe was sent that has been answered.
    pub last_probe: Option<SystemTime>,
    /// How long its answer took. A caller that is away makes it longer.
    pub probe_round_trip: Option<Duration>,
    /// How often it had its turn.
    pub turns: u64,
    /// The longest turn, with what the caller did with its events meanwhile.
    pub longest_turn: Duration,
    /// From the readiness of the socket until the first notification of that turn was given to the caller;
    /// the wake-up by the kernel comes before it.
    pub delivery: Histogram,
    /// How often the whole loop stood still for longer than
    /// [`stall_warning`](crate::EventLoopOptions::stall_warning), because nobody called `next` or a turn took
    /// that long.
    pub stalls: u64,
    /// The longest time for which it did.
    pub longest_stall: Duration,
    /// Of a stream: how far the server's log has come as far as it is known here.
    pub received_lsn: Option<Lsn>,
    /// Of a stream: what the server was told is done with. It keeps what comes behind it.
    pub acknowledged_lsn: Option<Lsn>,
    /// Of a stream: messages of a kind that is not known here, which were passed over.
    pub unknown_messages: u64,
    /// Of a stream: the bytes of transactions that are held back until their commit, in memory and in files.
    pub held_back_bytes: u64,
}

impl Metrics {
    /// A turn is over. It holds what the caller did with its events.
    #[inline]
    pub(crate) fn end_turn(&mut self, took: Duration) {
        self.turns += 1;
        self.longest_turn = self.longest_turn.max(took);
    }
}

/// Buckets for each power of two: what is read from it is a quarter too long at most.
const PARTS: usize = 4;

/// The powers of two in nanoseconds, up to 137 s.
const POWERS: usize = 36;

/// How often something took how long, by powers of two in four parts each.
#[derive(Clone)]
pub struct Histogram {
    counts: [u64; PARTS * POWERS],
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: [0; PARTS * POWERS], max_ns: 0 }
    }
}

impl Histogram {
    #[inline]
    pub(crate) fn record(&mut self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns)] += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// How many durations are in it.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The duration that this part of all stayed within, 0.5 for the median; rounded up by a quarter at most.
    /// Zero when nothing is in it.
    pub fn quantile(&self, part: f64) -> Duration {
        let rank = (self.count() as f64 * part.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(self.upper_ns(index).min(self.max_ns));
            }
        }
        Duration::ZERO
    }

    /// The longest, exactly.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    /// Each bucket that holds something: the longest duration that falls into it, and how many did.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(index, count)| (Duration::from_nanos(self.upper_ns(index)), *count))
    }

    /// The longest that falls into a bucket; into the last falls all that is longer.
    fn upper_ns(&self, index: usize) -> u64 {
        if index + 1 == PARTS * POWERS { self.max_ns } else { upper_ns(index) }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, median, most) = (self.count(), self.quantile(0.5), self.quantile(0.99));
        write!(f, "{count} (median {median:?}, 99 % {most:?}, longest {:?})", self.max())
    }
}

/// Below 4 ns each has its own bucket; then the highest bit and the two after it say which.
#[inline]
fn bucket(ns: u64) -> usize {
    let power = (ns | 1).ilog2() as usize;
    match power {
        0 | 1 => ns as usize,
        _ => ((power - 1) * PARTS + (ns >> (power - 2)) as usize % PARTS).min(PARTS * POWERS - 1),
    }
}

/// The last nanosecond that falls into a bucket.
fn upper_ns(index: usize) -> u64 {
    match index {
        0..PARTS => index as u64,
        _ => (((PARTS + index % PARTS + 1) as u64) << (index / PARTS - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_falls_into_a_bucket_that_ends_soon_after_it() {
        let mut last = 0;
        for ns in (0..5000).chain([1 << 20, (1 << 30) + 7, 60_000_000_000]) {
            let index = bucket(ns);
            assert!(index >= last && index - last <= 250, "{ns}");
            assert!(upper_ns(index) >= ns && (upper_ns(index) - ns) as f64 <= ns as f64 / 4.0, "{ns}");
            assert!(index == 0 || upper_ns(index - 1) < ns, "{ns}");
            last = index;
        }
        assert_eq!(bucket(u64::MAX), PARTS * POWERS - 1);
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.count(), histogram.quantile(0.5)), (0, Duration::ZERO));
        (1..=1000).for_each(|us| histogram.record(Duration::from_micros(us)));
        let within = |duration: Duration, us: u64| {
            duration.as_micros() as u64 >= us && duration.as_micros() as u64 <= us + us / 4
        };
        assert_eq!((histogram.count(), histogram.max()), (1000, Duration::from_micros(1000)));
        assert!(within(histogram.quantile(0.5), 500) && within(histogram.quantile(0.99), 990));
        assert_eq!(histogram.quantile(1.0), Duration::from_micros(1000));
        assert_eq!(histogram.buckets().map(|(_, count)| count).sum::<u64>(), 1000);
    }
}
