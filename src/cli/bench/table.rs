//! A report as a table on a terminal.

use super::report::{KINDS, Kind, Measurement, Report, yardstick};
use std::fmt::Write;

/// What is shown of each scenario, here and on the page; the JSON has more.
pub(super) fn shown(scenario: &str) -> &'static [&'static str] {
    match scenario {
        "latency" => {
            &["p50_us", "p90_us", "p99_us", "p999_us", "max_us", "cpu_ns_each", "server_cpu_ns_each"]
        }
        "writers" => &["per_s"],
        "throughput" => &["per_s", "mb_per_s", "cpu_ns_each", "server_cpu_ns_each"],
        _ => &[
            "p50_us",
            "p99_us",
            "last_p50_us",
            "p50_to_first",
            "cpu_ns_each",
            "cpu_to_first",
            "server_cpu_ns_each",
            "memory_kb_each",
            "connect_ms",
            "listen_again_ms",
        ],
    }
}

/// Of these a ratio to the yardstick says something.
const COMPARED: [&str; 7] =
    ["per_s", "p50_us", "p90_us", "p99_us", "cpu_ns_each", "memory_kb_each", "listen_again_ms"];

/// Writing to a `String` cannot fail, so the results of `write!` are of no interest here.
pub(super) fn of_report(report: &Report) -> String {
    let mut table = String::new();
    let environment = &report.environment;
    let (server, libpq, kernel) = (&environment.server, &environment.libpq, &environment.kernel);
    let _ = writeln!(table, "{}: PostgreSQL {server}, libpq {libpq}, Linux {kernel}", report.scenario);
    let is_shown = |kind: &&Kind| shown(&report.scenario).contains(&kind.name) && has(report, kind.name);
    let kinds: Vec<&Kind> = KINDS.iter().filter(is_shown).collect();
    let names = report.measurements.iter().map(|measurement| measurement.contender.chars().count());
    let width = names.max().unwrap_or_default();
    let ratio_heading = format!("   ratio to {}:", yardstick(&report.scenario).short);
    for group in report.measurements.chunk_by(|a, b| (&a.transport, &a.series) == (&b.transport, &b.series)) {
        let unit = if group[0].series.is_empty() { "" } else { unit(report, &group[0]) };
        let _ = write!(table, "\n{}\n{unit:>9}  {:width$}", heading(&group[0]), "");
        kinds.iter().for_each(|kind| table.push_str(&format!("{:>11}", kind.heading)));
        table.push_str(&ratio_heading);
        compared(&kinds).for_each(|kind| table.push_str(&format!("{:>8}", short(kind))));
        table.push('\n');
        for place in group.chunk_by(|a, b| a.step == b.step) {
            let mut step = if unit.is_empty() { String::new() } else { place[0].step.to_string() };
            for measurement in place {
                let _ = write!(table, "{step:>9}  {:width$}", measurement.contender);
                step.clear();
                line(&mut table, measurement, &kinds, ratio_heading.len());
            }
        }
    }
    for note in &report.notes {
        let _ = writeln!(table, "\n{note}");
    }
    table
}

fn compared<'a>(kinds: &'a [&Kind]) -> impl Iterator<Item = &'a Kind> {
    kinds.iter().copied().filter(|kind| COMPARED.contains(&kind.name))
}

fn line(table: &mut String, measurement: &Measurement, kinds: &[&Kind], gap: usize) {
    let mut cells = String::new();
    for kind in kinds {
        let figure = measurement.figures.get(kind.name);
        let _ = write!(
            cells,
            "{:>11}",
            figure.map_or(String::new(), |f| format!("{:.*}", kind.decimals, f.median))
        );
    }
    cells.push_str(&" ".repeat(gap));
    for kind in compared(kinds) {
        let ratio = measurement.figures.get(kind.name).and_then(|figure| figure.ratio);
        let _ = write!(cells, "{:>8}", ratio.map_or(String::new(), |ratio| format!("{ratio:.2}")));
    }
    let _ = writeln!(table, "{}", cells.trim_end());
}

fn has(report: &Report, name: &str) -> bool {
    report.measurements.iter().any(|measurement| measurement.figures.contains_key(name))
}

/// The way and the series.
fn heading(measurement: &Measurement) -> String {
    match measurement.series.as_str() {
        "" => format!("over {}", measurement.transport),
        series => format!("over {}, {series}", measurement.transport),
    }
}

/// What the steps count.
pub(super) fn unit<'a>(report: &'a Report, measurement: &'a Measurement) -> &'a str {
    unit_of(&report.scenario, &measurement.series)
}

/// The same of a series by its name.
pub(super) fn unit_of<'a>(scenario: &str, series: &'a str) -> &'a str {
    match scenario {
        "throughput" => "bytes",
        "writers" => "clients",
        _ => series,
    }
}

/// A heading without its unit.
fn short(kind: &Kind) -> &str {
    match kind.name {
        "per_s" => "rate",
        _ => kind.heading.split(' ').next().unwrap_or_default(),
    }
}
