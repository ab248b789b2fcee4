//! `pgwake bench throughput`: as many notifications as there can be, by size of payload, in one transaction
//! or each in its own.

use super::super::Failure;
use super::super::stop::Stop;
use super::arguments::{Throughput, Transactions};
use super::child::Listening;
use super::clock;
use super::lab::Lab;
use super::listener::{Contender, Order};
use super::report::Run;
use super::sender::Sender;
use super::target::Transport;
use pgwake::{Error, SqlState};
use std::time::Duration;

/// The payloads of one transaction have no more: the server's queue is on its disk.
const TRANSACTION_BYTES_MAX: usize = 64 << 20;

/// What one run floods a listener with.
#[derive(Debug, Clone, Copy)]
struct Flood {
    payload_bytes: usize,
    transactions: Transactions,
    /// Of one transaction.
    count: usize,
    /// Of many transactions.
    duration: Duration,
    senders: usize,
}

pub(super) fn run(lab: &mut Lab, arguments: &Throughput) -> Result<(), Failure> {
    let floods = floods(lab, arguments);
    let parameters = [
        ("senders", arguments.senders.into()),
        ("count", arguments.count.into()),
        ("duration_s", arguments.duration.as_secs_f64().into()),
    ];
    lab.parameters.extend(parameters.map(|(name, value)| (name.to_string(), value)));
    let contenders = [Contender::C, Contender::PGWAKE];
    for round in 0..lab.rounds {
        for transport in lab.target.transports.clone() {
            for flood in &floods {
                for contender in Lab::order(&contenders, round) {
                    let what =
                        format!("{}, {} bytes, {}", flood.series(), flood.payload_bytes, contender.name());
                    if !lab.goes_on(round, &format!("{}  {what}", transport.name)) {
                        return Ok(());
                    }
                    measure(lab, round, &transport, *contender, *flood)?;
                }
            }
        }
    }
    Ok(())
}

/// Everything that was asked for and can be.
fn floods(lab: &mut Lab, arguments: &Throughput) -> Vec<Flood> {
    let mut floods = Vec::new();
    for &transactions in &arguments.transactions {
        for &payload_bytes in &arguments.payloads {
            // Within a transaction equal notifications fold, so each payload must be another number.
            let numbers = 10usize.checked_pow(payload_bytes as u32).map_or(usize::MAX, |numbers| numbers - 1);
            let count =
                (arguments.count as usize).min(TRANSACTION_BYTES_MAX / payload_bytes.max(1)).min(numbers);
            if transactions == Transactions::One && count == 0 {
                lab.notes.push(
                    "left out: empty payloads in one transaction, which the server folds into one".into(),
                );
                continue;
            }
            if transactions == Transactions::One && count < arguments.count as usize {
                let why = if count == numbers { "for equal ones fold into one" } else { "64 MB at most" };
                let note = format!("one transaction, {payload_bytes} bytes: {count} notifications, {why}");
                lab.notes.push(note);
            }
            let (duration, senders) = (arguments.duration, usize::from(arguments.senders));
            floods.push(Flood { payload_bytes, transactions, count, duration, senders });
        }
    }
    floods
}

impl Flood {
    fn series(&self) -> &'static str {
        match self.transactions {
            Transactions::One => "one transaction",
            Transactions::Many => "many transactions",
        }
    }

    /// Sends it, with all senders at once. Gives the number of notifications.
    fn send(&self, conninfo: &str, channel: &str, stop: &Stop) -> Result<usize, Failure> {
        let connect = |_| Sender::connect(conninfo, channel, stop);
        let mut senders = (0..self.senders).map(connect).collect::<Result<Vec<_>, _>>()?;
        let until_ns = clock::now_ns() + self.duration.as_nanos() as i64;
        let send = |sender: &mut Sender| match self.transactions {
            Transactions::One => sender.flood_at_once(self.payload_bytes, self.count).map(|()| self.count),
            Transactions::Many => sender.flood(self.payload_bytes, until_ns),
        };
        let sent: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = senders.iter_mut().map(|sender| scope.spawn(|| send(sender))).collect();
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        let broken = |_| Failure::Running("a sender broke down".into());
        sent.into_iter().map(|sent| sent.map_err(broken)?.map_err(refused)).sum()
    }
}

fn refused(error: Error) -> Failure {
    match error.sqlstate.as_ref().map(SqlState::as_str) {
        Some("42501") => Failure::Running(format!(
            "{error}; grant EXECUTE on it, or ask for --transactions many, which does without"
        )),
        _ => error.into(),
    }
}

fn measure(
    lab: &mut Lab,
    round: usize,
    transport: &Transport,
    contender: Contender,
    flood: Flood,
) -> Result<(), Failure> {
    let order = Order {
        contender,
        conninfo: transport.conninfo.clone(),
        channel: lab.channel.clone(),
        senders: flood.senders,
        ..Order::default()
    };
    let listening = Listening::start(&order, &lab.stop)?;
    let sent = flood.send(&transport.conninfo, &lab.channel, &lab.stop)?;
    let heard = listening.heard(sent)?;
    if heard.count < 2 {
        return Ok(());
    }
    let per_s = (heard.count - 1) as f64 / heard.wall_s;
    let mut figures = heard.costs();
    figures.extend([("per_s", per_s), ("mb_per_s", per_s * flood.payload_bytes as f64 / 1e6)]);
    lab.keep(Run {
        contender: contender.name(),
        transport: transport.name.to_string(),
        series: flood.series().into(),
        step: flood.payload_bytes as u64,
        round,
        figures,
        latencies: None,
    });
    Ok(())
}
