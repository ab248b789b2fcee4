//! `pgwake install` and `uninstall`: one transaction each, or its text; and for the commands that need the
//! schema, whether it is there.

use super::advice::{When, with_advice};
use super::arguments::Script;
use super::{Failure, code, query};
use pgwake::pq::Connection;
use pgwake::{Error, install};
use std::io::Write;

pub(crate) fn install(dsn: &str, arguments: &Script) -> Result<(), Failure> {
    run(dsn, arguments.dry_run, &install::install(), When::Installing, "the schema pgwake is installed")
}

pub(crate) fn uninstall(dsn: &str, arguments: &Script) -> Result<(), Failure> {
    run(dsn, arguments.dry_run, &install::uninstall(), When::Uninstalling, "the schema pgwake is gone")
}

fn run(dsn: &str, dry_run: bool, script: &str, when: When, done: &str) -> Result<(), Failure> {
    if dry_run {
        std::io::stdout().write_all(script.as_bytes())?;
        return Ok(());
    }
    execute(&mut query::connect(dsn)?, script, when)?;
    say_done!("{done}");
    Ok(())
}

/// An open transaction goes with the connection: it is all or nothing. One that does not get a lock begins
/// anew.
pub(crate) fn execute(connection: &mut Connection, script: &str, when: When) -> Result<(), Failure> {
    let failed = |error: Error| Failure::Running(with_advice(when, &error.message, error.sqlstate));
    let attempt = || {
        query::script(connection, script).inspect_err(|_| {
            query::script(connection, "ROLLBACK").ok();
        })
    };
    query::until_unlocked(attempt).map_err(failed)
}

/// Installs the schema where it is missing or of an older version.
pub(crate) fn ensure(dsn: &str) -> Result<(), Failure> {
    let mut connection = query::connect(dsn)?;
    let version = match version(&mut connection) {
        Ok(version) => version,
        Err(error) if is_missing(&error) => 0,
        // Somebody else has installed it, and this role may use what it was granted.
        Err(error) if code(&error) == Some("42501") => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    refuse_later(version)?;
    if version < install::VERSION {
        execute(&mut connection, &install::install(), When::Installing)?;
        log::info!("the schema pgwake is installed");
    }
    Ok(())
}

/// Refuses a database without the schema, or with one of another version.
pub(crate) fn require(connection: &mut Connection, when: When) -> Result<(), Failure> {
    let failed = |error: Error| Failure::Running(with_advice(when, &error.message, error.sqlstate));
    let version = version(connection).map_err(failed)?;
    refuse_later(version)?;
    if version < install::VERSION {
        return Err(Failure::Running(format!(
            "the schema pgwake of this database has version {version}, and this needs {}: run \
             `pgwake install`",
            install::VERSION
        )));
    }
    Ok(())
}

fn refuse_later(version: u32) -> Result<(), Failure> {
    if version > install::VERSION {
        return Err(Failure::Running(format!(
            "the schema pgwake of this database has version {version}, and this program knows {}: upgrade it",
            install::VERSION
        )));
    }
    Ok(())
}

/// The version of the schema that is there.
pub(crate) fn version(connection: &mut Connection) -> Result<u32, Error> {
    Ok(query::value(connection, "SELECT pgwake.version()")?.parse().unwrap_or_default())
}

/// Whether something of ours was not found because the schema is not there.
pub(crate) fn is_missing(error: &Error) -> bool {
    matches!(code(error), Some("3F000" | "42P01" | "42883"))
}
