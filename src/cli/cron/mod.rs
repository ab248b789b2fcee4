//! `pgwake cron`: prints due times as they come, or runs a command for each.

mod arguments;
mod crontab;
mod preview;

use super::Failure;
use super::jobs::Jobs;
use super::output::Output;
use super::run::{Run, Take};
use super::stop::wake_on_children;
use super::values::Format;
pub(crate) use arguments::Cron;
use arguments::Policy;
use crontab::Entry;
use pgwake::{Event, EventLoop, Missed, ScheduleOptions, TaskId};
use std::collections::HashMap;
use std::time::Duration;

pub(crate) fn run(_dsn: &str, format: Format, arguments: &Cron) -> Result<(), Failure> {
    let (entries, mut faults) = entries(arguments)?;
    if arguments.explain || arguments.next.is_some() {
        let next = arguments.next.unwrap_or(0);
        let wrong = preview::print(&entries, format, arguments.explain, next)?;
        let left = entries.len() - wrong.len();
        faults.extend(wrong);
        return complain(faults, left);
    }
    let mut events = EventLoop::new()?;
    let mut commands = HashMap::new();
    for entry in entries {
        match schedule(&mut events, &entry, arguments) {
            Ok(task) => _ = commands.insert(task, entry.command),
            Err(fault) => faults.push(fault),
        }
    }
    complain(faults, commands.len())?;
    let mut run = Run::new(&events, format, &arguments.until)?.without_session();
    let runs_commands = commands.values().any(|command| !command.is_empty());
    if runs_commands {
        wake_on_children(events.waker())?;
    }
    let jobs = Jobs::new(Vec::new(), usize::MAX, run.end.clone());
    let mut taker = Ticks { commands, jobs };
    run.run(&mut events, &mut taker)?;
    for task in taker.commands.into_keys() {
        events.cancel(task)?;
    }
    taker.jobs.finish(&mut events, arguments.grace)
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
        for entry in read.iter_mut().filter(|entry| entry.command.is_empty()) {
            entry.command.clone_from(&arguments.exec);
        }
        entries.append(&mut read);
        faults = wrong;
    }
    Ok((entries, faults))
}

fn schedule(events: &mut EventLoop, entry: &Entry, arguments: &Cron) -> Result<TaskId, String> {
    let missed = match arguments.missed {
        Policy::Skip => Missed::Skip,
        Policy::Once => Missed::Once,
        Policy::All => Missed::All,
    };
    let mut options = ScheduleOptions::new()
        .missed(missed)
        .jitter(arguments.jitter)
        .manual_finish(!entry.command.is_empty());
    // An interval has no zone, and a file may say one for all that it has.
    if let Some(zone) = entry.time_zone.as_ref().filter(|_| !entry.expression.starts_with("@every")) {
        options = options.time_zone(zone);
    }
    events.cron(&entry.expression, options).map_err(|error| match &*entry.place {
        "" => error.to_string(),
        place => format!("{place}: {error}"),
    })
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
    commands: HashMap<TaskId, Vec<String>>,
    jobs: Jobs,
}

impl Take for Ticks {
    fn take(&mut self, event: &Event<'_>, output: &mut Output) -> Result<bool, Failure> {
        let Event::Tick(tick) = event else {
            output.write(event)?;
            return Ok(false);
        };
        match self.commands.get(&tick.task).filter(|command| !command.is_empty()) {
            Some(command) => self.jobs.run_at(tick, command)?,
            None => output.write(event)?,
        }
        Ok(true)
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
