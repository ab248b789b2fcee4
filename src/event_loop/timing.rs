//! What moves sessions without readiness: their deadlines, their turn to connect, the answers of the name
//! service.

use super::EventLoop;
use crate::error::Result;
use std::time::Instant;

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

    /// Lets sessions that wait for it begin to connect, as far as there is room; `true` when one did.
    pub(super) fn let_in(&mut self) -> bool {
        let mut has_let_in = false;
        while self.connecting < CONNECTING_MAX
            && let Some(index) = self.waiting_to_connect.pop_front()
        {
            self.now = Instant::now();
            self.come_to_time(index);
            has_let_in = true;
        }
        has_let_in
    }

    /// A session's deadline may have come. When that means to connect, it may have to wait for its turn.
    #[cold]
    pub(super) fn come_to_time(&mut self, index: usize) {
        let Some(source) = &mut self.slots[index].source else { return };
        let session = source.session();
        if session.is_waiting() && self.connecting >= CONNECTING_MAX {
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
        let Some(deadline) = slot.source.as_mut().and_then(|source| source.session().deadline()) else {
            return Ok(());
        };
        if slot.timer.is_none_or(|timer| deadline < timer) {
            if let Some(timer) = slot.timer.replace(deadline) {
                self.timers.remove(&(timer, index));
            }
            self.timers.insert((deadline, index));
            self.set_timer()?;
        }
        Ok(())
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

    /// Hands what the name service said to the sessions that asked.
    #[cold]
    pub(super) fn take_addresses(&mut self) {
        while let Some((session, addresses)) = self.lookups.next() {
            let Ok(index) = self.index(session) else { continue };
            if let Some(source) = &mut self.slots[index].source {
                source.session().resolved(&addresses, self.now);
                self.ready.push_back(index);
            }
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
}
