//! A schema of our own in a database that may be somebody's, with its publication and its slots, which have
//! its name: alone there while we are at work, and all gone afterwards, also what a run that was killed left.

use super::super::stop::NAP;
use super::super::{Failure, query};
use super::lab::Lab;
use pgwake::pq::Connection;
use pgwake::{Error, SqlState};
use std::time::{Duration, Instant};

/// Its owner is at work in the database: two would take what the other made for somebody's, and would
/// measure each other.
const LOCK: &str = "pg_catalog.hashtext('pgwake bench'), 0";

/// How long the server may take to notice that the last one is gone.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// Works while nobody else does so in this database.
pub(super) fn alone(
    lab: &mut Lab,
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
    let outcome = work(lab);
    // The next one may be started before our session has ended.
    let _ = lab.target.value(&format!("SELECT pg_advisory_unlock({LOCK})"));
    outcome
}

/// Of two failures neither is kept quiet: the second says what is left behind.
pub(super) fn both(outcome: Result<(), Failure>, removed: Result<(), Failure>) -> Result<(), Failure> {
    match (outcome, removed) {
        (Err(Failure::Running(outcome)), Err(Failure::Running(removed))) => {
            Err(Failure::Running(format!("{outcome}; and {removed}")))
        }
        (outcome, removed) => outcome.and(removed),
    }
}

/// Takes away what earlier runs left: only one of us is at work in a database, so that all that is named like
/// ours is of nobody. Gives what is to be said of it.
pub(super) fn remove_earlier(connection: &mut Connection) -> Result<Vec<String>, Failure> {
    const EARLIER: &str = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^pgwake_bench_[0-9a-f]{16}$'";
    let mut notes = Vec::new();
    let earlier = query::rows(connection, EARLIER, &[])?;
    let has_pgwake = !earlier.is_empty() && has_pgwake(connection)?;
    for schema in earlier.iter().flatten() {
        notes.push(match remove(connection, schema, has_pgwake) {
            Ok(()) => format!("the schema {schema}, which a run that was killed had left, is taken away"),
            Err(error) => {
                format!("the schema {schema}, which a run that was killed had left, stays ({error}): drop it")
            }
        });
    }
    if has_pgwake && is_used(connection).is_ok_and(|is_used| !is_used) {
        let note = "the schema pgwake may be of the run that was killed, too: pgwake uninstall removes it";
        notes.push(note.into());
    }
    Ok(notes)
}

/// A schema of ours with its tables, whose watches end, if they can have any.
pub(super) fn remove(connection: &mut Connection, schema: &str, is_watched: bool) -> Result<(), Error> {
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
            Err(error) if is_in_use(&error) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            outcome => return outcome,
        }
    }
}

fn is_in_use(error: &Error) -> bool {
    error.sqlstate.as_ref().map(SqlState::as_str) == Some("55006")
}

pub(super) fn has_pgwake(connection: &mut Connection) -> Result<bool, Failure> {
    is_true(connection, "SELECT to_regnamespace('pgwake') IS NOT NULL")
}

/// Whether somebody else has begun to watch or to read.
pub(super) fn is_used(connection: &mut Connection) -> Result<bool, Failure> {
    let any = "SELECT EXISTS (SELECT FROM pgwake.watched WHERE NOT ended) \
        OR EXISTS (SELECT FROM pgwake.consumer) OR EXISTS (SELECT FROM pgwake.ddl_watch)";
    is_true(connection, any)
}

fn is_true(connection: &mut Connection, sql: &str) -> Result<bool, Failure> {
    let rows = query::rows(connection, sql, &[])?;
    Ok(rows.into_iter().flatten().next().is_some_and(|value| value == "t"))
}

/// A failure to take something away.
pub(super) fn remains(what: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Running(reason) | Failure::Usage(reason) => {
            Failure::Running(format!("{what} is left behind ({reason}): drop it"))
        }
        other => other,
    }
}
