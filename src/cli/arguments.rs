//! What may be typed: the grammar of the command line, and its help.

use super::bench::Bench;
pub(crate) use super::values::{Format, duration, share};
use clap::{Args, Parser};
use clap_complete::Shell;
use pgwake::{ChangeOp, ChangePayload, Transport};
use std::convert::Infallible;
use std::time::Duration;

/// Above the options that each command has.
const OF_ALL: &str = "Options of every command";

/// Wakes you up when PostgreSQL has something to tell.
#[derive(Debug, Parser)]
#[command(
    name = "pgwake",
    version,
    disable_help_subcommand = true,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = false,
    after_help = "\
Start here:
  pgwake demo                               see it work, on a throw-away server of its own
  pgwake demo --keep                        get that server, to try things on
  pgwake -d dbname=app listen jobs          hear notifications
  pgwake -d dbname=app notify jobs 'hello'  send one
  pgwake -d dbname=app watch orders         see each change of a table

Without -d libpq's environment decides: PGHOST, PGPORT, PGDATABASE, PGUSER, PGSERVICE, ~/.pgpass.
Durations are written 250ms, 5s, 2m, 1h. Data goes to stdout, the log to stderr.
Exit status: 0 done (also by Ctrl-C), 1 failed while running, 2 wrong usage."
)]
pub(crate) struct Arguments {
    /// What to connect to, as libpq takes it: "host=db dbname=app" or postgresql://user@db/app, or the name
    /// of a database. Everybody on this machine can read it: keep passwords in ~/.pgpass
    #[arg(
        short, long, global = true, value_name = "CONNINFO", value_parser = conninfo, help_heading = OF_ALL
    )]
    pub(crate) dsn: Option<String>,

    /// How events are written: one line each for people, or one JSON object a line for programs
    #[arg(short, long, global = true, value_enum, default_value = "text", help_heading = OF_ALL)]
    pub(crate) format: Format,

    /// Log more to stderr: -v info, -vv debug, -vvv trace (or RUST_LOG)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = OF_ALL)]
    pub(crate) verbose: u8,

    #[command(subcommand)]
    pub(crate) command: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Subcommand {
    /// See it at work on a private throw-away PostgreSQL: a table changes, events come, and how fast
    Demo(Demo),
    /// Print notifications as they come
    Listen(Listen),
    /// Send notifications
    Notify(Notify),
    /// Put the schema pgwake, which watches tables and DDL, into the database, or make it anew
    Install(Install),
    /// Take the schema pgwake out of the database again, with all its triggers
    Uninstall(Uninstall),
    /// Print the changes of rows, made known by triggers, as they are committed
    Watch(Watch),
    /// Take the triggers of watch off tables again
    Unwatch(Unwatch),
    /// Print DDL commands as they are committed
    Ddl(Ddl),
    /// Say what would go wrong with this server, before it, and with what is watched; status 1 if so
    Check,
    /// Show the server, its notification queue, what is watched, and who lags
    Status(Status),
    /// Measure notifications of a server, beside a bare C loop, and what watching costs its writers
    #[command(subcommand)]
    Bench(Bench),
    /// Print what makes a shell complete these words, for ~/.bashrc: source <(pgwake completions bash)
    Completions(Completions),
    /// Print the versions of pgwake, libpq and OpenSSL
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Show nothing, but leave the private PostgreSQL up until Ctrl-C, with the table orders in it, and print
    /// a conninfo for -d
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    pub(crate) shell: Shell,
}

/// When a command that streams is to end.
#[derive(Debug, Args)]
pub(crate) struct Until {
    /// End after that many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// End after that long
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Listen {
    /// Names of channels: exact, never folded to lower case, 1 to 63 bytes
    #[arg(required = true, value_name = "CHANNEL")]
    pub(crate) channels: Vec<String>,

    #[command(flatten)]
    pub(crate) until: Until,

    /// Leave out notifications that this session sent itself
    #[arg(long)]
    pub(crate) skip_own: bool,

    /// When they come faster than they can be written, keep only the latest of each channel
    #[arg(long)]
    pub(crate) coalesce: bool,

    /// Poll that long after each event before sleeping: less latency, for a whole core
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    pub(crate) spin: Duration,

    /// Poll while events come soon after each other, for at most this share of a core's time: 0.1 is a tenth
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "0")]
    pub(crate) spin_adaptive: f64,

    /// Run CMD for each notification, and for each gap, instead of printing it; must come last. Never through
    /// a shell: the payload is on stdin, PGWAKE_EVENT (notification or gap), PGWAKE_CHANNEL and PGWAKE_PID
    /// are in the environment
    #[arg(long, value_names = ["CMD", "ARG"], num_args = 1.., allow_hyphen_values = true)]
    pub(crate) exec: Vec<String>,

    /// How many runs of CMD at once; those of one channel stay in order
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: u16,

    /// How long runs of CMD may go on when the time is over or a signal asks for the end. Then they get
    /// SIGTERM, and SIGKILL after as long again. Events that wait for a run are dropped and counted
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2s")]
    pub(crate) grace: Duration,

    /// Make sure first that notifications arrive at all: behind a pooler in transaction mode they do not
    #[arg(long)]
    pub(crate) self_test: bool,

    /// Ask a silent server for a sign of life that often; 0s: never
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5s")]
    pub(crate) heartbeat: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Notify {
    /// The name of the channel: exact, never folded to lower case, 1 to 63 bytes
    pub(crate) channel: String,

    /// The payload, up to 7999 bytes; - reads it from stdin, byte by byte as it stands
    pub(crate) payload: Option<String>,

    /// Send each line of stdin as a payload, one after the other, without waiting for each
    #[arg(long, conflicts_with = "payload")]
    pub(crate) lines: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Install {
    /// Print the SQL instead of running it
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    /// Print the SQL instead of running it
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Above those options of `watch` that a table keeps.
const OF_A_WATCH: &str =
    "How a table is watched (one that is already must agree, and what is left out follows it)";

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Tables, as SQL names them: orders, sales.orders, '"Orders"'
    #[arg(required = true, value_name = "TABLE")]
    pub(crate) tables: Vec<String>,

    /// Read under this name: the database keeps its position, and the next run goes on where this one ended
    #[arg(long, value_name = "CONSUMER")]
    pub(crate) name: Option<String>,

    /// With a new name, begin with the oldest change that is still there
    #[arg(long)]
    pub(crate) from_start: bool,

    /// Which operations to watch; all by default
    #[arg(long, value_name = "OPS", value_delimiter = ',', value_parser = op, help_heading = OF_A_WATCH)]
    pub(crate) ops: Vec<ChangeOp>,

    /// What a change has: wake, key, changed or row; key by default
    #[arg(long, value_name = "PAYLOAD", value_parser = payload, help_heading = OF_A_WATCH)]
    pub(crate) payload: Option<ChangePayload>,

    /// How changes come: outbox (at least once) or notify (at most once, and all writers of the cluster wait
    /// for each other); outbox by default
    #[arg(long, value_name = "TRANSPORT", value_parser = transport, help_heading = OF_A_WATCH)]
    pub(crate) transport: Option<Transport>,

    /// Which columns a change has; all by default
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', help_heading = OF_A_WATCH)]
    pub(crate) columns: Vec<String>,

    /// Tell of a row before it is changed: a DELETE before those that it cascades to
    #[arg(long, help_heading = OF_A_WATCH)]
    pub(crate) before: bool,

    /// Neither install the schema pgwake nor make triggers: refuse what is not watched
    #[arg(long)]
    pub(crate) no_install: bool,

    #[command(flatten)]
    pub(crate) until: Until,
}

#[derive(Debug, Args)]
pub(crate) struct Unwatch {
    /// Tables, as SQL names them
    #[arg(required = true, value_name = "TABLE")]
    pub(crate) tables: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Ddl {
    /// Only commands with these tags: 'DROP TABLE,ALTER TABLE'. login must be asked for (PostgreSQL 17)
    #[arg(long, value_name = "TAGS", value_delimiter = ',')]
    pub(crate) tags: Vec<String>,

    /// Also commands on temporary objects
    #[arg(long)]
    pub(crate) temp: bool,

    /// Also what functions, triggers and extensions run
    #[arg(long)]
    pub(crate) nested: bool,

    /// Also the beginning of each command, as an event of its own; equal ones of a transaction are one
    #[arg(long)]
    pub(crate) before: bool,

    /// Do not install the schema pgwake
    #[arg(long)]
    pub(crate) no_install: bool,

    /// Give these events up, those of the same options: otherwise the database sends them for ever. Refused
    /// while another session reads them
    #[arg(long)]
    pub(crate) remove: bool,

    #[command(flatten)]
    pub(crate) until: Until,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Show it again every 2 s
    #[arg(long)]
    pub(crate) watch: bool,
}

/// What is neither keywords nor a URI is the name of a database (`recognized_connection_string`,
/// fe-connect.c).
fn conninfo(text: &str) -> Result<String, Infallible> {
    let is_uri = ["postgresql://", "postgres://"].iter().any(|scheme| text.starts_with(scheme));
    if text.is_empty() || is_uri || text.contains('=') {
        return Ok(text.into());
    }
    Ok(format!("dbname='{}'", text.replace('\\', "\\\\").replace('\'', "\\'")))
}

/// The word, if it is one of these.
fn word<T: Copy>(text: &str, known: &[T], name: impl Fn(&T) -> &'static str) -> Result<T, String> {
    let known_names = || known.iter().map(&name).collect::<Vec<_>>().join(", ");
    let found = known.iter().copied().find(|item| name(item) == text);
    found.ok_or_else(|| format!("take one of {}", known_names()))
}

fn op(text: &str) -> Result<ChangeOp, String> {
    word(text, &ChangeOp::ALL, ChangeOp::as_str)
}

fn payload(text: &str) -> Result<ChangePayload, String> {
    use ChangePayload::{Changed, Key, Row, Wake};
    word(text, &[Wake, Key, Changed, Row], ChangePayload::as_str)
}

fn transport(text: &str) -> Result<Transport, String> {
    // This version reads no log: the name is known, and refused with the reason.
    match text == Transport::Wal.as_str() {
        true => Ok(Transport::Wal),
        false => word(text, &[Transport::Outbox, Transport::Notify], Transport::as_str),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_word_alone_is_the_name_of_a_database() {
        for (text, meant) in [
            ("mydb", "dbname='mydb'"),
            ("it's a \\", "dbname='it\\'s a \\\\'"),
            ("host=db", "host=db"),
            ("postgres://db/app", "postgres://db/app"),
            ("", ""),
        ] {
            assert_eq!(conninfo(text).unwrap(), meant);
        }
    }
}
