//! What the server may forget: which transactions are done with, and when a status says so.
//!
//! A status carries the *end* LSN of a transaction, once all of it was delivered and acknowledged:
//! its commit LSN would bring it again. Where nothing is open, it is as far as the server says its log is:
//! else an idle slot would keep log for ever, and a server that shuts down would wait for us.

use crate::event::Lsn;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How late a status says what was acknowledged. Each time costs it a write of its slot at the next
/// checkpoint, and us a system call.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// A server that shuts down asks again with each answer, until all it has sent is acknowledged
/// (`WalSndDone`, walsender.c): it is answered no more often than that,
const REPEAT_INTERVAL: Duration = Duration::from_millis(50);

/// and not for longer than this. Then we hang up, and it ends.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// How many transactions are kept apart that were delivered and not acknowledged. When there are more, two
/// neighbours count as one, which is acknowledged with the later of them.
const OPEN_MAX: usize = 1 << 16;

/// A transaction that was delivered.
#[derive(Debug, Clone, Copy)]
struct Delivered {
    commit_lsn: Lsn,
    end_lsn: Lsn,
    /// The ordinal of its last event.
    last: u64,
}

#[derive(Debug)]
pub(super) struct Feedback {
    is_manual: bool,
    /// How far the server's log has come, as far as we know.
    received: Lsn,
    /// What is done with: the server may forget what lies before.
    done: Lsn,
    /// Delivered to the caller in full, and not acknowledged, in order.
    open: VecDeque<Delivered>,
    /// The event that the caller has now, or had last: its transaction and ordinal.
    delivered: (Lsn, u64),
    /// The furthest end of a transaction of which something was delivered, over whatever connection: what was
    /// delivered before an outage may be acknowledged behind it.
    furthest: Lsn,
    /// What was acknowledged last.
    acknowledged: (Lsn, u64),
    /// What the last status said, and when.
    sent: (Lsn, Instant),
    /// Since when it asks for an answer that it has already.
    asked_since: Option<Instant>,
    is_asked: bool,
}

impl Feedback {
    pub(super) fn new(is_manual: bool, now: Instant) -> Self {
        Feedback {
            is_manual,
            received: Lsn(0),
            done: Lsn(0),
            open: VecDeque::new(),
            delivered: (Lsn(0), 0),
            furthest: Lsn(0),
            acknowledged: (Lsn(0), 0),
            sent: (Lsn(0), now),
            asked_since: None,
            is_asked: false,
        }
    }

    /// A new connection streams from here on: what was delivered and not acknowledged comes again.
    pub(super) fn streams_from(&mut self, lsn: Lsn, now: Instant) {
        self.open.clear();
        self.furthest = self.furthest.max(self.delivered.0);
        self.done = self.done.max(lsn);
        self.sent = (Lsn(0), now);
        (self.asked_since, self.is_asked) = (None, false);
    }

    /// Another slot, whose positions have nothing to do with those of the last.
    pub(super) fn forget(&mut self) {
        (self.received, self.done) = (Lsn(0), Lsn(0));
        (self.delivered, self.acknowledged) = ((Lsn(0), 0), (Lsn(0), 0));
    }

    pub(super) fn received(&self) -> Lsn {
        self.received
    }

    pub(super) fn done(&self) -> Lsn {
        self.done
    }

    /// How far the log was read: the caller knows what lies before, whether or not it is acknowledged.
    pub(super) fn reached(&self) -> Lsn {
        self.done.max(self.delivered.0)
    }

    /// An event of this transaction is delivered.
    #[inline]
    pub(super) fn delivers(&mut self, commit_lsn: Lsn, ordinal: u64) {
        self.delivered = (commit_lsn, ordinal);
    }

    /// The caller asks for the next event: it has dealt with the last, unless it says so itself.
    #[inline]
    pub(super) fn asked_for_next(&mut self) {
        if !self.is_manual {
            self.acknowledged = self.delivered;
            if !self.open.is_empty() {
                self.settle();
            }
        }
    }

    /// The caller has dealt with all that was delivered of transactions up to this place in the log. `false`
    /// when nothing was delivered from so far on.
    pub(super) fn acknowledge(&mut self, lsn: Lsn) -> bool {
        let (commit_lsn, ordinal) = self.delivered;
        if lsn > self.furthest.max(commit_lsn).max(self.done) {
            return false;
        }
        // What was delivered last is the most that this can be about: the end of its transaction may be where
        // the commit of the next one stands.
        let reached = if lsn < commit_lsn { (lsn, u64::MAX) } else { (commit_lsn, ordinal) };
        self.acknowledged = self.acknowledged.max(reached);
        self.settle();
        true
    }

    /// A transaction ends here; the ordinal is that of its last event, 0 when there was none.
    pub(super) fn committed(&mut self, commit_lsn: Lsn, end_lsn: Lsn, last: u64) {
        if self.open.len() == OPEN_MAX {
            let mut is_later = true;
            self.open.retain(|_| {
                is_later = !is_later;
                is_later
            });
        }
        self.open.push_back(Delivered { commit_lsn, end_lsn, last });
        if last > 0 {
            self.furthest = self.furthest.max(end_lsn);
        }
        self.received = self.received.max(end_lsn);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(first) = self.open.front() {
            let is_done = first.last == 0 || (first.commit_lsn, first.last) <= self.acknowledged;
            if !is_done {
                return;
            }
            self.done = self.done.max(first.end_lsn);
            self.open.pop_front();
        }
    }

    /// The server says how far its log is. `is_idle`: no transaction is being delivered.
    pub(super) fn heard(&mut self, end: Lsn, is_idle: bool, wants_reply: bool) {
        self.received = self.received.max(end);
        if is_idle && self.open.is_empty() {
            self.done = self.done.max(end);
        }
        self.is_asked |= wants_reply;
    }

    /// Whether a status is to be sent now.
    #[inline]
    pub(super) fn is_due(&self, now: Instant) -> bool {
        (self.is_asked || self.done > self.sent.0) && self.deadline().is_some_and(|at| at <= now)
    }

    /// Whether the caller has ever dealt with something: the server may not have read of it yet, however long
    /// ago that was said.
    pub(super) fn has_acknowledged(&self) -> bool {
        self.acknowledged.0 > Lsn(0)
    }

    /// When it is, if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let (sent, at) = self.sent;
        match (self.is_asked, self.done > sent) {
            // The first answer, and any that says something new, goes at once.
            (true, true) => Some(at),
            (true, false) if self.asked_since.is_none() => Some(at),
            (true, false) => Some(at + REPEAT_INTERVAL),
            (false, true) => Some(at + STATUS_INTERVAL),
            (false, false) => None,
        }
    }

    /// A status is sent now. Gives what it says.
    pub(super) fn status_sent(&mut self, now: Instant) -> Lsn {
        if self.is_asked && self.done <= self.sent.0 {
            self.asked_since.get_or_insert(now);
        } else {
            self.asked_since = None;
        }
        self.sent = (self.done, now);
        self.is_asked = false;
        self.done
    }

    /// Whether a server that shuts down has waited long enough for what the caller does not acknowledge.
    pub(super) fn is_grace_over(&self, now: Instant) -> bool {
        self.is_asked && self.asked_since.is_some_and(|since| now >= since + SHUTDOWN_GRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feedback(is_manual: bool) -> Feedback {
        Feedback::new(is_manual, Instant::now())
    }

    #[test]
    fn a_transaction_is_done_with_once_its_last_event_was_dealt_with() {
        let mut feedback = feedback(false);
        feedback.delivers(Lsn(10), 1);
        feedback.asked_for_next();
        feedback.delivers(Lsn(10), 2);
        feedback.asked_for_next();
        assert_eq!(feedback.done(), Lsn(0), "there may be more of it");
        feedback.committed(Lsn(10), Lsn(12), 2);
        assert_eq!(feedback.done(), Lsn(12));
        feedback.delivers(Lsn(20), 1);
        feedback.committed(Lsn(20), Lsn(22), 1);
        assert_eq!(feedback.done(), Lsn(12), "the caller has it, and has not asked for the next");
        feedback.heard(Lsn(30), true, false);
        assert_eq!(feedback.done(), Lsn(12), "a keepalive is no proof");
        feedback.asked_for_next();
        feedback.heard(Lsn(30), true, false);
        assert_eq!(feedback.done(), Lsn(30), "nothing is open: the log may go");
    }

    #[test]
    fn only_what_was_delivered_can_be_acknowledged() {
        let mut feedback = feedback(true);
        assert!(!feedback.acknowledge(Lsn(1)));
        feedback.delivers(Lsn(10), 1);
        assert!(!feedback.acknowledge(Lsn(11)) && feedback.acknowledge(Lsn(10)));
        feedback.delivers(Lsn(10), 2);
        feedback.committed(Lsn(10), Lsn(12), 2);
        assert_eq!(feedback.done(), Lsn(0), "its second event was delivered behind that");
        feedback.delivers(Lsn(20), 1);
        feedback.committed(Lsn(20), Lsn(22), 1);
        assert!(feedback.acknowledge(Lsn(10)));
        assert_eq!(feedback.done(), Lsn(12), "all of it");
        assert!(feedback.acknowledge(Lsn(22)), "by its end as well as by its commit");
        assert_eq!(feedback.done(), Lsn(22));
        feedback.committed(Lsn(30), Lsn(32), 0);
        assert_eq!(feedback.done(), Lsn(32), "nothing of it was delivered");
        feedback.delivers(Lsn(40), 1);
        feedback.committed(Lsn(40), Lsn(42), 1);
        assert!(feedback.acknowledge(Lsn(42)));
        feedback.delivers(Lsn(42), 1);
        feedback.committed(Lsn(42), Lsn(44), 1);
        assert_eq!(feedback.done(), Lsn(42), "it begins where the last one ends, and was delivered later");
    }

    #[test]
    fn what_was_delivered_before_an_outage_is_acknowledged_once_it_has_come_again() {
        let mut feedback = feedback(true);
        for lsn in [10, 20] {
            feedback.delivers(Lsn(lsn), 1);
            feedback.committed(Lsn(lsn), Lsn(lsn + 2), 1);
        }
        feedback.delivers(Lsn(30), 1);
        feedback.streams_from(Lsn(0), Instant::now());
        feedback.delivers(Lsn(10), 1);
        for lsn in [22, 30] {
            assert!(feedback.acknowledge(Lsn(lsn)), "it was delivered");
        }
        assert!(!feedback.acknowledge(Lsn(31)));
        feedback.committed(Lsn(10), Lsn(12), 1);
        feedback.delivers(Lsn(20), 1);
        feedback.committed(Lsn(20), Lsn(22), 1);
        assert_eq!(feedback.done(), Lsn(12), "the second has come again behind that");
    }

    #[test]
    fn a_transaction_that_was_prepared_long_ago_does_not_hide_what_lies_behind_it() {
        let mut feedback = feedback(true);
        feedback.delivers(Lsn(10), 1);
        feedback.committed(Lsn(10), Lsn(12), 1);
        feedback.delivers(Lsn(5), 1);
        assert!(feedback.acknowledge(Lsn(12)));
    }

    #[test]
    fn a_caller_that_acknowledges_nothing_costs_no_memory_and_can_still_do_so() {
        let mut feedback = feedback(true);
        let transactions = 10 * OPEN_MAX as u64;
        for lsn in (10..).step_by(10).take(transactions as usize) {
            feedback.delivers(Lsn(lsn), 1);
            feedback.committed(Lsn(lsn), Lsn(lsn + 2), 1);
            assert!(feedback.open.len() <= OPEN_MAX);
        }
        let last = transactions * 10;
        assert!(feedback.acknowledge(Lsn(last - 10)));
        assert!(feedback.done() <= Lsn(last - 8) && feedback.done() > Lsn(last / 2), "{}", feedback.done());
        assert!(feedback.acknowledge(Lsn(last)));
        assert_eq!(feedback.done(), Lsn(last + 2));
    }

    #[test]
    fn a_server_that_shuts_down_is_answered_at_once_then_seldom_and_not_for_ever() {
        let start = Instant::now();
        let mut feedback = Feedback::new(true, start);
        feedback.delivers(Lsn(10), 1);
        feedback.committed(Lsn(10), Lsn(12), 1);
        feedback.heard(Lsn(12), true, true);
        assert!(feedback.is_due(start));
        assert_eq!(feedback.status_sent(start), Lsn(0));
        feedback.heard(Lsn(12), true, true);
        assert!(!feedback.is_due(start) && feedback.is_due(start + REPEAT_INTERVAL));
        assert!(!feedback.is_grace_over(start) && feedback.is_grace_over(start + SHUTDOWN_GRACE));
        feedback.acknowledge(Lsn(10));
        assert!(feedback.is_due(start), "something new is sent at once");
        assert_eq!(feedback.status_sent(start), Lsn(12));
        assert!(!feedback.is_grace_over(start + SHUTDOWN_GRACE));
    }
}
