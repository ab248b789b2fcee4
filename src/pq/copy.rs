//! The COPY protocol: what comes in one message after another, and what is sent in between (manual,
//! "Functions Associated with the COPY Command").
#![allow(unsafe_code)]

use super::connection::{Connection, late};
use crate::error::Result;
use std::ffi::{c_char, c_int};
use std::ops::Deref;
use std::ptr::NonNull;
use std::time::Instant;

/// One message of COPY, in the memory that libpq has taken for it, and freed on drop.
#[derive(Debug)]
pub struct CopyMessage {
    bytes: NonNull<c_char>,
    length: usize,
}

// SAFETY: a message does not depend on its connection, and this value is its only owner.
unsafe impl Send for CopyMessage {}

/// What [`Connection::copy_data`] found.
#[derive(Debug)]
pub enum CopyData {
    /// The next message.
    Message(CopyMessage),
    /// None is there in full: consume more input.
    Nothing,
    /// No more come: take the result.
    End,
    /// The connection was lost, or no COPY is going on.
    Failed,
}

impl Connection {
    /// The next message of a COPY that libpq holds (`PQgetCopyData`). Never reads the socket.
    #[inline]
    pub fn copy_data(&mut self) -> CopyData {
        let mut bytes = std::ptr::null_mut();
        // SAFETY: the connection is alive; what it gives has no other owner.
        let length = unsafe { pq_sys::PQgetCopyData(self.raw.as_ptr(), &mut bytes, 1) };
        match (length, NonNull::new(bytes)) {
            (1.., Some(bytes)) => CopyData::Message(CopyMessage { bytes, length: length as usize }),
            (0, _) => CopyData::Nothing,
            (-1, _) => CopyData::End,
            _ => CopyData::Failed,
        }
    }

    /// Sends one message of COPY (`PQputCopyData`). What the socket does not take stays in libpq's buffer
    /// until the next flush.
    pub fn put_copy_data(&mut self, message: &[u8]) -> Result<()> {
        // SAFETY: the connection is alive; the bytes are valid for their length, and copied.
        let put = unsafe {
            let bytes = message.as_ptr().cast::<c_char>();
            pq_sys::PQputCopyData(self.raw.as_ptr(), bytes, message.len() as c_int)
        };
        self.accepted(put == 1)
    }

    /// Says that no more is sent (`PQputCopyEnd`).
    pub fn put_copy_end(&mut self) -> Result<()> {
        // SAFETY: the connection is alive; no message means that it is no error.
        let put = unsafe { pq_sys::PQputCopyEnd(self.raw.as_ptr(), std::ptr::null()) };
        self.accepted(put == 1)
    }

    /// Ends a COPY in both directions in good order: says that no more is sent, and takes what still comes
    /// until the server has said the same, and that the command is over: then it has freed the slot. It is an
    /// error if it has not by then.
    ///
    /// A socket that is closed with something unread is reset, and a server that is just sending finds out by
    /// that, and never reads what was said to it last.
    pub(crate) fn end_copy(&mut self, until: Instant) -> Result<()> {
        self.put_copy_end()?;
        loop {
            match self.copy_data() {
                CopyData::Message(_) => {}
                CopyData::Nothing => self.take_more(until)?,
                CopyData::End => break,
                CopyData::Failed => return self.accepted(false),
            }
        }
        while self.is_busy() {
            self.take_more(until)?;
        }
        Ok(())
    }

    fn take_more(&mut self, until: Instant) -> Result<()> {
        if Instant::now() >= until {
            return Err(late());
        }
        let is_flushed = self.flush()?;
        if !self.has_held_input()? {
            self.wait(true, !is_flushed, Some(until))?;
        }
        self.consume_input()
    }
}

impl Deref for CopyMessage {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: libpq gave that many bytes, which live until drop.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr().cast(), self.length) }
    }
}

impl Drop for CopyMessage {
    fn drop(&mut self) {
        // SAFETY: the memory came from libpq and is freed once, here.
        unsafe { pq_sys::PQfreemem(self.bytes.as_ptr().cast()) }
    }
}
