//! What the loop tells its caller: pure data, borrowed from the loop until the next call of
//! [`EventLoop::next`](crate::EventLoop::next).

mod change;
mod ddl;
mod fields;

use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::text::Text;
pub use change::{Acknowledged, Change, ChangeOp, Transport};
pub use ddl::{Ddl, DdlPhase, DdlTarget};
pub use fields::{Fields, Value};
use std::fmt;
use std::time::{Duration, SystemTime};

/// Names one session of one loop. Small, and never mistaken for a later session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub(crate) u32);

/// The longest name of a channel in bytes: `NAMEDATALEN - 1` (manual, "Identifiers and Key Words").
pub const CHANNEL_BYTES_MAX: usize = 63;

/// The longest payload of a notification in bytes (manual, NOTIFY: "shorter than 8000 bytes").
pub const PAYLOAD_BYTES_MAX: usize = 7999;

/// A channel's name: 1 to 63 bytes, exact, never folded to lower case, any content but NUL.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Box<[u8]>);

impl Channel {
    /// Checks the name. `LISTEN` would cut it at 63 bytes with no more than a notice, so that is refused
    /// here.
    pub fn new(name: impl AsRef<[u8]>) -> Result<Self> {
        let name = name.as_ref();
        let problem = match name.len() {
            0 => "a channel's name is empty: it takes 1 to 63 bytes".to_string(),
            n if n > CHANNEL_BYTES_MAX => {
                format!("a channel's name has {n} bytes: PostgreSQL keeps at most 63, choose a shorter one")
            }
            _ if name.contains(&0) => {
                "a channel's name holds a NUL byte: PostgreSQL has none in text".to_string()
            }
            _ => return Ok(Channel(name.into())),
        };
        Err(Error::new(ErrorKind::InvalidArgument, problem))
    }

    /// A name of our own making, short enough and without NUL.
    pub(crate) fn of_name(name: &str) -> Self {
        Channel(name.as_bytes().into())
    }

    /// The name's bytes, in the server's encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Channel {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

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
    /// Every notification queued with `notify` has been committed by the server.
    Sent(Sent<'a>),
    /// A row of a watched table was changed.
    Change(Change<'a>),
    /// A DDL command was run.
    Ddl(Ddl<'a>),
    /// The database keeps what was acknowledged.
    Acknowledged(Acknowledged<'a>),
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// When the loss was noticed.
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
        fields.field("lost_at", Value::Time(self.lost_at), "  what was notified since {} is lost");
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
/// So it is told, too, when what is watched comes to an end while it is read: with `55000` that nobody
/// watches a table any more, or asks for these DDL events, that it was watched anew in another way, or that
/// event triggers are gone or off; with `42P01` that it is gone. [`Listening`] names the channel again when
/// it goes on. What is refused and tried again is told once.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CommandFailed<'a> {
    /// The session.
    pub session: SessionId,
    /// The database's name.
    pub db: &'a str,
    /// The command: `listen`, `unlisten`, `notify`, `watch` or `watch_ddl`.
    pub command: &'static str,
    /// The channel of a `listen`, `unlisten` or `notify`.
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

/// All notifications queued so far are committed, and the queue is empty.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_takes_1_to_63_bytes_of_any_content_but_nul() {
        for good in ["a", "Foo", "two words", "\";'--", "日本", &"x".repeat(63)] {
            assert_eq!(Channel::new(good).unwrap().as_bytes(), good.as_bytes());
        }
        for bad in ["", "a\0b", &"x".repeat(64), &"é".repeat(32)] {
            assert_eq!(Channel::new(bad).unwrap_err().kind, ErrorKind::InvalidArgument, "{bad:?}");
        }
    }
}
