//! `pgwake install` and `uninstall`: one transaction each, or its text.

use super::arguments::Install;
use super::{Failure, not_connected};
use pgwake::install;
use pgwake::pq::{Connection, Conninfo, ResultStatus};
use std::io::Write;

pub(crate) fn install(dsn: &str, arguments: &Install) -> Result<(), Failure> {
    run(dsn, arguments, &install::install(), "the schema pgwake is installed")
}

pub(crate) fn uninstall(dsn: &str, arguments: &Install) -> Result<(), Failure> {
    run(dsn, arguments, &install::uninstall(), "the schema pgwake is gone")
}

fn run(dsn: &str, arguments: &Install, script: &str, done: &str) -> Result<(), Failure> {
    if arguments.dry_run {
        std::io::stdout().write_all(script.as_bytes())?;
        return Ok(());
    }
    let mut connection = Connection::connect(&Conninfo::parse(dsn)?)
        .map_err(|error| not_connected(&error.message, error.sqlstate))?;
    connection.send_query(script)?;
    let mut outcome = Ok(());
    while let Some(result) = connection.result() {
        if result.status() == ResultStatus::Failed {
            outcome = Err(result.error());
        }
    }
    // An open transaction goes with the connection: it is all or nothing.
    outcome.map_err(|error| match error.sqlstate.as_ref().map(pgwake::SqlState::as_str) {
        Some("42501") => {
            Failure::Running(format!("{error}; a role that may CREATE in this database can do it"))
        }
        Some("2BP01") => Failure::Running(format!("{error}; something else uses it: drop that first")),
        _ => error.into(),
    })?;
    log::info!("{done}");
    Ok(())
}
