//! What every call answers: numbers whose meaning never changes, and their names. An error's kind flows in.

use crate::{Error, ErrorKind};
use std::ffi::{CStr, c_int};

pub(super) const OK: c_int = 0;
// -1 is no status, so that a status is never taken for the timeout "none" of `pgwake_timeout_ms`.
pub(super) const INVALID: c_int = -2;
pub(super) const UNKNOWN_SESSION: c_int = -3;
pub(super) const QUEUE_FULL: c_int = -4;
pub(super) const CONNECTION: c_int = -5;
pub(super) const SERVER: c_int = -6;
pub(super) const SYSTEM: c_int = -7;
pub(super) const FORKED: c_int = -8;
pub(super) const PANIC: c_int = -9;
pub(super) const UNKNOWN_TASK: c_int = -10;

/// Every status. A number is added at the end, and none is used again.
pub(super) const NAMES: [(c_int, &CStr); 10] = [
    (OK, c"PGWAKE_OK"),
    (INVALID, c"PGWAKE_E_INVALID"),
    (UNKNOWN_SESSION, c"PGWAKE_E_UNKNOWN_SESSION"),
    (QUEUE_FULL, c"PGWAKE_E_QUEUE_FULL"),
    (CONNECTION, c"PGWAKE_E_CONNECTION"),
    (SERVER, c"PGWAKE_E_SERVER"),
    (SYSTEM, c"PGWAKE_E_SYSTEM"),
    (FORKED, c"PGWAKE_E_FORKED"),
    (PANIC, c"PGWAKE_E_PANIC"),
    (UNKNOWN_TASK, c"PGWAKE_E_UNKNOWN_TASK"),
];

pub(super) fn name(status: c_int) -> &'static CStr {
    NAMES.iter().find(|(known, _)| *known == status).map_or(c"unknown status", |(_, name)| name)
}

pub(super) fn of(error: &Error) -> c_int {
    match error.kind {
        ErrorKind::InvalidArgument => INVALID,
        ErrorKind::UnknownSession => UNKNOWN_SESSION,
        ErrorKind::UnknownTask => UNKNOWN_TASK,
        ErrorKind::QueueFull => QUEUE_FULL,
        ErrorKind::Connection => CONNECTION,
        ErrorKind::Server => SERVER,
        ErrorKind::System => SYSTEM,
        ErrorKind::Forked => FORKED,
    }
}
