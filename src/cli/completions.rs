//! `pgwake completions`: what a shell reads to complete our words, made from the grammar.

use super::Failure;
use super::arguments::{Arguments, Completions};
use clap::CommandFactory;
use std::io::Write;

pub(crate) fn run(arguments: &Completions) -> Result<(), Failure> {
    // Into memory, because writing it to a pipe that is closed would be a panic.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "pgwake", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}
