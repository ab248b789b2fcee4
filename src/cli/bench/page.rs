//! A report as one page that needs nothing else: the figures that matter, plots, a table, what it ran on.

use super::chart::{Axis, Chart, Line, Scale, Unit, escape};
use super::report::{C_LOOP, KINDS, Kind, Measurement, Report, yardstick};
use super::table::{shown, unit};
use std::fmt::Write;

const TEMPLATE: &str = include_str!("page.html");

/// So many programs have a colour and a dash of their own.
const STYLES: usize = 7;

/// Measurements of one way and series.
type Group<'a> = &'a [Measurement];

/// The whole page.
pub(super) fn of_report(report: &Report) -> String {
    let title = format!("pgwake bench {}", report.scenario);
    let mut body = head(report, &title);
    if !report.complete || !report.notes.is_empty() {
        let state = if report.complete { "Notes" } else { "Not complete" };
        let notes: String = report.notes.iter().map(|note| format!("<p>{}</p>\n", escape(note))).collect();
        let class = if report.complete { "" } else { " class=\"warning\"" };
        let _ = writeln!(body, "<section{class}>\n<h2>{state}</h2>\n{notes}</section>");
    }
    for group in groups(report) {
        let drawn: String = charts(report, group).iter().map(Chart::to_html).collect();
        let class = if group[0].series.is_empty() { "" } else { " class=\"pair\"" };
        let title = escape(&place(group));
        let _ = writeln!(body, "<section>\n<h2>{title}</h2>\n<div{class}>\n{drawn}</div>\n</section>");
    }
    groups(report).for_each(|group| table(&mut body, report, group));
    environment(&mut body, report);
    TEMPLATE.replace("{title}", &escape(&title)).replace("{body}", body.trim_end())
}

fn groups(report: &Report) -> impl Iterator<Item = Group<'_>> {
    report.measurements.chunk_by(|a, b| (&a.transport, &a.series) == (&b.transport, &b.series))
}

fn head(report: &Report, title: &str) -> String {
    let environment = &report.environment;
    let server = escape(&format!("PostgreSQL {}, libpq {}", environment.server, environment.libpq));
    let date = escape(report.started_at.split('T').next().unwrap_or_default());
    let rounds =
        report.parameters.get("rounds").map_or(String::new(), |rounds| format!(", rounds: {rounds}"));
    let mut html = format!("<h1>{}</h1>\n<p class=\"quiet\">{server}, {date}{rounds}</p>\n", escape(title));
    html.push_str("<ul class=\"tiles\">\n");
    for measurement in headlines(report) {
        let (value, remark) = headline(report, measurement);
        let _ = writeln!(
            html,
            "<li class=\"s{}\"><span>{}</span><b>{}</b><span>{}</span></li>",
            style(report, &measurement.contender),
            escape(&measurement.contender),
            escape(&value),
            escape(&remark)
        );
    }
    html.push_str("</ul>\n");
    html
}

/// The measurements that stand for the whole: of each program the first, or the fastest, or that of the
/// greatest step of each series.
fn headlines(report: &Report) -> Vec<&Measurement> {
    let Some(first) = report.measurements.first() else { return Vec::new() };
    let all = || report.measurements.iter().filter(|m| m.transport == first.transport);
    let rate = |m: &&Measurement| median(m, "per_s").unwrap_or_default();
    match report.scenario.as_str() {
        "latency" => all().collect(),
        "throughput" => {
            let names = programs(report).into_iter();
            let fastest =
                |name: &str| all().filter(|m| m.contender == name).max_by(|a, b| rate(a).total_cmp(&rate(b)));
            names.filter_map(fastest).collect()
        }
        "writers" => {
            let of_first = || all().filter(|m| m.series == first.series);
            let most = of_first().map(|m| m.step).max();
            of_first().filter(|m| Some(m.step) == most).collect()
        }
        _ => {
            let of = groups(report).filter(|group| group[0].transport == first.transport);
            let ours = |m: &&Measurement| m.contender != C_LOOP.name;
            of.filter_map(|group| group.iter().filter(ours).max_by_key(|m| m.step)).collect()
        }
    }
}

/// One figure, and what belongs to it.
fn headline(report: &Report, m: &Measurement) -> (String, String) {
    let us = |name| median(m, name).map_or(String::new(), |us| Unit::Microseconds.label(us));
    let ratio = |name: &str| {
        let ratio = m.figures.get(name).and_then(|figure| figure.ratio);
        ratio.map_or(String::new(), |ratio| format!("; {ratio:.2} × {}", yardstick(&report.scenario).phrase))
    };
    let unit = unit(report, m);
    let unit = if m.step == 1 { unit.strip_suffix('s').unwrap_or(unit) } else { unit };
    let step = format!("{} {unit}", Unit::Plain.label(m.step as f64));
    match report.scenario.as_str() {
        "latency" => (us("p50_us"), format!("median; 99 % within {}{}", us("p99_us"), ratio("p50_us"))),
        "throughput" => {
            let rate = median(m, "per_s").unwrap_or_default();
            (format!("{} / s", Unit::Plain.label(rate)), format!("{step}, {}{}", m.series, ratio("per_s")))
        }
        "writers" => {
            let rate = median(m, "per_s").unwrap_or_default();
            (format!("{} / s", Unit::Plain.label(rate)), format!("{step}, {}{}", m.series, ratio("per_s")))
        }
        _ => (us("p50_us"), format!("median with {step}{}", ratio("p50_us"))),
    }
}

fn median(measurement: &Measurement, name: &str) -> Option<f64> {
    measurement.figures.get(name).map(|figure| figure.median)
}

/// The names of all programs, in the order in which they first come.
fn programs(report: &Report) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for measurement in &report.measurements {
        if !names.contains(&measurement.contender.as_str()) {
            names.push(&measurement.contender);
        }
    }
    names
}

fn style(report: &Report, contender: &str) -> usize {
    programs(report).iter().position(|name| *name == contender).unwrap_or_default() % STYLES
}

/// The way of a group, and its series.
fn place(group: Group<'_>) -> String {
    let transport = match group[0].transport.as_str() {
        "unix" => "over a unix socket",
        "tcp" => "over TCP",
        "tls" => "over TLS",
        other => other,
    };
    match group[0].series.as_str() {
        "" => capitalised(transport),
        series => capitalised(&format!("{series}, {transport}")),
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn charts(report: &Report, group: Group<'_>) -> Vec<Chart> {
    let by_step = |title, figure, y, unit, scale| by_step(report, group, title, figure, (y, unit, scale));
    match report.scenario.as_str() {
        "latency" => vec![distribution(report, group), timeline(report, group)],
        "throughput" => vec![
            by_step("Throughput by payload", "per_s", "notifications per second", Unit::Plain, Scale::Log),
            by_step("CPU by payload", "cpu_ns_each", "CPU per notification", Unit::Nanoseconds, Scale::Log),
        ],
        "writers" => {
            vec![by_step("Writes by clients", "per_s", "statements per second", Unit::Plain, Scale::Log)]
        }
        _ => vec![
            by_step("Latency", "p50_us", "median latency", Unit::Microseconds, Scale::Log),
            by_step("Cost", "cpu_ns_each", "CPU per notification", Unit::Nanoseconds, Scale::Linear),
            by_step("Memory", "memory_kb_each", "KB per session", Unit::Plain, Scale::Linear),
            by_step(
                "After a reconnect",
                "listen_again_ms",
                "ms until it listens again",
                Unit::Plain,
                Scale::Log,
            ),
        ],
    }
}

fn line(report: &Report, measurement: &Measurement, points: Vec<[f64; 2]>) -> Line {
    let (style, name) = (style(report, &measurement.contender), measurement.contender.clone());
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
            "How long a notification took from when it was due until the program had it: the share that was \
                  as fast or faster. Lower is better; the right end shows the rare slow ones."
                .into(),
        x: Axis { title: "share of notifications".into(), scale: Scale::Percentile, unit: Unit::Percent },
        y: Axis { title: "latency".into(), scale: Scale::Log, unit: Unit::Microseconds },
        lines: lines.collect(),
        is_half: false,
    }
}

fn timeline(report: &Report, group: Group<'_>) -> Chart {
    let mut lines = Vec::new();
    for measurement in group {
        // Between the runs of a program lie those of the others: no line there.
        let slices = &measurement.timeline;
        let pause = slices.windows(2).map(|pair| pair[1][0] - pair[0][0]).fold(f64::MAX, f64::min) * 4.0;
        for (i, run) in slices.chunk_by(|a, b| b[0] - a[0] <= pause).enumerate() {
            let median = Line {
                name: if i == 0 { measurement.contender.clone() } else { String::new() },
                ..line(report, measurement, run.iter().map(|slice| [slice[0], slice[1]]).collect())
            };
            let longest = run.iter().map(|slice| [slice[0], slice[2]]).collect();
            lines.push(Line { is_faint: true, ..line(report, measurement, longest) });
            lines.push(median);
        }
    }
    Chart {
        title: "Timeline".into(),
        caption:
            "The median of each slice of a run, and behind it, thin, the longest. The programs take turns."
                .into(),
        x: Axis { title: "seconds since the start".into(), scale: Scale::Linear, unit: Unit::Seconds },
        y: Axis { title: "latency".into(), scale: Scale::Log, unit: Unit::Microseconds },
        lines,
        is_half: false,
    }
}

/// One figure by step, a line for each program.
fn by_step(
    report: &Report,
    group: Group<'_>,
    title: &str,
    figure: &str,
    (y, unit_of_y, scale): (&str, Unit, Scale),
) -> Chart {
    let has_it =
        |m: &&Measurement| median(m, figure).is_some_and(|median| scale != Scale::Log || median > 0.0);
    let mut steps: Vec<u64> = group.iter().filter(has_it).map(|measurement| measurement.step).collect();
    steps.sort_unstable();
    steps.dedup();
    let mut lines: Vec<Line> = Vec::new();
    for measurement in group.iter().filter(has_it) {
        let place = steps.iter().position(|step| *step == measurement.step).unwrap_or_default();
        let point = [place as f64, median(measurement, figure).unwrap_or_default()];
        match lines.iter_mut().find(|line| line.name == measurement.contender) {
            Some(line) => line.points.push(point),
            None => lines.push(Line { has_marks: true, ..line(report, measurement, vec![point]) }),
        }
    }
    lines.iter_mut().for_each(|line| line.points.sort_by(|a, b| a[0].total_cmp(&b[0])));
    let better = KINDS.iter().find(|kind| kind.name == figure).is_some_and(|kind| kind.more_is_better);
    Chart {
        title: title.into(),
        caption: format!("Medians over the rounds; {} is better.", if better { "higher" } else { "lower" }),
        x: Axis { title: unit(report, &group[0]).into(), scale: Scale::Steps(steps), unit: Unit::Plain },
        y: Axis { title: y.into(), scale, unit: unit_of_y },
        lines,
        is_half: true,
    }
}

fn table(html: &mut String, report: &Report, group: Group<'_>) {
    let has_steps = !group[0].series.is_empty();
    let is_there = |kind: &&Kind| group.iter().any(|measurement| measurement.figures.contains_key(kind.name));
    let is_shown = |kind: &&Kind| shown(&report.scenario).contains(&kind.name) && is_there(kind);
    let kinds: Vec<&Kind> = KINDS.iter().filter(is_shown).collect();
    let title = escape(&format!("Figures: {}", place(group)));
    let _ = writeln!(
        html,
        "<section>\n<h2>{title}</h2>\n<p class=\"quiet\">Medians over the rounds; below, the median of \
         the ratios to {} in the same round.</p>\n<div class=\"scroll\">\n<table>\n<thead><tr>",
        yardstick(&report.scenario).phrase
    );
    if has_steps {
        let _ = write!(html, "<th scope=\"col\">{}</th>", escape(unit(report, &group[0])));
    }
    html.push_str("<th scope=\"col\" class=\"name\">program</th>");
    kinds.iter().for_each(|kind| html.push_str(&format!("<th scope=\"col\">{}</th>", escape(kind.heading))));
    html.push_str("</tr></thead>\n<tbody>\n");
    for place in group.chunk_by(|a, b| a.step == b.step) {
        for (i, measurement) in place.iter().enumerate() {
            html.push_str(if i == 0 { "<tr>" } else { "<tr class=\"further\">" });
            if has_steps {
                let step = if i == 0 { measurement.step.to_string() } else { String::new() };
                let _ = write!(html, "<td>{step}</td>");
            }
            let _ = write!(html, "<th scope=\"row\" class=\"name\">{}</th>", escape(&measurement.contender));
            kinds.iter().for_each(|kind| cell(html, kind, measurement));
            html.push_str("</tr>\n");
        }
    }
    html.push_str("</tbody>\n</table>\n</div>\n</section>\n");
}

fn cell(html: &mut String, kind: &Kind, measurement: &Measurement) {
    let Some(figure) = measurement.figures.get(kind.name) else {
        return html.push_str("<td></td>");
    };
    let _ = write!(html, "<td>{:.*}", kind.decimals, figure.median);
    if let Some(ratio) = figure.ratio {
        let _ = write!(html, "<small>× {ratio:.2}</small>");
    }
    html.push_str("</td>");
}

fn environment(html: &mut String, report: &Report) {
    let environment = &report.environment;
    let settings: Vec<String> =
        environment.server_settings.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let parameters: Vec<String> =
        report.parameters.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let kind = if environment.is_private_server { " (started for this, now gone)" } else { "" };
    let rows = [
        ("PostgreSQL", format!("{}{kind}", environment.server)),
        ("its settings", settings.join(", ")),
        ("libpq", environment.libpq.clone()),
        ("TLS", environment.tls.clone().unwrap_or_default()),
        ("pgwake", environment.pgwake.clone()),
        ("kernel", environment.kernel.clone()),
        ("processor", format!("{} × {}", environment.cpus, environment.cpu)),
        ("date", format!("{}, {:.0} s", report.started_at, report.seconds)),
        ("parameters", parameters.join(", ")),
    ];
    html.push_str("<section>\n<h2>What it ran on</h2>\n<dl>\n");
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(html, "<dt>{name}</dt><dd>{}</dd>", escape(value));
    }
    let command = escape(&environment.command_line);
    let _ = writeln!(html, "<dt>command</dt><dd><code>{command}</code></dd>\n</dl>\n</section>");
}

#[cfg(test)]
mod tests {
    use super::super::environment::Environment;
    use super::super::report::Figure;
    use super::super::variants::Variant;
    use super::*;
    use clap::ValueEnum;

    fn measurement(contender: &str, series: &str, step: u64) -> Measurement {
        let figure = Figure { median: 1000.0 + step as f64, rounds: vec![1000.0], ..Figure::default() };
        Measurement {
            contender: contender.into(),
            transport: "unix".into(),
            series: series.into(),
            step,
            figures: [("per_s".to_string(), figure)].into(),
            distribution: Vec::new(),
            timeline: Vec::new(),
        }
    }

    fn report(scenario: &str, measurements: Vec<Measurement>) -> Report {
        Report {
            pgwake_bench: 1,
            scenario: scenario.into(),
            complete: true,
            started_at: String::new(),
            seconds: 1.0,
            parameters: [].into(),
            environment: Environment::default(),
            notes: Vec::new(),
            measurements,
        }
    }

    #[test]
    fn a_line_goes_from_left_to_right_whatever_was_measured_first() {
        let steps = [7999, 64, 512].map(|step| measurement("pgwake", "one transaction", step));
        let report = report("throughput", steps.into());
        let chart = &charts(&report, &report.measurements)[0];
        let across: Vec<f64> = chart.lines[0].points.iter().map(|point| point[0]).collect();
        assert_eq!(across, [0.0, 1.0, 2.0]);
    }

    #[test]
    fn the_greatest_number_of_clients_stands_for_the_whole() {
        let steps = [32, 1, 8].map(|step| measurement("none", "rows 1", step));
        let headline = |report: &Report| headline(report, headlines(report)[0]).1;
        assert_eq!(headline(&report("writers", steps.into())), "32 clients, rows 1");
        assert_eq!(headline(&report("writers", vec![measurement("none", "rows 1", 1)])), "1 client, rows 1");
    }

    #[test]
    fn every_writer_has_a_colour_and_a_dash_of_its_own() {
        let of = |style: usize, what: &str| {
            let rule =
                TEMPLATE.split(&format!("{what}s{style}")).nth(1).and_then(|rest| rest.split('}').next());
            rule.unwrap_or_else(|| panic!("no style {style}")).to_string()
        };
        let dashes: Vec<String> = (0..STYLES).map(|style| of(style, "svg .").replace(".line", "")).collect();
        let colours: Vec<String> = (0..STYLES).map(|style| of(style, ".").to_string()).collect();
        let is_alone =
            |all: &[String]| all.iter().all(|one| all.iter().filter(|other| *other == one).count() == 1);
        assert!(Variant::value_variants().len() <= STYLES);
        assert!(is_alone(&dashes) && is_alone(&colours), "{dashes:?} {colours:?}");
    }
}
