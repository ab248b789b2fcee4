//! One command to the server, and its rows: what the commands that do not stream have in common.

use super::{Failure, code, not_connected};
use pgwake::Error;
use pgwake::pq::{Connection, Conninfo, Format, QueryResult, ResultStatus};
use std::time::Duration;

/// How many seconds a host may be silent when nothing says it, as for a session.
const CONNECT_TIMEOUT_S: &str = "10";

/// Connects for one's own queries, whose texts are UTF-8 in any database.
pub(crate) fn connect(dsn: &str) -> Result<Connection, Failure> {
    let mut conninfo = Conninfo::parse(dsn)?;
    conninfo.check()?;
    conninfo.set("client_encoding", "UTF8");
    if conninfo.with_defaults().get("connect_timeout").is_none_or(str::is_empty) {
        conninfo.set("connect_timeout", CONNECT_TIMEOUT_S);
    }
    Connection::connect(&conninfo).map_err(|error| not_connected(&error.message, error.sqlstate))
}

/// Runs one command; its rows, NULL as nothing.
pub(crate) fn rows(
    connection: &mut Connection,
    sql: &str,
    parameters: &[&str],
) -> Result<Vec<Vec<String>>, Error> {
    let parameters: Vec<&[u8]> = parameters.iter().map(|parameter| parameter.as_bytes()).collect();
    connection.send_query_params(sql.as_bytes(), &parameters, Format::Text)?;
    taken(connection).map(|result| result.map_or_else(Vec::new, |result| texts(&result)))
}

/// The first value of an answer, nothing for NULL or without a row.
pub(crate) fn value(connection: &mut Connection, sql: &str) -> Result<String, Error> {
    Ok(rows(connection, sql, &[])?.into_iter().flatten().next().unwrap_or_default())
}

/// Works in a transaction, with which this setting goes: what is set for a session stays on a connection of a
/// pooler in transaction mode, and the next client has it.
pub(crate) fn in_transaction<T>(
    connection: &mut Connection,
    setting: &str,
    work: impl FnOnce(&mut Connection) -> Result<T, Error>,
) -> Result<T, Error> {
    script(connection, &format!("BEGIN; SET LOCAL {setting}"))?;
    let done = work(connection);
    let ended = script(connection, if done.is_ok() { "COMMIT" } else { "ROLLBACK" });
    done.and_then(|done| ended.map(|()| done))
}

/// The rows of an answer, with no functions and operators but the system's: what others have made must not be
/// run in our name.
pub(crate) fn rows_by_system(connection: &mut Connection, sql: &str) -> Result<Vec<Vec<String>>, Error> {
    in_transaction(connection, "search_path = pg_catalog, pg_temp", |connection| rows(connection, sql, &[]))
}

/// Runs several commands at once, as one transaction unless they say otherwise.
pub(crate) fn script(connection: &mut Connection, sql: &str) -> Result<(), Error> {
    connection.send_query(sql)?;
    taken(connection).map(|_| ())
}

/// How soon something is tried again that does not get its lock, and how late at most.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// How long a lock is waited for at once: longer than `deadlock_timeout` (1 s), after which the server ends
/// an autovacuum that is in the way.
pub(crate) const SHORT_WAIT: &str = "lock_timeout = '1200ms'";

/// Tries until a lock is to be had. Others queue behind who waits for one, so an attempt is to have a short
/// `lock_timeout`, and they go on in the pauses.
pub(crate) fn until_unlocked<T>(mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut pause = PAUSE;
    loop {
        match attempt() {
            Err(error) if code(&error) == Some("55P03") => {
                log::warn!(
                    "a transaction holds a lock that this needs; it is tried again: {}",
                    error.message
                );
                std::thread::sleep(pause);
                pause = PAUSE_MAX.min(pause * 2);
            }
            outcome => return outcome,
        }
    }
}

fn taken(connection: &mut Connection) -> Result<Option<QueryResult>, Error> {
    let mut outcome = Ok(None);
    while let Some(result) = connection.result() {
        match result.status() {
            // Behind the server's last words comes that it has hung up.
            ResultStatus::Failed => outcome = outcome.and_then(|_| Err(result.error())),
            ResultStatus::Rows => outcome = outcome.map(|_| Some(result)),
            _ => {}
        }
    }
    outcome
}

fn texts(result: &QueryResult) -> Vec<Vec<String>> {
    let text =
        |row, column| String::from_utf8_lossy(result.value(row, column).unwrap_or_default()).into_owned();
    (0..result.rows()).map(|row| (0..result.columns()).map(|column| text(row, column)).collect()).collect()
}
