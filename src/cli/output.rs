//! Events to lines on stdout, as text for people or as JSON. In text, one event is one line whatever is in
//! it.

use super::Failure;
use super::arguments::Format;
use pgwake::{Change, Channel, Ddl, Event, json};
use std::fmt::Write as _;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::time::SystemTime;

/// Stdout, written per batch: the caller flushes when there is nothing more to write for now.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    out: BufWriter<StdoutLock<'static>>,
    line: String,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Output { format, out: BufWriter::with_capacity(1 << 16, io::stdout().lock()), line: String::new() }
    }

    pub(crate) fn write(&mut self, event: &Event<'_>) -> Result<(), Failure> {
        let at = SystemTime::now();
        if self.format == Format::Json {
            return Ok(json::write_line(&mut self.out, event, at)?);
        }
        self.line.clear();
        write_text(&mut self.line, event, at);
        self.line.push('\n');
        Ok(self.out.write_all(self.line.as_bytes())?)
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}

/// An event as it is shown to people, without the end of the line.
pub(crate) fn write_text(line: &mut String, event: &Event<'_>, at: SystemTime) {
    let _ = write!(line, "{}  ", json::rfc3339(at));
    describe(line, event);
}

/// Writing to a `String` cannot fail, so the results of `write!` are of no interest here.
fn describe(line: &mut String, event: &Event<'_>) {
    match event {
        Event::Notification(n) => {
            line.push_str("notification  ");
            printable(line, &n.channel);
            let _ = write!(line, "  pid {}{}  ", n.pid, if n.own { " (own)" } else { "" });
            if n.folded > 0 {
                let _ = write!(line, "(and {} before)  ", n.folded);
            }
            printable(line, &n.payload);
        }
        Event::Listening(l) => {
            line.push_str("listening     ");
            names(line, l.channels);
            let (db, host, version, pid) = (l.db, l.host, l.server_version, l.backend_pid);
            let _ = write!(line, "  in {db} on {host}, PostgreSQL {version}, backend {pid}");
        }
        Event::Gap(g) => {
            line.push_str("gap           ");
            names(line, g.channels);
            let lost_at = json::rfc3339(g.lost_at);
            let _ = write!(line, "  what was notified since {lost_at} is lost: ");
            printable(line, g.message.as_bytes());
        }
        Event::Disconnected(d) => {
            line.push_str("disconnected  ");
            printable(line, d.message.as_bytes());
            let _ = write!(line, "; next attempt in {} ms", d.retry_in.as_millis());
        }
        Event::Failed(f) => {
            line.push_str("failed        ");
            printable(line, f.message.as_bytes());
        }
        Event::CommandFailed(c) => {
            let _ = write!(line, "{} failed  ", c.command);
            if let Some(channel) = c.channel {
                printable(line, channel.as_bytes());
                line.push_str("  ");
            }
            printable(line, c.message.as_bytes());
        }
        Event::Sent(s) => {
            let _ = write!(line, "sent          {}", s.count);
        }
        Event::Change(c) => describe_change(line, c),
        Event::Ddl(d) => describe_ddl(line, d),
        Event::Acknowledged(a) => {
            let _ = write!(line, "acknowledged  {}", a.id);
        }
        other => {
            let _ = write!(line, "{other:?}");
        }
    }
}

fn describe_change(line: &mut String, change: &Change<'_>) {
    let _ = write!(line, "{:<12}  ", change.op.as_str());
    printable(line, format!("{}.{}", change.schema, change.table).as_bytes());
    let parts = [("", change.key), ("old ", change.old), ("new ", change.new), ("changed ", change.changed)];
    for (name, json) in parts {
        if let Some(json) = json {
            let _ = write!(line, "  {name}");
            printable(line, json.as_bytes());
        }
    }
    if let Some(sqlstate) = change.unconvertible {
        let _ = write!(line, "  (its values could not be converted: {sqlstate})");
    }
    if let Some(bytes) = change.oversize {
        let _ = write!(line, "  (its values have {bytes} bytes: too many)");
    }
}

fn describe_ddl(line: &mut String, ddl: &Ddl<'_>) {
    let _ = write!(line, "ddl           {}  ", ddl.tag);
    for (i, target) in ddl.targets.iter().enumerate() {
        line.push_str(if i == 0 { "" } else { ", " });
        let _ = write!(line, "{} ", target.object_type);
        printable(line, target.identity.as_bytes());
        if target.role != "target" {
            let _ = write!(line, " ({})", target.role);
        }
    }
    line.push_str("  by ");
    printable(line, ddl.user.as_bytes());
}

fn names(line: &mut String, channels: &[Channel]) {
    for (i, channel) in channels.iter().enumerate() {
        line.push_str(if i == 0 { "" } else { ", " });
        printable(line, channel.as_bytes());
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
