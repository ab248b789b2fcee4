//! Events that will never be stored: each is kept in a file, as the line that it was with the reason added,
//! before it is done with.

use crate::cli::Failure;
use pgwake::json;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
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
        let mut file = opened.map_err(|error| trouble(path, &error))?;
        if last_byte(path).is_some_and(|byte| byte != b'\n') {
            // A letter that did not fit on a full disk ends here, or the next one would be part of its line.
            file.write_all(b"\n").map_err(|error| trouble(path, &error))?;
        }
        Ok(DeadLetters { path: path.into(), file })
    }

    pub(super) fn put(&mut self, line: &[u8], reason: &str) -> Result<(), Failure> {
        let mut letter = line.to_vec();
        json::add_field(&mut letter, "reason", reason);
        let kept = self.file.write_all(&letter).and_then(|()| self.file.sync_data());
        kept.map_err(|error| trouble(&self.path, &error))
    }
}

/// Of a file that has one, and that may be read.
fn last_byte(path: &Path) -> Option<u8> {
    let (mut file, mut last) = (File::open(path).ok().filter(is_file)?, [0]);
    file.seek(SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last)).ok()?;
    Some(last[0])
}

fn is_file(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file())
}

fn trouble(path: &Path, error: &std::io::Error) -> Failure {
    let path = path.display();
    Failure::Running(format!(
        "dead letters cannot be kept in {path}: {error}; name another file with --dead-letters"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_begins_a_line_also_behind_one_that_is_torn() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{}\n{\"event\":").unwrap();
        DeadLetters::open(file.path()).unwrap().put(b"{\"event\":\"x\"}\n", "bad").unwrap();
        DeadLetters::open(file.path()).unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text, "{}\n{\"event\":\n{\"event\":\"x\",\"reason\":\"bad\"}\n");
    }
}
