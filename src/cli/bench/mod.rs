//! `pgwake bench`: measures notifications of a server, with pgwake and with a bare C loop on the same libpq,
//! in alternation; what watching a table costs its writers; and how fast the log is read.
//!
//! A scenario (`latency`, `throughput`, `scale`) works in a [`lab::Lab`]: for each run it starts a listener
//! in a process of its own (`child`, `listener`, `c_loop`), sends (`sender`), and keeps what was heard as a
//! run. `writers` has `variants` of a table instead, and `stream` reads the `log`, both in a schema of our
//! own (`own_schema`). The runs become a `report`, which is shown as a `table`, as JSON or as a page.

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
mod log;
mod noise;
mod own_schema;
mod page;
mod report;
mod report_files;
mod scale;
mod sender;
mod slow_commit;
mod stream;
mod table;
mod target;
mod throughput;
mod unit;
mod variants;
mod writers;

use super::Failure;
use super::values::Format;
pub(crate) use arguments::Bench;
use arguments::{Common, Writers};
use lab::Lab;
use slow_commit::SlowCommit;
use std::io::Write;

pub(crate) fn run(dsn: &str, format: Format, bench: &Bench) -> Result<(), Failure> {
    match bench {
        Bench::Latency(a) => measure("latency", dsn, format, &a.common, None, |lab| latency::run(lab, a)),
        Bench::Throughput(a) => {
            measure("throughput", dsn, format, &a.common, None, |lab| throughput::run(lab, a))
        }
        Bench::Scale(a) => measure("scale", dsn, format, &a.common, None, |lab| scale::run(lab, a)),
        Bench::Writers(a) => measure_writers(dsn, format, a),
        Bench::Stream(a) => measure("stream", dsn, format, &a.common, None, |lab| stream::run(lab, a)),
        Bench::Compare(a) => compare::run(format, a),
        Bench::Listener => listener::run(),
    }
}

/// With commits as slow as was asked for.
fn measure_writers(dsn: &str, format: Format, arguments: &Writers) -> Result<(), Failure> {
    if arguments.commit_delay.is_some() && !arguments.common.private {
        let reason = "--commit-delay slows down a throw-away server and no other: ask for --private, too";
        return Err(Failure::Usage(reason.into()));
    }
    // It outlives the server.
    let slow_commit = arguments.commit_delay.map(SlowCommit::build).transpose()?;
    measure("writers", dsn, format, &arguments.common, slow_commit.as_ref(), |lab| {
        writers::run(lab, arguments)
    })
}

/// Runs a scenario and writes its report, also when it could not be finished: then with what there is, marked
/// as incomplete.
fn measure(
    scenario: &str,
    dsn: &str,
    format: Format,
    common: &Common,
    slow_commit: Option<&SlowCommit>,
    run: impl FnOnce(&mut Lab) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if common.private && !dsn.is_empty() {
        return Err(Failure::Usage("--private measures a server of its own: leave -d out".into()));
    }
    report_files::check(common)?;
    let mut lab = Lab::open(scenario, dsn, common, slow_commit)?;
    let outcome = run(&mut lab).map_err(|failure| lab.target.explain(failure));
    if let Err(Failure::Running(reason)) = &outcome {
        lab.note(format!("ended early: {reason}"));
    } else if lab.stop.is_asked_for() {
        lab.note("stopped by a signal: not all rounds were run".into());
    }
    let report = lab.report(outcome.is_ok() && !lab.stop.is_asked_for());
    if report.measurements.is_empty() && (outcome.is_err() || !lab.stop.is_asked_for()) {
        let reason = "nothing was measured, for too little was sent: raise --count, --payloads or --for";
        return outcome.and(Err(Failure::Usage(reason.into())));
    }
    report_files::write(common, &report)?;
    let text = match format {
        Format::Json => serde_json::to_string(&report).map_err(std::io::Error::from)? + "\n",
        Format::Text => table::of_report(&report),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    outcome
}
