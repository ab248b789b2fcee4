//! When a cron expression is due in a time zone. All the rules about clocks that are put forward and back are
//! in this file.
//!
//! The expression speaks of what a clock on the wall shows. Where that clock is put **forward**, it skips an
//! hour; where it is put **back**, it shows an hour twice. There are two kinds of expression:
//!
//! - It names *one time of day* (`30 2 * * *`). It runs once a day whatever the clock does: a time that is
//!   skipped runs at the end of the gap, and one that is shown twice runs the first time.
//! - Anything else (`*/15 * * * *`, `0 1,2,3 * * *`) follows the clock: what is skipped does not run, and
//!   what is shown twice runs twice.
//!
//! So far this is what the crate `croner` does. It looks for the end of a gap for two hours, though, and a
//! zone may leave out a whole day: Apia had no 30 December 2011. Such a day is lost with all its times,
//! and the search goes on behind it.
//!
//! Each due time is computed from the zone's rules when it is needed. No offset is kept.

use super::clock::{Nanos, wall_time};
use super::explain::explain;
use crate::error::{Error, ErrorKind, Result};
use croner::errors::CronError;
use croner::parser::{CronParser, Year};
use croner::{Cron as Expression, JobType};
use jiff::fmt::temporal::DateTimePrinter;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use std::time::SystemTime;

/// A gap that is longer is no summer time but days that the zone left out. It is also how far croner looks
/// for the end of one.
const GAP_MAX: SignedDuration = SignedDuration::from_hours(2);

/// How many changes of a zone's offset are looked through for such a gap.
const CHANGES_MAX: usize = 1000;

/// A cron expression in a time zone: when it is due. [`EventLoop::cron`](crate::EventLoop::cron) takes the
/// expression itself; this is for those who want to know its times without waiting for them.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// let nightly = pgwake::Cron::new("30 2 * * *", Some("Europe/Berlin"))?;
/// let first = nightly.after(SystemTime::now()).unwrap();
/// let second = nightly.after(first).unwrap();
/// assert!(second - Duration::from_secs(26 * 3600) < first && nightly.after(second).is_some());
/// # Ok::<(), pgwake::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Cron {
    expression: Expression,
    zone: TimeZone,
}

impl Cron {
    /// Reads an expression: five fields, minute, hour, day of the month, month and day of the week, or six
    /// with the second before them; or `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly`.
    /// The zone is a name of the IANA database; `None` is the system's. An expression that is never due from
    /// now on is refused.
    pub fn new(expression: &str, time_zone: Option<&str>) -> Result<Self> {
        check_signs(expression)?;
        let given = if expression.eq_ignore_ascii_case("@midnight") { "@daily" } else { expression };
        let parsed = CronParser::builder().year(Year::Disallowed).build().parse(given);
        let parsed = parsed.map_err(|reason| {
            let reason = match reason {
                CronError::ComponentError(why) | CronError::IllegalCharacters(why) => {
                    format!(" ({})", why.trim_end_matches('.'))
                }
                _ => String::new(),
            };
            refused(format!(
                "{expression:?} is no cron expression{reason}: it takes five fields, minute, hour, day of \
                 the month, month, day of the week, or six with the second before them"
            ))
        })?;
        let cron = Cron { expression: parsed, zone: zone(time_zone)? };
        if cron.after(SystemTime::now()).is_none() {
            return Err(refused(format!("{expression:?} is never due: no day has all that it asks for")));
        }
        Ok(cron)
    }

    /// The first due time behind `time`; `None` when there is none any more.
    pub fn after(&self, time: SystemTime) -> Option<SystemTime> {
        self.due_after(Timestamp::try_from(time).ok()?.as_nanosecond()).map(wall_time)
    }

    /// The expression in words, such as `at 02:30, on Monday to Friday`.
    pub fn explain(&self) -> String {
        explain(&self.expression.pattern)
    }

    /// Whether it names one time of day, and so runs once a day also where clocks are put forward or back.
    pub fn is_one_time_of_day(&self) -> bool {
        self.expression.determine_job_type() == JobType::FixedTime
    }

    /// What a clock on the wall shows at this time, such as `2026-03-29T03:00:00+02:00[Europe/Berlin]`.
    pub fn local(&self, time: SystemTime) -> String {
        let zoned = Timestamp::try_from(time).map(|time| time.to_zoned(self.zone.clone()));
        zoned.map_or_else(|_| String::new(), |zoned| zoned.to_string())
    }

    /// The zone's name, or the rule that stands for one in the environment variable TZ, such as
    /// `EST5EDT,M3.2.0,M11.1.0`; `localtime` if it was read from a file that does not say whose it is.
    pub fn time_zone(&self) -> String {
        let name = DateTimePrinter::new().time_zone_to_string(&self.zone);
        name.unwrap_or_else(|_| "localtime".to_string())
    }

    /// The first due time behind `time`, both in nanoseconds since 1970.
    pub(super) fn due_after(&self, time: Nanos) -> Option<Nanos> {
        let (mut from, mut from_itself) = (self.zoned(time)?, false);
        loop {
            (from, from_itself) = match self.expression.find_next_occurrence(&from, from_itself) {
                Ok(due) if self.is_of_a_lost_day(&due) => (due, false),
                Ok(due) => return Some(due.timestamp().as_nanosecond()),
                // A day that the zone left out may have stopped the search.
                Err(_) => (self.end_of_lost_days(&from)?, true),
            }
        }
    }

    /// The last due time up to `now`, if that is not years ago: looked for from shortly before it, and then
    /// from ever farther back.
    pub(super) fn latest(&self, now: Nanos) -> Option<Nanos> {
        const SECONDS: [Nanos; 6] = [60, 3600, 86_400, 32 * 86_400, 366 * 86_400, 8 * 366 * 86_400];
        SECONDS.iter().find_map(|seconds| {
            let up_to_now = |time| self.due_after(time).filter(|due| *due <= now);
            let mut latest = up_to_now(now - seconds * 1_000_000_000)?;
            while let Some(next) = up_to_now(latest) {
                latest = next;
            }
            Some(latest)
        })
    }

    fn zoned(&self, time: Nanos) -> Option<Zoned> {
        Some(Timestamp::from_nanosecond(time).ok()?.to_zoned(self.zone.clone()))
    }

    /// Whether this is the end of a long gap, to which a time in the gap was put off.
    fn is_of_a_lost_day(&self, due: &Zoned) -> bool {
        !self.expression.is_time_matching(due).unwrap_or(true) && self.gap_before(due.timestamp()) > GAP_MAX
    }

    /// How far the clock was put forward at this time.
    fn gap_before(&self, time: Timestamp) -> SignedDuration {
        let seconds_at = |time| i64::from(self.zone.to_offset(time).seconds());
        let before = time.checked_sub(SignedDuration::from_secs(1)).unwrap_or(time);
        SignedDuration::from_secs(seconds_at(time) - seconds_at(before))
    }

    fn end_of_lost_days(&self, from: &Zoned) -> Option<Zoned> {
        let mut changes =
            self.zone.following(from.timestamp()).take(CHANGES_MAX).map(|change| change.timestamp());
        let end = changes.find(|end| self.gap_before(*end) > GAP_MAX)?;
        Some(end.to_zoned(self.zone.clone()))
    }
}

/// Refuses what croner passes over: a list, a range or a step with nothing on one side, and an L alone as the
/// day of the week. They mean no time at all, and croner looks for it until the year 5000.
fn check_signs(expression: &str) -> Result<()> {
    let has_hole = |field: &&str| {
        let field = field.strip_prefix('+').unwrap_or(field);
        field.split([',', '-', '/', '#']).any(str::is_empty)
    };
    if let Some(field) = expression.split_whitespace().find(has_hole) {
        return Err(refused(format!(
            "{expression:?} is no cron expression: in {field:?} a value is missing, write one on each side \
             of , - / and #"
        )));
    }
    let weekday = expression.split_whitespace().skip(4).last().unwrap_or_default();
    if weekday.trim_start_matches('+').split(',').any(|day| day.eq_ignore_ascii_case("L")) {
        return Err(refused(format!(
            "{expression:?} is no cron expression: L is no day of the week, write 5L for the last Friday"
        )));
    }
    Ok(())
}

/// The zone of this name, or the system's. `Etc/Unknown` is the name of none.
fn zone(name: Option<&str>) -> Result<TimeZone> {
    let zone = name.map_or_else(TimeZone::try_system, TimeZone::get);
    let reason = match zone {
        Ok(zone) if !zone.is_unknown() => return Ok(zone),
        Ok(_) => "it is Etc/Unknown".to_string(),
        Err(error) => error.to_string(),
    };
    Err(refused(match name {
        None => format!("the system's time zone is not known ({reason}): name one, such as Europe/Berlin"),
        Some(name) if jiff::tz::db().is_definitively_empty() => {
            format!("{name:?} is not known, nor any other time zone: install the package tzdata")
        }
        Some(name) => format!("{name:?} is no time zone: it takes a name such as Europe/Berlin or UTC"),
    }))
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_can_mean_no_time_is_refused_at_once() {
        for expression in [
            ", * * * *",
            "1,, * * * *",
            "* ,1 * * *",
            "* * 1- * *",
            "*/ * * * *",
            "0 0 * * fri#",
            "0 0 1 * +",
        ] {
            let message = Cron::new(expression, Some("UTC")).unwrap_err().message;
            assert!(message.contains("a value is missing"), "{message}");
        }
        for expression in ["0 0 1 * L", "0 0 1 1 * +mon,l"] {
            let message = Cron::new(expression, Some("UTC")).unwrap_err().message;
            assert!(message.contains("L is no day of the week"), "{message}");
        }
        for zone in ["Etc/Unknown", "etc/unknown", "Mars/Base", ""] {
            let message = Cron::new("@daily", Some(zone)).unwrap_err().message;
            assert!(message.contains(&format!("{zone:?} is no time zone")), "{message}");
        }
    }

    /// A count of nanoseconds in 64 bits would end in 2554.
    #[test]
    fn due_times_go_on_to_the_year_5000_and_end_there() {
        let cron = Cron::new("0 0 1 1 *", Some("UTC")).unwrap();
        let until = |year: u64| SystemTime::UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_556_952);
        for from in [2540, 4980] {
            let times = std::iter::successors(cron.after(until(from)), |last| cron.after(*last)).take(60);
            let years = times.map(|time| cron.local(time)[..4].parse::<u64>().unwrap()).collect::<Vec<_>>();
            let first = years[0];
            assert_eq!(years, (first..=5000).take(60).collect::<Vec<_>>());
        }
    }
}
