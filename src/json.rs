//! Events to JSON lines, payloads from JSON. Nothing else names serde_json, but for the reports of
//! `pgwake bench`.
//!
//! A line is safe to print: control characters, those that change the direction of text, and the separators
//! U+2028 and U+2029 are escaped. Bytes that are not UTF-8 come in Base64, under a name that says so.

use crate::event::{Change, Channel, DdlTarget, Event, Fields, Notification, Table, TableColumn, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::Deserialize;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
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

    /// What the row was, as any type that serde knows; JSON's null when it is not there.
    pub fn old_as<T: Deserialize<'a>>(&self) -> Result<T, JsonError> {
        serde_json::from_str(self.old.unwrap_or("null"))
    }

    /// What the row is now, as any type that serde knows; JSON's null when it is not there.
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

/// Adds a field to the end of a line that [`write_line`] wrote.
pub fn add_field(line: &mut Vec<u8>, name: &str, text: &str) {
    line.truncate(line.len().saturating_sub(b"}\n".len()));
    line.push(b',');
    let mut serializer = serde_json::Serializer::with_formatter(&mut *line, Printable);
    // Neither a text nor writing to memory can fail.
    let _ = name.serialize(&mut serializer);
    line.push(b':');
    let mut serializer = serde_json::Serializer::with_formatter(&mut *line, Printable);
    let _ = text.serialize(&mut serializer);
    line.extend_from_slice(b"}\n");
}

struct Line<'a> {
    event: &'a Event<'a>,
    at: &'a str,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("event", self.event.name())?;
        map.serialize_entry("at", self.at)?;
        if self.event.session().is_some() {
            map.serialize_entry("db", self.event.db())?;
        }
        let mut fields = MapFields { map, outcome: Ok(()) };
        self.event.fields(&mut fields);
        fields.outcome?;
        fields.map.end()
    }
}

/// The fields of an event as entries of a map, up to the first that fails.
struct MapFields<M: SerializeMap> {
    map: M,
    outcome: Result<(), M::Error>,
}

impl<M: SerializeMap> Fields for MapFields<M> {
    fn field(&mut self, name: &'static str, value: Value<'_>, _: &'static str) {
        if self.outcome.is_ok() {
            self.outcome = entry(&mut self.map, name, value);
        }
    }

    fn in_text(&mut self, _: Value<'_>, _: &'static str) {}
}

fn entry<M: SerializeMap>(map: &mut M, name: &'static str, value: Value<'_>) -> Result<(), M::Error> {
    match value {
        Value::Null => map.serialize_entry(name, &None::<()>),
        Value::Flag(flag) => map.serialize_entry(name, &flag),
        Value::Number(number) => map.serialize_entry(name, &number),
        Value::Text(text) => map.serialize_entry(name, text),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => map.serialize_entry(name, text),
            Err(_) => map.serialize_entry(&format!("{name}_base64"), &STANDARD.encode(bytes)),
        },
        Value::Json(json) => map.serialize_entry(name, &raw(json)),
        Value::Time(time) => map.serialize_entry(name, &rfc3339(time)),
        Value::Lsn(lsn) => map.serialize_entry(name, &lsn.to_string()),
        Value::Position(position) => map.serialize_entry(name, &position.to_string()),
        Value::Columns(columns) => map.serialize_entry(name, &columns.iter().map(Column).collect::<Vec<_>>()),
        // One that is not UTF-8 has U+FFFD in it.
        Value::Channels(channels) => {
            map.serialize_entry(name, &channels.iter().map(Channel::to_string).collect::<Vec<_>>())
        }
        Value::Names(names) => map.serialize_entry(name, names),
        Value::Rows(table) => map.serialize_entry(name, &RowsOf(table)),
        Value::Targets(targets) => map.serialize_entry(name, &targets.iter().map(Target).collect::<Vec<_>>()),
    }
}

/// Each row is an array.
struct RowsOf<'a>(Table<'a>);

impl Serialize for RowsOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let RowsOf(table) = self;
        let (mut rows, mut text) = (serializer.serialize_seq(Some(table.len()))?, String::new());
        for row in table.iter() {
            text.clear();
            row.write_json_array(&mut text);
            rows.serialize_element(&raw(&text))?;
        }
        rows.end()
    }
}

struct Column<'a>(&'a TableColumn);

impl Serialize for Column<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Column(column) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &column.name)?;
        map.serialize_entry("type", &column.type_name)?;
        map.serialize_entry("key", &column.is_key)?;
        map.end()
    }
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

/// A line with an object of these texts, in their order.
#[cfg(feature = "command")]
pub fn object(fields: &[(&str, &str)]) -> String {
    let mut line = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut line, Printable);
    // To write into memory does not fail, and whatever is written is UTF-8.
    let _ = serializer.collect_map(fields.iter().copied());
    line.push(b'\n');
    String::from_utf8(line).unwrap_or_default()
}

/// A value as PostgreSQL wrote it: a number keeps all its digits.
fn raw(value: &str) -> Option<&RawValue> {
    serde_json::from_str(value).ok()
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

/// Whether it is ASCII without control characters, as most text is. All bytes are looked at: without a
/// branch, the processor does so with many at once.
fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |is_plain, byte| is_plain & matches!(byte, b' '..=b'~'))
}

impl Formatter for Printable {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if is_plain(fragment) {
            return out.write_all(fragment.as_bytes());
        }
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
        if is_plain(fragment) {
            return out.write_all(fragment.as_bytes());
        }
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
    fn a_field_is_added_to_a_line() {
        let mut line = line(b"x").into_bytes();
        add_field(&mut line, "reason", "a \"b\"\n\u{202e}");
        let text = String::from_utf8(line).unwrap();
        assert!(text.ends_with(",\"reason\":\"a \\\"b\\\"\\n\\u202e\"}\n"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["payload"], "x");
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
