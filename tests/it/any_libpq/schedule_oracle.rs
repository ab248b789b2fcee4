//! Cron expressions against a second implementation that has nothing in common with the first: its own parser
//! of the fields, its own reader of the zones' files, and a walk through the year minute by minute, asking
//! what a clock on the wall shows.

use crate::common::random::Random;
use pgwake::Cron;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: i64 = 86_400;

/// Gaps longer than this leave out days, which are lost.
const GAP_MAX: i64 = 7200;

/// The changes of a zone's offset, read from its file (RFC 8536, version 2).
struct Zone {
    /// Since when, and how many seconds before UTC.
    changes: Vec<(i64, i64)>,
}

impl Zone {
    fn read(name: &str) -> Self {
        let file = std::fs::read(format!("/usr/share/zoneinfo/{name}")).unwrap();
        let number = |at: usize| i64::from(i32::from_be_bytes(file[at..at + 4].try_into().unwrap()));
        let counts = |at: usize| [20, 24, 28, 32, 36, 40].map(|n| number(at + n) as usize);
        let [utc, std, leap, time, types, chars] = counts(0);
        // The second part has times of 64 bits; the first is skipped.
        let second = 44 + time * 5 + types * 6 + chars + leap * 8 + std + utc;
        let [_, _, _, time, types, _] = counts(second);
        let (times, kinds) = (second + 44, second + 44 + time * 8);
        let offset_of = |kind: usize| number(kinds + time + kind * 6);
        assert!(types > 0);
        let mut changes = vec![(i64::MIN / 2, offset_of(0))];
        changes.extend((0..time).map(|n| {
            let at = times + n * 8;
            let since = i64::from_be_bytes(file[at..at + 8].try_into().unwrap());
            (since, offset_of(usize::from(file[kinds + n])))
        }));
        Zone { changes }
    }

    fn offset(&self, time: i64) -> i64 {
        self.changes[self.changes.partition_point(|(since, _)| *since <= time) - 1].1
    }
}

/// Year, month and day of a day since 1970, counted from one year to the next.
fn date(mut day: i64) -> (i64, i64, i64) {
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let (mut year, mut month) = (1970, 0);
    while day >= 365 + i64::from(is_leap(year)) {
        day -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let months = [31, 28 + i64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    while day >= months[month] {
        day -= months[month];
        month += 1;
    }
    (year, month as i64 + 1, day + 1)
}

/// Sunday is 0; 1 January 1970 was a Thursday.
fn weekday(day: i64) -> i64 {
    (day + 4).rem_euclid(7)
}

/// A numeric field: which values it takes.
fn values(field: &str, from: i64, to: i64, names: &str) -> Vec<i64> {
    let number = |text: &str| {
        let name = names.split(' ').position(|name| name.eq_ignore_ascii_case(text));
        name.map_or_else(|| text.parse().unwrap(), |place| place as i64 + from)
    };
    let mut values = Vec::new();
    for part in field.split(',') {
        let (range, step) = part.split_once('/').map_or((part, 1), |(range, step)| (range, number(step)));
        let (first, last) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (from, to),
            Some((first, last)) => (number(first), number(last)),
            None => (number(range), number(range)),
        };
        values.extend((first..=last).step_by(step as usize));
    }
    values
}

struct Oracle {
    second: Vec<i64>,
    minute: Vec<i64>,
    hour: Vec<i64>,
    month: Vec<i64>,
    day: String,
    weekday: String,
    is_one_time_of_day: bool,
}

const WEEKDAYS: &str = "sun mon tue wed thu fri sat";
const MONTHS: &str = "jan feb mar apr may jun jul aug sep oct nov dec";

impl Oracle {
    fn new(expression: &str) -> Self {
        let expression = match expression {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            other => other,
        };
        let fields: Vec<&str> = expression.split_whitespace().collect();
        let (second, rest) = if fields.len() == 6 { (fields[0], &fields[1..]) } else { ("0", &fields[..]) };
        let is_plain = |field: &str| field.bytes().all(|byte| byte.is_ascii_digit());
        Oracle {
            is_one_time_of_day: [second, rest[0], rest[1]].into_iter().all(is_plain),
            second: values(second, 0, 59, ""),
            minute: values(rest[0], 0, 59, ""),
            hour: values(rest[1], 0, 23, ""),
            month: values(rest[3], 1, 12, MONTHS),
            day: rest[2].to_uppercase(),
            weekday: rest[4].to_string(),
        }
    }

    fn has_day(&self, day: i64) -> bool {
        let (_, month, day_of_month) = date(day);
        if !self.month.contains(&month) {
            return false;
        }
        let is_any = |field: &str| field == "*" || field == "?";
        let by_month = || self.day.split(',').any(|part| is_day(part, day, day_of_month));
        let by_week = || self.weekday.split(',').any(|part| is_weekday(part, day, day_of_month));
        match (is_any(&self.day), is_any(&self.weekday)) {
            (true, true) => true,
            (true, false) => by_week(),
            (false, true) => by_month(),
            (false, false) => by_month() || by_week(),
        }
    }

    /// All due times from `from` up to and without `to`.
    fn between(&self, zone: &Zone, from: i64, to: i64) -> Vec<i64> {
        if self.is_one_time_of_day {
            self.once_a_day(zone, from, to)
        } else {
            self.by_the_clock(zone, from, to)
        }
    }

    /// What the clock shows at each minute, or at each second.
    fn by_the_clock(&self, zone: &Zone, from: i64, to: i64) -> Vec<i64> {
        let step = if self.second == [0] { 60 } else { 1 };
        let (mut due, mut known) = (Vec::new(), (i64::MIN, false));
        let mut time = from;
        while time < to {
            let shown = time + zone.offset(time);
            let (day, second) = (shown.div_euclid(DAY), shown.rem_euclid(DAY));
            if known.0 != day {
                known = (day, self.has_day(day));
            }
            let has_time = || {
                self.hour.contains(&(second / 3600))
                    && self.minute.contains(&(second / 60 % 60))
                    && self.second.contains(&(second % 60))
            };
            if known.1 && has_time() {
                due.push(time);
            }
            time += step;
        }
        due
    }

    fn once_a_day(&self, zone: &Zone, from: i64, to: i64) -> Vec<i64> {
        let second = self.hour[0] * 3600 + self.minute[0] * 60 + self.second[0];
        let days = (from.div_euclid(DAY) - 2..=to.div_euclid(DAY) + 2).filter(|day| self.has_day(*day));
        let due = days.filter_map(|day| {
            let shown = day * DAY + second;
            let mut at = zone.changes.iter().map(|(_, offset)| shown - offset).collect::<Vec<_>>();
            at.retain(|time| time + zone.offset(*time) == shown);
            at.into_iter().min().or_else(|| {
                let mut gaps = zone.changes.windows(2).map(|pair| (pair[0].1, pair[1].0, pair[1].1));
                let (before, end, after) =
                    gaps.find(|(before, end, after)| (end + before..end + after).contains(&shown)).unwrap();
                let day_at_end = (end + after).div_euclid(DAY);
                (after - before <= GAP_MAX && self.has_day(day_at_end)).then_some(end)
            })
        });
        let mut due: Vec<i64> = due.filter(|time| (from..to).contains(time)).collect();
        due.dedup();
        due
    }
}

fn days_in_month(day: i64, day_of_month: i64) -> i64 {
    let (_, month, _) = date(day);
    (28..=31).rev().find(|last| date(day - day_of_month + last).1 == month).unwrap()
}

fn is_day(part: &str, day: i64, day_of_month: i64) -> bool {
    let last = days_in_month(day, day_of_month);
    let weekday_of = |wanted: i64| weekday(day - day_of_month + wanted);
    match part {
        "L" => day_of_month == last,
        "LW" => day_of_month == (1..=last).rev().find(|n| !matches!(weekday_of(*n), 0 | 6)).unwrap(),
        part => match part.strip_suffix('W') {
            Some(wanted) => {
                let wanted = wanted.parse::<i64>().unwrap();
                // The nearest of the days within the month that is no weekend.
                let near = [0, -1, 1, -2, 2].map(|distance| wanted + distance);
                let workday = |n: &i64| (1..=last).contains(n) && !matches!(weekday_of(*n), 0 | 6);
                wanted <= last && near.iter().find(|n| workday(n)) == Some(&day_of_month)
            }
            None => values(part, 1, 31, "").contains(&day_of_month),
        },
    }
}

fn is_weekday(part: &str, day: i64, day_of_month: i64) -> bool {
    let is = |text: &str| values(text, 0, 6, WEEKDAYS).iter().any(|wanted| wanted % 7 == weekday(day));
    if let Some((text, nth)) = part.split_once('#') {
        let is_last = nth.eq_ignore_ascii_case("L") && day_of_month + 7 > days_in_month(day, day_of_month);
        return is(text) && (is_last || nth.parse() == Ok((day_of_month - 1) / 7 + 1));
    }
    match part.strip_suffix(['L', 'l']) {
        Some(text) => is(text) && day_of_month + 7 > days_in_month(day, day_of_month),
        None => is(part),
    }
}

/// Of all kinds of field.
const WRITTEN: [&str; 60] = [
    "* * * * *",
    "*/5 * * * *",
    "0 * * * *",
    "@hourly",
    "@daily",
    "@midnight",
    "@weekly",
    "@monthly",
    "@yearly",
    "@annually",
    "30 2 * * *",
    "0 2 * * *",
    "59 1 * * *",
    "0 3 * * *",
    "30 1 * * *",
    "0 0 * * *",
    "30 0 * * *",
    "*/15 2 * * *",
    "0,30 1 * * *",
    "30 1,2,3 * * *",
    "15 */2 * * *",
    "0 9-17 * * mon-fri",
    "0 0 1 * *",
    "0 12 L * *",
    "0 12 LW * *",
    "0 12 15W * *",
    "0 12 1W * *",
    "0 12 31W * *",
    "0 0 * * 5L",
    "0 0 * * fri#2",
    "0 0 * * mon#1,mon#3",
    "0 0 * * 7",
    "0 0 * * 0",
    "0 0 13 * fri",
    "0 0 29 2 *",
    "0 0 31 * *",
    "0 0 30 * 1",
    "5-55/10 8-18/2 * * *",
    "10,20,40 6,7 1-7 * *",
    "0 0 1 jan,apr,jul,oct *",
    "0 4 * 3-5,9-11 sun",
    "45 23 * * sat,sun",
    "0 0 */2 * *",
    "0 0 */2 * 1",
    "1 1 1,15 * *",
    "20 2 * mar sun",
    "0 1 * oct sun",
    "*/7 * * * *",
    "3-59/7 1-3 * * *",
    "0 2 L 2 *",
    "30 2 * 3,10,11 *",
    "0 5 ? * mon",
    "0 5 1 * ?",
    "30 1 * * sun#L",
    "0 0 5,15,25 2-12/2 *",
    "59 23 31 12 *",
    "0 2 * * 1-7",
    "30 2 28-31 3 *",
    "15 1 26W 10 *",
    "0 3 L * fri",
];

/// With seconds; a year of them has half a million times as many.
const WITH_SECONDS: [&str; 8] = [
    "0 30 2 * * *",
    "30 0 3 * * *",
    "*/10 59 1 * * sun",
    "15,45 */30 2 * * *",
    "0 0 12 1W * *",
    "59 59 23 L * *",
    "*/20 * 1-3 * 3,10,11 sun",
    "5 0 2 * * 0#L",
];

const ZONES: [&str; 12] = [
    "America/New_York",
    "Europe/London",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "America/Santiago",
    "UTC",
    "Australia/Sydney",
    "America/Havana",
    "Africa/Casablanca",
    "Asia/Kolkata",
    "Pacific/Chatham",
    "America/Asuncion",
];

/// An expression at random.
fn random_expression(random: &mut Random) -> String {
    let mut field = |from: u64, to: u64| {
        let mut one = || from + random.below(to - from + 1);
        let (mut a, mut b, step) = (one(), one(), 2 + one() % 7);
        if a > b {
            std::mem::swap(&mut a, &mut b);
        }
        match one() % 6 {
            0 | 1 => "*".to_string(),
            2 => a.to_string(),
            3 => format!("{a},{b}"),
            4 => format!("{a}-{b}"),
            _ => format!("*/{step},{b}"),
        }
    };
    format!("{} {} {} {} {}", field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7))
}

fn time(seconds: i64) -> SystemTime {
    if seconds < 0 {
        return UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs());
    }
    UNIX_EPOCH + Duration::from_secs(seconds as u64)
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or_else(|e| -(e.duration().as_secs() as i64), |d| d.as_secs() as i64)
}

/// Both must find the same times.
fn compare(expression: &str, zone: &str, from: i64, to: i64) -> Result<usize, String> {
    // One that is refused at random is never due.
    let expected = Oracle::new(expression).between(&Zone::read(zone), from, to);
    let cron = match Cron::new(expression, Some(zone)) {
        Err(_) if expected.is_empty() => return Ok(0),
        cron => cron.map_err(|error| error.to_string())?,
    };
    let mut found = Vec::new();
    let mut at = time(from - 1);
    while let Some(due) = cron.after(at).filter(|due| seconds(*due) < to) {
        found.push(seconds(due));
        at = due;
    }
    if found == expected {
        return Ok(found.len());
    }
    let differs =
        found.iter().zip(&expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
    let [a, b] = [&found, &expected].map(|times| times.get(differs).copied());
    Err(format!("{expression:?} in {zone}: the {differs}th is {a:?}, and must be {b:?}"))
}

/// Each expression in some zone, over the year 2025. `PGWAKE_TEST_CRON_YEAR=1` takes all of 200 expressions
/// through the whole year, best in a release build; without it, some take the weeks about changes of clocks.
#[test]
fn each_due_time_is_what_a_clock_on_the_wall_shows() {
    const NEW_YEAR_2025: i64 = 1_735_689_600;
    let is_whole = std::env::var_os("PGWAKE_TEST_CRON_YEAR").is_some();
    let mut random = Random::seeded();
    let mut expressions: Vec<String> = WRITTEN.iter().chain(&WITH_SECONDS).map(|e| e.to_string()).collect();
    while expressions.len() < 200 {
        expressions.push(random_expression(&mut random));
    }
    // Round about the changes in March, April, September, October and November.
    let whole = [(0, 365)];
    let spans: &[(i64, i64)] = if is_whole { &whole } else { &[(67, 70), (88, 96), (247, 250), (298, 308)] };
    let (mut faults, mut times) = (Vec::new(), 0);
    for (n, expression) in expressions.iter().enumerate() {
        let has_seconds = expression.split(' ').count() == 6;
        if !is_whole && n % 2 == 1 && !has_seconds {
            continue;
        }
        for (from, to) in spans {
            let (from, to) = (NEW_YEAR_2025 + from * DAY, NEW_YEAR_2025 + to * DAY);
            match compare(expression, ZONES[n % ZONES.len()], from, to) {
                Ok(count) => times += count,
                Err(fault) => faults.push(fault),
            }
        }
    }
    println!("{} expressions, {times} due times", expressions.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(times > 10_000, "{times}");
}

/// Gaps of other lengths, and long ago.
#[test]
fn gaps_of_half_an_hour_at_midnight_and_of_a_day_are_no_exception() {
    // The zone, and a week about its change: Lord Howe 2025-10-05 and 2025-04-06, São Paulo 2018-11-04,
    // Apia 2011-12-30, Kwajalein 1993-08-21, Havana 2025-03-09.
    let weeks = [
        ("Australia/Lord_Howe", 1_759_363_200),
        ("Australia/Lord_Howe", 1_743_638_400),
        ("America/Sao_Paulo", 1_541_030_400),
        ("Pacific/Apia", 1_325_030_400),
        ("Pacific/Kwajalein", 745_632_000),
        ("America/Havana", 1_741_219_200),
    ];
    let mut faults = Vec::new();
    for (zone, from) in weeks {
        for expression in WRITTEN.iter().chain(&WITH_SECONDS) {
            faults.extend(compare(expression, zone, from, from + 7 * DAY).err());
        }
        for hour in 0..24 {
            let each = [format!("15 {hour} * * *"), format!("*/20 {hour} * * *")];
            faults.extend(each.iter().filter_map(|e| compare(e, zone, from, from + 7 * DAY).err()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
