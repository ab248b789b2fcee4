//! `pgwake bench scale`: what further listeners, channels and sessions of one loop cost, step by step up to
//! the server's limit.

use super::super::Failure;
use super::arguments::{Dimension, Scale};
use super::child::{Heard, Listening};
use super::lab::Lab;
use super::listener::{Contender, Order};
use super::report::{Latencies, Run, median};
use super::sender::{Pace, Sender};
use super::target::Transport;
use std::collections::BTreeMap;
use std::time::Duration;

/// Descriptors that are left to the rest of the listener's process.
const SPARE_DESCRIPTORS: u64 = 64;

/// What a notification to one listener costs the server, roughly; notifications to many are sent no faster.
const PER_LISTENER: Duration = Duration::from_micros(60);

/// Of notifications to many listeners no more are taken, but [`COUNT_MIN`] are.
const TAKEN_MAX: usize = 50_000;
const COUNT_MIN: usize = 30;

/// One step of one dimension.
#[derive(Debug, Clone, Copy)]
struct Step {
    dimension: Dimension,
    number: usize,
    pace: Pace,
}

/// The median latency and the CPU of each contender at the first step of a round.
type Firsts = BTreeMap<(String, &'static str, String), (f64, f64)>;

pub(super) fn run(lab: &mut Lab, arguments: &Scale) -> Result<(), Failure> {
    let steps = steps(lab, arguments)?;
    let parameters =
        [("interval_us", (arguments.interval.as_micros() as u64).into()), ("count", arguments.count.into())];
    lab.parameters.extend(parameters.map(|(name, value)| (name.to_string(), value)));
    let contenders = [Contender::C, Contender::PGWAKE];
    for round in 0..lab.rounds {
        let mut firsts = Firsts::new();
        for transport in lab.target.transports.clone() {
            for step in &steps {
                for contender in Lab::order(&contenders, round) {
                    let what = format!("{} {}, {}", step.number, step.dimension.name(), contender.name());
                    if !lab.goes_on(round, &format!("{}  {what}", transport.name)) {
                        return Ok(());
                    }
                    measure(lab, round, &transport, *contender, *step, &mut firsts)?;
                }
            }
        }
    }
    Ok(())
}

impl Dimension {
    fn name(self) -> &'static str {
        match self {
            Dimension::Listeners => "listeners",
            Dimension::Channels => "channels",
            Dimension::Sessions => "sessions",
        }
    }
}

/// All steps of all dimensions, as far as the server and this system let us go.
fn steps(lab: &mut Lab, arguments: &Scale) -> Result<Vec<Step>, Failure> {
    let (sessions_max, limit) = sessions_max(lab)?;
    let mut steps = Vec::new();
    for &dimension in &arguments.of {
        let mut numbers: Vec<usize> = arguments.steps.iter().map(|number| *number as usize).collect();
        numbers.sort_unstable();
        if dimension != Dimension::Channels && numbers.iter().any(|number| *number > sessions_max) {
            lab.notes.push(format!("{} end at {sessions_max}: {limit}", dimension.name()));
            numbers.iter_mut().for_each(|number| *number = (*number).min(sessions_max));
        }
        numbers.dedup();
        steps.extend(numbers.into_iter().map(|number| Step::new(dimension, number, arguments)));
    }
    let is_as_asked = |step: &&Step| {
        (step.pace.interval, step.pace.count) == (arguments.interval, arguments.count as usize)
    };
    for Step { dimension, number, pace } in steps.iter().filter(|step| !is_as_asked(step)) {
        let (name, Pace { interval, count, .. }) = (dimension.name(), pace);
        lab.notes.push(format!("{number} {name}: {count} notifications, one per {interval:?}"));
    }
    Ok(steps)
}

impl Step {
    fn new(dimension: Dimension, number: usize, arguments: &Scale) -> Self {
        let mut pace =
            Pace { interval: arguments.interval, count: arguments.count as usize, payload_bytes: 64 };
        if dimension == Dimension::Listeners {
            pace.interval = pace.interval.max(PER_LISTENER * number as u32);
            pace.count = pace.count.min((TAKEN_MAX / number).max(COUNT_MIN));
        }
        Step { dimension, number, pace }
    }
}

/// How many sessions there can be, and what keeps us from more.
fn sessions_max(lab: &mut Lab) -> Result<(usize, String), Failure> {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let by_descriptors = descriptors.unwrap_or(u64::MAX).saturating_sub(SPARE_DESCRIPTORS) as usize;
    let (by_server, limit) = lab.target.room()?;
    Ok(match by_server <= by_descriptors {
        true => (by_server.max(1), format!("the server's {limit}, less what is in use")),
        false => (by_descriptors, "the limit of open files (ulimit -Hn)".into()),
    })
}

fn measure(
    lab: &mut Lab,
    round: usize,
    transport: &Transport,
    contender: Contender,
    step: Step,
    firsts: &mut Firsts,
) -> Result<(), Failure> {
    let sessions = if step.dimension == Dimension::Channels { 1 } else { step.number };
    let is_shared = step.dimension == Dimension::Listeners;
    let order = Order {
        contender,
        conninfo: transport.conninfo.clone(),
        channel: lab.channel.clone(),
        sessions,
        is_shared,
        idle_channels: if step.dimension == Dimension::Channels { step.number - 1 } else { 0 },
        count_max: step.pace.count * if is_shared { sessions } else { 1 } + 1,
        takes_times: true,
        listens_again: step.dimension == Dimension::Channels,
        ..Order::default()
    };
    lab.target.wait_for_room(sessions, &lab.stop)?;
    let listening = Listening::start(&order, &lab.stop)?;
    let mut sender = Sender::connect(&transport.conninfo, &lab.channel, &lab.stop)?;
    let sent = sender.paced(step.pace)?;
    lab.note_pace(&sender, step.pace);
    let heard = listening.heard(if is_shared { sent * sessions } else { sent })?;
    let Some(latencies) = Latencies::of(&heard.times, lab.started_ns) else { return Ok(()) };
    let mut figures = heard.costs();
    figures.extend(latencies.figures());
    let own = (figures["p50_us"], figures["cpu_ns_each"]);
    let first =
        firsts.entry((transport.name.to_string(), step.dimension.name(), contender.name())).or_insert(own);
    figures.extend([("p50_to_first", own.0 / first.0), ("cpu_to_first", own.1 / first.1)]);
    figures.extend(listening.memory_bytes_each.map(|bytes| ("memory_kb_each", bytes / 1024.0)));
    figures.insert("connect_ms", listening.connect_s * 1e3);
    if is_shared && sessions > 1 {
        figures.extend(last_p50_us(&heard).map(|us| ("last_p50_us", us)));
    }
    if order.listens_again && end_session(lab, listening.backend_pid)? {
        figures.insert("listen_again_ms", listening.listens_again_s()? * 1e3);
    }
    lab.keep(Run {
        contender: contender.name(),
        transport: transport.name.to_string(),
        series: step.dimension.name().into(),
        step: step.number as u64,
        round,
        figures,
        latencies: Some(latencies),
    });
    Ok(())
}

/// The median of the time until the last of many listeners had a notification.
fn last_p50_us(heard: &Heard) -> Option<f64> {
    let mut last_taken_ns = BTreeMap::new();
    for [due_ns, taken_ns] in &heard.times {
        let last = last_taken_ns.entry(due_ns).or_insert(*taken_ns);
        *last = (*last).max(*taken_ns);
    }
    let latencies_us = last_taken_ns.iter().map(|(due_ns, taken_ns)| (*taken_ns - **due_ns) as f64 / 1e3);
    median(&latencies_us.collect::<Vec<_>>())
}

/// Ends a session of ours from the side of the server, where we may.
fn end_session(lab: &mut Lab, pid: i32) -> Result<bool, Failure> {
    match lab.target.value(&format!("SELECT pg_terminate_backend({pid})")) {
        Ok(ended) => Ok(ended == "t"),
        Err(error) => {
            let note =
                format!("left out: the time to listen again, for a session may not be ended here ({error})");
            if !lab.notes.contains(&note) {
                lab.notes.push(note);
            }
            Ok(false)
        }
    }
}
