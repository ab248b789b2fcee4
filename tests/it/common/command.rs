//! The command as its users start it: to its end, or read line by line.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

pub(crate) fn pgwake(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwake"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for variable in ["PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    pgwake(arguments).output().unwrap()
}

/// To its end, which is a good one; what it has written.
pub(crate) fn succeed(arguments: &[&str]) -> String {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {}: {said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A running command, read line by line.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) lines: BufReader<ChildStdout>,
    log: BufReader<ChildStderr>,
}

impl Running {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::of(&mut pgwake(arguments))
    }

    /// Of a command whose output goes into pipes.
    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let log = BufReader::new(child.stderr.take().unwrap());
        Running { child, lines, log }
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    /// Without its end; empty at the end of stderr.
    pub(crate) fn stderr_line(&mut self) -> String {
        let mut line = String::new();
        self.log.read_line(&mut line).unwrap();
        line.trim_end().to_string()
    }

    /// All that it says until it ends.
    pub(crate) fn rest_of_stderr(&mut self) -> String {
        let mut said = String::new();
        self.log.read_to_string(&mut said).unwrap();
        said
    }

    pub(crate) fn json(&mut self) -> Value {
        let line = self.line();
        if line.is_empty() {
            panic!("it has ended: {}", self.rest_of_stderr());
        }
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    pub(crate) fn status(mut self) -> i32 {
        self.child.wait().unwrap().code().expect("ended by a signal")
    }
}

/// The one sentence on stderr, and the status.
pub(crate) fn complaint(arguments: &[&str]) -> (String, i32) {
    let output = run(arguments);
    assert!(output.stdout.is_empty(), "{arguments:?} wrote to stdout");
    (String::from_utf8(output.stderr).unwrap(), output.status.code().unwrap())
}
