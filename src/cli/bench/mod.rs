//! `pgwake bench`: measures notifications of a server, with pgwake and with a bare C loop on the same libpq,
//! in alternation.
//!
//! A scenario (`latency`, `throughput`, `scale`) works in a [`lab::Lab`]: for each run it starts a listener
//! in a process of its own (`child`, `listener`, `c_loop`), sends (`sender`), and keeps what was heard as a
//! run. The runs become a `report`, which is shown as a `table`, as JSON or as a page.

mod arguments;
mod c_loop;
mod chart;
mod child;
mod clock;
mod compare;
mod environment;
mod lab;
mod latency;
mod listener;
mod page;
mod report;
mod scale;
mod sender;
mod table;
mod target;
mod throughput;

use super::Failure;
use super::arguments::Format;
pub(crate) use arguments::Bench;
use arguments::Common;
use lab::Lab;
use report::Report;
use std::fs;
use std::io::Write;
use std::path::Path;

pub(crate) fn run(dsn: &str, format: Format, bench: &Bench) -> Result<(), Failure> {
    match bench {
        Bench::Latency(arguments) => {
            measure(dsn, format, &arguments.common, "latency", |lab| latency::run(lab, arguments))
        }
        Bench::Throughput(arguments) => {
            measure(dsn, format, &arguments.common, "throughput", |lab| throughput::run(lab, arguments))
        }
        Bench::Scale(arguments) => {
            measure(dsn, format, &arguments.common, "scale", |lab| scale::run(lab, arguments))
        }
        Bench::Compare(arguments) => compare::run(format, arguments),
        Bench::Listener => listener::run(),
    }
}

/// Runs a scenario and writes its report, also when it could not be finished: then with what there is, marked
/// as incomplete.
fn measure(
    dsn: &str,
    format: Format,
    common: &Common,
    scenario: &'static str,
    run: impl FnOnce(&mut Lab) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if common.private && !dsn.is_empty() {
        return Err(Failure::Usage("--private measures a server of its own: leave -d out".into()));
    }
    let mut lab = Lab::open(dsn, common, scenario)?;
    let outcome = run(&mut lab);
    if let Err(Failure::Running(reason)) = &outcome {
        lab.notes.push(format!("ended early: {reason}"));
    } else if lab.stop.is_asked_for() {
        lab.notes.push("stopped by a signal: not all rounds were run".into());
    }
    let report = lab.report(outcome.is_ok() && !lab.stop.is_asked_for());
    if report.measurements.is_empty() && outcome.is_err() {
        return outcome;
    }
    write(&report, format, common)?;
    outcome
}

fn write(report: &Report, format: Format, common: &Common) -> Result<(), Failure> {
    let json = |report| serde_json::to_vec(report).map_err(std::io::Error::from);
    let is_stdout_taken = common.json.as_deref() == Some(Path::new("-"));
    if let Some(path) = &common.json {
        let text =
            [serde_json::to_vec_pretty(report).map_err(std::io::Error::from)?, b"\n".to_vec()].concat();
        if is_stdout_taken { std::io::stdout().write_all(&text)? } else { write_file(path, &text)? }
    }
    if let Some(path) = &common.html {
        write_file(path, page::of_report(report).as_bytes())?;
    }
    let mut out = std::io::stdout().lock();
    match format {
        _ if is_stdout_taken => {}
        Format::Json => out.write_all(&[json(report)?, b"\n".to_vec()].concat())?,
        Format::Text => out.write_all(table::of_report(report).as_bytes())?,
    }
    Ok(out.flush()?)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes)
        .map_err(|error| Failure::Running(format!("cannot write {}: {error}", path.display())))
}
