//! `pgwake bench latency`: one notification per interval, from when it was due until the program has it.

use super::super::Failure;
use super::arguments::Latency;
use super::child::{Heard, Listening};
use super::lab::{Case, Found, Lab};
use super::listener::{Contender, Order};
use super::report::Latencies;
use super::sender::{Pace, Sender};
use std::time::Duration;

pub(super) fn run(lab: &mut Lab, arguments: &Latency) -> Result<(), Failure> {
    let (interval, count) = (arguments.interval, arguments.count as usize);
    let pace = Pace { interval, count, payload_bytes: arguments.payload.into() };
    lab.add_parameters([
        ("interval_us", (pace.interval.as_nanos() as f64 / 1e3).into()),
        ("count", pace.count.into()),
        ("payload_bytes", pace.payload_bytes.into()),
    ]);
    let spinning = arguments.spin.map(|spin| Contender::Pgwake { spin, spin_adaptive: 0.0 });
    let adaptive = |spin_adaptive| Contender::Pgwake { spin: Duration::ZERO, spin_adaptive };
    let adaptive = arguments.spin_adaptive.map(adaptive);
    let contenders = Contender::BOTH.into_iter().chain(spinning).chain(adaptive);
    let contenders: Vec<_> = contenders.map(Contender::named).collect();
    let case = Case { series: String::new(), step: 0, load: pace };
    lab.in_rounds(&[case], &contenders, |lab, trial, pace, contender| {
        Ok(paced(lab, lab.order(trial, *contender), *pace)?.map(|(_, _, found)| found))
    })
}

/// Lets a listener hear notifications at this pace, and takes the time of each. `None` when nothing came
/// before a signal did.
pub(super) fn paced(
    lab: &mut Lab,
    order: Order,
    pace: Pace,
) -> Result<Option<(Listening, Heard, Found)>, Failure> {
    let hearers = if order.is_shared { order.sessions } else { 1 };
    let order = Order { takes_times: true, count_max: pace.count * hearers + 1, ..order };
    let mut listening = Listening::start(&order, &lab.stop)?;
    let mut sender = Sender::connect(&order.conninfo, &lab.channel, &lab.stop)?;
    let sent = sender.paced(pace)?;
    lab.note_pace(&sender, pace);
    let heard = listening.heard(sent * hearers)?;
    let Some(latencies) = Latencies::of(&heard.times, lab.started_ns) else { return Ok(None) };
    let mut figures = heard.costs();
    figures.extend(latencies.figures);
    Ok(Some((listening, heard, Found { figures, latencies: Some(latencies) })))
}
