//! The table of the documentation that says what is due when clocks change.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use pgwake::Cron;
use std::time::SystemTime;

/// The rows of the page: zone, day, expression, from, to, and what is due.
fn rows() -> Vec<[String; 6]> {
    let page = include_str!("../../../docs/schedules.md");
    let (_, table) = page.split_once("| Zone | Day |").unwrap();
    let lines = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    lines
        .map(|line| {
            let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', ""));
            cells.collect::<Vec<_>>().try_into().unwrap()
        })
        .collect()
}

#[test]
fn what_is_due_when_clocks_change_is_what_the_page_says() {
    let rows = rows();
    let mut faults = Vec::new();
    for [zone, day, expression, from, to, expected] in &rows {
        let cron = Cron::new(expression, Some(zone)).unwrap();
        let tz = TimeZone::get(zone).unwrap();
        let day: jiff::civil::Date = day.split(',').next().unwrap().parse().unwrap();
        let at = |time: &str| -> DateTime {
            match time {
                "24:00" => day.tomorrow().unwrap().at(0, 0, 0, 0),
                time => day.to_datetime(time.parse().unwrap()),
            }
        };
        // The first time that the clock shows it, and a moment before that.
        let [from, to] = [from, to].map(|time| at(time).to_zoned(tz.clone()).unwrap().timestamp());
        let mut due = Vec::new();
        let mut last = SystemTime::from(from) - std::time::Duration::from_nanos(1);
        while let Some(next) = cron.after(last).filter(|next| *next < SystemTime::from(to)) {
            let local = cron.local(next);
            assert!(local.starts_with(&day.to_string()), "{local}");
            // 2026-03-08T03:00:00-04:00[America/New_York]
            due.push(format!("{}{}", &local[11..16], &local[19..25]));
            last = next;
        }
        let due = if due.is_empty() { "nothing".to_string() } else { due.join(", ") };
        if due != *expected {
            faults.push(format!("{zone} {day} {expression}: {due}, and the page says {expected}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(rows.len() >= 28, "{}", rows.len());
}
