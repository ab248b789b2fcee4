//! Row changes, as they are delivered to the caller.

use super::fields::{Fields, Value};
use super::names::SessionId;

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
    /// From the write-ahead log itself. This version cannot read it, and
    /// [`watch_with`](crate::EventLoop::watch_with) refuses it.
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
    /// key, for TRUNCATE, and with [`ChangePayload::Wake`](crate::ChangePayload).
    pub key: Option<&'a str>,
    /// What the row was, an object: of an update that changed its key only that, of other changes what the
    /// watch's payload says.
    pub old: Option<&'a str>,
    /// What the row is now, an object, as far as the watch's payload says.
    pub new: Option<&'a str>,
    /// The names of the columns that an update changed, an array.
    pub changed: Option<&'a str>,
    /// Why values are missing: the SQLSTATE of a conversion that failed in the writer's statement.
    pub unconvertible: Option<&'a str>,
    /// Why all values are missing: they have that many bytes, which is more than 8 MB. `SELECT
    /// pgwake.fetch(id)` gives them, with the other changes of the same outbox row, as long as the outbox has
    /// them.
    pub oversize: Option<u64>,
    /// The transaction.
    pub xid: Option<u64>,
    /// The change's number: the same when it comes again, and another one for each other change. That of what
    /// was notified ([`Transport::Notify`]) cannot be acknowledged, for it is not kept.
    pub id: Option<u64>,
    /// How it came.
    pub transport: Transport,
    /// All of it, an object.
    pub json: &'a str,
}

impl Change<'_> {
    pub(super) fn fields(&self, fields: &mut impl Fields) {
        fields.field("op", Value::Text(self.op.as_str()), "");
        fields.field("schema", Value::Text(self.schema), "{}");
        fields.field("table", Value::Text(self.table), ".{}");
        fields.if_any("partition", self.partition.map(Value::Text), "");
        fields.field("key", Value::of(self.key.map(Value::Json)), "  {}");
        fields.if_any("old", self.old.map(Value::Json), "  old {}");
        fields.if_any("new", self.new.map(Value::Json), "  new {}");
        fields.if_any("changed", self.changed.map(Value::Json), "  changed {}");
        let unconvertible = self.unconvertible.map(Value::Text);
        fields.if_any("unconvertible", unconvertible, "  (its values could not be converted: {})");
        let oversize = self.oversize.map(Value::Number);
        fields.if_any("oversize", oversize, "  (its values have {} bytes: too many)");
        fields.field("xid", Value::of(self.xid.map(Value::Number)), "");
        fields.if_any("id", self.id.map(Value::Number), "");
        fields.field("transport", Value::Text(self.transport.as_str()), "");
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
