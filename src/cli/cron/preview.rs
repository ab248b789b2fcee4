//! What expressions mean: when they are due next, and what they are in words.

use super::crontab::Entry;
use crate::cli::Failure;
use crate::cli::values::Format;
use pgwake::{Cron, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::SystemTime;

/// Prints the next due times of each, and what it says, as far as asked for.
pub(super) fn print(
    entries: &[Entry],
    format: Format,
    explain: bool,
    next: u32,
) -> Result<Vec<String>, Failure> {
    let (mut text, mut faults) = (String::new(), Vec::new());
    for entry in entries {
        match preview(entry, format, explain, next) {
            Ok(lines) => text.push_str(&lines),
            Err(fault) => faults.push(fault),
        }
    }
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(faults)
}

fn preview(entry: &Entry, format: Format, explain: bool, next: u32) -> Result<String, String> {
    let Entry { expression, time_zone, place, .. } = entry;
    let named = |sentence: String| if place.is_empty() { sentence } else { format!("{place}: {sentence}") };
    if expression.starts_with("@every ") {
        return Err(named(format!("{expression:?} counts from its start: it has no times before that")));
    }
    let cron = Cron::new(expression, time_zone.as_deref()).map_err(|error| named(error.to_string()))?;
    let zone = cron.time_zone().unwrap_or("UTC");
    let kind = if cron.is_one_time_of_day() { "once a day also when clocks change" } else { "by the clock" };
    let (mut text, mut at) = (String::new(), SystemTime::now());
    let mut line = |fields: &[(&str, &str)], shown: &str| match format {
        Format::Json => text.push_str(&json::object(fields)),
        Format::Text => _ = writeln!(text, "{shown}"),
    };
    if explain {
        let words = cron.explain();
        let fields = [("schedule", expression.as_str()), ("time_zone", zone), ("explanation", &words)];
        line(&fields, &format!("{expression}  {words} ({zone}; {kind})"));
    }
    for _ in 0..next {
        let Some(due) = cron.after(at) else { break };
        let (local, utc) = (cron.local(due), json::rfc3339(due));
        let fields = [("schedule", expression.as_str()), ("due", &utc), ("local", &local)];
        line(&fields, &format!("{local}  {expression}"));
        at = due;
    }
    Ok(text)
}
