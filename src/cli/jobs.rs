//! `listen --exec`: one run of a command for each event, several at once, those of one channel one after the
//! other.
//!
//! The command is started as it stands, never through a shell. It gets the payload on its stdin, and what it
//! is about in `PGWAKE_EVENT`, `PGWAKE_CHANNEL` and `PGWAKE_PID`. It runs for notifications and for gaps, of
//! which the latter mean that something was missed.

use super::Failure;
use super::run::End;
use super::service;
use pgwake::{Event, EventLoop};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How many runs may wait. When it is more, reading pauses, and the server keeps the rest.
const QUEUE_MAX: usize = 10_000;

/// How often a full queue is looked at.
const PAUSE: Duration = Duration::from_millis(5);

/// One run.
struct Job {
    event: &'static str,
    channel: Vec<u8>,
    payload: Vec<u8>,
    pid: i32,
}

pub(crate) struct Jobs {
    command: Vec<String>,
    most: usize,
    running: Vec<(Vec<u8>, Child)>,
    queue: VecDeque<Job>,
    end: End,
}

impl Jobs {
    pub(crate) fn new(command: Vec<String>, most: usize, end: End) -> Self {
        Jobs { command, most, running: Vec::new(), queue: VecDeque::new(), end }
    }

    /// Runs the command for an event, now or when there is room; `false` if it is not run for such events.
    pub(crate) fn run_for(&mut self, event: &Event<'_>) -> Result<bool, Failure> {
        let job = match event {
            Event::Notification(n) => {
                let (channel, payload) = (n.channel.to_vec(), n.payload.to_vec());
                Job { event: "notification", channel, payload, pid: n.pid }
            }
            Event::Gap(g) => {
                let payload = g.message.as_bytes().to_vec();
                Job { event: "gap", channel: Vec::new(), payload, pid: 0 }
            }
            _ => return Ok(false),
        };
        self.queue.push_back(job);
        self.go_on()?;
        while self.queue.len() > QUEUE_MAX && !self.end.has_come() {
            std::thread::sleep(PAUSE);
            self.go_on()?;
        }
        Ok(true)
    }

    /// Takes leave of what has ended, and starts what there is room for.
    pub(crate) fn go_on(&mut self) -> Result<(), Failure> {
        let mut i = 0;
        while i < self.running.len() {
            match self.running[i].1.try_wait()? {
                Some(status) => {
                    if !status.success() {
                        log::warn!("{}: {status}", self.command[0]);
                    }
                    self.running.swap_remove(i);
                }
                None => i += 1,
            }
        }
        while self.running.len() < self.most {
            let is_free = |job: &Job| self.running.iter().all(|(channel, _)| *channel != job.channel);
            let Some(place) = self.queue.iter().position(is_free) else { break };
            let Some(job) = self.queue.remove(place) else { break };
            self.start(job)?;
        }
        Ok(())
    }

    /// Runs what still waits, as long as the end has not come. Then what waits is dropped, and what runs has
    /// so much time to go on, and as much again after it was asked to end.
    pub(crate) fn finish(mut self, events: &mut EventLoop, grace: Duration) -> Result<(), Failure> {
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
        Ok(())
    }

    fn drop_queue(&mut self) {
        let (dropped, command) = (self.queue.len(), &self.command[0]);
        if dropped > 0 {
            let events = if dropped == 1 { "event" } else { "events" };
            say!("dropped {dropped} {events} that waited for a run of {command}");
        }
        self.queue.clear();
    }

    fn send(&self, signal: Signal) {
        for (_, child) in &self.running {
            // It may have ended, which the next look will show.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }

    fn start(&mut self, job: Job) -> Result<(), Failure> {
        let mut child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .env("PGWAKE_EVENT", job.event)
            .env("PGWAKE_CHANNEL", OsString::from_vec(job.channel.clone()))
            .env("PGWAKE_PID", job.pid.to_string())
            // It is told of us alone.
            .env_remove(service::VARIABLE)
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::Running(format!("{} cannot be started: {error}", self.command[0])))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A pipe holds 64 KB, and a payload has 8: this does not wait. A command that does not read is no
            // failure.
            let _ = stdin.write_all(&job.payload);
        }
        self.running.push((job.channel, child));
        Ok(())
    }
}
