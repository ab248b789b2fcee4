//! When the sessions' deadlines come, and what the one timer is set to for them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Timers {
    entries: BTreeSet<(Instant, usize)>,
    /// What the timer is set to.
    set_to: Option<Instant>,
    /// From here on the times are counted at which deadlines with slack are taken together.
    began_at: Instant,
}

impl Timers {
    pub(super) fn new(now: Instant) -> Self {
        Timers { entries: BTreeSet::new(), set_to: None, began_at: now }
    }

    /// Enters a session's deadline in place of an earlier entry. Gives the entry: deadlines with slack are
    /// moved to times that they share.
    #[cold]
    pub(super) fn enter(
        &mut self,
        index: usize,
        replaced: Option<Instant>,
        deadline: Instant,
        slack: Duration,
    ) -> Instant {
        let since_start = deadline.saturating_duration_since(self.began_at);
        // 64 bits of nanoseconds are 584 years.
        let early_ns = (since_start.as_nanos() as u64).checked_rem(slack.as_nanos() as u64).unwrap_or(0);
        let at = deadline - Duration::from_nanos(early_ns);
        if let Some(replaced) = replaced {
            self.remove(index, replaced);
        }
        self.entries.insert((at, index));
        at
    }

    pub(super) fn remove(&mut self, index: usize, at: Instant) {
        self.entries.remove(&(at, index));
    }

    /// A session whose entry has come; its entry is taken out.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<usize> {
        let &(at, index) = self.entries.first().filter(|(at, _)| *at <= now)?;
        self.entries.remove(&(at, index));
        Some(index)
    }

    /// The timer fired, and is not set any more.
    pub(super) fn has_fired(&mut self) {
        self.set_to = None;
    }

    /// What to set the timer to, if that is not what it is set to.
    pub(super) fn take_setting(&mut self) -> Option<Option<Instant>> {
        let first = self.entries.first().map(|(at, _)| *at);
        (std::mem::replace(&mut self.set_to, first) != first).then_some(first)
    }

    /// The timer fired: how much too late, because nobody called `next`? What was lost in turns, the last of
    /// which ended then, has been counted with them.
    pub(super) fn lateness(&self, now: Instant, turn_ended_at: Instant) -> Duration {
        self.set_to.map_or(Duration::ZERO, |due| now.saturating_duration_since(due.max(turn_ended_at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_timer_is_set_to_the_first_deadline_and_only_when_that_changes() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        assert_eq!(timers.take_setting(), None);
        let late = timers.enter(1, None, start + 9 * MS, Duration::ZERO);
        assert_eq!(timers.take_setting(), Some(Some(late)));
        timers.enter(2, None, start + 20 * MS, Duration::ZERO);
        assert_eq!(timers.take_setting(), None);
        let soon = timers.enter(1, Some(late), start + 5 * MS, Duration::ZERO);
        assert_eq!(timers.take_setting(), Some(Some(soon)));
        assert_eq!(timers.lateness(start + 8 * MS, start), 3 * MS);
        assert_eq!(timers.lateness(start + 8 * MS, start + 7 * MS), MS, "turns count for themselves");
        assert_eq!(timers.take_due(start + 4 * MS), None);
        assert_eq!(timers.take_due(start + 5 * MS), Some(1));
        assert_eq!(timers.take_due(start + 5 * MS), None);
        timers.has_fired();
        assert_eq!(timers.take_setting(), Some(Some(start + 20 * MS)));
    }

    #[test]
    fn deadlines_with_slack_are_taken_together() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        let entries: Vec<_> =
            (41..50).map(|at| timers.enter(at, None, start + at as u32 * MS, 10 * MS) - start).collect();
        assert!(entries.iter().all(|entry| *entry == 40 * MS), "{entries:?}");
    }
}
