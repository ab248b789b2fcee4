//! Rows that are there before the stream begins: COPY of each published table, in the snapshot with which the
//! slot was made, on the same session. What comes is COPY's text format (manual, COPY, "Text Format").

use super::relations::{FIRST_NAMED, Relations};
use super::row::Row;
use super::sql::{Answered, identifier};
use crate::decode::pgoutput::{RelationColumn, ReplicaIdentity};
use crate::decode::wire::Malformed;
use std::borrow::Cow;
use std::collections::VecDeque;

/// A table of which rows are wanted.
#[derive(Debug)]
struct Table {
    oid: u32,
    /// Its name in SQL, with ONLY where its children are not meant.
    name: String,
    copy: String,
}

#[derive(Debug, Default)]
pub(super) struct Tables {
    waiting: VecDeque<Table>,
    /// The one whose rows come now.
    current: u32,
    /// How many rows have come of all, and how many of them were acknowledged.
    pub(super) rows: u64,
    acknowledged: u64,
}

/// One column as the server describes it.
struct Column {
    name: String,
    type_oid: u32,
    modifier: i32,
    is_key: bool,
}

impl Tables {
    /// Takes the answer that names the tables and their columns.
    pub(super) fn found(&mut self, rows: &Answered, relations: &mut Relations) {
        self.waiting.clear();
        (self.rows, self.acknowledged) = (0, 0);
        let oid = |row| rows.number(row, 0).unwrap_or(0) as u32;
        let mut row = 0;
        while row < rows.rows() {
            let first = row;
            let mut columns = Vec::new();
            while row < rows.rows() && oid(row) == oid(first) {
                let type_oid = rows.number(row, 6).unwrap_or(0) as u32;
                if type_oid >= FIRST_NAMED {
                    let [schema, name] = [11, 12].map(|column| rows.text(row, column).unwrap_or_default());
                    relations.name_type(type_oid, schema.as_bytes(), name.as_bytes());
                }
                columns.push(Column {
                    name: rows.text(row, 5).unwrap_or_default(),
                    type_oid,
                    modifier: rows.number(row, 7).unwrap_or(-1) as i32,
                    is_key: rows.text(row, 8).as_deref() == Some("t"),
                });
                row += 1;
            }
            self.add(rows, first, &columns, relations);
        }
    }

    fn add(&mut self, rows: &Answered, row: usize, columns: &[Column], relations: &mut Relations) {
        let oid = rows.number(row, 0).unwrap_or(0) as u32;
        let [schema, table] = [1, 2].map(|column| rows.text(row, column).unwrap_or_default());
        let names: Vec<_> = columns.iter().map(|column| identifier(&column.name)).collect();
        // Children of an inherited table are published under their own names.
        let only = if rows.text(row, 3).as_deref() == Some("t") { "" } else { "ONLY " };
        let filter = match (rows.text(row, 9).as_deref(), rows.text(row, 10)) {
            (Some("f"), Some(filter)) => format!(" WHERE {filter}"),
            _ => String::new(),
        };
        let name = format!("{only}{}.{}", identifier(&schema), identifier(&table));
        let copy = format!("COPY (SELECT {} FROM {name}{filter}) TO STDOUT", names.join(", "));
        let identity = match rows.text(row, 4).as_deref() {
            Some("f") => ReplicaIdentity::Full,
            _ => ReplicaIdentity::Default,
        };
        let described = columns.iter().map(|column| RelationColumn {
            name: column.name.as_bytes(),
            type_oid: column.type_oid,
            modifier: column.modifier,
            is_key: column.is_key,
        });
        let number = relations.next_number();
        relations.describe(number, oid, (schema.as_bytes(), table.as_bytes()), identity, described);
        self.waiting.push_back(Table { oid, name, copy });
    }

    /// The names of those that wait, as SQL has them.
    pub(super) fn names(&self) -> Vec<String> {
        self.waiting.iter().map(|table| table.name.clone()).collect()
    }

    /// The command that copies the next table.
    pub(super) fn next_table(&mut self) -> Option<String> {
        let Table { oid, copy, .. } = self.waiting.pop_front()?;
        self.current = oid;
        Some(copy)
    }

    /// All rows that have come are done with.
    pub(super) fn acknowledge(&mut self) {
        self.acknowledged = self.rows;
    }

    pub(super) fn is_acknowledged(&self) -> bool {
        self.acknowledged == self.rows
    }

    /// The table whose rows come now.
    pub(super) fn current(&self) -> u32 {
        self.current
    }

    /// Takes one line.
    pub(super) fn read(
        &mut self,
        line: &[u8],
        relations: &Relations,
        row: &mut Row,
    ) -> Result<(), Malformed> {
        let Some(relation) = relations.get(self.current) else { return Ok(()) };
        self.rows += 1;
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if !line.contains(&b'\\') {
            return row.copied(self.current, relation, line.split(|byte| *byte == b'\t').map(Some));
        }
        let values: Vec<_> = line.split(|byte| *byte == b'\t').map(unescape).collect();
        row.copied(self.current, relation, values.iter().map(|value| value.as_deref()))
    }
}

/// A value as it was before COPY escaped it; `None` is NULL.
fn unescape(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    if value == b"\\N" {
        return None;
    }
    if !value.contains(&b'\\') {
        return Some(value.into());
    }
    let mut plain = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        let escaped = if byte == b'\\' { bytes.next() } else { None };
        plain.push(match escaped {
            None => byte,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 11,
            Some(&other) => other,
        });
    }
    Some(plain.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_copy_is_what_it_was() {
        for (copied, plain) in [
            (&b"plain"[..], Some(&b"plain"[..])),
            (b"", Some(b"")),
            (b"\\N", None),
            (b"\\\\N", Some(b"\\N")),
            (b"a\\tb\\nc\\rd\\\\e", Some(b"a\tb\nc\rd\\e")),
            (b"\\b\\f\\v\\.", Some(b"\x08\x0c\x0b.")),
        ] {
            assert_eq!(unescape(copied).as_deref(), plain, "{}", copied.escape_ascii());
        }
    }
}
