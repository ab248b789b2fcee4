//! What was handed over, what of it is stored, and what was given up: one for as long as the command runs,
//! whichever child has the events.

use super::dead_letters::DeadLetters;
use super::window::{Stray, Window};
use crate::cli::Failure;
use std::path::Path;

/// After so many children in a row that ended without an answer, what they had is handed over one at a time:
/// so it shows which one they fail on.
const ALONE_AFTER: u32 = 2;

/// So many fail on one event before it is given up.
const FAILURES_MAX: u32 = 5;

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) stored: u64,
    pub(super) dropped: u64,
    pub(super) naks: u64,
    pub(super) restarts: u64,
}

#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) window: Window,
    pub(super) counts: Counts,
    dead_letters: Option<DeadLetters>,
    /// An event that children fail on is dropped; otherwise it ends the command.
    drops_poison: bool,
    /// Children in a row that ended and had answered nothing of what they had.
    failures: u32,
    /// So many events are handed over one by one: together they failed.
    alone: usize,
    /// No more events come.
    pub(super) is_closing: bool,
    /// Nothing is to be stored any more.
    pub(super) has_given_up: bool,
}

impl Ledger {
    pub(super) fn new(
        window: Window,
        dead_letters: Option<&Path>,
        drops_poison: bool,
    ) -> Result<Self, Failure> {
        let dead_letters = dead_letters.map(DeadLetters::open).transpose()?;
        Ok(Ledger {
            window,
            counts: Counts::default(),
            dead_letters,
            drops_poison,
            failures: 0,
            alone: 0,
            is_closing: false,
            has_given_up: false,
        })
    }

    /// How many events a child may have now.
    pub(super) fn at_once_max(&self) -> usize {
        if self.alone > 0 { 1 } else { usize::MAX }
    }

    /// The next ones are handed over one by one.
    pub(super) fn one_by_one(&mut self, count: usize) {
        self.alone = self.alone.max(count);
    }

    fn has_answered(&mut self, count: usize) {
        self.failures = 0;
        self.alone = self.alone.saturating_sub(count);
    }

    pub(super) fn stored(&mut self, position: &str) -> Result<(), Stray> {
        let count = self.window.stored(position)?;
        self.counts.stored += count as u64;
        self.has_answered(count);
        Ok(())
    }

    /// An event is a dead letter: it is kept in the file, or this is the end.
    pub(super) fn drop(&mut self, position: &str, reason: &str) -> Result<Result<(), Stray>, Failure> {
        let line = match self.window.line(position) {
            Ok(line) => line,
            Err(stray) => return Ok(Err(stray)),
        };
        let Some(dead_letters) = &mut self.dead_letters else {
            return Err(Failure::Running(format!(
                "the event at {position} is to be dropped ({reason}), and there is no file for it: name one \
                 with --dead-letters"
            )));
        };
        dead_letters.put(line, reason)?;
        log::warn!("the event at {position} is a dead letter: {reason}");
        self.counts.dropped += 1;
        self.has_answered(1);
        Ok(self.window.drop(position))
    }

    /// A child is gone that has not answered for all that it had. The next one gets it again, unless it is
    /// one event on which they all fail.
    pub(super) fn failed(&mut self, program: &str, why: &str) -> Result<(), Failure> {
        self.counts.restarts += 1;
        if self.window.under_way() == 0 {
            // It had nothing that it could have failed on.
            return Ok(());
        }
        self.failures += 1;
        if self.failures >= ALONE_AFTER {
            self.one_by_one(self.window.under_way());
        }
        let position = self.window.oldest().to_string();
        if self.failures >= FAILURES_MAX {
            if !self.drops_poison {
                return Err(Failure::Running(format!(
                    "{program} fails on the event at {position} again and again: it {why}; mend it, or set \
                     the event aside with --poison drop --dead-letters FILE"
                )));
            }
            // The child had it, so it is there.
            let _ = self.drop(&position, &format!("{program} {why}"))?;
        }
        self.window.restart();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::window::Key;
    use super::*;
    use std::time::Instant;

    /// With three events, and whether there is a file for dead letters.
    fn ledger(file: Option<&Path>, drops_poison: bool) -> Ledger {
        let mut ledger = Ledger::new(Window::new(10, 1000), file, drops_poison).unwrap();
        for position in 1..=3 {
            let key = Key { position: position.to_string(), place: None, number: Some(position) };
            ledger.window.push(key, b"{\"event\":\"x\"}\n".to_vec());
        }
        ledger
    }

    /// A child that gets what it may have, and ends.
    fn fail(ledger: &mut Ledger) -> Result<(), Failure> {
        let most = ledger.at_once_max().min(3);
        ledger.window.sent(most, Instant::now());
        ledger.failed("child", "ended")
    }

    #[test]
    fn an_event_that_children_fail_on_is_found_by_handing_it_over_alone() {
        let mut ledger = ledger(None, false);
        assert_eq!(ledger.at_once_max(), usize::MAX);
        (1..FAILURES_MAX).for_each(|_| fail(&mut ledger).unwrap());
        assert_eq!(ledger.at_once_max(), 1);
        let Err(Failure::Running(sentence)) = fail(&mut ledger) else { panic!("it goes on") };
        assert!(sentence.contains("the event at 1 ") && sentence.contains("--poison drop"), "{sentence}");
    }

    #[test]
    fn all_that_failed_together_is_handed_over_one_by_one() {
        let mut ledger = ledger(None, false);
        (0..ALONE_AFTER).for_each(|_| fail(&mut ledger).unwrap());
        for (position, most) in [("1", 1), ("2", 1), ("3", usize::MAX)] {
            ledger.window.sent(1, Instant::now());
            ledger.stored(position).unwrap();
            assert_eq!(ledger.at_once_max(), most, "after {position}");
        }
    }

    #[test]
    fn an_answer_clears_an_event_of_suspicion() {
        let mut ledger = ledger(None, false);
        (1..FAILURES_MAX).for_each(|_| fail(&mut ledger).unwrap());
        ledger.window.sent(1, Instant::now());
        ledger.stored("1").unwrap();
        (1..FAILURES_MAX).for_each(|_| fail(&mut ledger).unwrap());
        assert!(fail(&mut ledger).is_err());
    }

    #[test]
    fn a_child_that_had_nothing_has_failed_on_nothing() {
        let mut ledger = ledger(None, false);
        (0..100).for_each(|_| ledger.failed("child", "ended").unwrap());
        assert_eq!((ledger.at_once_max(), ledger.counts.restarts), (usize::MAX, 100));
    }

    #[test]
    fn a_dead_letter_is_in_the_file_before_it_is_done_with() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut ledger = ledger(Some(file.path()), true);
        (0..FAILURES_MAX).for_each(|_| fail(&mut ledger).unwrap());
        assert_eq!(ledger.window.take_stored(), Some(1));
        ledger.window.sent(1, Instant::now());
        assert_eq!(ledger.drop("2", "a \"bad\" one").unwrap(), Ok(()));
        assert_eq!(ledger.drop("3", "it never had it").unwrap(), Err(Stray::Unknown));
        assert_eq!((ledger.window.take_stored(), ledger.counts.dropped), (Some(2), 2));
        let kept = std::fs::read_to_string(file.path()).unwrap();
        let letter = |reason: &str| format!("{{\"event\":\"x\",\"reason\":\"{reason}\"}}\n");
        assert_eq!(kept, letter("child ended") + &letter("a \\\"bad\\\" one"));
    }

    #[test]
    fn without_a_file_nothing_is_dropped() {
        let mut ledger = ledger(None, false);
        ledger.window.sent(1, Instant::now());
        let Err(Failure::Running(sentence)) = ledger.drop("1", "bad") else { panic!("it goes on") };
        assert!(sentence.contains("--dead-letters"), "{sentence}");
        assert_eq!(ledger.window.len(), 3);
    }
}
