//! `pgwake bench compare A B`: two reports figure by figure: how far they differ, and whether that is more
//! than rounds of one report differ among themselves.

use super::super::Failure;
use super::super::output::printable;
use super::super::values::Format;
use super::arguments::Compare;
use super::noise::{Verdict, verdict};
use super::report::{Figure, KINDS, Kind, Measurement, Report, Subject, VERSION, yardstick};
use super::table::{finished, grid, sentence};
use comfy_table::CellAlignment;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Far more than the largest measurement leaves; a device has no end.
const REPORT_BYTES_MAX: u64 = 64 << 20;

/// What is to be said of two reports. As JSON each is a line.
#[derive(Debug, Default)]
struct Comparison<'a> {
    conditions: Vec<Condition>,
    left_over: Vec<LeftOver<'a>>,
    differences: Vec<Difference<'a>>,
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
    #[serde(flatten)]
    subject: &'a Subject,
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
    #[serde(flatten)]
    subject: &'a Subject,
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
        Format::Json => {
            json_lines(&comparison.conditions)?
                + &json_lines(&comparison.left_over)?
                + &json_lines(&comparison.differences)?
        }
        Format::Text => table(&before, &after, &comparison),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// One object a line.
fn json_lines(objects: &[impl Serialize]) -> std::io::Result<String> {
    Ok(objects
        .iter()
        .map(|object| Ok(serde_json::to_string(object)? + "\n"))
        .collect::<serde_json::Result<_>>()?)
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
    let only_in = |only_in| move |m: &'a Measurement| LeftOver { subject: &m.subject, figure: None, only_in };
    let of = |report: &'a Report| report.measurements.iter().map(|m| (&m.subject, m)).collect();
    let (of_before, of_after): (BTreeMap<_, _>, BTreeMap<_, _>) = (of(before), of(after));
    for old in &before.measurements {
        match of_after.get(&old.subject) {
            Some(new) => figures(&mut comparison, &before.scenario, old, new),
            None => comparison.left_over.push(only_in(Side::Before)(old)),
        }
    }
    let added = after.measurements.iter().filter(|new| !of_before.contains_key(&new.subject));
    comparison.left_over.extend(added.map(only_in(Side::After)));
    comparison
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
    let names: BTreeSet<String> = before.keys().chain(after.keys()).cloned().collect();
    let both = names.into_iter().map(|condition| Condition {
        before: before.remove(&condition).unwrap_or_default(),
        after: after.remove(&condition).unwrap_or_default(),
        condition,
    });
    both.filter(|condition| condition.before != condition.after).collect()
}

/// Compares all figures of a measurement.
fn figures<'a>(comparison: &mut Comparison<'a>, scenario: &str, old: &'a Measurement, new: &'a Measurement) {
    let subject = &old.subject;
    let yardstick = yardstick(scenario, &subject.series).name;
    for kind in KINDS.iter().filter(|kind| kind.name != "notifications") {
        let only_in = match (old.figures.get(kind.name), new.figures.get(kind.name)) {
            (Some(before), Some(after)) => {
                comparison.differences.extend(differences(subject, kind, yardstick, before, after));
                continue;
            }
            (Some(_), None) => Side::Before,
            (None, Some(_)) => Side::After,
            (None, None) => continue,
        };
        comparison.left_over.push(LeftOver { subject, figure: Some(kind.name), only_in });
    }
}

/// That of a figure, and that of its ratios: two days of one machine differ; the ratios to the yardstick of
/// the same round hardly do.
fn differences<'a>(
    subject: &'a Subject,
    kind: &Kind,
    yardstick: &str,
    before: &Figure,
    after: &Figure,
) -> impl Iterator<Item = Difference<'a>> {
    let difference =
        |figure, (before, of_before): (f64, &[f64]), (after, of_after): (f64, &[f64])| Difference {
            subject,
            figure,
            before,
            after,
            ratio: (before != 0.0).then(|| after / before),
            verdict: verdict(of_before, of_after, kind.more_is_better),
        };
    let name = kind.name.to_string();
    let own = difference(name, (before.median, &before.rounds), (after.median, &after.rounds));
    let ratios = before.ratio.zip(after.ratio).map(|(a, b)| {
        let name = format!("{}, ratio to {yardstick}", kind.name);
        difference(name, (a, &before.ratio_rounds), (b, &after.ratio_rounds))
    });
    [own].into_iter().chain(ratios)
}

/// What a file says may hold anything, and must not reach the terminal as it is.
fn clean(text: &str) -> String {
    let mut clean = String::new();
    printable(&mut clean, text.as_bytes());
    clean
}

fn table(before: &Report, after: &Report, comparison: &Comparison<'_>) -> String {
    let mut text = String::new();
    for (name, report) in [("A", before), ("B", after)] {
        let environment = &report.environment;
        let complete = if report.complete { "" } else { ", not complete" };
        text += &sentence(&clean(&format!(
            "{name}: {} of {}, PostgreSQL {}, libpq {}, pgwake {}{complete}",
            report.scenario, report.started_at, environment.server, environment.libpq, environment.pgwake
        )));
    }
    if !comparison.conditions.is_empty() {
        text += "\nThey were not measured alike, so a difference need not be one of pgwake:\n";
    }
    for Condition { condition, before, after } in &comparison.conditions {
        text += &sentence(&clean(&format!("{condition}: {before} in A, {after} in B")));
    }
    for group in comparison.differences.chunk_by(|a, b| a.subject == b.subject) {
        let mut table = grid(["figure", "A", "B", "B/A", "verdict"].into_iter());
        for difference in group {
            let number = |number: f64| format!("{number:.2}");
            table.add_row([
                difference.figure.clone(),
                number(difference.before),
                number(difference.after),
                difference.ratio.map_or(String::new(), number),
                difference.verdict.words().into(),
            ]);
        }
        for column in [0, 4] {
            let column = table.column_mut(column).into_iter();
            column.for_each(|column| column.set_cell_alignment(CellAlignment::Left));
        }
        text += &format!("\n{}{}", sentence(&heading(before, group[0].subject)), finished(&table));
    }
    for (i, only) in comparison.left_over.iter().enumerate() {
        let side = if only.only_in == Side::Before { "A" } else { "B" };
        let what = only.figure.map_or(String::new(), |figure| format!(": {figure}"));
        text += if i == 0 { "\n" } else { "" };
        text += &sentence(&format!("only in {side}: {}{what}", heading(before, only.subject)));
    }
    text
}

fn heading(report: &Report, subject: &Subject) -> String {
    clean(&subject.words(&report.scenario))
}
