//! What may be typed behind `pgwake poll`.

use crate::cli::deliver::Delivery;
use crate::cli::values::{Until, bytes, duration};
use clap::Args;
use std::time::Duration;

/// Above those options that say when the query is run.
const WHEN: &str = "When it is run";

/// Above those of a cursor.
const OF_A_CURSOR: &str = "Each row once it is committed, and none left out";

/// Above those of a batch.
const OF_A_BATCH: &str = "Rows that nobody else gets meanwhile";

#[derive(Debug, Args)]
#[command(after_help = "\
What a query finds is one event, and the next is run once it is written. An error is an event, too,
and the poll goes on; but when the first run fails, so does the command.

  pgwake poll 'SELECT * FROM jobs WHERE due <= now()' --wake-on jobs --adaptive 1m
  pgwake poll 'SELECT * FROM log' --cursor billing
  pgwake poll 'SELECT id, body FROM jobs ORDER BY id' --batch-rows 10 \\
    --done 'DELETE FROM jobs WHERE id = ANY ($1)'")]
pub(crate) struct Poll {
    /// The query. With --cursor its rows have a column xid of the type xid8, and it has no LIMIT; with
    /// --batch-rows it is a SELECT without LIMIT
    pub(crate) sql: String,

    /// The next parameter of the query: $1, $2 …
    #[arg(long = "param", value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) parameters: Vec<String>,

    /// What the poll is called in events, in place of its SQL
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    #[command(flatten)]
    pub(crate) until: Until,

    /// How long from one query to the next
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1s", help_heading = WHEN)]
    pub(crate) every: Duration,

    /// While it finds nothing, the interval doubles up to this
    #[arg(long, value_name = "MAX", value_parser = duration, help_heading = WHEN)]
    pub(crate) adaptive: Option<Duration>,

    /// At once when somebody notifies this channel
    #[arg(long, value_name = "CHANNEL", help_heading = WHEN)]
    pub(crate) wake_on: Option<String>,

    /// End a query that takes longer; 0s: never
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s",
        help_heading = WHEN)]
    pub(crate) timeout: Duration,

    /// How much the rows of one event may have together, 16MB to 1GB; more end the connection
    #[arg(long, value_name = "SIZE", value_parser = rows_bytes, default_value = "64MB", help_heading = WHEN)]
    pub(crate) bytes_max: usize,

    /// Of a table that only grows: the database keeps under this name how far was read, and the next run goes
    /// on where this one ended
    #[arg(long, value_name = "NAME", help_heading = OF_A_CURSOR)]
    pub(crate) cursor: Option<String>,

    /// With a new name, begin with the oldest row. One that is there already goes on, and a warning says so
    #[arg(long, requires = "cursor", help_heading = OF_A_CURSOR)]
    pub(crate) from_start: bool,

    /// The column that says which transaction wrote a row
    #[arg(long, value_name = "COLUMN", requires = "cursor", default_value = "xid",
        help_heading = OF_A_CURSOR)]
    pub(crate) xid_column: String,

    /// The column that orders the rows of one transaction
    #[arg(long, value_name = "COLUMN", requires = "cursor", help_heading = OF_A_CURSOR)]
    pub(crate) order_by: Option<String>,

    /// How many rows come at once; more where one transaction wrote more
    #[arg(long, value_name = "N", requires = "cursor", default_value = "1000", help_heading = OF_A_CURSOR,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) page_rows: u32,

    /// Do not install the schema pgwake, in which positions are kept
    #[arg(long, requires = "cursor", help_heading = OF_A_CURSOR)]
    pub(crate) no_install: bool,

    /// Lock that many rows (FOR UPDATE SKIP LOCKED) until they are written
    #[arg(long, value_name = "N", conflicts_with = "cursor", help_heading = OF_A_BATCH,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_rows: Option<u32>,

    /// What is run then, in the same transaction, so that they do not come again; $1 is an array of the
    /// values of the first column
    #[arg(long, value_name = "SQL", requires = "batch_rows", help_heading = OF_A_BATCH)]
    pub(crate) done: Option<String>,

    #[command(flatten)]
    pub(crate) delivery: Delivery,
}

/// What the library takes for the rows of one event.
fn rows_bytes(text: &str) -> Result<usize, String> {
    let size = bytes(text)?;
    if (16 << 20..=1 << 30).contains(&size) { Ok(size) } else { Err("take 16MB to 1GB".into()) }
}
