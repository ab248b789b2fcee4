//! What may be typed after `pgwake bench`.

use super::super::arguments::{duration, share};
use super::variants::{TABLE_ROWS, Variant};
use clap::{Args, Subcommand, ValueEnum};
use pgwake::PAYLOAD_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// One notification per interval: how long each takes from its due time to the program
    Latency(Latency),
    /// As many notifications as there can be: their rate and their cost, by size of payload
    Throughput(Throughput),
    /// What further listeners, channels and sessions of one loop cost
    Scale(Scale),
    /// What watching a table costs its writers: the rates of statements with and without triggers
    Writers(Writers),
    /// Two reports side by side: what differs by more than the noise between rounds
    Compare(Compare),
    #[command(hide = true)]
    Listener,
}

/// What every measurement takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Runs of each program, in alternation: what counts are the ratios within a round
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: u16,

    /// Ways to the server, where it can be reached by them: unix,tcp,tls. Without it, the way that -d says
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

impl fmt::Display for TransportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TransportName::Unix => "unix",
            TransportName::Tcp => "tcp",
            TransportName::Tls => "tls",
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct Latency {
    #[command(flatten)]
    pub(crate) common: Common,

    /// The time between two notifications
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "1ms")]
    pub(crate) interval: Duration,

    /// The same as notifications per second
    #[arg(
        long, value_name = "N", conflicts_with = "interval",
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub(crate) rate: Option<u32>,

    /// Notifications in each run
    #[arg(
        long, value_name = "N", default_value = "2000",
        value_parser = clap::value_parser!(u32).range(1..=10_000_000)
    )]
    pub(crate) count: u32,

    /// How long each run takes, instead of a count
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, conflicts_with = "count")]
    pub(crate) duration: Option<Duration>,

    /// Bytes of each payload, the time in it included
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = payload_with_time)]
    pub(crate) payload: usize,

    /// Also measure pgwake polling for so long after each event before it sleeps
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) spin: Option<Duration>,

    /// Also measure pgwake polling while notifications come soon after each other, for at most this share of
    /// a core's time
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) spin_adaptive: Option<f64>,
}

impl Latency {
    pub(crate) fn interval(&self) -> Duration {
        self.rate.map_or(self.interval, |rate| Duration::from_secs(1) / rate)
    }

    /// Notifications in each run.
    pub(crate) fn count(&self) -> usize {
        let within = |duration: Duration| (duration.as_nanos() / self.interval().as_nanos().max(1)) as usize;
        self.duration.map_or(self.count as usize, within).max(1)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Throughput {
    #[command(flatten)]
    pub(crate) common: Common,

    /// Sizes of payloads in bytes
    #[arg(
        long, value_name = "BYTES,…", value_delimiter = ',', default_value = "0,64,512,4096,7999",
        value_parser = payload
    )]
    pub(crate) payloads: Vec<usize>,

    /// All notifications of a run in one transaction, or each in one of its own
    #[arg(long, value_name = "WHICH", value_delimiter = ',', value_enum, default_value = "one,many")]
    pub(crate) transactions: Vec<Transactions>,

    /// Sessions that notify at once
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) senders: u16,

    /// Notifications in a run of one transaction; fewer where the payloads would have more than 64 MB
    #[arg(
        long, value_name = "N", default_value = "100000",
        value_parser = clap::value_parser!(u32).range(1..=10_000_000)
    )]
    pub(crate) count: u32,

    /// How long a run of many transactions takes
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, default_value = "1s")]
    pub(crate) duration: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transactions {
    /// Delivered when it commits, all at once
    One,
    /// As fast as the server commits them
    Many,
}

#[derive(Debug, Args)]
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

    /// The time between two notifications
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

#[derive(Debug, Args)]
pub(crate) struct Writers {
    #[command(flatten)]
    pub(crate) common: Common,

    /// Sessions that write at once; more than the server has room for are left out
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

    /// How long each run takes
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub(crate) seconds: f64,

    /// Make each commit of a --private server last longer, as a disk does
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) commit_delay: Option<Duration>,

    /// Where a --private server finds the library pgwake (ffi/extension), if not where it looks by itself
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) library: Option<PathBuf>,

    /// Only these, and `none`, which all are compared with
    #[arg(long, value_name = "VARIANT,…", value_delimiter = ',', value_enum)]
    pub(crate) only: Vec<Variant>,
}

impl Writers {
    pub(crate) fn has(&self, variant: Variant) -> bool {
        variant == Variant::None || self.only.is_empty() || self.only.contains(&variant)
    }

    /// Whether what needs the library of ffi/extension was asked for, and is not to be left out.
    pub(crate) fn wants_library(&self) -> bool {
        self.library.is_some() || self.only.iter().any(|variant| variant.needs_library())
    }

    /// The first is what the others are compared with.
    pub(crate) fn variants(&self) -> Vec<Variant> {
        Variant::value_variants().iter().copied().filter(|variant| self.has(*variant)).collect()
    }
}

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// The report to compare with, as --json wrote it
    #[arg(value_name = "A.json")]
    pub(crate) before: PathBuf,

    /// The report to compare
    #[arg(value_name = "B.json")]
    pub(crate) after: PathBuf,
}

/// The time in a payload takes that many bytes, with the blank behind it.
const TIME_BYTES: usize = 20;

fn payload(text: &str) -> Result<usize, String> {
    let bytes = text.parse().ok().filter(|bytes| *bytes <= PAYLOAD_BYTES_MAX);
    bytes.ok_or_else(|| format!("a payload has 0 to {PAYLOAD_BYTES_MAX} bytes"))
}

fn payload_with_time(text: &str) -> Result<usize, String> {
    let bytes = payload(text).ok().filter(|bytes| *bytes >= TIME_BYTES);
    bytes
        .ok_or_else(|| format!("a payload with the time in it has {TIME_BYTES} to {PAYLOAD_BYTES_MAX} bytes"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "take a number of seconds, from 0.01 to 3600".into())
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    match interval < Duration::from_micros(10) {
        true => Err("10us are the shortest interval that one sender can keep".into()),
        false => Ok(interval),
    }
}
