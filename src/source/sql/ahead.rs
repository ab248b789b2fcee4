//! Reading more than the caller takes, so that what comes neither stays in the server nor grows here.

use super::outbox::Outbox;
use super::{Look, SqlSource, read_ahead};
use crate::source::report::Report;
use std::time::Instant;

impl SqlSource {
    /// As [`advance`](Self::advance), for a session that reads ahead.
    #[cold]
    pub(super) fn advance_ahead(&mut self, now: Instant) -> bool {
        if self.read_ahead.is_turn_over() {
            self.link.session.look_ahead();
            self.link.wants_turn = !self.read_ahead.is_empty() || !self.link.reports.is_empty();
            return false;
        }
        self.read_on(now);
        // What was held before a loss is delivered before it.
        if self.link.is_listening
            && let Some(report) = self.link.reports.pop_front()
        {
            self.report(report);
            return true;
        }
        if let dropped @ 1.. = self.read_ahead.take_dropped() {
            let channels = self.link.channels.wanted().cloned().collect();
            let message = "notifications came faster than they were taken, and the oldest were dropped";
            self.report(Report::Overflow { channels, dropped, message });
            return true;
        }
        match self.look_for_read(now) {
            Look::Found => return true,
            Look::Yield => return false,
            Look::Nothing => {}
        }
        if self.give_up_awaited(now) {
            self.link.wants_turn = true;
        }
        if let Some((notify, folded)) = self.read_ahead.take() {
            self.hand_over(notify, folded);
            return true;
        }
        let report = self.link.reports.pop_front().map(|report| self.report(report));
        report.is_some()
    }

    /// Reads ahead as far as there is something, within bounds.
    fn read_on(&mut self, now: Instant) {
        for _ in 0..read_ahead::ROUNDS_MAX {
            while self.link.is_listening
                && let Some(notify) = self.next_for_caller()
            {
                self.read_ahead.put(notify);
            }
            if self.give_up_awaited(now) {
                continue;
            }
            // Changes are neither folded nor dropped: they wait in the server.
            let has_changes = self.readers.get().is_some_and(Outbox::has_changes);
            if has_changes || (!self.go_on(now) && !self.link.session.look_ahead()) {
                return;
            }
        }
    }
}
