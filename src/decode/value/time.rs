//! Dates and times: their binary form flows in, PostgreSQL's text flows out, with DateStyle ISO, TimeZone UTC
//! and IntervalStyle postgres. The calendar is the Gregorian one, before its time, too, and has no year 0.

use crate::decode::wire::{Malformed, Reader};
use std::fmt::Write;

const SECOND_US: u64 = 1_000_000;
const DAY_US: i64 = 86_400 * 1_000_000;

/// Days after the beginning of 2000.
pub(super) fn date(out: &mut String, fields: &mut Reader<'_>) -> Result<(), Malformed> {
    match fields.i32()? {
        i32::MAX => out.push_str("infinity"),
        i32::MIN => out.push_str("-infinity"),
        days => {
            let era = day(out, days.into());
            out.push_str(era);
        }
    }
    Ok(())
}

/// Microseconds of the day, up to 24:00.
pub(super) fn time(out: &mut String, fields: &mut Reader<'_>) -> Result<(), Malformed> {
    let before = *fields;
    let us = fields.u64()?;
    if us > DAY_US.unsigned_abs() {
        return Err(before.malformed("a time lies outside of the day"));
    }
    clock(out, us);
    Ok(())
}

/// A time, and how many seconds its zone lies west of Greenwich.
pub(super) fn time_tz(out: &mut String, fields: &mut Reader<'_>) -> Result<(), Malformed> {
    time(out, fields)?;
    let west = fields.i32()?;
    let seconds = west.unsigned_abs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    // Writing to a string cannot fail, here and below.
    _ = write!(out, "{}{hours:02}", if west > 0 { '-' } else { '+' });
    if minutes != 0 || seconds != 0 {
        _ = write!(out, ":{minutes:02}");
    }
    if seconds != 0 {
        _ = write!(out, ":{seconds:02}");
    }
    Ok(())
}

/// Microseconds after the beginning of 2000. `zone` is written after them.
pub(super) fn timestamp(out: &mut String, fields: &mut Reader<'_>, zone: &str) -> Result<(), Malformed> {
    match fields.i64()? {
        i64::MAX => out.push_str("infinity"),
        i64::MIN => out.push_str("-infinity"),
        us => {
            let era = day(out, us.div_euclid(DAY_US));
            out.push(' ');
            clock(out, us.rem_euclid(DAY_US).unsigned_abs());
            out.push_str(zone);
            out.push_str(era);
        }
    }
    Ok(())
}

/// Microseconds, days and months, each with a sign of its own.
pub(super) fn interval(out: &mut String, fields: &mut Reader<'_>) -> Result<(), Malformed> {
    let (us, days, months) = (fields.i64()?, fields.i32()?, fields.i32()?);
    match (us, days, months) {
        // As since PostgreSQL 17.
        (i64::MAX, i32::MAX, i32::MAX) => out.push_str("infinity"),
        (i64::MIN, i32::MIN, i32::MIN) => out.push_str("-infinity"),
        _ => {
            let start = out.len();
            // A part after a negative one shows that it is none.
            let mut was_negative = false;
            for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
                if value != 0 {
                    let space = if out.len() > start { " " } else { "" };
                    let sign = if was_negative && value > 0 { "+" } else { "" };
                    _ = write!(out, "{space}{sign}{value} {unit}{}", if value == 1 { "" } else { "s" });
                    was_negative = value < 0;
                }
            }
            if us != 0 || out.len() == start {
                let space = if out.len() > start { " " } else { "" };
                let sign = if us < 0 {
                    "-"
                } else if was_negative {
                    "+"
                } else {
                    ""
                };
                out.push_str(space);
                out.push_str(sign);
                clock(out, us.unsigned_abs());
            }
        }
    }
    Ok(())
}

/// Appends hours, minutes, seconds and what there is of a fraction.
fn clock(out: &mut String, us: u64) {
    let (seconds, us) = (us / SECOND_US, us % SECOND_US);
    _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if us > 0 {
        _ = write!(out, ".{us:06}");
        out.truncate(out.trim_end_matches('0').len());
    }
}

/// Appends a day, by its distance from the beginning of 2000; what is to stand at the end of the text.
fn day(out: &mut String, days: i64) -> &'static str {
    /// What lies before each month of a year that begins in March, so that a leap day is its last.
    const BEFORE_MONTH: [i64; 12] = [0, 31, 61, 92, 122, 153, 184, 214, 245, 275, 306, 337];
    const YEAR: i64 = 365;
    const FOUR_YEARS: i64 = 4 * YEAR + 1;
    const CENTURY: i64 = 25 * FOUR_YEARS - 1;
    const FOUR_CENTURIES: i64 = 4 * CENTURY + 1;
    // After the first of March 2000, on which four centuries begin.
    let days = days - 31 - 29;
    let (cycles, days) = (days.div_euclid(FOUR_CENTURIES), days.rem_euclid(FOUR_CENTURIES));
    // The last day of a cycle, a leap day, is one more than its parts have.
    let centuries = (days / CENTURY).min(3);
    let days = days - centuries * CENTURY;
    let (fours, days) = (days / FOUR_YEARS, days % FOUR_YEARS);
    let years = (days / YEAR).min(3);
    let days = days - years * YEAR;
    let month = BEFORE_MONTH.partition_point(|before| *before <= days);
    let day = days - BEFORE_MONTH[month - 1] + 1;
    let year = 2000 + 400 * cycles + 100 * centuries + 4 * fours + years + i64::from(month > 10);
    let month = (month + 1) % 12 + 1;
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    _ = write!(out, "{year:04}-{month:02}-{day:02}");
    era
}
