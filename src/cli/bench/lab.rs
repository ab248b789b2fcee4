//! Where a scenario works: the server, the wish to stop, the line that tells how far it is, and the record of
//! its runs, which becomes the report.

use super::super::Failure;
use super::super::stop::Stop;
use super::Scenario;
use super::arguments::Common;
use super::clock;
use super::environment::Environment;
use super::report::{self, Report, Run};
use super::sender::{Pace, Sender};
use super::target::Target;
use pgwake::json::rfc3339;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{IsTerminal, Write};
use std::time::{Duration, SystemTime};

/// Less is no sign of a server that is overrun.
const LATE_MIN: Duration = Duration::from_millis(100);

/// The width of a terminal that does not say it.
const COLUMNS_USUAL: usize = 80;

pub(super) struct Lab {
    pub(super) target: Target,
    pub(super) stop: Stop,
    pub(super) rounds: usize,
    /// A channel that nobody else listens on.
    pub(super) channel: String,
    pub(super) started_ns: i64,
    pub(super) notes: Vec<String>,
    pub(super) parameters: BTreeMap<String, serde_json::Value>,
    scenario: &'static str,
    started_at: SystemTime,
    environment: Environment,
    runs: Vec<Run>,
    progress: Progress,
}

impl Lab {
    pub(super) fn open(dsn: &str, common: &Common, scenario: &Scenario) -> Result<Self, Failure> {
        let progress = Progress { is_shown: std::io::stderr().is_terminal() };
        if common.private {
            progress.tell("starting a private PostgreSQL …");
        }
        let mut target = Target::open(dsn, common, scenario)?;
        let environment = Environment::of(&mut target, dsn)?;
        // Before this there is nothing to put in order, and a server that does not answer may be waited for.
        let stop = Stop::flag_on_signals()?;
        // The hash of nothing under fresh random keys is a random number.
        let random = RandomState::new().build_hasher().finish();
        let mut notes: Vec<_> =
            target.unreachable.iter().map(|reason| format!("left out: {reason}")).collect();
        if cfg!(debug_assertions) {
            notes.push("this pgwake is a debug build: what it does itself is not optimised".into());
        }
        Ok(Lab {
            stop,
            rounds: common.rounds.into(),
            channel: format!("pgwake_bench_{random:016x}"),
            started_ns: clock::now_ns(),
            notes,
            target,
            parameters: BTreeMap::from([("rounds".into(), common.rounds.into())]),
            scenario: scenario.name,
            started_at: SystemTime::now(),
            environment,
            runs: Vec::new(),
            progress,
        })
    }

    /// The contenders in the order of a round: each second round runs backwards, so that what changes while
    /// the machine warms up falls on all alike.
    pub(super) fn order<T>(contenders: &[T], round: usize) -> Vec<&T> {
        let mut order: Vec<_> = contenders.iter().collect();
        if !round.is_multiple_of(2) {
            order.reverse();
        }
        order
    }

    /// Tells what comes next, and whether it is to come at all.
    pub(super) fn goes_on(&self, round: usize, what: &str) -> bool {
        self.progress.tell(&format!("{}  round {} of {}  {what}", self.scenario, round + 1, self.rounds));
        !self.stop.is_asked_for()
    }

    /// Says so when the server took a good part of a run longer than it was given.
    pub(super) fn note_pace(&mut self, sender: &Sender, pace: Pace) {
        if sender.late > pace.interval * pace.count as u32 / 10 && sender.late > LATE_MIN {
            let note = format!(
                "one per {:?} was more than the server takes: latencies grow as a run lasts",
                pace.interval
            );
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }

    /// Keeps a run. One that was stopped in its middle counts only where there is no other.
    pub(super) fn keep(&mut self, run: Run) {
        let is_like = |other: &Run| {
            (&other.contender, &other.transport, &other.series, other.step)
                == (&run.contender, &run.transport, &run.series, run.step)
        };
        if !self.stop.is_asked_for() || !self.runs.iter().any(is_like) {
            self.runs.push(run);
        }
    }

    /// The report about all runs so far.
    pub(super) fn report(&self, complete: bool) -> Report {
        self.progress.tell("");
        Report {
            pgwake_bench: report::VERSION,
            scenario: self.scenario.into(),
            complete,
            started_at: rfc3339(self.started_at),
            seconds: (clock::now_ns() - self.started_ns) as f64 / 1e9,
            parameters: self.parameters.clone(),
            environment: self.environment.clone(),
            notes: self.notes.clone(),
            measurements: report::summarise(&self.runs, report::yardstick(self.scenario)),
        }
    }
}

/// The line on a terminal that is written over again and again. Whatever happens, it does not stay.
struct Progress {
    /// Stderr is a terminal.
    is_shown: bool,
}

impl Progress {
    fn tell(&self, text: &str) {
        if self.is_shown {
            // A line that is wrapped cannot be written over, and some terminals wrap when it is full.
            let line: String = text.chars().take(columns().saturating_sub(1)).collect();
            let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.tell("");
    }
}

/// The width of the terminal, asked for each time, for it may change.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).map(|size| size.ws_col.into());
    let said = || std::env::var("COLUMNS").ok()?.parse().ok();
    size.ok().filter(|columns| *columns > 0).or_else(said).unwrap_or(COLUMNS_USUAL)
}
