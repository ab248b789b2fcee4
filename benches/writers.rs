//! What watching a table costs its writers: `cargo bench --bench writers -- --commit-delay 1ms`.
//!
//! Starts a private server, with commits made as slow as a disk's when asked, and prints the rates of writers
//! to a table without a trigger, with the NOTIFY trigger that everybody writes first, and watched by each
//! transport. What counts are the ratios within a round: the table shows their medians.

#[path = "writers/measure.rs"]
mod measure;
#[path = "../src/cli/server.rs"]
mod server;

use measure::{Load, Measurement, Plan};
use server::{PrivateServer, ServerOptions};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const USAGE: &str = "usage: writers [--clients 1,8,32] [--rows 1,100] [--commit-delay 1ms] [--seconds 3] \
    [--rounds 5] [--only VARIANT,...]";

/// What was asked for.
struct Arguments {
    clients: Vec<usize>,
    rows: Vec<u32>,
    commit_delay: Option<Duration>,
    only: Vec<String>,
    plan: Plan,
}

fn main() {
    let arguments = match arguments(std::env::args().skip(1).filter(|argument| argument != "--bench")) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            std::process::exit(2);
        }
    };
    let delay = arguments.commit_delay.map(|delay| Delay::build(delay).expect("the delay is compiled"));
    let server = start(delay.as_ref()).expect("a server");
    let variants: Vec<_> = measure::VARIANTS
        .iter()
        .filter(|variant| {
            arguments.only.is_empty()
                || variant.name == measure::YARDSTICK
                || arguments.only.iter().any(|name| name == variant.name)
        })
        .collect();
    measure::prepare(&server.conninfo(), &variants).expect("the tables are made");
    println!(
        "UPDATE by key, one statement a transaction; tables watched with payload key; {} rounds of {} s",
        arguments.plan.rounds,
        arguments.plan.time.as_secs_f64()
    );
    for &rows in &arguments.rows {
        for &clients in &arguments.clients {
            let load = Load { clients, rows };
            let measured = measure::run(&server.conninfo(), &variants, load, &arguments.plan);
            print(load, arguments.commit_delay, &measured.expect("measured"));
        }
    }
}

fn print(load: Load, commit_delay: Option<Duration>, measured: &[Measurement]) {
    let commits = commit_delay.map_or("not synced".into(), |delay| format!("{delay:?} longer"));
    println!("\n{} clients, {} rows a statement, commits {commits}", load.clients, load.rows);
    println!("{:10}{:>14}{:>9}{:>20}", "", "statements/s", "ratio", "of single rounds");
    for one in measured {
        println!(
            "{:10}{:14.0}{:9.2}{:>20}",
            one.name,
            one.per_s,
            one.ratio,
            format!("{:.2} to {:.2}", one.ratio_min, one.ratio_max)
        );
    }
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        clients: vec![1, 8, 32],
        rows: vec![1],
        commit_delay: None,
        only: Vec::new(),
        plan: Plan { time: Duration::from_secs(3), rounds: 5 },
    };
    while let Some(name) = given.next() {
        let value = given.next().ok_or_else(|| format!("{name} wants a value"))?;
        let wrong = |_| format!("{name} {value}: that is no number");
        match name.as_str() {
            "--clients" => arguments.clients = list(&value)?,
            "--rows" => arguments.rows = list(&value)?,
            "--rounds" => arguments.plan.rounds = value.parse().map_err(wrong)?,
            "--seconds" => {
                let seconds =
                    value.parse::<f64>().map_err(|_| format!("{name} {value}: that is no number"))?;
                arguments.plan.time = Duration::from_secs_f64(seconds);
            }
            "--commit-delay" => {
                let number = value.strip_suffix("ms").ok_or("--commit-delay is given as 1ms")?;
                arguments.commit_delay = Some(Duration::from_millis(number.parse().map_err(wrong)?));
            }
            "--only" => arguments.only = value.split(',').map(String::from).collect(),
            _ => return Err(format!("{name} is unknown")),
        }
    }
    Ok(arguments)
}

fn list<T: std::str::FromStr>(value: &str) -> Result<Vec<T>, String> {
    value.split(',').map(|item| item.parse().map_err(|_| format!("{item} is no number"))).collect()
}

/// With slow commits the server syncs as usual; without, it does not wait for the disk at all.
fn start(delay: Option<&Delay>) -> std::io::Result<PrivateServer> {
    let mut settings = vec![
        "max_connections = 200",
        "shared_buffers = 256MB",
        "max_wal_size = 8GB",
        "checkpoint_timeout = 1h",
        "autovacuum = off",
        "wal_level = logical",
    ];
    if delay.is_some() {
        settings.extend(["fsync = on", "wal_sync_method = fdatasync"]);
    }
    let settings = settings.into_iter().map(String::from).collect();
    let environment = delay.map(Delay::environment).unwrap_or_default();
    PrivateServer::start(&ServerOptions { settings, environment, ..ServerOptions::default() })
}

/// `slow_commit.c`, compiled to where the server can read it, and gone with us.
struct Delay {
    library: PathBuf,
    delay: Duration,
}

impl Delay {
    fn build(delay: Duration) -> std::io::Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/slow_commit.c");
        let library = std::env::temp_dir().join(format!("pgwake-slow-commit-{}.so", std::process::id()));
        let status =
            Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).args([&library, &source]).status()?;
        assert!(status.success(), "cc compiles slow_commit.c");
        fs::set_permissions(&library, fs::Permissions::from_mode(0o755))?;
        Ok(Delay { library, delay })
    }

    fn environment(&self) -> Vec<(String, String)> {
        vec![
            ("LD_PRELOAD".into(), self.library.display().to_string()),
            ("SLOW_COMMIT_US".into(), self.delay.as_micros().to_string()),
        ]
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.library);
    }
}
