//! A process that events are handed to: lines go into its stdin as far as there is room, what it says comes
//! out of its stdout, and neither is ever waited for here.

use crate::cli::{Failure, service};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long it has to end by itself when it got SIGTERM. Then comes SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// So many lines go into its stdin with one call.
pub(super) const LINES_AT_ONCE_MAX: usize = 512;

#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    /// What is left of a line that was given, and did not go in whole.
    rest: Vec<u8>,
    rest_written: usize,
    stdout: Option<ChildStdout>,
    /// It was asked to end: why, and when it is made to.
    ending: Option<(String, Instant)>,
}

impl Process {
    /// Starts it as it stands, never through a shell, in a process group of its own: a Ctrl-C is for us, who
    /// still have something to say to it. `answers`: what it writes to stdout is for us.
    pub(super) fn start(
        command: &[String],
        environment: &[(&str, String)],
        answers: bool,
    ) -> io::Result<Self> {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .envs(environment.iter().map(|(name, value)| (name, value)))
            // It is told of us alone.
            .env_remove(service::VARIABLE)
            .stdin(Stdio::piped())
            .stdout(if answers { Stdio::piped() } else { Stdio::inherit() })
            .process_group(0)
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        if let Some(stdin) = &stdin {
            ioctl_fionbio(stdin, true)?;
        }
        if let Some(stdout) = &stdout {
            ioctl_fionbio(stdout, true)?;
        }
        Ok(Process { child, stdin, rest: Vec::new(), rest_written: 0, stdout, ending: None })
    }

    /// Whether it takes no more: it closed its stdin, or we did.
    pub(super) fn is_closed(&mut self) -> bool {
        if let Some(stdin) = &self.stdin {
            // A pipe that nobody reads is in error, whatever is polled for.
            let mut fds = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::empty())];
            let polled = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
            if polled.is_ok() && fds[0].revents().contains(PollFlags::ERR) {
                self.stdin = None;
            }
        }
        self.stdin.is_none()
    }

    /// Whether all that was given has gone into its stdin.
    pub(super) fn has_all(&self) -> bool {
        self.rest.is_empty()
    }

    /// Gives it lines as far as there is room. How many were given; what is left of the last follows by
    /// itself.
    pub(super) fn give<'a>(&mut self, lines: impl Iterator<Item = &'a [u8]>) -> usize {
        self.write_rest();
        let Some(stdin) = self.stdin.as_mut().filter(|_| self.rest.is_empty()) else { return 0 };
        let slices: Vec<_> = lines.map(IoSlice::new).collect();
        if slices.is_empty() {
            return 0;
        }
        let mut written = match stdin.write_vectored(&slices) {
            Ok(written) => written,
            Err(error) => {
                self.failed_to_write(&error);
                return 0;
            }
        };
        let mut given = 0;
        for line in &slices {
            if written == 0 {
                break;
            }
            given += 1;
            if written < line.len() {
                (self.rest, self.rest_written) = (line[written..].to_vec(), 0);
            }
            written -= written.min(line.len());
        }
        given
    }

    fn write_rest(&mut self) {
        let Some(stdin) = self.stdin.as_mut().filter(|_| !self.rest.is_empty()) else { return };
        match stdin.write(&self.rest[self.rest_written..]) {
            Ok(written) => {
                self.rest_written += written;
                if self.rest_written == self.rest.len() {
                    self.rest = Vec::new();
                }
            }
            Err(error) => self.failed_to_write(&error),
        }
    }

    fn failed_to_write(&mut self, error: &io::Error) {
        if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
            self.stdin = None;
        }
    }

    /// No more comes.
    pub(super) fn close(&mut self) {
        self.stdin = None;
    }

    /// What it has said since the last call; `None` when it will say no more.
    pub(super) fn hear<'a>(&mut self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        match self.stdout.as_mut()?.read(buffer) {
            Ok(0) => self.stdout = None,
            Ok(read) => return Some(&buffer[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Some(&[]);
            }
            Err(_) => self.stdout = None,
        }
        None
    }

    /// Asks it to end, and all that it has started in its group. What it says from now on is not heard.
    pub(super) fn end(&mut self, why: impl Into<String>, now: Instant) {
        if self.ending.is_none() {
            self.ending = Some((why.into(), now + GRACE));
            (self.stdin, self.stdout) = (None, None);
            self.signal(Signal::TERM);
        }
    }

    /// Why it was asked to end, if it was.
    pub(super) fn why(&self) -> Option<&str> {
        self.ending.as_ref().map(|(why, _)| why.as_str())
    }

    /// How it has ended, if it has. One that was asked to and does not is made to; and so is in any case what
    /// it leaves behind in its group, for another one begins.
    pub(super) fn ended(&mut self, now: Instant) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() || self.deadline().is_some_and(|at| at <= now) {
            self.signal(Signal::KILL);
            self.ending.iter_mut().for_each(|(_, at)| *at = now + GRACE);
        }
        Ok(status)
    }

    /// When it is to be looked at again, whatever it does.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ending.as_ref().map(|(_, at)| *at)
    }

    fn signal(&self, signal: Signal) {
        // It may have ended, which the next look will show.
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }

    /// What is to be polled for it. `has_lines`: there are some for it.
    pub(super) fn interests(&self, has_lines: bool) -> impl Iterator<Item = PollFd<'_>> {
        // That it closes its stdin is seen in any case.
        let wants_room = has_lines || !self.rest.is_empty();
        let flags = if wants_room { PollFlags::OUT } else { PollFlags::empty() };
        let writes = self.stdin.as_ref().map(|stdin| PollFd::from_borrowed_fd(stdin.as_fd(), flags));
        let reads = self.stdout.as_ref();
        let reads = reads.map(|stdout| PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::IN));
        writes.into_iter().chain(reads)
    }
}

/// Why there is none.
pub(super) fn unstartable(program: &str, error: &std::io::Error) -> Failure {
    Failure::Running(format!("{program} cannot be started: {error}; check its name, and that it may be run"))
}

/// A process that nobody takes leave of gets no more, and is not waited for.
impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
        }
    }
}
