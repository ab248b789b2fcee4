//! When a query is run next: by its interval, which grows while nothing is found, and at once when somebody
//! wakes it.

use std::time::{Duration, Instant};

/// Wake-ups may come without end: after each query it rests as long as that took, but no longer than this.
const REST_MAX: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Pace {
    every: Duration,
    /// The longest interval.
    max: Duration,
    /// The interval as it is now.
    wait: Duration,
    next: Option<Instant>,
    asked_at: Option<Instant>,
    is_woken: bool,
    /// From when on a wake-up counts; not at all after a refusal.
    rested_at: Option<Instant>,
}

impl Pace {
    pub(super) fn new(every: Duration, adaptive: Option<Duration>) -> Self {
        let max = adaptive.unwrap_or(every);
        Pace { every, max, wait: every, next: None, asked_at: None, is_woken: false, rested_at: None }
    }

    /// From now on: at once.
    pub(super) fn begin(&mut self, now: Instant) {
        *self = Pace { next: Some(now), ..Pace::new(self.every, Some(self.max)) };
    }

    /// Not before the interval is over, and wake-ups change nothing of that.
    pub(super) fn put_off(&mut self, now: Instant, delay: Duration) {
        let wait = self.next_wait(false).max(delay);
        (self.next, self.asked_at, self.is_woken, self.rested_at) = (Some(now + wait), None, false, None);
    }

    pub(super) fn wake_up(&mut self) {
        self.is_woken = true;
    }

    /// When to ask.
    pub(super) fn next(&self) -> Option<Instant> {
        [self.next, self.rested_at.filter(|_| self.is_woken)].into_iter().flatten().min()
    }

    pub(super) fn asked(&mut self, now: Instant) {
        (self.next, self.asked_at, self.is_woken) = (None, Some(now), false);
    }

    /// Whether it was asked, and the answer is not taken.
    pub(super) fn is_asked(&self) -> bool {
        self.asked_at.is_some()
    }

    /// The answer does not count.
    pub(super) fn forget(&mut self) {
        self.asked_at = None;
    }

    /// The answer came, and all of it was taken. The interval counts from when it was asked for; but when
    /// there is more, the next is due now.
    pub(super) fn taken(&mut self, now: Instant, has_found: bool, has_more: bool) {
        let asked_at = self.asked_at.take().unwrap_or(now);
        let took = now.saturating_duration_since(asked_at);
        let wait = self.next_wait(has_found);
        self.next = Some(if has_more { now } else { (asked_at + wait).max(now) });
        self.rested_at = Some(now + took.min(REST_MAX));
    }

    /// How long to wait; after nothing was found, twice as long the next time.
    fn next_wait(&mut self, has_found: bool) -> Duration {
        let wait = if has_found { self.every } else { self.wait };
        self.wait = if has_found { self.every } else { (2 * wait).min(self.max) };
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// Asks when it is due, and has the answer a millisecond later.
    fn ask(pace: &mut Pace, has_found: bool) -> Instant {
        let at = pace.next().unwrap();
        pace.asked(at);
        assert_eq!(pace.next(), None, "one at a time");
        pace.taken(at + S / 1000, has_found, false);
        at
    }

    #[test]
    fn an_idle_poll_at_a_second_that_may_wait_a_minute_asks_at_most_70_times_an_hour() {
        let start = Instant::now();
        let mut pace = Pace::new(S, Some(60 * S));
        pace.begin(start);
        let times: Vec<_> = std::iter::repeat_with(|| (ask(&mut pace, false) - start).as_secs())
            .take_while(|at| *at < 3600)
            .collect();
        assert_eq!(times[..9], [0, 1, 3, 7, 15, 31, 63, 123, 183]);
        println!("{} queries in an idle hour", times.len());
        assert!((60..=70).contains(&times.len()), "{}", times.len());
    }

    #[test]
    fn what_is_found_brings_the_interval_back() {
        let start = Instant::now();
        let mut pace = Pace::new(S, Some(8 * S));
        pace.begin(start);
        let found = [false, false, false, true, false, false, true];
        let times: Vec<_> = found.map(|found| (ask(&mut pace, found) - start).as_secs()).into();
        assert_eq!(times, [0, 1, 3, 7, 8, 9, 11]);
        let mut fixed = Pace::new(S, None);
        fixed.begin(start);
        let times = [false; 4].map(|found| (ask(&mut fixed, found) - start).as_secs());
        assert_eq!(times, [0, 1, 2, 3]);
    }

    #[test]
    fn a_wake_up_counts_once_it_has_rested_and_one_during_a_query_is_for_the_next() {
        let start = Instant::now();
        let mut pace = Pace::new(3600 * S, None);
        pace.begin(start);
        pace.asked(start);
        pace.wake_up();
        pace.taken(start + S / 100, true, false);
        assert_eq!(pace.next(), Some(start + S / 50), "it rests as long as the query took");
        pace.asked(start + S / 50);
        pace.taken(start + 10 * S, true, false);
        pace.wake_up();
        assert_eq!(pace.next(), Some(start + 10 * S + REST_MAX));
        pace.put_off(start + 11 * S, S);
        pace.wake_up();
        assert_eq!(pace.next(), Some(start + 3611 * S), "what was refused is not asked again because of it");
    }

    #[test]
    fn a_caller_that_takes_long_is_asked_for_at_once_and_a_backlog_is_read_on() {
        let start = Instant::now();
        let mut pace = Pace::new(S, None);
        pace.begin(start);
        pace.asked(start);
        pace.taken(start + 5 * S, true, false);
        assert_eq!(pace.next(), Some(start + 5 * S));
        pace.asked(start + 5 * S);
        pace.taken(start + 5 * S + S / 10, true, true);
        assert_eq!(pace.next(), Some(start + 5 * S + S / 10));
    }
}
