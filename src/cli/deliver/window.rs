//! What was handed over and is not known to be stored: events flow in, lines to send flow out, and with each
//! answer the number up to which the source may be told that all is stored. Pure: it knows neither child nor
//! clock.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

/// What an event is known by.
#[derive(Debug, Clone, Default)]
pub(super) struct Key {
    /// To the child.
    pub(super) position: String,
    /// In the log, whose events come in this order, also those that come again.
    pub(super) place: Option<(u64, u64)>,
    /// By which its source is told that it is stored; none where the source does not want to know.
    pub(super) number: Option<u64>,
}

/// An event on its way.
#[derive(Debug)]
struct Entry {
    key: Key,
    line: Vec<u8>,
    sent_at: Option<Instant>,
    /// It is no more to be sent or stored: a dead letter, or one that nobody wanted.
    is_settled: bool,
}

/// An answer about a position that is not under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stray {
    /// It was answered before.
    Repeated,
    /// This child never got it.
    Unknown,
}

#[derive(Debug, Default)]
pub(super) struct Window {
    entries: VecDeque<Entry>,
    /// So many of them, from the oldest on, were given to the child.
    sent: usize,
    bytes: usize,
    count_max: usize,
    bytes_max: usize,
    /// Positions that this child has answered for, the last ones.
    past: VecDeque<String>,
    /// Positions of what is here and comes again, after an outage.
    repeats: HashSet<String>,
    /// The last place in the log that is settled, with all before it; and whether after an outage what lies
    /// before it may come again. Otherwise nothing does: a transaction that was prepared before its slot was
    /// made has a lower place, and is new.
    settled: Option<(u64, u64)>,
    is_repeating: bool,
    /// Up to this number all is stored, and the source does not know.
    stored: Option<u64>,
    /// The last number that the source was told; and which it was before the outage, behind which it goes on
    /// from there.
    told: Option<u64>,
    goes_on_from: Option<u64>,
}

impl Window {
    pub(super) fn new(count_max: usize, bytes_max: usize) -> Self {
        Window { count_max, bytes_max, ..Window::default() }
    }

    /// Whether one more may come. One that is larger than all room there is comes alone.
    pub(super) fn has_room(&self) -> bool {
        self.entries.len() < self.count_max && self.bytes < self.bytes_max
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The connection was lost over which all this came: what its source keeps comes again.
    pub(super) fn outage(&mut self) {
        self.repeats = self.entries.iter().map(|entry| entry.key.position.clone()).collect();
        if !std::mem::replace(&mut self.is_repeating, true) {
            self.goes_on_from = self.told;
        }
    }

    /// What its source kept is gone: nothing comes again, and positions may be lower than before.
    pub(super) fn gap(&mut self) {
        self.repeats.clear();
        (self.settled, self.told, self.goes_on_from) = (None, None, None);
    }

    /// What is here already, or settled, is not taken again.
    pub(super) fn push(&mut self, key: Key, line: Vec<u8>) {
        if !self.is_repeated(&key) {
            self.bytes += line.len();
            self.entries.push_back(Entry { key, line, sent_at: None, is_settled: false });
        }
    }

    /// An event that nobody wants: it counts as stored once all before it is.
    pub(super) fn pass(&mut self, key: Key) {
        if !self.is_repeated(&key) {
            self.entries.push_back(Entry { key, line: Vec::new(), sent_at: None, is_settled: true });
            self.settle();
        }
    }

    fn is_repeated(&mut self, key: &Key) -> bool {
        if key.place.is_some() && key.number < self.goes_on_from {
            return false;
        }
        self.is_repeating &= key.place.is_none() || key.place <= self.settled;
        if self.is_repeating && key.place.is_some() {
            // The source may not have heard of it. Otherwise it hears of what lies behind.
            if self.entries.is_empty() {
                self.stored = key.number.or(self.stored);
            }
            return true;
        }
        !self.repeats.is_empty() && self.repeats.remove(&key.position)
    }

    /// The lines that are to be sent, at most so many.
    pub(super) fn unsent(&self, most: usize) -> impl Iterator<Item = &[u8]> {
        let waiting = self.entries.iter().skip(self.sent).filter(|entry| !entry.is_settled);
        waiting.take(most).map(|entry| &entry.line[..])
    }

    /// The positions of the first and the last of them, and how many they are.
    pub(super) fn unsent_positions(&self, most: usize) -> Option<(&str, &str, usize)> {
        let waiting = self.entries.iter().skip(self.sent).filter(|entry| !entry.is_settled);
        let mut positions = waiting.take(most).map(|entry| &*entry.key.position);
        let first = positions.next()?;
        let (count, last) = positions.fold((1, first), |(count, _), position| (count + 1, position));
        Some((first, last, count))
    }

    /// So many of those were given to the child now.
    pub(super) fn sent(&mut self, mut count: usize, now: Instant) {
        while count > 0
            && let Some(entry) = self.entries.get_mut(self.sent)
        {
            if !entry.is_settled {
                entry.sent_at = Some(now);
                count -= 1;
            }
            self.sent += 1;
        }
    }

    /// How many the child has, from the oldest on that it has not answered.
    pub(super) fn under_way(&self) -> usize {
        self.sent
    }

    /// Since when the child has the oldest that it has not answered.
    pub(super) fn oldest_at(&self) -> Option<Instant> {
        self.entries.front().and_then(|entry| entry.sent_at)
    }

    /// Where the oldest stands.
    pub(super) fn oldest(&self) -> &str {
        self.entries.front().map_or("", |entry| &entry.key.position)
    }

    /// Where it is among those that the child has.
    fn find(&self, position: &str) -> Result<usize, Stray> {
        match self.entries.iter().take(self.sent).position(|entry| entry.key.position == position) {
            Some(index) => Ok(index),
            None if self.past.iter().rev().any(|past| past == position) => Err(Stray::Repeated),
            None => Err(Stray::Unknown),
        }
    }

    /// The same of one that is not settled yet.
    fn find_open(&self, position: &str) -> Result<usize, Stray> {
        let index = self.find(position)?;
        if self.entries[index].is_settled { Err(Stray::Repeated) } else { Ok(index) }
    }

    /// All up to this position is stored. How many that were.
    pub(super) fn stored(&mut self, position: &str) -> Result<usize, Stray> {
        let last = self.find(position)?;
        let mut count = 0;
        for entry in self.entries.iter_mut().take(last + 1) {
            count += usize::from(!std::mem::replace(&mut entry.is_settled, true));
        }
        self.settle();
        Ok(count)
    }

    /// From this position on all is to be sent again.
    pub(super) fn again(&mut self, position: &str) -> Result<(), Stray> {
        self.sent = self.find_open(position)?;
        for entry in self.entries.iter_mut().skip(self.sent) {
            entry.sent_at = None;
        }
        Ok(())
    }

    /// The line of an event that the child has, for a dead letter.
    pub(super) fn line(&self, position: &str) -> Result<&[u8], Stray> {
        Ok(&self.entries[self.find_open(position)?].line)
    }

    /// The event is done with, whatever becomes of those before it.
    pub(super) fn drop(&mut self, position: &str) -> Result<(), Stray> {
        let index = self.find_open(position)?;
        let entry = &mut self.entries[index];
        entry.is_settled = true;
        self.bytes -= std::mem::take(&mut entry.line).len();
        self.settle();
        Ok(())
    }

    /// A new child begins with the oldest that is not stored, and knows nothing of what was before.
    pub(super) fn restart(&mut self) {
        self.sent = 0;
        self.past.clear();
        for entry in &mut self.entries {
            entry.sent_at = None;
        }
    }

    /// The number up to which all is stored, once each time that it has changed. More of a transaction may
    /// have come meanwhile.
    pub(super) fn take_stored(&mut self) -> Option<u64> {
        let stored = self.stored.take().filter(|number| Some(*number) != self.next_number());
        self.told = stored.or(self.told);
        stored
    }

    fn next_number(&self) -> Option<u64> {
        self.entries.iter().find_map(|entry| entry.key.number)
    }

    /// What is settled at the front is gone. A number counts once nothing of the same number is left: the
    /// events of a transaction share theirs, and it is not stored before its last event is.
    fn settle(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.is_settled)
            && let Some(entry) = self.entries.pop_front()
        {
            self.sent = self.sent.saturating_sub(1);
            self.bytes -= entry.line.len();
            let Key { position, place, number } = entry.key;
            if number.is_some() && number != self.next_number() {
                self.stored = number;
            }
            self.settled = place.or(self.settled);
            self.repeats.remove(&position);
            if self.past.len() >= self.count_max {
                self.past.pop_front();
            }
            self.past.push_back(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(position: &str, number: impl Into<Option<u64>>) -> Key {
        Key { position: position.into(), place: None, number: number.into() }
    }

    /// With events of these numbers at the positions 1, 2, 3 …, each given to the child.
    fn window(numbers: &[u64]) -> Window {
        let mut window = Window::new(10, 1000);
        for (i, number) in numbers.iter().enumerate() {
            window.push(key(&(i + 1).to_string(), *number), format!("{}\n", i + 1).into_bytes());
        }
        window.sent(numbers.len(), Instant::now());
        window
    }

    fn unsent(window: &Window) -> String {
        let lines: Vec<_> = window.unsent(100).map(|line| String::from_utf8_lossy(line)).collect();
        lines.concat().replace('\n', " ")
    }

    #[test]
    fn an_answer_is_about_all_up_to_its_position() {
        let mut window = window(&[10, 20, 30]);
        assert_eq!(window.take_stored(), None);
        assert_eq!(window.stored("2"), Ok(2));
        assert_eq!((window.take_stored(), window.take_stored(), window.len()), (Some(20), None, 1));
        assert_eq!(window.stored("1"), Err(Stray::Repeated), "out of order");
        assert_eq!(window.stored("2"), Err(Stray::Repeated), "twice");
        assert_eq!(window.stored("4"), Err(Stray::Unknown), "what it never got");
        assert_eq!(window.stored("3"), Ok(1));
        assert_eq!((window.take_stored(), window.bytes()), (Some(30), 0));
    }

    #[test]
    fn what_was_not_sent_cannot_be_answered() {
        let mut window = window(&[10]);
        window.push(key("2", Some(20)), b"2\n".to_vec());
        assert_eq!(window.stored("2"), Err(Stray::Unknown));
        window.restart();
        assert_eq!(window.stored("1"), Err(Stray::Unknown), "the new child has not got it yet");
        assert_eq!(unsent(&window), "1 2 ");
    }

    #[test]
    fn a_transaction_is_stored_when_its_last_event_is() {
        let mut window = window(&[10, 10, 20, 20, 20]);
        window.stored("1").unwrap();
        assert_eq!(window.take_stored(), None);
        window.stored("4").unwrap();
        assert_eq!(window.take_stored(), Some(10));
        window.stored("5").unwrap();
        assert_eq!(window.take_stored(), Some(20), "of what has come of it so far");
    }

    #[test]
    fn a_transaction_is_not_stored_while_more_of_it_has_come() {
        let at = |ordinal| Key { place: Some((20, ordinal)), ..key(&format!("20/{ordinal}"), 20) };
        let mut window = Window::new(10, 1000);
        // One that nobody wants, behind which another of the same transaction follows.
        window.pass(at(1));
        window.push(at(2), b"2\n".to_vec());
        assert_eq!(window.take_stored(), None);
        window.sent(1, Instant::now());
        window.stored("20/2").unwrap();
        assert_eq!(window.take_stored(), Some(20));
        // After an outage it comes again, and goes on.
        window.outage();
        window.push(at(2), b"2\n".to_vec());
        window.push(at(3), b"3\n".to_vec());
        assert_eq!((window.take_stored(), window.len()), (None, 1));
    }

    #[test]
    fn without_an_outage_nothing_is_taken_for_a_repeat() {
        let mut window = Window::new(10, 1000);
        let at = |lsn: u64| Key { place: Some((lsn, 1)), ..key(&format!("{lsn}/1"), lsn) };
        window.pass(at(20));
        window.push(at(10), Vec::new());
        assert_eq!(window.len(), 1, "it was prepared before the slot was made");
        window.outage();
        window.push(at(30), Vec::new());
        window.push(at(25), Vec::new());
        assert_eq!(window.len(), 3, "all that came again has come");
    }

    #[test]
    fn what_lies_before_all_that_its_source_was_told_is_new_after_an_outage_too() {
        let mut window = Window::new(10, 1000);
        let at = |lsn: u64| Key { place: Some((lsn, 1)), ..key(&format!("{lsn}/1"), lsn) };
        window.pass(at(20));
        assert_eq!(window.take_stored(), Some(20));
        window.pass(at(30));
        window.outage();
        window.push(at(10), Vec::new());
        assert_eq!(window.len(), 1, "it was prepared before the slot was made");
        window.push(at(20), Vec::new());
        window.push(at(30), Vec::new());
        assert_eq!(window.len(), 1, "they come again");
    }

    #[test]
    fn after_a_gap_positions_may_be_lower() {
        let mut window = Window::new(10, 1000);
        let at = |lsn: u64| Key { place: Some((lsn, 1)), ..key(&format!("{lsn}/1"), lsn) };
        window.pass(at(20));
        window.outage();
        window.push(at(19), Vec::new());
        assert_eq!(window.len(), 0, "it was stored before");
        window.outage();
        window.gap();
        window.push(at(19), Vec::new());
        assert_eq!(window.len(), 1);
    }

    #[test]
    fn what_has_no_number_does_not_end_a_transaction() {
        let mut window = window(&[10]);
        window.push(key("2", None), b"schema\n".to_vec());
        window.push(key("3", Some(10)), b"3\n".to_vec());
        window.sent(2, Instant::now());
        window.stored("2").unwrap();
        assert_eq!(window.take_stored(), None);
        window.stored("3").unwrap();
        assert_eq!(window.take_stored(), Some(10));
    }

    /// Of the log: the events of a transaction each.
    fn log(window: &mut Window, lsn: u64, ordinals: std::ops::RangeInclusive<u64>) {
        for ordinal in ordinals {
            let (position, place) = (format!("{lsn}/{ordinal}"), Some((lsn, ordinal)));
            let line = format!("{position}\n").into_bytes();
            window.push(Key { position, place, number: Some(lsn) }, line);
        }
    }

    #[test]
    fn what_comes_again_after_an_outage_is_handed_over_once_and_in_order() {
        let mut window = Window::new(10, 1000);
        log(&mut window, 10, 1..=2);
        log(&mut window, 20, 1..=1);
        window.sent(3, Instant::now());
        window.stored("10/1").unwrap();
        window.outage();
        log(&mut window, 10, 1..=2);
        log(&mut window, 20, 1..=2);
        assert_eq!((window.len(), unsent(&window).as_str()), (3, "20/2 "));
        assert_eq!((window.stored("20/1"), window.take_stored()), (Ok(2), Some(10)));
        window.sent(1, Instant::now());
        assert_eq!((window.stored("20/2"), window.take_stored()), (Ok(1), Some(20)));
        window.outage();
        log(&mut window, 20, 1..=2);
        assert_eq!((window.len(), window.take_stored()), (0, Some(20)), "the source had not heard of it");
    }

    #[test]
    fn what_has_no_order_comes_again_once_it_was_answered() {
        let mut window = window(&[30, 20]);
        window.outage();
        window.stored("1").unwrap();
        assert_eq!(window.take_stored(), Some(30));
        window.push(key("1", 30), b"1\n".to_vec());
        window.push(key("2", 20), b"2\n".to_vec());
        assert_eq!(unsent(&window), "1 ");
    }

    #[test]
    fn a_nak_begins_again_where_it_says_and_stores_nothing() {
        let mut window = window(&[10, 20, 30]);
        window.again("2").unwrap();
        assert_eq!((unsent(&window).as_str(), window.take_stored()), ("2 3 ", None));
        assert_eq!(window.stored("3"), Err(Stray::Unknown), "it is yet to come again");
        assert_eq!(window.stored("1"), Ok(1));
        assert_eq!((unsent(&window).as_str(), window.take_stored()), ("2 3 ", Some(10)));
        window.sent(1, Instant::now());
        assert_eq!((unsent(&window).as_str(), window.stored("2")), ("3 ", Ok(1)));
    }

    #[test]
    fn a_dead_letter_says_nothing_of_those_before_it() {
        let mut window = window(&[10, 20, 30]);
        assert_eq!(window.line("2").unwrap(), b"2\n");
        window.drop("2").unwrap();
        assert_eq!((window.take_stored(), window.len()), (None, 3));
        assert_eq!(window.drop("2"), Err(Stray::Repeated), "it is done with");
        window.restart();
        assert_eq!(unsent(&window), "1 3 ");
        window.sent(1, Instant::now());
        assert_eq!(window.stored("3"), Err(Stray::Unknown));
        window.stored("1").unwrap();
        assert_eq!((window.take_stored(), window.len()), (Some(20), 1));
        window.sent(1, Instant::now());
        window.push(key("4", Some(40)), b"4\n".to_vec());
        window.sent(1, Instant::now());
        window.drop("4").unwrap();
        assert_eq!(window.stored("4"), Ok(1), "all up to one that was dropped");
        assert_eq!(window.take_stored(), Some(40));
    }

    #[test]
    fn what_nobody_wants_counts_when_all_before_it_is_stored() {
        let mut window = Window::new(10, 1000);
        window.pass(key("0", 10));
        assert_eq!((window.take_stored(), window.len()), (Some(10), 0));
        window.push(key("1", Some(20)), b"1\n".to_vec());
        window.pass(key("2", 30));
        assert_eq!(window.take_stored(), None);
        window.sent(1, Instant::now());
        window.stored("1").unwrap();
        assert_eq!(window.take_stored(), Some(30));
    }

    #[test]
    fn room_is_counted_in_events_and_in_bytes() {
        let mut window = Window::new(2, 10);
        window.push(key("1", None), vec![b'x'; 100]);
        assert!(!window.has_room(), "one that is larger than all room");
        window.sent(1, Instant::now());
        window.stored("1").unwrap();
        window.push(key("2", None), b"x".to_vec());
        assert!(window.has_room());
        window.push(key("3", None), b"x".to_vec());
        assert!(!window.has_room());
    }
}
