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
}

/// A notification, and how many others of its channel it stands for.
#[derive(Debug)]
struct Waiting {
    notify: Notify,
    folded: u64,
}

impl Held {
    pub(super) fn new(policy: Overflow) -> Self {
        Held { policy, queue: VecDeque::new(), places: HashMap::new(), taken: 0, dropped: 0 }
    }

    /// Whether input is to be read before the caller asks for it.
    #[inline]
    pub(super) fn reads_ahead(&self) -> bool {
        self.policy != Overflow::Block
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
