//! `--to`: one child for as long as the command runs. It gets events while there is room in the window, and
//! says which are stored; when it ends, another one goes on from the last answer.

use super::backoff::Backoff;
use super::ledger::Ledger;
use super::process::{LINES_AT_ONCE_MAX, Process, unstartable};
use super::protocol::{Answer, Lines};
use super::window::Stray;
use crate::cli::Failure;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// How much of what it says is read with one call.
const READ_BYTES_MAX: usize = 64 << 10;

/// So often it is read before others have their turn: one may talk without end.
const READS_MAX: usize = 16;

/// So long after it has closed its stdout it has ended, or it is asked to.
const ENDING_TIME_MAX: Duration = Duration::from_secs(1);

/// One child, and how far it is.
#[derive(Debug)]
struct Running {
    process: Process,
    lines: Lines,
    is_ready: bool,
    /// When it began, answered last, or was handed something again.
    moved_at: Instant,
    /// It said that the sink is away: nothing is handed to it before this time.
    resume_at: Option<Instant>,
    /// What it has closed, and by when it should have ended therefore.
    end_by: Option<(Instant, &'static str)>,
}

#[derive(Debug)]
pub(super) struct Child {
    command: Vec<String>,
    ack_timeout: Duration,
    running: Option<Running>,
    has_started: bool,
    start_at: Instant,
    backoff: Backoff,
    buffer: Vec<u8>,
}

impl Child {
    pub(super) fn new(command: Vec<String>, ack_timeout: Duration, now: Instant) -> Self {
        Child {
            command,
            ack_timeout,
            running: None,
            has_started: false,
            start_at: now,
            backoff: Backoff::default(),
            buffer: vec![0; READ_BYTES_MAX],
        }
    }

    fn program(&self) -> &str {
        &self.command[0]
    }

    /// Does what can be done without waiting.
    pub(super) fn go_on(&mut self, ledger: &mut Ledger, now: Instant) -> Result<(), Failure> {
        let is_needed = !ledger.has_given_up && (!ledger.is_closing || ledger.window.len() > 0);
        if self.running.is_none() && is_needed && now >= self.start_at {
            self.start(now)?;
        }
        self.hear(ledger, now)?;
        self.give(ledger, now);
        self.look_at_time(ledger, now);
        let Some(running) = &mut self.running else { return Ok(()) };
        match running.process.ended(now)? {
            None => Ok(()),
            Some(status) => {
                // What it said before it ended counts.
                self.hear(ledger, now)?;
                self.ended(ledger, status, now)
            }
        }
    }

    fn start(&mut self, now: Instant) -> Result<(), Failure> {
        let process = match Process::start(&self.command, &[], true) {
            Ok(process) => process,
            Err(error) if !self.has_started => {
                return Err(unstartable(self.program(), &error));
            }
            Err(error) => {
                log::warn!("{} cannot be started: {error}", self.program());
                self.start_at = now + self.backoff.next_delay();
                return Ok(());
            }
        };
        self.has_started = true;
        self.running = Some(Running {
            process,
            lines: Lines::default(),
            is_ready: false,
            moved_at: now,
            resume_at: None,
            end_by: None,
        });
        Ok(())
    }

    fn hear(&mut self, ledger: &mut Ledger, now: Instant) -> Result<(), Failure> {
        let Some(running) = &mut self.running else { return Ok(()) };
        for _ in 0..READS_MAX {
            if running.process.why().is_some() {
                break;
            }
            let answers = match running.process.hear(&mut self.buffer) {
                Some([]) => return Ok(()),
                Some(bytes) => running.lines.take(bytes),
                None => {
                    running.end_by.get_or_insert((now + ENDING_TIME_MAX, "closed its stdout"));
                    return Ok(());
                }
            };
            for answer in answers {
                match take(answer, running, ledger, &mut self.backoff, &self.command[0], now)? {
                    Ok(()) => {}
                    Err(why) => {
                        running.process.end(why, now);
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn give(&mut self, ledger: &mut Ledger, now: Instant) {
        let Some(running) = self.running.as_mut().filter(|r| r.process.why().is_none()) else { return };
        if running.resume_at.is_some_and(|at| at <= now) {
            (running.resume_at, running.moved_at) = (None, now);
        }
        let is_willing = running.is_ready && running.end_by.is_none();
        while is_willing && running.resume_at.is_none() {
            let most = match ledger.at_once_max() {
                usize::MAX => LINES_AT_ONCE_MAX,
                _ if ledger.window.under_way() > 0 => 0,
                most => most,
            };
            let given = running.process.give(ledger.window.unsent(most));
            ledger.window.sent(given, now);
            if given < LINES_AT_ONCE_MAX {
                break;
            }
        }
        let has_all = ledger.window.unsent(1).next().is_none() && running.process.has_all();
        if running.end_by.is_none() && !ledger.is_closing && running.process.is_closed() {
            running.end_by = Some((now + ENDING_TIME_MAX, "closed its stdin"));
        } else if ledger.is_closing && has_all && running.resume_at.is_none() {
            running.process.close();
        }
    }

    /// Whether it has had its time.
    fn look_at_time(&mut self, ledger: &Ledger, now: Instant) {
        let Some(running) = &mut self.running else { return };
        if let Some((_, why)) = running.end_by.filter(|(at, _)| *at <= now) {
            running.process.end(why, now);
        }
        let Some(since) = waits_since(running, ledger) else { return };
        if now >= since + self.ack_timeout {
            let timeout = self.ack_timeout;
            let why = match running.is_ready {
                true => format!(
                    "has not answered for {timeout:?}, the oldest event at {}",
                    ledger.window.oldest()
                ),
                false => format!("has not said `ready` within {timeout:?}"),
            };
            running.process.end(why, now);
        }
    }

    fn ended(&mut self, ledger: &mut Ledger, status: ExitStatus, now: Instant) -> Result<(), Failure> {
        let Some(running) = self.running.take() else { return Ok(()) };
        let why = running.process.why().map_or_else(|| format!("ended: {status}"), String::from);
        if ledger.has_given_up || ledger.is_closing && ledger.window.len() == 0 {
            if !status.success() {
                log::warn!("{} {why}", self.program());
            }
            return Ok(());
        }
        ledger.failed(&self.command[0], &why)?;
        let delay = self.backoff.next_delay();
        log::warn!("{} {why}; a new one is started in {} ms", self.program(), delay.as_millis());
        self.start_at = now + delay;
        Ok(())
    }

    /// Nothing is to be stored any more.
    pub(super) fn give_up(&mut self, now: Instant) {
        if let Some(running) = &mut self.running {
            running.process.end("was not needed any more", now);
        }
    }

    /// When something is due, whatever it does.
    pub(super) fn deadline(&self, ledger: &Ledger) -> Option<Instant> {
        let Some(running) = &self.running else {
            return Some(self.start_at).filter(|_| !ledger.has_given_up);
        };
        let waits = waits_since(running, ledger).map(|since| since + self.ack_timeout);
        let end_by = running.end_by.filter(|_| running.process.why().is_none()).map(|(at, _)| at);
        [running.process.deadline(), running.resume_at, end_by, waits].into_iter().flatten().min()
    }

    pub(super) fn process(&self) -> Option<&Process> {
        self.running.as_ref().map(|running| &running.process)
    }

    /// Whether it could be given something, if there is room in its stdin.
    pub(super) fn wants_lines(&self, ledger: &Ledger) -> bool {
        let can_take = |running: &Running| running.is_ready && running.resume_at.is_none();
        self.running.as_ref().is_some_and(can_take)
            && ledger.window.unsent(1).next().is_some()
            && (ledger.at_once_max() == usize::MAX || ledger.window.under_way() == 0)
    }
}

/// Since when it owes us a word.
fn waits_since(running: &Running, ledger: &Ledger) -> Option<Instant> {
    match running.is_ready {
        _ if running.process.why().is_some() || running.end_by.is_some() || running.resume_at.is_some() => {
            None
        }
        false => Some(running.moved_at),
        // One that answers may take its time for all that it has.
        true => ledger.window.oldest_at().map(|at| at.max(running.moved_at)),
    }
}

/// What an answer means; otherwise why it is none.
fn take(
    answer: Answer,
    running: &mut Running,
    ledger: &mut Ledger,
    backoff: &mut Backoff,
    program: &str,
    now: Instant,
) -> Result<Result<(), String>, Failure> {
    let stray = |position: &str, stray: Stray| match stray {
        Stray::Unknown => format!("answered for {position}, which it does not have"),
        Stray::Repeated => format!("takes back what it said of {position}"),
    };
    let outcome = match answer {
        Answer::Ready => {
            if !std::mem::replace(&mut running.is_ready, true) {
                running.moved_at = now;
            }
            Ok(())
        }
        Answer::Stored(position) => match ledger.stored(&position) {
            Ok(()) => {
                backoff.reset();
                running.moved_at = now;
                Ok(())
            }
            Err(Stray::Repeated) => {
                log::debug!("{program} answered for {position} again");
                Ok(())
            }
            Err(unknown) => Err(stray(&position, unknown)),
        },
        Answer::Again(position, reason) => match ledger.window.again(&position) {
            Ok(()) => {
                let delay = backoff.next_delay();
                log::warn!("{program} wants {position} again, in {} ms: {reason}", delay.as_millis());
                ledger.counts.naks += 1;
                running.resume_at = Some(now + delay);
                Ok(())
            }
            Err(unknown) => Err(stray(&position, unknown)),
        },
        Answer::Drop(position, reason) => {
            running.moved_at = now;
            ledger.drop(&position, &reason)?.map_err(|unknown| stray(&position, unknown))
        }
        Answer::Nonsense(said) => Err(format!("said {said:?}, which is no answer")),
    };
    Ok(outcome)
}
