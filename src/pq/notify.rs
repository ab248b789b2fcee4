//! One notification as libpq hands it out: a block of memory of its own, freed on drop.
#![allow(unsafe_code)]

use crate::text::Text;
use std::ffi::c_void;
use std::ptr::NonNull;

/// A `PGnotify` (manual, "Asynchronous Notification"). It does not depend on its connection.
///
/// Behind the last byte of `channel` and of `payload` lies a NUL, because they are C strings of libpq's: the
/// C interface hands them on as such, without a copy.
#[derive(Debug)]
pub struct Notify(NonNull<pq_sys::PGnotify>);

// SAFETY: the block belongs to this value alone, and libpq frees it with plain free() from any thread.
unsafe impl Send for Notify {}

impl Notify {
    /// Takes over what `PQnotifies` returned; `None` for NULL.
    ///
    /// # Safety
    ///
    /// `notify` comes from `PQnotifies` and has no other owner.
    #[inline]
    pub(super) unsafe fn from_raw(notify: *mut pq_sys::PGnotify) -> Option<Self> {
        NonNull::new(notify).map(Notify)
    }

    /// The channel's name in the encoding of the client.
    #[inline]
    pub fn channel(&self) -> &[u8] {
        self.channel_text().as_bytes()
    }

    /// The payload in the encoding of the client; empty when there is none.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        self.payload_text().as_bytes()
    }

    /// The channel's name before anybody has counted its length.
    #[inline]
    pub(crate) fn channel_text(&self) -> Text<'_> {
        // SAFETY: libpq fills `relname` with a C string that lives as long as the block.
        unsafe { Text::from_raw(self.0.as_ref().relname) }
    }

    /// The payload before anybody has counted its length.
    #[inline]
    pub(crate) fn payload_text(&self) -> Text<'_> {
        // SAFETY: libpq fills `extra` with a C string, empty or not, that lives as long as the block.
        unsafe { Text::from_raw(self.0.as_ref().extra) }
    }

    /// The PID of the server process that notified.
    #[inline]
    pub fn pid(&self) -> i32 {
        // SAFETY: the block is alive until drop.
        unsafe { self.0.as_ref() }.be_pid
    }
}

impl Drop for Notify {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the block came from libpq and is freed once, here.
        unsafe { pq_sys::PQfreemem(self.0.as_ptr().cast::<c_void>()) }
    }
}
