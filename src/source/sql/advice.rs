//! What to do about an answer that refuses a reader: one table, the first row that fits counts.

use crate::error::{Error, SqlState};

/// An error's code, words of its message, and what to do.
type Row = (&'static str, &'static str, &'static str);

/// What is missing is ours, or it is the caller's; and what every reader but of notifications needs.
const OF_ALL: &[Row] = &[
    ("3F000", "pgwake", INSTALL),
    ("42883", "pgwake", INSTALL),
    ("42P01", "pgwake", INSTALL),
    ("3F000", "", NAME),
    ("42P01", "", NAME),
    ("42602", "", NAME),
    ("25006", "", "connect to the primary, or SET default_transaction_read_only = off for this role"),
];
const INSTALL: &str = "run `pgwake install` in this database first";
const NAME: &str =
    "name it as SQL does: with its schema, sales.orders, and quoted where it has capitals, \"Orders\"";

pub(super) const WATCHING: &[Row] = &[
    // The schema itself says what to do.
    ("42501", "row-level security", ""),
    (
        "42501",
        "",
        "let its owner watch it, and grant this role SELECT on it, USAGE on the schema pgwake and EXECUTE on \
         watch_of, ensure_watched, open_consumer, read, acknowledge, rotate and fetch",
    ),
    ("55P03", "", "something holds the table: this goes on when that is done"),
    ("55006", "", "this one goes on when that one ends"),
];

pub(super) const OF_DDL: &[Row] = &[
    (
        "42501",
        "",
        "grant this role USAGE on the schema pgwake, SELECT, INSERT and UPDATE on its table ddl_watch, and \
         EXECUTE on watch_ddl, mode, follow_login, wake_readers, notify, may_be_prepared, ddl_lock and fetch",
    ),
    ("55000", "", "let a superuser run `pgwake install`"),
];

pub(super) const OF_RUNS: &[Row] = &[(
    "42501",
    "",
    "grant this role USAGE on the schema pgwake and EXECUTE on enter_schedule, ask_to_run, begin_run, \
     end_run and schedule_lock",
)];
const OF_CURSORS: &str =
    "grant this role USAGE on the schema pgwake and EXECUTE on open_cursor, keep_cursor and close_cursor";
const NO_LIMIT: &str = "with a cursor or in batches the query has neither LIMIT nor OFFSET: leave it out";
pub(super) const OF_POLLS: &[Row] = &[
    ("42501", "pgwake", OF_CURSORS),
    ("42501", "_cursor", OF_CURSORS),
    ("42703", "poll.", "the rows of a cursor have a column that says which transaction wrote them"),
    ("42883", "xid8", "the column that a cursor goes by is of the type xid8"),
    ("42601", "LIMIT", NO_LIMIT),
    ("42601", "OFFSET", NO_LIMIT),
    ("57014", "statement timeout", "let it take longer, or have less to do: an index, fewer rows"),
    ("55006", "", "this one goes on when that one ends"),
];

/// The error, with what to do behind it.
pub(super) fn advised(error: Error, table: &[Row]) -> Error {
    let code = error.sqlstate.as_ref().map_or("", SqlState::as_str);
    let fits = |row: &&Row| row.0 == code && error.message.contains(row.1);
    match OF_ALL.iter().chain(table).find(fits) {
        Some((_, _, advice)) if !advice.is_empty() => {
            Error { message: format!("{}; {advice}", error.message), ..error }
        }
        _ => error,
    }
}
