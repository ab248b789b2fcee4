//! A table as pgoutput describes it before its first change: the bytes of a message flow in, names and types
//! flow out.

use crate::decode::wire::{Malformed, Reader};

/// A table, or the table that stands for a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Relation<'a> {
    /// What changes call it: its OID.
    pub(crate) id: u32,
    pub(crate) namespace: &'a [u8],
    pub(crate) name: &'a [u8],
    pub(crate) identity: ReplicaIdentity,
    count: u16,
    columns: Reader<'a>,
}

/// What an UPDATE or DELETE tells of the old row (manual, ALTER TABLE, REPLICA IDENTITY).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplicaIdentity {
    /// The columns of the primary key, if there is one.
    Default,
    /// Nothing.
    Nothing,
    /// All columns.
    Full,
    /// The columns of an index.
    Index,
}

/// A column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RelationColumn<'a> {
    pub(crate) name: &'a [u8],
    /// The OID of its type.
    pub(crate) type_oid: u32,
    /// What is said of the type besides, such as a length; -1 for nothing.
    pub(crate) modifier: i32,
    /// Whether it is part of the replica identity; with a full one, each is.
    pub(crate) is_key: bool,
}

impl<'a> Relation<'a> {
    pub(super) fn read(fields: &mut Reader<'a>) -> Result<Self, Malformed> {
        let (id, namespace, name) = (fields.u32()?, namespace(fields)?, fields.string()?);
        let before = *fields;
        let identity = match fields.u8()? {
            b'd' => ReplicaIdentity::Default,
            b'n' => ReplicaIdentity::Nothing,
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            _ => return Err(before.malformed("a replica identity is none of d, n, f and i")),
        };
        let count = fields.count()?;
        let columns = *fields;
        for _ in 0..count {
            RelationColumn::read(fields)?;
        }
        Ok(Relation { id, namespace, name, identity, count, columns })
    }

    /// Its columns, in the order in which rows have them.
    pub(crate) fn columns(&self) -> RelationColumns<'a> {
        RelationColumns { left: self.count, fields: self.columns }
    }
}

impl<'a> RelationColumn<'a> {
    fn read(fields: &mut Reader<'a>) -> Result<Self, Malformed> {
        let is_key = fields.u8()? & 1 != 0;
        Ok(RelationColumn {
            is_key,
            name: fields.string()?,
            type_oid: fields.u32()?,
            modifier: fields.i32()?,
        })
    }
}

/// The columns of a table.
#[derive(Debug, Clone)]
pub(crate) struct RelationColumns<'a> {
    left: u16,
    fields: Reader<'a>,
}

impl<'a> Iterator for RelationColumns<'a> {
    type Item = RelationColumn<'a>;

    fn next(&mut self) -> Option<RelationColumn<'a>> {
        self.left = self.left.checked_sub(1)?;
        // They were read once already, without an error.
        RelationColumn::read(&mut self.fields).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.into(), Some(self.left.into()))
    }
}

impl ExactSizeIterator for RelationColumns<'_> {}

/// The name of a schema; an empty one stands for the server's own.
pub(super) fn namespace<'a>(fields: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let name = fields.string()?;
    Ok(if name.is_empty() { b"pg_catalog" } else { name })
}
