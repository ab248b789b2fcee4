//! Events that will never be stored: each is kept in a file, as the line that it was with the reason added,
//! before it is done with.

use crate::cli::Failure;
use pgwake::json;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(super) struct DeadLetters {
    path: PathBuf,
    file: File,
}

impl DeadLetters {
    /// Opened at once: that it cannot be is to be known before there is a need for it.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let opened = OpenOptions::new().create(true).append(true).open(path);
        let file = opened.map_err(|error| trouble(path, &error))?;
        Ok(DeadLetters { path: path.into(), file })
    }

    pub(super) fn put(&mut self, line: &[u8], reason: &str) -> Result<(), Failure> {
        let mut letter = line.to_vec();
        json::add_field(&mut letter, "reason", reason);
        let kept = self.file.write_all(&letter).and_then(|()| self.file.sync_data());
        kept.map_err(|error| trouble(&self.path, &error))
    }
}

fn trouble(path: &Path, error: &std::io::Error) -> Failure {
    let path = path.display();
    Failure::Running(format!(
        "dead letters cannot be kept in {path}: {error}; name another file with --dead-letters"
    ))
}
