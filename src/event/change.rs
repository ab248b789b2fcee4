//! Row changes, as they are delivered to the caller.

use super::fields::{Fields, Value};
use super::names::{Lsn, Position, SessionId};
use std::time::SystemTime;

/// What was done to a row, or to all rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangeOp {
    /// A row is new.
    Insert,
    /// A row has other values.
    Update,
    /// A row is gone.
    Delete,
    /// All rows of the table are gone.
    Truncate,
}

impl ChangeOp {
    /// All of them.
    pub const ALL: [ChangeOp; 4] = [ChangeOp::Insert, ChangeOp::Update, ChangeOp::Delete, ChangeOp::Truncate];

    /// The word used in JSON, in SQL and in C.
    pub fn as_str(&self) -> &'static str {
        match self {
            ChangeOp::Insert => "insert",
            ChangeOp::Update => "update",
            ChangeOp::Delete => "delete",
            ChangeOp::Truncate => "truncate",
        }
    }
}

/// How changes come from the table to the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Transport {
    /// Through the outbox, tables of the schema `pgwake`: at least once, and durable.
    #[default]
    Outbox,
    /// As notifications: at most once. All writers of the cluster queue for NOTIFY.
    Notify,
    /// From the write-ahead log itself ([`EventLoop::stream`](crate::EventLoop::stream)): at least once, and
    /// at no cost for the writers. [`watch_with`](crate::EventLoop::watch_with) refuses it, for it needs a
    /// connection of another kind.
    Wal,
}

impl Transport {
    /// The word used in JSON, in SQL and in C.
    pub fn as_str(&self) -> &'static str {
        match self {
            Transport::Outbox => "outbox",
            Transport::Notify => "notify",
            Transport::Wal => "wal",
        }
    }
}

/// A row of a watched table was changed. Values are JSON as PostgreSQL wrote it, in UTF-8; with feature
/// `json` `key_as`, `old_as` and `new_as` turn them into types.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Change<'a> {
    /// The session.
    pub session: SessionId,
    /// The database's name.
    pub db: &'a str,
    /// What was done.
    pub op: ChangeOp,
    /// The schema of the table that is watched.
    pub schema: &'a str,
    /// The table that is watched.
    pub table: &'a str,
    /// The partition or child that was changed, if it is not the table itself; a name as SQL takes it.
    pub partition: Option<&'a str>,
    /// The columns of the primary key, an object; after an update the new ones. `None` for a table without a
    /// key, for TRUNCATE, and with [`ChangePayload::Wake`](crate::ChangePayload). From the log it is those of
    /// the replica identity; where that is FULL, those of the primary key that the table had when the stream
    /// connected, and `None` once they were moved or renamed.
    pub key: Option<&'a str>,
    /// What the row was, an object: of an update that changed its key only that, of other changes what the
    /// watch's payload says.
    pub old: Option<&'a str>,
    /// What the row is now, an object, as far as the watch's payload says.
    pub new: Option<&'a str>,
    /// The names of the columns that an update changed, an array. From the log only where the old row is
    /// whole (REPLICA IDENTITY FULL).
    pub changed: Option<&'a str>,
    /// The names of columns, an array, whose values an update has left as they were, and which the log does
    /// not have: large ones that are stored apart (TOAST). They are missing in `new`.
    pub unchanged_toast: Option<&'a str>,
    /// Why values are missing: the SQLSTATE of a conversion that failed in the writer's statement.
    pub unconvertible: Option<&'a str>,
    /// Why all values are missing: they have that many bytes, which is more than 8 MB. `SELECT
    /// pgwake.fetch(id)` gives them, with the other changes of the same outbox row, as long as the outbox has
    /// them.
    pub oversize: Option<u64>,
    /// The transaction; of one that is delivered before it is committed, the subtransaction.
    pub xid: Option<u64>,
    /// The change's number: the same when it comes again, and another one for each other change. That of what
    /// was notified ([`Transport::Notify`]) cannot be acknowledged, for it is not kept.
    pub id: Option<u64>,
    /// How it came.
    pub transport: Transport,
    /// Where the change itself stands in the log. Many changes may share one place.
    pub lsn: Option<Lsn>,
    /// Where the commit of its transaction stands in the log. With `ordinal` this is the order of changes.
    /// `None` of what is delivered before it is committed.
    pub commit_lsn: Option<Lsn>,
    /// Its place within the transaction, from 1 on.
    pub ordinal: Option<u64>,
    /// When its transaction was committed, by the server's clock.
    pub committed_at: Option<SystemTime>,
    /// It is no change, but a row that was there when the stream began.
    pub snapshot: bool,
    /// All of it, an object, as the outbox has it; empty of what comes from the log.
    pub json: &'a str,
}

impl<'a> Change<'a> {
    /// A change of which no more is known than that.
    pub(crate) fn of(session: SessionId, db: &'a str, op: ChangeOp, schema: &'a str, table: &'a str) -> Self {
        Change {
            session,
            db,
            op,
            schema,
            table,
            partition: None,
            key: None,
            old: None,
            new: None,
            changed: None,
            unchanged_toast: None,
            unconvertible: None,
            oversize: None,
            xid: None,
            id: None,
            transport: Transport::Outbox,
            lsn: None,
            commit_lsn: None,
            ordinal: None,
            committed_at: None,
            snapshot: false,
            json: "",
        }
    }

    /// Where it stands in its source for ever. `None` of what was notified, for that is not kept, and of what
    /// is delivered before it is committed.
    pub fn position(&self) -> Option<Position> {
        match (self.commit_lsn, self.ordinal, self.id) {
            (Some(commit_lsn), Some(ordinal), _) => Some(Position::Log(commit_lsn, ordinal)),
            (.., Some(id)) if self.transport == Transport::Outbox => Some(Position::Outbox(id)),
            _ => None,
        }
    }

    pub(super) fn fields(&self, fields: &mut impl Fields) {
        fields.field("op", Value::Text(self.op.as_str()), "");
        fields.field("schema", Value::Text(self.schema), "{}");
        fields.field("table", Value::Text(self.table), ".{}");
        fields.if_any("partition", self.partition.map(Value::Text), "");
        fields.field("key", Value::of(self.key.map(Value::Json)), "  {}");
        fields.if_any("old", self.old.map(Value::Json), "  old {}");
        fields.if_any("new", self.new.map(Value::Json), "  new {}");
        fields.if_any("changed", self.changed.map(Value::Json), "  changed {}");
        let unchanged = self.unchanged_toast.map(Value::Json);
        fields.if_any("unchanged_toast", unchanged, "  (left out, for they are as they were: {})");
        let unconvertible = self.unconvertible.map(Value::Text);
        fields.if_any("unconvertible", unconvertible, "  (its values could not be converted: {})");
        let oversize = self.oversize.map(Value::Number);
        fields.if_any("oversize", oversize, "  (its values have {} bytes: too many)");
        fields.field("xid", Value::of(self.xid.map(Value::Number)), "");
        fields.if_any("id", self.id.map(Value::Number), "");
        fields.field("transport", Value::Text(self.transport.as_str()), "");
        fields.if_any("lsn", self.lsn.map(Value::Lsn), "");
        fields.if_any("commit_lsn", self.commit_lsn.map(Value::Lsn), "");
        fields.if_any("ordinal", self.ordinal.map(Value::Number), "");
        fields.if_any("committed_at", self.committed_at.map(Value::Time), "");
        fields.if_any("snapshot", self.snapshot.then_some(Value::Flag(true)), "  (snapshot)");
        fields.if_any("position", self.position().map(Value::Position), "");
    }
}

/// The database keeps the position that was acknowledged: what lies before it does not come again.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Acknowledged<'a> {
    /// The session.
    pub session: SessionId,
    /// The database's name.
    pub db: &'a str,
    /// What [`EventLoop::ack`](crate::EventLoop::ack) was given last before; or, with `manual_ack`, the
    /// number of a gap in the outbox, which is acknowledged as soon as the caller asks for the next event.
    pub id: u64,
}

impl Acknowledged<'_> {
    pub(super) fn fields(&self, fields: &mut impl Fields) {
        fields.field("id", Value::Number(self.id), "{}");
    }
}
