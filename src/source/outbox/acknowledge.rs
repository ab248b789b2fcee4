//! What the caller is done with, and what the database knows of that.

use crate::error::{Error, ErrorKind, Result};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the database may not know of changes that are done with: so much comes again after a crash.
const INTERVAL: Duration = Duration::from_secs(1);

/// The same when none of them was for this reader; it lets the outbox be cleaned.
const INTERVAL_IDLE: Duration = Duration::from_secs(60);

/// How many changes may wait for the caller to acknowledge them before no more is read.
const UNACKNOWLEDGED_MAX: usize = 65_536;

#[derive(Debug)]
pub(super) struct Acknowledgements {
    is_manual: bool,
    /// The furthest position that the database was sent, and the change that the caller acknowledged by it.
    sent: String,
    sent_id: Option<u64>,
    is_sent: bool,
    /// The last change that is done with, in a page that is not; or what the caller acknowledged last. With
    /// the page's prefix.
    done: Option<(u64, Arc<str>)>,
    /// Told, and to be acknowledged by the caller.
    unacknowledged: VecDeque<(u64, Arc<str>)>,
    /// The same of an earlier connection: they come again.
    stale: Vec<u64>,
    due: Option<Instant>,
}

impl Acknowledgements {
    pub(super) fn new(is_manual: bool) -> Self {
        Acknowledgements {
            is_manual,
            sent: String::new(),
            sent_id: None,
            is_sent: false,
            done: None,
            unacknowledged: VecDeque::new(),
            stale: Vec::new(),
            due: None,
        }
    }

    /// The database keeps this, and what was told and not acknowledged comes again.
    pub(super) fn begin_at(&mut self, position: &str) {
        let mut stale = std::mem::take(&mut self.stale);
        stale.extend(self.unacknowledged.drain(..).map(|(id, _)| id));
        *self =
            Acknowledgements { sent: position.to_string(), stale, ..Acknowledgements::new(self.is_manual) };
    }

    /// The database has forgotten it.
    pub(super) fn repeat(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// The connection is lost, and with it what these were that had been told before they were read.
    pub(super) fn interrupted(&mut self, early: Vec<u64>) {
        (self.is_sent, self.due) = (false, None);
        self.stale = early;
    }

    /// These were told before they were read, and will not be read.
    pub(super) fn lost(&mut self, early: Vec<u64>) {
        if self.is_manual {
            self.stale.extend(early);
        }
    }

    /// The database did not take it.
    pub(super) fn refused(&mut self, now: Instant) {
        self.is_sent = false;
        self.bring_forward(now + INTERVAL);
    }

    /// Whether more may be read.
    pub(super) fn has_room(&self) -> bool {
        self.unacknowledged.len() < UNACKNOWLEDGED_MAX
    }

    /// When the database is to hear of it.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| !self.is_sent)
    }

    /// The caller went on from this change.
    pub(super) fn done(&mut self, id: Option<u64>, prefix: &Arc<str>, now: Instant) {
        let Some(id) = id.filter(|_| !prefix.is_empty()) else { return };
        if self.is_manual {
            self.unacknowledged.push_back((id, prefix.clone()));
            return;
        }
        self.done = Some((id, prefix.clone()));
        self.bring_forward(now + INTERVAL);
    }

    /// The caller is done with a page.
    pub(super) fn page_done(&mut self, now: Instant, changes: usize) {
        if !self.is_manual {
            self.done = None;
        }
        if self.unacknowledged.is_empty() {
            self.bring_forward(now + if changes > 0 { INTERVAL } else { INTERVAL_IDLE });
        }
    }

    /// A change was read that the caller went on from before, or has acknowledged even.
    pub(super) fn done_before(&mut self, id: u64, prefix: &Arc<str>, is_acknowledged: bool, now: Instant) {
        if is_acknowledged {
            self.done = Some((id, prefix.clone()));
            self.due = Some(now);
        } else {
            self.done(Some(id), prefix, now);
        }
    }

    /// The caller acknowledges a change that is not read yet, and with it all that was told before.
    pub(super) fn ack_all(&mut self, now: Instant) {
        if let Some(last) = self.unacknowledged.drain(..).next_back() {
            (self.done, self.due) = (Some(last), Some(now));
        }
    }

    fn bring_forward(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// The caller acknowledges all changes up to this one.
    pub(super) fn ack(&mut self, id: u64, now: Instant) -> Result<()> {
        if !self.is_manual {
            let message = "this session acknowledges by itself: set manual_ack to do it yourself";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let Some(at) = self.unacknowledged.iter().position(|(told, _)| *told == id) else {
            if self.stale.contains(&id) {
                self.stale.retain(|stale| *stale != id);
                return Ok(());
            }
            let message = format!("no change with the id {id} waits to be acknowledged");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        };
        self.done = self.unacknowledged.drain(..=at).next_back();
        self.due = Some(now);
        Ok(())
    }

    /// The position to send. `page` is where the first page begins that is not done with.
    pub(super) fn take(&mut self, page: &str) -> String {
        match &self.done {
            Some((id, prefix)) => {
                self.sent = format!("{prefix}{id}");
                self.sent_id = Some(*id).filter(|_| self.is_manual).or(self.sent_id);
            }
            None if self.unacknowledged.is_empty() => self.sent = page.to_string(),
            // What was sent last, once more.
            None => {}
        }
        (self.is_sent, self.due) = (true, None);
        if self.is_manual {
            self.done = None;
        }
        self.sent.clone()
    }

    /// The database keeps it. Gives the change that the caller acknowledged by it.
    pub(super) fn answered(&mut self) -> Option<u64> {
        self.is_sent = false;
        self.sent_id.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_gone_on_from_is_acknowledged_within_a_second() {
        let now = Instant::now();
        let mut acks = Acknowledgements::new(false);
        acks.begin_at("1|");
        let prefix: Arc<str> = "1|2|".into();
        acks.done(Some(10), &prefix, now);
        acks.done(Some(11), &prefix, now + INTERVAL / 2);
        assert_eq!(acks.due(), Some(now + INTERVAL));
        assert_eq!(acks.take("1|"), "1|2|11");
        assert_eq!(acks.due(), None);
        acks.page_done(now, 2);
        assert_eq!(acks.due(), None, "one at a time");
        assert_eq!(acks.answered(), None);
        assert!(acks.due().is_some());
        assert_eq!(acks.take("2||"), "2||");
        acks.interrupted(Vec::new());
        acks.repeat(now);
        assert_eq!(acks.take("2||"), "2||");
    }

    #[test]
    fn the_caller_acknowledges_what_it_was_told_and_nothing_else() {
        let now = Instant::now();
        let mut acks = Acknowledgements::new(true);
        acks.begin_at("1|");
        let prefix: Arc<str> = "1|2|".into();
        (10..15).for_each(|id| acks.done(Some(id), &prefix, now));
        acks.page_done(now, 5);
        assert_eq!(acks.due(), None);
        assert!(acks.ack(99, now).is_err());
        acks.ack(12, now).unwrap();
        assert!(acks.ack(11, now).is_err(), "it was acknowledged with 12");
        assert_eq!(acks.take("2||"), "1|2|12");
        acks.interrupted(Vec::new());
        acks.repeat(now);
        assert_eq!(acks.take("2||"), "1|2|12", "nobody knows whether it arrived");
        acks.refused(now);
        assert_eq!(acks.take("2||"), "1|2|12", "what is left waits for the caller");
        assert_eq!(acks.answered(), Some(12));
        acks.begin_at("1|2|12");
        acks.ack(14, now).unwrap();
        assert!(acks.due().is_none(), "it comes again, and is acknowledged then");
        assert!(acks.ack(14, now).is_err());
        assert!(Acknowledgements::new(false).ack(1, now).is_err());
    }
}
