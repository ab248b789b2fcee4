//! `pgwake bench latency`: one notification per interval, from when it was due until the program has it.

use super::super::Failure;
use super::arguments::Latency;
use super::child::Listening;
use super::lab::Lab;
use super::listener::{Contender, Order};
use super::report::{Latencies, Run};
use super::sender::{Pace, Sender};
use super::target::Transport;
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) fn run(lab: &mut Lab, arguments: &Latency) -> Result<(), Failure> {
    let pace =
        Pace { interval: arguments.interval(), count: arguments.count(), payload_bytes: arguments.payload };
    let parameters = [
        ("interval_us", (pace.interval.as_nanos() as f64 / 1e3).into()),
        ("count", pace.count.into()),
        ("payload_bytes", pace.payload_bytes.into()),
    ];
    lab.parameters.extend(parameters.map(|(name, value)| (name.to_string(), value)));
    let mut contenders = vec![Contender::C, Contender::PGWAKE];
    contenders.extend(arguments.spin.map(|spin| Contender::Pgwake { spin, spin_adaptive: 0.0 }));
    let adaptive = |spin_adaptive| Contender::Pgwake { spin: Duration::ZERO, spin_adaptive };
    contenders.extend(arguments.spin_adaptive.map(adaptive));
    for round in 0..lab.rounds {
        for transport in lab.target.transports.clone() {
            for contender in Lab::order(&contenders, round) {
                if !lab.goes_on(round, &format!("{}  {}", transport.name, contender.name())) {
                    return Ok(());
                }
                measure(lab, round, &transport, *contender, pace)?;
            }
        }
    }
    Ok(())
}

fn measure(
    lab: &mut Lab,
    round: usize,
    transport: &Transport,
    contender: Contender,
    pace: Pace,
) -> Result<(), Failure> {
    let order = Order {
        contender,
        conninfo: transport.conninfo.clone(),
        channel: lab.channel.clone(),
        count_max: pace.count + 1,
        takes_times: true,
        ..Order::default()
    };
    let listening = Listening::start(&order, &lab.stop)?;
    let mut sender = Sender::connect(&transport.conninfo, &lab.channel, &lab.stop)?;
    let sent = sender.paced(pace)?;
    lab.note_pace(&sender, pace);
    let heard = listening.heard(sent)?;
    let Some(latencies) = Latencies::of(&heard.times, lab.started_ns) else { return Ok(()) };
    let mut figures = BTreeMap::from(latencies.figures());
    figures.extend(heard.costs());
    lab.keep(Run {
        contender: contender.name(),
        transport: transport.name.to_string(),
        series: String::new(),
        step: 0,
        round,
        figures,
        latencies: Some(latencies),
    });
    Ok(())
}
