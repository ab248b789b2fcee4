//! A report as a table on a terminal, no wider than [`COLUMNS_MAX`].

use super::report::{Measurement, Report, kinds_of, step_unit, yardstick};
use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};

/// What fits beside another window, into a pull request, and onto paper.
const COLUMNS_MAX: u16 = 100;

pub(super) fn of_report(report: &Report) -> String {
    let environment = &report.environment;
    let mut text = sentence(&format!(
        "{}: PostgreSQL {}, libpq {}, Linux {}",
        report.scenario, environment.server, environment.libpq, environment.kernel
    ));
    let has_ratio = |m: &&Measurement| m.figures.values().any(|figure| figure.ratio.is_some());
    let compared = report.measurements.iter().filter(has_ratio);
    let mut phrases: Vec<_> =
        compared.map(|m| yardstick(&report.scenario, &m.subject.series).phrase).collect();
    phrases.dedup();
    if !phrases.is_empty() {
        let phrases = phrases.join(" or to ");
        text += &format!("×: ratio to {phrases} in the same round, the median over the rounds\n");
    }
    for group in report.groups() {
        let subject = &group[0].subject;
        let series = if subject.series.is_empty() { "" } else { &format!(", {}", subject.series) };
        text += &format!("\nover {}{series}\n{}", subject.transport, rows(report, group));
    }
    report.notes.iter().for_each(|note| text += &format!("\n{}", sentence(note)));
    text
}

fn rows(report: &Report, group: &[Measurement]) -> String {
    let (scenario, series) = (&report.scenario, &group[0].subject.series);
    let (kinds, has_no_steps) = (kinds_of(scenario, group), usize::from(series.is_empty()));
    let names = [step_unit(scenario, series), ""];
    let mut table = grid(names.into_iter().chain(kinds.iter().map(|kind| kind.heading)).skip(has_no_steps));
    for step in group.chunk_by(|a, b| a.subject.step == b.subject.step) {
        for (i, measurement) in step.iter().enumerate() {
            let step = if i == 0 { measurement.subject.step.to_string() } else { String::new() };
            let mut cells = vec![step, measurement.subject.contender.clone()];
            for kind in &kinds {
                let Some(figure) = measurement.figures.get(kind.name) else {
                    cells.push(String::new());
                    continue;
                };
                let ratio = figure.ratio.map_or(String::new(), |ratio| format!("× {ratio:.2}"));
                let figure = kind.unit.label(figure.median);
                // A lone figure has room beside it.
                match kinds.len() {
                    1 => cells.extend([figure, ratio]),
                    _ => cells.push(format!("{figure}\n{ratio}").trim_end().into()),
                }
            }
            table.add_row(cells.into_iter().skip(has_no_steps));
        }
    }
    // No number that is a step is to be broken for want of room, nor what it counts.
    for (column, alignment) in
        [CellAlignment::Right, CellAlignment::Left].into_iter().skip(has_no_steps).enumerate()
    {
        let column = table.column_mut(column).into_iter();
        column.for_each(|column| {
            column.set_constraint(ColumnConstraint::ContentWidth).set_cell_alignment(alignment);
        });
    }
    finished(&table)
}

/// Columns of numbers under these words.
pub(super) fn grid<'a>(header: impl Iterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(COLUMNS_MAX).set_header(header.map(Cell::new));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2)).set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Its lines, without blanks at their ends.
pub(super) fn finished(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_string() + "\n").collect()
}

/// A sentence on as many lines as it needs.
pub(super) fn sentence(text: &str) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(COLUMNS_MAX).add_row([text]);
    for column in table.column_iter_mut() {
        column.set_padding((0, 0));
    }
    finished(&table)
}

#[cfg(test)]
mod tests {
    use super::super::report::KINDS;
    use super::*;

    #[test]
    fn whatever_is_measured_fits_the_width() {
        let figures = KINDS.map(|kind| kind.name);
        for (scenario, contender, series) in
            [("latency", "pgwake, adaptive 0.0125", ""), ("scale", "pgwake", "listeners")]
        {
            for value in [1234.5, 123_456.7] {
                let mut report = Report::sample((scenario, series), &[contender], &[10_000], &figures, value);
                report.environment.kernel = "6.1 ".repeat(40);
                report.notes.push("what was left out and why ".repeat(9));
                let text = of_report(&report);
                let widest = text.lines().map(|line| line.chars().count()).max();
                assert!(widest <= Some(COLUMNS_MAX.into()), "{text}");
                assert!(text.contains(contender) && text.contains(series), "{text}");
            }
        }
    }
}
