//! Where events go: to lines on stdout, as text for people or as JSON, or to a process that stores them. What
//! was written and flushed, or what that process says it has stored, is done with. In text, one event is one
//! line whatever is in it.

use super::Failure;
use super::arguments::Format;
use super::deliver::{Handover, number_of};
use super::figures::Figures;
use pgwake::{Event, EventLoop, Fields, Value, json};
use std::fmt::Write as _;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    /// Stdout, written per batch: the caller flushes when there is nothing more to write for now.
    out: BufWriter<StdoutLock<'static>>,
    line: String,
    handover: Option<Handover>,
    /// The number of the event that was written last, and up to which all is done with.
    written: Option<u64>,
    done: Option<u64>,
    events: u64,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        let out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
        Output { format, out, line: String::new(), handover: None, written: None, done: None, events: 0 }
    }

    /// Hands events over from now on, instead of writing them.
    pub(crate) fn hand_over(&mut self, handover: Handover) {
        self.handover = Some(handover);
    }

    pub(crate) fn write(&mut self, event: &Event<'_>) -> Result<(), Failure> {
        if let Some(handover) = &mut self.handover {
            if handover.take(event)? {
                self.events += 1;
            } else {
                say_event(event);
            }
            return Ok(());
        }
        let at = SystemTime::now();
        self.events += 1;
        self.written = number_of(event).or(self.written);
        if self.format == Format::Json {
            return Ok(json::write_line(&mut self.out, event, at)?);
        }
        self.line.clear();
        write_text(&mut self.line, event, at);
        self.line.push('\n');
        Ok(self.out.write_all(self.line.as_bytes())?)
    }

    /// Leaves an event out: it is done with once all before it is.
    pub(crate) fn pass(&mut self, event: &Event<'_>) {
        match &mut self.handover {
            Some(handover) => handover.pass(event),
            None => self.written = number_of(event).or(self.written),
        }
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush()?;
        self.done = self.written.take().or(self.done);
        if let Some(handover) = &mut self.handover {
            handover.go_on()?;
            self.done = handover.take_stored().or(self.done);
        }
        Ok(())
    }

    /// The number up to which all is done with, once each time that it has changed.
    pub(crate) fn take_done(&mut self) -> Option<u64> {
        self.done.take()
    }

    pub(crate) fn figures(&self) -> Figures {
        Figures { events: self.events, handed: self.handover.as_ref().map(Handover::figures) }
    }

    /// Whether any event was written to stdout.
    pub(crate) fn has_written(&self) -> bool {
        self.events > 0 && self.handover.is_none()
    }

    pub(crate) fn is_handed_over(&self) -> bool {
        self.handover.is_some()
    }

    /// Whether there is room for one more event. On stdout there always is.
    pub(crate) fn has_room(&self) -> bool {
        self.handover.as_ref().is_none_or(Handover::has_room)
    }

    /// Waits for the loop, and for the process that events are handed over to.
    pub(crate) fn wait(&self, events: &EventLoop, most: Option<Duration>) -> Result<(), Failure> {
        let Some(handover) = &self.handover else { return Ok(()) };
        handover.wait(events.as_fd(), most)
    }

    /// No more events come.
    pub(crate) fn close(&mut self) {
        if let Some(handover) = &mut self.handover {
            handover.close();
        }
    }

    /// Whether all that was handed over is stored.
    pub(crate) fn is_over(&mut self) -> Result<bool, Failure> {
        self.handover.as_mut().map_or(Ok(true), Handover::is_over)
    }
}

/// An event as a line on stderr, where stdout belongs to somebody else.
pub(crate) fn say_event(event: &Event<'_>) {
    let mut line = String::new();
    write_text(&mut line, event, SystemTime::now());
    say!("{line}");
}

/// An event as it is shown to people, without the end of the line.
fn write_text(line: &mut String, event: &Event<'_>, at: SystemTime) {
    let _ = write!(line, "{}  ", json::rfc3339(at));
    let title = match event {
        Event::Change(change) => change.op.as_str().into(),
        Event::CommandFailed(failed) => format!("{} failed", failed.command),
        other => other.name().to_string(),
    };
    let _ = write!(line, "{title:<12}  ");
    event.fields(&mut Phrases(line));
}

/// Writing to a `String` cannot fail, so the results of `write!` are of no interest here.
struct Phrases<'a>(&'a mut String);

impl Fields for Phrases<'_> {
    fn field(&mut self, _: &'static str, value: Value<'_>, phrase: &'static str) {
        self.in_text(value, phrase);
    }

    fn in_text(&mut self, value: Value<'_>, phrase: &'static str) {
        if matches!(value, Value::Null | Value::Flag(false)) {
            return;
        }
        let line = &mut *self.0;
        let (before, after) = phrase.split_once("{}").unwrap_or((phrase, ""));
        line.push_str(before);
        if phrase.len() > before.len() {
            write_value(line, value);
        }
        line.push_str(after);
    }
}

fn write_value(line: &mut String, value: Value<'_>) {
    match value {
        Value::Number(number) => _ = write!(line, "{number}"),
        Value::Text(text) | Value::Json(text) => printable(line, text.as_bytes()),
        Value::Bytes(bytes) => printable(line, bytes),
        Value::Time(time) => line.push_str(&json::rfc3339(time)),
        Value::Lsn(lsn) => _ = write!(line, "{lsn}"),
        Value::Position(position) => _ = write!(line, "{position}"),
        Value::Columns(columns) => {
            write_list(line, columns.iter(), |line, column| {
                printable(line, column.name.as_bytes());
                line.push(' ');
                printable(line, column.type_name.as_bytes());
                line.push_str(if column.is_key { " (key)" } else { "" });
            });
        }
        Value::Channels(channels) => {
            write_list(line, channels.iter(), |line, channel| printable(line, channel.as_bytes()));
        }
        Value::Names(names) => write_list(line, names.iter(), |line, name| printable(line, name.as_bytes())),
        Value::Rows(table) => {
            let mut row_text = String::new();
            for row in table.iter() {
                row_text.clear();
                row.write_json_array(&mut row_text);
                line.push(' ');
                printable(line, row_text.as_bytes());
            }
        }
        Value::Targets(targets) => {
            write_list(line, targets.iter(), |line, target| {
                let _ = write!(line, "{} ", target.object_type);
                printable(line, target.identity.as_bytes());
                if target.role != "target" {
                    let _ = write!(line, " ({})", target.role);
                }
            });
        }
        other => _ = write!(line, "{other:?}"),
    }
}

fn write_list<T>(line: &mut String, items: impl Iterator<Item = T>, write: impl Fn(&mut String, T)) {
    for (i, item) in items.enumerate() {
        line.push_str(if i == 0 { "" } else { ", " });
        write(line, item);
    }
}

/// Text as it is; control characters and bytes that are not UTF-8 as `\xNN`, what changes the direction of
/// text or ends a line as `\u{…}`.
pub(crate) fn printable(line: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let _ = match c {
                c if c.is_control() => write!(line, "\\x{:02x}", u32::from(c)),
                c if json::needs_escape(c) => write!(line, "\\u{{{:x}}}", u32::from(c)),
                c => line.write_char(c),
            };
        }
        for byte in chunk.invalid() {
            let _ = write!(line, "\\x{byte:02x}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_is_one_line_whatever_is_in_it() {
        let mut line = String::new();
        printable(&mut line, "a\r\n\u{1b}[31m\u{202e}\u{2028}é\"\\".as_bytes());
        printable(&mut line, b"caf\xe9\0");
        assert_eq!(line, "a\\x0d\\x0a\\x1b[31m\\u{202e}\\u{2028}é\"\\caf\\xe9\\x00");
    }
}
