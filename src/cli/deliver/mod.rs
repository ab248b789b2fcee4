//! Events to a process that stores them. What it has stored, and nothing else, counts as done with.
//!
//! `arguments` says what may be typed; `protocol` and `window` are pure; `ledger` keeps what was handed over;
//! `child` (`--to`) and `batch` (`--batch`) are the two ways of having it stored, each over a `process`.

mod arguments;
mod backoff;
mod batch;
mod child;
mod dead_letters;
mod ledger;
mod process;
mod protocol;
mod window;

use super::Failure;
use super::figures::Handed;
use super::stop::NAP;
pub(crate) use arguments::Delivery;
use arguments::Poison;
use batch::Batches;
use child::Child;
use ledger::Ledger;
use pgwake::{Event, GapReason, Position, json};
use process::Process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use window::{Key, Window};

/// How many bytes may be under way.
const WINDOW_BYTES_MAX: usize = 16 << 20;

/// Who stores them.
#[derive(Debug)]
enum Store {
    Child(Child),
    Batches(Batches),
}

#[derive(Debug)]
pub(crate) struct Handover {
    ledger: Ledger,
    store: Store,
    ack_timeout: Duration,
    /// The position of the next event that has none of its own. It is never one of an earlier run, so that
    /// who deduplicates by positions keeps it.
    next_number: u64,
    /// By then all is to be stored.
    close_by: Option<Instant>,
}

impl Handover {
    /// If it is asked for. The process is started with the first call of [`go_on`](Self::go_on).
    pub(crate) fn new(delivery: &Delivery) -> Result<Option<Self>, Failure> {
        let drops_poison = delivery.poison == Poison::Drop;
        if drops_poison && delivery.dead_letters.is_none() {
            let sentence = "--poison drop needs a file for what it drops: name one with --dead-letters";
            return Err(Failure::Usage(sentence.into()));
        }
        let (now, ack_timeout) = (Instant::now(), delivery.ack_timeout);
        if ack_timeout.is_zero() {
            let sentence = "--ack-timeout needs some time: write it as 250ms, 5s, 2m or 1h";
            return Err(Failure::Usage(sentence.into()));
        }
        let mut count_max = delivery.window as usize;
        let store = if let Some((size, command)) = delivery.batch.split_first() {
            let size = arguments::size(size).map_err(Failure::Usage)?;
            count_max = count_max.max(size.count);
            Store::Batches(Batches::new(command.to_vec(), size, ack_timeout, now))
        } else if !delivery.to.is_empty() {
            Store::Child(Child::new(delivery.to.clone(), ack_timeout, now))
        } else {
            return Ok(None);
        };
        let window = Window::new(count_max, WINDOW_BYTES_MAX);
        let ledger = Ledger::new(window, delivery.dead_letters.as_deref(), drops_poison)?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let next_number = since_epoch.as_micros() as u64;
        Ok(Some(Handover { ledger, store, ack_timeout, next_number, close_by: None }))
    }

    /// Whether there is room for one more event. While there is none, nothing is read from the server.
    pub(crate) fn has_room(&self) -> bool {
        self.close_by.is_none() && self.ledger.window.has_room()
    }

    /// Takes an event on its way; `false` if it is about the session, and nothing to be stored.
    pub(crate) fn take(&mut self, event: &Event<'_>) -> Result<bool, Failure> {
        // What an outbox has is there behind an outage, too, which is a gap of the channels alone.
        if let Event::Gap(gap) = event
            && (gap.channels.is_empty() || gap.reason == GapReason::Replaced)
        {
            self.ledger.window.gap();
        }
        match event {
            Event::Disconnected(_) => self.ledger.window.outage(),
            _ if is_stored(event) => {
                let (mut key, mut line) = (key(event), Vec::new());
                json::write_line(&mut line, event, SystemTime::now())?;
                if key.position.is_empty() {
                    key.position = self.number(&mut line);
                }
                self.ledger.window.push(key, line);
                return Ok(true);
            }
            _ => {}
        }
        Ok(false)
    }

    fn number(&mut self, line: &mut Vec<u8>) -> String {
        let position = self.next_number.to_string();
        self.next_number += 1;
        json::add_field(line, "position", &position);
        position
    }

    /// An event that nobody wants is done with once all before it is stored.
    pub(crate) fn pass(&mut self, event: &Event<'_>) {
        let key = key(event);
        if !key.position.is_empty() {
            self.ledger.window.pass(key);
        }
    }

    /// The number up to which all is stored, once each time that it has changed.
    pub(crate) fn take_stored(&mut self) -> Option<u64> {
        self.ledger.window.take_stored()
    }

    /// Gives and hears what can be without waiting.
    pub(crate) fn go_on(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        if !self.ledger.has_given_up && self.close_by.is_some_and(|at| at <= now) {
            self.give_up(now);
        }
        let gone_on = match &mut self.store {
            Store::Child(child) => child.go_on(&mut self.ledger, now),
            Store::Batches(batches) => batches.go_on(&mut self.ledger, now),
        };
        // After a failure of its own all that is left is to have the process end.
        gone_on.inspect_err(|_| self.give_up(now))
    }

    fn give_up(&mut self, now: Instant) {
        self.ledger.has_given_up = true;
        match &mut self.store {
            Store::Child(child) => child.give_up(now),
            Store::Batches(batches) => batches.give_up(now),
        }
    }

    /// Waits until there is something to do here, or the loop's descriptor says that there is there. While
    /// there is no room it is not looked at, and a wish to stop has to be.
    pub(crate) fn wait(&self, events: BorrowedFd<'_>, most: Option<Duration>) -> Result<(), Failure> {
        let (process, wants_lines, deadline) = match &self.store {
            Store::Child(child) => {
                (child.process(), child.wants_lines(&self.ledger), child.deadline(&self.ledger))
            }
            Store::Batches(batches) => {
                (batches.process(), batches.wants_lines(), batches.deadline(&self.ledger))
            }
        };
        let has_room = self.has_room();
        let deadline = deadline.into_iter().chain(self.close_by.filter(|_| !self.ledger.has_given_up)).min();
        let deadline = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let nap = (!has_room).then_some(NAP);
        let timeout = [most, deadline, nap].into_iter().flatten().min();
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            // Rounded up, so that what is due is due when it is over.
            tv_nsec: timeout.subsec_nanos().min(998_999_999) as i64 + 1_000_000,
        });
        let of_loop = has_room.then(|| PollFd::from_borrowed_fd(events, PollFlags::IN));
        let of_process = process.into_iter().flat_map(|process| Process::interests(process, wants_lines));
        let mut fds: Vec<_> = of_loop.into_iter().chain(of_process).collect();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(Failure::Running(error.to_string())),
        }
    }

    pub(crate) fn figures(&self) -> Handed {
        let (window, counts) = (&self.ledger.window, &self.ledger.counts);
        Handed {
            stored: counts.stored,
            under_way: window.len() as u64,
            under_way_bytes: window.bytes() as u64,
            oldest: window.oldest_at().map_or(Duration::ZERO, |at| at.elapsed()),
            naks: counts.naks,
            dead_letters: counts.dropped,
            restarts: counts.restarts,
        }
    }

    /// No more events come. The last answers are awaited for the time of `--ack-timeout`.
    pub(crate) fn close(&mut self) {
        self.ledger.is_closing = true;
        self.close_by = Some(Instant::now() + self.ack_timeout);
    }

    /// Whether nobody is left to wait for. It is a failure if not all is stored then.
    pub(crate) fn is_over(&mut self) -> Result<bool, Failure> {
        let is_running = match &self.store {
            Store::Child(child) => child.process().is_some(),
            Store::Batches(batches) => batches.process().is_some(),
        };
        match self.ledger.window.len() {
            _ if is_running => Ok(false),
            0 => Ok(true),
            _ if !self.ledger.has_given_up => Ok(false),
            left => {
                let events = if left == 1 { "event was" } else { "events were" };
                Err(Failure::Running(format!(
                    "{left} {events} not stored within {:?} of the end: what the server keeps comes again",
                    self.ack_timeout
                )))
            }
        }
    }
}

/// Whether it is something to be stored, and not about the session.
fn is_stored(event: &Event<'_>) -> bool {
    use Event::{
        Begin, Change, Commit, Ddl, Gap, Message, Notification, Prepare, Rollback, Rows, Schema, Tick,
    };
    matches!(
        event,
        Change(_)
            | Message(_)
            | Notification(_)
            | Ddl(_)
            | Rows(_)
            | Schema(_)
            | Gap(_)
            | Tick(_)
            | Begin(_)
            | Commit(_)
            | Prepare(_)
            | Rollback(_)
    )
}

fn position(event: &Event<'_>) -> Option<Position> {
    match event {
        Event::Change(change) => change.position(),
        Event::Begin(t) | Event::Commit(t) | Event::Prepare(t) | Event::Rollback(t) => t.position,
        Event::Message(message) => message.position,
        _ => None,
    }
}

/// What it is known by; without a position where it has none of its own.
fn key(event: &Event<'_>) -> Key {
    let position = position(event);
    // The rows of each snapshot are others.
    let is_row = matches!(event, Event::Change(change) if change.snapshot);
    let place = match position {
        Some(Position::Log(commit_lsn, ordinal)) if !is_row => Some((commit_lsn.0, ordinal)),
        _ => None,
    };
    let position = position.map_or_else(String::new, |position| position.to_string());
    Key { position, place, number: number_of(event) }
}

/// By which an event is acknowledged to its source.
pub(crate) fn number_of(event: &Event<'_>) -> Option<u64> {
    if let Event::Rows(rows) = event {
        return Some(rows.id).filter(|id| *id > 0);
    }
    match position(event)? {
        Position::Log(commit_lsn, _) => Some(commit_lsn.0),
        Position::Outbox(id) => Some(id),
        _ => None,
    }
}
