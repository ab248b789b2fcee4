//! The scenarios of `pgwake bench`, short, on a throw-away server: `cargo bench --bench scenarios`.

use std::process::{Command, ExitCode};

const SCENARIOS: [&[&str]; 5] = [
    &["latency", "--count", "500", "--spin", "2ms"],
    &["throughput", "--payloads", "64,7999", "--for", "300ms"],
    &["scale", "--steps", "1,100", "--count", "200"],
    &["writers", "--clients", "8", "--seconds", "0.5", "--commit-delay", "1ms"],
    &["stream", "--transactions", "20000", "--rows", "100000", "--count", "500"],
];

fn main() -> ExitCode {
    // `cargo test --benches` calls it, too, and only wants to know whether it runs.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    for scenario in SCENARIOS {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgwake"));
        match command.arg("bench").args(scenario).args(["--private", "--rounds", "5"]).status() {
            Ok(status) if status.success() => println!(),
            _ => return ExitCode::FAILURE,
        }
    }
    ExitCode::SUCCESS
}
