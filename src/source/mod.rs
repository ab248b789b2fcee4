//! Where events come from: a source drives one connection and turns what comes over it into events.
//!
//! The loop knows no more of a source than the verbs of [`Source`]. To add a kind of connection is to add a
//! variant; to add something that is read over a session that runs SQL is to add a reader to `sql`.

mod report;
mod sql;
mod stream;

use crate::error::{Error, Result};
use crate::event::{Event, Notification, SessionId};
use crate::metrics::Metrics;
use crate::pq::{Connection, Notify};
use crate::reactor::WaitFor;
use crate::session::Answer;
pub(crate) use sql::SqlSource;
use std::time::{Duration, Instant};

/// One variant for each kind of connection.
#[derive(Debug)]
pub(crate) enum Source {
    /// A session that runs SQL.
    Sql(SqlSource),
}

impl Source {
    #[inline]
    pub(crate) fn id(&self) -> SessionId {
        let Source::Sql(source) = self;
        source.id()
    }

    /// The session that runs SQL, for what only such a one can be asked for.
    #[inline]
    pub(crate) fn sql(&mut self) -> Result<&mut SqlSource> {
        let Source::Sql(source) = self;
        Ok(source)
    }

    /// The poller found its socket ready.
    #[inline]
    pub(crate) fn on_ready(&mut self) {
        let Source::Sql(source) = self;
        source.on_ready();
    }

    /// It has the turn that it wanted after the last one.
    pub(crate) fn on_wanted_turn(&mut self) {
        let Source::Sql(source) = self;
        source.on_wanted_turn();
    }

    /// Its deadline has come, or is close enough.
    pub(crate) fn on_deadline(&mut self, now: Instant) {
        let Source::Sql(source) = self;
        source.on_deadline(now);
    }

    /// What it had asked for is done, elsewhere.
    pub(crate) fn on_answer(&mut self, answer: Answer, now: Instant) {
        let Source::Sql(source) = self;
        source.on_answer(answer, now);
    }

    /// Goes on to the next event, which is then at hand; `false` when there is none until readiness, a
    /// command or the deadline. Consumes input once for each time that it was found ready.
    #[inline(always)]
    pub(crate) fn advance(&mut self, now: Instant) -> bool {
        let Source::Sql(source) = self;
        source.advance(now)
    }

    /// The event at hand.
    pub(crate) fn event(&self) -> Option<Event<'_>> {
        let Source::Sql(source) = self;
        source.event()
    }

    /// Whether that is a notification.
    #[inline]
    pub(crate) fn has_notification(&self) -> bool {
        let Source::Sql(source) = self;
        source.has_notification()
    }

    /// Whether it is, and nothing but notifications will be at hand until libpq holds none.
    #[inline]
    pub(crate) fn is_streaming(&self) -> bool {
        let Source::Sql(source) = self;
        source.is_streaming()
    }

    /// The next notification of such a stream, which the loop keeps for the caller.
    #[inline(always)]
    pub(crate) fn take_of_stream(&mut self) -> Option<Notify> {
        let Source::Sql(source) = self;
        source.take_of_stream()
    }

    /// A notification of the stream as the caller sees it.
    #[inline(always)]
    pub(crate) fn lend<'a>(&'a self, notify: &'a Notify) -> Notification<'a> {
        let Source::Sql(source) = self;
        source.lend(notify, 0)
    }

    /// Its turn is over: whether it wants another although nothing will be ready.
    #[inline]
    pub(crate) fn end_turn(&mut self) -> bool {
        let Source::Sql(source) = self;
        source.end_turn()
    }

    /// When it wants a turn at the latest, if nothing happens before.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let Source::Sql(source) = self;
        source.deadline()
    }

    /// How much earlier that may be.
    pub(crate) fn slack(&self) -> Duration {
        let Source::Sql(source) = self;
        source.slack()
    }

    /// What to poll for from now on, if that has changed.
    #[inline(always)]
    pub(crate) fn take_interest(&mut self) -> Option<(&Connection, WaitFor)> {
        let Source::Sql(source) = self;
        source.take_interest()
    }

    /// Ends the connection for a reason that was found outside.
    #[cold]
    pub(crate) fn fail(&mut self, error: Error) {
        let Source::Sql(source) = self;
        source.fail(error);
    }

    /// Whether it waits for the time of its next attempt to connect.
    pub(crate) fn is_waiting(&self) -> bool {
        let Source::Sql(source) = self;
        source.is_waiting()
    }

    /// Whether it is on its way to a connection.
    #[inline]
    pub(crate) fn is_connecting(&self) -> bool {
        let Source::Sql(source) = self;
        source.is_connecting()
    }

    /// Whether nothing will ever come again.
    pub(crate) fn has_failed(&self) -> bool {
        let Source::Sql(source) = self;
        source.has_failed()
    }

    /// What it has done so far.
    pub(crate) fn metrics(&self) -> &Metrics {
        let Source::Sql(source) = self;
        source.metrics()
    }

    #[inline]
    pub(crate) fn metrics_mut(&mut self) -> &mut Metrics {
        let Source::Sql(source) = self;
        source.metrics_mut()
    }

    /// When the last probe was sent that has been answered, and how long that took.
    pub(crate) fn last_probe(&self) -> Option<(Instant, Duration)> {
        let Source::Sql(source) = self;
        source.last_probe()
    }
}
