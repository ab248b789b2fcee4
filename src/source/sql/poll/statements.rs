//! What polls say to the server, as SQL.

use crate::error::Result;
use crate::options::PollOptions;
use crate::source::sql::first_statement::refuse;
use std::ffi::CString;
use std::time::Duration;

/// What holds for the transaction of one query alone. It has no rows, so that a query without any has none.
pub(super) const SETTINGS: &[u8] =
    b"SELECT WHERE pg_catalog.set_config('statement_timeout', $1, true) IS NULL";
/// The same where the database has another encoding: queries are given, and rows delivered, in UTF-8.
pub(super) const SETTINGS_CONVERTED: &[u8] = b"SELECT WHERE pg_catalog.concat( \
    pg_catalog.set_config('statement_timeout', $1, true), \
    pg_catalog.set_config('client_encoding', 'UTF8', true)) IS NULL";
pub(super) const BEGIN: &[u8] = b"BEGIN";
pub(super) const COMMIT: &[u8] = b"COMMIT";
pub(super) const ROLLBACK: &[u8] = b"ROLLBACK";
pub(super) const OPEN: &[u8] = b"SELECT \"position\", replaced FROM pgwake.open_cursor( \
    pg_catalog.convert_from($1::bytea, 'UTF8'), $2::bool)";
/// What that gives for a cursor which begins with the oldest row.
pub(super) const START: &[u8] = b"1:1:||";
pub(super) const KEEP: &[u8] = b"SELECT pgwake.keep_cursor(pg_catalog.convert_from($1::bytea, 'UTF8'), $2)";
pub(super) const CLOSE: &[u8] = b"SELECT pgwake.close_cursor(pg_catalog.convert_from($1::bytea, 'UTF8'))";

/// The caller's query as it is sent.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) sql: Vec<u8>,
    /// Finds nothing, and is refused where the query of a cursor would be.
    pub(super) check: Vec<u8>,
    pub(super) timeout: CString,
}

impl Query {
    pub(super) fn new(sql: &str, options: &PollOptions) -> Result<Self> {
        Ok(Query {
            sql: query(sql, options)?,
            check: check(sql, options).into_bytes(),
            timeout: c_string(timeout_ms(options.statement_timeout).to_string()),
        })
    }
}

/// As the server takes it: in milliseconds of 31 bits, and 0 for never, which a part of one does not mean.
fn timeout_ms(timeout: Duration) -> u128 {
    if timeout.is_zero() { 0 } else { timeout.as_millis().clamp(1, i32::MAX as u128) }
}

fn query(sql: &str, options: &PollOptions) -> Result<Vec<u8>> {
    let sql = bare(sql);
    refuse("a poll runs one query after the other", sql)?;
    Ok(match (&options.cursor, options.batch_rows) {
        (Some(_), _) => page(sql, options),
        (None, Some(rows)) => format!("{sql}\nLIMIT {rows} FOR UPDATE SKIP LOCKED"),
        (None, None) => sql.into(),
    }
    .into_bytes())
}

/// Without what would end it.
fn bare(sql: &str) -> &str {
    sql.trim().trim_end_matches(';').trim_end()
}

/// The query of a page. The last three parameters are the parts of the position. Where nothing is found there
/// is one row all the same, which says up to which snapshot that holds.
fn page(sql: &str, options: &PollOptions) -> String {
    let (xid, rows) = (quoted(&options.xid_column), options.page_rows);
    let order = options.order_by.as_ref().map_or(String::new(), |by| format!(", page.{}", quoted(by)));
    let [before, upto, last] = [1, 2, 3].map(|place| format!("${}", options.parameters.len() + place));
    format!(
        "SELECT page.*, snapshot.upto::pg_catalog.text FROM (SELECT coalesce({upto}::pg_catalog.pg_snapshot, \
         pg_catalog.pg_current_snapshot()) AS upto) AS snapshot LEFT JOIN LATERAL (SELECT poll.*, \
         poll.{xid}::pg_catalog.text AS pgwake_xid FROM (\n{sql}\n) AS poll \
         WHERE (poll.{xid} >= pg_catalog.pg_snapshot_xmax({before}::pg_catalog.pg_snapshot) OR poll.{xid} = \
         ANY (ARRAY(SELECT pg_catalog.pg_snapshot_xip({before})))) AND poll.{xid} > {last}::pg_catalog.xid8 \
         AND pg_catalog.pg_visible_in_snapshot(poll.{xid}, snapshot.upto) \
         ORDER BY poll.{xid} FETCH FIRST {rows} ROWS WITH TIES) AS page ON true ORDER BY page.{xid}{order}"
    )
}

/// The server reads and plans the query of a cursor, and looks whether the role may run it. A LIMIT would
/// leave out rows that the position passes: in front of another one the server refuses it.
fn check(sql: &str, options: &PollOptions) -> String {
    let (sql, xid) = (bare(sql), quoted(&options.xid_column));
    let order =
        options.order_by.as_ref().map_or(String::new(), |by| format!(" ORDER BY poll.{}", quoted(by)));
    format!(
        "SELECT FROM (\n{sql}\nLIMIT ALL OFFSET 0) AS poll WHERE poll.{xid} > '0'::pg_catalog.xid8 AND \
         false{order}"
    )
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Texts for libpq, which were found to have no NUL.
pub(super) fn c_string(text: impl Into<Vec<u8>>) -> CString {
    CString::new(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(sql: &str, options: PollOptions) -> String {
        String::from_utf8(query(sql, &options).unwrap()).unwrap()
    }

    #[test]
    fn a_query_is_sent_as_it_is_and_a_batch_with_its_lock() {
        assert_eq!(sent(" SELECT 1 -- one\n;; ", PollOptions::new()), "SELECT 1 -- one");
        let batch = sent("SELECT * FROM jobs -- all", PollOptions::new().batch_rows(7));
        assert_eq!(batch, "SELECT * FROM jobs -- all\nLIMIT 7 FOR UPDATE SKIP LOCKED");
    }

    #[test]
    fn only_no_time_at_all_means_never() {
        let times = [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(2), Duration::MAX];
        assert_eq!(times.map(timeout_ms), [0, 1, 2, 2147483647]);
    }

    #[test]
    fn the_parts_of_a_position_come_behind_the_callers_parameters() {
        let options = PollOptions::new().cursor("c").xid_column("x\"y").parameter("1");
        let page = sent("SELECT * FROM log WHERE kind = $1", options.order_by("id"));
        assert!(
            page.contains("coalesce($3::") && page.contains("> $4::") && page.contains("_xip($2)"),
            "{page}"
        );
        assert!(page.ends_with("ORDER BY page.\"x\"\"y\", page.\"id\""), "{page}");
    }

    #[test]
    fn what_the_check_adds_stands_behind_a_comment_of_the_query() {
        let options = PollOptions::new().cursor("c").order_by("id");
        let check = Query::new("SELECT * FROM log -- all;", &options).unwrap().check;
        let check = String::from_utf8(check).unwrap();
        assert!(check.contains("-- all\nLIMIT ALL OFFSET 0) AS poll WHERE poll.\"xid\" > "), "{check}");
        assert!(check.ends_with("AND false ORDER BY poll.\"id\""), "{check}");
    }

    #[test]
    fn what_is_no_query_is_refused() {
        for (bad, words) in [
            ("COPY t TO STDOUT", "COPY is none"),
            ("begin", "BEGIN is none"),
            (" Start transaction", "START is none"),
            ("/* x */ begin", "BEGIN is none"),
            (";begin", "BEGIN is none"),
            ("-- x\n listen c", "LISTEN is none"),
            (";", "nothing to run"),
            ("-- SELECT 1", "nothing to run"),
        ] {
            let error = query(bad, &PollOptions::new()).unwrap_err();
            assert!(error.message.contains(words), "{bad}: {error}");
        }
        for fine in ["SELECT * FROM copy", "(SELECT 1)", "/* begin */ SELECT 1"] {
            assert_eq!(sent(fine, PollOptions::new()), fine);
        }
    }
}
