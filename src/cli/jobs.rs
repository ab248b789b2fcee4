//! `listen --exec` and `cron --exec`: one run of a command for each event, several at once, those of one
//! channel, or one schedule, one after the other.
//!
//! The command is started as it stands, never through a shell. What it is about is in its environment:
//! `PGWAKE_EVENT`, and for a notification `PGWAKE_CHANNEL` and `PGWAKE_PID`, with the payload on stdin; for a
//! tick `PGWAKE_SCHEDULE`, `PGWAKE_DUE`, `PGWAKE_MISSED` and `PGWAKE_LATE_MS`. `listen` runs it for gaps,
//! too, which mean that something was missed.

use super::Failure;
use super::run::End;
use super::service;
use pgwake::{Event, EventLoop, TaskId, Tick, json};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How many runs may wait. When it is more, reading pauses, and the server keeps the rest.
const QUEUE_MAX: usize = 10_000;

/// How often a full queue is looked at.
const PAUSE: Duration = Duration::from_millis(5);

/// What runs of one kind come one after the other for: the name of a channel, or a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Turn {
    Channel(Vec<u8>),
    Schedule(TaskId),
}

/// One run.
struct Job {
    /// Which one failed, if it fails: what its line begins with.
    origin: String,
    command: Vec<String>,
    turn: Turn,
    environment: Vec<(&'static str, OsString)>,
    payload: Vec<u8>,
}

/// One that goes on.
struct Running {
    origin: String,
    program: String,
    turn: Turn,
    child: Child,
}

/// A run for a schedule has ended, and whether it did what it was to do.
pub(crate) struct Ended {
    pub(crate) task: TaskId,
    pub(crate) failure: Option<String>,
}

pub(crate) struct Jobs {
    command: Vec<String>,
    most: usize,
    running: Vec<Running>,
    queue: VecDeque<Job>,
    ended: Vec<Ended>,
    end: End,
    /// What runs was asked to end.
    is_ending: bool,
}

impl Jobs {
    pub(crate) fn new(command: Vec<String>, most: usize, end: End) -> Self {
        let (running, queue, ended) = (Vec::new(), VecDeque::new(), Vec::new());
        Jobs { command, most, running, queue, ended, end, is_ending: false }
    }

    /// Runs the command for an event, now or when there is room; `false` if it is not run for such events.
    pub(crate) fn run_for(&mut self, event: &Event<'_>) -> Result<bool, Failure> {
        let pid = |pid: i32| ("PGWAKE_PID", pid.to_string().into());
        let (kind, turn, more, payload) = match event {
            Event::Notification(n) => {
                let channel = ("PGWAKE_CHANNEL", OsString::from_vec(n.channel.to_vec()));
                let turn = Turn::Channel(n.channel.to_vec());
                ("notification", turn, vec![channel, pid(n.pid)], n.payload.to_vec())
            }
            Event::Gap(g) => {
                let (channel, payload) = (("PGWAKE_CHANNEL", OsString::new()), g.message.as_bytes().to_vec());
                ("gap", Turn::Channel(Vec::new()), vec![channel, pid(0)], payload)
            }
            _ => return Ok(false),
        };
        let environment = [("PGWAKE_EVENT", kind.into())].into_iter().chain(more).collect();
        let (origin, command) = (String::new(), self.command.clone());
        self.queue.push_back(Job { origin, command, turn, environment, payload });
        self.go_on()?;
        while self.queue.len() > QUEUE_MAX && !self.end.has_come() {
            std::thread::sleep(PAUSE);
            self.go_on()?;
        }
        Ok(true)
    }

    /// Runs a command for a schedule that is due; `title` says which one.
    pub(crate) fn run_at(&mut self, tick: &Tick<'_>, title: &str, command: &[String]) -> Result<(), Failure> {
        let due = json::rfc3339(tick.due);
        let origin = format!("{title}, due {due}: ");
        let environment = [
            ("PGWAKE_EVENT", "tick".into()),
            ("PGWAKE_SCHEDULE", tick.schedule.into()),
            ("PGWAKE_DUE", due.into()),
            ("PGWAKE_MISSED", tick.missed.to_string().into()),
            ("PGWAKE_LATE_MS", tick.late.as_millis().to_string().into()),
        ];
        let (turn, environment) = (Turn::Schedule(tick.task), environment.into());
        let (command, payload) = (command.to_vec(), Vec::new());
        self.queue.push_back(Job { origin, command, turn, environment, payload });
        self.go_on()
    }

    /// Whether a run for this schedule has not ended.
    pub(crate) fn is_running(&self, task: TaskId) -> bool {
        let is_its = |turn: &Turn| *turn == Turn::Schedule(task);
        self.running.iter().any(|running| is_its(&running.turn))
            || self.queue.iter().any(|job| is_its(&job.turn))
    }

    /// What has ended of the runs for schedules since the last call.
    pub(crate) fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// Takes leave of what has ended, and starts what there is room for.
    pub(crate) fn go_on(&mut self) -> Result<(), Failure> {
        let mut i = 0;
        while i < self.running.len() {
            let Some(status) = self.running[i].child.try_wait()? else {
                i += 1;
                continue;
            };
            if self.is_ending {
                // It may leave some behind that do not heed.
                signal(&self.running[i].child, Signal::KILL);
            }
            let Running { origin, program, turn, .. } = self.running.swap_remove(i);
            let failure = (!status.success()).then(|| format!("{program}: {status}"));
            if let Some(failure) = &failure {
                log::warn!("{origin}{failure}");
            }
            if let Turn::Schedule(task) = turn {
                self.ended.push(Ended { task, failure });
            }
        }
        while self.running.len() < self.most {
            let is_free = |job: &Job| self.running.iter().all(|running| running.turn != job.turn);
            let Some(place) = self.queue.iter().position(is_free) else { break };
            let Some(job) = self.queue.remove(place) else { break };
            self.start(job)?;
        }
        Ok(())
    }

    /// Runs what still waits, as long as the end has not come. Then what waits is dropped, and what runs has
    /// so much time to go on, and as much again after it was asked to end. Gives what has ended.
    pub(crate) fn finish(&mut self, events: &mut EventLoop, grace: Duration) -> Result<Vec<Ended>, Failure> {
        let mut signals = [Signal::TERM, Signal::KILL].into_iter();
        let mut signal_at = None;
        while !(self.running.is_empty() && self.queue.is_empty()) {
            let now = Instant::now();
            if signal_at.is_none() && self.end.has_come() {
                self.drop_queue();
                signal_at = Some(now + grace);
                continue;
            }
            if signal_at.is_some_and(|at| at <= now) {
                signals.next().iter().for_each(|signal| self.send(*signal));
                signal_at = Some(now + grace.max(PAUSE));
            }
            let remaining = signal_at.map(|at| at - now).or(self.end.remaining());
            // No event comes any more but the news that a run has ended.
            events.next(remaining)?;
            self.go_on()?;
        }
        Ok(self.take_ended())
    }

    fn drop_queue(&mut self) {
        let dropped = self.queue.len();
        if dropped > 0 {
            let events = if dropped == 1 { "event" } else { "events" };
            let command = self.queue.front().map_or("", |job| &job.command[0]);
            say!("dropped {dropped} {events} that waited for a run of {command}");
        }
        for job in self.queue.drain(..) {
            if let Turn::Schedule(task) = job.turn {
                self.ended.push(Ended { task, failure: Some("the end came before it began".into()) });
            }
        }
    }

    fn send(&mut self, what: Signal) {
        self.is_ending = true;
        self.running.iter().for_each(|running| signal(&running.child, what));
    }

    /// A schedule goes on when its command cannot be started this time; without one, there is nothing to do.
    fn start(&mut self, job: Job) -> Result<(), Failure> {
        let program = job.command[0].clone();
        let started = Command::new(&program)
            .args(&job.command[1..])
            .envs(job.environment)
            // A Ctrl-C is for us: what runs has its time of grace, with all that it has started.
            .process_group(0)
            // It is told of us alone.
            .env_remove(service::VARIABLE)
            .stdin(Stdio::piped())
            .spawn();
        let mut child = match (started, &job.turn) {
            (Ok(child), _) => child,
            (Err(error), turn) => {
                let failure = format!("{program} cannot be started: {error}");
                let Turn::Schedule(task) = turn else { return Err(Failure::Running(failure)) };
                log::warn!("{}{failure}", job.origin);
                self.ended.push(Ended { task: *task, failure: Some(failure) });
                return Ok(());
            }
        };
        if let Some(mut stdin) = child.stdin.take() {
            // A pipe holds 64 KB, and a payload has 8: this does not wait. A command that does not read is no
            // failure.
            let _ = stdin.write_all(&job.payload);
        }
        self.running.push(Running { origin: job.origin, program, turn: job.turn, child });
        Ok(())
    }
}

/// To all that it has started in its group, too.
fn signal(child: &Child, signal: Signal) {
    // It may have ended, which the next look will show.
    let _ = kill_process_group(Pid::from_child(child), signal);
}

/// What nobody takes leave of is asked to end, and not waited for.
impl Drop for Jobs {
    fn drop(&mut self) {
        self.running.iter().for_each(|running| signal(&running.child, Signal::TERM));
    }
}
