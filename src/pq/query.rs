//! Sending commands and taking their results, without blocking.
#![allow(unsafe_code)]

use super::{Connection, QueryResult};
use crate::error::{Error, ErrorKind, Result};
use std::ffi::{CStr, CString, c_char, c_int};

/// The type `text` (pg_type.dat).
const TEXT_OID: u32 = 25;

impl Connection {
    /// Sends a string of one or more commands (`PQsendQuery`). Not in pipeline mode.
    pub fn send_query(&mut self, sql: &str) -> Result<()> {
        let sql = c_string(sql.as_bytes())?;
        // SAFETY: the connection is alive; libpq copies the string.
        self.accepted(unsafe { pq_sys::PQsendQuery(self.raw.as_ptr(), sql.as_ptr()) } == 1)
    }

    /// Sends one command with parameters of type `text` (`PQsendQueryParams`). They go as they are, without a
    /// copy of ours and without quoting.
    pub fn send_query_params(&mut self, sql: &[u8], parameters: &[&[u8]]) -> Result<()> {
        /// No command of ours has more; an array on the stack saves an allocation.
        const PARAMETERS_MAX: usize = 4;
        let count = parameters.len();
        if count > PARAMETERS_MAX {
            return Err(Error::new(ErrorKind::InvalidArgument, "a command takes at most 4 parameters"));
        }
        let sql = c_string(sql)?;
        let mut values = [std::ptr::null::<c_char>(); PARAMETERS_MAX];
        let mut lengths: [c_int; PARAMETERS_MAX] = [0; PARAMETERS_MAX];
        for (i, parameter) in parameters.iter().enumerate() {
            values[i] = parameter.as_ptr().cast::<c_char>();
            lengths[i] = c_int::try_from(parameter.len())
                .map_err(|_| Error::new(ErrorKind::InvalidArgument, "a parameter is longer than 2 GB"))?;
        }
        // The binary format of text is its bytes with a length: no NUL is needed at the end.
        let (types, formats) = ([TEXT_OID; PARAMETERS_MAX], [1; PARAMETERS_MAX]);
        // SAFETY: the connection is alive; all arrays have at least `count` entries and outlive the call,
        // which copies.
        let sent = unsafe {
            pq_sys::PQsendQueryParams(
                self.raw.as_ptr(),
                sql.as_ptr(),
                count as c_int,
                types.as_ptr(),
                values.as_ptr(),
                lengths.as_ptr(),
                formats.as_ptr(),
                0,
            )
        };
        self.accepted(sent == 1)
    }

    /// Lets commands be sent without waiting for the answers of earlier ones (manual, "Pipeline Mode").
    pub fn enter_pipeline_mode(&mut self) -> Result<()> {
        // SAFETY: the connection is alive.
        self.accepted(unsafe { pq_sys::PQenterPipelineMode(self.raw.as_ptr()) } == 1)
    }

    /// Ends a part of the pipeline, which is a transaction, and sends it (`PQpipelineSync`).
    pub fn pipeline_sync(&mut self) -> Result<()> {
        // SAFETY: the connection is alive.
        self.accepted(unsafe { pq_sys::PQpipelineSync(self.raw.as_ptr()) } == 1)
    }

    /// Whether [`result`](Self::result) would have to wait (`PQisBusy`).
    pub fn is_busy(&mut self) -> bool {
        // SAFETY: the connection is alive.
        unsafe { pq_sys::PQisBusy(self.raw.as_ptr()) == 1 }
    }

    /// The next result (`PQgetResult`); `None` at the end of a command's results. Waits while
    /// [`is_busy`](Self::is_busy). Take notifications afterwards: those that came with the result cause no
    /// readiness.
    pub fn result(&mut self) -> Option<QueryResult> {
        // SAFETY: the connection is alive; the result has no other owner.
        unsafe { QueryResult::from_raw(pq_sys::PQgetResult(self.raw.as_ptr())) }
    }

    /// `name` as a quoted identifier (`PQescapeIdentifier`).
    pub fn escape_identifier(&mut self, name: &[u8]) -> Result<CString> {
        // SAFETY: the connection is alive; the bytes are valid for the length given.
        let escaped = unsafe {
            pq_sys::PQescapeIdentifier(self.raw.as_ptr(), name.as_ptr().cast::<c_char>(), name.len())
        };
        self.take_escaped(escaped)
    }

    /// `value` as a quoted literal (`PQescapeLiteral`).
    pub fn escape_literal(&mut self, value: &[u8]) -> Result<CString> {
        // SAFETY: the connection is alive; the bytes are valid for the length given.
        let escaped = unsafe {
            pq_sys::PQescapeLiteral(self.raw.as_ptr(), value.as_ptr().cast::<c_char>(), value.len())
        };
        self.take_escaped(escaped)
    }

    fn take_escaped(&mut self, escaped: *mut c_char) -> Result<CString> {
        self.accepted(!escaped.is_null())?;
        // SAFETY: a C string of libpq's, copied and then freed once.
        unsafe {
            let copy = CStr::from_ptr(escaped).to_owned();
            pq_sys::PQfreemem(escaped.cast());
            Ok(copy)
        }
    }
}

fn c_string(sql: &[u8]) -> Result<CString> {
    CString::new(sql).map_err(|_| Error::new(ErrorKind::InvalidArgument, "a command holds a NUL byte"))
}
