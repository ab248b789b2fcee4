//! Where events come from: a source drives one connection and turns what comes over it into events.
//!
//! The loop knows no more of a source than the verbs of [`Source`]. To add a kind of connection is to add a
//! variant; to add something that is read over a session that runs SQL is to add a reader to `sql`.

mod report;
mod schedule;
mod sql;
mod stream;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Lsn, SessionId, TaskId};
use crate::metrics::Metrics;
use crate::pq::Connection;
use crate::reactor::WaitFor;
use crate::session::Answer;
#[cfg(feature = "schedules")]
pub use schedule::Cron;
pub(crate) use schedule::{Now, Rule, Schedule, Schedules};
pub(crate) use sql::{Job, SqlSource};
use std::time::{Duration, Instant};
pub(crate) use stream::StreamSource;

/// One variant for each kind of connection.
#[derive(Debug)]
pub(crate) enum Source {
    /// A session that runs SQL.
    Sql(Box<SqlSource>),
    /// One that replicates.
    Stream(Box<StreamSource>),
    /// No connection: the clocks.
    Schedule(Box<Schedules>),
}

impl Source {
    /// The session that it is, if it is one.
    #[inline]
    pub(crate) fn session(&self) -> Option<SessionId> {
        match self {
            Source::Sql(source) => Some(source.id()),
            Source::Stream(source) => Some(source.id()),
            Source::Schedule(_) => None,
        }
    }

    /// The session that runs SQL, for what only such a one can be asked for.
    #[inline]
    pub(crate) fn sql(&mut self) -> Result<&mut SqlSource> {
        match self {
            Source::Sql(source) => Ok(source),
            Source::Stream(_) | Source::Schedule(_) => {
                let message = "this connection streams the log: connect a session for what is asked in SQL";
                Err(Error::new(ErrorKind::InvalidArgument, message))
            }
        }
    }

    /// Acknowledges all up to this number: an id of the outbox, or an LSN.
    pub(crate) fn ack(&mut self, number: u64, now: Instant) -> Result<()> {
        match self {
            Source::Sql(source) => source.ack(number, now),
            Source::Stream(source) => source.ack(Lsn(number)),
            Source::Schedule(_) => Ok(()),
        }
    }

    /// The poller found its socket ready.
    #[inline]
    pub(crate) fn on_ready(&mut self) {
        match self {
            Source::Sql(source) => source.on_ready(),
            Source::Stream(source) => source.on_ready(),
            Source::Schedule(_) => {}
        }
    }

    /// It has the turn that it wanted after the last one.
    pub(crate) fn on_wanted_turn(&mut self) {
        match self {
            Source::Sql(source) => source.on_wanted_turn(),
            Source::Stream(source) => source.on_wanted_turn(),
            Source::Schedule(_) => {}
        }
    }

    /// Its deadline has come, or is close enough.
    pub(crate) fn on_deadline(&mut self, now: Instant) {
        match self {
            Source::Sql(source) => source.on_deadline(now),
            Source::Stream(source) => source.on_deadline(now),
            Source::Schedule(_) => {}
        }
    }

    /// What it had asked for is done, elsewhere.
    pub(crate) fn on_answer(&mut self, answer: Answer, now: Instant) {
        match self {
            Source::Sql(source) => source.on_answer(answer, now),
            Source::Stream(source) => source.on_answer(answer, now),
            Source::Schedule(_) => {}
        }
    }

    /// Goes on to the next event, which is then at hand; `false` when there is none until readiness, a
    /// command or the deadline. Consumes input once for each time that it was found ready.
    #[inline(always)]
    pub(crate) fn advance(&mut self, now: Instant) -> bool {
        match self {
            Source::Sql(source) => source.advance(now),
            Source::Stream(source) => source.advance(now),
            Source::Schedule(source) => source.advance(),
        }
    }

    /// The event at hand.
    pub(crate) fn event(&self) -> Option<Event<'_>> {
        match self {
            Source::Sql(source) => source.event(),
            Source::Stream(source) => source.event(),
            Source::Schedule(source) => source.event(),
        }
    }

    /// Whether that is a notification.
    #[inline]
    pub(crate) fn has_notification(&self) -> bool {
        match self {
            Source::Sql(source) => source.has_notification(),
            Source::Stream(_) | Source::Schedule(_) => false,
        }
    }

    /// Whether it is, and nothing but notifications will be at hand until libpq holds none. The loop takes
    /// these from the session itself.
    #[inline]
    pub(crate) fn is_streaming(&self) -> bool {
        match self {
            Source::Sql(source) => source.is_streaming(),
            Source::Stream(_) | Source::Schedule(_) => false,
        }
    }

    /// Its turn is over: whether it wants another although nothing will be ready.
    #[inline]
    pub(crate) fn end_turn(&mut self) -> bool {
        match self {
            Source::Sql(source) => source.end_turn(),
            Source::Stream(source) => source.end_turn(),
            Source::Schedule(source) => source.end_turn(),
        }
    }

    /// When it wants a turn at the latest, if nothing happens before.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Source::Sql(source) => source.deadline(),
            Source::Stream(source) => source.deadline(),
            Source::Schedule(source) => source.deadline(),
        }
    }

    /// How much earlier that may be.
    pub(crate) fn slack(&self) -> Duration {
        match self {
            Source::Sql(source) => source.slack(),
            Source::Stream(source) => source.slack(),
            Source::Schedule(_) => Duration::ZERO,
        }
    }

    /// What to poll for from now on, if that has changed.
    #[inline(always)]
    pub(crate) fn take_interest(&mut self) -> Option<(&Connection, WaitFor)> {
        match self {
            Source::Sql(source) => source.take_interest(),
            Source::Stream(source) => source.take_interest(),
            Source::Schedule(_) => None,
        }
    }

    /// Ends the connection for a reason that was found outside.
    #[cold]
    pub(crate) fn fail(&mut self, error: Error) {
        match self {
            Source::Sql(source) => source.fail(error),
            Source::Stream(source) => source.fail(error),
            Source::Schedule(_) => {}
        }
    }

    /// Whether it waits for the time of its next attempt to connect.
    pub(crate) fn is_waiting(&self) -> bool {
        match self {
            Source::Sql(source) => source.is_waiting(),
            Source::Stream(source) => source.is_waiting(),
            Source::Schedule(_) => false,
        }
    }

    /// Whether it is on its way to a connection.
    #[inline]
    pub(crate) fn is_connecting(&self) -> bool {
        match self {
            Source::Sql(source) => source.is_connecting(),
            Source::Stream(source) => source.is_connecting(),
            Source::Schedule(_) => false,
        }
    }

    /// Whether nothing will ever come again.
    pub(crate) fn has_failed(&self) -> bool {
        match self {
            Source::Sql(source) => source.has_failed(),
            Source::Stream(source) => source.has_failed(),
            Source::Schedule(source) => source.is_over(),
        }
    }

    /// What it has done so far.
    pub(crate) fn metrics(&self) -> &Metrics {
        match self {
            Source::Sql(source) => source.metrics(),
            Source::Stream(source) => source.metrics(),
            Source::Schedule(source) => source.metrics(),
        }
    }

    #[inline]
    pub(crate) fn metrics_mut(&mut self) -> &mut Metrics {
        match self {
            Source::Sql(source) => source.metrics_mut(),
            Source::Stream(source) => source.metrics_mut(),
            Source::Schedule(source) => source.metrics_mut(),
        }
    }

    /// When the last probe was sent that has been answered, and how long that took.
    pub(crate) fn last_probe(&self) -> Option<(Instant, Duration)> {
        match self {
            Source::Sql(source) => source.last_probe(),
            Source::Stream(source) => source.last_probe(),
            Source::Schedule(_) => None,
        }
    }

    /// Whether it goes by the time of day, and has to look when the clock is set.
    pub(crate) fn goes_by_the_clock(&self) -> bool {
        match self {
            Source::Schedule(_) => true,
            Source::Sql(source) => source.has_schedules(),
            Source::Stream(_) => false,
        }
    }

    /// Ends a task; `false` when it is none of this source's.
    pub(crate) fn cancel(&mut self, task: TaskId) -> bool {
        match self {
            Source::Schedule(source) => source.agenda().cancel(task),
            Source::Sql(source) => source.cancel(task),
            Source::Stream(_) => false,
        }
    }

    /// Whether something of a task goes on at a server, also after it was cancelled.
    pub(crate) fn is_under_way(&self, task: TaskId) -> bool {
        match self {
            Source::Sql(source) => source.is_under_way(task),
            Source::Schedule(_) | Source::Stream(_) => false,
        }
    }

    /// The work of a task has ended, well or not; `false` when it is none of this source's.
    pub(crate) fn finish(&mut self, task: TaskId, failure: Option<&str>) -> bool {
        match self {
            Source::Schedule(source) => source.agenda().finish(task),
            Source::Sql(source) => source.finish(task, failure),
            Source::Stream(_) => false,
        }
    }
}
