//! What has to be there before the log of a server can be read, and who reads it beside pgwake.

use super::super::server::find_programs;
use super::super::{Failure, stop};
use super::target::Target;
use std::path::PathBuf;
use std::time::Instant;

/// Said where pg_recvlogical is not found.
pub(super) const NO_RECVLOGICAL: &str = "left out: pg_recvlogical, which is not installed";

/// The program, beside those of a server or in PATH. The first is no script that has to find it.
pub(super) fn find_recvlogical() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = find_programs().into_iter().chain(std::env::split_paths(&path));
    directories.map(|directory| directory.join("pg_recvlogical")).find(|program| program.is_file())
}

/// Why this role cannot read the log of this server, as the end of a sentence.
pub(super) fn why_unreadable(target: &mut Target) -> Result<Option<String>, Failure> {
    let wal_level = target.value("SHOW wal_level")?;
    if wal_level != "logical" {
        return Ok(Some(format!("the server's wal_level is {wal_level} and not logical")));
    }
    let rights = "SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user";
    Ok((target.value(rights)? != "t").then(|| "this role has no right to replicate".into()))
}

/// Waits until somebody reads from this slot.
pub(super) fn wait_for_reader(target: &mut Target, slot: &str, stop: &stop::Stop) -> Result<(), Failure> {
    let until = Instant::now() + stop::GRACE;
    let is_read = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}'");
    while target.value(&is_read)? != "t" {
        if Instant::now() > until || stop.is_asked_for() {
            return Err(Failure::Running("nobody came to read the log".into()));
        }
        std::thread::sleep(stop::NAP / 10);
    }
    Ok(())
}
