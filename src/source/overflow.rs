//! What is done with notifications that come faster than the caller takes them: they stay with the server
//! (the default), or are read ahead and folded, or the oldest are dropped and counted.

use crate::options::Overflow;
use crate::pq::Notify;
use std::collections::{HashMap, VecDeque};

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
