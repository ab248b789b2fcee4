//! A report as one page that needs nothing else: the figures that matter, plots, a table, what it ran on.

use super::chart::{Axis, Chart, Line, Scale};
use super::report::{
    self, C_LOOP, Figure, KINDS, Kind, LATENCY, Measurement, Report, kinds_of, step_unit, yardstick,
};
use super::unit::Unit;
use maud::{Markup, html};

const TEMPLATE: &str = include_str!("page.html");

/// So many programs have a colour and a dash of their own.
const STYLES: usize = 7;

/// Measurements of one way and series.
type Group<'a> = &'a [Measurement];

/// The whole page.
pub(super) fn of_report(report: &Report) -> String {
    let title = format!("pgwake bench {}", report.scenario);
    let body = html! {
        (head(report, &title))
        @if !report.complete || !report.notes.is_empty() {
            section.warning[!report.complete] {
                h2 { (if report.complete { "Notes" } else { "Not complete" }) }
                @for note in &report.notes { p { (note) } }
            }
        }
        @for group in report.groups() {
            section {
                h2 { (heading(group)) }
                div.grid[!group[0].subject.series.is_empty()] {
                    @for chart in charts(report, group) { (chart.to_html()) }
                }
            }
        }
        @for group in report.groups() { (table(report, group)) }
        (environment(report))
    };
    TEMPLATE.replace("{title}", &html! { (title) }.into_string()).replace("{body}", &body.into_string())
}

fn head(report: &Report, title: &str) -> Markup {
    let environment = &report.environment;
    html! {
        h1 { (title) }
        p.quiet {
            "PostgreSQL " (environment.server) ", libpq " (environment.libpq)
            ", " (report.started_at.split('T').next().unwrap_or_default())
            @if let Some(rounds) = report.parameters.get("rounds") { ", rounds: " (rounds) }
        }
        ul.tiles {
            @for measurement in headlines(report) {
                @let (value, remark) = headline(report, measurement);
                li class={ "s" (style(report, measurement)) } {
                    span { (measurement.subject.contender) }
                    b { (value) }
                    span { (remark) }
                }
            }
        }
    }
}

/// The measurements that stand for the whole: of each program the first, or the fastest, or that of the
/// greatest step of each series.
fn headlines(report: &Report) -> Vec<&Measurement> {
    let Some(first) = report.measurements.first() else { return Vec::new() };
    let all = || report.measurements.iter().filter(|m| m.subject.transport == first.subject.transport);
    let rate = |m: &&Measurement| median(m, "per_s").unwrap_or_default();
    match report.scenario.as_str() {
        "latency" => all().collect(),
        "throughput" => {
            let of = |name| all().filter(move |m| m.subject.contender == name);
            let fastest = |name| of(name).max_by(|a, b| rate(a).total_cmp(&rate(b)));
            programs(report).into_iter().filter_map(fastest).collect()
        }
        "writers" => {
            let of_first = || all().filter(|m| m.subject.series == first.subject.series);
            let most = of_first().map(|m| m.subject.step).max();
            of_first().filter(|m| Some(m.subject.step) == most).collect()
        }
        _ => {
            let of = report.groups().filter(|group| group[0].subject.transport == first.subject.transport);
            let ours = |m: &&Measurement| m.subject.contender != C_LOOP.name;
            of.filter_map(|group| group.iter().filter(ours).max_by_key(|m| m.subject.step)).collect()
        }
    }
}

/// One figure, and what belongs to it.
fn headline(report: &Report, m: &Measurement) -> (String, String) {
    let us = |name| median(m, name).map_or(String::new(), |us| Unit::Microseconds.label(us));
    let ratio = |name: &str| {
        let ratio = m.figures.get(name).and_then(|figure| figure.ratio);
        let phrase = yardstick(&report.scenario, &m.subject.series).phrase;
        ratio.map_or(String::new(), |ratio| format!("; {ratio:.2} × {phrase}"))
    };
    let (step, unit) = (m.subject.step, step_unit(&report.scenario, &m.subject.series));
    let unit = if step == 1 { unit.strip_suffix('s').unwrap_or(unit) } else { unit };
    let step = format!("{} {unit}", Unit::Plain.label(step as f64));
    match report.scenario.as_str() {
        _ if report.scenario == "latency" || m.subject.series == LATENCY => {
            (us("p50_us"), format!("median; 99 % within {}{}", us("p99_us"), ratio("p50_us")))
        }
        "scale" => (us("p50_us"), format!("median with {step}{}", ratio("p50_us"))),
        _ => {
            let rate = Unit::Plain.label(median(m, "per_s").unwrap_or_default());
            (format!("{rate} / s"), format!("{step}, {}{}", m.subject.series, ratio("per_s")))
        }
    }
}

fn median(measurement: &Measurement, name: &str) -> Option<f64> {
    measurement.figures.get(name).map(|figure| figure.median)
}

/// The names of all programs, in the order in which they first come.
fn programs(report: &Report) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for measurement in &report.measurements {
        if !names.contains(&measurement.subject.contender.as_str()) {
            names.push(&measurement.subject.contender);
        }
    }
    names
}

fn style(report: &Report, measurement: &Measurement) -> usize {
    let own = |name: &&str| *name == measurement.subject.contender;
    programs(report).iter().position(own).unwrap_or_default() % STYLES
}

/// The way of a group, and its series.
fn heading(group: Group<'_>) -> String {
    let transport = match group[0].subject.transport.as_str() {
        "unix" => "over a unix socket",
        "tcp" => "over TCP",
        "tls" => "over TLS",
        other => other,
    };
    let text = match group[0].subject.series.as_str() {
        "" => transport.to_string(),
        series => format!("{series}, {transport}"),
    };
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn charts(report: &Report, group: Group<'_>) -> Vec<Chart> {
    let by_step = |title, figure, y, scale| by_step(report, group, title, figure, (y, scale));
    match report.scenario.as_str() {
        _ if report.scenario == "latency" || group[0].subject.series == LATENCY => {
            vec![distribution(report, group), timeline(report, group)]
        }
        "stream" => vec![
            by_step("Rate", "per_s", "rows per second", Scale::Log),
            by_step("CPU", "cpu_ns_each", "CPU per row", Scale::Linear),
        ],
        "throughput" => vec![
            by_step("Throughput by payload", "per_s", "notifications per second", Scale::Log),
            by_step("CPU by payload", "cpu_ns_each", "CPU per notification", Scale::Log),
        ],
        "writers" => vec![by_step("Writes by clients", "per_s", "statements per second", Scale::Log)],
        _ => vec![
            by_step("Latency", "p50_us", "median latency", Scale::Log),
            by_step("Cost", "cpu_ns_each", "CPU per notification", Scale::Linear),
            by_step("Memory", "memory_kb_each", "per session", Scale::Linear),
            by_step("After a reconnect", "listen_again_ms", "time until it listens again", Scale::Log),
        ],
    }
}

fn line(report: &Report, measurement: &Measurement, points: Vec<[f64; 2]>) -> Line {
    let (style, name) = (style(report, measurement), measurement.subject.contender.clone());
    Line { style, name, points, has_marks: false, is_faint: false }
}

fn distribution(report: &Report, group: Group<'_>) -> Chart {
    let lines = group.iter().map(|measurement| {
        let count: f64 = measurement.figures.get("notifications").map_or(0.0, |f| f.rounds.iter().sum());
        // The longest one stands where the share of one in all is.
        let last = 100.0 * (1.0 - 1.0 / count.max(2.0));
        let points = measurement.distribution.iter().map(|point| [point[0].min(last), point[1]]);
        line(report, measurement, points.collect())
    });
    Chart {
        title: "Distribution of latency".into(),
        caption:
            "How long a notification took from when it was due until the program had it: the share that \
                  was as fast or faster. Lower is better; the right end shows the rare slow ones."
                .into(),
        x: Axis { title: "share of notifications".into(), scale: Scale::Percentile, unit: Unit::Percent },
        y: Axis { title: "latency".into(), scale: Scale::Log, unit: Unit::Microseconds },
        lines: lines.collect(),
    }
}

fn timeline(report: &Report, group: Group<'_>) -> Chart {
    let mut lines = Vec::new();
    for measurement in group {
        // Between the runs of a program lie those of the others: no line there.
        let slices = &measurement.timeline;
        let gaps: Vec<f64> = slices.windows(2).map(|pair| pair[1][0] - pair[0][0]).collect();
        let pause = report::median(&gaps).unwrap_or_default() * 4.0;
        for (i, run) in slices.chunk_by(|a, b| b[0] - a[0] <= pause).enumerate() {
            let points = |of: usize| run.iter().map(|slice| [slice[0], slice[of]]).collect();
            let mut median = line(report, measurement, points(1));
            if i > 0 {
                median.name.clear();
            }
            lines.push(median);
            lines.push(Line { is_faint: true, ..line(report, measurement, points(2)) });
        }
    }
    Chart {
        title: "Timeline".into(),
        caption: "The median of each slice of a run, and behind it, thin, the longest. The programs take \
                  turns."
            .into(),
        x: Axis { title: "seconds since the start".into(), scale: Scale::Linear, unit: Unit::Seconds },
        y: Axis { title: "latency".into(), scale: Scale::Log, unit: Unit::Microseconds },
        lines,
    }
}

/// One figure by step, a line for each program.
fn by_step(report: &Report, group: Group<'_>, title: &str, figure: &str, (y, scale): (&str, Scale)) -> Chart {
    let kind = KINDS.iter().find(|kind| kind.name == figure);
    let has_it =
        |m: &&Measurement| median(m, figure).is_some_and(|median| scale != Scale::Log || median > 0.0);
    let mut measured: Vec<&Measurement> = group.iter().filter(has_it).collect();
    measured.sort_by_key(|measurement| measurement.subject.step);
    let mut steps: Vec<u64> = measured.iter().map(|measurement| measurement.subject.step).collect();
    steps.dedup();
    let mut lines: Vec<Line> = Vec::new();
    for measurement in measured {
        let step = steps.iter().position(|step| *step == measurement.subject.step).unwrap_or_default();
        let point = [step as f64, median(measurement, figure).unwrap_or_default()];
        match lines.iter_mut().find(|line| line.name == measurement.subject.contender) {
            Some(line) => line.points.push(point),
            None => lines.push(Line { has_marks: true, ..line(report, measurement, vec![point]) }),
        }
    }
    lines.sort_by_key(|line| line.style);
    let better = if kind.is_some_and(|kind| kind.more_is_better) { "higher" } else { "lower" };
    let unit = step_unit(&report.scenario, &group[0].subject.series);
    Chart {
        title: title.into(),
        caption: format!("Medians over the rounds; {better} is better."),
        x: Axis { title: unit.into(), scale: Scale::Steps(steps), unit: Unit::Plain },
        y: Axis { title: y.into(), scale, unit: kind.map_or(Unit::Plain, |kind| kind.unit) },
        lines,
    }
}

fn table(report: &Report, group: Group<'_>) -> Markup {
    let scenario = &report.scenario;
    let (series, kinds) = (&group[0].subject.series, kinds_of(scenario, group));
    html! {
        section {
            h2 { "Figures: " (heading(group)) }
            p.quiet {
                "Medians over the rounds; below, the median of the ratios to "
                (yardstick(scenario, series).phrase)
                " in the same round."
            }
            div.scroll {
                table {
                    thead {
                        tr {
                            @if !series.is_empty() { th scope="col" { (step_unit(scenario, series)) } }
                            th.name scope="col" { "program" }
                            @for kind in &kinds { th scope="col" { (kind.heading) } }
                        }
                    }
                    tbody {
                        @for step in group.chunk_by(|a, b| a.subject.step == b.subject.step) {
                            @for (i, measurement) in step.iter().enumerate() {
                                tr.further[i > 0] {
                                    @if !series.is_empty() { td { @if i == 0 { (step[0].subject.step) } } }
                                    th.name scope="row" { (measurement.subject.contender) }
                                    @for kind in &kinds { (cell(kind, measurement.figures.get(kind.name))) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn cell(kind: &Kind, figure: Option<&Figure>) -> Markup {
    html! {
        td {
            @if let Some(figure) = figure {
                (kind.unit.label(figure.median))
                @if let Some(ratio) = figure.ratio { small { "× " (format!("{ratio:.2}")) } }
            }
        }
    }
}

fn environment(report: &Report) -> Markup {
    let environment = &report.environment;
    let settings = environment.server_settings.iter().map(|(name, value)| format!("{name} = {value}"));
    let parameters = report.parameters.iter().map(|(name, value)| format!("{name} = {value}"));
    let kind = if environment.is_private_server { " (started for this, now gone)" } else { "" };
    let rows = [
        ("PostgreSQL", format!("{}{kind}", environment.server)),
        ("its settings", settings.collect::<Vec<_>>().join(", ")),
        ("libpq", environment.libpq.clone()),
        ("TLS", environment.tls.clone().unwrap_or_default()),
        ("pgwake", environment.pgwake.clone()),
        ("kernel", environment.kernel.clone()),
        ("processor", format!("{} × {}", environment.cpus, environment.cpu)),
        ("date", format!("{}, {:.0} s", report.started_at, report.seconds)),
        ("parameters", parameters.collect::<Vec<_>>().join(", ")),
    ];
    html! {
        section {
            h2 { "What it ran on" }
            dl {
                @for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
                    dt { (name) } dd { (value) }
                }
                dt { "command" } dd { code { (environment.command_line) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::arguments::Variant;
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn a_line_goes_from_left_to_right_whatever_was_measured_first() {
        let kind = ("throughput", "one transaction");
        let report = Report::sample(kind, &["pgwake"], &[7999, 64, 512], &["per_s"], 1e3);
        let chart = &charts(&report, &report.measurements)[0];
        let across: Vec<f64> = chart.lines[0].points.iter().map(|point| point[0]).collect();
        assert_eq!(across, [0.0, 1.0, 2.0]);
    }

    #[test]
    fn the_greatest_number_of_clients_stands_for_the_whole() {
        for (steps, remark) in [(&[32, 1, 8][..], "32 clients, rows 1"), (&[1], "1 client, rows 1")] {
            let report = Report::sample(("writers", "rows 1"), &["none"], steps, &["per_s"], 1e3);
            assert!(headline(&report, headlines(&report)[0]).1.starts_with(remark));
        }
    }

    #[test]
    fn a_run_is_one_line_of_the_timeline_though_its_pace_wavers() {
        let mut report = Report::sample(("latency", ""), &["pgwake"], &[0], &["p50_us"], 1e3);
        let at_s = [0.0, 0.01, 0.0101, 0.02, 0.03, 1.0, 1.01, 1.02, 1.021, 1.03];
        report.measurements[0].timeline = at_s.map(|at_s| [at_s, 50.0, 90.0]).into();
        let lines = timeline(&report, &report.measurements).lines;
        let lengths: Vec<_> =
            lines.iter().filter(|line| !line.is_faint).map(|line| line.points.len()).collect();
        assert_eq!(lengths, [5, 5]);
    }

    #[test]
    fn every_writer_has_a_colour_and_a_dash_of_its_own() {
        let rule = |start: String| {
            let rule = TEMPLATE.split(&start).nth(1).and_then(|rest| rest.split('}').next());
            rule.unwrap_or_else(|| panic!("no rule {start}")).to_string()
        };
        let dashes: Vec<_> = (0..STYLES).map(|style| rule(format!(".s{style}.line {{"))).collect();
        let colours: Vec<_> = (0..STYLES).map(|style| rule(format!(".s{style} {{"))).collect();
        let is_alone =
            |all: &[String]| all.iter().all(|one| all.iter().filter(|other| *other == one).count() == 1);
        assert!(Variant::value_variants().len() <= STYLES);
        assert!(is_alone(&dashes) && is_alone(&colours), "{dashes:?} {colours:?}");
    }
}
