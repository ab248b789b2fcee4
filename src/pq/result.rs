//! The result of one query, freed on drop.
#![allow(unsafe_code)]

use super::connection::loss_sqlstate;
use super::notice;
use crate::error::{Error, ErrorKind};
use std::ffi::{CStr, c_int};
use std::ptr::NonNull;

/// What kind of result it is (manual, `PQresultStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResultStatus {
    /// A command without rows succeeded, or the query was empty.
    Done,
    /// A query that may return rows succeeded.
    Rows,
    /// What follows is COPY, from the server (`PGRES_COPY_OUT`).
    CopyOut,
    /// COPY, to the server, is what it waits for (`PGRES_COPY_IN`).
    CopyIn,
    /// What follows is COPY in both directions: replication (`PGRES_COPY_BOTH`).
    CopyBoth,
    /// All that was sent before a synchronisation point of the pipeline has been answered.
    PipelineSync,
    /// An earlier command of the same part of the pipeline failed, and this one was skipped.
    PipelineAborted,
    /// The server refused the command, or the connection was lost: see [`QueryResult::error`].
    Failed,
}

/// A `PGresult`.
#[derive(Debug)]
pub struct QueryResult(NonNull<pq_sys::PGresult>);

// SAFETY: a result does not depend on its connection, and this value is its only owner.
unsafe impl Send for QueryResult {}

impl QueryResult {
    /// Takes over what `PQgetResult` returned; `None` for NULL.
    ///
    /// # Safety
    ///
    /// `result` comes from libpq and has no other owner.
    pub(super) unsafe fn from_raw(result: *mut pq_sys::PGresult) -> Option<Self> {
        NonNull::new(result).map(QueryResult)
    }

    /// What kind of result it is.
    pub fn status(&self) -> ResultStatus {
        // SAFETY: the result is alive until drop.
        match unsafe { pq_sys::PQresultStatus(self.0.as_ptr()) } {
            pq_sys::ExecStatusType::PGRES_COMMAND_OK | pq_sys::ExecStatusType::PGRES_EMPTY_QUERY => {
                ResultStatus::Done
            }
            pq_sys::ExecStatusType::PGRES_TUPLES_OK | pq_sys::ExecStatusType::PGRES_SINGLE_TUPLE => {
                ResultStatus::Rows
            }
            pq_sys::ExecStatusType::PGRES_COPY_OUT => ResultStatus::CopyOut,
            pq_sys::ExecStatusType::PGRES_COPY_IN => ResultStatus::CopyIn,
            pq_sys::ExecStatusType::PGRES_COPY_BOTH => ResultStatus::CopyBoth,
            pq_sys::ExecStatusType::PGRES_PIPELINE_SYNC => ResultStatus::PipelineSync,
            pq_sys::ExecStatusType::PGRES_PIPELINE_ABORTED => ResultStatus::PipelineAborted,
            _ => ResultStatus::Failed,
        }
    }

    /// The server's answer as an error. Only meaningful for [`ResultStatus::Failed`].
    pub fn error(&self) -> Error {
        // SAFETY: the result is alive until drop.
        let notice = unsafe { notice::from_result(self.0.as_ptr()) };
        // What has no code comes from libpq: the connection was lost in the middle.
        let sqlstate = notice.sqlstate.unwrap_or_else(|| loss_sqlstate(&notice.message));
        Error::new(ErrorKind::Server, notice.message).with_sqlstate(Some(sqlstate))
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        // SAFETY: the result is alive until drop.
        unsafe { pq_sys::PQntuples(self.0.as_ptr()) as usize }
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        // SAFETY: the result is alive until drop.
        unsafe { pq_sys::PQnfields(self.0.as_ptr()) as usize }
    }

    /// A column's name, in the encoding of the client; `None` for one that is not there.
    pub fn column_name(&self, column: usize) -> Option<&[u8]> {
        if column >= self.columns() {
            return None;
        }
        // SAFETY: the index is within bounds; the name is a C string that lives as long as the result.
        unsafe { Some(CStr::from_ptr(pq_sys::PQfname(self.0.as_ptr(), column as c_int)).to_bytes()) }
    }

    /// The OID of a column's type; of a domain, of the type below it. 0 for a column that is not there.
    pub fn column_type(&self, column: usize) -> u32 {
        let column = c_int::try_from(column).unwrap_or(c_int::MAX);
        // SAFETY: the result is alive until drop; libpq looks after the bounds.
        unsafe { pq_sys::PQftype(self.0.as_ptr(), column) }
    }

    /// A value in the format that was asked for; `None` for NULL and for what is not there. Behind it lies a
    /// NUL in either format.
    pub fn value(&self, row: usize, column: usize) -> Option<&[u8]> {
        let result = self.0.as_ptr();
        if row >= self.rows() || column >= self.columns() {
            return None;
        }
        let (row, column) = (row as c_int, column as c_int);
        // SAFETY: both indexes are within bounds; the value has that many bytes, and lives as long as the
        // result.
        unsafe {
            if pq_sys::PQgetisnull(result, row, column) == 1 {
                return None;
            }
            let length = pq_sys::PQgetlength(result, row, column) as usize;
            Some(std::slice::from_raw_parts(pq_sys::PQgetvalue(result, row, column).cast(), length))
        }
    }
}

impl Drop for QueryResult {
    fn drop(&mut self) {
        // SAFETY: the result came from libpq and is freed once, here.
        unsafe { pq_sys::PQclear(self.0.as_ptr()) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Rows as a server would give them, for tests of those who read them.
    pub(crate) fn rows<const N: usize>(rows: &[[Option<&str>; N]]) -> QueryResult {
        let column = pq_sys::pgresAttDesc {
            name: c"column".as_ptr().cast_mut(),
            tableid: 0,
            columnid: 0,
            format: 1,
            typid: 25,
            typlen: -1,
            atttypmod: -1,
        };
        let mut columns = [column; N];
        // SAFETY: a result without a connection; libpq copies the names of the columns and the values, which
        // have the lengths that are given.
        unsafe {
            let status = pq_sys::ExecStatusType::PGRES_TUPLES_OK;
            let raw = pq_sys::PQmakeEmptyPGresult(std::ptr::null_mut(), status);
            let result = QueryResult::from_raw(raw).expect("there is memory");
            assert_eq!(pq_sys::PQsetResultAttrs(raw, N as c_int, columns.as_mut_ptr()), 1);
            for (row, values) in rows.iter().enumerate() {
                for (column, value) in values.iter().enumerate() {
                    let text = value.map_or(std::ptr::null_mut(), |value| value.as_ptr().cast_mut().cast());
                    let length = value.map_or(-1, |value| value.len() as c_int);
                    assert_eq!(pq_sys::PQsetvalue(raw, row as c_int, column as c_int, text, length), 1);
                }
            }
            result
        }
    }

    #[test]
    fn a_value_is_there_or_null_or_out_of_bounds() {
        let result = rows(&[[Some("a"), None], [Some(""), Some("\u{1}")]]);
        assert_eq!((result.status(), result.rows(), result.columns()), (ResultStatus::Rows, 2, 2));
        assert_eq!((result.value(0, 0), result.value(0, 1)), (Some(&b"a"[..]), None));
        assert_eq!((result.value(1, 0), result.value(1, 1)), (Some(&b""[..]), Some(&[1][..])));
        assert_eq!((result.value(2, 0), result.value(0, 2)), (None, None));
        assert_eq!((result.column_name(1), result.column_name(2)), (Some(&b"column"[..]), None));
        assert_eq!((result.column_type(1), result.column_type(2)), (25, 0));
    }
}
