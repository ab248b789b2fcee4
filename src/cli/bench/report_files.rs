//! The files of a report: tried before anything is measured, because that one cannot be written is not to be
//! found out at the end, and written when there is a report.

use super::super::Failure;
use super::arguments::Common;
use super::page;
use super::report::Report;
use std::fs::{self, File, Metadata};
use std::io::Error;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Refuses what cannot be written, and what would be written over: each report needs a file of its own.
pub(super) fn check(common: &Common) -> Result<(), Failure> {
    let mut made = Vec::new();
    let outcome = try_each(common, &mut made);
    // Whatever ends us meanwhile, no empty file is left.
    made.iter().for_each(|path| drop(fs::remove_file(path)));
    outcome
}

/// Adds the files that it has to make.
fn try_each(common: &Common, made: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let stdout = stdout.and_then(|stdout| stdout.metadata()).as_ref().map(identity).ok();
    let mut taken = vec![(stdout, "what stdout goes to, where the table is printed")];
    for (option, path) in [("--json", &common.json), ("--html", &common.html)] {
        let Some(path) = path else { continue };
        let tried = match path.exists() {
            // The end of a file that is a link is where it leads to.
            false => File::create(path).and_then(|_| path.canonicalize()).map(|path| made.push(path)),
            // A pipe would lose its reader.
            true if path.is_file() => File::options().append(true).open(path).map(drop),
            true => Ok(()),
        };
        let own = tried.and_then(|()| path.metadata()).map_err(|error| unwritable(path, &error))?;
        let own = Some(identity(&own));
        if let Some((_, what)) = taken.iter().find(|(other, _)| *other == own) {
            return Err(Failure::Usage(format!("{option} names {what}: name another file")));
        }
        taken.push((own, "the same file as --json"));
    }
    Ok(())
}

/// What two names of one file have in common.
fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

pub(super) fn write(common: &Common, report: &Report) -> Result<(), Failure> {
    let put = |path: &PathBuf, text: String| fs::write(path, text).map_err(|error| unwritable(path, &error));
    if let Some(path) = &common.json {
        put(path, serde_json::to_string_pretty(report).map_err(Error::from)? + "\n")?;
    }
    common.html.as_ref().map_or(Ok(()), |path| put(path, page::of_report(report)))
}

fn unwritable(path: &Path, error: &Error) -> Failure {
    Failure::Running(format!("cannot write {}: {error}", path.display()))
}
