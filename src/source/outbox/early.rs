//! What is told before it is read: a change that came with the ring for it. `install/sql/05_early.sql`.
//!
//! It is taken when it is the one that follows all that is known, so that no row's changes change places, and
//! when nothing is being read, so that the next page begins with it, where it is left out. In any other case
//! nothing is lost but time.

use super::{Outbox, State, Told};
use crate::pq::Notify;
use std::time::Instant;

/// The number of a change is its outbox row's id, times this, and its place in it.
const PLACES: u64 = 4096;

/// How many may have been told and not been read before the rest waits to be read.
const UNREAD_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Early {
    /// The channel that brings them.
    ear: Vec<u8>,
    /// Every outbox row up to this one was told, or will never come.
    settled: Option<u64>,
    /// The furthest change that was told.
    told_max: u64,
    /// Told, and not read yet; and up to which the caller has acknowledged them.
    unread: Vec<u64>,
    acknowledged: Option<u64>,
}

impl Early {
    /// On this connection, from now on.
    pub(super) fn listens_on(&mut self, ear: &[u8]) {
        self.ear = ear.to_vec();
    }

    pub(super) fn is_ear(&self, channel: &[u8]) -> bool {
        !self.ear.is_empty() && self.ear == channel
    }

    /// Whether it is an ear at all: one may bring something before the server has said which it is, or still
    /// when it has lent another.
    pub(super) fn is_any_ear(channel: &[u8]) -> bool {
        channel.len() == 39 && channel.starts_with(b"pgwake_")
    }

    /// The connection is lost, and what was told early may come again. Gives what was not read.
    pub(super) fn end(&mut self) -> Vec<u64> {
        std::mem::take(self).unread
    }

    /// All of a page was told, after which nothing was left up to this outbox row. Gives what was told of
    /// these and is not read: it is lost from the outbox.
    pub(super) fn settle(&mut self, row: u64) -> Vec<u64> {
        self.settled = self.settled.max(Some(row));
        let (lost, kept) = std::mem::take(&mut self.unread).into_iter().partition(|id| id / PLACES <= row);
        self.unread = kept;
        lost
    }

    /// The server refuses to read: nothing is known until it does again.
    pub(super) fn unsettle(&mut self) {
        self.settled = None;
    }

    /// Whether a change may be told now that was not read.
    fn take(&mut self, id: u64) -> bool {
        let (row, place) = (id / PLACES, id % PLACES);
        if place != 0
            || self.settled.is_none_or(|settled| settled.checked_add(1) != Some(row))
            || id < self.told_max
        {
            return false;
        }
        let is_new = id > self.told_max;
        if is_new && self.unread.len() >= UNREAD_MAX {
            return false;
        }
        self.settled = Some(row);
        if is_new {
            self.told_max = id;
            self.unread.push(id);
        }
        is_new
    }

    /// A change was read: whether it was told already, and if so, whether it is acknowledged.
    pub(super) fn was_told(&mut self, id: Option<u64>) -> Option<bool> {
        let id = id?;
        self.told_max = self.told_max.max(id);
        if !self.unread.contains(&id) {
            return None;
        }
        self.unread.retain(|told| *told != id);
        Some(self.acknowledged.is_some_and(|acknowledged| acknowledged >= id))
    }

    /// The caller acknowledges a change: whether that is one of these, and not acknowledged with a later one.
    pub(super) fn acknowledge(&mut self, id: u64) -> bool {
        let is_new = self.acknowledged.is_none_or(|acknowledged| acknowledged < id);
        if !is_new || !self.unread.contains(&id) {
            return false;
        }
        self.acknowledged = Some(id);
        true
    }
}

impl Outbox {
    /// Takes what came through the ear.
    pub(super) fn hear_early(&mut self, notify: Notify) {
        let is_at_rest = self.state == State::Open && self.pages.is_empty();
        // What the server would have to convert first is read as soon.
        if !is_at_rest || (self.is_converted && !notify.payload().is_ascii()) {
            return;
        }
        let is_change = std::str::from_utf8(notify.payload()).is_ok_and(|text| self.heard_change.read(text));
        if is_change && self.heard_change.id().is_some_and(|id| self.early.take(id)) {
            self.heard = Some(notify);
        }
    }

    /// Whether the change that was just read has been told before. The caller has gone on from it since.
    pub(super) fn was_told_early(&mut self, now: Instant) -> bool {
        let id = self.change.id();
        let (Some(is_acknowledged), Some(id)) = (self.early.was_told(id), id) else { return false };
        if let Some(page) = self.pages.front() {
            self.acknowledgements.done_before(id, page.prefix(), is_acknowledged, now);
        }
        self.told = Told::Nothing;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(row: u64) -> Early {
        let mut early = Early::default();
        early.settle(row);
        early
    }

    #[test]
    fn only_what_follows_all_that_is_known_is_told_early() {
        assert!(!Early::default().take(11 * PLACES), "nothing is known");
        let mut early = settled(10);
        for id in [10 * PLACES, 11 * PLACES + 1, 12 * PLACES] {
            assert!(!early.take(id));
        }
        assert!(early.take(11 * PLACES));
        assert!(!early.take(11 * PLACES), "once");
        assert!(early.take(12 * PLACES));
        assert_eq!(early.was_told(Some(11 * PLACES)), Some(false));
        assert_eq!(early.was_told(Some(11 * PLACES)), None);
        assert_eq!(early.end(), [12 * PLACES]);
        assert!(!early.take(13 * PLACES), "another connection");
    }

    #[test]
    fn what_was_read_first_is_not_told_again_but_what_follows_is() {
        let mut early = settled(10);
        assert_eq!(early.was_told(Some(11 * PLACES)), None);
        assert!(!early.take(11 * PLACES));
        assert!(early.take(12 * PLACES));
        // Another transaction's was read before that came.
        assert_eq!(early.was_told(Some(14 * PLACES)), None);
        assert!(!early.take(13 * PLACES));
        early.settle(14);
        assert!(early.take(15 * PLACES));
        early.settle(12);
        assert!(early.take(16 * PLACES), "an older answer takes nothing back");
    }

    #[test]
    fn what_is_acknowledged_before_it_is_read_is_remembered() {
        let mut early = settled(10);
        assert!(early.take(11 * PLACES) && early.take(12 * PLACES) && early.take(13 * PLACES));
        assert!(!early.acknowledge(10 * PLACES));
        assert!(early.acknowledge(12 * PLACES));
        assert!(!early.acknowledge(11 * PLACES) && !early.acknowledge(12 * PLACES));
        let read = [11, 12, 13].map(|row| early.was_told(Some(row * PLACES)));
        assert_eq!(read, [Some(true), Some(true), Some(false)]);
        assert!(!early.acknowledge(13 * PLACES));
    }

    #[test]
    fn what_is_lost_before_it_is_read_is_not_waited_for() {
        let mut early = settled(0);
        assert!((1..=UNREAD_MAX as u64).all(|row| early.take(row * PLACES)));
        let next = UNREAD_MAX as u64 + 1;
        assert_eq!(early.settle(next).len(), UNREAD_MAX);
        assert!(!early.acknowledge(PLACES));
        assert!(early.take((next + 1) * PLACES));
        assert_eq!(early.was_told(Some(PLACES)), None);
    }

    #[test]
    fn an_ear_is_known_by_its_name() {
        assert!(Early::is_any_ear(b"pgwake_b8c7831b5d024d12a2eca4412fd5b3b1"));
        for channel in ["pgwake", "pgwake_17", "pgwake_ddl", "b8c7831b5d024d12a2eca4412fd5b3b1"] {
            assert!(!Early::is_any_ear(channel.as_bytes()), "{channel}");
        }
    }

    #[test]
    fn no_number_is_too_large() {
        let mut early = settled(u64::MAX);
        assert!(!early.take(0));
    }

    #[test]
    fn they_wait_to_be_read_when_too_many_were_told() {
        let mut early = settled(0);
        assert!((1..=UNREAD_MAX as u64).all(|row| early.take(row * PLACES)));
        let next = (UNREAD_MAX as u64 + 1) * PLACES;
        assert!(!early.take(next));
        assert_eq!(early.was_told(Some(PLACES)), Some(false));
        assert!(early.take(next));
    }
}
