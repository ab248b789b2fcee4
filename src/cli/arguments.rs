//! What may be typed: the grammar of the command line, and its help.

use super::before_drop::BeforeDrop;
use super::bench::Bench;
use super::cron::Cron;
use super::deliver::Delivery;
use super::messages::Subscribe;
use super::poll::Poll;
pub(crate) use super::values::{Format, Payloads, Until, bytes, duration, share};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser};
use clap_complete::Shell;
use pgwake::{ChangeOp, ChangePayload, DdlPhase, Lsn, Origin, Streaming, Transport};
use std::convert::Infallible;
use std::ffi::OsString;
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
  pgwake -d dbname=app subscribe jobs       hear durable messages
  pgwake -d dbname=app watch orders         see each change of a table, by a trigger
  pgwake -d dbname=app stream --table orders   the same from the log, at no cost for writers

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
    /// Send notifications, whose payloads have up to 7999 bytes
    Notify(Payloads),
    /// Publish durable messages: any bytes, up to 1,000,000,000, kept until each subscriber has read them
    #[command(after_help = "\
Each message is a transaction of its own; in one of yours, call pg_logical_emit_message(true,
'channel', 'payload'). It is kept for those slots of the database that are there by then: make them
first, with `pgwake subscribe CHANNEL --slot NAME`.")]
    Publish(Payloads),
    /// Print durable messages as they are committed, also those that came while nobody read
    Subscribe(Subscribe),
    /// Put the schema pgwake, which watches tables and DDL, into the database, or make it anew
    Install(Script),
    /// Take the schema pgwake out of the database again, with all its triggers
    Uninstall(Script),
    /// Print the changes of rows, made known by triggers, as they are committed
    Watch(Watch),
    /// Take the triggers of watch off tables again, and the publications made for them
    Unwatch(Unwatch),
    /// Print the changes of rows from the server's log, by logical replication: no trigger, at least once
    Stream(Stream),
    /// Print DDL commands as they are committed
    Ddl(Ddl),
    /// Run a function of yours before a table is dropped, while it can still be read
    BeforeDrop(BeforeDrop),
    /// Run things at times: intervals and cron expressions in time zones, by one of many processes
    Cron(Cron),
    /// Run a query again and again, and print what it finds: by an interval, and when a channel wakes it
    Poll(Box<Poll>),
    /// Say what would go wrong with the server, a pooler before it, or what is watched; status 1 if so
    Check,
    /// Show the server, its notification queue, its slots, what is watched, and who lags
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

#[derive(Debug, Args)]
pub(crate) struct Listen {
    /// Names of channels: exact, never folded to lower case, 1 to 63 bytes
    #[arg(required = true, value_name = "CHANNEL")]
    pub(crate) channels: Vec<OsString>,

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
    #[arg(long, value_names = ["CMD", "ARG"], num_args = 1.., allow_hyphen_values = true,
        conflicts_with_all = ["to", "batch"])]
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

    #[command(flatten)]
    pub(crate) delivery: Delivery,
}

#[derive(Debug, Args)]
pub(crate) struct Script {
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

    /// Which operations to watch, as in insert,update; all by default
    #[arg(long, value_name = "OPS", value_delimiter = ',', value_parser = op(), help_heading = OF_A_WATCH)]
    pub(crate) ops: Vec<ChangeOp>,

    /// What a change has; key by default
    #[arg(long, value_name = "PAYLOAD", value_parser = payload(), help_heading = OF_A_WATCH)]
    pub(crate) payload: Option<ChangePayload>,

    /// How changes come. outbox, the default: by triggers, at least once; notify: by triggers, at most once,
    /// and all writers of the cluster wait for each other; wal: from the server's log, without triggers, as
    /// `pgwake stream --table` reads it; --name is a slot then, which keeps the log until it is read
    #[arg(long, value_name = "TRANSPORT", value_parser = transport(), help_heading = OF_A_WATCH)]
    pub(crate) transport: Option<Transport>,

    /// Which columns a change has, as in id,name; all by default
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', help_heading = OF_A_WATCH)]
    pub(crate) columns: Vec<String>,

    /// A change comes before it is made: a DELETE before those that it cascades to
    #[arg(long, help_heading = OF_A_WATCH)]
    pub(crate) before: bool,

    /// Neither install the schema pgwake nor make triggers: refuse what is not watched
    #[arg(long)]
    pub(crate) no_install: bool,

    #[command(flatten)]
    pub(crate) until: Until,

    #[command(flatten)]
    pub(crate) delivery: Delivery,
}

#[derive(Debug, Args)]
pub(crate) struct Unwatch {
    /// Tables, as SQL names them
    #[arg(required = true, value_name = "TABLE")]
    pub(crate) tables: Vec<String>,
}

/// Above those options of `stream` that are about its slot.
const OF_A_SLOT: &str = "Where the server keeps the position";

/// Above those that say what an event is.
const OF_WHAT_COMES: &str = "What comes";

#[derive(Debug, Args)]
#[command(
    override_usage = "\
pgwake stream <--table <TABLE>|--publication <PUBLICATION>>... [--slot <SLOT>] [OPTIONS]
       pgwake stream --slot <SLOT> --drop-slot",
    after_help = "\
Changes come at least once, in commit order; one that comes again has the same position.
A line is acknowledged when it is written. Without --slot the server keeps nothing for the
next run. With --slot the next run goes on where this one ended, and until then the server keeps its
log for it: when the slot is not needed any more, --drop-slot, or the disk fills up.

It needs wal_level = logical, a role with REPLICATION, and for --table the right to make a
publication: the table's owner's, and CREATE in the database. `pgwake check` tells.

  pgwake stream --table orders                            see it
  pgwake stream --table orders --slot billing --snapshot  all rows, then all changes, for good
  pgwake stream --slot billing --drop-slot                no more"
)]
pub(crate) struct Stream {
    /// The changes of these tables, as SQL names them: orders, sales.orders. A publication is made for them,
    /// and kept: the same tables have the same one
    #[arg(long = "table", value_name = "TABLE", num_args = 1..)]
    pub(crate) tables: Vec<String>,

    /// What these publications have, with their row filters and column lists
    #[arg(long = "publication", value_name = "PUBLICATION", num_args = 1..)]
    pub(crate) publications: Vec<String>,

    #[command(flatten)]
    pub(crate) until: Until,

    /// End when all has come, and was acknowledged, that was committed up to this place in the log:
    /// 16/B374D848, as SELECT pg_current_wal_lsn() says it
    #[arg(long = "until", value_name = "LSN")]
    pub(crate) until_lsn: Option<Lsn>,

    /// The slot of this name: made if it is missing, and kept when the command ends
    #[arg(long, value_name = "SLOT", help_heading = OF_A_SLOT)]
    pub(crate) slot: Option<String>,

    /// The slot goes with the connection, as it does without --slot
    #[arg(long, requires = "slot", help_heading = OF_A_SLOT)]
    pub(crate) temporary: bool,

    /// The slot is kept by standbys, too, also if it is there already (PostgreSQL 17)
    #[arg(long, requires = "slot", conflicts_with = "temporary", help_heading = OF_A_SLOT)]
    pub(crate) failover: bool,

    /// Drop the slot and end: the server need not keep its log for it any more
    #[arg(long, requires = "slot", help_heading = OF_A_SLOT)]
    pub(crate) drop_slot: bool,

    /// First the rows that are there when the slot is made, then the changes from exactly there. A slot that
    /// is there already is read on without them
    #[arg(long, help_heading = OF_WHAT_COMES)]
    pub(crate) snapshot: bool,

    /// Also messages that were written into the log (pg_logical_emit_message)
    #[arg(long, help_heading = OF_WHAT_COMES)]
    pub(crate) messages: bool,

    /// Also the begin and the commit of each transaction
    #[arg(long, help_heading = OF_WHAT_COMES)]
    pub(crate) transactions: bool,

    /// Large transactions while they run: off (the server keeps them until their commit), on (they come early
    /// and are held back here) or early (they are printed at once, without a position, and a rollback may
    /// follow)
    #[arg(long, value_name = "WHEN", value_parser = streaming(), default_value = "off",
        help_heading = OF_WHAT_COMES)]
    pub(crate) streaming: Streaming,

    /// How much of transactions that are held back stays in memory, 64kB at least; the rest goes to a file
    /// below TMPDIR
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "64MB",
        help_heading = OF_WHAT_COMES)]
    pub(crate) memory: usize,

    /// Transactions when they are prepared (PREPARE TRANSACTION), not when they are committed
    #[arg(long, help_heading = OF_WHAT_COMES)]
    pub(crate) two_phase: bool,

    /// Values in the server's binary format, which is cheaper for it. The events are the same, but for types
    /// such as ranges, geometric ones, money, tsvector, and those that are not built in: bytes, as \x…
    #[arg(long, help_heading = OF_WHAT_COMES)]
    pub(crate) binary: bool,

    /// Whose changes: any, or none for those alone that the server has from no other one (PostgreSQL 16)
    #[arg(long, value_name = "ORIGIN", value_parser = origin(), default_value = "any",
        help_heading = OF_WHAT_COMES)]
    pub(crate) origin: Origin,

    /// Ask a silent server for a sign of life that often; 0s: never
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5s")]
    pub(crate) heartbeat: Duration,

    #[command(flatten)]
    pub(crate) delivery: Delivery,
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

    /// When: before each command, with what it is about to drop or change, after it, or both, as events of
    /// their own. All come with the commit; equal ones before commands of one transaction are one
    #[arg(long = "phase", value_name = "PHASE", value_delimiter = ',', value_parser = phase(),
        default_value = "after")]
    pub(crate) phases: Vec<DdlPhase>,

    /// Do not install the schema pgwake
    #[arg(long)]
    pub(crate) no_install: bool,

    /// Give up the events of these options: otherwise the database sends them for ever. Refused
    /// while another session reads them
    #[arg(long)]
    pub(crate) remove: bool,

    #[command(flatten)]
    pub(crate) until: Until,

    #[command(flatten)]
    pub(crate) delivery: Delivery,
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

/// Takes one of these words, which the help and the completions name.
fn one_of<T: Copy + Send + Sync + 'static>(
    known: &'static [T],
    name: fn(&T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let find = move |word: String| known.iter().copied().find(|item| name(item) == word);
    PossibleValuesParser::new(known.iter().map(name)).try_map(move |word| find(word).ok_or("not known"))
}

fn op() -> impl TypedValueParser<Value = ChangeOp> {
    one_of(&ChangeOp::ALL, ChangeOp::as_str)
}

fn payload() -> impl TypedValueParser<Value = ChangePayload> {
    use ChangePayload::{Changed, Key, Row, Wake};
    one_of(&[Wake, Key, Changed, Row], ChangePayload::as_str)
}

fn transport() -> impl TypedValueParser<Value = Transport> {
    one_of(&[Transport::Outbox, Transport::Notify, Transport::Wal], Transport::as_str)
}

fn phase() -> impl TypedValueParser<Value = DdlPhase> {
    one_of(&[DdlPhase::Before, DdlPhase::After], DdlPhase::as_str)
}

fn streaming() -> impl TypedValueParser<Value = Streaming> {
    one_of(&[Streaming::Off, Streaming::On, Streaming::Early], |streaming| match streaming {
        Streaming::On => "on",
        Streaming::Early => "early",
        _ => "off",
    })
}

fn origin() -> impl TypedValueParser<Value = Origin> {
    one_of(&[Origin::Any, Origin::None], |origin| if *origin == Origin::None { "none" } else { "any" })
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
