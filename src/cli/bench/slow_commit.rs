//! A library that makes a server's commits as slow as a disk's, when it is preloaded into it: compiled from
//! `benches/slow_commit.c` when it is asked for, and gone with us.

use super::super::Failure;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const SOURCE: &str = include_str!("../../../benches/slow_commit.c");

/// Settings with which the server waits for its disk at each commit, by the call that the library replaces.
pub(super) const SETTINGS: [&str; 2] = ["fsync = on", "wal_sync_method = fdatasync"];

pub(super) struct SlowCommit {
    directory: TempDir,
    delay: Duration,
}

impl SlowCommit {
    pub(super) fn build(delay: Duration) -> Result<Self, Failure> {
        let parent = std::path::absolute(std::env::temp_dir())?;
        // LD_PRELOAD is a list, and knows no quotes (ld.so(8)).
        if parent.to_str().is_none_or(|path| path.contains(|c: char| c.is_whitespace() || ":$".contains(c))) {
            let place = parent.display();
            return Err(Failure::Running(format!(
                "nothing in {place} can be preloaded into a server: set TMPDIR to a simpler path"
            )));
        }
        let unusable = |error: std::io::Error| {
            let place = parent.display();
            Failure::Running(format!(
                "nothing can be built in {place}: {error}; set TMPDIR to another directory"
            ))
        };
        let directory = tempfile::Builder::new().prefix("pgwake-slow-commit-").tempdir_in(&parent);
        let directory = directory.map_err(unusable)?;
        // The server may be another user.
        let all_may_read = || Permissions::from_mode(0o755);
        fs::set_permissions(&directory, all_may_read())?;
        let built = SlowCommit { directory, delay };
        let source = built.directory.path().join("slow_commit.c");
        fs::write(&source, SOURCE).map_err(unusable)?;
        let compiler = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .args([&built.library(), &source])
            .arg("-ldl")
            .output();
        if !compiler.is_ok_and(|output| output.status.success()) {
            let need = "--commit-delay needs a C compiler named cc: install one, or leave it out";
            return Err(Failure::Running(need.into()));
        }
        fs::set_permissions(built.library(), all_may_read())?;
        Ok(built)
    }

    /// For the environment of the server.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        vec![
            ("LD_PRELOAD".into(), self.library().display().to_string()),
            ("SLOW_COMMIT_US".into(), self.delay.as_micros().to_string()),
        ]
    }

    fn library(&self) -> PathBuf {
        self.directory.path().join("slow_commit.so")
    }
}
