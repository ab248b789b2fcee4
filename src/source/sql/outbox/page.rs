//! One page of the outbox: rows of changes, and where the next page begins.

use crate::pq::QueryResult;
use std::fmt;
use std::sync::Arc;

/// How far the outbox was read: up to and including a change or gap, or to the end of a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) text: Arc<str>,
    /// Within a page, of the change or gap behind which it is. Then it belongs behind the text.
    pub(super) number: Option<u64>,
}

impl Position {
    /// As the server gives it.
    pub(super) fn of(text: &[u8]) -> Self {
        Position { text: String::from_utf8_lossy(text).into(), number: None }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.number.map_or(Ok(()), |number| write!(f, "{number}"))
    }
}

/// What `pgwake.read` gave: `kind`, `number` and `body`.
#[derive(Debug)]
pub(super) struct Page {
    rows: QueryResult,
    next: usize,
    /// How many changes it has.
    pub(super) changes: usize,
    prefix: Arc<str>,
    /// Where the next page begins, and when to ask for it.
    pub(super) end: Position,
    pub(super) advice: u64,
}

/// One row of a page.
#[derive(Debug)]
pub(super) enum Row {
    /// Its text, as far as it is text.
    Change(String),
    /// That many rows of the outbox were dropped before they were read.
    Dropped(u64),
    /// The database was restored or copied, and what waited in the original is not here.
    Replaced,
}

impl Page {
    /// `begin` is where it begins. `None` for rows that are no page.
    pub(super) fn new(rows: QueryResult, begin: &Position) -> Option<Self> {
        let last = rows.rows().checked_sub(1).filter(|last| rows.value(*last, 0) == Some(b"end"))?;
        let (end, advice) = (Position::of(rows.value(last, 2)?), number(rows.value(last, 1)?)?);
        let changes = (0..last).filter(|row| rows.value(*row, 0) == Some(b"change")).count();
        Some(Page { next: 0, changes, prefix: prefix(&begin.text, &end.text).into(), end, advice, rows })
    }

    /// The next row, and the position behind it.
    pub(super) fn next_row(&mut self) -> Option<(Row, Position)> {
        while self.next < self.rows.rows() {
            let [kind, id, body] = [0, 1, 2].map(|column| self.rows.value(self.next, column));
            self.next += 1;
            let row = match (kind, body.unwrap_or_default()) {
                (Some(b"change"), text) => Row::Change(String::from_utf8_lossy(text).into_owned()),
                (Some(b"gap"), b"replaced") => Row::Replaced,
                (Some(b"gap"), dropped) => Row::Dropped(number(dropped).unwrap_or_default()),
                _ => continue,
            };
            return Some((row, Position { text: self.prefix.clone(), number: id.and_then(number) }));
        }
        None
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// With the number of a change or gap behind it, a position within a page. Positions are `before|upto|last`:
/// within a window, `upto` is given by where it ends or by where it began.
fn prefix(begin: &str, end: &str) -> String {
    let before = begin.split('|').next().unwrap_or_default();
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
        let position = Position { text: "5:5:|9:9:|".into(), number: Some(17) };
        assert_eq!(position.to_string(), "5:5:|9:9:|17");
    }
}
