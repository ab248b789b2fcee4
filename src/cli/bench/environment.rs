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
const SETTINGS: [&str; 5] =
    ["max_connections", "synchronous_commit", "fsync", "server_encoding", "shared_preload_libraries"];

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

/// The arguments as a shell takes them, but for the conninfo, which may hold a password.
fn command_line(arguments: impl Iterator<Item = String>, dsn: &str) -> String {
    let shown = Conninfo::parse(dsn).map_or_else(
        |_| "…".into(),
        |conninfo| {
            // That keyword is our own addition.
            conninfo.to_string().replace(" fallback_application_name=pgwake", "")
        },
    );
    let quoted = arguments.map(|argument| match dsn {
        "" => shell_word(&argument),
        dsn => shell_word(&argument.replace(dsn, &shown)),
    });
    // The program is shown by its name alone.
    let mut quoted = quoted.skip(1).collect::<Vec<_>>();
    quoted.insert(0, "pgwake".into());
    quoted.join(" ")
}

/// One word of a shell's: as it is where nothing in it means anything to one.
fn shell_word(argument: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+".contains(c);
    match !argument.is_empty() && argument.chars().all(is_plain) {
        true => argument.into(),
        false => format!("'{}'", argument.replace('\'', "'\\''")),
    }
}

/// The CPU that a process of the server has used, where it runs on this machine: nanoseconds (proc(5),
/// `schedstat`). A number may mean another process elsewhere, so its title must be a server's.
pub(super) fn server_cpu_ns(pid: i32) -> Option<i64> {
    let title = read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let usage = read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    title.starts_with("postgres").then(|| usage.split(' ').next()?.parse().ok())?
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

    #[test]
    fn a_shell_reads_the_command_line_as_it_was_typed() {
        let typed = ["it's", "", "a b", "$HOME", "`x`", "\\", "\"", "--of=a,b", "é;", "*", "!", "a\nb"];
        let shown = command_line(["pgwake"].iter().chain(&typed).map(ToString::to_string), "");
        let script = shown.replacen("pgwake", "printf '%s\\0'", 1);
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let read = String::from_utf8(output.stdout).unwrap();
        assert_eq!(read.split_terminator('\0').collect::<Vec<_>>(), typed);
        assert!(shown.ends_with("--of=a,b 'é;' '*' '!' 'a\nb'"), "{shown}");
    }
}
