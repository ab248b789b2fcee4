//! What the output plugin pgoutput sends: the bytes of one message flow in, a message flows out that borrows
//! from them. Nothing is allocated, and what was read once is walked over without errors.
//!
//! The formats are those of the manual's "Logical Replication Message Formats", of protocol versions 1 to 4
//! together: PostgreSQL 18 sends version 1 a message of version 2 (the abort of a streamed transaction).

mod relation;
#[cfg(test)]
pub(super) mod tests;
mod tuple;

use super::wire::{Malformed, Reader};
use crate::event::Lsn;
pub(crate) use relation::{Relation, RelationColumn, ReplicaIdentity};
pub(crate) use tuple::{Column, Tuple};

/// One message. Times are microseconds since 2000, as [`time`](super::replication::time) takes them; strings
/// are in the encoding of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    Begin {
        commit_lsn: Lsn,
        committed_at_us: i64,
        xid: u32,
    },
    Commit(Commit),
    /// The transaction came to this server by replication from another one, where its commit is that LSN.
    Origin {
        commit_lsn: Lsn,
        name: &'a [u8],
    },
    Relation(Relation<'a>),
    /// A type that is not built in. Of a domain, the name is that of the type below it.
    Type {
        oid: u32,
        namespace: &'a [u8],
        name: &'a [u8],
    },
    Insert {
        relation: u32,
        new: Tuple<'a>,
    },
    /// The old row comes where the key was changed, or where the replica identity is all columns.
    Update {
        relation: u32,
        old: Option<Old<'a>>,
        new: Tuple<'a>,
    },
    Delete {
        relation: u32,
        old: Old<'a>,
    },
    Truncate {
        relations: RelationIds<'a>,
        cascade: bool,
        restart_identity: bool,
    },
    /// What `pg_logical_emit_message` wrote. One that is not transactional comes outside of transactions.
    Logical {
        lsn: Lsn,
        is_transactional: bool,
        prefix: &'a [u8],
        content: &'a [u8],
    },
    /// A block of a transaction in progress begins; `is_first` if none came before.
    StreamStart {
        xid: u32,
        is_first: bool,
    },
    StreamStop,
    StreamCommit {
        xid: u32,
        commit: Commit,
    },
    /// A subtransaction is rolled back, or all of it if both numbers are the same. Where and when comes to
    /// those alone who asked for `streaming = parallel`.
    StreamAbort {
        xid: u32,
        subxid: u32,
        aborted: Option<(Lsn, i64)>,
    },
    BeginPrepare(Prepared<'a>),
    Prepare(Prepared<'a>),
    CommitPrepared {
        commit: Commit,
        xid: u32,
        gid: &'a [u8],
    },
    RollbackPrepared(RolledBack<'a>),
    StreamPrepare(Prepared<'a>),
    /// One that is younger than this program, and may be passed over.
    Unknown(u8),
}

/// Where and when a transaction was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) commit_lsn: Lsn,
    /// What is acknowledged once the transaction is done with.
    pub(crate) end_lsn: Lsn,
    pub(crate) committed_at_us: i64,
}

/// A transaction that was prepared, to be committed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prepared<'a> {
    pub(crate) prepare_lsn: Lsn,
    pub(crate) end_lsn: Lsn,
    pub(crate) prepared_at_us: i64,
    pub(crate) xid: u32,
    pub(crate) gid: &'a [u8],
}

/// A transaction that was prepared, and is not to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RolledBack<'a> {
    pub(crate) prepare_end_lsn: Lsn,
    pub(crate) end_lsn: Lsn,
    pub(crate) prepared_at_us: i64,
    pub(crate) rolled_back_at_us: i64,
    pub(crate) xid: u32,
    pub(crate) gid: &'a [u8],
}

/// A row before it was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Old<'a> {
    /// Only the columns of the replica identity have their values, the others are NULL.
    Key(Tuple<'a>),
    /// All of it.
    Full(Tuple<'a>),
}

/// Reads one message. Within a block of a streamed transaction, changes and what describes them carry the
/// number of the transaction or subtransaction that they belong to, which is returned with them.
pub(crate) fn read(bytes: &[u8], is_in_stream: bool) -> Result<(Option<u32>, Message<'_>), Malformed> {
    let (tag, mut fields) = Reader::tagged(bytes)?;
    let xid = if is_in_stream { writer(tag, &mut fields)? } else { None };
    let message = match tag {
        b'R' => Message::Relation(Relation::read(&mut fields)?),
        b'I' | b'U' | b'D' | b'T' => change(tag, &mut fields)?,
        b'Y' | b'M' | b'O' => word(tag, &mut fields)?,
        b'S' | b'E' | b'c' | b'A' => streamed(tag, &mut fields)?,
        b'b' | b'P' | b'K' | b'r' | b'p' => two_phase(tag, &mut fields)?,
        b'B' => {
            Message::Begin { commit_lsn: fields.lsn()?, committed_at_us: fields.i64()?, xid: fields.u32()? }
        }
        b'C' => Message::Commit(Commit::read(&mut fields)?),
        _ => return Ok((None, Message::Unknown(tag))),
    };
    fields.finish()?;
    Ok((xid, message))
}

/// Looks at what a message within the block of a streamed transaction is, for somebody who reads it later:
/// whether the block ends with it, or else which transaction or subtransaction it belongs to.
pub(crate) fn look(bytes: &[u8]) -> Result<InStream, Malformed> {
    let (tag, mut fields) = Reader::tagged(bytes)?;
    Ok(if tag == b'E' { InStream::Stop } else { InStream::Of(writer(tag, &mut fields)?) })
}

/// What such a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InStream {
    Stop,
    /// `None` for what says no number.
    Of(Option<u32>),
}

/// The number that stands first in such a message.
#[inline]
fn writer(tag: u8, fields: &mut Reader<'_>) -> Result<Option<u32>, Malformed> {
    let is_numbered = matches!(tag, b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M');
    if is_numbered { fields.u32().map(Some) } else { Ok(None) }
}

fn change<'a>(tag: u8, fields: &mut Reader<'a>) -> Result<Message<'a>, Malformed> {
    if tag == b'T' {
        let count = fields.length()?;
        let flags = fields.u8()?;
        let relations = RelationIds::read(count, fields)?;
        return Ok(Message::Truncate {
            relations,
            cascade: flags & 1 != 0,
            restart_identity: flags & 2 != 0,
        });
    }
    let relation = fields.u32()?;
    Ok(match tag {
        b'I' => Message::Insert { relation, new: new_row(fields)? },
        b'U' => Message::Update { relation, old: Old::read(fields)?, new: new_row(fields)? },
        _ => {
            let before = *fields;
            let old = Old::read(fields)?.ok_or_else(|| before.malformed("an old row is neither K nor O"))?;
            Message::Delete { relation, old }
        }
    })
}

fn new_row<'a>(fields: &mut Reader<'a>) -> Result<Tuple<'a>, Malformed> {
    let before = *fields;
    match fields.u8()? {
        b'N' => Tuple::read(fields),
        _ => Err(before.malformed("a new row does not begin with N")),
    }
}

/// What is said besides of types, messages and origins.
fn word<'a>(tag: u8, fields: &mut Reader<'a>) -> Result<Message<'a>, Malformed> {
    Ok(match tag {
        b'Y' => Message::Type {
            oid: fields.u32()?,
            namespace: relation::namespace(fields)?,
            name: fields.string()?,
        },
        b'M' => {
            let is_transactional = fields.u8()? & 1 != 0;
            let (lsn, prefix, length) = (fields.lsn()?, fields.string()?, fields.length()?);
            Message::Logical { lsn, is_transactional, prefix, content: fields.take(length)? }
        }
        _ => Message::Origin { commit_lsn: fields.lsn()?, name: fields.string()? },
    })
}

fn streamed<'a>(tag: u8, fields: &mut Reader<'a>) -> Result<Message<'a>, Malformed> {
    Ok(match tag {
        b'S' => Message::StreamStart { xid: fields.u32()?, is_first: fields.u8()? != 0 },
        b'E' => Message::StreamStop,
        b'c' => Message::StreamCommit { xid: fields.u32()?, commit: Commit::read(fields)? },
        _ => {
            let (xid, subxid) = (fields.u32()?, fields.u32()?);
            let is_short = fields.rest().is_empty();
            let aborted = if is_short { None } else { Some((fields.lsn()?, fields.i64()?)) };
            Message::StreamAbort { xid, subxid, aborted }
        }
    })
}

fn two_phase<'a>(tag: u8, fields: &mut Reader<'a>) -> Result<Message<'a>, Malformed> {
    // All but the first begin with flags, which are not in use.
    if tag == b'b' {
        return Prepared::read(fields).map(Message::BeginPrepare);
    }
    if tag == b'K' {
        let commit = Commit::read(fields)?;
        return Ok(Message::CommitPrepared { commit, xid: fields.u32()?, gid: fields.string()? });
    }
    fields.u8()?;
    Ok(match tag {
        b'P' => Message::Prepare(Prepared::read(fields)?),
        b'p' => Message::StreamPrepare(Prepared::read(fields)?),
        _ => Message::RollbackPrepared(RolledBack {
            prepare_end_lsn: fields.lsn()?,
            end_lsn: fields.lsn()?,
            prepared_at_us: fields.i64()?,
            rolled_back_at_us: fields.i64()?,
            xid: fields.u32()?,
            gid: fields.string()?,
        }),
    })
}

impl Commit {
    /// With the flags before it, which are not in use.
    fn read(fields: &mut Reader<'_>) -> Result<Self, Malformed> {
        fields.u8()?;
        Ok(Commit { commit_lsn: fields.lsn()?, end_lsn: fields.lsn()?, committed_at_us: fields.i64()? })
    }
}

impl<'a> Prepared<'a> {
    fn read(fields: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Prepared {
            prepare_lsn: fields.lsn()?,
            end_lsn: fields.lsn()?,
            prepared_at_us: fields.i64()?,
            xid: fields.u32()?,
            gid: fields.string()?,
        })
    }
}

impl<'a> Old<'a> {
    /// Steps over an old row, if there is one.
    fn read(fields: &mut Reader<'a>) -> Result<Option<Self>, Malformed> {
        let form: fn(Tuple<'a>) -> Self = match fields.rest().first() {
            Some(b'K') => Old::Key,
            Some(b'O') => Old::Full,
            _ => return Ok(None),
        };
        fields.u8()?;
        Ok(Some(form(Tuple::read(fields)?)))
    }
}

/// The relations that were truncated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RelationIds<'a> {
    ids: &'a [[u8; 4]],
}

impl<'a> RelationIds<'a> {
    fn read(count: usize, fields: &mut Reader<'a>) -> Result<Self, Malformed> {
        let bytes = count.checked_mul(4).ok_or_else(|| fields.malformed("it counts too many relations"))?;
        let (ids, _) = fields.take(bytes)?.as_chunks();
        Ok(RelationIds { ids })
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        self.ids.iter().map(|id| u32::from_be_bytes(*id))
    }
}
