//! The listening side of a measurement, in a process of its own so that its CPU and memory can be told: takes
//! an [`Order`] on stdin, listens, says [`Answer::Ready`], and reports when it has heard the end. pgwake and
//! the C loop are driven alike; only the loop differs. Of the log there is no more to be heard than its end,
//! and instead of the C loop there is pg_recvlogical, which this process becomes.

use super::super::Failure;
use super::c_loop::CLoop;
use super::clock;
use super::report::{C_LOOP, RECVLOGICAL};
use pgwake::{
    ChangeOp, Error, Event, EventLoop, EventLoopOptions, Result, SessionId, StreamOptions, Streaming,
};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The payload of the notification that ends a measurement; each sender sends one.
pub(super) const END: &str = "!";

/// Who listens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) enum Contender {
    /// The bare C loop.
    C,
    /// pgwake, which spins for that long after each event before it sleeps, or by that share of a core.
    Pgwake { spin: Duration, spin_adaptive: f64 },
    /// PostgreSQL's own program, which reads the log and nothing else.
    Recvlogical,
}

impl Contender {
    /// pgwake as it is by default.
    pub(super) const PGWAKE: Contender = Contender::Pgwake { spin: Duration::ZERO, spin_adaptive: 0.0 };

    pub(super) const BOTH: [Contender; 2] = [Contender::C, Contender::PGWAKE];

    /// With its name in tables and reports.
    pub(super) fn named(self) -> (String, Contender) {
        let name = match self {
            Contender::C => C_LOOP.name.into(),
            Contender::Recvlogical => RECVLOGICAL.name.into(),
            Contender::PGWAKE => "pgwake".into(),
            Contender::Pgwake { spin, .. } if !spin.is_zero() => format!("pgwake, spin {spin:?}"),
            Contender::Pgwake { spin_adaptive, .. } => format!("pgwake, adaptive {spin_adaptive}"),
        };
        (name, self)
    }
}

/// What one listener does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) contender: Contender,
    pub(super) conninfo: String,
    /// The channel that is notified; the names of the idle ones begin with it.
    pub(super) channel: String,
    /// Sessions in one loop. The first listens on the channel.
    pub(super) sessions: usize,
    /// The other sessions do, too; otherwise they are idle.
    pub(super) is_shared: bool,
    /// Idle channels of the first session.
    pub(super) idle_channels: usize,
    /// How many senders will send the end.
    pub(super) senders: usize,
    /// No more notifications come, or are taken.
    pub(super) count_max: usize,
    /// Whether the time of each is to be taken, and compared with the number in its payload.
    pub(super) takes_times: bool,
    /// After the report the first session is going to be ended: how long until it listens again?
    pub(super) listens_again: bool,
    /// Row changes are read, up to a TRUNCATE, instead of notifications.
    pub(super) log: Option<Log>,
}

/// What of the log is read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Log {
    pub(super) publication: String,
    /// `None`: a temporary one. pg_recvlogical has none of its own.
    pub(super) slot: Option<String>,
    /// A large transaction is sent while it runs, and delivered at its commit; or early, as it comes.
    pub(super) streaming: bool,
    pub(super) early: bool,
    pub(super) binary: bool,
    /// Where pg_recvlogical is, and the LSN at which it ends.
    pub(super) recvlogical: PathBuf,
    pub(super) end: Option<String>,
}

/// What a listener says, one line each.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// All sessions listen.
    Ready {
        /// The server's process for the first session.
        backend_pid: i32,
        /// What each further session has added to the memory of this process; none if there is only one.
        memory_bytes_each: Option<f64>,
        /// How long it took to connect them all, and to listen.
        connect_s: f64,
    },
    /// From here on it is another program, which says nothing: the time, and what CPU was used so far.
    Becomes { at_ns: i64, cpu_ns: i64 },
    /// The end was heard. `times` has what the payload of each says, and when it was taken.
    Done { count: u64, first_ns: i64, last_ns: i64, cpu_ns: i64, times: Vec<[i64; 2]> },
    /// The session that was ended listens again after that long.
    ListensAgain { took_ns: i64 },
    /// It cannot go on.
    Failed { message: String, sqlstate: Option<String> },
}

impl Order {
    /// The channels of a session; the one that is notified comes last, where a server that searches a list
    /// finds it last. An idle session has none: the server would wake it for every notification in its
    /// database.
    fn channels(&self, session: usize) -> Vec<String> {
        let idle = if session == 0 { self.idle_channels } else { 0 };
        let busy = (session == 0 || self.is_shared).then(|| self.channel.clone());
        (0..idle).map(|i| format!("{}_c{i}", self.channel)).chain(busy).collect()
    }

    /// The same as commands. The names are our own, and need no more than quotes.
    fn listen_commands(&self, session: usize) -> String {
        self.channels(session).iter().map(|channel| format!("LISTEN \"{channel}\";")).collect()
    }

    /// How often the end will be heard.
    fn ends(&self) -> usize {
        self.senders * if self.is_shared { self.sessions } else { 1 }
    }
}

/// The hidden subcommand.
pub(crate) fn run() -> std::result::Result<(), Failure> {
    // Whatever ends the process that measures, this one ends with it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(std::io::Error::from)?;
    let mut order = String::new();
    std::io::stdin().read_line(&mut order)?;
    let order: Order = serde_json::from_str(&order)
        .map_err(|_| Failure::Usage("this is for the inner use of `pgwake bench`".into()))?;
    let limit = getrlimit(Resource::Nofile);
    // With fewer descriptors than sessions it fails later, and says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let outcome = match (order.contender, &order.log) {
        (Contender::C, _) => run_c(&order),
        (Contender::Recvlogical, log) => {
            become_recvlogical(&order.conninfo, &log.clone().unwrap_or_default())
        }
        (Contender::Pgwake { .. }, Some(log)) => read_log(&order, log),
        (Contender::Pgwake { spin, spin_adaptive }, None) => {
            run_pgwake(&order, EventLoopOptions::new().spin(spin).spin_adaptive(spin_adaptive))
        }
    };
    match outcome {
        // It keeps the sessions until it is dismissed: their processes in the server may yet be looked at.
        Ok(()) => drop(std::io::stdin().read_to_end(&mut Vec::new())),
        Err(Error { message, sqlstate, .. }) => {
            answer(&Answer::Failed { message, sqlstate: sqlstate.map(|code| code.to_string()) })?;
        }
    }
    Ok(())
}

fn run_c(order: &Order) -> Result<()> {
    let mut c_loop = CLoop::new(order.count_max, order.ends(), order.takes_times);
    let (began_ns, mut first_bytes) = (clock::now_ns(), 0.0);
    for session in 0..order.sessions {
        c_loop.add(&order.conninfo, &order.listen_commands(session))?;
        if session == 0 {
            first_bytes = memory_bytes();
        }
    }
    let ready = ready(order, c_loop.backend_pid(), first_bytes, began_ns);
    answer(&ready)?;
    c_loop.run()?;
    let (count, first_ns, last_ns, cpu_ns) = c_loop.counted();
    answer(&Answer::Done { count, first_ns, last_ns, cpu_ns, times: c_loop.times().to_vec() })?;
    if order.listens_again {
        let took_ns = c_loop.listen_again(&order.listen_commands(0))?;
        answer(&Answer::ListensAgain { took_ns })?;
    }
    Ok(())
}

fn run_pgwake(order: &Order, options: EventLoopOptions) -> Result<()> {
    let mut events = EventLoop::with_options(options)?;
    let mut times: Vec<[i64; 2]> = vec![[1, 1]; if order.takes_times { order.count_max } else { 0 }];
    times.clear();
    let began_ns = clock::now_ns();
    let backend_pid = add(&mut events, order, 0..1)?;
    let first_bytes = memory_bytes();
    add(&mut events, order, 1..order.sessions)?;
    answer(&ready(order, backend_pid, first_bytes, began_ns))?;

    let cpu_before_ns = clock::cpu_ns();
    let (mut count, mut ends_left, mut first_ns, mut last_ns) = (0, order.ends(), 0, 0);
    while count < order.count_max && ends_left > 0 {
        // Without `?`, which moves the event: 30 instructions more for each.
        match events.next(None) {
            Ok(Some(Event::Notification(n))) if n.payload.first() == Some(&b'!') => ends_left -= 1,
            Ok(Some(Event::Notification(n))) => {
                last_ns = clock::now_ns();
                if count == 0 {
                    first_ns = last_ns;
                }
                if order.takes_times {
                    times.push([leading_number(&n.payload), last_ns]);
                }
                count += 1;
            }
            Ok(other) => is_no_loss(other)?,
            Err(error) => return Err(error),
        }
    }
    let cpu_ns = clock::cpu_ns() - cpu_before_ns;
    answer(&Answer::Done { count: count as u64, first_ns, last_ns, cpu_ns, times })?;
    if order.listens_again {
        let took_ns = listen_again(&mut events)?;
        answer(&Answer::ListensAgain { took_ns })?;
    }
    Ok(())
}

/// Reads changes until a table is emptied. Time and CPU are those of the whole process.
fn read_log(order: &Order, log: &Log) -> Result<()> {
    let began_ns = clock::now_ns();
    let streaming = match log.streaming {
        true if log.early => Streaming::Early,
        true => Streaming::On,
        false => Streaming::Off,
    };
    let options = StreamOptions::new()
        .publication(&log.publication)
        .binary(log.binary)
        .streaming(streaming)
        .messages(true);
    let options = log.slot.iter().fold(options, |options, slot| options.slot(slot));
    let mut events = EventLoop::new()?;
    events.stream(&order.conninfo, options)?;
    let (mut count, mut times) = (0, Vec::new());
    loop {
        match events.next(None) {
            Ok(Some(Event::Change(change))) if change.op == ChangeOp::Truncate => break,
            Ok(Some(Event::Change(change))) => {
                count += 1;
                if order.takes_times {
                    let number = change.key.and_then(|key| key.strip_prefix("{\"id\":")).unwrap_or_default();
                    times.push([leading_number(number.as_bytes()), clock::now_ns()]);
                }
            }
            Ok(Some(Event::Message(message))) => {
                count += 1;
                times.push([leading_number(message.payload), clock::now_ns()]);
            }
            Ok(Some(Event::Listening(listening))) => {
                answer(&ready(order, listening.backend_pid, 0.0, began_ns))?;
            }
            Ok(other) => is_no_loss(other)?,
            Err(error) => return Err(error),
        }
    }
    let (first_ns, last_ns, cpu_ns) = (began_ns, clock::now_ns(), clock::cpu_ns());
    Ok(answer(&Answer::Done { count, first_ns, last_ns, cpu_ns, times })?)
}

/// Comes back only when that is not possible. What the program complains of goes where our answers go.
fn become_recvlogical(conninfo: &str, log: &Log) -> Result<()> {
    let mut command = Command::new(&log.recvlogical);
    command.args(["-d", conninfo, "--start", "--no-loop", "-f", "/dev/null"]);
    command.args(["--slot", log.slot.as_deref().unwrap_or_default()]);
    command.args(log.end.iter().map(|end| format!("--endpos={end}")));
    command.args(["-o", &format!("publication_names={}", log.publication)]);
    let version = if log.streaming { "2" } else { "1" };
    command.args(["-o", &format!("proto_version={version}")]);
    command.args(log.streaming.then_some(["-o", "streaming=on"]).into_iter().flatten());
    command.args(log.binary.then_some(["-o", "binary=true"]).into_iter().flatten());
    command.stderr(Stdio::from(std::io::stdout()));
    answer(&Answer::Becomes { at_ns: clock::now_ns(), cpu_ns: clock::cpu_ns() })?;
    Err(command.exec().into())
}

/// Adds sessions, and waits until they listen. Gives the PID of the server's process for the first.
fn add(events: &mut EventLoop, order: &Order, sessions: std::ops::Range<usize>) -> Result<i32> {
    let (mut first, mut backend_pid, mut missing) = (None::<SessionId>, 0, sessions.len());
    for session in sessions {
        let id = events.connect(&order.conninfo)?;
        first.get_or_insert(id);
        for channel in order.channels(session) {
            events.listen(id, channel)?;
        }
    }
    while missing > 0 {
        match events.next(None)? {
            Some(Event::Listening(listening)) => {
                missing -= 1;
                if Some(listening.session) == first {
                    backend_pid = listening.backend_pid;
                }
            }
            other => is_no_loss(other)?,
        }
    }
    Ok(backend_pid)
}

/// The nanoseconds from the loss of a session until it listens again.
fn listen_again(events: &mut EventLoop) -> Result<i64> {
    let mut lost_ns = 0;
    loop {
        match events.next(None)? {
            Some(Event::Disconnected(_)) if lost_ns == 0 => lost_ns = clock::now_ns(),
            Some(Event::Gap(_)) => return Ok(clock::now_ns() - lost_ns),
            other => is_no_loss(other)?,
        }
    }
}

/// A measurement in which a session is lost is none.
fn is_no_loss(event: Option<Event<'_>>) -> Result<()> {
    let (message, sqlstate) = match event {
        Some(Event::Disconnected(lost)) => (lost.message, lost.sqlstate),
        Some(Event::Failed(failed)) => (failed.message, failed.sqlstate),
        Some(Event::CommandFailed(failed)) => (failed.message, failed.sqlstate),
        _ => return Ok(()),
    };
    let mut error = Error::from(std::io::Error::other(message));
    error.sqlstate = sqlstate;
    Err(error)
}

fn ready(order: &Order, backend_pid: i32, first_bytes: f64, began_ns: i64) -> Answer {
    let further = order.sessions.saturating_sub(1);
    let memory_bytes_each = (further > 0).then(|| (memory_bytes() - first_bytes) / further as f64);
    Answer::Ready { backend_pid, memory_bytes_each, connect_s: (clock::now_ns() - began_ns) as f64 / 1e9 }
}

fn answer(answer: &Answer) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// The decimal number at the start of a payload.
fn leading_number(payload: &[u8]) -> i64 {
    payload.iter().take_while(|b| b.is_ascii_digit()).fold(0, |n, b| n * 10 + i64::from(b - b'0'))
}

/// What of this process is in memory and its own (proc(5), `statm`: resident less shared pages).
fn memory_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Vec<f64> = statm.split(' ').filter_map(|pages| pages.trim().parse().ok()).collect();
    let own = pages.get(1).copied().unwrap_or(0.0) - pages.get(2).copied().unwrap_or(0.0);
    own * rustix::param::page_size() as f64
}
