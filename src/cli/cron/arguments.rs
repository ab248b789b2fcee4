//! What may be typed behind `cron`.

use super::super::values::{Until, duration};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Above the options that show what would be, and do nothing.
const OF_A_PREVIEW: &str = "See what it means";

#[derive(Debug, Args)]
#[command(
    override_usage = "pgwake cron <EXPR>... [OPTIONS] [--sql <SQL> | --exec <CMD> [ARG]...]\n       \
                      pgwake cron --file <CRONTAB> [OPTIONS]",
    after_help = "\
An expression has five fields: minute, hour, day of the month, month, day of the week; or six, with
the second before them. Lists (1,15), ranges (mon-fri), steps (*/5); L, LW and 15W for days of the
month; fri#2 and 5L for days of the week. Or @hourly, @daily, @weekly, @monthly, @yearly, and
@every 90s, which counts on the monotonic clock.

Where clocks are put forward, a lone time of day that is skipped runs at the end of the gap; where
they are put back, it runs the first time. All else goes by what the clock shows.

  pgwake cron '30 2 * * *' --next 5 --tz Europe/Berlin        when that is
  pgwake cron '*/5 * * * *' --exec ./work                     run it, never twice at once
  pgwake cron @hourly --sql 'CALL tidy()' --leader tidy       on one of all the machines that say so"
)]
pub(crate) struct Cron {
    /// Cron expressions, each in quotes
    #[arg(value_name = "EXPR", required_unless_present = "file")]
    pub(crate) expressions: Vec<String>,

    /// Read expressions from this file as well, one a line, with the command to run behind each, but none
    /// with --sql. A line CRON_TZ=ZONE, or that before an expression, says the zone
    #[arg(long, value_name = "CRONTAB")]
    pub(crate) file: Option<PathBuf>,

    /// The zone in which the expressions are read, such as Europe/Berlin; this machine's by default
    #[arg(long, value_name = "ZONE")]
    pub(crate) tz: Option<String>,

    /// What becomes of due times that passed unnoticed: skip, once (the last of them) or all
    #[arg(long, value_name = "POLICY", value_enum, default_value = "skip", hide_possible_values = true)]
    pub(crate) missed: Policy,

    /// Put each run off by up to so long, at random
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    pub(crate) jitter: Duration,

    /// On one of all the machines that say so: a lock in the database under this name decides for each due
    /// time who runs it. What became of each is in the table pgwake.run. It needs `pgwake install`, and the
    /// server itself or a pooler in session mode. With a file or several expressions the name of each is
    /// 'KEY: EXPR CMD', which the table stores: write no password into it
    #[arg(long, value_name = "KEY")]
    pub(crate) leader: Option<String>,

    /// Run this command of SQL for each due time; it is the database's work, and nothing is printed but what
    /// fails
    #[arg(long, value_name = "SQL", conflicts_with = "exec")]
    pub(crate) sql: Option<String>,

    /// Run CMD for each due time instead of printing it; must come last. Never through a shell:
    /// PGWAKE_SCHEDULE, PGWAKE_DUE, PGWAKE_MISSED and PGWAKE_LATE_MS are in its environment. The next run
    /// of the same schedule does not begin before it has ended
    #[arg(long, value_names = ["CMD", "ARG"], num_args = 1.., allow_hyphen_values = true)]
    pub(crate) exec: Vec<String>,

    /// With --leader or --sql: ask a silent server for a sign of life that often. A leader that is silent for
    /// twice as long is none any more
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5s")]
    pub(crate) heartbeat: Duration,

    /// How long runs of CMD, or SQL, may go on when the time is over or a signal asks for the end. Then CMD
    /// gets SIGTERM, and SIGKILL after as long again, with all that it has started
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2s")]
    pub(crate) grace: Duration,

    #[command(flatten)]
    pub(crate) until: Until,

    /// Print the next N due times of each expression, and end
    #[arg(long, value_name = "N", help_heading = OF_A_PREVIEW)]
    pub(crate) next: Option<u32>,

    /// Say each expression in words, and end
    #[arg(long, help_heading = OF_A_PREVIEW)]
    pub(crate) explain: bool,
}

/// What becomes of due times that passed unnoticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    Skip,
    Once,
    All,
}
