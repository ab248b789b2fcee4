//! `pgwake completions`: what a shell reads to complete our words, made from the grammar.

use super::Failure;
use super::arguments::{Arguments, Completions};
use clap::{Command, CommandFactory};
use std::io::Write;

pub(crate) fn run(arguments: &Completions) -> Result<(), Failure> {
    let mut command = Arguments::command().mut_subcommand("bench", |bench| without_hidden("bench", &bench));
    // Into memory, because writing it to a pipe that is closed would be a panic.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "pgwake", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}

/// The same command without those that only we start ourselves, which clap_complete would offer.
fn without_hidden(name: &'static str, command: &Command) -> Command {
    let shown = command.get_subcommands().filter(|inner| !inner.is_hide_set()).cloned();
    Command::new(name).about(command.get_about().cloned().unwrap_or_default()).subcommands(shown)
}
