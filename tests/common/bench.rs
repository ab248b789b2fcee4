//! `pgwake bench` as its users start it.

use std::process::{Command, Output, Stdio};

pub(crate) fn bench(dsn: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwake"));
    command.args(["-d", dsn, "bench"]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The one sentence on stderr, and the status.
pub(crate) fn complaint(output: &Output) -> (String, Option<i32>) {
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    let sentence = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(sentence.lines().count(), 1, "{sentence}");
    (sentence, output.status.code())
}
