//! What the loop does at times: schedules, and the end of any task.

use super::{EventLoop, NO_SESSION};
use crate::error::{Error, ErrorKind, Result};
use crate::event::TaskId;
use crate::options::ScheduleOptions;
#[cfg(feature = "schedules")]
use crate::source::Cron;
use crate::source::{Job, Now, Rule, Schedule, Schedules, Source};
use std::time::Duration;

/// The shortest interval: what is due more often is better done in a loop.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

impl EventLoop {
    /// Ticks again and again: [`Event::Tick`](crate::Event::Tick) comes each time that the interval is over,
    /// for the first time after one. It counts on the monotonic clock, whatever happens to the time of day.
    pub fn every(&mut self, interval: Duration) -> Result<TaskId> {
        self.every_with(interval, ScheduleOptions::default())
    }

    /// Ticks at an interval as `options` say.
    pub fn every_with(&mut self, interval: Duration, options: ScheduleOptions) -> Result<TaskId> {
        if interval < INTERVAL_MIN {
            let message = "an interval has at least a millisecond: take 1ms or more";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        if options.time_zone.is_some() {
            let message = "an interval has no time zone: leave it out, or write a cron expression";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let name = format!("every {interval:?}");
        self.add_schedule(name, Rule::Every(interval.as_nanos() as i128), options)
    }

    /// Ticks whenever a cron expression is due, in a time zone: [`Event::Tick`](crate::Event::Tick) comes
    /// each time. The expression has five fields, minute, hour, day of the month, month and day of the
    /// week, or six with the second before them; or it is a name such as `@daily`, or an interval: `@every
    /// 90s`. One that is never due is refused, as is a zone that does not exist.
    ///
    /// ```no_run
    /// use pgwake::{EventLoop, ScheduleOptions};
    ///
    /// let mut events = EventLoop::new()?;
    /// events.cron("30 2 * * mon-fri", ScheduleOptions::new().time_zone("Europe/Berlin"))?;
    /// # Ok::<(), pgwake::Error>(())
    /// ```
    #[cfg(feature = "schedules")]
    pub fn cron(&mut self, expression: &str, options: ScheduleOptions) -> Result<TaskId> {
        if let Some(interval) = expression.strip_prefix("@every ") {
            let options = ScheduleOptions { name: options.name.or(Some(expression.into())), ..options };
            return self.every_with(interval_of(interval)?, options);
        }
        let cron = Cron::new(expression, options.time_zone.as_deref())?;
        self.reactor.watch_clock()?;
        let zone = cron.time_zone();
        let options = ScheduleOptions { name: options.name.or(Some(expression.into())), ..options };
        self.add_schedule(format!("{expression} in {zone}"), Rule::Cron(Box::new(cron)), options)
    }

    /// Ends a poll or a schedule: no event of it comes any more. SQL that a schedule runs goes on to its
    /// end, for which [`is_under_way`](Self::is_under_way) is true.
    pub fn cancel(&mut self, task: TaskId) -> Result<()> {
        self.find_task(|source| source.cancel(task))?;
        // Rows are gone. A notification stays where it is, for a C host that has not read it yet.
        (self.at_hand.stream, self.at_hand.index) = (NO_SESSION, NO_SESSION);
        Ok(())
    }

    /// Whether something of a schedule goes on at the server, also after its `cancel`: its SQL is run, or
    /// what became of a due time is being written down. A program that ends calls `next` until it is over.
    pub fn is_under_way(&self, task: TaskId) -> bool {
        self.slots.iter().filter_map(|slot| slot.source.as_ref()).any(|source| source.is_under_way(task))
    }

    /// Says that the work of a task's last event has ended, and why if it failed, for one that leaves that to
    /// the caller ([`ScheduleOptions::manual_finish`]).
    pub fn finish(&mut self, task: TaskId, failure: Option<&str>) -> Result<()> {
        self.find_task(|source| source.finish(task, failure))
    }

    /// The wall clock was set: what goes by it looks at it now, and at its due times.
    #[cold]
    pub(super) fn on_clock_set(&mut self) -> Result<()> {
        self.reactor.watch_clock()?;
        for (index, slot) in self.slots.iter().enumerate() {
            if slot.source.as_ref().is_some_and(Source::goes_by_the_clock) {
                self.rotation.ready.push_back(index);
            }
        }
        Ok(())
    }

    /// Asks each source whether the task is one of its own; the one that has it gets a turn.
    fn find_task(&mut self, mut is_it: impl FnMut(&mut Source) -> bool) -> Result<()> {
        let mut sources = self.slots.iter_mut().map(|slot| slot.source.as_mut());
        match sources.position(|source| source.is_some_and(&mut is_it)) {
            Some(index) => self.enqueue(index),
            None => {
                let message =
                    "no such poll or schedule in this loop: it was cancelled, or is none of its own";
                Err(Error::new(ErrorKind::UnknownTask, message))
            }
        }
    }

    fn add_schedule(&mut self, definition: String, rule: Rule, options: ScheduleOptions) -> Result<TaskId> {
        let ScheduleOptions { name, missed, jitter, manual_finish, session, key, sql, .. } = options;
        let name = name.unwrap_or_else(|| definition.clone());
        let index = match session {
            Some(session) => self.index(session)?,
            None => self.schedules()?,
        };
        let task = self.tasks.next_id()?;
        let schedule = Schedule { name, rule, missed, jitter, manual_finish };
        match &mut self.slots[index].source {
            Some(Source::Schedule(schedules)) => schedules.agenda().add(task, schedule, Now::read()),
            _ => {
                let job = Job { key, definition, sql, manual_finish };
                self.sql(index)?.schedule(task, schedule, job)?;
                self.enqueue(index)?;
            }
        }
        // The timer is set now: nobody need call `next` before it is due.
        self.schedule(index)?;
        Ok(task)
    }

    /// The place of the source that has all schedules; it is made for the first.
    fn schedules(&mut self) -> Result<usize> {
        let is_it = |source: &Option<Source>| matches!(source, Some(Source::Schedule(_)));
        match self.slots.iter().position(|slot| is_it(&slot.source)) {
            Some(index) => Ok(index),
            None => {
                self.place(|_, _| Ok(Source::Schedule(Box::new(Schedules::new())))).map(|(index, _)| index)
            }
        }
    }
}

/// Such as `90s` or `1h 30m`.
#[cfg(feature = "schedules")]
fn interval_of(text: &str) -> Result<Duration> {
    let interval = text.trim().parse::<jiff::SignedDuration>().ok();
    interval.and_then(|interval| Duration::try_from(interval).ok()).ok_or_else(|| {
        let message = format!("{text:?} is no interval: write it as 250ms, 90s, 5m or 1h30m");
        Error::new(ErrorKind::InvalidArgument, message)
    })
}
