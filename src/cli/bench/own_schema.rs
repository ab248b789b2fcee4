//! A schema of our own in a database that may be somebody's, with its publication and its slots, which have
//! its name: alone there while we are at work, and all gone afterwards, also what a run that was killed left.

use super::super::advice::When;
use super::super::stop::NAP;
use super::super::{Failure, install, query};
use super::lab::Lab;
use super::target::own_session;
use pgwake::pq::Connection;
use pgwake::{Error, SqlState};
use std::time::{Duration, Instant};

/// Its owner is at work in the database: two would take what the other made for somebody's, and would
/// measure each other.
const LOCK: &str = "pg_catalog.hashtext('pgwake bench'), 0";

/// How long the server may take to notice that the last one is gone.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// Works, in the schema that is named like the lab's channel and that `work` makes, while nobody else does so
/// in this database. `needs_pgwake`: with the schema pgwake, too. What was not there before is taken away.
pub(super) fn within(
    lab: &mut Lab,
    needs_pgwake: bool,
    work: impl FnOnce(&mut Lab) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let until = Instant::now() + FAREWELL_MAX;
    while lab.target.value(&format!("SELECT pg_try_advisory_lock({LOCK})"))? != "t" {
        if Instant::now() >= until || lab.stop.is_asked_for() {
            let reason = "another pgwake bench is at work in this database: wait for its end";
            return Err(Failure::Running(reason.into()));
        }
        std::thread::sleep(NAP);
    }
    let outcome = remove_earlier(lab).and_then(|()| work_and_remove(lab, needs_pgwake, work));
    // The next one may be started before our session has ended.
    let _ = lab.target.value(&format!("SELECT pg_advisory_unlock({LOCK})"));
    outcome
}

fn work_and_remove(
    lab: &mut Lab,
    needs_pgwake: bool,
    work: impl FnOnce(&mut Lab) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut sql = own_session(lab.conninfo())?;
    let installs = needs_pgwake && !has_pgwake(&mut sql)?;
    let installed = match installs {
        true => install::execute(&mut sql, &pgwake::install::install(), When::Installing),
        false => Ok(()),
    };
    drop(sql);
    let outcome = installed.and_then(|()| work(lab));
    let also = if installs { " or the schema pgwake" } else { "" };
    let removed = remove_all(lab, needs_pgwake, installs).map_err(|failure| match failure {
        Failure::Running(reason) => {
            let schema = &lab.channel;
            Failure::Running(format!("the schema {schema}{also} is left behind ({reason}): drop it"))
        }
        other => other,
    });
    match (outcome, removed) {
        // Neither is kept quiet: the second says what is left behind.
        (Err(Failure::Running(outcome)), Err(Failure::Running(removed))) => {
            Err(Failure::Running(format!("{outcome}; and {removed}")))
        }
        (outcome, removed) => outcome.and(removed),
    }
}

/// Over a connection of its own: another may have been lost.
fn remove_all(lab: &mut Lab, needs_pgwake: bool, has_installed: bool) -> Result<(), Failure> {
    let mut sql = own_session(lab.conninfo())?;
    let has_pgwake = has_pgwake(&mut sql)?;
    remove(&mut sql, &lab.channel, has_pgwake && needs_pgwake)?;
    if !has_pgwake || !has_installed {
        return Ok(());
    }
    if is_used(&mut sql)? {
        lab.note("the schema pgwake stays, for somebody uses it by now".into());
        return Ok(());
    }
    install::execute(&mut sql, &pgwake::install::uninstall(), When::Uninstalling)
}

/// Takes away what earlier runs left, and says so: only one of us is at work in a database, so that all that
/// is named like ours is of nobody.
fn remove_earlier(lab: &mut Lab) -> Result<(), Failure> {
    const EARLIER: &str = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^pgwake_bench_[0-9a-f]{16}$'";
    let mut sql = own_session(lab.conninfo())?;
    let earlier = query::rows(&mut sql, EARLIER, &[])?;
    let has_pgwake = !earlier.is_empty() && has_pgwake(&mut sql)?;
    for schema in earlier.iter().flatten() {
        let became = match remove(&mut sql, schema, has_pgwake) {
            Ok(()) => "is taken away".into(),
            Err(error) => format!("stays ({error}): drop it"),
        };
        lab.note(format!("the schema {schema}, which a run that was killed had left, {became}"));
    }
    if has_pgwake && is_used(&mut sql).is_ok_and(|is_used| !is_used) {
        let note = "the schema pgwake may be of the run that was killed, too: pgwake uninstall removes it";
        lab.note(note.into());
    }
    Ok(())
}

/// A schema of ours with its tables, whose watches end, if they can have any.
fn remove(connection: &mut Connection, schema: &str, is_watched: bool) -> Result<(), Error> {
    let unwatch = format!(
        "SELECT pgwake.unwatch_table(relid) FROM pgwake.watched JOIN pg_class c ON c.oid = relid \
         WHERE schema_name = '{schema}' AND NOT ended;"
    );
    let unwatch = if is_watched { &unwatch } else { "" };
    let drop = format!(
        "SET client_min_messages = warning; {unwatch} DROP PUBLICATION IF EXISTS {schema}; \
         DROP SCHEMA IF EXISTS {schema} CASCADE"
    );
    drop_slots(connection, schema).and_then(|()| query::script(connection, &drop))
}

/// Drops the slots whose names begin like this, as soon as those that have just read them are gone.
pub(super) fn drop_slots(connection: &mut Connection, beginning: &str) -> Result<(), Error> {
    let until = Instant::now() + FAREWELL_MAX;
    let drop = format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
         WHERE starts_with(slot_name, '{beginning}') AND database = current_database() AND NOT temporary"
    );
    loop {
        match query::script(connection, &drop) {
            Err(error) if error.sqlstate == Some(SqlState::OBJECT_IN_USE) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            outcome => return outcome,
        }
    }
}

fn has_pgwake(connection: &mut Connection) -> Result<bool, Error> {
    Ok(query::value(connection, "SELECT to_regnamespace('pgwake') IS NOT NULL")? == "t")
}

/// Whether somebody else has begun to watch or to read.
fn is_used(connection: &mut Connection) -> Result<bool, Error> {
    let any = "SELECT EXISTS (SELECT FROM pgwake.watched WHERE NOT ended) \
        OR EXISTS (SELECT FROM pgwake.consumer) OR EXISTS (SELECT FROM pgwake.ddl_watch)";
    Ok(query::value(connection, any)? == "t")
}
