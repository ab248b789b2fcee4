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

/// Says at a terminal what was done; a script has the exit status, and the log with -v.
macro_rules! say_done {
    ($($words:tt)*) => {{
        if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
            say!($($words)*);
        } else {
            log::info!($($words)*);
        }
    }};
}

mod advice;
mod arguments;
mod before_drop;
mod bench;
mod completions;
mod cron;
mod deliver;
mod demo;
mod failure;
mod figures;
mod install;
mod jobs;
mod listen;
mod messages;
mod notify;
mod output;
mod poll;
mod progress;
mod query;
mod run;
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

use arguments::{Arguments, Subcommand};
use clap::Parser;
pub(crate) use failure::{Failure, code, not_connected, with_code};
use std::io::Write;
use std::process::ExitCode;

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
        Subcommand::Publish(publish) => messages::publish(dsn, publish),
        Subcommand::Subscribe(subscribe) => messages::subscribe(dsn, arguments.format, subscribe),
        Subcommand::Watch(watch) => watch::watch(dsn, arguments.format, watch),
        Subcommand::Stream(stream) => stream::run(dsn, arguments.format, stream),
        Subcommand::Unwatch(unwatch) => watch::unwatch(dsn, unwatch),
        Subcommand::Ddl(ddl) => watch::ddl(dsn, arguments.format, ddl),
        Subcommand::BeforeDrop(handler) => before_drop::run(dsn, arguments.format, handler),
        Subcommand::Cron(cron) => cron::run(dsn, arguments.format, cron),
        Subcommand::Poll(poll) => poll::run(dsn, arguments.format, poll),
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
