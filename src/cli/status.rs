//! `pgwake status` and `check`: how things stand, and what would go wrong.

use super::advice::{When, with_advice};
use super::arguments::{Format, Status};
use super::output::printable;
use super::stop::Stop;
use super::{Failure, code, install, query};
use pgwake::json::{self, JsonValue};
use pgwake::pq::Connection;
use pgwake::{Error, Event, EventLoop, SessionOptions};
use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

/// The time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long a notification of the self-test may take.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn status(dsn: &str, format: Format, arguments: &Status) -> Result<(), Failure> {
    let mut connection = query::connect(dsn)?;
    let mut waiting = EventLoop::new()?;
    let stop = Stop::on_signals(waiting.waker())?;
    loop {
        let mut seen = object(&mut connection, include_str!("status.sql"))?;
        match object(&mut connection, include_str!("watched.sql")) {
            Ok(watched) => merge(&mut seen, watched),
            Err(error) => merge(&mut seen, fields([("schema", missing(&error)?)])),
        }
        let mut out = std::io::stdout().lock();
        match format {
            Format::Json => writeln!(out, "{}", line("status", seen))?,
            Format::Text => {
                if arguments.watch {
                    writeln!(out, "at {}", json::rfc3339(SystemTime::now()))?;
                }
                show(&mut out, &seen)?;
            }
        }
        out.flush()?;
        if arguments.watch {
            waiting.next(Some(INTERVAL))?;
        }
        if !arguments.watch || stop.is_asked_for() {
            return Ok(());
        }
    }
}

/// What would go wrong here.
pub(crate) fn check(dsn: &str, format: Format) -> Result<(), Failure> {
    let mut connection = query::connect(dsn)?;
    let of_schema = match query::rows_by_system(&mut connection, "SELECT * FROM pgwake.check()") {
        Ok(rows) => rows,
        Err(error) => {
            let problem = missing(&error)?;
            // What may not be looked at may be broken.
            let (severity, remedy) = match code(&error) {
                Some("42501") => ("error", CHECK_RIGHTS),
                _ => ("info", "pgwake install"),
            };
            vec![[severity, "schema pgwake", &problem, remedy].map(String::from).into()]
        }
    };
    let mut findings = query::rows_by_system(&mut connection, include_str!("findings.sql"))?;
    findings.extend(of_schema);
    let is_standby = findings.iter().any(|finding| finding.starts_with(&["error".into(), "server".into()]));
    if !is_standby {
        findings.extend(self_test(dsn, &mut connection)?);
    }
    let mut out = std::io::stdout().lock();
    for finding in &findings {
        let [severity, object, problem, remedy] = finding.as_slice() else { continue };
        match format {
            Format::Json => {
                let names = ["severity", "object", "problem", "remedy"];
                let finding = fields(names.into_iter().zip(finding.iter().cloned()));
                writeln!(out, "{}", line("finding", finding))?;
            }
            Format::Text => writeln!(out, "{severity:<8} {object}: {problem}\n         {remedy}")?,
        }
    }
    let harmful = findings.iter().filter(|finding| finding.first().is_some_and(|s| s != "info")).count();
    if harmful == 0 && format == Format::Text {
        writeln!(out, "ok       nothing would go wrong")?;
    }
    out.flush()?;
    match harmful {
        0 => Ok(()),
        1 => Err(Failure::Running("1 thing would go wrong: see what is printed".into())),
        n => Err(Failure::Running(format!("{n} things would go wrong: see what is printed"))),
    }
}

/// What lets a role look.
const CHECK_RIGHTS: &str =
    "GRANT USAGE ON SCHEMA pgwake TO it; GRANT EXECUTE ON FUNCTION pgwake.check() TO it; or ask its owner";

/// Whether a notification of a session arrives at another connection: a pooler in transaction mode takes
/// LISTEN and delivers nothing. The session itself does not listen, so it sets nothing there that would stay.
fn self_test(dsn: &str, connection: &mut Connection) -> Result<Option<Vec<String>>, Failure> {
    let channel = format!("pgwake check {}", std::process::id());
    query::script(connection, &format!("LISTEN \"{channel}\""))?;
    let finding = notify_and_hear(dsn, connection, &channel);
    // A pooler keeps the connection, which would go on listening.
    query::script(connection, &format!("UNLISTEN \"{channel}\"")).map_err(Failure::from).and(finding)
}

fn notify_and_hear(
    dsn: &str,
    connection: &mut Connection,
    channel: &str,
) -> Result<Option<Vec<String>>, Failure> {
    let finding = |told: [&str; 3]| Ok(Some(["error"].into_iter().chain(told).map(String::from).collect()));
    let mut events = EventLoop::new()?;
    let session = events.connect_with(dsn, SessionOptions::new().heartbeat(PATIENCE))?;
    events.notify(session, channel, "")?;
    let until = Instant::now() + 4 * PATIENCE;
    loop {
        match events.next(Some(until.saturating_duration_since(Instant::now())))? {
            Some(Event::Sent(_)) => break,
            Some(Event::CommandFailed(failed)) => {
                return finding(["NOTIFY", failed.message, "see the server's log"]);
            }
            Some(Event::Disconnected(lost)) => {
                let told = with_advice(When::Connecting, lost.message, lost.sqlstate);
                return finding(["LISTEN", &told, "see that this role may have two sessions"]);
            }
            Some(_) => {}
            None => return finding(["LISTEN", "no answer in time", "see whether the server is overloaded"]),
        }
    }
    let until = Instant::now() + PATIENCE;
    loop {
        connection.consume_input()?;
        if connection.notifies().is_some() {
            return Ok(None);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return finding(["LISTEN", SWALLOWED, "connect to the server itself"]);
        }
        connection.wait_ready(false, left)?;
    }
}

const SWALLOWED: &str = "LISTEN was taken, but a notification sent over another connection did not arrive: a \
    pooler in transaction mode stands between";

fn object(connection: &mut Connection, sql: &str) -> Result<JsonValue, Error> {
    let rows = query::rows_by_system(connection, sql)?;
    let text = rows.first().and_then(|row| row.first()).map_or("null", String::as_str);
    Ok(text.parse().unwrap_or_default())
}

/// Why nothing can be said of the schema, where that is no failure.
fn missing(error: &Error) -> Result<String, Error> {
    match code(error) {
        _ if install::is_missing(error) => Ok("it is not installed in this database".into()),
        Some("42501") => Ok("this role may not look at it".into()),
        _ => Err(error.clone()),
    }
}

fn merge(into: &mut JsonValue, from: JsonValue) {
    if let (JsonValue::Object(into), JsonValue::Object(from)) = (into, from) {
        into.extend(from);
    }
}

fn line(event: &str, more: JsonValue) -> JsonValue {
    let mut line = fields([("event", event.to_string()), ("at", json::rfc3339(SystemTime::now()))]);
    merge(&mut line, more);
    line
}

/// An object of texts.
fn fields<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> JsonValue {
    let field = |(name, text): (&str, String)| (name.to_string(), JsonValue::String(text));
    JsonValue::Object(fields.into_iter().map(field).collect())
}

/// In the order in which people ask.
const PARTS: [&str; 8] =
    ["server", "notifications", "slots", "schema", "watched", "ddl", "handlers", "consumers"];

/// Each part under its name, for people.
fn show(out: &mut impl Write, seen: &JsonValue) -> std::io::Result<()> {
    for (part, value) in PARTS.into_iter().filter_map(|part| Some((part, seen.get(part)?))) {
        match value {
            JsonValue::Object(fields) => {
                writeln!(out, "{part}")?;
                for (name, value) in fields {
                    writeln!(out, "  {:<28} {}", name.replace('_', " "), plain(value))?;
                }
            }
            JsonValue::Array(rows) if rows.is_empty() => writeln!(out, "{part}: none")?,
            JsonValue::Array(rows) => {
                writeln!(out, "{part}")?;
                for row in rows {
                    let fields = row.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
                    let fields: Vec<_> =
                        fields.map(|(name, v)| format!("{} {}", name.replace('_', " "), plain(v))).collect();
                    writeln!(out, "  {}", fields.join("  "))?;
                }
            }
            other => writeln!(out, "{part}: {}", plain(other))?,
        }
    }
    Ok(())
}

fn plain(value: &JsonValue) -> String {
    let mut line = String::new();
    match value {
        JsonValue::Null => line.push('-'),
        JsonValue::String(text) => printable(&mut line, text.as_bytes()),
        other => printable(&mut line, other.to_string().as_bytes()),
    }
    line
}
