//! What a measurement ran on: without it, its figures say nothing.

use super::super::Failure;
use super::target::Target;
use pgwake::pq::Conninfo;
use serde::{Deserialize, Serialize};
use std::fs::read_to_string;

/// Server, libraries, kernel, machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Environment {
    pub(super) pgwake: String,
    pub(super) libpq: String,
    pub(super) tls: Option<String>,
    pub(super) server: String,
    /// Settings that matter here, by name.
    pub(super) server_settings: std::collections::BTreeMap<String, String>,
    /// It was started for this measurement and is gone.
    pub(super) is_private_server: bool,
    pub(super) kernel: String,
    pub(super) cpu: String,
    pub(super) cpus: usize,
    /// With every secret hidden.
    pub(super) command_line: String,
}

/// Settings of the server that change the figures.
const SETTINGS: [&str; 6] = [
    "max_connections",
    "synchronous_commit",
    "fsync",
    "wal_level",
    "server_encoding",
    "shared_preload_libraries",
];

impl Environment {
    pub(super) fn of(target: &mut Target, dsn: &str) -> Result<Self, Failure> {
        let mut server_settings = std::collections::BTreeMap::new();
        for name in SETTINGS {
            let sql = format!("SELECT current_setting('{name}', true)");
            // What a role may not see is left out.
            let setting = target.value(&sql).unwrap_or_default();
            if !setting.is_empty() {
                server_settings.insert(name.to_string(), setting);
            }
        }
        let line = |path: &str, key: &str| {
            let text = read_to_string(path).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_string();
            line.rsplit(':').next().unwrap_or_default().trim().to_string()
        };
        Ok(Environment {
            pgwake: env!("CARGO_PKG_VERSION").into(),
            libpq: format!(
                "{} ({})",
                pgwake::pq::version(),
                if cfg!(feature = "bundled") { "bundled" } else { "the system's" }
            ),
            tls: pgwake::pq::tls_version(),
            server: target.value("SHOW server_version")?,
            server_settings,
            is_private_server: target.is_private,
            kernel: line("/proc/sys/kernel/osrelease", ""),
            cpu: line("/proc/cpuinfo", "model name"),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            command_line: command_line(
                std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()),
                dsn,
            ),
        })
    }
}

/// The arguments as a shell takes them, but for the conninfo, which may hold a password, and the program, of
/// which the name is enough.
fn command_line(arguments: impl Iterator<Item = String>, dsn: &str) -> String {
    let shown = Conninfo::parse(dsn).map_or_else(|_| "…".into(), |conninfo| conninfo.to_string());
    // That keyword is our own addition.
    let shown = shown.replace(" fallback_application_name=pgwake", "");
    let typed = arguments.skip(1).map(|argument| match dsn {
        "" => argument,
        dsn => argument.replace(dsn, &shown),
    });
    let words: Vec<String> = ["pgwake".to_string()].into_iter().chain(typed).collect();
    // No argument of a program has a NUL byte, which alone cannot be quoted.
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_default()
}

/// The CPU that a process of the server has used, where it runs on this machine: nanoseconds (proc(5),
/// `schedstat`). A number may mean another process elsewhere, so its title must be a server's.
pub(super) fn server_cpu_ns(pid: i32) -> Option<i64> {
    let title = read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    title.starts_with("postgres").then(|| cpu_ns(pid.cast_unsigned()))?
}

/// The CPU that the first thread of a process has used, until it is waited for.
pub(super) fn cpu_ns(pid: u32) -> Option<i64> {
    let usage = read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    usage.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_in_the_command_line_that_is_kept() {
        let dsn = "host=db password=hunter2";
        for typed in [vec!["x/pgwake", "-d", dsn, "bench"], vec!["pgwake", "--dsn=host=db password=hunter2"]]
        {
            let shown = command_line(typed.iter().map(ToString::to_string), dsn);
            assert!(shown.starts_with("pgwake ") && shown.contains("password=***"), "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
