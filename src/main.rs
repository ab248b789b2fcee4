//! The command `pgwake`: arguments become a plan, the plan drives the loop, and the outcome becomes an exit status.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
