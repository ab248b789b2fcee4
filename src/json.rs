//! Events to JSON lines, payloads from JSON. Nothing else names serde_json, but for the reports of
//! `pgwake bench`.
//!
//! A line is safe to print: control characters, those that change the direction of text, and the separators
//! U+2028 and U+2029 are escaped. Bytes that are not UTF-8 come in Base64, under a name that says so.

use crate::error::SqlState;
use crate::event::{Change, Channel, CommandFailed, Ddl, DdlTarget, Event, Gap, Notification};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::Deserialize;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::ser::{CharEscape, Formatter};
use serde_json::value::RawValue;
use std::io;
use std::time::SystemTime;

/// Any JSON, for payloads without a type of their own.
pub type JsonValue = serde_json::Value;

/// Why a payload is not the JSON that was asked for.
pub type JsonError = serde_json::Error;

impl<'a> Notification<'a> {
    /// The payload as JSON, into any type that serde knows; text may borrow from the payload.
    ///
    /// ```no_run
    /// # fn on(notification: pgwake::Notification<'_>) -> Result<(), pgwake::json::JsonError> {
    /// let order: std::collections::HashMap<String, u64> = notification.json()?;
    /// println!("order {:?}", order.get("id"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn json<T: Deserialize<'a>>(&self) -> Result<T, JsonError> {
        serde_json::from_slice(self.payload.as_bytes())
    }
}

impl<'a> Change<'a> {
    /// The key as any type that serde knows; JSON's null when there is none.
    pub fn key_as<T: Deserialize<'a>>(&self) -> Result<T, JsonError> {
        serde_json::from_str(self.key.unwrap_or("null"))
    }

    /// What the row was, as any type that serde knows; JSON's null when it is not told.
    pub fn old_as<T: Deserialize<'a>>(&self) -> Result<T, JsonError> {
        serde_json::from_str(self.old.unwrap_or("null"))
    }

    /// What the row is now, as any type that serde knows; JSON's null when it is not told.
    ///
    /// ```no_run
    /// # fn on(change: pgwake::Change<'_>) -> Result<(), pgwake::json::JsonError> {
    /// let order: Option<std::collections::HashMap<&str, pgwake::json::JsonValue>> = change.new_as()?;
    /// println!("{} in {}: {order:?}", change.op.as_str(), change.table);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new_as<T: Deserialize<'a>>(&self) -> Result<T, JsonError> {
        serde_json::from_str(self.new.unwrap_or("null"))
    }
}

/// Writes an event as one line. `at` is the time to put into it.
pub fn write_line(out: &mut impl io::Write, event: &Event<'_>, at: SystemTime) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, Printable);
    Line { event, at: &rfc3339(at) }.serialize(&mut serializer)?;
    out.write_all(b"\n")
}

struct Line<'a> {
    event: &'a Event<'a>,
    at: &'a str,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.event {
            Event::Notification(n) => {
                head(&mut map, "notification", self.at, n.db)?;
                bytes(&mut map, "channel", "channel_base64", &n.channel)?;
                bytes(&mut map, "payload", "payload_base64", &n.payload)?;
                map.serialize_entry("pid", &n.pid)?;
                map.serialize_entry("own", &n.own)?;
                if n.folded > 0 {
                    map.serialize_entry("folded", &n.folded)?;
                }
            }
            Event::Listening(l) => {
                head(&mut map, "listening", self.at, l.db)?;
                map.serialize_entry("channels", &names(l.channels))?;
                map.serialize_entry("backend_pid", &l.backend_pid)?;
                map.serialize_entry("server_version", l.server_version)?;
                map.serialize_entry("host", l.host)?;
            }
            Event::Gap(g) => {
                head(&mut map, "gap", self.at, g.db)?;
                gap(&mut map, g)?;
            }
            Event::Disconnected(d) => {
                head(&mut map, "disconnected", self.at, d.db)?;
                problem(&mut map, d.sqlstate, d.message)?;
                map.serialize_entry("retry_in_ms", &(d.retry_in.as_millis() as u64))?;
            }
            Event::Failed(f) => {
                head(&mut map, "failed", self.at, f.db)?;
                problem(&mut map, f.sqlstate, f.message)?;
                map.serialize_entry("retry_in_ms", &None::<u64>)?;
            }
            Event::CommandFailed(c) => {
                head(&mut map, "command_failed", self.at, c.db)?;
                command_failed(&mut map, c)?;
            }
            Event::Sent(s) => {
                head(&mut map, "sent", self.at, s.db)?;
                map.serialize_entry("count", &s.count)?;
            }
            Event::Change(c) => {
                head(&mut map, "change", self.at, c.db)?;
                change(&mut map, c)?;
            }
            Event::Ddl(d) => {
                head(&mut map, "ddl", self.at, d.db)?;
                ddl(&mut map, d)?;
            }
            Event::Acknowledged(a) => {
                head(&mut map, "acknowledged", self.at, a.db)?;
                map.serialize_entry("id", &a.id)?;
            }
        }
        map.end()
    }
}

fn command_failed<M: SerializeMap>(map: &mut M, c: &CommandFailed<'_>) -> Result<(), M::Error> {
    map.serialize_entry("command", c.command)?;
    if let Some(channel) = c.channel {
        bytes(map, "channel", "channel_base64", channel.as_bytes())?;
    }
    problem(map, c.sqlstate, c.message)
}

fn head<M: SerializeMap>(map: &mut M, event: &str, at: &str, db: &str) -> Result<(), M::Error> {
    map.serialize_entry("event", event)?;
    map.serialize_entry("at", at)?;
    map.serialize_entry("db", db)
}

fn gap<M: SerializeMap>(map: &mut M, gap: &Gap<'_>) -> Result<(), M::Error> {
    map.serialize_entry("channels", &names(gap.channels))?;
    map.serialize_entry("reason", gap.reason.as_str())?;
    problem(map, gap.sqlstate, gap.message)?;
    map.serialize_entry("lost_at", &rfc3339(gap.lost_at))?;
    map.serialize_entry("attempts", &gap.attempts)?;
    if gap.dropped > 0 {
        map.serialize_entry("dropped", &gap.dropped)?;
    }
    Ok(())
}

fn change<M: SerializeMap>(map: &mut M, change: &Change<'_>) -> Result<(), M::Error> {
    map.serialize_entry("op", change.op.as_str())?;
    map.serialize_entry("schema", change.schema)?;
    map.serialize_entry("table", change.table)?;
    if let Some(partition) = change.partition {
        map.serialize_entry("partition", partition)?;
    }
    map.serialize_entry("key", &change.key.and_then(raw))?;
    let values = [("old", change.old), ("new", change.new), ("changed", change.changed)];
    for (name, value) in values {
        if let Some(value) = value.and_then(raw) {
            map.serialize_entry(name, value)?;
        }
    }
    if let Some(sqlstate) = change.unconvertible {
        map.serialize_entry("unconvertible", sqlstate)?;
    }
    if let Some(bytes) = change.oversize {
        map.serialize_entry("oversize", &bytes)?;
    }
    map.serialize_entry("xid", &change.xid)?;
    if let Some(id) = change.id {
        map.serialize_entry("id", &id)?;
    }
    map.serialize_entry("transport", change.transport.as_str())
}

fn ddl<M: SerializeMap>(map: &mut M, ddl: &Ddl<'_>) -> Result<(), M::Error> {
    map.serialize_entry("phase", ddl.phase.as_str())?;
    map.serialize_entry("tag", ddl.tag)?;
    map.serialize_entry("targets", &ddl.targets.iter().map(Target).collect::<Vec<_>>())?;
    map.serialize_entry("depth", &ddl.depth)?;
    map.serialize_entry("temp", &ddl.temp)?;
    map.serialize_entry("xid", &ddl.xid)?;
    map.serialize_entry("user", ddl.user)?;
    map.serialize_entry("app", ddl.app)
}

struct Target<'a>(&'a DdlTarget);

impl Serialize for Target<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Target(target) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("role", &target.role)?;
        map.serialize_entry("type", &target.object_type)?;
        map.serialize_entry("schema", &target.schema)?;
        map.serialize_entry("name", &target.name)?;
        map.serialize_entry("column", &target.column)?;
        map.serialize_entry("identity", &target.identity)?;
        map.serialize_entry("oid", &target.oid)?;
        map.serialize_entry("subid", &target.subid)?;
        map.serialize_entry("exists", &target.exists)?;
        map.end()
    }
}

/// A value as PostgreSQL wrote it: a number keeps all its digits.
fn raw(value: &str) -> Option<&RawValue> {
    serde_json::from_str(value).ok()
}

fn problem<M: SerializeMap>(map: &mut M, sqlstate: Option<SqlState>, message: &str) -> Result<(), M::Error> {
    map.serialize_entry("sqlstate", &sqlstate.as_ref().map(SqlState::as_str))?;
    map.serialize_entry("message", message)
}

fn bytes<M: SerializeMap>(map: &mut M, name: &str, name_base64: &str, value: &[u8]) -> Result<(), M::Error> {
    match std::str::from_utf8(value) {
        Ok(text) => map.serialize_entry(name, text),
        Err(_) => map.serialize_entry(name_base64, &STANDARD.encode(value)),
    }
}

/// Names as text; one that is not UTF-8 has U+FFFD in it.
fn names(channels: &[Channel]) -> Vec<String> {
    channels.iter().map(Channel::to_string).collect()
}

/// A time as RFC 3339 in UTC, with microseconds.
pub fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.6}"))
}

/// Escapes what JSON allows in a string but a terminal or a log viewer should not be given.
struct Printable;

/// Whether a character should not reach a terminal although JSON allows it: deletion, C1 controls, marks and
/// overrides of direction, line and paragraph separators.
pub fn needs_escape(c: char) -> bool {
    matches!(c,
        '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl Formatter for Printable {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(needs_escape) {
            out.write_all(&rest.as_bytes()[..at])?;
            let mut characters = rest[at..].chars();
            let escaped = characters.next().map_or(0, u32::from);
            write!(out, "\\u{escaped:04x}")?;
            rest = characters.as_str();
        }
        out.write_all(rest.as_bytes())
    }

    /// JSON of somebody else's. Outside of strings it is ASCII, so what needs an escape is within one; a
    /// control character is between the values.
    fn write_raw_fragment<W: ?Sized + io::Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut spaced = fragment.split(|c: char| c.is_ascii_control() && c != '\u{7f}');
        self.write_string_fragment(out, spaced.next().unwrap_or_default())?;
        spaced.try_for_each(|rest| {
            out.write_all(b" ")?;
            self.write_string_fragment(out, rest)
        })
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(out, escape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Sent, SessionId};
    use std::ffi::{CStr, CString};

    fn notification(payload: &CStr) -> Notification<'_> {
        let (session, db, channel, payload) = (SessionId(0), "app", c"orders".into(), payload.into());
        Notification { session, db, channel, payload, pid: 7, own: false, folded: 0 }
    }

    fn line(payload: &[u8]) -> String {
        let (payload, mut out) = (CString::new(payload).unwrap(), Vec::new());
        let event = Event::Notification(notification(&payload));
        write_line(&mut out, &event, SystemTime::UNIX_EPOCH).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_notification_is_one_line() {
        let head = r#"{"event":"notification","at":"1970-01-01T00:00:00.000000Z","db":"app","#;
        let rest = r#""channel":"orders","payload":"{\"id\":1}","pid":7,"own":false}"#;
        assert_eq!(line(b"{\"id\":1}"), format!("{head}{rest}\n"));
    }

    #[test]
    fn what_a_terminal_should_not_see_is_escaped_and_reads_back() {
        let nasty = "a\n\u{1b}[31m\u{7f}\u{9b}\u{202e}\u{2028}\u{2069}é日";
        let line = line(nasty.as_bytes());
        let shown = line.trim_end();
        assert!(!shown.chars().any(|c| c.is_control() || needs_escape(c)), "{line}");
        assert!(shown.contains("\\u202e") && shown.contains("é日"), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["payload"], nasty);
    }

    #[test]
    fn values_of_a_row_keep_their_digits_and_are_safe_to_print() {
        let mut out = Vec::new();
        let value = "{\"n\": 12345678901234567890.10,\n\t\"t\":\"\u{202e}a\u{7f}é\"}";
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, Printable);
        raw(value).unwrap().serialize(&mut serializer).unwrap();
        let shown = String::from_utf8(out).unwrap();
        assert_eq!(shown, "{\"n\": 12345678901234567890.10,  \"t\":\"\\u202ea\\u007fé\"}");
        assert!(raw("{\"n\":").is_none());
    }

    #[test]
    fn bytes_that_are_not_utf8_come_in_base64() {
        let value: serde_json::Value = serde_json::from_str(&line(b"caf\xe9")).unwrap();
        assert_eq!(value["payload_base64"], "Y2Fm6Q==");
        assert!(value.get("payload").is_none());
    }

    #[test]
    fn a_payload_is_decoded_when_asked() {
        let Notification { session, db, .. } = notification(c"");
        let value: std::collections::HashMap<&str, u64> = notification(c"{\"id\":42}").json().unwrap();
        assert_eq!(value["id"], 42);
        assert!(notification(c"not json").json::<serde_json::Value>().is_err());
        let mut out = Vec::new();
        write_line(&mut out, &Event::Sent(Sent { session, db, count: 3 }), SystemTime::UNIX_EPOCH).unwrap();
        assert!(out.starts_with(b"{\"event\":\"sent\"") && out.ends_with(b"\"count\":3}\n"));
    }

    #[test]
    fn a_time_is_rfc_3339_in_utc_with_microseconds() {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(1_709_251_200_000_005);
        assert_eq!(rfc3339(time), "2024-03-01T00:00:00.000005Z");
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000000Z");
    }
}
