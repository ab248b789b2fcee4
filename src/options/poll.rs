//! What is polled, and how.

use super::bounded;
use crate::error::{Error, ErrorKind, Result};
use std::time::Duration;

const EVERY_DEFAULT: Duration = Duration::from_secs(1);

/// A query that takes longer was to be run once, not again and again.
const STATEMENT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// How much the rows of one poll may have together, in bytes, before the connection is given up for it.
const BYTES_MAX_DEFAULT: usize = 64 << 20;
/// What any answer may have (`session/limits.rs`).
const BYTES_MIN: usize = 16 << 20;
/// libpq keeps a result in memory, and more than this is no event any more.
const BYTES_MAX: usize = 1 << 30;

/// How many rows a page of a cursor has.
const PAGE_ROWS_DEFAULT: u32 = 1000;

/// The column of a table that a cursor goes by.
const XID_COLUMN_DEFAULT: &str = "xid";

/// The protocol counts parameters in 16 bits (manual, "Message Formats", Bind), and three are ours.
const PARAMETERS_MAX: usize = u16::MAX as usize - 3;

/// How a query is run again and again ([`EventLoop::poll`](crate::EventLoop::poll)).
#[derive(Debug, Clone)]
#[must_use]
pub struct PollOptions {
    pub(crate) every: Duration,
    pub(crate) adaptive: Option<Duration>,
    pub(crate) wake_on: Option<Vec<u8>>,
    pub(crate) parameters: Vec<Option<String>>,
    pub(crate) binary: bool,
    pub(crate) statement_timeout: Duration,
    pub(crate) bytes_max: usize,
    pub(crate) name: Option<String>,
    pub(crate) cursor: Option<String>,
    pub(crate) from_start: bool,
    pub(crate) xid_column: String,
    pub(crate) order_by: Option<String>,
    pub(crate) page_rows: u32,
    pub(crate) batch_rows: Option<u32>,
    pub(crate) done: Option<String>,
    pub(crate) manual_ack: bool,
}

impl Default for PollOptions {
    fn default() -> Self {
        PollOptions {
            every: EVERY_DEFAULT,
            adaptive: None,
            wake_on: None,
            parameters: Vec::new(),
            binary: false,
            statement_timeout: STATEMENT_TIMEOUT_DEFAULT,
            bytes_max: BYTES_MAX_DEFAULT,
            name: None,
            cursor: None,
            from_start: false,
            xid_column: XID_COLUMN_DEFAULT.into(),
            order_by: None,
            page_rows: PAGE_ROWS_DEFAULT,
            batch_rows: None,
            done: None,
            manual_ack: false,
        }
    }
}

impl PollOptions {
    /// The defaults: every second, values as text, and no query takes longer than 10 s.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long from one query to the next; 1 s unless said otherwise. The next never begins before the rows
    /// of the last were taken: that is when the next event is asked for.
    pub fn every(mut self, every: Duration) -> Self {
        self.every = bounded(every);
        self
    }

    /// While it finds nothing, the interval doubles up to this; once it finds something it is what it was.
    pub fn adaptive(mut self, max: Duration) -> Self {
        self.adaptive = Some(bounded(max));
        self
    }

    /// Polls at once when somebody notifies this channel, and by the interval all the same. The session
    /// listens on it, and delivers its notifications only if it was asked to listen, too.
    pub fn wake_on(mut self, channel: impl AsRef<[u8]>) -> Self {
        self.wake_on = Some(channel.as_ref().to_vec());
        self
    }

    /// The next parameter of the query, `$1`, `$2` …, as text. The server infers its type.
    pub fn parameter(mut self, value: impl Into<String>) -> Self {
        self.parameters.push(Some(value.into()));
        self
    }

    /// The next parameter is NULL.
    pub fn null_parameter(mut self) -> Self {
        self.parameters.push(None);
        self
    }

    /// Values come in PostgreSQL's binary format.
    pub fn binary(mut self, binary: bool) -> Self {
        self.binary = binary;
        self
    }

    /// How long the query may take before the server ends it; then
    /// [`CommandFailed`](crate::CommandFailed) says so, and it is run again at its time. 10 s unless said
    /// otherwise. Zero: as long as it likes, and a server that freezes meanwhile goes unnoticed. While it
    /// runs, the session hears no notification: give a query that takes long a session of its own.
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = bounded(timeout);
        self
    }

    /// How many bytes the rows of one event may have before the connection is given up because of them
    /// (54000): 64 MB unless said otherwise, 16 MB at least, 1 GB at most. Of several polls of a session the
    /// largest counts. A cursor goes on only when they fit: with more bytes, or with fewer
    /// [`page_rows`](Self::page_rows) where not all are of one transaction.
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.bytes_max = bytes.clamp(BYTES_MIN, BYTES_MAX);
        self
    }

    /// What the poll is called in events. Otherwise it is called by its SQL.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Delivers each row of an append-only table once it is committed, at least once, none left out, in
    /// whatever order transactions commit: the database keeps under this name how far was read. The rows of
    /// the query must have a column of type `xid8` that says which transaction wrote them
    /// ([`xid_column`](Self::xid_column)):
    ///
    /// ```sql
    /// ALTER TABLE log ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id();
    /// CREATE INDEX ON log (xid);
    /// ```
    ///
    /// The query has neither LIMIT nor a condition on that column: these are added around it. One with LIMIT
    /// or OFFSET is refused (42601). A row whose `xid` is NULL never comes. The schema `pgwake` must be in
    /// the database. One session at a time reads under a name, by one poll.
    pub fn cursor(mut self, name: impl Into<String>) -> Self {
        self.cursor = Some(name.into());
        self
    }

    /// A cursor that is new begins with the oldest row, not with the next one. One is new until its query was
    /// found to be one that can be run; of one that is not, the log says that this has no effect.
    pub fn from_start(mut self, from_start: bool) -> Self {
        self.from_start = from_start;
        self
    }

    /// The column of the query by which the cursor goes; `xid` unless said otherwise.
    pub fn xid_column(mut self, column: impl Into<String>) -> Self {
        self.xid_column = column.into();
        self
    }

    /// The column that orders the rows of one transaction on a page of the cursor. Otherwise they have no
    /// order. Those of two transactions are ordered by their numbers, which is when they first wrote.
    pub fn order_by(mut self, column: impl Into<String>) -> Self {
        self.order_by = Some(column.into());
        self
    }

    /// How many rows a page of the cursor has; 1000 unless said otherwise. It has more where one transaction
    /// wrote more: those of one come in one event.
    pub fn page_rows(mut self, rows: u32) -> Self {
        self.page_rows = rows;
        self
    }

    /// Locks that many rows for this caller alone, until they are acknowledged: to the query, a SELECT, is
    /// added `LIMIT … FOR UPDATE SKIP LOCKED`. They stay locked within a transaction of this session, so it
    /// has room for nothing else but `wake_on`: it refuses to listen, to notify, to watch, and other polls.
    /// When the connection is lost, the rows are free again for anybody.
    pub fn batch_rows(mut self, rows: u32) -> Self {
        self.batch_rows = Some(rows);
        self
    }

    /// What is run when a batch is acknowledged, in its transaction, so that its rows do not come again:
    /// `DELETE FROM jobs WHERE id = ANY ($1)`. `$1` are the values of the first column of the batch, as an
    /// array; they come as text.
    pub fn done(mut self, sql: impl Into<String>) -> Self {
        self.done = Some(sql.into());
        self
    }

    /// Acknowledges a page or a batch by [`EventLoop::ack`](crate::EventLoop::ack) alone, with the `id` of
    /// its event, which is answered by [`Acknowledged`](crate::Acknowledged), or
    /// [`CommandFailed`](crate::CommandFailed) each time. Otherwise it is acknowledged when the next event is
    /// asked for.
    pub fn manual_ack(mut self, manual_ack: bool) -> Self {
        self.manual_ack = manual_ack;
        self
    }

    /// What is wrong with them, for this query.
    pub(crate) fn check(&self, sql: &str) -> Result<()> {
        let texts = [&self.name, &self.cursor, &self.order_by, &self.done].into_iter().flatten();
        let parameters = self.parameters.iter().flatten();
        let all = || [sql, &self.xid_column].into_iter().chain(texts.clone().map(String::as_str));
        let problem = if all().any(|text| text.trim().is_empty()) {
            "of a poll the query, its name, its cursor, columns and what is done are not empty: leave them \
             out"
        } else if all().chain(parameters.map(String::as_str)).any(|text| text.contains('\0')) {
            "a poll holds a NUL byte: PostgreSQL has none in text"
        } else if self.every < Duration::from_millis(1) {
            "a poll needs an interval of 1 ms at least"
        } else if self.adaptive.is_some_and(|max| max < self.every) {
            "a poll that gets slower while it finds nothing has a longest interval that is not shorter than \
             the first"
        } else if self.parameters.len() > PARAMETERS_MAX {
            "a query has too many parameters: it takes 65532"
        } else if self.cursor.is_some() && self.batch_rows.is_some() {
            "a poll has a cursor or goes in batches, not both: take a cursor for a table that only grows, \
             batches for jobs that are taken out"
        } else if self.page_rows == 0 || self.batch_rows == Some(0) {
            "a page or a batch has one row at least"
        } else if self.batch_rows.is_none() && self.done.is_some() {
            "only the rows of a batch are done with by SQL: say batch_rows, too"
        } else if self.binary && self.done.is_some() {
            "rows that are done with by SQL come as text: leave binary out"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::InvalidArgument, problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_with_what_to_do() {
        let fine = || PollOptions::new().name("n");
        assert!(fine().check("SELECT 1").is_ok());
        for (options, sql, words) in [
            (fine(), " ", "not empty"),
            (fine().cursor(""), "SELECT 1", "not empty"),
            (fine(), "SELECT '\0'", "NUL"),
            (fine().parameter("\0"), "SELECT $1", "NUL"),
            (fine().every(Duration::ZERO), "SELECT 1", "1 ms"),
            (fine().adaptive(Duration::from_millis(999)), "SELECT 1", "longest"),
            (fine().cursor("c").batch_rows(1), "SELECT 1", "not both"),
            (fine().batch_rows(0), "SELECT 1", "one row"),
            (fine().cursor("c").page_rows(0), "SELECT 1", "one row"),
            (fine().done("DELETE"), "SELECT 1", "batch_rows"),
            (fine().batch_rows(1).done("DELETE").binary(true), "SELECT 1", "as text"),
            ((0..PARAMETERS_MAX + 1).fold(fine(), |o, _| o.null_parameter()), "SELECT 1", "65532"),
        ] {
            let error = options.check(sql).unwrap_err();
            assert!(error.kind == ErrorKind::InvalidArgument && error.message.contains(words), "{error}");
        }
    }
}
