//! `pgwake bench throughput`: as many notifications as there can be, by size of payload, in one transaction
//! or each in its own.

use super::super::stop::Stop;
use super::super::{Failure, code};
use super::arguments::{Throughput, Transactions};
use super::child::Listening;
use super::clock;
use super::lab::{Case, Found, Lab};
use super::listener::{Contender, Order};
use super::sender::Sender;
use pgwake::Error;
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
    lab.add_parameters([
        ("senders", arguments.senders.into()),
        ("count", arguments.count.into()),
        ("duration_s", arguments.duration.as_secs_f64().into()),
    ]);
    lab.in_rounds(&floods, &Contender::BOTH.map(Contender::named), |lab, trial, flood, contender| {
        let order = Order { senders: flood.senders, ..lab.order(trial, *contender) };
        let mut listening = Listening::start(&order, &lab.stop)?;
        let sent = flood.send(&trial.conninfo, &lab.channel, &lab.stop)?;
        let heard = listening.heard(sent)?;
        if heard.count < 2 {
            lab.note("left out: a single notification, which has no rate".into());
            return Ok(None);
        }
        let per_s = (heard.count - 1) as f64 / heard.wall_s;
        let mut figures = heard.costs();
        figures.extend([("per_s", per_s), ("mb_per_s", per_s * flood.payload_bytes as f64 / 1e6)]);
        Ok(Some(Found { figures, latencies: None }))
    })
}

/// Everything that was asked for and can be.
fn floods(lab: &mut Lab, arguments: &Throughput) -> Vec<Case<Flood>> {
    let (asked, senders) = (arguments.count as usize, usize::from(arguments.senders));
    let mut floods = Vec::new();
    let mut add = |transactions, payload_bytes: usize, count| {
        let series = match transactions {
            Transactions::One => "one transaction",
            Transactions::Many => "many transactions",
        };
        let load = Flood { payload_bytes, transactions, count, duration: arguments.duration, senders };
        floods.push(Case { series: series.into(), step: payload_bytes as u64, load });
    };
    for &transactions in &arguments.transactions {
        for payload_bytes in arguments.payloads.iter().map(|bytes| usize::from(*bytes)) {
            if transactions == Transactions::Many {
                add(transactions, payload_bytes, asked);
                continue;
            }
            // Within a transaction equal notifications fold, so each payload must be another number.
            let numbers = 10usize.checked_pow(payload_bytes as u32).map_or(usize::MAX, |numbers| numbers - 1);
            let count = asked.min(TRANSACTION_BYTES_MAX / payload_bytes.max(1)).min(numbers);
            let why = if count == numbers { "for equal ones fold into one" } else { "64 MB at most" };
            match count {
                0 => lab.note(
                    "left out: empty payloads in one transaction, which the server folds into one".into(),
                ),
                count if count < asked => {
                    lab.note(format!("one transaction, {payload_bytes} bytes: {count} notifications, {why}"))
                }
                _ => {}
            }
            if count > 0 {
                add(transactions, payload_bytes, count);
            }
        }
    }
    floods
}

impl Flood {
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
    match code(&error) {
        Some("42501") => Failure::Running(format!(
            "{error}; grant EXECUTE on it, or ask for --transactions many, which does without"
        )),
        _ => error.into(),
    }
}
