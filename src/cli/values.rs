//! What options of several subcommands take, from the words that are typed. It knows no subcommand.

use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

/// When a command that streams is to end.
#[derive(Debug, Args)]
pub(crate) struct Until {
    /// End after that many events; those about the session or a transaction are not counted
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// End after that long
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
}

/// What is sent, and on which channel.
#[derive(Debug, Args)]
pub(crate) struct Payloads {
    /// The name of the channel: exact, never folded to lower case, 1 to 63 bytes
    pub(crate) channel: OsString,

    /// The payload; - reads it from stdin, byte by byte as it stands
    pub(crate) payload: Option<OsString>,

    /// Send each line of stdin as a payload, one after the other, without waiting for each
    #[arg(long, conflicts_with = "payload")]
    pub(crate) lines: bool,
}

pub(crate) fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "take a number from 0 to 1".into())
}

/// `250ms`, `5s`, `2m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let hint = "write it as 250ms, 5s, 2m or 1h";
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| hint.to_string())?;
    let duration = Duration::try_from(parsed).map_err(|_| format!("a duration is not negative: {hint}"))?;
    let days = duration.as_secs() / 86_400;
    if days > 3650 { Err(format!("{days} days are too long: leave the option out")) } else { Ok(duration) }
}

/// `64MB`, as PostgreSQL's settings have it: 1 kB is 1024 bytes.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let power = ["B", "kB", "MB", "GB"].iter().position(|known| *known == unit);
    let bytes = power.zip(number.parse::<usize>().ok());
    let bytes = bytes.and_then(|(power, number)| number.checked_mul(1 << (10 * power)));
    bytes.ok_or_else(|| "write it as 500kB, 64MB or 1GB".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        for (text, size) in [("0B", 0), ("500kB", 512_000), ("64MB", 64 << 20), ("3GB", 3 << 30)] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for bad in [
            "",
            "5",
            "MB",
            "-5MB",
            "1.5GB",
            "5 MB",
            "5mb",
            "5TB",
            "99999999999999999999B",
            "99999999999999GB",
        ] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, ms) in [("250ms", 250), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        for bad in ["", "5", "s", "-5s", "1 fortnight"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
