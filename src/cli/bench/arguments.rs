//! What may be typed after `pgwake bench`.

use super::super::values::{duration, share};
use clap::builder::RangedI64ValueParser;
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

/// A word as it is typed.
pub(super) fn name(word: impl ValueEnum) -> String {
    word.to_possible_value().map_or(String::new(), |word| word.get_name().into())
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
    #[arg(long, value_name = "N", default_value = "2000", value_parser = count())]
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
    #[arg(long, value_name = "N", default_value = "100000", value_parser = count())]
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
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,10,100,1000,10000",
        value_parser = count())]
    pub(crate) steps: Vec<u32>,

    /// The time between two notifications, 10us or more
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "2ms")]
    pub(crate) interval: Duration,

    /// Notifications in each run
    #[arg(long, value_name = "N", default_value = "300", value_parser = count())]
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
        default_value = "many,one,streaming,early,binary,latency"
    )]
    pub(crate) series: Vec<Series>,

    /// Transactions of one row each
    #[arg(long, value_name = "N", default_value = "200000", value_parser = count())]
    pub(crate) transactions: u32,

    /// Rows of the one transaction
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = count())]
    pub(crate) rows: u32,

    /// For the latency: the time between two rows, 10us or more
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "1ms")]
    pub(crate) interval: Duration,

    /// For the latency: rows in each run
    #[arg(long, value_name = "N", default_value = "2000", value_parser = count())]
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
    /// The same, and pgwake delivers it while it runs, as pg_recvlogical does in any case
    Early,
    /// One large transaction, its values in the binary format
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

fn count() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=10_000_000)
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
