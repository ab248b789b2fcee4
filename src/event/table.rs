//! A table of values as libpq has it: rows by their place, values by the position or the name of their
//! column.

use std::fmt::Debug;

/// What holds the rows of one answer of the server.
pub(crate) trait Cells: Debug {
    fn rows(&self) -> usize;
    /// The names of the columns.
    fn columns(&self) -> &[String];
    /// The OID of a column's type; 0 for one that is not there.
    fn type_oid(&self, column: usize) -> u32;
    /// `None` for NULL, and for what is not there.
    fn value(&self, row: usize, column: usize) -> Option<&[u8]>;
    /// Appends it as JSON.
    fn write_json(&self, row: usize, column: usize, out: &mut String);
}

/// Rows that are lent from where they were received.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a>(pub(crate) &'a dyn Cells);

impl<'a> Table<'a> {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.0.rows()
    }

    /// Never: nothing found brings no event.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the columns. Two may have the same.
    pub fn columns(&self) -> &'a [String] {
        self.0.columns()
    }

    /// The OID of a column's type in `pg_type`; of a domain, of the type below it. 0 for a column that is not
    /// there.
    pub fn type_oid(&self, column: usize) -> u32 {
        self.0.type_oid(column)
    }

    /// A row by its place, from 0 on.
    pub fn row(&self, place: usize) -> Option<Row<'a>> {
        (place < self.len()).then_some(Row { cells: self.0, place })
    }

    /// All rows.
    pub fn iter(&self) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let cells = self.0;
        (0..cells.rows()).map(move |place| Row { cells, place })
    }
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    cells: &'a dyn Cells,
    place: usize,
}

impl<'a> Row<'a> {
    /// A value, by the position of its column from 0 on, or by its name, the first of that name. It is in
    /// PostgreSQL's text form, or in its binary one if the poll asked for that
    /// ([`PollOptions::binary`](crate::PollOptions::binary)); `None` for NULL, and for a column that is not
    /// there.
    pub fn get(&self, column: impl ColumnIndex) -> Option<&'a [u8]> {
        self.cells.value(self.place, column.place_in(self.cells.columns())?)
    }

    /// The same as text, if it is UTF-8.
    pub fn get_str(&self, column: impl ColumnIndex) -> Option<&'a str> {
        std::str::from_utf8(self.get(column)?).ok()
    }

    /// Appends all values as an array of JSON.
    pub fn write_json_array(&self, out: &mut String) {
        for column in 0..self.cells.columns().len() {
            out.push(if column == 0 { '[' } else { ',' });
            self.cells.write_json(self.place, column, out);
        }
        out.push_str(if self.cells.columns().is_empty() { "[]" } else { "]" });
    }

    /// Appends a value as JSON, by the rules by which the log's are written: numbers that JSON has exactly,
    /// booleans, JSON itself and arrays as they are, all else as a string in PostgreSQL's text form.
    pub fn write_json(&self, column: usize, out: &mut String) {
        self.cells.write_json(self.place, column, out);
    }
}

/// What names a column: its position, or its name.
pub trait ColumnIndex: private::Sealed {
    #[doc(hidden)]
    fn place_in(&self, columns: &[String]) -> Option<usize>;
}

impl ColumnIndex for usize {
    fn place_in(&self, columns: &[String]) -> Option<usize> {
        Some(*self).filter(|place| *place < columns.len())
    }
}

impl ColumnIndex for &str {
    fn place_in(&self, columns: &[String]) -> Option<usize> {
        columns.iter().position(|name| name == self)
    }
}

mod private {
    pub trait Sealed {}
    impl Sealed for usize {}
    impl Sealed for &str {}
}
