//! A listener's process as the measuring one sees it: started with an order, heard until it has answered,
//! gone when it is dropped.

use super::super::stop::{GRACE, NAP, Stop};
use super::super::{Failure, not_connected};
use super::clock;
use super::environment::{cpu_ns, server_cpu_ns};
use super::listener::{Answer, Order};
use pgwake::SqlState;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// No server that works takes that long to deliver what was committed, or to let a thousand sessions in.
const PATIENCE: Duration = Duration::from_secs(60);

/// A listener that is at work.
pub(super) struct Listening {
    child: Child,
    output: BufReader<ChildStdout>,
    stop: Stop,
    /// The server's process for its first session, and what CPU it had used when all began.
    pub(super) backend_pid: i32,
    server_cpu_before_ns: Option<i64>,
    pub(super) memory_bytes_each: Option<f64>,
    pub(super) connect_s: f64,
    /// How long it may take to have heard all.
    pub(super) patience: Duration,
    /// When it became another program, and what CPU it had used.
    became: (i64, i64),
}

/// What a listener has heard.
pub(super) struct Heard {
    pub(super) count: u64,
    /// From the first to the last.
    pub(super) wall_s: f64,
    pub(super) cpu_ns: i64,
    /// Of the server's process for its first session, where that runs on this machine.
    server_cpu_ns: Option<i64>,
    /// Of each what its payload says, and when it was taken.
    pub(super) times: Vec<[i64; 2]>,
}

impl Listening {
    /// Starts it, and waits until it listens.
    pub(super) fn start(order: &Order, stop: &Stop) -> Result<Self, Failure> {
        let mut child = Command::new("/proc/self/exe")
            .arg0("pgwake")
            .args(["bench", "listener"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What libpq has to say when we end a session of the C loop's ourselves.
            .stderr(Stdio::null())
            // Ctrl-C is for us to hear: the listener then ends by the end that we send.
            .process_group(0)
            .spawn()?;
        let output = child.stdout.take().ok_or(ErrorKind::BrokenPipe).map_err(Error::from)?;
        let order = serde_json::to_string(order).map_err(std::io::Error::from)? + "\n";
        // It stays open: its end dismisses the listener.
        child.stdin.as_mut().map_or(Ok(()), |input| input.write_all(order.as_bytes()))?;
        let mut listening = Listening {
            child,
            output: BufReader::new(output),
            stop: stop.clone(),
            backend_pid: 0,
            server_cpu_before_ns: None,
            memory_bytes_each: None,
            connect_s: 0.0,
            patience: PATIENCE,
            became: (0, 0),
        };
        match listening.answer("to connect and to listen")? {
            Answer::Ready { backend_pid, memory_bytes_each, connect_s } => {
                (listening.backend_pid, listening.connect_s) = (backend_pid, connect_s);
                listening.memory_bytes_each = memory_bytes_each;
                listening.server_cpu_before_ns = server_cpu_ns(backend_pid);
                Ok(listening)
            }
            Answer::Becomes { at_ns, cpu_ns } => {
                listening.became = (at_ns, cpu_ns);
                Ok(listening)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until the program that it became has read all. Gives how long that took, and the CPU it used.
    pub(super) fn ended(&mut self) -> Result<(f64, i64), Failure> {
        self.wait_for_output("to read the log")?;
        let (began_ns, cpu_before_ns) = self.became;
        let wall_s = (clock::now_ns() - began_ns) as f64 / 1e9;
        let mut words = String::new();
        self.output.read_to_string(&mut words)?;
        // It has ended, and its figures are there until it is waited for.
        let cpu_ns = cpu_ns(self.child.id()).map_or(0, |cpu_ns| cpu_ns - cpu_before_ns);
        match self.child.wait()?.success() {
            true => Ok((wall_s, cpu_ns)),
            false => Err(Failure::Running(words.trim().replace('\n', "; "))),
        }
    }

    /// Fails if it has said anything, for then it reads no more.
    pub(super) fn is_reading(&mut self) -> Result<(), Failure> {
        match self.has_output(Duration::ZERO) {
            true => Err(Failure::Running("a reader of the log ended early".into())),
            false => Ok(()),
        }
    }

    /// Waits for its report, once so many and the end have been sent. What was committed must have come: the
    /// server promises it.
    pub(super) fn heard(&mut self, sent: usize) -> Result<Heard, Failure> {
        match self.answer("for what was sent (a pooler in between may swallow it)")? {
            Answer::Done { count, first_ns, last_ns, cpu_ns, times } if count == sent as u64 => {
                let after_ns = server_cpu_ns(self.backend_pid);
                let server_cpu_ns =
                    after_ns.zip(self.server_cpu_before_ns).map(|(after, before)| after - before);
                Ok(Heard { count, wall_s: (last_ns - first_ns) as f64 / 1e9, cpu_ns, server_cpu_ns, times })
            }
            Answer::Done { count, .. } => Err(Failure::Running(format!(
                "{sent} were sent and {count} came: something in between loses them"
            ))),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until the session that was ended listens again. Gives the seconds that this took.
    pub(super) fn listens_again_s(&mut self) -> Result<f64, Failure> {
        match self.answer("to listen again")? {
            Answer::ListensAgain { took_ns } => Ok(took_ns as f64 / 1e9),
            other => Err(unexpected(&other)),
        }
    }

    fn wait_for_output(&self, purpose: &str) -> Result<(), Failure> {
        let (mut until, mut is_stopping) = (Instant::now() + self.patience, false);
        while !self.has_output(NAP) {
            if !std::mem::replace(&mut is_stopping, self.stop.is_asked_for()) && is_stopping {
                until = until.min(Instant::now() + GRACE);
            }
            if Instant::now() >= until {
                let why = match is_stopping {
                    true => "until a signal came".into(),
                    false => format!("for {} s", self.patience.as_secs()),
                };
                return Err(Failure::Running(format!("a listener waited in vain {purpose}, {why}")));
            }
        }
        Ok(())
    }

    fn answer(&mut self, purpose: &str) -> Result<Answer, Failure> {
        self.wait_for_output(purpose)?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if !line.ends_with('\n') {
            let reason = "a listener's process ended: was it killed, or out of memory?";
            return Err(Failure::Running(reason.into()));
        }
        match serde_json::from_str(&line).map_err(Error::from)? {
            Answer::Failed { message, sqlstate } => {
                Err(not_connected(&message, sqlstate.as_deref().and_then(SqlState::new)))
            }
            answer => Ok(answer),
        }
    }

    /// Whether it has said something, or ended, within this while, which is less than a second.
    fn has_output(&self, time: Duration) -> bool {
        let nap = Timespec { tv_sec: 0, tv_nsec: time.as_nanos() as i64 };
        let output = || poll(&mut [PollFd::new(self.output.get_ref(), PollFlags::IN)], Some(&nap));
        // A signal ends the wait early, and is looked for next.
        !self.output.buffer().is_empty() || output().is_ok_and(|ready| ready > 0)
    }
}

impl Heard {
    /// What a notification costs the listener, and the server's process for it.
    pub(super) fn costs(&self) -> BTreeMap<&'static str, f64> {
        let count = self.count as f64;
        let own = [("notifications", count), ("cpu_ns_each", self.cpu_ns as f64 / count)];
        let server = self.server_cpu_ns.map(|ns| ("server_cpu_ns_each", ns as f64 / count));
        own.into_iter().chain(server).collect()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // It has usually ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unexpected(answer: &Answer) -> Failure {
    Failure::Running(format!("a listener answered out of turn: {answer:?}"))
}
