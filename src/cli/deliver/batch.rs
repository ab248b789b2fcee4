//! `--batch`: a run of a command for each batch of events, one after the other. Its exit status is the
//! answer.

use super::backoff::Backoff;
use super::ledger::Ledger;
use super::process::{LINES_AT_ONCE_MAX, Process, unstartable};
use crate::cli::Failure;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// Exit statuses of sysexits(3): `EX_TEMPFAIL`, it may work later; `EX_DATAERR`, it never will.
const AGAIN_LATER: i32 = 75;
const DEAD_LETTER: i32 = 65;

/// How large a batch gets, and how long its first event waits for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) count: usize,
    pub(super) wait: Duration,
}

#[derive(Debug)]
struct Running {
    process: Process,
    count: usize,
    given: usize,
    last: String,
    end_by: Instant,
}

#[derive(Debug)]
pub(super) struct Batches {
    command: Vec<String>,
    size: Size,
    ack_timeout: Duration,
    running: Option<Running>,
    has_started: bool,
    /// Since when an event waits for its batch to fill up.
    waits_since: Option<Instant>,
    start_at: Instant,
    backoff: Backoff,
}

impl Batches {
    pub(super) fn new(command: Vec<String>, size: Size, ack_timeout: Duration, now: Instant) -> Self {
        Batches {
            command,
            size,
            ack_timeout,
            running: None,
            has_started: false,
            waits_since: None,
            start_at: now,
            backoff: Backoff::default(),
        }
    }

    /// Does what can be done without waiting.
    pub(super) fn go_on(&mut self, ledger: &mut Ledger, now: Instant) -> Result<(), Failure> {
        if self.running.is_none() && !ledger.has_given_up {
            self.start_if_due(ledger, now)?;
        }
        let Some(running) = &mut self.running else { return Ok(()) };
        while running.given < running.count {
            let most = LINES_AT_ONCE_MAX.min(running.count - running.given);
            let given = running.process.give(ledger.window.unsent(most));
            ledger.window.sent(given, now);
            running.given += given;
            if given < most {
                break;
            }
        }
        running.process.give(std::iter::empty());
        if running.given == running.count && running.process.has_all() {
            running.process.close();
        }
        if running.end_by <= now {
            running.process.end(format!("has not ended within {:?}", self.ack_timeout), now);
        }
        match running.process.ended(now)? {
            None => Ok(()),
            Some(status) => self.ended(ledger, status, now),
        }
    }

    /// How many events the next batch has at most.
    fn most(&self, ledger: &Ledger) -> usize {
        self.size.count.min(ledger.at_once_max())
    }

    fn start_if_due(&mut self, ledger: &Ledger, now: Instant) -> Result<(), Failure> {
        let Some((first, last, count)) = ledger.window.unsent_positions(self.most(ledger)) else {
            return Ok(());
        };
        self.waits_since.get_or_insert(now);
        if self.deadline(ledger).is_none_or(|at| at > now) {
            return Ok(());
        }
        let environment = [
            ("PGWAKE_FIRST", first.to_string()),
            ("PGWAKE_LAST", last.to_string()),
            ("PGWAKE_COUNT", count.to_string()),
        ];
        let process = match Process::start(&self.command, &environment, false) {
            Ok(process) => process,
            Err(error) if !self.has_started => return Err(unstartable(&self.command[0], &error)),
            Err(error) => return self.put_off(&format!("cannot be started: {error}"), now),
        };
        self.has_started = true;
        let (last, end_by) = (last.to_string(), now + self.ack_timeout);
        self.running = Some(Running { process, count, given: 0, last, end_by });
        self.waits_since = None;
        Ok(())
    }

    fn ended(&mut self, ledger: &mut Ledger, status: ExitStatus, now: Instant) -> Result<(), Failure> {
        let Some(running) = self.running.take() else { return Ok(()) };
        let Running { process, count, given, last, .. } = running;
        if ledger.has_given_up {
            return Ok(());
        }
        let has_all = given == count && process.has_all();
        let why = match (process.why(), status.code()) {
            (Some(why), _) => why.to_string(),
            (None, Some(0)) if has_all => {
                self.backoff.reset();
                // It is the last of those that were given.
                let _ = ledger.stored(&last);
                ledger.window.restart();
                return Ok(());
            }
            (None, Some(0)) => "ended before it had read all".into(),
            (None, Some(AGAIN_LATER)) => {
                ledger.counts.naks += 1;
                ledger.window.restart();
                return self.put_off("wants the batch again", now);
            }
            (None, Some(DEAD_LETTER)) if count == 1 => {
                self.backoff.reset();
                let reason = format!("{} ended with status 65", self.command[0]);
                let _ = ledger.drop(&last, &reason)?;
                return Ok(());
            }
            (None, Some(DEAD_LETTER)) => {
                // Which of them it is shows when they come one by one.
                ledger.one_by_one(count);
                ledger.window.restart();
                return Ok(());
            }
            (None, _) => format!("ended: {status}"),
        };
        ledger.failed(&self.command[0], &why)?;
        ledger.window.restart();
        self.put_off(&why, now)
    }

    fn put_off(&mut self, why: &str, now: Instant) -> Result<(), Failure> {
        let delay = self.backoff.next_delay();
        log::warn!("{} {why}; it is run again in {} ms", self.command[0], delay.as_millis());
        self.start_at = now + delay;
        Ok(())
    }

    /// Nothing is to be stored any more.
    pub(super) fn give_up(&mut self, now: Instant) {
        if let Some(running) = &mut self.running {
            running.process.end("was not needed any more", now);
        }
    }

    /// When something is due, whatever happens.
    pub(super) fn deadline(&self, ledger: &Ledger) -> Option<Instant> {
        if let Some(running) = &self.running {
            return Some(running.process.deadline().unwrap_or(running.end_by));
        }
        let most = self.most(ledger);
        let (_, _, waiting) = ledger.window.unsent_positions(most)?;
        let is_due = waiting >= most || ledger.is_closing || !ledger.window.has_room();
        // One that has just come begins to wait with the next look.
        let wait_ends = self.waits_since.filter(|_| !is_due).map(|since| since + self.size.wait);
        Some(wait_ends.map_or(self.start_at, |at| at.max(self.start_at)))
    }

    pub(super) fn process(&self) -> Option<&Process> {
        self.running.as_ref().map(|running| &running.process)
    }

    /// Whether it could be given something, if there is room in its stdin.
    pub(super) fn wants_lines(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.given < running.count)
    }
}
