//! What the caller is done with, and what the database knows of that: positions that were passed flow in, the
//! one to acknowledge flows out.

use super::page::Position;
use crate::error::{Error, ErrorKind, Result};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long the database may not know of changes that are done with: that much comes again after a crash.
const INTERVAL: Duration = Duration::from_secs(1);

/// The same when none of them was for this reader; it lets the outbox be cleaned.
const INTERVAL_IDLE: Duration = Duration::from_secs(60);

/// How much may wait for the caller to acknowledge it before no more is read.
const WAITING_MAX: usize = 65_536;

/// What the caller went on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    Change,
    Gap,
    /// The end of a page, which had that many changes.
    Page(usize),
}

/// What may be acknowledged, and what is reported as acknowledged then: the last gap, and the change that the
/// caller acknowledged last.
#[derive(Debug, Default)]
struct Done {
    position: Option<Position>,
    gap: Option<u64>,
    change: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Acknowledgements {
    is_manual: bool,
    /// Passed, and not done with: a change that the caller has to acknowledge, and what came after it.
    waiting: VecDeque<(Passed, Position)>,
    done: Done,
    /// On its way to the database.
    sent: Option<Done>,
    due: Option<Instant>,
    /// The greatest number of a change that waited on an earlier connection: those come again.
    stale: Option<u64>,
}

impl Acknowledgements {
    pub(super) fn new(is_manual: bool) -> Self {
        Acknowledgements { is_manual, ..Acknowledgements::default() }
    }

    /// A consumer was opened: what it had not acknowledged comes again.
    pub(super) fn begin(&mut self) {
        let waiting = self.waiting.iter().filter_map(|(_, position)| position.number);
        let (is_manual, stale) = (self.is_manual, waiting.chain(self.stale).max());
        *self = Acknowledgements { is_manual, stale, ..Acknowledgements::default() };
    }

    /// Whether more may be read.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }

    /// When the next position is to be sent. One acknowledgement is on its way at a time.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.sent.is_none())
    }

    /// The caller went on from this. Only a change may have to be acknowledged by the caller; what else came
    /// after it waits with it, and of ends of pages only the last.
    pub(super) fn passed(&mut self, what: Passed, position: Position, now: Instant) {
        if let (Passed::Page(_), Some((Passed::Page(_), last))) = (what, self.waiting.back_mut()) {
            *last = position;
        } else {
            self.waiting.push_back((what, position));
        }
        self.settle(now);
    }

    /// What waits for nothing is done with.
    fn settle(&mut self, now: Instant) {
        while let Some((what, position)) = self.waiting.pop_front() {
            if self.is_manual && what == Passed::Change {
                return self.waiting.push_front((what, position));
            }
            if what == Passed::Gap {
                self.done.gap = position.number;
            }
            self.done.position = Some(position);
            self.bring_forward(match what {
                Passed::Gap => now,
                Passed::Page(0) => now + INTERVAL_IDLE,
                Passed::Change | Passed::Page(_) => now + INTERVAL,
            });
        }
    }

    fn bring_forward(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// The caller acknowledges all changes up to this one.
    pub(super) fn acknowledge(&mut self, id: u64, now: Instant) -> Result<()> {
        if !self.is_manual {
            let message = "this session acknowledges by itself: set manual_ack to do it yourself";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let is_it = |(_, position): &(Passed, Position)| position.number == Some(id);
        if let Some(at) = self.waiting.iter().position(is_it) {
            self.done.position = self.waiting.drain(..=at).next_back().map(|(_, position)| position);
            self.done.change = Some(id);
            self.bring_forward(now);
            self.settle(now);
        } else if self.stale.is_none_or(|stale| id > stale) {
            let message = format!("no change with the id {id} waits to be acknowledged");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Ok(())
    }

    /// The position to send, if it is time.
    pub(super) fn take(&mut self, now: Instant) -> Option<String> {
        self.due().filter(|due| *due <= now)?;
        let position = self.done.position.as_ref()?.to_string();
        (self.sent, self.due) = (Some(std::mem::take(&mut self.done)), None);
        Some(position)
    }

    /// The database keeps it. Gives what is reported.
    pub(super) fn answered(&mut self) -> impl Iterator<Item = u64> + use<> {
        let sent = self.sent.take().filter(|_| self.is_manual).unwrap_or_default();
        [sent.gap, sent.change].into_iter().flatten()
    }

    /// The database did not take it: it is sent again, unless there is more by then.
    pub(super) fn refused(&mut self, now: Instant) {
        let Some(sent) = self.sent.take() else { return };
        let Done { position, gap, change } = &mut self.done;
        *position = position.take().or(sent.position);
        (*gap, *change) = (gap.or(sent.gap), change.or(sent.change));
        self.due = Some(now + INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> Position {
        Position { text: "1|2|".into(), number: Some(number) }
    }

    /// That has gone on from these changes, and then from the end of the page.
    fn after(is_manual: bool, changes: std::ops::Range<u64>, now: Instant) -> Acknowledgements {
        let (mut acks, count) = (Acknowledgements::new(is_manual), changes.clone().count());
        changes.for_each(|number| acks.passed(Passed::Change, at(number), now));
        acks.passed(Passed::Page(count), Position::of(b"2||"), now);
        acks
    }

    /// When a position is sent, which one, and what is reported once the database keeps it.
    fn sent(acks: &mut Acknowledgements) -> Option<(Instant, String, Vec<u64>)> {
        let due = acks.due()?;
        Some((due, acks.take(due)?, acks.answered().collect()))
    }

    fn expected(due: Instant, position: &str, reported: &[u64]) -> Option<(Instant, String, Vec<u64>)> {
        Some((due, position.into(), reported.into()))
    }

    #[test]
    fn what_was_gone_on_from_is_acknowledged_within_a_second() {
        let now = Instant::now();
        let mut acks = after(false, 0..0, now);
        assert_eq!(acks.due(), Some(now + INTERVAL_IDLE));
        acks.passed(Passed::Change, at(10), now);
        acks.passed(Passed::Change, at(11), now + INTERVAL / 2);
        assert_eq!(acks.take(now), None);
        assert_eq!(acks.take(now + INTERVAL).unwrap(), "1|2|11");
        acks.passed(Passed::Page(2), Position::of(b"2||"), now);
        assert_eq!(acks.due(), None, "one at a time");
        assert_eq!(acks.answered().count(), 0, "the caller did not ask for it");
        assert_eq!(sent(&mut acks), expected(now + INTERVAL, "2||", &[]));
        assert!(acks.acknowledge(11, now).is_err());
    }

    #[test]
    fn the_caller_acknowledges_what_it_was_given_and_nothing_else() {
        let now = Instant::now();
        let mut acks = after(true, 10..15, now);
        assert!(acks.due().is_none() && acks.acknowledge(99, now).is_err());
        acks.acknowledge(12, now).unwrap();
        assert!(acks.acknowledge(11, now).is_err(), "it was acknowledged with 12");
        assert_eq!(sent(&mut acks), expected(now, "1|2|12", &[12]));
        assert_eq!(sent(&mut acks), None, "what is left waits for the caller");
        acks.acknowledge(14, now).unwrap();
        assert_eq!(sent(&mut acks), expected(now, "2||", &[14]), "all of the page is done with");
    }

    #[test]
    fn what_was_refused_is_sent_again_with_what_came_since() {
        let now = Instant::now();
        let mut acks = after(true, 10..13, now);
        acks.acknowledge(10, now).unwrap();
        acks.take(now).unwrap();
        acks.refused(now);
        assert_eq!(acks.take(now + INTERVAL).unwrap(), "1|2|10");
        acks.acknowledge(11, now).unwrap();
        acks.refused(now);
        assert_eq!(sent(&mut acks), expected(now + INTERVAL, "1|2|11", &[11]));
    }

    #[test]
    fn a_gap_is_acknowledged_at_once_when_nothing_before_it_waits() {
        let now = Instant::now();
        for (is_manual, reported) in [(false, &[][..]), (true, &[7])] {
            let mut acks = after(is_manual, 0..0, now);
            acks.passed(Passed::Gap, at(7), now);
            assert_eq!(sent(&mut acks), expected(now, "1|2|7", reported));
        }
        let mut acks = after(true, 8..10, now);
        acks.passed(Passed::Gap, at(20), now);
        acks.acknowledge(8, now).unwrap();
        assert_eq!(sent(&mut acks), expected(now, "1|2|8", &[8]));
        acks.acknowledge(9, now).unwrap();
        assert_eq!(sent(&mut acks), expected(now, "1|2|20", &[20, 9]));
    }

    #[test]
    fn what_waited_on_an_earlier_connection_comes_again_and_is_acknowledged_then() {
        let now = Instant::now();
        let mut acks = after(true, 10..12, now);
        acks.acknowledge(10, now).unwrap();
        acks.take(now).unwrap();
        acks.begin();
        acks.acknowledge(11, now).unwrap();
        assert!(acks.due().is_none() && acks.acknowledge(12, now).is_err());
        acks.passed(Passed::Change, at(11), now);
        acks.acknowledge(11, now).unwrap();
        assert_eq!(sent(&mut acks), expected(now, "1|2|11", &[11]));
    }

    #[test]
    fn no_more_is_read_when_too_much_waits_for_the_caller() {
        let now = Instant::now();
        let mut acks = after(true, 0..1, now);
        (0..WAITING_MAX).for_each(|_| acks.passed(Passed::Page(0), Position::of(b"2||"), now));
        assert!(acks.has_room(), "of ends of pages only the last is kept");
        assert!(!after(true, 0..WAITING_MAX as u64, now).has_room());
    }
}
