//! `pgwake bench scale`: what further listeners, channels and sessions of one loop cost, step by step up to
//! the server's limit.

use super::super::Failure;
use super::arguments::{Dimension, Scale, name};
use super::child::Heard;
use super::lab::{Case, Found, Lab, Trial};
use super::latency::paced;
use super::listener::{Contender, Order};
use super::report::median;
use super::sender::Pace;
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

pub(super) fn run(lab: &mut Lab, arguments: &Scale) -> Result<(), Failure> {
    let steps = steps(lab, arguments)?;
    lab.add_parameters([
        ("interval_us", (arguments.interval.as_micros() as u64).into()),
        ("count", arguments.count.into()),
    ]);
    lab.in_rounds(&steps, &Contender::BOTH.map(Contender::named), |lab, trial, step, contender| {
        measure(lab, trial, *step, *contender)
    })
}

/// All steps of all dimensions, as far as the server and this system let us go.
fn steps(lab: &mut Lab, arguments: &Scale) -> Result<Vec<Case<Step>>, Failure> {
    let (sessions_max, limit) = sessions_max(lab)?;
    let (interval, count) = (arguments.interval, arguments.count as usize);
    let mut steps = Vec::new();
    for &dimension in &arguments.of {
        let (name, is_channels) = (name(dimension), dimension == Dimension::Channels);
        let most = if is_channels { usize::MAX } else { sessions_max };
        for number in arguments.steps.iter().map(|number| *number as usize) {
            if number > most {
                lab.note(format!("{name} end at {sessions_max}: {limit}"));
            }
            let number = number.min(most);
            let mut pace = Pace { interval, count, payload_bytes: 64 };
            if dimension == Dimension::Listeners {
                pace.interval = interval.max(PER_LISTENER * number as u32);
                pace.count = count.min((TAKEN_MAX / number).max(COUNT_MIN));
            }
            if (pace.interval, pace.count) != (interval, count) {
                let Pace { interval, count, .. } = pace;
                lab.note(format!("{number} {name}: {count} notifications, one per {interval:?}"));
            }
            let load = Step { dimension, number, pace };
            steps.push(Case { series: name.clone(), step: number as u64, load });
        }
    }
    Ok(steps)
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
    trial: &Trial,
    Step { dimension, number, pace }: Step,
    contender: Contender,
) -> Result<Option<Found>, Failure> {
    let (sessions, channels) = if dimension == Dimension::Channels { (1, number) } else { (number, 1) };
    let order = Order {
        sessions,
        is_shared: dimension == Dimension::Listeners,
        idle_channels: channels - 1,
        listens_again: dimension == Dimension::Channels,
        ..lab.order(trial, contender)
    };
    lab.target.wait_for_room(sessions, &lab.stop)?;
    let Some((mut listening, heard, mut found)) = paced(lab, order, pace)? else { return Ok(None) };
    let figures = &mut found.figures;
    let first = lab.first_of(trial).map_or(&*figures, |run| &run.figures);
    let to_first = |name| figures[name] / first[name];
    let to_first = [("p50_to_first", to_first("p50_us")), ("cpu_to_first", to_first("cpu_ns_each"))];
    figures.extend(to_first);
    figures.extend(listening.memory_bytes_each.map(|bytes| ("memory_kb_each", bytes / 1024.0)));
    figures.insert("connect_ms", listening.connect_s * 1e3);
    if dimension == Dimension::Listeners && sessions > 1 {
        figures.extend(last_p50_us(&heard).map(|us| ("last_p50_us", us)));
    }
    if dimension == Dimension::Channels && end_session(lab, listening.backend_pid)? {
        figures.insert("listen_again_ms", listening.listens_again_s()? * 1e3);
    }
    Ok(Some(found))
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
            lab.note(format!(
                "left out: the time to listen again, for a session may not be ended here ({error})"
            ));
            Ok(false)
        }
    }
}
