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
use std::fs::File;
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
    let json = common.json.as_deref().map(ReportFile::open).transpose()?;
    let html = common.html.as_deref().map(ReportFile::open).transpose()?;
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
    if let Some(file) = json {
        file.write(&(serde_json::to_string_pretty(&report).map_err(std::io::Error::from)? + "\n"))?;
    }
    if let Some(file) = html {
        file.write(&page::of_report(&report))?;
    }
    let text = match format {
        Format::Json => serde_json::to_string(&report).map_err(std::io::Error::from)? + "\n",
        Format::Text => table::of_report(&report),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    outcome
}

/// A file for a report. It is opened before anything is measured: that it cannot be written is not to be
/// found out at the end.
struct ReportFile<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> ReportFile<'a> {
    fn open(path: &'a Path) -> Result<Self, Failure> {
        let file = File::options().create(true).append(true).open(path);
        Ok(ReportFile { path, file: file.map_err(|error| unwritable(path, &error))? })
    }

    fn is_file(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.is_file())
    }

    /// Writes over what was in it.
    fn write(mut self, text: &str) -> Result<(), Failure> {
        // A pipe has no length.
        let emptied = if self.is_file() { self.file.set_len(0) } else { Ok(()) };
        let written = emptied.and_then(|()| self.file.write_all(text.as_bytes()));
        written.map_err(|error| unwritable(self.path, &error))
    }
}

/// Without a report no file is left, but for one that has been there before.
impl Drop for ReportFile<'_> {
    fn drop(&mut self) {
        if self.is_file() && self.file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            let _ = std::fs::remove_file(self.path);
        }
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Running(format!("cannot write {}: {error}", path.display()))
}
