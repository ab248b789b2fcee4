//! How far a table that only grows was read: the difference of two snapshots, page by page, as the outbox is
//! read (`install/sql/21_poll.sql`).

use super::answer::Answer;
use crate::pq::QueryResult;

/// Everything visible in `before` was read. When `upto` is there, what is visible in it and not in `before`
/// is being read in the order of the transactions' numbers, up to and including `last`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) before: String,
    pub(super) upto: Option<String>,
    pub(super) last: Option<String>,
}

/// What a page came to.
#[derive(Debug)]
pub(super) struct Page {
    /// Its rows, if it has any.
    pub(super) rows: Option<Answer>,
    /// Where the next page begins.
    pub(super) end: Cursor,
    /// There is more to be had at once.
    pub(super) has_more: bool,
}

/// Behind the caller's columns stand the transaction's number and the snapshot.
const OWN_COLUMNS: usize = 2;

impl Cursor {
    /// A position as the database keeps it.
    pub(super) fn of(position: &[u8]) -> Self {
        let text = String::from_utf8_lossy(position);
        let mut parts = text.split('|').map(String::from);
        let before = parts.next().unwrap_or_default();
        let [upto, last] = [parts.next(), parts.next()].map(|part| part.filter(|part| !part.is_empty()));
        Cursor { before, upto, last }
    }

    pub(super) fn position(&self) -> String {
        let [upto, last] = [&self.upto, &self.last].map(|part| part.as_deref().unwrap_or_default());
        format!("{}|{upto}|{last}", self.before)
    }

    /// What of the answer is rows, and where it ends. `None` for what is no page.
    pub(super) fn page(&self, result: QueryResult, rows_max: u32, is_binary: bool) -> Option<Page> {
        let own = result.columns().checked_sub(OWN_COLUMNS)?;
        let text = |row: usize, column: usize| {
            result.value(row, column).map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let upto = text(0, own + 1)?;
        let last = text(result.rows() - 1, own);
        let is_full = last.is_some() && result.rows() >= rows_max as usize;
        let end = if is_full {
            Cursor { before: self.before.clone(), upto: Some(upto), last: last.clone() }
        } else {
            Cursor { before: upto, upto: None, last: None }
        };
        let rows = last.map(|_| Answer::new(result, OWN_COLUMNS, is_binary));
        Some(Page { rows, end, has_more: is_full })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pq::rows;

    #[test]
    fn a_page_ends_where_the_next_begins() {
        let start = Cursor::of(b"5:5:||");
        assert_eq!(start, Cursor { before: "5:5:".into(), upto: None, last: None });
        let row = |id, xid| [Some(id), Some(xid), Some("9:9:7")];
        let full = start.page(rows(&[row("1", "5"), row("2", "6")]), 2, false).unwrap();
        assert_eq!((full.end.position().as_str(), full.has_more), ("5:5:|9:9:7|6", true));
        assert_eq!(Cursor::of(b"5:5:|9:9:7|6"), full.end);
        let rest = full.end.page(rows(&[row("3", "8")]), 2, false).unwrap();
        assert_eq!((rest.end.position().as_str(), rest.has_more), ("9:9:7||", false));
        assert!(full.rows.is_some() && rest.rows.is_some());
        let empty = full.end.page(rows(&[[None, None, Some("9:9:7")]]), 1, false).unwrap();
        assert_eq!(
            (empty.end.position().as_str(), empty.has_more, empty.rows.is_none()),
            ("9:9:7||", false, true)
        );
        assert!(start.page(rows(&[[None]]), 1, false).is_none(), "another query's answer");
    }
}
