//! `pgwake bench compare A B`: two reports figure by figure: how far they differ, and whether that is more
//! than rounds of one report differ among themselves.

use super::super::Failure;
use super::super::arguments::Format;
use super::super::output::printable;
use super::arguments::Compare;
use super::noise::{Noise, Verdict};
use super::report::{KINDS, Kind, Measurement, Report, VERSION, yardstick};
use super::table::unit_of;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Far more than the largest measurement leaves; a device has no end.
const REPORT_BYTES_MAX: u64 = 64 << 20;

/// All that is to be said of two reports.
#[derive(Debug, Default)]
struct Comparison<'a> {
    conditions: Vec<Condition>,
    differences: Vec<Difference<'a>>,
    left_over: Vec<LeftOver<'a>>,
}

/// What the two were measured with, where it is not the same.
#[derive(Debug, PartialEq, Serialize)]
struct Condition {
    condition: String,
    before: Value,
    after: Value,
}

/// What only one of the two has: a whole measurement, or a figure of one.
#[derive(Debug, Serialize)]
struct LeftOver<'a> {
    contender: &'a str,
    transport: &'a str,
    series: &'a str,
    step: u64,
    figure: Option<&'a str>,
    only_in: Side,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Side {
    Before,
    After,
}

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

pub(super) fn run(format: Format, arguments: &Compare) -> Result<(), Failure> {
    let (before, after) = (read(&arguments.before)?, read(&arguments.after)?);
    if before.scenario != after.scenario {
        return Err(Failure::Usage(format!(
            "a report of `bench {}` and one of `bench {}` have nothing to compare",
            clean(&before.scenario),
            clean(&after.scenario)
        )));
    }
    let comparison = compare(&before, &after);
    if comparison.differences.is_empty() {
        let reason =
            "the two reports have no measurement in common: no program over the same way, at the same step";
        return Err(Failure::Usage(reason.into()));
    }
    let text = match format {
        Format::Json => lines(&comparison).map_err(std::io::Error::from)?,
        Format::Text => table(&before, &after, &comparison),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn read(path: &Path) -> Result<Report, Failure> {
    let problem = |what: String| Failure::Running(format!("cannot read {}: {what}", path.display()));
    let mut text = Vec::new();
    let taken = File::open(path).and_then(|file| file.take(REPORT_BYTES_MAX + 1).read_to_end(&mut text));
    if taken.map_err(|error| problem(error.to_string()))? as u64 > REPORT_BYTES_MAX {
        return Err(problem("it has more than 64 MB, and no report has: name another".into()));
    }
    let report: Report = serde_json::from_slice(&text)
        .map_err(|error| problem(format!("it is no report that `pgwake bench --json` wrote ({error})")))?;
    match report.pgwake_bench {
        VERSION => Ok(report),
        other => Err(problem(format!("its version is {other}, and this pgwake knows {VERSION}"))),
    }
}

fn compare<'a>(before: &'a Report, after: &'a Report) -> Comparison<'a> {
    let mut comparison = Comparison { conditions: conditions(before, after), ..Comparison::default() };
    let mut noise = Noise::default();
    let of_after: BTreeMap<_, _> = after.measurements.iter().map(|new| (place(new), new)).collect();
    for old in &before.measurements {
        match of_after.get(&place(old)) {
            Some(new) => figures(&mut comparison, &mut noise, &before.scenario, old, new),
            None => comparison.left_over.push(left_over(old, None, Side::Before)),
        }
    }
    let of_before: BTreeMap<_, _> = before.measurements.iter().map(|old| (place(old), ())).collect();
    let is_new = |new: &&Measurement| !of_before.contains_key(&place(new));
    let added = after.measurements.iter().filter(is_new);
    comparison.left_over.extend(added.map(|new| left_over(new, None, Side::After)));
    comparison
}

/// What must be the same for a measurement to be the same.
fn place(of: &Measurement) -> (&str, &str, &str, u64) {
    (&of.contender, &of.transport, &of.series, of.step)
}

fn left_over<'a>(of: &'a Measurement, figure: Option<&'a str>, only_in: Side) -> LeftOver<'a> {
    let (contender, transport, series, step) = place(of);
    LeftOver { contender, transport, series, step, figure, only_in }
}

/// The parameters, the server's settings and the machine, where they differ. More rounds only tell more.
fn conditions(before: &Report, after: &Report) -> Vec<Condition> {
    let of = |report: &Report| {
        let environment = &report.environment;
        let mut all = report.parameters.clone();
        all.remove("rounds");
        let settings = environment.server_settings.iter();
        all.extend(settings.map(|(name, setting)| (name.clone(), json!(setting))));
        all.insert("is_private_server".into(), json!(environment.is_private_server));
        all.insert("cpu".into(), json!(format!("{} × {}", environment.cpus, environment.cpu)));
        all
    };
    let (mut before, mut after) = (of(before), of(after));
    let names: std::collections::BTreeSet<String> = before.keys().chain(after.keys()).cloned().collect();
    let both = names.into_iter().map(|condition| Condition {
        before: before.remove(&condition).unwrap_or_default(),
        after: after.remove(&condition).unwrap_or_default(),
        condition,
    });
    both.filter(|condition| condition.before != condition.after).collect()
}

/// Compares all figures of a measurement.
fn figures<'a>(
    comparison: &mut Comparison<'a>,
    noise: &mut Noise,
    scenario: &str,
    old: &'a Measurement,
    new: &'a Measurement,
) {
    for kind in KINDS.iter().filter(|kind| kind.name != "notifications") {
        let (a, b) = match (old.figures.get(kind.name), new.figures.get(kind.name)) {
            (Some(a), Some(b)) => (a, b),
            (Some(_), None) => {
                comparison.left_over.push(left_over(old, Some(kind.name), Side::Before));
                continue;
            }
            (None, Some(_)) => {
                comparison.left_over.push(left_over(new, Some(kind.name), Side::After));
                continue;
            }
            (None, None) => continue,
        };
        let (before, after) = ((a.median, &a.rounds[..]), (b.median, &b.rounds[..]));
        comparison.differences.push(difference(noise, old, kind, kind.name.into(), before, after));
        // Two days of one machine differ; the ratios to the yardstick of the same round hardly do.
        if let Some((x, y)) = a.ratio.zip(b.ratio) {
            let name = format!("{}, ratio to {}", kind.name, yardstick(scenario).short);
            let (before, after) = ((x, &a.ratio_rounds[..]), (y, &b.ratio_rounds[..]));
            comparison.differences.push(difference(noise, old, kind, name, before, after));
        }
    }
}

fn difference<'a>(
    noise: &mut Noise,
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
        verdict: noise.verdict(before.1, after.1, kind.more_is_better),
    }
}

/// One object a line: first what the reports do not have in common, then the figures.
fn lines(comparison: &Comparison<'_>) -> serde_json::Result<String> {
    let conditions = comparison.conditions.iter().map(serde_json::to_string);
    let left_over = comparison.left_over.iter().map(serde_json::to_string);
    let differences = comparison.differences.iter().map(serde_json::to_string);
    let lines = conditions.chain(left_over).chain(differences);
    lines.map(|line| line.map(|line| line + "\n")).collect()
}

/// What a file says may hold anything, and must not reach the terminal as it is.
fn clean(text: &str) -> String {
    let mut clean = String::new();
    printable(&mut clean, text.as_bytes());
    clean
}

fn table(before: &Report, after: &Report, comparison: &Comparison<'_>) -> String {
    let mut table = String::new();
    for (name, report) in [("A", before), ("B", after)] {
        let (environment, complete) =
            (&report.environment, if report.complete { "" } else { ", not complete" });
        let line = format!(
            "{name}: {} of {}, PostgreSQL {}, libpq {}, pgwake {}{complete}",
            report.scenario, report.started_at, environment.server, environment.libpq, environment.pgwake
        );
        let _ = writeln!(table, "{}", clean(&line));
    }
    if !comparison.conditions.is_empty() {
        table.push_str("\nThey were not measured alike, so a difference need not be one of pgwake:\n");
    }
    for Condition { condition, before, after } in &comparison.conditions {
        let _ = writeln!(table, "  {}", clean(&format!("{condition}: {before} in A, {after} in B")));
    }
    let is_like = |a: &Difference<'_>, b: &Difference<'_>| {
        (a.contender, a.transport, a.series, a.step) == (b.contender, b.transport, b.series, b.step)
    };
    for group in comparison.differences.chunk_by(is_like) {
        let first = &group[0];
        let heading = heading(&before.scenario, (first.contender, first.transport, first.series, first.step));
        let _ = writeln!(table, "\n{heading}\n{:34}{:>14}{:>14}{:>8}", "", "A", "B", "B/A");
        group.iter().for_each(|difference| row(&mut table, difference));
    }
    for (i, only) in comparison.left_over.iter().enumerate() {
        let side = if only.only_in == Side::Before { "A" } else { "B" };
        let what = only.figure.map_or(String::new(), |figure| format!(": {figure}"));
        let place = heading(&before.scenario, (only.contender, only.transport, only.series, only.step));
        let _ = writeln!(table, "{}only in {side}: {place}{what}", if i == 0 { "\n" } else { "" });
    }
    table
}

fn heading(scenario: &str, (contender, transport, series, step): (&str, &str, &str, u64)) -> String {
    let step = match unit_of(scenario, series) {
        "" => String::new(),
        unit if unit == series => format!(", {step} {unit}"),
        unit => format!(", {series}, {step} {unit}"),
    };
    clean(&format!("{contender} over {transport}{step}"))
}

fn row(table: &mut String, difference: &Difference<'_>) {
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
