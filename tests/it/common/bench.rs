//! `pgwake bench` as its users start it, and what is true of all it writes.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

pub(crate) fn bench(dsn: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwake"));
    command.args(["-d", dsn, "bench"]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What it says on stderr beside what it does at the moment, which is a line for each run.
pub(crate) fn complaints(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let is_progress = |line: &&str| line.contains(": round ") || line.starts_with("starting a private");
    text.lines().filter(|line| !is_progress(line)).map(|line| line.to_string() + "\n").collect()
}

/// The one sentence on stderr, and the status.
pub(crate) fn complaint(output: &Output) -> (String, Option<i32>) {
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    let sentence = complaints(output);
    assert_eq!(sentence.lines().count(), 1, "{sentence}");
    (sentence, output.status.code())
}

/// Runs it to its end, which must be a good one. Gives its table.
pub(crate) fn run(dsn: &str, arguments: &[&str]) -> String {
    let output = bench(dsn, arguments).output().unwrap();
    assert_eq!((output.status.code(), &*complaints(&output)), (Some(0), ""), "{arguments:?}");
    let table = String::from_utf8(output.stdout).unwrap();
    let is_wide = |line: &&str| line.chars().count() > 100;
    assert_eq!(table.lines().find(is_wide), None, "{table}");
    table
}

/// The report in a file, of which everything that benches/README.md promises is checked.
pub(crate) fn report(path: &Path) -> Value {
    let report: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(report["pgwake_bench"], 1);
    for text in ["scenario", "started_at"] {
        assert!(report[text].is_string(), "{text}: {report}");
    }
    for text in ["pgwake", "libpq", "server", "kernel", "cpu", "command_line"] {
        assert!(report["environment"][text].is_string(), "{text}: {report}");
    }
    assert!(report["complete"].is_boolean() && report["seconds"].as_f64().unwrap() > 0.0);
    assert!(report["notes"].is_array() && report["parameters"]["rounds"].as_u64().unwrap() > 0);
    for measurement in report["measurements"].as_array().unwrap() {
        check_measurement(measurement);
    }
    report
}

fn check_measurement(measurement: &Value) {
    for text in ["contender", "transport", "series"] {
        assert!(measurement[text].is_string(), "{text}: {measurement}");
    }
    let yardsticks = ["C loop", "none", "pg_recvlogical", "NOTIFY"];
    let is_yardstick = yardsticks.contains(&measurement["contender"].as_str().unwrap());
    let has_count = ["per_s", "notifications"].iter().any(|count| measurement["figures"][count].is_object());
    assert!(measurement["step"].is_u64() && has_count);
    // Who reads the log may have a row before its writer knows that it is committed.
    let least_us = if measurement["series"] == "latency" { -1e6 } else { 0.0 };
    for (name, figure) in measurement["figures"].as_object().unwrap() {
        let rounds = figure["rounds"].as_array().unwrap();
        let (least, most) = rounds
            .iter()
            .map(|round| round.as_f64().unwrap())
            .fold((f64::MAX, f64::MIN), |(least, most), round| (least.min(round), most.max(round)));
        let median = figure["median"].as_f64().unwrap();
        assert!(least - 0.001 <= median && median <= most + 0.001, "{name}: {figure}");
        assert!(median >= least_us && median.is_finite(), "{name}: {figure}");
        let ratios = figure["ratio_rounds"].as_array().unwrap();
        assert!(ratios.is_empty() || (!is_yardstick && ratios.len() <= rounds.len()), "{name}: {figure}");
        assert_eq!(figure["ratio"].is_null(), ratios.is_empty(), "{name}: {figure}");
    }
    if !measurement["figures"]["p50_us"].is_object() {
        return;
    }
    let [p50, p90, p99, p999, max] =
        ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"].map(|name| median(measurement, name));
    assert!(least_us < p50 && p50 <= p90 && p90 <= p99 && p99 <= p999 && p999 <= max, "{measurement}");
    assert!(max < 60e6, "all clocks are the same: {measurement}");
    let distribution = measurement["distribution"].as_array().unwrap();
    for pair in distribution.windows(2) {
        assert!(pair[0][0].as_f64() <= pair[1][0].as_f64() && pair[0][1].as_f64() <= pair[1][1].as_f64());
    }
    assert_eq!(distribution.last().unwrap()[0], 100.0);
    assert!(
        measurement["timeline"].as_array().unwrap().iter().all(|slice| slice.as_array().unwrap().len() == 3)
    );
}

pub(crate) fn median(measurement: &Value, figure: &str) -> f64 {
    let median = &measurement["figures"][figure]["median"];
    median.as_f64().unwrap_or_else(|| panic!("no {figure}: {measurement}"))
}

/// All that was measured of one series; without series all there is.
pub(crate) fn of_series<'a>(report: &'a Value, series: &'a str) -> impl Iterator<Item = &'a Value> {
    report["measurements"].as_array().unwrap().iter().filter(move |m| m["series"] == series)
}

/// Each tag is closed by its own, nothing is loaded from elsewhere, no script runs.
pub(crate) fn check_page(path: &Path) -> String {
    let page = std::fs::read_to_string(path).unwrap();
    let markup = page.strip_prefix("<!doctype html>").expect("a document type");
    let mut open = Vec::new();
    for tag in markup.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag ends");
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap();
        match (tag.starts_with('/'), tag.ends_with('/')) {
            (true, _) => assert_eq!(open.pop(), Some(name), "in {tag}"),
            (false, true) => {}
            (false, false) => open.push(name),
        }
    }
    assert_eq!(open, Vec::<&str>::new());
    for elsewhere in ["http:", "https:", "//", "url(", "@import", "<script", " src=", "NaN", "inf\""] {
        assert!(!markup.contains(elsewhere), "{elsewhere} in the page");
    }
    page
}
