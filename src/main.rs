//! The command `pgwake`: arguments become a plan, the plan drives the loop, and the outcome becomes an exit
//! status.

#![deny(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
