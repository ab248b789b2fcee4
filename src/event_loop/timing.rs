//! What moves sessions without readiness: their deadlines, their turn to connect, the answers of the name
//! service; and how long things took.

use super::EventLoop;
use crate::error::Result;
use crate::session::Answer;
use std::time::{Duration, Instant};

/// How many sessions of a loop are on their way to a connection at once: a server that comes back is not to
/// be overrun by those that waited for it.
const CONNECTING_MAX: usize = 50;

impl EventLoop {
    /// Keeps count of the sessions on their way to a connection.
    #[inline(always)]
    pub(super) fn admit(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let is_connecting = slot.source.as_mut().is_some_and(|source| source.session().is_connecting());
        if std::mem::replace(&mut slot.is_connecting, is_connecting) == is_connecting {
            return;
        }
        if is_connecting {
            self.connecting += 1;
            return;
        }
        self.connecting -= 1;
    }

    /// Lets a session that waits for it begin to connect, if there is room; `true` when one did. One at a
    /// time: to begin takes libpq a good part of a millisecond, and the others must not wait for fifty.
    #[inline(always)]
    pub(super) fn let_in(&mut self) -> bool {
        !self.waiting_to_connect.is_empty() && self.let_one_in()
    }

    #[cold]
    fn let_one_in(&mut self) -> bool {
        if self.connecting >= CONNECTING_MAX {
            return false;
        }
        let Some(index) = self.waiting_to_connect.pop_front() else { return false };
        if let Some(source) = &mut self.slots[index].source {
            source.session().on_time(Instant::now());
            self.ready.push_back(index);
            self.admit(index);
        }
        true
    }

    /// A session's deadline may have come. When that means to connect, it has to wait for its turn.
    #[cold]
    pub(super) fn come_to_time(&mut self, index: usize) {
        let Some(source) = &mut self.slots[index].source else { return };
        let session = source.session();
        // A timer that was set before may fire too early: then its turn sets the right one.
        if session.is_waiting() && session.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.waiting_to_connect.push_back(index);
            return;
        }
        session.on_time(self.now);
        self.ready.push_back(index);
        self.admit(index);
    }

    /// Sees to it that the timer fires no later than the session's deadline. It may fire earlier: a deadline
    /// that moves away with each notification costs nothing then.
    #[inline(always)]
    pub(super) fn schedule(&mut self, index: usize) -> Result<()> {
        let slot = &mut self.slots[index];
        let Some(deadline) = slot.source.as_ref().and_then(|source| source.deadline()) else {
            return Ok(());
        };
        if slot.timer.is_none_or(|timer| deadline < timer) {
            self.enter_timer(index, deadline)?;
        }
        Ok(())
    }

    #[cold]
    fn enter_timer(&mut self, index: usize, deadline: Instant) -> Result<()> {
        let slot = &mut self.slots[index];
        let slack = slot.source.as_ref().map_or(Duration::ZERO, |source| source.slack());
        // Deadlines with slack are moved to times that they share.
        let since_start = deadline.saturating_duration_since(self.began_at);
        // 64 bits of nanoseconds are 584 years.
        let early_ns = (since_start.as_nanos() as u64).checked_rem(slack.as_nanos() as u64).unwrap_or(0);
        let timer = deadline - Duration::from_nanos(early_ns);
        if let Some(replaced) = slot.timer.replace(timer) {
            self.timers.remove(&(replaced, index));
        }
        self.timers.insert((timer, index));
        self.set_timer()
    }

    #[cold]
    pub(super) fn set_timer(&mut self) -> Result<()> {
        let first = self.timers.first().map(|(at, _)| *at);
        if first != self.timer_set_to {
            self.timer_set_to = first;
            self.reactor.set_timer(first.map(|at| at.saturating_duration_since(Instant::now())))?;
        }
        Ok(())
    }

    /// Hands what was found out elsewhere to the sessions that asked.
    #[cold]
    pub(super) fn take_answers(&mut self) {
        while let Some((session, answer)) = self.background.next() {
            let Ok(index) = self.index(session) else { continue };
            let Some(source) = &mut self.slots[index].source else { continue };
            match answer {
                Answer::Addresses(addresses) => source.session().resolved(&addresses, self.now),
                Answer::SelfTest(outcome) => source.self_test_over(outcome),
            }
            self.ready.push_back(index);
        }
    }

    #[cold]
    pub(super) fn fire_timers(&mut self) -> Result<()> {
        while let Some(&(at, index)) = self.timers.first().filter(|(at, _)| *at <= self.now) {
            self.timers.remove(&(at, index));
            self.slots[index].timer = None;
            self.come_to_time(index);
        }
        self.timer_set_to = None;
        self.set_timer()
    }

    /// The first notification of a turn goes to the caller.
    #[inline(never)]
    pub(super) fn note_delivery(&mut self, index: usize) {
        if let Some(source) = &mut self.slots[index].source {
            source.metrics.delivery.record(self.harvested_at.elapsed());
        }
    }

    /// A turn is over. It holds what the caller did with its events.
    #[inline(always)]
    pub(super) fn note_turn(&mut self, index: usize) {
        let ended_at = Instant::now();
        let took = ended_at.saturating_duration_since(self.turn_began_at);
        (self.turn_began_at, self.now) = (ended_at, ended_at);
        if let Some(source) = &mut self.slots[index].source {
            source.metrics.turns += 1;
            source.metrics.longest_turn = source.metrics.longest_turn.max(took);
        }
        self.note_stall(took);
    }

    /// A timer fired: how much too late, because nobody called `next`?
    #[cold]
    pub(super) fn note_lateness(&mut self) {
        if let Some(due) = self.timer_set_to {
            // What was lost in turns has been counted with them.
            self.note_stall(self.now.saturating_duration_since(due.max(self.turn_began_at)));
        }
    }

    #[inline(always)]
    fn note_stall(&mut self, stood_still: Duration) {
        if stood_still > self.stall_warning && !self.stall_warning.is_zero() {
            self.warn_of_stall(stood_still);
        }
    }

    #[cold]
    fn warn_of_stall(&mut self, stood_still: Duration) {
        self.stalls += 1;
        self.longest_stall = self.longest_stall.max(stood_still);
        log::warn!(
            "the loop stood still for {stood_still:.1?}: call `next` more often, or let the sessions \
             overflow; meanwhile the server keeps what comes, in a queue that is the same for everybody"
        );
    }
}
