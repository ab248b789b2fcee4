//! `pgwake bench compare A B`: two reports figure by figure: how far they differ, and whether that is more
//! than rounds of one report differ among themselves.

use super::super::Failure;
use super::super::arguments::Format;
use super::arguments::Compare;
use super::report::{KINDS, Kind, Measurement, Report, VERSION, yardstick};
use super::table::unit_of;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

/// With this probability and less, rounds of one and the same thing fall apart so clearly.
const CHANCE_MAX: f64 = 0.01;

/// A figure of two reports.
#[derive(Debug, Serialize)]
struct Difference<'a> {
    contender: &'a str,
    transport: &'a str,
    series: &'a str,
    step: u64,
    figure: String,
    before: f64,
    after: f64,
    /// `after` to `before`.
    ratio: Option<f64>,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Better,
    Worse,
    WithinNoise,
    /// So few that chance could always explain them.
    TooFewRounds,
}

pub(super) fn run(format: Format, arguments: &Compare) -> Result<(), Failure> {
    let (before, after) = (read(&arguments.before)?, read(&arguments.after)?);
    if before.scenario != after.scenario {
        return Err(Failure::Usage(format!(
            "a report of `bench {}` and one of `bench {}` have nothing to compare",
            before.scenario, after.scenario
        )));
    }
    let differences = differences(&before, &after);
    if differences.is_empty() {
        let reason =
            "the two reports have no measurement in common: no program over the same way, at the same step";
        return Err(Failure::Usage(reason.into()));
    }
    let text = match format {
        Format::Json => serde_json::to_string(&differences).map_err(std::io::Error::from)? + "\n",
        Format::Text => table(&before, &after, &differences),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn read(path: &Path) -> Result<Report, Failure> {
    let problem = |what: String| Failure::Running(format!("cannot read {}: {what}", path.display()));
    let text = std::fs::read(path).map_err(|error| problem(error.to_string()))?;
    let report: Report = serde_json::from_slice(&text)
        .map_err(|error| problem(format!("it is no report that `pgwake bench --json` wrote ({error})")))?;
    match report.pgwake_bench {
        VERSION => Ok(report),
        other => Err(problem(format!("its version is {other}, and this pgwake knows {VERSION}"))),
    }
}

fn differences<'a>(before: &'a Report, after: &'a Report) -> Vec<Difference<'a>> {
    let mut differences = Vec::new();
    for old in &before.measurements {
        let is_same = |new: &&Measurement| {
            (&new.contender, &new.transport, &new.series, new.step)
                == (&old.contender, &old.transport, &old.series, old.step)
        };
        let Some(new) = after.measurements.iter().find(is_same) else { continue };
        for kind in KINDS.iter().filter(|kind| kind.name != "notifications") {
            let Some((a, b)) = old.figures.get(kind.name).zip(new.figures.get(kind.name)) else { continue };
            differences.push(difference(
                old,
                kind,
                kind.name.into(),
                (a.median, &a.rounds),
                (b.median, &b.rounds),
            ));
            // Two days of one machine differ; the ratios to the yardstick of the same round hardly do.
            if let Some((x, y)) = a.ratio.zip(b.ratio) {
                let name = format!("{}, ratio to {}", kind.name, yardstick(&before.scenario).short);
                differences.push(difference(old, kind, name, (x, &a.ratio_rounds), (y, &b.ratio_rounds)));
            }
        }
    }
    differences
}

fn difference<'a>(
    of: &'a Measurement,
    kind: &Kind,
    figure: String,
    before: (f64, &[f64]),
    after: (f64, &[f64]),
) -> Difference<'a> {
    Difference {
        contender: &of.contender,
        transport: &of.transport,
        series: &of.series,
        step: of.step,
        figure,
        before: before.0,
        after: after.0,
        ratio: (before.0 != 0.0).then(|| after.0 / before.0),
        verdict: verdict(before.1, after.1, kind.more_is_better),
    }
}

fn verdict(before: &[f64], after: &[f64], more_is_better: bool) -> Verdict {
    let greater = pairs_greater(before, after);
    let pairs = (before.len() * after.len()) as f64;
    let extreme = greater.min(pairs - greater);
    match () {
        _ if chance(0.0, before.len(), after.len()) > CHANCE_MAX => Verdict::TooFewRounds,
        _ if chance(extreme, before.len(), after.len()) > CHANCE_MAX => Verdict::WithinNoise,
        _ if (greater > pairs / 2.0) == more_is_better => Verdict::Better,
        _ => Verdict::Worse,
    }
}

/// In how many pairs of a round before and one after the later is the greater; half of a tie counts.
fn pairs_greater(before: &[f64], after: &[f64]) -> f64 {
    let pairs = before.iter().flat_map(|a| after.iter().map(move |b| (a, b)));
    pairs.map(|(a, b)| if b > a { 1.0 } else { f64::from(u8::from(a == b)) / 2.0 }).sum()
}

/// How probable it is by chance alone that so few pairs, or so many, are the other way round: the exact
/// two-sided test of Mann and Whitney, which asks for no distribution.
fn chance(pairs: f64, before: usize, after: usize) -> f64 {
    // ways[i][u]: orders of i rounds before among those after so far in which u pairs are the other way
    // round.
    let most = before * after;
    let mut ways = vec![vec![0.0f64; most + 1]; before + 1];
    ways[0][0] = 1.0;
    ways[1..].iter_mut().for_each(|ways| ways[0] = 1.0);
    for _ in 0..after {
        for i in 1..=before {
            for u in (0..=most).rev() {
                let from_fewer = ways[i - 1][u];
                let shifted = if u >= i { ways[i][u - i] } else { 0.0 };
                ways[i][u] = from_fewer + shifted;
            }
        }
    }
    let all: f64 = ways[before].iter().sum();
    let extreme: f64 = ways[before].iter().take(pairs.floor() as usize + 1).sum();
    (2.0 * extreme / all).min(1.0)
}

fn table(before: &Report, after: &Report, differences: &[Difference<'_>]) -> String {
    let mut table = String::new();
    for (name, report) in [("A", before), ("B", after)] {
        let (environment, complete) =
            (&report.environment, if report.complete { "" } else { ", not complete" });
        let _ = writeln!(
            table,
            "{name}: {} of {}, PostgreSQL {}, libpq {}, pgwake {}{complete}",
            report.scenario, report.started_at, environment.server, environment.libpq, environment.pgwake
        );
    }
    for group in differences.chunk_by(|a, b| {
        (a.contender, a.transport, a.series, a.step) == (b.contender, b.transport, b.series, b.step)
    }) {
        let first = &group[0];
        let step = match unit_of(&before.scenario, first.series) {
            "" => String::new(),
            unit if unit == first.series => format!(", {} {unit}", first.step),
            unit => format!(", {}, {} {unit}", first.series, first.step),
        };
        let _ = writeln!(
            table,
            "\n{} over {}{step}\n{:34}{:>14}{:>14}{:>8}",
            first.contender, first.transport, "", "A", "B", "B/A"
        );
        for difference in group {
            let ratio = difference.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
            let verdict = match difference.verdict {
                Verdict::Better => "better",
                Verdict::Worse => "worse",
                Verdict::WithinNoise => "within the noise",
                Verdict::TooFewRounds => "too few rounds to tell",
            };
            let _ = writeln!(
                table,
                "{:34}{:>14.2}{:>14.2}{ratio:>8}  {verdict}",
                difference.figure, difference.before, difference.after
            );
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_counts_when_the_rounds_fall_apart() {
        let (low, high) = ([1.0, 1.1, 1.2, 1.3, 1.4], [2.0, 2.1, 2.2, 2.3, 2.4]);
        assert_eq!(verdict(&low, &high, false), Verdict::Worse);
        assert_eq!(verdict(&low, &high, true), Verdict::Better);
        assert_eq!(verdict(&high, &low, true), Verdict::Worse);
        assert_eq!(verdict(&low, &[0.5, 1.15, 1.25, 1.35, 3.0], false), Verdict::WithinNoise);
        assert_eq!(verdict(&low, &low, false), Verdict::WithinNoise);
        assert_eq!(verdict(&low[..3], &high, false), Verdict::TooFewRounds);
        assert_eq!(verdict(&[], &high, false), Verdict::TooFewRounds);
    }

    #[test]
    fn chance_is_as_the_tables_of_the_test_have_it() {
        // Two of the 252 orders of five and five.
        assert!((chance(0.0, 5, 5) - 2.0 / 252.0).abs() < 1e-12);
        // Critical value for 8 and 8 at 0.01, two-sided: 7.
        assert!(chance(7.0, 8, 8) <= 0.01 && chance(8.0, 8, 8) > 0.01);
        assert_eq!(chance(12.0, 5, 5), 1.0);
    }
}
