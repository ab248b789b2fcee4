//! What the loop does at times: schedules and polls. Every task has a number of its own, whatever source it is with.

use super::{EventLoop, NOTHING};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{SessionId, TaskId};
use crate::options::{PollOptions, ScheduleOptions};
use crate::source::{Now, Rule, Schedule, Schedules, Source};
use std::time::{Duration, Instant};

/// The shortest interval: what is due more often is better done in a loop.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// How many tasks this loop has had.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    count: u32,
}

impl Tasks {
    /// The next number. They stay below 2^31, so that they are positive in C, and begin with 1.
    pub(super) fn next_id(&mut self) -> Result<TaskId> {
        if self.count == i32::MAX as u32 {
            return Err(Error::new(ErrorKind::System, "a loop has at most 2147483647 tasks in its life"));
        }
        self.count += 1;
        Ok(TaskId(self.count))
    }
}

impl EventLoop {
    /// Ticks again and again: [`Event::Tick`](crate::Event::Tick) comes each time that the interval is over,
    /// for the first time after one. It counts on the monotonic clock, whatever happens to the time of day.
    pub fn every(&mut self, interval: Duration) -> Result<TaskId> {
        self.every_with(interval, ScheduleOptions::default())
    }

    /// Ticks at an interval as `options` say.
    pub fn every_with(&mut self, interval: Duration, options: ScheduleOptions) -> Result<TaskId> {
        if interval < INTERVAL_MIN {
            let message = "an interval has at least a millisecond: to be woken more often, call `next` \
                           without a wait";
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
    /// each time. The expression has five fields, minute, hour, day of the month, month and day of the week,
    /// or six with the second before them; or it is a name such as `@daily`. One that is never due is refused,
    /// as is a zone that does not exist.
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
        let rule = Rule::cron(expression, options.time_zone.as_deref(), std::time::SystemTime::now())?;
        self.add_schedule(expression.to_string(), rule, options)
    }

    /// Runs a query again and again over a session, as `options` say: what it finds comes as
    /// [`Event::Rows`](crate::Event::Rows), and an error of it as
    /// [`Event::CommandFailed`](crate::Event::CommandFailed) once; it goes on all the same. After an outage it
    /// is run at once. A session has any number of polls, which are run one after the other.
    ///
    /// ```no_run
    /// use pgwake::{Event, EventLoop, PollOptions};
    /// use std::time::{Duration, Instant};
    ///
    /// let mut events = EventLoop::new()?;
    /// let db = events.connect("dbname=app")?;
    /// let options = PollOptions::new().wake_on("jobs").adaptive(Duration::from_secs(60));
    /// events.poll(db, "SELECT id, body FROM jobs WHERE due <= now()", options)?;
    /// while let Some(event) = events.next(None)? {
    ///     if let Event::Rows(rows) = event {
    ///         rows.iter().for_each(|row| println!("{:?} {:?}", row.get_str("id"), row.get_str("body")));
    ///     }
    /// }
    /// # Ok::<(), pgwake::Error>(())
    /// ```
    pub fn poll(&mut self, session: SessionId, sql: &str, options: PollOptions) -> Result<TaskId> {
        let index = self.index(session)?;
        let task = self.tasks.next_id()?;
        self.sql(index)?.poll(task, sql, options, Instant::now())?;
        self.enqueue(index)?;
        Ok(task)
    }

    /// The event that was given last, as long as nothing has ended it.
    #[cfg(feature = "capi")]
    pub(crate) fn event_at_hand(&self) -> Option<crate::event::Event<'_>> {
        self.slots.get(self.at_hand.index)?.source.as_ref()?.event()
    }

    /// Ends a poll or a schedule: no event of it comes any more.
    pub fn cancel(&mut self, task: TaskId) -> Result<()> {
        self.at_hand = NOTHING;
        self.find_task(|source| source.cancel(task))
    }

    /// Says that the work of a task's last event has ended, for one that leaves that to the caller
    /// ([`ScheduleOptions::manual_finish`]).
    pub fn finish(&mut self, task: TaskId) -> Result<()> {
        self.find_task(|source| source.finish(task))
    }

    /// Asks each source whether the task is one of its own; the one that has it gets a turn.
    fn find_task(&mut self, mut is_it: impl FnMut(&mut Source) -> bool) -> Result<()> {
        let mut sources = self.slots.iter_mut().map(|slot| slot.source.as_mut());
        match sources.position(|source| source.is_some_and(&mut is_it)) {
            Some(index) => self.enqueue(index),
            None => {
                let message = "no such poll or schedule in this loop: it was cancelled";
                Err(Error::new(ErrorKind::UnknownTask, message))
            }
        }
    }

    fn add_schedule(&mut self, name: String, rule: Rule, options: ScheduleOptions) -> Result<TaskId> {
        let ScheduleOptions { name: own_name, missed, jitter, manual_finish, .. } = options;
        let name = own_name.unwrap_or(name);
        let index = self.schedules()?;
        let task = self.tasks.next_id()?;
        if let Some(Source::Schedule(schedules)) = &mut self.slots[index].source {
            let schedule = Schedule { name, rule, missed, jitter, manual_finish };
            schedules.agenda().add(task, schedule, Now::read());
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
