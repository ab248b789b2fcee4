//! All schedules of a loop that need no session: the clocks flow in, ticks flow out.

mod agenda;
#[cfg(feature = "schedules")]
mod civil;
mod clock;
#[cfg(feature = "schedules")]
mod explain;
mod rule;
#[cfg(test)]
mod tests;

use crate::event::{Event, Tick};
use crate::metrics::Metrics;
pub(crate) use agenda::{Agenda, Due, Schedule};
#[cfg(feature = "schedules")]
pub use civil::Cron;
pub(crate) use clock::Now;
pub(crate) use rule::Rule;
use std::time::Instant;

/// So many ticks are given in one turn; then the sessions have theirs.
const TICKS_PER_TURN: u32 = 256;

#[derive(Debug)]
pub(crate) struct Schedules {
    agenda: Agenda,
    at_hand: Option<Due>,
    metrics: Metrics,
    /// The ticks of this turn.
    given: u32,
}

impl Schedules {
    pub(crate) fn new() -> Self {
        Schedules { agenda: Agenda::new(Now::read()), at_hand: None, metrics: Metrics::default(), given: 0 }
    }

    pub(crate) fn agenda(&mut self) -> &mut Agenda {
        &mut self.agenda
    }

    pub(super) fn advance(&mut self) -> bool {
        self.at_hand = None;
        if self.given < TICKS_PER_TURN {
            self.at_hand = self.agenda.take_due(Now::read());
        }
        self.given += u32::from(self.at_hand.is_some());
        self.at_hand.is_some()
    }

    pub(super) fn event(&self) -> Option<Event<'_>> {
        self.at_hand.as_ref().and_then(|due| tick(&self.agenda, due))
    }

    /// Whether it wants another turn: when the last one was full.
    pub(super) fn end_turn(&mut self) -> bool {
        std::mem::take(&mut self.given) == TICKS_PER_TURN
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.agenda.deadline()
    }

    /// Whether nothing will ever come again.
    pub(super) fn is_over(&self) -> bool {
        self.agenda.is_over()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn metrics_mut(&mut self) -> &mut Metrics {
        &mut self.metrics
    }
}

/// A due time as the caller sees it.
pub(crate) fn tick<'a>(agenda: &'a Agenda, due: &Due) -> Option<Event<'a>> {
    let schedule = agenda.name(due.task)?;
    let Due { task, due, missed, late } = *due;
    Some(Event::Tick(Tick { task, schedule, due, missed, late }))
}
