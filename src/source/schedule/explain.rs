//! A cron expression in words.

use croner::CronPattern;
use croner::parser::CronParser;

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const ORDINALS: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];

/// Such as `at 02:30, on Monday to Friday, in March`.
pub(super) fn explain(pattern: &CronPattern) -> String {
    // It has been read once: there are names of neither days nor months in it, and five or six fields.
    let fields: Vec<&str> = pattern.as_str().split_whitespace().collect();
    let at = |from_behind: usize| fields.len().checked_sub(from_behind).map_or("*", |n| fields[n]);
    let mut parts =
        vec![time(pattern, if fields.len() == 6 { fields[0] } else { "0" }), days(pattern, at(3), at(1))];
    let months = pattern.months.values();
    if months.len() < 12 {
        parts.push(format!("in {}", list(&months, |month| MONTHS[usize::from(month) - 1].to_string())));
    }
    parts.join(", ")
}

fn time(pattern: &CronPattern, seconds_field: &str) -> String {
    let [seconds, minutes, hours] =
        [pattern.seconds.values(), pattern.minutes.values(), pattern.hours.values()];
    let has_seconds = seconds_field != "0";
    if let ([second], [minute], [hour]) = (&*seconds, &*minutes, &*hours) {
        let seconds = if has_seconds { format!(":{second:02}") } else { String::new() };
        return format!("at {hour:02}:{minute:02}{seconds}");
    }
    let mut parts = Vec::new();
    if has_seconds {
        parts.push(unit("second", &seconds, 60));
    }
    if has_seconds && minutes.len() == 60 && hours.len() == 24 && seconds.len() == 60 {
        return parts.concat();
    }
    if !(hours.len() == 24 && minutes.len() == 60 && !has_seconds) {
        parts.push(unit("minute", &minutes, 60));
        parts.push(unit("hour", &hours, 24));
        return parts.join(" of ");
    }
    "every minute".to_string()
}

fn unit(name: &str, values: &[u16], all: usize) -> String {
    match values {
        _ if values.len() == all => format!("every {name}"),
        [one] => format!("{name} {one}"),
        _ => format!("{name}s {}", list(values, |value| value.to_string())),
    }
}

fn days(pattern: &CronPattern, days: &str, weekdays: &str) -> String {
    let of_month = || {
        let plain = pattern.days.values();
        let plain = (!plain.is_empty()).then(|| {
            let name = if plain.len() == 1 { "day" } else { "days" };
            format!("{name} {} of the month", list(&plain, |day| day.to_string()))
        });
        let special = days.split(',').filter_map(|part| match part {
            "L" => Some("the last day of the month".to_string()),
            "LW" => Some("the last workday of the month".to_string()),
            part => part.strip_suffix('W').map(|day| format!("the workday nearest to day {day}")),
        });
        plain.into_iter().chain(special).collect::<Vec<_>>().join(" and ")
    };
    let of_week = || {
        let plain = pattern.days_of_week.values();
        let plain = (!plain.is_empty()).then(|| list(&plain, weekday));
        let special = weekdays.trim_start_matches('+').split(',').filter_map(|part| {
            let (days, nth) = part.split_once('#').or_else(|| Some((part.strip_suffix('L')?, "L")))?;
            let days = CronParser::new().parse(&format!("* * * * {days}")).ok()?.pattern.days_of_week;
            let nth = nth.parse::<usize>().map_or("last", |nth| ORDINALS[(nth - 1) % 5]);
            let days = days.values().into_iter().map(|day| format!("the {nth} {}", weekday(day)));
            Some(format!("{} of the month", joined(&days.collect::<Vec<_>>())))
        });
        plain.into_iter().chain(special).collect::<Vec<_>>().join(" and ")
    };
    match (pattern.is_dom_wildcard(), pattern.is_dow_wildcard()) {
        (true, true) => "every day".to_string(),
        (false, true) => format!("on {}", of_month()),
        (true, false) => format!("on {}", of_week()),
        (false, false) if pattern.matches_dom_and_dow() => {
            format!("on {} if it is {}", of_month(), of_week())
        }
        (false, false) => format!("on {}, and on {}", of_month(), of_week()),
    }
}

/// Three or more in a row are a range: `1, 2 and 5 to 9`.
fn list(values: &[u16], name: impl Fn(u16) -> String) -> String {
    let mut parts = Vec::new();
    for row in values.chunk_by(|a, b| a + 1 == *b) {
        match row {
            [first, _, .., last] => parts.push(format!("{} to {}", name(*first), name(*last))),
            few => parts.extend(few.iter().map(|value| name(*value))),
        }
    }
    joined(&parts)
}

fn joined(parts: &[String]) -> String {
    match parts.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => parts.concat(),
    }
}

fn weekday(day: u16) -> String {
    WEEKDAYS[usize::from(day) % 7].to_string()
}

#[cfg(test)]
mod tests {
    use super::super::civil::Cron;

    #[test]
    fn an_expression_reads_as_a_sentence() {
        for (expression, words) in [
            ("* * * * *", "every minute, every day"),
            ("* * * * * *", "every second, every day"),
            ("30 2 * * *", "at 02:30, every day"),
            ("15 30 2 * * *", "at 02:30:15, every day"),
            ("0 9-17 * * mon-fri", "minute 0 of hours 9 to 17, on Monday to Friday"),
            ("0-30/10 * * * *", "minutes 0, 10, 20 and 30 of every hour, every day"),
            ("*/20 * 1,2 * * *", "seconds 0, 20 and 40 of every minute of hours 1 and 2, every day"),
            ("* 3 * * *", "every minute of hour 3, every day"),
            (
                "0 0 1 jan,apr,jul,oct *",
                "at 00:00, on day 1 of the month, in January, April, July and October",
            ),
            ("0 12 L * *", "at 12:00, on the last day of the month"),
            ("0 12 LW * *", "at 12:00, on the last workday of the month"),
            ("0 12 1,15W * *", "at 12:00, on day 1 of the month and the workday nearest to day 15"),
            ("0 0 * * fri#2", "at 00:00, on the second Friday of the month"),
            ("0 0 * * 5L", "at 00:00, on the last Friday of the month"),
            (
                "0 0 * * mon-wed#2,5",
                "at 00:00, on Friday and the second Monday, the second Tuesday and the second Wednesday of \
                 the month",
            ),
            (
                "0 0 1 * +6-7#1",
                "at 00:00, on day 1 of the month if it is the first Sunday and the first Saturday of the \
                 month",
            ),
            (
                "0 0 * * */3#1",
                "at 00:00, on the first Sunday, the first Wednesday and the first Saturday of the month",
            ),
            ("0 0 13 * fri", "at 00:00, on day 13 of the month, and on Friday"),
            ("0 0 13 * +fri", "at 00:00, on day 13 of the month if it is Friday"),
            ("@weekly", "at 00:00, on Sunday"),
            ("0 0 * 3-5 7", "at 00:00, on Sunday, in March to May"),
        ] {
            assert_eq!(Cron::new(expression, Some("UTC")).unwrap().explain(), words, "{expression}");
        }
    }
}
