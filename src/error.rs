//! What can go wrong, as data: a kind, the server's SQLSTATE where there is one, and a sentence that says
//! what to do.

use std::fmt;

/// The result of every fallible call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure: its kind, its SQLSTATE, and a sentence for people. No message holds a password or a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Error {
    /// Who must act on it.
    pub kind: ErrorKind,
    /// The server's code, or one of class 08 where libpq itself reports the loss of a connection.
    pub sqlstate: Option<SqlState>,
    /// One line of text: what happened and, where it helps, what to do.
    pub message: String,
}

/// Who must act on an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call itself was wrong: a channel of 64 bytes, a malformed conninfo. Nothing was sent.
    InvalidArgument,
    /// No such session in this loop; it was disconnected, or belongs to another loop.
    UnknownSession,
    /// No such poll or schedule in this loop; it was cancelled, or belongs to another loop.
    UnknownTask,
    /// The session's queue of unsent commands is full: take events until [`Sent`](crate::Sent) comes, then go
    /// on.
    QueueFull,
    /// The connection could not be made, or was lost.
    Connection,
    /// The loop was made before a fork, and this is the child: only the parent may use it.
    Forked,
    /// The server answered with an error.
    Server,
    /// The operating system refused something: no more file descriptors, no memory.
    System,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, sqlstate: None, message: message.into() }
    }

    pub(crate) fn with_sqlstate(mut self, sqlstate: Option<SqlState>) -> Self {
        self.sqlstate = sqlstate;
        self
    }

    /// Whether the same call may succeed later without a change by its caller.
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            ErrorKind::InvalidArgument
            | ErrorKind::UnknownSession
            | ErrorKind::UnknownTask
            | ErrorKind::Forked => false,
            ErrorKind::QueueFull | ErrorKind::System => true,
            ErrorKind::Connection => !self.sqlstate.is_some_and(|s| s.is_permanent()),
            // 40: transaction rollback, 53: insufficient resources, 55: object in use, 57: operator
            // intervention.
            ErrorKind::Server => {
                self.sqlstate.is_some_and(|s| ["40", "53", "55", "57"].contains(&&s.as_str()[..2]))
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.sqlstate {
            Some(sqlstate) => write!(f, " (SQLSTATE {sqlstate})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        let advice = match error.raw_os_error() {
            Some(libc::EMFILE) => ": the process may open no more of them, raise its limit (ulimit -n)",
            _ => "",
        };
        Error::new(ErrorKind::System, format!("{error}{advice}"))
    }
}

/// Five characters that name an error (manual, appendix A "PostgreSQL Error Codes").
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// `08001`: the connection could not be made.
    pub const CONNECTION_NOT_MADE: SqlState = SqlState(*b"08001");
    /// `08006`: the connection was lost.
    pub const CONNECTION_LOST: SqlState = SqlState(*b"08006");
    /// `08P01`: the other side does not keep to the protocol.
    pub const PROTOCOL_VIOLATION: SqlState = SqlState(*b"08P01");
    /// `08007`: the connection was lost before the server's answer; whether the command was done is unknown.
    pub const OUTCOME_UNKNOWN: SqlState = SqlState(*b"08007");
    /// `53300`: the server has no connection left for us.
    pub const TOO_MANY_CONNECTIONS: SqlState = SqlState(*b"53300");
    /// `58030`: the system refused something: a file, a descriptor.
    pub const IO_ERROR: SqlState = SqlState(*b"58030");
    /// `57P01`: somebody ended the session, or stops the server.
    pub const ADMIN_SHUTDOWN: SqlState = SqlState(*b"57P01");
    /// `42704`: there is no such object.
    pub const UNDEFINED_OBJECT: SqlState = SqlState(*b"42704");
    /// `42P01`: there is no such table.
    pub const UNDEFINED_TABLE: SqlState = SqlState(*b"42P01");
    /// `55000`: something has to be done before: a table watched, event triggers made.
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: SqlState = SqlState(*b"55000");
    /// `55006`: somebody else uses it.
    pub const OBJECT_IN_USE: SqlState = SqlState(*b"55006");
    /// `54000`: more than may be.
    pub const LIMIT_EXCEEDED: SqlState = SqlState(*b"54000");
    /// `28000`: the server does not let us in, or its certificate, or ours, is not accepted.
    pub const INVALID_AUTHORIZATION_SPECIFICATION: SqlState = SqlState(*b"28000");
    /// `28P01`: the password is wrong, or there is none.
    pub const INVALID_PASSWORD: SqlState = SqlState(*b"28P01");
    /// `0A000`: what we need cannot be had from this server, or from the pooler before it.
    pub const FEATURE_NOT_SUPPORTED: SqlState = SqlState(*b"0A000");

    /// The code in `text`, which must be five digits or capital letters.
    pub fn new(text: &str) -> Option<Self> {
        let code: [u8; 5] = text.as_bytes().try_into().ok()?;
        code.iter().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()).then_some(SqlState(code))
    }

    /// The five characters.
    pub fn as_str(&self) -> &str {
        // The constructors let nothing but ASCII in.
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }

    /// Class 57: somebody or something ended the session (manual, "Operator Intervention").
    pub(crate) fn is_shutdown(&self) -> bool {
        self.0.starts_with(b"57")
    }

    /// Text that the encoding it is to be written in does not have.
    pub(crate) fn is_about_characters(&self) -> bool {
        matches!(&self.0, b"22P05" | b"22021")
    }

    /// A lock that was not to be had, a command that was cut short, a conflict, no memory, no room on a disk
    /// (class 53): the next time it may work.
    pub fn may_pass(&self) -> bool {
        matches!(&self.0, b"55P03" | b"57014" | b"40001" | b"40P01") || self.0.starts_with(b"53")
    }

    /// Classes 22 and 42: the command itself is wrong, and would be anywhere.
    pub(crate) fn is_about_the_command(&self) -> bool {
        self.0.starts_with(b"22") || (self.0.starts_with(b"42") && self.0 != *b"42501")
    }

    /// Whether trying to connect again is useless until somebody changes something: wrong password, no
    /// access, a certificate that is not accepted, no such database, a setting that the server does not take,
    /// a standby that cannot LISTEN, a pooler that delivers nothing.
    pub fn is_permanent(&self) -> bool {
        matches!(&self.0, b"28P01" | b"28000" | b"3D000" | b"42501" | b"25006" | b"0A000")
            || self.is_about_the_command()
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlstate_is_five_digits_or_capitals() {
        assert_eq!(SqlState::new("28P01").unwrap().as_str(), "28P01");
        for bad in ["", "28P0", "28P011", "28p01", "28-01", "é001"] {
            assert_eq!(SqlState::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_what_may_pass_is_retryable() {
        let error = |kind, code| Error::new(kind, "x").with_sqlstate(SqlState::new(code));
        assert!(error(ErrorKind::Connection, "08001").is_retryable());
        assert!(!error(ErrorKind::Connection, "28P01").is_retryable());
        assert!(error(ErrorKind::Server, "40001").is_retryable());
        assert!(!error(ErrorKind::Server, "42601").is_retryable());
        assert!(!error(ErrorKind::InvalidArgument, "").is_retryable());
    }
}
