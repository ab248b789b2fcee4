//! Why a command ends with another status than 0, from the errors of all it is made of.

use super::advice::{When, with_advice};
use super::server::PrivateServer;
use pgwake::{Error, ErrorKind, SqlState};

/// Why the command ends with another status than 0.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Status 2: nothing was done.
    Usage(String),
    /// Status 1.
    Running(String),
    /// Nobody reads our output any more, as with `| head`. That is no failure of ours: status 0.
    OutputClosed,
}

impl Failure {
    /// What was done on a private server fails because of that server first of all.
    pub(crate) fn explained_by(self, server: &mut PrivateServer) -> Self {
        match self {
            Failure::Running(sentence) => Failure::Running(server.explain(&sentence)),
            other => other,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.kind {
            ErrorKind::InvalidArgument => {
                Failure::Usage(with_advice(When::Connecting, &error.message, error.sqlstate))
            }
            _ => Failure::Running(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            // All other files of ours say their names themselves.
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                let file = std::fs::read_link("/proc/self/fd/1").unwrap_or_default();
                Failure::Running(format!("standard output, {}: {error}", file.display()))
            }
            _ => Failure::Running(error.to_string()),
        }
    }
}

/// The SQLSTATE of an error, to be compared with.
pub(crate) fn code(error: &Error) -> Option<&str> {
    error.sqlstate.as_ref().map(SqlState::as_str)
}

/// What the server or a session says, with its code.
pub(crate) fn with_code(message: &str, sqlstate: Option<SqlState>) -> String {
    sqlstate.map_or(message.into(), |code| format!("{message} (SQLSTATE {code})"))
}

/// Before a session has listened for the first time, a lost connection is the user's to mend: a typing error
/// in the conninfo should not be retried for ever. Afterwards the session goes on by itself.
pub(crate) fn not_connected(message: &str, sqlstate: Option<SqlState>) -> Failure {
    Failure::Running(with_advice(When::Connecting, message, sqlstate))
}
