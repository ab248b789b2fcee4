//! The extension pgwake_ddl: its own tests, on each server of this machine whose headers are installed.
//!
//! They build it from the source tree, and use copies of the server's programs, so that nothing is installed.

use crate::common::{say_loudly, server_programs};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ffi/extension/test/check.py");

#[test]
fn what_goes_is_known_before_a_drop_on_every_server_with_headers() {
    let configs = pg_configs();
    if configs.is_empty() {
        say_loudly("SKIPPED: the extension: no server's headers are installed (postgresql-server-dev-all)");
    }
    for (version, config) in configs {
        let output = Command::new("python3").arg(SCRIPT).env("PG_CONFIG", &config).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{version}: {} {}", said[0], said[1]);
        say_loudly(said[0].lines().last().unwrap_or("nothing was said"));
    }
}

/// One `pg_config` for each version whose extensions can be built here.
fn pg_configs() -> BTreeMap<String, PathBuf> {
    // Of two that have the same version the last one counts: rather the system's than a copy.
    let mut candidates = vec![server_programs().join("pg_config")];
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    candidates.extend(versions.map(|version| version.path().join("bin/pg_config")));
    let ask = |config: &PathBuf, option| {
        let output =
            Command::new(config).arg(option).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let can_build =
        |config: &PathBuf| ask(config, "--pgxs").is_some_and(|path| PathBuf::from(path).is_file());
    let with_version = |config: PathBuf| Some((ask(&config, "--version")?, config));
    candidates.into_iter().filter(can_build).filter_map(with_version).collect()
}
