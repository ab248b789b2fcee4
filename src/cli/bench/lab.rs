//! Where a scenario works: the server, the wish to stop, the line that tells how far it is, and the record of
//! its runs, which becomes the report.

use super::super::Failure;
use super::super::stop::Stop;
use super::arguments::{self, Common};
use super::clock;
use super::environment::Environment;
use super::listener::{Contender, Order};
use super::report::{self, Latencies, Report, Run, Subject};
use super::sender::{Pace, Sender};
use super::slow_commit::SlowCommit;
use super::target::Target;
use pgwake::json::rfc3339;
use serde_json::Value;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{IsTerminal, Write};
use std::time::{Duration, SystemTime};

/// Less is no sign of a server that is overrun.
const LATE_MIN: Duration = Duration::from_millis(100);

pub(super) struct Lab {
    pub(super) target: Target,
    pub(super) stop: Stop,
    /// A channel that nobody else listens on.
    pub(super) channel: String,
    pub(super) started_ns: i64,
    rounds: usize,
    runs: Vec<Run>,
    /// But for what is measured, of which the runs are kept.
    report: Report,
    progress: Progress,
}

/// What each contender is measured in.
#[derive(Debug, Clone)]
pub(super) struct Case<C> {
    pub(super) series: String,
    pub(super) step: u64,
    pub(super) load: C,
}

/// One run that is to be made now.
pub(super) struct Trial {
    pub(super) round: usize,
    pub(super) conninfo: String,
    pub(super) subject: Subject,
}

/// What a run has found.
pub(super) struct Found {
    pub(super) figures: BTreeMap<&'static str, f64>,
    pub(super) latencies: Option<Latencies>,
}

impl Lab {
    pub(super) fn open(
        scenario: &str,
        dsn: &str,
        common: &Common,
        slow_commit: Option<&SlowCommit>,
    ) -> Result<Self, Failure> {
        let progress = Progress { is_terminal: std::io::stderr().is_terminal() };
        if common.private {
            progress.tell("starting a private PostgreSQL …");
        }
        let mut target = Target::open(dsn, common, slow_commit)?;
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
            target,
            runs: Vec::new(),
            report: Report {
                pgwake_bench: report::VERSION,
                scenario: scenario.into(),
                started_at: rfc3339(SystemTime::now()),
                parameters: BTreeMap::from([("rounds".into(), common.rounds.into())]),
                environment,
                notes,
                ..Report::default()
            },
            progress,
        })
    }

    /// The first of the ways to the server.
    pub(super) fn conninfo(&self) -> &str {
        &self.target.transports[0].conninfo
    }

    pub(super) fn add_parameters<const N: usize>(&mut self, parameters: [(&str, Value); N]) {
        self.report.parameters.extend(parameters.map(|(name, value)| (name.to_string(), value)));
    }

    /// Adds a note, unless it is there.
    pub(super) fn note(&mut self, note: String) {
        if !self.report.notes.contains(&note) {
            self.report.notes.push(note);
        }
    }

    /// Measures each case with each contender, over each way, round after round, until all is done or a
    /// signal comes; what was asked for twice is measured once. Each second round runs backwards, so that
    /// what changes while the machine warms up falls on all contenders alike.
    pub(super) fn in_rounds<C, K>(
        &mut self,
        cases: &[Case<C>],
        contenders: &[(String, K)],
        mut measure: impl FnMut(&mut Lab, &Trial, &C, &K) -> Result<Option<Found>, Failure>,
    ) -> Result<(), Failure> {
        for round in 0..self.rounds {
            for transport in self.target.transports.clone() {
                let mut order: Vec<_> = contenders.iter().collect();
                if !round.is_multiple_of(2) {
                    order.reverse();
                }
                for (case, (name, contender)) in
                    cases.iter().flat_map(|case| order.iter().map(move |contender| (case, *contender)))
                {
                    let subject = Subject {
                        contender: name.clone(),
                        transport: arguments::name(transport.name),
                        series: case.series.clone(),
                        step: case.step,
                    };
                    if self.runs.iter().any(|run| run.round == round && run.subject == subject) {
                        continue;
                    }
                    let what = subject.words(&self.report.scenario);
                    self.progress.tell(&format!(
                        "{}: round {} of {}, {what}",
                        self.report.scenario,
                        round + 1,
                        self.rounds
                    ));
                    if self.stop.is_asked_for() {
                        return Ok(());
                    }
                    let trial = Trial { round, conninfo: transport.conninfo.clone(), subject };
                    if let Some(found) = measure(self, &trial, &case.load, contender)? {
                        self.keep(trial, found);
                    }
                }
            }
        }
        Ok(())
    }

    /// One session that listens on one channel for one sender, and takes no times.
    pub(super) fn order(&self, trial: &Trial, contender: Contender) -> Order {
        Order {
            contender,
            conninfo: trial.conninfo.clone(),
            channel: self.channel.clone(),
            sessions: 1,
            is_shared: false,
            idle_channels: 0,
            senders: 1,
            count_max: usize::MAX >> 1,
            takes_times: false,
            listens_again: false,
            log: None,
        }
    }

    /// The same contender's run of this series that came first in this round.
    pub(super) fn first_of(&self, trial: &Trial) -> Option<&Run> {
        self.runs.iter().find(|run| {
            let like = Subject { step: run.subject.step, ..trial.subject.clone() };
            run.round == trial.round && run.subject == like
        })
    }

    /// Says so when the server took a good part of a run longer than it was given.
    pub(super) fn note_pace(&mut self, sender: &Sender, pace: Pace) {
        if sender.late > pace.interval * pace.count as u32 / 10 && sender.late > LATE_MIN {
            self.note(format!(
                "one per {:?} was more than the server takes: latencies grow as a run lasts",
                pace.interval
            ));
        }
    }

    /// Keeps a run. One that was stopped in its middle counts only where there is no other.
    fn keep(&mut self, Trial { round, subject, .. }: Trial, Found { figures, latencies }: Found) {
        if !self.stop.is_asked_for() || !self.runs.iter().any(|other| other.subject == subject) {
            self.runs.push(Run { subject, round, figures, latencies });
        }
    }

    /// The report about all runs so far.
    pub(super) fn report(&self, complete: bool) -> Report {
        self.progress.clear();
        Report {
            complete,
            seconds: (clock::now_ns() - self.started_ns) as f64 / 1e9,
            measurements: report::summarise(&self.runs, &self.report.scenario),
            ..self.report.clone()
        }
    }
}

/// What is done now, on stderr: on a terminal one line that is written over again and again, and whatever
/// happens, does not stay; elsewhere a line for each.
struct Progress {
    is_terminal: bool,
}

impl Progress {
    fn tell(&self, text: &str) {
        let mut stderr = std::io::stderr();
        // Who closes stderr does not want to know. A line that is wrapped cannot be written over, so what is
        // too long for the terminal is cut off.
        let _ = match self.is_terminal {
            true => write!(stderr, "\r\x1b[K\x1b[?7l{text}\x1b[?7h"),
            false => writeln!(stderr, "{text}"),
        };
    }

    fn clear(&self) {
        if self.is_terminal {
            self.tell("");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
