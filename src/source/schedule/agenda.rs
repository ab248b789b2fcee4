//! Schedules in the order in which they are due. Times flow in, ticks flow out: it reads no clock.

use super::clock::{ClockKind, Nanos, Now, duration, nanos, wall_nanos, wall_time};
use super::rule::Rule;
use crate::event::TaskId;
use crate::options::Missed;
use crate::sys::random;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

/// What is found later than this is missed, not late.
const LATE_MAX: Nanos = Duration::from_secs(60).as_nanos() as Nanos;

/// A clock that is set back by more was wrong before: the schedules begin anew with what it says now.
const SET_BACK_MAX: Nanos = Duration::from_secs(24 * 3600).as_nanos() as Nanos;

/// Nobody waits longer without a look at the clocks.
const WAIT_MAX: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// One schedule.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) name: String,
    pub(crate) rule: Rule,
    pub(crate) missed: Missed,
    pub(crate) jitter: Duration,
    /// After a tick it waits until somebody says that the work is finished.
    pub(crate) manual_finish: bool,
}

#[derive(Debug)]
struct Entry {
    schedule: Schedule,
    /// The next due time; `None` when there is none any more.
    due: Option<Nanos>,
    /// Where it stands in the queue: the due time and the jitter. `None` while its work goes on.
    at: Option<Nanos>,
    /// Due times that were skipped since the last tick.
    missed: u64,
}

/// A due time whose tick is to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) task: TaskId,
    pub(crate) due: SystemTime,
    pub(crate) missed: u64,
    pub(crate) late: Duration,
}

#[derive(Debug)]
pub(crate) struct Agenda {
    entries: BTreeMap<TaskId, Entry>,
    /// What goes by the monotonic clock, and by the wall clock.
    monotonic: BTreeSet<(Nanos, TaskId)>,
    wall: BTreeSet<(Nanos, TaskId)>,
    began_at: Instant,
    /// What the clocks said when they were looked at last.
    seen: Now,
}

impl Agenda {
    pub(crate) fn new(now: Now) -> Self {
        Agenda {
            entries: BTreeMap::new(),
            monotonic: BTreeSet::new(),
            wall: BTreeSet::new(),
            began_at: now.instant,
            seen: now,
        }
    }

    /// Whether nothing will be due ever again.
    pub(crate) fn is_over(&self) -> bool {
        self.entries.values().all(|entry| entry.due.is_none())
    }

    pub(crate) fn name(&self, task: TaskId) -> Option<&str> {
        self.entries.get(&task).map(|entry| &*entry.schedule.name)
    }

    /// What the schedule's clock says.
    fn clock(&self, kind: ClockKind, now: Now) -> Nanos {
        match kind {
            ClockKind::Monotonic => nanos(now.instant.saturating_duration_since(self.began_at)),
            #[cfg(feature = "schedules")]
            ClockKind::Wall => wall_nanos(now.wall),
        }
    }

    fn queue(&mut self, kind: ClockKind) -> &mut BTreeSet<(Nanos, TaskId)> {
        match kind {
            ClockKind::Monotonic => &mut self.monotonic,
            #[cfg(feature = "schedules")]
            ClockKind::Wall => &mut self.wall,
        }
    }

    /// Adds a schedule. To be added is not to be due.
    pub(crate) fn add(&mut self, task: TaskId, schedule: Schedule, now: Now) {
        self.look(now);
        let due = schedule.rule.after(self.clock(schedule.rule.clock(), now));
        self.entries.insert(task, Entry { schedule, due, at: None, missed: 0 });
        self.enqueue(task);
    }

    /// Ends a schedule; `false` when it is not here.
    pub(crate) fn cancel(&mut self, task: TaskId) -> bool {
        let Some(entry) = self.entries.remove(&task) else { return false };
        if let Some(at) = entry.at {
            self.queue(entry.schedule.rule.clock()).remove(&(at, task));
        }
        true
    }

    /// The work of the last tick has ended; `false` when the schedule is not here.
    pub(crate) fn finish(&mut self, task: TaskId) -> bool {
        let is_waiting = self.entries.get(&task).map(|entry| entry.at.is_none());
        if is_waiting == Some(true) {
            self.enqueue(task);
        }
        is_waiting.is_some()
    }

    /// Puts a schedule into its queue, for its due time and some jitter.
    fn enqueue(&mut self, task: TaskId) {
        let Some(entry) = self.entries.get_mut(&task) else { return };
        let Some(due) = entry.due else { return };
        let (mut at, rule) = (due, &entry.schedule.rule);
        if !entry.schedule.jitter.is_zero() {
            let most = nanos(entry.schedule.jitter);
            let most = rule.after(due).map_or(most, |next| most.min(next - due));
            at += Nanos::from(random()) % most.max(1);
        }
        entry.at = Some(at);
        let kind = rule.clock();
        self.queue(kind).insert((at, task));
    }

    /// When the clocks are to be looked at next, if the wall clock is not set meanwhile.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let monotonic = self.monotonic.first().map(|(at, _)| self.began_at + duration(*at));
        let seen = wall_nanos(self.seen.wall);
        let wall = self.wall.first().map(|(at, _)| self.seen.instant + duration(*at - seen).min(WAIT_MAX));
        monotonic.into_iter().chain(wall).min()
    }

    /// Takes note of what the clocks say.
    pub(crate) fn look(&mut self, now: Now) {
        let passed = nanos(now.instant.saturating_duration_since(self.seen.instant));
        let set_back = wall_nanos(self.seen.wall) + passed - wall_nanos(now.wall);
        self.seen = now;
        if set_back > SET_BACK_MAX {
            self.begin_anew(now);
        } else if set_back > LATE_MAX && !self.wall.is_empty() {
            log::warn!(
                "the clock was set back by {} s: what it shows once more is not due again",
                duration(set_back).as_secs()
            );
        }
    }

    fn begin_anew(&mut self, now: Now) {
        let waiting = std::mem::take(&mut self.wall);
        for entry in
            self.entries.values_mut().filter(|entry| entry.schedule.rule.clock() != ClockKind::Monotonic)
        {
            entry.due = entry.schedule.rule.after(wall_nanos(now.wall));
        }
        for (_, task) in waiting {
            self.enqueue(task);
        }
    }

    /// A due time that has come, the first of each clock first. Its schedule is in the queue again, for its
    /// next due time, unless its work is finished by hand.
    pub(crate) fn take_due(&mut self, now: Now) -> Option<Due> {
        while let Some(task) = self.first_due(now) {
            if let Some(due) = self.settle(task, now) {
                return Some(due);
            }
        }
        None
    }

    /// Takes a schedule that is due out of the queue.
    pub(crate) fn first_due(&mut self, now: Now) -> Option<TaskId> {
        self.look(now);
        let monotonic = self.clock(ClockKind::Monotonic, now);
        let is_due =
            |queue: &BTreeSet<(Nanos, TaskId)>, now| queue.first().copied().filter(|(at, _)| *at <= now);
        let first = is_due(&self.monotonic, monotonic).or(is_due(&self.wall, wall_nanos(now.wall)));
        let (_, task) = first?;
        self.hold(task);
        Some(task)
    }

    /// Takes a schedule out of the queue.
    pub(crate) fn hold(&mut self, task: TaskId) {
        let Some(entry) = self.entries.get_mut(&task) else { return };
        let kind = entry.schedule.rule.clock();
        if let Some(at) = entry.at.take() {
            self.queue(kind).remove(&(at, task));
        }
    }

    /// What is to come of a schedule that is due, by its policy. One that has no tick is in the queue again.
    pub(crate) fn settle(&mut self, task: TaskId, now: Now) -> Option<Due> {
        let kind = self.entries.get(&task).map(|entry| entry.schedule.rule.clock())?;
        let clock = self.clock(kind, now);
        let entry = self.entries.get_mut(&task)?;
        let schedule = &entry.schedule;
        let Some(due) = entry.due.filter(|due| *due <= clock) else {
            self.enqueue(task);
            return None;
        };
        let is_each = schedule.missed == Missed::All;
        let (due, passed) = if is_each { (due, 0) } else { schedule.rule.latest(due, clock) };
        let late = clock - due;
        let is_skipped = schedule.missed == Missed::Skip && late > LATE_MAX + nanos(schedule.jitter);
        let waits = schedule.manual_finish && !is_skipped;
        entry.due = schedule.rule.after(due);
        entry.missed += passed + u64::from(is_skipped);
        let missed = if is_skipped { 0 } else { std::mem::take(&mut entry.missed) };
        if !waits {
            self.enqueue(task);
        }
        let due = wall_time(wall_nanos(now.wall) - late);
        (!is_skipped).then_some(Due { task, due, missed, late: duration(late) })
    }

    /// All is done with that is due up to `last`, whatever was done here.
    pub(crate) fn rebase(&mut self, task: TaskId, last: SystemTime, now: Now) {
        let Some(kind) = self.entries.get(&task).map(|entry| entry.schedule.rule.clock()) else { return };
        let last = self.clock(kind, now) - (wall_nanos(now.wall) - wall_nanos(last));
        if let Some(entry) = self.entries.get_mut(&task) {
            (entry.due, entry.missed) = (entry.schedule.rule.after(last), 0);
        }
    }

    /// Nothing comes of what is due now: a schedule waits for its next due time.
    pub(crate) fn pass(&mut self, task: TaskId, now: Now) {
        self.rebase(task, now.wall, now);
        self.enqueue(task);
    }

    /// The due times behind `from` and before `to`; the first `most` of them at most.
    pub(crate) fn between(
        &self,
        task: TaskId,
        from: SystemTime,
        to: SystemTime,
        most: usize,
    ) -> Vec<SystemTime> {
        let Some(entry) = self.entries.get(&task) else { return Vec::new() };
        let (from, to) = (wall_nanos(from), wall_nanos(to));
        let times =
            std::iter::successors(entry.schedule.rule.after(from), |due| entry.schedule.rule.after(*due));
        times.take_while(|due| *due < to).take(most).map(wall_time).collect()
    }
}
