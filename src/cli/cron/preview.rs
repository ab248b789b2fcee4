//! What expressions mean: when they are due next, and what they are in words.

use super::crontab::Entry;
use crate::cli::Failure;
use crate::cli::values::Format;
use pgwake::{Cron, json};
use std::io::Write as _;
use std::time::SystemTime;

/// Prints the next due times of each, and what it says, as far as asked for. Each line is printed before the
/// next one is looked for. What is wrong is given back.
pub(super) fn print(
    entries: &[Entry],
    format: Format,
    explain: bool,
    next: u32,
) -> Result<Vec<String>, Failure> {
    let mut faults = Vec::new();
    for entry in entries {
        match cron(entry) {
            Ok(cron) => preview(&entry.expression, &cron, format, explain, next)?,
            Err(fault) => faults.push(entry.fault(fault)),
        }
    }
    Ok(faults)
}

fn cron(entry: &Entry) -> Result<Cron, String> {
    let expression = &entry.expression;
    if expression.starts_with("@every ") {
        return Err(format!("{expression:?} counts from its start: it has no times before that"));
    }
    Cron::new(expression, entry.time_zone.as_deref()).map_err(|error| error.to_string())
}

fn preview(expression: &str, cron: &Cron, format: Format, explain: bool, next: u32) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let mut line = |event: &str, fields: &[(&str, &str)], shown: &str| match format {
        Format::Json => {
            let at = json::rfc3339(SystemTime::now());
            out.write_all(json::object(&[&[("event", event), ("at", &at)], fields].concat()).as_bytes())
        }
        Format::Text => writeln!(out, "{shown}"),
    };
    if explain {
        let (words, zone) = (cron.explain(), cron.time_zone());
        let kind = match cron.is_one_time_of_day() {
            true => "once a day also when clocks change",
            false => "by the clock",
        };
        let fields = [("schedule", expression), ("time_zone", &zone), ("explanation", &words)];
        line("explanation", &fields, &format!("{expression}  {words} ({zone}; {kind})"))?;
    }
    let first = cron.after(SystemTime::now());
    for due in std::iter::successors(first, |due| cron.after(*due)).take(next as usize) {
        let (local, utc) = (cron.local(due), json::rfc3339(due));
        let fields = [("schedule", expression), ("due", &*utc), ("local", &*local)];
        line("due", &fields, &format!("{local}  {expression}"))?;
    }
    Ok(())
}
