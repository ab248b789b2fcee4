//! What is done with notifications that come faster than the caller takes them: they stay with the server
//! (the default), or are read ahead and folded, or the oldest are dropped and counted.

use super::channels::ChannelSource;
use super::outbox::Outbox;
use super::{Pull, Report};
use crate::options::Overflow;
use crate::pq::Notify;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// Notifications that were read ahead. Empty for ever when the policy is to block.
#[derive(Debug)]
pub(super) struct Held {
    policy: Overflow,
    queue: VecDeque<Waiting>,
    /// The place of each channel's notification in the queue, counted from the first that ever was in it.
    places: HashMap<Box<[u8]>, u64>,
    taken: u64,
    /// How many were dropped and not told yet.
    dropped: u64,
    /// How many were told in this turn.
    told: u32,
}

/// How many are told in one turn: others have events, too, and each turn reads on.
const TOLD_MAX: u32 = 16;

/// How much is read ahead at most before something is told (some 16 KB a round).
const READ_AHEAD_ROUNDS_MAX: u32 = 64;

/// A notification, and how many others of its channel it stands for.
#[derive(Debug)]
struct Waiting {
    notify: Notify,
    folded: u64,
}

impl Held {
    pub(super) fn new(policy: Overflow) -> Self {
        Held { policy, queue: VecDeque::new(), places: HashMap::new(), taken: 0, dropped: 0, told: 0 }
    }

    /// Whether input is to be read before the caller asks for it.
    #[inline]
    pub(super) fn reads_ahead(&self) -> bool {
        self.policy != Overflow::Block
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.dropped == 0
    }

    /// Whether enough were told in this turn; the next one begins.
    pub(super) fn is_turn_over(&mut self) -> bool {
        let is_over = self.told >= TOLD_MAX;
        if is_over {
            self.told = 0;
        }
        is_over
    }

    pub(super) fn put(&mut self, notify: Notify) {
        match self.policy {
            Overflow::Coalesce => match self.places.get(notify.channel()) {
                Some(place) => {
                    let held = &mut self.queue[(place - self.taken) as usize];
                    held.notify = notify;
                    held.folded += 1;
                    return;
                }
                None => {
                    self.places.insert(notify.channel().into(), self.taken + self.queue.len() as u64);
                }
            },
            Overflow::DropOldest(most) if self.queue.len() >= most.max(1) => {
                self.queue.pop_front();
                self.dropped += 1;
            }
            Overflow::DropOldest(_) | Overflow::Block => {}
        }
        self.queue.push_back(Waiting { notify, folded: 0 });
    }

    /// The oldest, and how many others of its channel it stands for.
    pub(super) fn take(&mut self) -> Option<(Notify, u64)> {
        let Waiting { notify, folded } = self.queue.pop_front()?;
        self.told += 1;
        if self.policy == Overflow::Coalesce {
            self.places.remove(notify.channel());
            self.taken += 1;
        }
        Some((notify, folded))
    }

    /// How many were dropped since this was asked last.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

impl ChannelSource {
    /// As `pull`, for a session that reads more than its caller takes, so that what comes neither stays in
    /// the server nor grows here.
    #[cold]
    pub(super) fn pull_ahead(&mut self, now: Instant) -> Pull {
        if self.held.is_turn_over() {
            self.session.look_ahead();
            self.wants_turn = !self.held.is_empty() || !self.reports.is_empty();
            return Pull::Idle;
        }
        for _ in 0..READ_AHEAD_ROUNDS_MAX {
            while self.is_listening
                && let Some(notify) = self.next_for_caller()
            {
                self.held.put(notify);
            }
            if self.give_up_fetches(now) {
                continue;
            }
            // Changes are neither folded nor dropped: they wait in the server.
            let has_changes = self.outbox.as_deref().is_some_and(Outbox::has_changes);
            if has_changes || (!self.go_on(now) && !self.session.look_ahead()) {
                break;
            }
        }
        // What was held before a loss is told before it.
        if self.is_listening
            && let Some(report) = self.reports.pop_front()
        {
            return Pull::Report(Box::new(report));
        }
        if let dropped @ 1.. = self.held.take_dropped() {
            let channels = self.wanted.iter().cloned().collect();
            let message = "notifications came faster than they were taken, and the oldest were dropped";
            return Pull::Report(Box::new(Report::Overflow { channels, dropped, message }));
        }
        if let Some(pull) = self.next_change(now) {
            return pull;
        }
        if self.give_up_fetches(now) {
            self.wants_turn = true;
        }
        if let Some((notify, folded)) = self.held.take() {
            return Pull::Notification { notify, folded };
        }
        self.reports.pop_front().map_or(Pull::Idle, |report| Pull::Report(Box::new(report)))
    }
}
