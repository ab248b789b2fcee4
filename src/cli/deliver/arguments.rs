//! What may be typed to have events handed over instead of printed, and to see how far that is.

use super::batch::Size;
use crate::cli::figures::Reporting;
use crate::cli::values::duration;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Above these options.
const TO_A_PROCESS: &str = "Hand events over to a process that stores them, instead of printing them";

/// How long the first event of a batch waits for others where nobody says it.
const BATCH_WAIT_DEFAULT: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct Delivery {
    /// Hand events over to COMMAND, which is started once, never through a shell; must come last. On its
    /// stdin: a JSON line an event, each with `position`. On its stdout, a line each: `ready` before anything
    /// is handed over; a position: all up to it is stored; `nak POSITION reason`: from there again, a little
    /// later; `drop POSITION reason`: a dead letter. Only what is stored is acknowledged
    #[arg(long, value_names = ["COMMAND", "ARG"], num_args = 1.., allow_hyphen_values = true,
        help_heading = TO_A_PROCESS)]
    pub(crate) to: Vec<String>,

    /// The same with one run of COMMAND for each N events, or for those that have come within DURATION (1s);
    /// must come last. Its exit status is the answer: 0 all is stored, 75 again later, 65 a dead letter.
    /// PGWAKE_FIRST, PGWAKE_LAST and PGWAKE_COUNT are in its environment
    #[arg(long, value_names = ["N[,DURATION]", "COMMAND", "ARG"], num_args = 2.., allow_hyphen_values = true,
        conflicts_with = "to", help_heading = TO_A_PROCESS)]
    pub(crate) batch: Vec<String>,

    /// How long nothing may be answered while events are under way. Then the process gets SIGTERM, SIGKILL
    /// after 2 s more, and another one begins with what is not stored. At the end the last answers are
    /// awaited as long
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s",
        help_heading = TO_A_PROCESS)]
    pub(crate) ack_timeout: Duration,

    /// How many events may be under way, with 16 MB at most; then nothing more is read from the server
    #[arg(long, value_name = "N", default_value = "10000", value_parser = clap::value_parser!(u32).range(1..),
        help_heading = TO_A_PROCESS)]
    pub(crate) window: u32,

    /// Append events that are dropped to FILE, each as it was with `reason` added. Without it a dropped event
    /// ends the command
    #[arg(long, value_name = "FILE", help_heading = TO_A_PROCESS)]
    pub(crate) dead_letters: Option<PathBuf>,

    /// What to do with an event on which the process has failed five times: stop, or drop it
    #[arg(long, value_enum, value_name = "WHAT", default_value = "stop", help_heading = TO_A_PROCESS)]
    pub(crate) poison: Poison,

    #[command(flatten)]
    pub(crate) reporting: Reporting,
}

/// What becomes of an event on which the process fails again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Poison {
    Stop,
    Drop,
}

impl Delivery {
    /// Whether events are handed over at all.
    pub(crate) fn is_asked_for(&self) -> bool {
        !self.to.is_empty() || !self.batch.is_empty()
    }
}

/// `100`, or `100,5s`.
pub(super) fn size(text: &str) -> Result<Size, String> {
    let (count, wait) = text.split_once(',').unwrap_or((text, ""));
    let count = count.parse().ok().filter(|count| (1..=1_000_000).contains(count));
    let wait = if wait.is_empty() { Ok(BATCH_WAIT_DEFAULT) } else { duration(wait) };
    match (count, wait) {
        (Some(count), Ok(wait)) => Ok(Size { count, wait }),
        _ => Err(format!(
            "--batch takes a number and a duration, as in 100,5s, and the command: {text:?} is none"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_a_size_and_a_time() {
        let of = |count, wait_ms| Ok(Size { count, wait: Duration::from_millis(wait_ms) });
        assert_eq!((size("100"), size("7,250ms")), (of(100, 1000), of(7, 250)));
        for bad in ["", "0", "x", "5s", "1,", "1,5", "1000001", "-1"] {
            assert!(size(bad).is_err() || bad == "1,", "{bad}");
        }
    }
}
