//! `listen --exec`: one run of a command for each event, several at once, those of one channel one after the
//! other.
//!
//! The command is started as it stands, never through a shell. It gets the payload on its stdin, and what it
//! is about in `PGWAKE_EVENT`, `PGWAKE_CHANNEL` and `PGWAKE_PID`. It runs for notifications and for gaps, of
//! which the latter mean that something was missed.

use super::Failure;
use pgwake::Event;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

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
}

impl Jobs {
    pub(crate) fn new(command: Vec<String>, most: usize) -> Self {
        Jobs { command, most, running: Vec::new(), queue: VecDeque::new() }
    }

    /// Runs the command for an event, now or when there is room.
    pub(crate) fn run_for(&mut self, event: &Event<'_>) -> Result<(), Failure> {
        let job = match event {
            Event::Notification(n) => {
                let (channel, payload) = (n.channel.to_vec(), n.payload.to_vec());
                Job { event: "notification", channel, payload, pid: n.pid }
            }
            Event::Gap(g) => {
                let payload = g.message.as_bytes().to_vec();
                Job { event: "gap", channel: Vec::new(), payload, pid: 0 }
            }
            _ => return Ok(()),
        };
        self.queue.push_back(job);
        self.go_on()?;
        while self.queue.len() > QUEUE_MAX {
            std::thread::sleep(PAUSE);
            self.go_on()?;
        }
        Ok(())
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

    /// Whether nothing runs and nothing waits.
    pub(crate) fn is_done(&self) -> bool {
        self.running.is_empty() && self.queue.is_empty()
    }

    /// Forgets what waits: somebody asked for the end.
    pub(crate) fn stop(&mut self) {
        self.queue.clear();
    }

    fn start(&mut self, job: Job) -> Result<(), Failure> {
        let mut child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .env("PGWAKE_EVENT", job.event)
            .env("PGWAKE_CHANNEL", OsString::from_vec(job.channel.clone()))
            .env("PGWAKE_PID", job.pid.to_string())
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
