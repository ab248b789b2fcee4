//! The files of a report: tried before anything is measured, because that one cannot be written is not to be
//! found out at the end, and written when there is a report.

use super::super::Failure;
use super::arguments::Common;
use super::page;
use super::report::Report;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(super) struct ReportFiles<'a> {
    json: Option<ReportFile<'a>>,
    html: Option<ReportFile<'a>>,
}

impl<'a> ReportFiles<'a> {
    /// Refuses what would be written over: each report needs a file of its own.
    pub(super) fn open(common: &'a Common) -> Result<Self, Failure> {
        let json = common.json.as_deref().map(ReportFile::open).transpose()?;
        let html = common.html.as_deref().map(ReportFile::open).transpose()?;
        let printed = std::io::stdout().as_fd().try_clone_to_owned().ok();
        let printed = printed.and_then(|stdout| identity(File::from(stdout).metadata()));
        for (option, file) in [("--json", &json), ("--html", &html)] {
            let place = file.as_ref().and_then(|file| identity(file.file.metadata()));
            if place.is_some() && place == printed {
                return Err(Failure::Usage(format!(
                    "{option} names what stdout goes to, where the table is printed: name another file"
                )));
            }
        }
        let files = ReportFiles { json, html };
        match (&files.json, &files.html) {
            (Some(json), Some(html)) if identity(json.file.metadata()) == identity(html.file.metadata()) => {
                Err(Failure::Usage("--json and --html name the same file: name two".into()))
            }
            _ => {
                // Whatever ends us meanwhile, no empty file is left.
                files.json.iter().chain(&files.html).for_each(ReportFile::remove_new);
                Ok(files)
            }
        }
    }

    pub(super) fn write(self, report: &Report) -> Result<(), Failure> {
        if let Some(file) = self.json {
            file.write(&(serde_json::to_string_pretty(report).map_err(std::io::Error::from)? + "\n"))?;
        }
        if let Some(file) = self.html {
            file.write(&page::of_report(report))?;
        }
        Ok(())
    }
}

/// What two names of one file have in common.
fn identity(metadata: std::io::Result<Metadata>) -> Option<(u64, u64)> {
    metadata.ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

struct ReportFile<'a> {
    path: &'a Path,
    file: File,
    /// It was not there before.
    is_new: bool,
}

impl<'a> ReportFile<'a> {
    fn open(path: &'a Path) -> Result<Self, Failure> {
        let (file, is_new) = match File::options().create_new(true).append(true).open(path) {
            // A link to nowhere is there, and its file is not.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                (File::options().create(true).append(true).open(path), false)
            }
            other => (other, true),
        };
        Ok(ReportFile { path, file: file.map_err(|error| unwritable(path, &error))?, is_new })
    }

    /// Takes the file away that was not there before, unless somebody has put another in its place.
    fn remove_new(&self) {
        let is_empty = self.file.metadata().is_ok_and(|metadata| metadata.len() == 0);
        let is_ours = || identity(self.path.symlink_metadata()) == identity(self.file.metadata());
        if self.is_new && is_empty && is_ours() {
            let _ = std::fs::remove_file(self.path);
        }
    }

    /// Writes over what was in it.
    fn write(mut self, text: &str) -> Result<(), Failure> {
        if self.is_new {
            let again = File::options().create(true).append(true).open(self.path);
            self.file = again.map_err(|error| unwritable(self.path, &error))?;
        }
        // A pipe has no length.
        let is_file = self.file.metadata().is_ok_and(|metadata| metadata.is_file());
        let emptied = if is_file { self.file.set_len(0) } else { Ok(()) };
        let written = emptied.and_then(|()| self.file.write_all(text.as_bytes()));
        written.map_err(|error| unwritable(self.path, &error))
    }
}

impl Drop for ReportFile<'_> {
    fn drop(&mut self) {
        self.remove_new();
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Running(format!("cannot write {}: {error}", path.display()))
}
