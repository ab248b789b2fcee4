//! What is done with notifications that come faster than the caller takes them: they stay with the server
//! (the default), or are read ahead and folded, or the oldest are dropped and counted.

use crate::options::Overflow;
use crate::pq::Notify;
use std::collections::{HashMap, VecDeque};

/// Notifications that were read ahead. Empty for ever when the policy is to block.
#[derive(Debug)]
pub(super) struct ReadAhead {
    policy: Overflow,
    queue: VecDeque<Waiting>,
    /// Where each channel's notification stands in the queue, counted from the first that ever was in it.
    standing: HashMap<Box<[u8]>, u64>,
    taken: u64,
    /// How many were dropped and not reported yet.
    dropped: u64,
    /// How many were delivered in this turn.
    delivered: u32,
}

/// How many are delivered in one turn: others have events, too, and each turn reads on.
const DELIVERED_MAX: u32 = 16;

/// How much is read ahead at most before something is delivered (some 16 KB a round).
pub(super) const ROUNDS_MAX: u32 = 64;

/// A notification, and how many others of its channel it stands for.
#[derive(Debug)]
struct Waiting {
    notify: Notify,
    folded: u64,
}

impl ReadAhead {
    pub(super) fn new(policy: Overflow) -> Self {
        ReadAhead {
            policy,
            queue: VecDeque::new(),
            standing: HashMap::new(),
            taken: 0,
            dropped: 0,
            delivered: 0,
        }
    }

    /// Whether input is to be read before the caller asks for it.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.policy != Overflow::Block
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.dropped == 0
    }

    /// Whether enough were delivered in this turn; the next one begins.
    pub(super) fn is_turn_over(&mut self) -> bool {
        let is_over = self.delivered >= DELIVERED_MAX;
        if is_over {
            self.delivered = 0;
        }
        is_over
    }

    pub(super) fn put(&mut self, notify: Notify) {
        match self.policy {
            Overflow::Coalesce => match self.standing.get(notify.channel()) {
                Some(standing) => {
                    let waiting = &mut self.queue[(standing - self.taken) as usize];
                    waiting.notify = notify;
                    waiting.folded += 1;
                    return;
                }
                None => {
                    self.standing.insert(notify.channel().into(), self.taken + self.queue.len() as u64);
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
        self.delivered += 1;
        if self.policy == Overflow::Coalesce {
            self.standing.remove(notify.channel());
            self.taken += 1;
        }
        Some((notify, folded))
    }

    /// How many were dropped since this was asked last.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}
