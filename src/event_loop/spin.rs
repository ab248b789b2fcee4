//! How long the loop polls before it sleeps. A wake-up by the kernel takes longer than anything that the loop
//! does; who polls saves it, and pays with the time of a core.

use std::time::{Duration, Instant};

/// How many of the last waits say how long the next will be.
const WAITS: usize = 8;

/// Polling time that was not used is kept up to this.
const SAVED_MAX: Duration = Duration::from_millis(10);

/// The wait for which polling is given up is so many times the expected one.
const PATIENCE: u32 = 2;

#[derive(Debug)]
pub(super) struct Spin {
    is_on: bool,
    /// After each arrival, whatever it costs.
    fixed: Duration,
    /// The part of a core's time that polling may take, when that is to be worth it; zero: not asked for.
    share: f64,
    arrived_at: Instant,
    /// Since when the wait has lasted that is going on.
    waiting_since: Instant,
    /// The last waits, the oldest at `next`.
    waits: [Duration; WAITS],
    next: usize,
    /// Polling time that may be spent.
    saved: Duration,
    saved_at: Instant,
}

impl Spin {
    pub(super) fn new(fixed: Duration, share: f64, now: Instant) -> Self {
        Spin {
            is_on: !fixed.is_zero() || share > 0.0,
            fixed,
            share,
            arrived_at: now,
            waiting_since: now,
            waits: [Duration::MAX; WAITS],
            next: 0,
            saved: Duration::ZERO,
            saved_at: now,
        }
    }

    /// Whether it ever polls.
    #[inline(always)]
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Something came.
    #[cold]
    pub(super) fn arrived(&mut self, now: Instant) {
        self.arrived_at = now;
        if self.share > 0.0 {
            self.waits[self.next] = now.saturating_duration_since(self.waiting_since);
            self.next = (self.next + 1) % WAITS;
        }
    }

    /// A wait begins. Gives until when to poll.
    #[cold]
    pub(super) fn begin(&mut self, now: Instant) -> Instant {
        self.waiting_since = now;
        let fixed = self.arrived_at + self.fixed;
        if self.share <= 0.0 {
            return fixed;
        }
        let earned = now.saturating_duration_since(self.saved_at).mul_f64(self.share);
        (self.saved, self.saved_at) = ((self.saved + earned).min(SAVED_MAX), now);
        // One of them may have been a pause: most of them must have been short.
        let mut waits = self.waits;
        waits.sort_unstable();
        let expected = waits[WAITS * 5 / 8];
        match expected.checked_mul(PATIENCE) {
            Some(longest) if longest <= self.saved => fixed.max(now + longest),
            _ => fixed,
        }
    }

    /// So long was polled.
    #[cold]
    pub(super) fn spent(&mut self, time: Duration) {
        self.saved = self.saved.saturating_sub(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// Arrivals every `gap`: how many of the last 1000 of 2000 were polled for, and the share of time that
    /// took.
    fn simulate(share: f64, gap: Duration) -> (usize, f64) {
        let start = Instant::now();
        let mut spin = Spin::new(Duration::ZERO, share, start);
        let (mut now, mut polled, mut spent) = (start, 0, Duration::ZERO);
        for arrival in 0..2000 {
            let until = spin.begin(now);
            let took = until.saturating_duration_since(now).min(gap);
            spin.spent(took);
            if arrival >= 1000 {
                polled += usize::from(took == gap);
                spent += took;
            }
            spin.arrived(now + gap);
            now += gap;
        }
        (polled, spent.as_secs_f64() / (1000.0 * gap.as_secs_f64()))
    }

    #[test]
    fn arrivals_that_come_soon_are_polled_for_within_the_share() {
        let (polled, spent) = simulate(1.0, 100 * US);
        assert!(polled == 1000 && spent <= 1.0, "{polled} {spent}");
        for share in [0.1, 0.5] {
            let (polled, spent) = simulate(share, 100 * US);
            let expected = (1000.0 * share) as usize;
            assert!(spent <= share * 1.15 && polled + 100 > expected, "{share}: {polled} {spent}");
        }
        assert_eq!(simulate(0.1, Duration::from_secs(1)).0, 0, "what comes seldom is slept for");
    }

    #[test]
    fn a_pause_does_not_make_it_forget_and_silence_does_not_keep_it_awake() {
        let start = Instant::now();
        let mut spin = Spin::new(Duration::ZERO, 0.5, start);
        let mut now = start;
        for _ in 0..WAITS {
            spin.begin(now);
            now += 50 * US;
            spin.arrived(now);
        }
        spin.begin(now);
        now += Duration::from_secs(1);
        spin.arrived(now);
        let until = spin.begin(now);
        assert_eq!(until - now, 100 * US, "seven of eight came soon");
        spin.spent(until - now);
        // Nothing came: it sleeps, and does not ask again until something has.
        assert!(spin.saved < SAVED_MAX);
    }

    #[test]
    fn a_fixed_time_is_polled_after_each_arrival() {
        let start = Instant::now();
        let mut spin = Spin::new(200 * US, 0.0, start);
        assert!(spin.is_on() && !Spin::new(Duration::ZERO, 0.0, start).is_on());
        spin.begin(start);
        spin.arrived(start + 50 * US);
        assert_eq!(spin.begin(start + 60 * US), start + 250 * US);
    }
}
