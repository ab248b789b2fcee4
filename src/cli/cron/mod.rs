//! `pgwake cron`: prints due times as they come, or runs a command for each.

mod arguments;
mod crontab;
mod preview;

use super::jobs::Jobs;
use super::output::{Output, say_event};
use super::run::{Run, Take};
use super::stop::wake_on_children;
use super::values::Format;
use super::{Failure, not_connected, with_code};
pub(crate) use arguments::Cron;
use arguments::Policy;
use crontab::Entry;
use pgwake::{
    Event, EventLoop, Listening, Missed, ScheduleOptions, SessionId, SessionOptions, SqlState, TaskId, json,
};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// How long the server has at least to write down what became of a run.
const ANSWERING_TIME: Duration = Duration::from_secs(1);

pub(crate) fn run(dsn: &str, format: Format, arguments: &Cron) -> Result<(), Failure> {
    let (entries, mut faults) = entries(arguments)?;
    if arguments.explain || arguments.next.is_some() {
        let next = arguments.next.unwrap_or(0);
        let wrong = preview::print(&entries, format, arguments.explain, next)?;
        let left = entries.len() - wrong.len();
        faults.extend(wrong);
        return complain(faults, left);
    }
    let mut events = EventLoop::new()?;
    let session = session(&mut events, dsn, arguments)?;
    let mut commands = HashMap::new();
    for entry in entries {
        match schedule(&mut events, session, &entry, arguments) {
            Ok(task) => _ = commands.insert(task, entry),
            Err(error) => faults.push(entry.fault(error)),
        }
    }
    complain(faults, commands.len())?;
    let mut run = Run::new(&events, format, &arguments.until)?;
    if session.is_none() {
        run = run.without_session();
    }
    if commands.values().any(|entry: &Entry| !entry.command.is_empty()) {
        wake_on_children(events.waker())?;
    }
    let jobs = Jobs::new(Vec::new(), usize::MAX, run.end.clone());
    let mut taker = Ticks { commands, jobs, is_silent: arguments.sql.is_some() };
    run.run(&mut events, &mut taker)?;
    taker.finish(&mut events, arguments.grace, &mut run.output)
}

/// The session that all of it needs which is no schedule alone.
fn session(events: &mut EventLoop, dsn: &str, arguments: &Cron) -> Result<Option<SessionId>, Failure> {
    if arguments.leader.is_none() && arguments.sql.is_none() {
        return Ok(None);
    }
    let options = SessionOptions::new().self_test(arguments.leader.is_some()).heartbeat(arguments.heartbeat);
    Ok(Some(events.connect_with(dsn, options)?))
}

/// The schedules of the command line and of the file, and what is wrong with lines that are none.
fn entries(arguments: &Cron) -> Result<(Vec<Entry>, Vec<String>), Failure> {
    let typed = arguments.expressions.iter().map(|expression| Entry {
        place: String::new(),
        expression: expression.clone(),
        time_zone: arguments.tz.clone(),
        command: arguments.exec.clone(),
    });
    let (mut entries, mut faults) = (typed.collect::<Vec<_>>(), Vec::new());
    if let Some(file) = &arguments.file {
        let name = file.display().to_string();
        let text =
            std::fs::read_to_string(file).map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
        let (mut read, wrong) = crontab::read(&name, &text, arguments.tz.as_deref());
        faults = wrong;
        if arguments.sql.is_some() {
            let sentence = "the line has a command, and --sql is given: leave one out";
            let both = read.extract_if(.., |entry| !entry.command.is_empty());
            faults.extend(both.map(|entry| entry.fault(sentence)));
        }
        for entry in read.iter_mut().filter(|entry| entry.command.is_empty()) {
            entry.command.clone_from(&arguments.exec);
        }
        entries.append(&mut read);
    }
    if arguments.leader.is_some() {
        let mut titles = HashSet::new();
        let twins = entries.extract_if(.., |entry| !titles.insert(entry.title()));
        faults.extend(twins.map(|entry| {
            let title = entry.title();
            entry.fault(format!("{title:?} is there twice: with --leader both have one key, leave one out"))
        }));
    }
    Ok((entries, faults))
}

fn schedule(
    events: &mut EventLoop,
    session: Option<SessionId>,
    entry: &Entry,
    arguments: &Cron,
) -> pgwake::Result<TaskId> {
    let missed = match arguments.missed {
        Policy::Skip => Missed::Skip,
        Policy::Once => Missed::Once,
        Policy::All => Missed::All,
    };
    let mut options = ScheduleOptions::new()
        .missed(missed)
        .jitter(arguments.jitter)
        .manual_finish(!entry.command.is_empty());
    match &entry.time_zone {
        // An interval has no zone, and a file may say one for all that it has. There is such a zone, though.
        Some(zone) if entry.expression.starts_with("@every") => {
            pgwake::Cron::new("@daily", Some(zone))?;
        }
        Some(zone) => options = options.time_zone(zone),
        None => {}
    }
    if let Some((session, key)) = session.zip(arguments.leader.as_ref()) {
        // Each schedule has a lock of its own, and a lone one that of the very name.
        let is_alone = arguments.file.is_none() && arguments.expressions.len() == 1;
        let key = if is_alone { key.clone() } else { format!("{key}: {}", entry.title()) };
        options = options.leader(session, key);
    }
    if let Some((session, sql)) = session.zip(arguments.sql.as_ref()) {
        options = options.sql(session, sql);
    }
    events.cron(&entry.expression, options)
}

/// Each fault is one sentence. When nothing is left, that is the end.
fn complain(faults: Vec<String>, left: usize) -> Result<(), Failure> {
    match (faults.split_last(), left) {
        (Some((last, others)), 0) => {
            others.iter().for_each(|fault| say!("pgwake: {fault}"));
            Err(Failure::Usage(last.clone()))
        }
        (None, 0) => {
            Err(Failure::Usage("the file has no schedule: write one a line, as crontab has them".into()))
        }
        _ => {
            faults.iter().for_each(|fault| say!("pgwake: {fault}; the others go on"));
            Ok(())
        }
    }
}

/// Printed, unless something is run for it.
struct Ticks {
    /// The schedules, each with its command if it has one.
    commands: HashMap<TaskId, Entry>,
    jobs: Jobs,
    /// What is done is the database's work.
    is_silent: bool,
}

impl Ticks {
    /// Nothing new is begun; what runs comes to its end, and is written down.
    fn finish(
        &mut self,
        events: &mut EventLoop,
        grace: Duration,
        output: &mut Output,
    ) -> Result<(), Failure> {
        for task in self.commands.keys().filter(|task| !self.jobs.is_running(**task)) {
            events.cancel(*task)?;
        }
        for ended in self.jobs.finish(events, grace)? {
            let _ = events.finish(ended.task, ended.failure.as_deref());
        }
        for task in self.commands.keys() {
            // Most are cancelled already.
            let _ = events.cancel(*task);
        }
        let until = Instant::now() + grace.max(ANSWERING_TIME);
        while self.commands.keys().any(|task| events.is_under_way(*task)) {
            let remaining = until.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                let message = "what was begun has not ended on the server, and nobody here will know what \
                               becomes of it: give it more time with --grace";
                return Err(Failure::Running(message.into()));
            }
            match events.next(Some(remaining))? {
                Some(Event::Disconnected(lost)) => {
                    let message = format!("what was begun may have been done or not: {}", lost.message);
                    return Err(Failure::Running(message));
                }
                Some(event) => self.show(&event, output)?,
                None => {}
            }
        }
        output.flush()
    }

    /// An event that is no tick. Stdout belongs to what is run.
    fn show(&self, event: &Event<'_>, output: &mut Output) -> Result<(), Failure> {
        if self.commands.values().any(|entry| !entry.command.is_empty()) {
            say_event(event);
            return Ok(());
        }
        if self.is_silent && matches!(event, Event::Listening(_)) { Ok(()) } else { output.write(event) }
    }
}

/// Whether the schema is missing, or the right to use it.
fn is_for_good(code: Option<SqlState>) -> bool {
    code.is_some_and(|code| code.is_permanent() || code.as_str() == "3F000")
}

impl Take for Ticks {
    fn take(&mut self, event: &Event<'_>, output: &mut Output) -> Result<bool, Failure> {
        let tick = match event {
            Event::Tick(tick) => tick,
            // Nothing will be run before somebody has done something about it.
            Event::CommandFailed(failed) if failed.command == "schedule" && is_for_good(failed.sqlstate) => {
                return Err(Failure::Running(with_code(failed.message, failed.sqlstate)));
            }
            other => {
                self.show(other, output)?;
                return Ok(false);
            }
        };
        match self.commands.get(&tick.task).filter(|entry| !entry.command.is_empty()) {
            Some(entry) => self.jobs.run_at(tick, &entry.fault(entry.title()), &entry.command)?,
            None if self.is_silent && tick.missed > 0 => {
                say!(
                    "{}: {} due times were missed before {}",
                    tick.schedule,
                    tick.missed,
                    json::rfc3339(tick.due)
                );
            }
            None if self.is_silent => {}
            None => output.write(event)?,
        }
        Ok(true)
    }

    fn has_begun(&self, _: &Listening<'_>) -> bool {
        true
    }

    /// The self-test is the leader's, who cannot do without it.
    fn failure(&self, message: &str, sqlstate: Option<SqlState>) -> Failure {
        match sqlstate {
            Some(SqlState::FEATURE_NOT_SUPPORTED) => Failure::Running(format!(
                "{message} (SQLSTATE 0A000); --leader needs the server itself, or a pooler in session mode"
            )),
            _ => not_connected(message, sqlstate),
        }
    }

    fn rest(&mut self, events: &mut EventLoop, _: &mut Output) -> Result<Option<Duration>, Failure> {
        self.jobs.go_on()?;
        for ended in self.jobs.take_ended() {
            // One whose schedule was ended meanwhile is nobody's.
            let _ = events.finish(ended.task, ended.failure.as_deref());
        }
        Ok(None)
    }
}
