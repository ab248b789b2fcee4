//! Sending commands and taking their results, without blocking.
#![allow(unsafe_code)]

use super::connection::Connection;
use super::result::QueryResult;
use crate::error::{Error, ErrorKind, Result};
use std::ffi::{CStr, CString, c_char, c_int};

/// The type `text` (pg_type.dat).
const TEXT_OID: u32 = 25;

/// No command of ours has more; arrays on the stack save an allocation.
const PARAMETERS_MAX: usize = 8;

/// How the values of a result come (manual, "Formats and Format Codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As text, whatever their type.
    Text = 0,
    /// Of the types `text`, `name` and `bytea` the bytes themselves; of others what their type sends.
    Binary = 1,
}

/// Parameters as libpq takes them.
struct Parameters {
    count: c_int,
    types: [u32; PARAMETERS_MAX],
    values: [*const c_char; PARAMETERS_MAX],
    lengths: [c_int; PARAMETERS_MAX],
    /// The binary format of text is its bytes with a length: no NUL is needed at the end.
    formats: [c_int; PARAMETERS_MAX],
}

impl Parameters {
    fn of(parameters: &[&[u8]]) -> Result<Self> {
        if parameters.len() > PARAMETERS_MAX {
            return Err(Error::new(ErrorKind::InvalidArgument, "a command takes at most 8 parameters"));
        }
        let mut own = Parameters {
            count: parameters.len() as c_int,
            types: [TEXT_OID; PARAMETERS_MAX],
            values: [std::ptr::null(); PARAMETERS_MAX],
            lengths: [0; PARAMETERS_MAX],
            formats: [1; PARAMETERS_MAX],
        };
        for (i, parameter) in parameters.iter().enumerate() {
            own.values[i] = parameter.as_ptr().cast::<c_char>();
            own.lengths[i] = c_int::try_from(parameter.len())
                .map_err(|_| Error::new(ErrorKind::InvalidArgument, "a parameter is longer than 2 GB"))?;
        }
        Ok(own)
    }
}

impl Connection {
    /// Sends a string of one or more commands (`PQsendQuery`). Not in pipeline mode.
    pub fn send_query(&mut self, sql: &str) -> Result<()> {
        let sql = c_string(sql.as_bytes())?;
        // SAFETY: the connection is alive; libpq copies the string.
        self.accepted(unsafe { pq_sys::PQsendQuery(self.raw.as_ptr(), sql.as_ptr()) } == 1)
    }

    /// Sends one command with parameters of type `text` (`PQsendQueryParams`). They go as they are, without a
    /// copy of ours and without quoting.
    pub fn send_query_params(&mut self, sql: &[u8], parameters: &[&[u8]], results: Format) -> Result<()> {
        self.send_params(sql, &Parameters::of(parameters)?, results)
    }

    /// The same with parameters whose types the server infers, in their binary format: of `text` and `bytea`
    /// the bytes themselves.
    pub fn send_query_inferred(&mut self, sql: &[u8], parameters: &[&[u8]], results: Format) -> Result<()> {
        let parameters = Parameters { types: [0; PARAMETERS_MAX], ..Parameters::of(parameters)? };
        self.send_params(sql, &parameters, results)
    }

    fn send_params(&mut self, sql: &[u8], parameters: &Parameters, results: Format) -> Result<()> {
        let sql = c_string(sql)?;
        // SAFETY: the connection is alive; all arrays have at least `count` entries and outlive the call,
        // which copies.
        let sent = unsafe {
            pq_sys::PQsendQueryParams(
                self.raw.as_ptr(),
                sql.as_ptr(),
                parameters.count,
                parameters.types.as_ptr(),
                parameters.values.as_ptr(),
                parameters.lengths.as_ptr(),
                parameters.formats.as_ptr(),
                results as c_int,
            )
        };
        self.accepted(sent == 1)
    }

    /// Sends one command with parameters whose types the server infers (`PQsendQueryParams`). They go as
    /// text; `None` is NULL.
    pub fn send_query_untyped(
        &mut self,
        sql: &[u8],
        parameters: &[Option<&CStr>],
        results: Format,
    ) -> Result<()> {
        let sql = c_string(sql)?;
        let values: Vec<*const c_char> =
            parameters.iter().map(|value| value.map_or(std::ptr::null(), CStr::as_ptr)).collect();
        let count = c_int::try_from(values.len())
            .map_err(|_| Error::new(ErrorKind::InvalidArgument, "a command has too many parameters"))?;
        // SAFETY: the connection is alive; the values are `count` C strings or NULL, and outlive the call,
        // which copies. Without types they are inferred, without lengths and formats they are text.
        let sent = unsafe {
            pq_sys::PQsendQueryParams(
                self.raw.as_ptr(),
                sql.as_ptr(),
                count,
                std::ptr::null(),
                values.as_ptr(),
                std::ptr::null(),
                std::ptr::null(),
                results as c_int,
            )
        };
        self.accepted(sent == 1)
    }

    /// Sends a command to be run later, by its name, with parameters of type `text` (`PQsendPrepare`).
    pub fn send_prepare(&mut self, name: &CStr, sql: &[u8], parameters: usize) -> Result<()> {
        let sql = c_string(sql)?;
        let types = [TEXT_OID; PARAMETERS_MAX];
        let count = parameters.min(PARAMETERS_MAX) as c_int;
        // SAFETY: the connection is alive; the array has at least `count` entries, and all of it is copied.
        let sent = unsafe {
            let (raw, types) = (self.raw.as_ptr(), types.as_ptr());
            pq_sys::PQsendPrepare(raw, name.as_ptr(), sql.as_ptr(), count, types)
        };
        self.accepted(sent == 1)
    }

    /// Runs a command that was prepared (`PQsendQueryPrepared`).
    pub fn send_query_prepared(&mut self, name: &CStr, parameters: &[&[u8]], results: Format) -> Result<()> {
        let parameters = Parameters::of(parameters)?;
        // SAFETY: the connection is alive; all arrays have at least `count` entries and outlive the call,
        // which copies.
        let sent = unsafe {
            pq_sys::PQsendQueryPrepared(
                self.raw.as_ptr(),
                name.as_ptr(),
                parameters.count,
                parameters.values.as_ptr(),
                parameters.lengths.as_ptr(),
                parameters.formats.as_ptr(),
                results as c_int,
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
}

fn c_string(sql: &[u8]) -> Result<CString> {
    CString::new(sql).map_err(|_| Error::new(ErrorKind::InvalidArgument, "a command holds a NUL byte"))
}
