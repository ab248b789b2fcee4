//! What the server says unasked. Without a receiver libpq would print it to the host program's stderr; and
//! the reason why a server ends a connection comes in no other way.
#![allow(unsafe_code)]

use super::text::text;
use crate::error::SqlState;
use std::ffi::{c_int, c_void};

/// A NOTICE, WARNING or FATAL message that belongs to no query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// `NOTICE`, `WARNING`, `FATAL` …, whatever the server's language.
    pub severity: String,
    /// Its code.
    pub sqlstate: Option<SqlState>,
    /// Its primary message, and behind a semicolon its hint.
    pub message: String,
}

/// Where the receiver puts what comes: the last message that ended the connection; the others go to the log.
#[derive(Debug, Default)]
pub(super) struct Notices {
    pub(super) fatal: Option<Notice>,
}

/// The receiver that is set on each connection (manual, "Notice Processing").
///
/// # Safety
///
/// `notices` points to the `Notices` of the connection, which nobody else uses meanwhile; `result` is a valid
/// result.
pub(super) unsafe extern "C" fn receive(notices: *mut c_void, result: *const pq_sys::PGresult) {
    // SAFETY: as promised above; libpq calls this on our own thread from within a call of ours.
    let notice = unsafe { from_result(result) };
    log::debug!("server: {} {:?}: {}", notice.severity, notice.sqlstate, notice.message);
    // Of a crash elsewhere the server warns, and then hangs up.
    if matches!(notice.severity.as_str(), "FATAL" | "PANIC" | "ERROR")
        || notice.sqlstate.is_some_and(|s| s.is_shutdown())
    {
        // SAFETY: as promised above.
        unsafe { (*notices.cast::<Notices>()).fatal = Some(notice) };
    }
}

/// The fields of an error or notice result.
///
/// # Safety
///
/// `result` is a valid result.
pub(super) unsafe fn from_result(result: *const pq_sys::PGresult) -> Notice {
    // SAFETY: PQresultErrorField gives NULL or a string that lives as long as the result.
    let field = |code: u8| unsafe { text(pq_sys::PQresultErrorField(result, c_int::from(code))) };
    let mut message = field(pq_sys::PG_DIAG_MESSAGE_PRIMARY);
    if message.is_empty() {
        // libpq's own messages have no fields, and more lines with guesses.
        // SAFETY: as above.
        message = unsafe { text(pq_sys::PQresultErrorMessage(result)) };
        message.truncate(message.find('\n').unwrap_or(message.len()));
    }
    let hint = field(pq_sys::PG_DIAG_MESSAGE_HINT);
    if !hint.is_empty() {
        message = format!("{message}; {}", hint.trim_end_matches('.'));
    }
    let mut severity = field(pq_sys::PG_DIAG_SEVERITY_NONLOCALIZED);
    if severity.is_empty() {
        severity = field(pq_sys::PG_DIAG_SEVERITY);
    }
    Notice {
        severity,
        sqlstate: SqlState::new(&field(pq_sys::PG_DIAG_SQLSTATE)),
        message: message.lines().collect::<Vec<_>>().join(" ").trim().to_string(),
    }
}
