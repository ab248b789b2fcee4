//! One page of the outbox: rows of changes, and where the next page begins.

use super::statements::from_hex;
use crate::pq::QueryResult;
use std::sync::Arc;

/// What `pgwake.read` gave.
#[derive(Debug)]
pub(super) struct Page {
    rows: QueryResult,
    next: usize,
    changes: usize,
    /// A position within this page is this, and then the id of a change.
    prefix: Arc<str>,
    end: Option<(String, u64)>,
    /// Changes come as hexadecimal digits.
    is_hex: bool,
}

/// One row of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    Change(usize),
    /// That many rows of the outbox were dropped before they were read.
    Gap(u64),
    /// No row of the outbox up to this id is still to come.
    Settled(u64),
    /// The database was restored or copied, and what waited in the original is not here.
    Replaced,
}

impl Page {
    /// `position` is where it begins. `None` for rows that are no page.
    pub(super) fn new(rows: QueryResult, position: &str, is_hex: bool) -> Option<Self> {
        if rows.columns() != 3 {
            return None;
        }
        let kind = |row| rows.value(row, 0).unwrap_or_default();
        let end = rows.rows().checked_sub(1).filter(|last| kind(*last) == b"end").and_then(|last| {
            Some((String::from_utf8(rows.value(last, 2)?.to_vec()).ok()?, number(&rows, last)?))
        });
        let prefix = end.as_ref().map_or_else(String::new, |(end, _)| prefix(position, end));
        let changes = (0..rows.rows()).filter(|row| kind(*row) == b"change").count();
        Some(Page { rows, next: 0, changes, prefix: prefix.into(), end, is_hex })
    }

    pub(super) fn has_end(&self) -> bool {
        self.end.is_some()
    }

    pub(super) fn changes(&self) -> usize {
        self.changes
    }

    pub(super) fn prefix(&self) -> &Arc<str> {
        &self.prefix
    }

    /// Where the next page begins, and whether and when to ask for it.
    pub(super) fn end(self) -> Option<(String, u64)> {
        self.end
    }

    pub(super) fn next_row(&mut self) -> Option<Row> {
        while self.next < self.rows.rows() {
            let row = self.next;
            self.next += 1;
            match self.rows.value(row, 0) {
                Some(b"change") => return Some(Row::Change(row)),
                Some(b"gap") if self.rows.value(row, 2) == Some(b"replaced") => return Some(Row::Replaced),
                Some(b"gap") => {
                    let count = self.rows.value(row, 2).and_then(|text| std::str::from_utf8(text).ok());
                    return Some(Row::Gap(count.and_then(|count| count.parse().ok()).unwrap_or_default()));
                }
                Some(b"settled") => return Some(Row::Settled(number(&self.rows, row).unwrap_or_default())),
                _ => {}
            }
        }
        None
    }

    /// The text of a change, where it is UTF-8 as it stands. Behind it lies a NUL.
    pub(super) fn text(&self, row: usize) -> Option<&str> {
        let text = self.rows.value(row, 2).filter(|_| !self.is_hex)?;
        std::str::from_utf8(text).ok()
    }

    /// The text of any other change, as far as it is text. Behind it lies a NUL, which is not part of it.
    pub(super) fn decode(&self, row: usize, text: &mut String) {
        let given = self.rows.value(row, 2).unwrap_or_default();
        let bytes = self.is_hex.then(|| from_hex(given));
        *text = String::from_utf8_lossy(bytes.as_deref().unwrap_or(given)).into_owned();
    }
}

fn number(rows: &QueryResult, row: usize) -> Option<u64> {
    std::str::from_utf8(rows.value(row, 1)?).ok()?.parse().ok()
}

/// A position is `before|upto|last`; within a window, `upto` is given by where it ends or by where it began.
fn prefix(position: &str, end: &str) -> String {
    let before = position.split('|').next().unwrap_or_default();
    let mut parts = end.split('|');
    let upto = match (parts.next(), parts.next()) {
        (Some(upto), None | Some("")) => upto,
        (_, Some(upto)) => upto,
        (None, None) => "",
    };
    format!("{before}|{upto}|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_within_a_page_is_known_from_its_ends() {
        assert_eq!(prefix("5:5:||", "9:9:||"), "5:5:|9:9:|");
        assert_eq!(prefix("5:5:||", "5:5:|9:9:|4096"), "5:5:|9:9:|");
        assert_eq!(prefix("5:5:|9:9:|4096", "9:9:||"), "5:5:|9:9:|");
        assert_eq!(prefix("5:5:;0;3||", "9:9:;0;7||"), "5:5:;0;3|9:9:;0;7|");
    }
}
