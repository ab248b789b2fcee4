//! Two stages: `arguments` says what may be typed, the file of each subcommand gives it its meaning.
//!
//! Exit status: 0 done, 1 failed while running, 2 wrong usage. A failure is one sentence on stderr.

/// Tells the user something; when stderr is closed, nobody.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

mod advice;
mod arguments;
mod bench;
mod completions;
mod demo;
mod install;
mod jobs;
mod listen;
mod notify;
mod output;
mod query;
mod server;
mod service;
mod status;
mod stop;
mod stream;
#[cfg(test)]
mod tests;
mod values;
mod version;
mod watch;

use advice::{When, with_advice};
use arguments::{Arguments, Subcommand};
use clap::Parser;
use pgwake::{Error, ErrorKind};
use std::io::Write;
use std::process::ExitCode;

/// Why the command ends with another status than 0.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Status 2: nothing was done.
    Usage(String),
    /// Status 1.
    Running(String),
    /// Nobody reads our output any more, as with `| head`. That is no failure of ours: status 0.
    OutputClosed,
}

impl Failure {
    /// What was done on a private server fails because of that server first of all.
    fn explained_by(self, server: &mut server::PrivateServer) -> Self {
        match self {
            Failure::Running(sentence) => Failure::Running(server.explain(&sentence)),
            other => other,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.kind {
            ErrorKind::InvalidArgument => {
                Failure::Usage(with_advice(When::Connecting, &error.message, error.sqlstate))
            }
            _ => Failure::Running(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            // All other files of ours say their names themselves.
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                let file = std::fs::read_link("/proc/self/fd/1").unwrap_or_default();
                Failure::Running(format!("standard output, {}: {error}", file.display()))
            }
            _ => Failure::Running(error.to_string()),
        }
    }
}

pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log(arguments.verbose);
    let dsn = arguments.dsn.as_deref().unwrap_or_default();
    let done = match &arguments.command {
        Subcommand::Demo(demo) => demo::run(dsn, arguments.format, demo),
        Subcommand::Install(arguments) => install::install(dsn, arguments),
        Subcommand::Uninstall(arguments) => install::uninstall(dsn, arguments),
        Subcommand::Listen(listen) => listen::run(dsn, arguments.format, listen),
        Subcommand::Notify(notify) => notify::run(dsn, notify),
        Subcommand::Watch(watch) => watch::watch(dsn, arguments.format, watch),
        Subcommand::Unwatch(unwatch) => watch::unwatch(dsn, unwatch),
        Subcommand::Ddl(ddl) => watch::ddl(dsn, arguments.format, ddl),
        Subcommand::Check => status::check(dsn, arguments.format),
        Subcommand::Status(status) => status::status(dsn, arguments.format, status),
        Subcommand::Bench(bench) => bench::run(dsn, arguments.format, bench),
        Subcommand::Completions(completions) => completions::run(completions),
        Subcommand::Version => version::run(),
    };
    match done {
        Ok(()) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(Failure::Running(sentence)) => complain(&sentence, 1),
        Err(Failure::Usage(sentence)) => complain(&sentence, 2),
    }
}

fn complain(sentence: &str, status: u8) -> ExitCode {
    // There is nobody left to tell when stderr is closed.
    let _ = writeln!(std::io::stderr(), "pgwake: {sentence}");
    ExitCode::from(status)
}

fn start_log(verbose: u8) {
    let default = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(default)).init();
}

/// Before a session has listened for the first time, a lost connection is the user's to mend: a typing error
/// in the conninfo should not be retried for ever. Afterwards the session goes on by itself.
pub(crate) fn not_connected(message: &str, sqlstate: Option<pgwake::SqlState>) -> Failure {
    Failure::Running(with_advice(When::Connecting, message, sqlstate))
}
