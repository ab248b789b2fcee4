//! What may be typed after `pgwake bench`.

use super::super::Failure;
use super::super::values::{duration, share};
use clap::{Args, Subcommand, ValueEnum};
use pgwake::PAYLOAD_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Bench {
    /// One notification per interval: how long each takes from its due time to the program
    Latency(Latency),
    /// As many notifications as there can be: their rate and their cost, by size of payload
    Throughput(Throughput),
    /// What further listeners, channels and sessions of one loop cost
    Scale(Scale),
    /// What watching a table costs its writers: the rates of statements with and without triggers
    Writers(Writers),
    /// How fast the log is read, beside pg_recvlogical, and how soon a row is there, beside NOTIFY
    Stream(Stream),
    /// Two reports side by side: what differs by more than the noise between rounds
    Compare(Compare),
    #[command(hide = true)]
    Listener,
}

/// With more no difference is seen that these do not show, and the comparison takes its time.
pub(super) const ROUNDS_MAX: u8 = 20;

impl Bench {
    /// The same without what would be measured twice, and compared with the wrong run of its round.
    /// Refused is what cannot be measured.
    pub(crate) fn checked(&self) -> Result<Self, Failure> {
        let mut bench = self.clone();
        bench.common().into_iter().for_each(|common| once(&mut common.transport));
        match &mut bench {
            Bench::Latency(latency) => {
                // Nought is pgwake as it always is, which is measured anyway.
                latency.spin = latency.spin.filter(|spin| !spin.is_zero());
                latency.spin_adaptive = latency.spin_adaptive.filter(|share| *share > 0.0);
            }
            Bench::Throughput(throughput) => {
                once(&mut throughput.transactions);
                sorted(&mut throughput.payloads);
                let has_one = throughput.transactions.contains(&Transactions::One);
                if has_one && throughput.count == 1 && throughput.senders == 1 {
                    let reason = "one notification has no rate: raise --count or --senders";
                    return Err(Failure::Usage(reason.into()));
                }
                if throughput.payloads == [0] && throughput.transactions == [Transactions::One] {
                    let reason = "the server folds the empty payloads of one transaction into one: ask for \
                                  --payloads with bytes, or for --transactions many";
                    return Err(Failure::Usage(reason.into()));
                }
            }
            Bench::Scale(scale) => {
                once(&mut scale.of);
                sorted(&mut scale.steps);
            }
            Bench::Writers(writers) => {
                once(&mut writers.only);
                sorted(&mut writers.clients);
                sorted(&mut writers.rows);
            }
            Bench::Stream(stream) => once(&mut stream.series),
            Bench::Compare(_) | Bench::Listener => {}
        }
        Ok(bench)
    }

    fn common(&mut self) -> Option<&mut Common> {
        match self {
            Bench::Latency(latency) => Some(&mut latency.common),
            Bench::Throughput(throughput) => Some(&mut throughput.common),
            Bench::Scale(scale) => Some(&mut scale.common),
            Bench::Writers(writers) => Some(&mut writers.common),
            Bench::Stream(stream) => Some(&mut stream.common),
            Bench::Compare(_) | Bench::Listener => None,
        }
    }
}

/// A word as it is typed.
pub(super) fn name(word: impl ValueEnum) -> String {
    word.to_possible_value().map_or(String::new(), |word| word.get_name().into())
}

/// Leaves each word where it stands first.
fn once<T: PartialEq + Copy>(words: &mut Vec<T>) {
    let mut seen: Vec<T> = Vec::new();
    words.retain(|word| {
        let is_new = !seen.contains(word);
        seen.push(*word);
        is_new
    });
}

fn sorted<T: Ord>(numbers: &mut Vec<T>) {
    numbers.sort_unstable();
    numbers.dedup();
}

/// What every measurement takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Runs of each program, in alternation, 1 to 20: what counts are the ratios within a round
    #[arg(
        long, value_name = "N", default_value = "5",
        value_parser = clap::value_parser!(u8).range(1..=i64::from(ROUNDS_MAX))
    )]
    pub(crate) rounds: u8,

    /// Ways to the server, where it can be reached by them: unix,tcp,tls. Without it, the way that -d says.
    /// With --private, tls needs the program openssl
    #[arg(long, value_name = "WAYS", value_delimiter = ',', value_enum)]
    pub(crate) transport: Vec<TransportName>,

    /// Measure a private throw-away server instead of the one that -d names
    #[arg(long)]
    pub(crate) private: bool,

    /// Write the report as JSON, too (benches/README.md describes it); -f json prints it instead of the table
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Write the report as one self-contained page with plots
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TransportName {
    /// The server's socket in the file system
    Unix,
    /// TCP, not encrypted
    Tcp,
    /// TCP, encrypted
    Tls,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Latency {
    #[command(flatten)]
    pub(crate) common: Common,

    /// The time between two notifications, 10us or more
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "1ms")]
    pub(crate) interval: Duration,

    /// Notifications in each run
    #[arg(
        long, value_name = "N", default_value = "2000",
        value_parser = clap::value_parser!(u32).range(1..=10_000_000)
    )]
    pub(crate) count: u32,

    /// Bytes of each payload, the time in it included: 20 to 7999
    #[arg(
        long, value_name = "BYTES", default_value = "64",
        value_parser = clap::value_parser!(u16).range(TIME_BYTES..=PAYLOAD_BYTES_MAX as i64)
    )]
    pub(crate) payload: u16,

    /// Also measure pgwake polling for so long after each event before it sleeps
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) spin: Option<Duration>,

    /// Also measure pgwake polling while notifications come soon after each other, for at most this share of
    /// a core's time
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) spin_adaptive: Option<f64>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Throughput {
    #[command(flatten)]
    pub(crate) common: Common,

    /// Sizes of payloads in bytes, each 0 to 7999
    #[arg(
        long, value_name = "BYTES,…", value_delimiter = ',', default_value = "0,64,512,4096,7999",
        value_parser = clap::value_parser!(u16).range(..=PAYLOAD_BYTES_MAX as i64)
    )]
    pub(crate) payloads: Vec<u16>,

    /// All notifications of a run in one transaction, or each in one of its own
    #[arg(long, value_name = "WHICH", value_delimiter = ',', value_enum, default_value = "one,many")]
    pub(crate) transactions: Vec<Transactions>,

    /// Sessions that notify at once, 1 to 64
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) senders: u16,

    /// Notifications in a run of one transaction; fewer where the payloads would have more than 64 MB
    #[arg(
        long, value_name = "N", default_value = "100000",
        value_parser = clap::value_parser!(u32).range(1..=10_000_000)
    )]
    pub(crate) count: u32,

    /// How long a run of many transactions takes, 1ms or more
    #[arg(long = "for", value_name = "DURATION", value_parser = some_time, default_value = "1s")]
    pub(crate) duration: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transactions {
    /// Delivered when it commits, all at once
    One,
    /// As fast as the server commits them
    Many,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Scale {
    #[command(flatten)]
    pub(crate) common: Common,

    /// What is increased: listeners of the busy channel, idle channels of its session, idle sessions beside
    /// it
    #[arg(
        long,
        value_name = "WHICH",
        value_delimiter = ',',
        value_enum,
        default_value = "listeners,channels,sessions"
    )]
    pub(crate) of: Vec<Dimension>,

    /// How many there are; steps beyond the limit of the server end at it
    #[arg(
        long, value_name = "N,…", value_delimiter = ',', default_value = "1,10,100,1000,10000",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub(crate) steps: Vec<u32>,

    /// The time between two notifications, 10us or more
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "2ms")]
    pub(crate) interval: Duration,

    /// Notifications in each run
    #[arg(
        long, value_name = "N", default_value = "300",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub(crate) count: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dimension {
    /// Sessions of one loop that listen on one channel
    Listeners,
    /// Channels of one session
    Channels,
    /// Idle sessions beside a busy one in one loop
    Sessions,
}

/// Each table's, so that statements of up to this many rows hit different ones.
pub(super) const TABLE_ROWS: u32 = 10_000;

/// How a table is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Variant {
    /// Not at all: what the others are compared with
    None,
    /// By the trigger that everybody writes first: pg_notify of each row as JSON
    Naive,
    /// By `pgwake watch`
    Outbox,
    /// By the transport of that name: one notification per row
    Notify,
    /// By a durable message of each row as JSON (pg_logical_emit_message)
    Publish,
    /// By pgwake reading the log, which needs wal_level = logical
    Wal,
    /// By pg_recvlogical reading the log to /dev/null
    Recvlogical,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Writers {
    #[command(flatten)]
    pub(crate) common: Common,

    /// Sessions that write at once, each number 1 to 1000; more than the server has room for are left out
    #[arg(
        long, value_name = "N,…", value_delimiter = ',', default_value = "1,8,32",
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    pub(crate) clients: Vec<u16>,

    /// Rows that each statement changes
    #[arg(
        long, value_name = "N,…", value_delimiter = ',', default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(TABLE_ROWS))
    )]
    pub(crate) rows: Vec<u32>,

    /// How long each run takes, 0.01 to 3600
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub(crate) seconds: f64,

    /// Make each commit of a --private server last longer, as a disk does; it needs a C compiler named cc
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) commit_delay: Option<Duration>,

    /// Only these, and `none`, which all are compared with
    #[arg(long, value_name = "VARIANT,…", value_delimiter = ',', value_enum)]
    pub(crate) only: Vec<Variant>,
}

impl Writers {
    fn has(&self, variant: Variant) -> bool {
        variant == Variant::None || self.only.is_empty() || self.only.contains(&variant)
    }

    /// The first is what the others are compared with.
    pub(crate) fn variants(&self) -> Vec<Variant> {
        Variant::value_variants().iter().copied().filter(|variant| self.has(*variant)).collect()
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Stream {
    #[command(flatten)]
    pub(crate) common: Common,

    /// What is read
    #[arg(
        long,
        value_name = "WHICH",
        value_delimiter = ',',
        value_enum,
        default_value = "many,one,streaming,binary,latency"
    )]
    pub(crate) series: Vec<Series>,

    /// Transactions of one row each
    #[arg(
        long, value_name = "N", default_value = "200000",
        value_parser = clap::value_parser!(u32).range(1..=10_000_000)
    )]
    pub(crate) transactions: u32,

    /// Rows of the one transaction
    #[arg(
        long, value_name = "N", default_value = "1000000",
        value_parser = clap::value_parser!(u32).range(1..=10_000_000)
    )]
    pub(crate) rows: u32,

    /// For the latency: the time between two rows, 10us or more
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "1ms")]
    pub(crate) interval: Duration,

    /// For the latency: rows in each run
    #[arg(
        long, value_name = "N", default_value = "2000",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub(crate) count: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Series {
    /// Transactions of one row
    Many,
    /// One large transaction
    One,
    /// The same, sent while it runs: the server does so when it is larger than logical_decoding_work_mem
    Streaming,
    /// The same, its values in the binary format
    Binary,
    /// From the answer to a commit until its row, or its notification, is there. It is negative where the
    /// reader had it before the writer had the answer
    Latency,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Compare {
    /// The report to compare with, as --json wrote it
    #[arg(value_name = "A.json")]
    pub(crate) before: PathBuf,

    /// The report to compare
    #[arg(value_name = "B.json")]
    pub(crate) after: PathBuf,
}

/// The time in a payload takes that many bytes, with the blank behind it.
const TIME_BYTES: i64 = 20;

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "take a number of seconds, from 0.01 to 3600".into())
}

/// A time that is not over before it began.
fn some_time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    match time < Duration::from_millis(1) {
        true => Err("nothing is measured in less than 1ms: take longer".into()),
        false => Ok(time),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    match interval < Duration::from_micros(10) {
        true => Err("10us are the shortest interval that one sender can keep".into()),
        false => Ok(interval),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::arguments::{Arguments, Subcommand};
    use super::*;
    use clap::Parser;

    fn checked(line: &str) -> Result<Bench, Failure> {
        let typed =
            Arguments::try_parse_from(["pgwake", "bench"].into_iter().chain(line.split(' '))).unwrap();
        let Subcommand::Bench(bench) = typed.command else { panic!("{line}") };
        bench.checked()
    }

    #[test]
    fn nothing_is_measured_twice() {
        let Ok(Bench::Latency(latency)) =
            checked("latency --spin 0s --spin-adaptive 0 --transport tcp,unix,tcp")
        else {
            panic!("it is refused")
        };
        assert_eq!((latency.spin, latency.spin_adaptive), (None, None));
        assert_eq!(latency.common.transport, [TransportName::Tcp, TransportName::Unix]);
        let Ok(Bench::Throughput(throughput)) =
            checked("throughput --payloads 7999,64,64 --transactions one,one")
        else {
            panic!("it is refused")
        };
        assert_eq!((throughput.payloads, throughput.transactions), (vec![64, 7999], vec![Transactions::One]));
        let Ok(Bench::Scale(scale)) = checked("scale --of channels,channels --steps 10,1,10") else {
            panic!("it is refused")
        };
        assert_eq!((scale.of, scale.steps), (vec![Dimension::Channels], vec![1, 10]));
        let Ok(Bench::Writers(writers)) = checked("writers --clients 4,1,4 --rows 1,1 --only notify,notify")
        else {
            panic!("it is refused")
        };
        assert_eq!(
            (writers.clients, writers.rows, writers.only),
            (vec![1, 4], vec![1], vec![Variant::Notify])
        );
    }

    #[test]
    fn what_has_no_figures_is_refused() {
        for futile in ["throughput --payloads 0 --transactions one", "throughput --count 1"] {
            assert!(matches!(checked(futile), Err(Failure::Usage(_))), "{futile}");
        }
        assert!(checked("throughput --count 1 --senders 2").is_ok());
        let typed = ["pgwake", "bench", "throughput", "--for", "0s"];
        assert!(Arguments::try_parse_from(typed).is_err());
    }
}
