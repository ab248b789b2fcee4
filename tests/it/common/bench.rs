//! `pgwake bench` as its users start it.

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
