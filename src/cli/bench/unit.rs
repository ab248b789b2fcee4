//! What numbers of a report are, and how people read them: three digits and a unit.

/// What a number counts, as the report has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Plain,
    Nanoseconds,
    Microseconds,
    Milliseconds,
    Seconds,
    Kilobytes,
    Percent,
}

const TIMES: &[(f64, &str)] = &[(1e9, " s"), (1e6, " ms"), (1e3, " µs"), (1.0, " ns")];

impl Unit {
    pub(super) fn label(self, value: f64) -> String {
        match self {
            // Up to four digits are read at a glance.
            Unit::Plain if value < 9_999.5 => scaled(value, &[(1.0, "")]),
            Unit::Plain => scaled(value, &[(1e9, " G"), (1e6, " M"), (1e3, " k")]),
            Unit::Nanoseconds => scaled(value, TIMES),
            Unit::Microseconds => scaled(value * 1e3, TIMES),
            Unit::Milliseconds => scaled(value * 1e6, TIMES),
            Unit::Kilobytes => scaled(value, &[(1e6, " GB"), (1e3, " MB"), (1.0, " KB")]),
            Unit::Seconds => format!("{} s", (value * 100.0).round() / 100.0),
            Unit::Percent => format!("{value} %"),
        }
    }
}

/// In the greatest of these units, the last of which is the least, that makes it one or more.
fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    if value < 0.0 {
        return format!("-{}", scaled(-value, units));
    }
    let fits = units.iter().find(|(factor, _)| value >= factor * 0.9995).or(units.last());
    let (factor, unit) = fits.copied().unwrap_or((1.0, ""));
    let number = value / factor;
    let decimals = match number {
        ..9.995 if number.fract().abs() > 0.004 => 2,
        ..99.95 if number.fract().abs() > 0.04 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        for (unit, value, label) in [
            (Unit::Plain, 7999.0, "7999"),
            (Unit::Plain, 10_000.0, "10 k"),
            (Unit::Plain, 1_310_000.0, "1.31 M"),
            (Unit::Microseconds, 0.5, "500 ns"),
            (Unit::Microseconds, 173.2, "173 µs"),
            (Unit::Microseconds, 2_400.0, "2.40 ms"),
            (Unit::Microseconds, -12.3, "-12.3 µs"),
            (Unit::Nanoseconds, 14_000.0, "14 µs"),
            (Unit::Milliseconds, 45.2, "45.2 ms"),
            (Unit::Kilobytes, 12.34, "12.3 KB"),
            (Unit::Percent, 99.9, "99.9 %"),
        ] {
            assert_eq!(unit.label(value), label);
        }
    }
}
