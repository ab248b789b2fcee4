//! When a cron expression is due in a time zone. All the rules about clocks that are put forward and back are
//! in this file.
//!
//! The expression speaks of what a clock on the wall shows. Where that clock is put **forward**, it skips an
//! hour; where it is put **back**, it shows an hour twice. There are two kinds of expression:
//!
//! - It names *one time of day* (`30 2 * * *`). It runs once a day whatever the clock does: a time that is
//!   skipped runs at the end of the gap, and one that is shown twice runs the first time.
//! - Anything else (`*/15 * * * *`, `0 1,2,3 * * *`) follows the clock: what is skipped does not run, and what
//!   is shown twice runs twice.
//!
//! So far this is what the crate `croner` does. It looks for the end of a gap for two hours, though, and a zone
//! may leave out a whole day: Apia had no 30 December 2011. Such a day is lost with all its times, and the
//! search goes on behind it.
//!
//! Each due time is computed from the zone's rules when it is needed. No offset is kept.

use super::rule::Nanos;
use crate::error::{Error, ErrorKind, Result};
use croner::Cron;
use croner::parser::{CronParser, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

/// A gap that is longer is no summer time but days that the zone left out. It is also how far croner looks for
/// the end of one.
const GAP_MAX: SignedDuration = SignedDuration::from_hours(2);

/// How many changes of a zone's offset are looked through for such a gap.
const CHANGES_MAX: usize = 1000;

/// A cron expression in a time zone.
#[derive(Debug, Clone)]
pub(crate) struct Civil {
    cron: Cron,
    zone: TimeZone,
}

impl Civil {
    /// Reads an expression. One that is never due from `now` on is refused.
    pub(crate) fn new(expression: &str, zone: Option<&str>, now: Nanos) -> Result<Self> {
        let parser = CronParser::builder().year(Year::Disallowed).build();
        let cron = parser.parse(expression).map_err(|reason| {
            refused(format!(
                "{expression:?} is no cron expression ({reason}): it takes five fields, minute, hour, day of the \
                 month, month, day of the week, or six with the second before them"
            ))
        })?;
        let civil = Civil { cron, zone: time_zone(zone)? };
        if civil.after(now).is_none() {
            let message = format!("{expression:?} is never due: no day has all that it asks for");
            return Err(refused(message));
        }
        Ok(civil)
    }

    /// The first due time behind `time`.
    pub(super) fn after(&self, time: Nanos) -> Option<Nanos> {
        let (mut from, mut from_itself) = (self.zoned(time)?, false);
        loop {
            (from, from_itself) = match self.cron.find_next_occurrence(&from, from_itself) {
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
            let up_to_now = |time| self.after(time).filter(|due| *due <= now);
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
        !self.cron.is_time_matching(due).unwrap_or(true) && self.gap_before(due.timestamp()) > GAP_MAX
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

/// The zone of this name, or the system's.
fn time_zone(name: Option<&str>) -> Result<TimeZone> {
    match name {
        None => TimeZone::try_system().map_err(|reason| {
            refused(format!(
                "the system's time zone is not known ({reason}): name one, such as Europe/Berlin"
            ))
        }),
        Some(name) => TimeZone::get(name).map_err(|_| {
            let message = match jiff::tz::db().is_definitively_empty() {
                true => format!("{name:?} is not known, nor any other time zone: install the package tzdata"),
                false => format!("{name:?} is no time zone: it takes a name such as Europe/Berlin or UTC"),
            };
            refused(message)
        }),
    }
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}
