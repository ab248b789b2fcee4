//! A row as pgoutput sends it: the bytes of a message flow in, its columns flow out.

use crate::decode::wire::{Malformed, Reader};

/// A row of which every length is known to be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tuple<'a> {
    count: u16,
    columns: Reader<'a>,
}

/// What a row holds in one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column<'a> {
    /// NULL. In a key, so is every column that is not part of the key.
    Null,
    /// A value outside of the row (TOAST) that the statement left as it was. An old row that comes whole has
    /// it.
    Unchanged,
    /// What the type's output function gave.
    Text(&'a [u8]),
    /// What the type's send function gave.
    Binary(&'a [u8]),
}

impl<'a> Tuple<'a> {
    /// Steps over a row, and looks at all of it.
    pub(super) fn read(fields: &mut Reader<'a>) -> Result<Self, Malformed> {
        let count = fields.count()?;
        let columns = *fields;
        for _ in 0..count {
            Column::read(fields)?;
        }
        Ok(Tuple { count, columns })
    }

    /// Its columns, in the order of the relation's.
    pub(crate) fn columns(&self) -> Columns<'a> {
        Columns { left: self.count, fields: self.columns }
    }
}

impl<'a> Column<'a> {
    #[inline]
    fn read(fields: &mut Reader<'a>) -> Result<Self, Malformed> {
        let before = *fields;
        let (is_text, length) = match fields.u8()? {
            b'n' => return Ok(Column::Null),
            b'u' => return Ok(Column::Unchanged),
            form @ (b't' | b'b') => (form == b't', fields.length()?),
            _ => return Err(before.malformed("a column comes in an unknown form")),
        };
        let value = fields.take(length)?;
        Ok(if is_text { Column::Text(value) } else { Column::Binary(value) })
    }
}

/// The columns of a row.
#[derive(Debug, Clone)]
pub(crate) struct Columns<'a> {
    left: u16,
    fields: Reader<'a>,
}

impl<'a> Iterator for Columns<'a> {
    type Item = Column<'a>;

    #[inline]
    fn next(&mut self) -> Option<Column<'a>> {
        self.left = self.left.checked_sub(1)?;
        // They were read once already, without an error.
        Column::read(&mut self.fields).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.into(), Some(self.left.into()))
    }
}

impl ExactSizeIterator for Columns<'_> {}
