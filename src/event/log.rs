//! What the write-ahead log has besides row changes: transactions, messages, and the columns of tables.

use super::column::TableColumn;
use super::fields::{Fields, Value};
use super::names::{Lsn, Position, SessionId};
use crate::text::Text;
use std::time::SystemTime;

/// A transaction begins or ends. Both come only when the stream was asked for them
/// ([`StreamOptions::transactions`](crate::StreamOptions::transactions)).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Transaction<'a> {
    /// The session.
    pub session: SessionId,
    /// The database's name.
    pub db: &'a str,
    /// The transaction.
    pub xid: u64,
    /// Where its commit, or its PREPARE TRANSACTION, stands in the log. `None` at the begin of each part of
    /// one that is delivered before it is committed.
    pub lsn: Option<Lsn>,
    /// Where that ends: what is acknowledged. `None` at the begin of a transaction.
    pub end_lsn: Option<Lsn>,
    /// When it was committed or prepared, by the server's clock.
    pub committed_at: Option<SystemTime>,
    /// What a prepared transaction is called.
    pub gid: Option<&'a str>,
    /// Where this event stands in the log for ever.
    pub position: Option<Position>,
}

impl Transaction<'_> {
    pub(super) fn fields(&self, fields: &mut impl Fields) {
        fields.field("xid", Value::Number(self.xid), "{}");
        fields.field("lsn", Value::of(self.lsn.map(Value::Lsn)), "  at {}");
        fields.if_any("end_lsn", self.end_lsn.map(Value::Lsn), "");
        fields.if_any("committed_at", self.committed_at.map(Value::Time), "  {}");
        fields.if_any("gid", self.gid.map(Value::Text), "  {}");
        fields.if_any("position", self.position.map(Value::Position), "");
    }
}

/// Somebody wrote a message into the log (`pg_logical_emit_message`).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Message<'a> {
    /// The session.
    pub session: SessionId,
    /// The database's name.
    pub db: &'a str,
    /// Its prefix, which serves as a channel: in the server's encoding where the stream has channels alone
    /// ([`EventLoop::subscribe`](crate::EventLoop::subscribe)), in UTF-8 otherwise.
    pub channel: Text<'a>,
    /// Its content, whatever bytes that are: text is in the server's encoding.
    pub payload: &'a [u8],
    /// Where it ends in the log.
    pub lsn: Lsn,
    /// Whether it belongs to a transaction, and came with its commit.
    pub transactional: bool,
    /// That transaction.
    pub xid: Option<u64>,
    /// Where this event stands in the log for ever; `None` while its transaction is not committed.
    pub position: Option<Position>,
}

impl Message<'_> {
    pub(super) fn fields(&self, fields: &mut impl Fields) {
        fields.field("channel", Value::Bytes(&self.channel), "{}");
        fields.field("payload", Value::Bytes(self.payload), "  {}");
        fields.field("lsn", Value::Lsn(self.lsn), "");
        fields.field("transactional", Value::Flag(self.transactional), "");
        fields.field("xid", Value::of(self.xid.map(Value::Number)), "");
        fields.if_any("position", self.position.map(Value::Position), "");
    }
}

/// What columns a table has: once before its first change, and again only when they differ.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Schema<'a> {
    /// The session.
    pub session: SessionId,
    /// The database's name.
    pub db: &'a str,
    /// The table's schema.
    pub schema: &'a str,
    /// The table.
    pub table: &'a str,
    /// Its columns that are published, in their order.
    pub columns: &'a [TableColumn],
}

impl Schema<'_> {
    pub(super) fn fields(&self, fields: &mut impl Fields) {
        fields.field("schema", Value::Text(self.schema), "{}");
        fields.field("table", Value::Text(self.table), ".{}");
        fields.field("columns", Value::Columns(self.columns), "  {}");
    }
}
