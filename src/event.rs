//! What the loop delivers to its caller: pure data, borrowed from the loop until the next call of
//! [`EventLoop::next`](crate::EventLoop::next).

mod change;
mod column;
mod ddl;
mod fields;
mod log;
mod names;
mod rows;
mod table;
mod target;
mod tick;

use crate::error::SqlState;
use crate::text::Text;
pub use change::{Acknowledged, Change, ChangeOp, Transport};
pub use column::TableColumn;
pub use ddl::{Ddl, DdlPhase};
pub use fields::{Fields, Value};
pub use log::{Message, Schema, Transaction};
pub use names::{
    CHANNEL_BYTES_MAX, Channel, Lsn, MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX, Position, SessionId, TaskId,
};
pub use rows::Rows;
use std::time::{Duration, SystemTime};
pub(crate) use table::Cells;
pub use table::{ColumnIndex, Row, Table};
pub use target::DdlTarget;
pub use tick::Tick;

/// Something happened. More cases will come: a `match` needs a `_` arm.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A session listens: once when it is first connected, and for each later LISTEN.
    Listening(Listening<'a>),
    /// A notification came.
    Notification(Notification<'a>),
    /// An outage is over, and notifications sent meanwhile were lost.
    Gap(Gap<'a>),
    /// A session lost its connection, or could not get one; it tries again by itself.
    Disconnected(Disconnected<'a>),
    /// A session gave up; nothing more comes from it.
    Failed(Failed<'a>),
    /// The server refused a command, or its outcome is unknown.
    CommandFailed(CommandFailed<'a>),
    /// All that was queued with `notify` and `publish` has been committed by the server.
    Sent(Sent<'a>),
    /// A row of a watched table was changed.
    Change(Change<'a>),
    /// A DDL command was run.
    Ddl(Ddl<'a>),
    /// The database keeps what was acknowledged.
    Acknowledged(Acknowledged<'a>),
    /// A table's columns are these from now on; before its first change.
    Schema(Schema<'a>),
    /// A transaction begins, whose changes follow.
    Begin(Transaction<'a>),
    /// It is committed, and all its changes have come.
    Commit(Transaction<'a>),
    /// It is prepared (PREPARE TRANSACTION), and all its changes have come: a commit or a rollback with the
    /// same `gid` follows.
    Prepare(Transaction<'a>),
    /// A transaction is rolled back that was prepared, or was delivered before its end.
    Rollback(Transaction<'a>),
    /// A message was written into the log.
    Message(Message<'a>),
    /// A poll found rows.
    Rows(Rows<'a>),
    /// A schedule's due time has come.
    Tick(Tick<'a>),
}

impl Event<'_> {
    /// The event's name in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Listening(_) => "listening",
            Event::Notification(_) => "notification",
            Event::Gap(_) => "gap",
            Event::Disconnected(_) => "disconnected",
            Event::Failed(_) => "failed",
            Event::CommandFailed(_) => "command_failed",
            Event::Sent(_) => "sent",
            Event::Change(_) => "change",
            Event::Ddl(_) => "ddl",
            Event::Acknowledged(_) => "acknowledged",
            Event::Schema(_) => "schema",
            Event::Begin(_) => "begin",
            Event::Commit(_) => "commit",
            Event::Prepare(_) => "prepare",
            Event::Rollback(_) => "rollback",
            Event::Message(_) => "message",
            Event::Rows(_) => "rows",
            Event::Tick(_) => "tick",
        }
    }

    /// The session that it comes from; `None` for a tick, which comes from none.
    pub fn session(&self) -> Option<SessionId> {
        self.origin().map(|(session, _)| session)
    }

    /// The name of the database that it comes from; empty for a tick, which comes from none.
    pub fn db(&self) -> &str {
        self.origin().map_or("", |(_, db)| db)
    }

    fn origin(&self) -> Option<(SessionId, &str)> {
        Some(match self {
            Event::Listening(e) => (e.session, e.db),
            Event::Notification(e) => (e.session, e.db),
            Event::Gap(e) => (e.session, e.db),
            Event::Disconnected(e) => (e.session, e.db),
            Event::Failed(e) => (e.session, e.db),
            Event::CommandFailed(e) => (e.session, e.db),
            Event::Sent(e) => (e.session, e.db),
            Event::Change(e) => (e.session, e.db),
            Event::Ddl(e) => (e.session, e.db),
            Event::Acknowledged(e) => (e.session, e.db),
            Event::Schema(e) => (e.session, e.db),
            Event::Begin(e) | Event::Commit(e) | Event::Prepare(e) | Event::Rollback(e) => (e.session, e.db),
            Event::Message(e) => (e.session, e.db),
            Event::Rows(e) => (e.session, e.db),
            Event::Tick(_) => return None,
        })
    }

    /// All its fields but the session and the database.
    pub fn fields(&self, fields: &mut impl Fields) {
        match self {
            Event::Listening(e) => e.fields(fields),
            Event::Notification(e) => e.fields(fields),
            Event::Gap(e) => e.fields(fields),
            Event::Disconnected(e) => e.fields(fields),
            Event::Failed(e) => e.fields(fields),
            Event::CommandFailed(e) => e.fields(fields),
            Event::Sent(e) => e.fields(fields),
            Event::Change(e) => e.fields(fields),
            Event::Ddl(e) => e.fields(fields),
            Event::Acknowledged(e) => e.fields(fields),
            Event::Schema(e) => e.fields(fields),
            Event::Begin(e) | Event::Commit(e) | Event::Prepare(e) | Event::Rollback(e) => e.fields(fields),
            Event::Message(e) => e.fields(fields),
            Event::Rows(e) => e.fields(fields),
            Event::Tick(e) => e.fields(fields),
        }
    }
}

/// A session listens on these channels from now on.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Listening<'a> {
    /// The session.
    pub session: SessionId,
    /// The database's name.
    pub db: &'a str,
    /// The channels that were added; empty when a session without channels is connected.
    pub channels: &'a [Channel],
    /// The PID of the server's process; our own notifications carry it.
    pub backend_pid: i32,
    /// The server's version, such as `15.18`.
    pub server_version: &'a str,
    /// The host that was reached: a name, an address, or a socket's directory.
    pub host: &'a str,
}

impl Listening<'_> {
    pub(super) fn fields(&self, fields: &mut impl Fields) {
        fields.field("channels", Value::Channels(self.channels), "{}");
        fields.in_text(Value::Text(self.db), "  in {}");
        fields.field("host", Value::Text(self.host), " on {}");
        fields.field("server_version", Value::Text(self.server_version), ", PostgreSQL {}");
        fields.field("backend_pid", Value::Number(self.backend_pid.unsigned_abs().into()), ", backend {}");
    }
}

/// A notification, as the server sent it. Only the loop makes one, from a [`Notify`](crate::pq::Notify).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Notification<'a> {
    /// The session that heard it.
    pub session: SessionId,
    /// The database's name.
    pub db: &'a str,
    /// The channel's name in the server's encoding.
    pub channel: Text<'a>,
    /// The payload in the server's encoding; empty when there is none.
    pub payload: Text<'a>,
    /// The PID of the server process that notified.
    pub pid: i32,
    /// Whether this very session sent it.
    pub own: bool,
    /// How many earlier notifications of the channel this one stands for; always 0 unless the session
    /// coalesces.
    pub folded: u64,
}

impl<'a> Notification<'a> {
    /// The payload as text, when it is UTF-8.
    pub fn payload_str(&self) -> Option<&'a str> {
        self.payload.to_str()
    }

    /// The channel's name as text, when it is UTF-8.
    pub fn channel_str(&self) -> Option<&'a str> {
        self.channel.to_str()
    }

    pub(super) fn fields(&self, fields: &mut impl Fields) {
        fields.field("channel", Value::Bytes(&self.channel), "{}");
        fields.field("payload", Value::Bytes(&self.payload), "");
        fields.field("pid", Value::Number(self.pid.unsigned_abs().into()), "  pid {}");
        fields.field("own", Value::Flag(self.own), " (own)");
        fields.if_not_zero("folded", self.folded, "  (and {} before)");
        fields.in_text(Value::Bytes(&self.payload), "  {}");
    }
}

/// Why notifications are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapReason {
    /// The connection was lost.
    Outage,
    /// The caller took notifications slower than they came, and the session was told to drop the oldest.
    Overflow,
    /// The database of a reader of changes is another one than it was: restored or copied. What was not read
    /// of the original is missing.
    Replaced,
}

impl GapReason {
    /// The word used in JSON and in C.
    pub fn as_str(&self) -> &'static str {
        match self {
            GapReason::Outage => "outage",
            GapReason::Overflow => "overflow",
            GapReason::Replaced => "replaced",
        }
    }
}

/// An outage is over: all channels listen again. What was notified between `lost_at` and now is gone, so
/// whatever the notifications stood for must be looked at afresh. Exactly one comes for each outage, before
/// the next notification.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Gap<'a> {
    /// The session.
    pub session: SessionId,
    /// The database's name.
    pub db: &'a str,
    /// The channels that listen again.
    pub channels: &'a [Channel],
    /// Why there is a gap.
    pub reason: GapReason,
    /// The code of the loss.
    pub sqlstate: Option<SqlState>,
    /// The loss in words.
    pub message: &'a str,
    /// When the server was last heard from before an outage, which may be two heartbeats before that was
    /// noticed, of the log more; otherwise, when the gap was found.
    pub lost_at: SystemTime,
    /// How many attempts it took to connect again.
    pub attempts: u32,
    /// How many notifications were dropped here; 0 for an outage, of which nobody knows.
    pub dropped: u64,
}

impl Gap<'_> {
    pub(super) fn fields(&self, fields: &mut impl Fields) {
        fields.field("channels", Value::Channels(self.channels), "{}");
        fields.field("reason", Value::Text(self.reason.as_str()), "");
        fields.field("sqlstate", Value::code(&self.sqlstate), "");
        let since =
            if self.reason == GapReason::Outage { "  what was notified since {} is lost" } else { "" };
        fields.field("lost_at", Value::Time(self.lost_at), since);
        fields.field("message", Value::Text(self.message), ": {}");
        fields.field("attempts", Value::Number(self.attempts.into()), "");
        fields.if_not_zero("dropped", self.dropped, "");
    }
}

/// A connection was lost or could not be made.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Disconnected<'a> {
    /// The session.
    pub session: SessionId,
    /// The database's name as far as it is known.
    pub db: &'a str,
    /// The server's code, or one of class 08.
    pub sqlstate: Option<SqlState>,
    /// What happened, in one line.
    pub message: &'a str,
    /// When the next attempt starts.
    pub retry_in: Duration,
}

impl Disconnected<'_> {
    pub(super) fn fields(&self, fields: &mut impl Fields) {
        fields.field("sqlstate", Value::code(&self.sqlstate), "");
        fields.field("message", Value::Text(self.message), "{}");
        let retry_in_ms = Value::Number(self.retry_in.as_millis() as u64);
        fields.field("retry_in_ms", retry_in_ms, "; next attempt in {} ms");
    }
}

/// A session gave up after the same permanent error twice, such as a wrong password.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Failed<'a> {
    /// The session.
    pub session: SessionId,
    /// The database's name as far as it is known.
    pub db: &'a str,
    /// The server's code, or one of class 08.
    pub sqlstate: Option<SqlState>,
    /// What happened, in one line.
    pub message: &'a str,
}

impl Failed<'_> {
    pub(super) fn fields(&self, fields: &mut impl Fields) {
        fields.field("sqlstate", Value::code(&self.sqlstate), "");
        fields.field("message", Value::Text(self.message), "{}");
        fields.field("retry_in_ms", Value::Null, "");
    }
}

/// A command of ours did not succeed. The session goes on.
///
/// So it is reported, too, when what is watched comes to an end while it is read: with `55000` that nobody
/// watches a table any more, or asks for these DDL events, that it was watched anew in another way, or that
/// event triggers are gone or off; with `42P01` that it is gone. [`Listening`] names the channel again when
/// it goes on. What is refused and tried again is reported once.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CommandFailed<'a> {
    /// The session.
    pub session: SessionId,
    /// The database's name.
    pub db: &'a str,
    /// The command: `listen`, `unlisten`, `notify`, `publish`, `watch`, `watch_ddl`, `poll`, `schedule`, or
    /// `sql`, that of a schedule.
    pub command: &'static str,
    /// The channel of a `listen`, `unlisten`, `notify` or `publish`.
    pub channel: Option<&'a Channel>,
    /// The server's code; `08007` when the connection was lost before the answer.
    pub sqlstate: Option<SqlState>,
    /// What happened, in one line.
    pub message: &'a str,
}

impl CommandFailed<'_> {
    pub(super) fn fields(&self, fields: &mut impl Fields) {
        fields.field("command", Value::Text(self.command), "");
        fields.if_any("channel", self.channel.map(|channel| Value::Bytes(channel.as_bytes())), "{}  ");
        fields.field("sqlstate", Value::code(&self.sqlstate), "");
        fields.field("message", Value::Text(self.message), "{}");
    }
}

/// All notifications and messages queued so far are committed, and the queue is empty.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Sent<'a> {
    /// The session.
    pub session: SessionId,
    /// The database's name.
    pub db: &'a str,
    /// How many were committed since the last `Sent`.
    pub count: u64,
}

impl Sent<'_> {
    pub(super) fn fields(&self, fields: &mut impl Fields) {
        fields.field("count", Value::Number(self.count), "{}");
    }
}
