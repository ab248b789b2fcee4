//! When the outbox is read next: at once after a wake-up, soon while writers are at work, now and then in any
//! case.

use std::time::{Duration, Instant};

/// How soon it is read again while writers are at work; doubled while nothing comes.
const WAIT_MIN: Duration = Duration::from_millis(2);
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The same for a while after a change or a wake-up: a transaction that let another wake the readers may be
/// stuck in its commit for want of a processor, and what it wrote is not to be late by much.
const WAIT_SOON_MAX: Duration = Duration::from_millis(32);
const SOON: Duration = Duration::from_secs(5);

/// How often it is read where nobody can wake a reader, for transactions may be prepared.
const WAIT_PREPARED: Duration = Duration::from_millis(100);

/// However many wake-ups come, between two reads is a rest as long as the last one took, but no longer than
/// this.
const REST_MAX: Duration = Duration::from_millis(50);

/// What a page advises at its end (`install/README.md`); anything else is no reason to sleep.
const SLEEP: u64 = 0;
const GO_ON: u64 = 1;
const MAY_BE_PREPARED: u64 = 3;

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Zero: never by itself.
    fallback: Duration,
    next: Option<Instant>,
    is_woken: bool,
    /// The last wait for writers at work.
    wait: Duration,
    /// When the last change or wake-up came.
    stirred_at: Option<Instant>,
    asked_at: Option<Instant>,
    /// From when on a wake-up counts; not at all after a refusal.
    rested_at: Option<Instant>,
}

impl Pace {
    pub(super) fn new(fallback: Duration) -> Self {
        Pace { fallback, ..Pace::default() }
    }

    /// A consumer was opened: the first read.
    pub(super) fn begin(&mut self, now: Instant) {
        *self = Pace { next: Some(now), ..Pace::new(self.fallback) };
    }

    pub(super) fn wake_up(&mut self) {
        self.is_woken = true;
    }

    /// When to read.
    pub(super) fn next(&self) -> Option<Instant> {
        [self.next, self.rested_at.filter(|_| self.is_woken)].into_iter().flatten().min()
    }

    /// A page is being asked for.
    pub(super) fn asked(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_woken) {
            self.stir(now);
        }
        (self.next, self.asked_at) = (None, Some(now));
    }

    pub(super) fn answered(&mut self, now: Instant) {
        let took = self.asked_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.rested_at = Some(now + took.min(REST_MAX));
    }

    /// The caller has all of a page, which had that many changes.
    pub(super) fn page_ended(&mut self, now: Instant, advice: u64, changes: usize) {
        if changes > 0 {
            self.stir(now);
        }
        let fallback = Some(self.fallback).filter(|fallback| !fallback.is_zero());
        let wait = match advice {
            SLEEP => fallback,
            GO_ON => Some(Duration::ZERO),
            MAY_BE_PREPARED => [fallback, Some(WAIT_PREPARED)].into_iter().flatten().min(),
            _ => {
                let is_soon = self.stirred_at.is_some_and(|at| now.saturating_duration_since(at) < SOON);
                let longest = if is_soon { WAIT_SOON_MAX } else { WAIT_MAX };
                self.wait = (self.wait * 2).clamp(WAIT_MIN, longest);
                Some(self.wait)
            }
        };
        self.next = wait.map(|wait| now + wait);
    }

    /// The server refused to read: not before then, whatever wake-ups come.
    pub(super) fn put_off(&mut self, until: Instant) {
        (self.next, self.rested_at, self.is_woken) = (Some(until), None, false);
    }

    fn stir(&mut self, now: Instant) {
        (self.wait, self.stirred_at) = (Duration::ZERO, Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const WRITERS_AT_WORK: u64 = 2;

    /// Reads once; how long it waits then, after so many milliseconds.
    fn wait(
        pace: &mut Pace,
        start: Instant,
        times: [u32; 2],
        advice: u64,
        changes: usize,
    ) -> Option<Duration> {
        let [asked, answered] = times.map(|time| start + time * MS);
        pace.asked(asked);
        pace.answered(answered);
        pace.page_ended(answered, advice, changes);
        pace.next().map(|next| next - answered)
    }

    #[test]
    fn a_wake_up_is_followed_at_once_but_not_all_of_the_time() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::ZERO);
        assert_eq!(pace.next(), None);
        pace.begin(start);
        assert_eq!(pace.next(), Some(start));
        assert_eq!(wait(&mut pace, start, [0, 3], SLEEP, 0), None, "no fallback was asked for");
        pace.wake_up();
        assert_eq!(pace.next(), Some(start + 6 * MS), "it rests as long as the last read took");
        pace.asked(start + 6 * MS);
        pace.wake_up();
        pace.answered(start + 400 * MS);
        assert_eq!(pace.next(), Some(start + 450 * MS), "one that comes during a read is for the next");
        pace.put_off(start + 500 * MS);
        pace.wake_up();
        assert_eq!(pace.next(), Some(start + 500 * MS), "what was refused is not asked again because of it");
    }

    #[test]
    fn while_writers_are_at_work_it_is_read_again_and_again() {
        let start = Instant::now();
        let mut pace = Pace::new(5000 * MS);
        for (changes, expected) in [(1, 2), (0, 4), (0, 8), (1, 2), (0, 4)] {
            assert_eq!(wait(&mut pace, start, [0, 0], WRITERS_AT_WORK, changes), Some(expected * MS));
        }
        pace.wake_up();
        assert_eq!(wait(&mut pace, start, [0, 0], 99, 0), Some(2 * MS), "an advice of a later version");
        for (after, longest) in [(4_900, WAIT_SOON_MAX), (5_000, WAIT_MAX)] {
            let waits = (0..10).map(|_| wait(&mut pace, start, [after; 2], WRITERS_AT_WORK, 0));
            assert_eq!(waits.last(), Some(Some(longest)));
        }
        assert_eq!(wait(&mut pace, start, [0, 0], SLEEP, 0), Some(5000 * MS));
        assert_eq!(wait(&mut pace, start, [0, 0], GO_ON, 1000), Some(Duration::ZERO));
    }

    #[test]
    fn where_nobody_can_wake_it_it_is_read_often() {
        for (fallback, expected) in [(0, 100), (50, 50), (5000, 100)] {
            let wait = wait(&mut Pace::new(fallback * MS), Instant::now(), [0, 0], MAY_BE_PREPARED, 0);
            assert_eq!(wait, Some(expected * MS));
        }
    }
}
