//! What to do about an error that comes before anything is heard. Of each table the first row that fits
//! counts; errors that no row fits speak for themselves. `docs/errors.md` shows them all.

use pgwake::SqlState;

/// An error's code, words of its message, and what to do; nothing where the message says it itself. What the
/// message quotes is a name, which may hold any word: it counts only for words that are quoted, too. A server
/// may speak another language: a row without words comes behind those with.
type Row = (&'static str, &'static str, &'static str);

/// On the way to a connection.
const CONNECTING: &[Row] = &[
    ("28P01", "no password", "give one: in ~/.pgpass, or as PGPASSWORD"),
    ("28P01", "", "check the user and the password (~/.pgpass or PGPASSWORD), which may have expired"),
    ("28000", "does not match host name", "connect by a name that it has, or take sslmode=verify-ca"),
    (
        "28000",
        "certificate verify failed",
        "name with sslrootcert who signed it, or take sslmode=require without sslrootcert",
    ),
    ("28000", "client certificate", "name yours with sslcert and sslkey"),
    ("28000", "does not exist", "let a superuser CREATE ROLE … LOGIN, or name another with user="),
    ("28000", "not permitted to log in", "let a superuser ALTER ROLE … LOGIN, or name another with user="),
    ("28000", "rejects", NO_LINE),
    ("28000", "\"[local]\"", NO_LINE),
    (
        "28000",
        "no encryption",
        "the server's pg_hba.conf lets this user in with TLS at most: sslmode=require",
    ),
    ("28000", "pg_hba.conf", NO_LINE),
    ("28000", "Peer", "on a socket your own name counts: name it with user=, or take TCP, host=localhost"),
    ("28000", "", "the server does not let this user in: its log says why"),
    ("3D000", "", "name another with dbname=, or make it: createdb"),
    ("42501", "give this role REPLICATION", ""),
    ("42501", "grant this role", ""),
    ("42501", "", "let its owner GRANT CONNECT ON DATABASE … TO this role"),
    ("55000", "", "let a superuser ALTER DATABASE … ALLOW_CONNECTIONS true, or name another with dbname="),
    ("53300", "connections for role", "raise it: ALTER ROLE … CONNECTION LIMIT, or close some"),
    ("53300", "connections for database", "raise it: ALTER DATABASE … CONNECTION LIMIT, or close some"),
    ("53300", "standby connections", "raise max_wal_senders, or end another reader of the log"),
    ("53300", "", "raise max_connections, or close some"),
    ("57P03", "", "wait until it is done, and try again"),
    ("25006", "LISTEN", "connect to the primary, or add target_session_attrs=read-write"),
    ("0A000", "LISTEN was taken", "to listen all the same, leave --self-test out"),
    ("42704", "", "leave it out of the settings (options, PGOPTIONS)"),
    ("22023", "", "mend it where it is set (options, PGOPTIONS, client_encoding, PGCLIENTENCODING)"),
    ("08P01", "startup parameter", "leave it out, or let the pooler ignore it (ignore_startup_parameters)"),
    ("08001", "SSL was required", "turn TLS on in the server (ssl = on), or take sslmode=prefer"),
    ("08001", "not in hot standby", NOT_A_PRIMARY),
    ("08001", "not read-only", NOT_A_PRIMARY),
    ("08001", "standby", "a standby cannot LISTEN: name the primary, or all servers (host=a,b)"),
    ("08001", "read-only", "a standby cannot LISTEN: name the primary, or all servers (host=a,b)"),
    ("08001", "certificate file", "put it there, or name another (sslrootcert, sslcert)"),
    ("08001", "requirement", "let the server ask for that, or leave require_auth out (PGREQUIREAUTH)"),
    ("08001", "is too long", "take a shorter directory, or TCP: host=localhost"),
    ("08001", "address", "check the host's name (-d, PGHOST)"),
    ("08001", "answer", "check host and port, and what stands between, or wait longer: connect_timeout"),
    ("08001", "received", "something else than PostgreSQL answers there: check the port (-d, PGPORT)"),
    ("08001", "such file", "no server is there: name its socket's directory with host=, or host=localhost"),
    ("08001", "closed the connection", "see the server's log, or check the port (-d, PGPORT)"),
    ("08001", "refused", REACH),
    ("08001", "unreachable", REACH),
    ("08001", "No route to host", REACH),
    ("08001", "private key file", "let nobody else read it: chmod 600, or name another with sslkey"),
    ("08001", "channel binding", "channel_binding=prefer takes a server without it"),
];

const NOT_A_PRIMARY: &str =
    "this is a primary, and target_session_attrs (PGTARGETSESSIONATTRS) wants another server: leave it out";
const REACH: &str = "check host and port (-d, PGHOST, PGPORT), and that the server runs";
const NO_LINE: &str = "the server's pg_hba.conf does not let this user in from here";

/// What is wrong with the settings themselves.
const SETTINGS: &[Row] = &[
    (
        "",
        "invalid sslmode",
        "take disable, allow, prefer, require, verify-ca or verify-full (sslmode, PGSSLMODE)",
    ),
    (
        "",
        "definition of service",
        "see ~/.pg_service.conf, or PGSERVICEFILE, for its name (service, PGSERVICE)",
    ),
    ("", "service file", "name one that is there with PGSERVICEFILE"),
    ("", "target_session_attrs", "take any, read-write, read-only, primary, standby or prefer-standby"),
    ("", "channel_binding", "take disable, prefer or require"),
    ("", "could not match", "name one port for all hosts, or one for each"),
    ("", "require_auth", "take none, password, md5, scram-sha-256, gss or sspi, or one with ! before it"),
];

/// While the schema is installed.
const INSTALLING: &[Row] = &[
    ("42501", "database", "a role that may CREATE in this database can do it"),
    ("42501", "", "the owner of the schema pgwake, or a superuser, can do it"),
    ("25006", "", "connect to the primary, or SET default_transaction_read_only = off for this role"),
    ("2BP01", "", "something else uses it: drop that first"),
];

/// The same, when it is taken out again.
const UNINSTALLING: &[Row] = &[
    ("42501", "", "the owner of the schema pgwake, or a superuser, can do it"),
    INSTALLING[2],
    INSTALLING[3],
];

/// When a table is not to be watched any more.
const UNWATCHING: &[Row] = &[
    ("3F000", "\"pgwake\"", "nothing is watched in this database: check the name of the database"),
    ("42883", "pgwake", "nothing is watched in this database: check the name of the database"),
    ("3F000", "", NAME),
    ("42P01", "", NAME),
    ("42602", "", NAME),
    ("42501", "", "the owner of the table can do it, with USAGE on the schema pgwake"),
    INSTALLING[2],
];
const NAME: &str = "name it as SQL does: with its schema, sales.orders, and quoted where it has capitals";

/// When a handler is registered, or not any more; or when DDL is not to be delivered any more.
const REGISTERING: &[Row] = &[
    ("3F000", "\"pgwake\"", "run `pgwake install` in this database first"),
    ("42501", "permission denied", "the owner of the schema pgwake, or a superuser, can do it"),
    ("42601", "", FUNCTION),
    ("42602", "", FUNCTION),
    ("22P02", "", FUNCTION),
    ("42704", "", FUNCTION),
    INSTALLING[2],
];
const FUNCTION: &str = "name the function as SQL does: app.clean_up, or app.clean_up(pgwake.ddl_target)";

/// When a slot is dropped.
const DROPPING: &[Row] = &[
    ("55006", "", "end that one first: SELECT pg_terminate_backend(…)"),
    ("42501", "", "a role with REPLICATION can do it"),
];

/// When an error comes.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    Connecting,
    Installing,
    Uninstalling,
    Unwatching,
    Registering,
    Dropping,
}

/// The message with its code, and what to do.
pub(super) fn with_advice(when: When, message: &str, sqlstate: Option<SqlState>) -> String {
    let table: &[Row] = match when {
        When::Connecting if sqlstate.is_none() => SETTINGS,
        When::Connecting => CONNECTING,
        When::Installing => INSTALLING,
        When::Uninstalling => UNINSTALLING,
        When::Unwatching => UNWATCHING,
        When::Registering => REGISTERING,
        When::Dropping => DROPPING,
    };
    let code = sqlstate.as_ref().map_or("", SqlState::as_str);
    let unquoted: String = message.split('"').step_by(2).collect();
    let has =
        |words: &str| if words.starts_with('"') { message.contains(words) } else { unquoted.contains(words) };
    let fits = |row: &&Row| row.0 == code && has(row.1);
    let advice = table.iter().find(fits).map_or("", |(_, _, advice)| advice);
    let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
    let code = sqlstate.map_or(String::new(), |code| format!(" (SQLSTATE {code})"));
    format!("{message}{code}{advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_quotes_decides_nothing() {
        let refused = "connection to server at \"standby\", port 1 failed: Connection refused";
        let advised = with_advice(When::Connecting, refused, Some(SqlState::CONNECTION_NOT_MADE));
        assert!(
            advised.ends_with("check host and port (-d, PGHOST, PGPORT), and that the server runs"),
            "{advised}"
        );
    }

    #[test]
    fn a_full_server_is_no_full_role() {
        let reserved = "remaining connection slots are reserved for roles with the SUPERUSER attribute";
        let advised = with_advice(When::Connecting, reserved, SqlState::new("53300"));
        assert!(advised.ends_with("; raise max_connections, or close some"), "{advised}");
    }

    #[test]
    fn an_error_that_no_row_fits_speaks_for_itself() {
        let error = with_advice(When::Connecting, "the server ended", SqlState::new("57P01"));
        assert_eq!(error, "the server ended (SQLSTATE 57P01)");
    }
}
