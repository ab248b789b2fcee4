//! The thin layer over libpq: ownership by `Drop`, lifetimes instead of copies, no policy. Nothing else names
//! `PQ*`.
//!
//! Most programs want [`EventLoop`](crate::EventLoop). This layer is for those who own a mio loop and want
//! the three steps of every LISTEN program bare: wait until the socket is readable, consume, drain.
//!
//! # Draining readiness
//!
//! mio reports an edge: readiness is told once, and not again for what was left unread. libpq's
//! `PQconsumeInput` makes one `recv` of some kilobytes at most. One call per wake-up therefore loses
//! wake-ups: of a burst of 300 notifications of 4 KB it delivers 4 and hangs. So consume and take
//! notifications until [`has_unread_input`](Connection::has_unread_input) says that nothing is left, and,
//! when mio says that the peer has closed, until the connection is no longer [`Status::Ok`].
//!
//! ```no_run
//! use mio::{Events, Interest, Poll, Token};
//! use pgwake::pq::{Conninfo, Connection, Polling, Status};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut poll = Poll::new()?;
//!     let mut connection = Connection::start(&Conninfo::parse("dbname=app")?)?;
//!     // For brevity this waits by sleeping; a real program registers the socket anew after each step.
//!     while connection.poll_connect() != Polling::Ready {
//!         if connection.status() == Status::Bad {
//!             return Err(connection.connect_error().into());
//!         }
//!         std::thread::sleep(std::time::Duration::from_millis(1));
//!     }
//!     connection.set_nonblocking()?;
//!     connection.send_query("LISTEN virtual")?;
//!     poll.registry().register(&mut connection, Token(0), Interest::READABLE)?;
//!
//!     let mut events = Events::with_capacity(8);
//!     loop {
//!         poll.poll(&mut events, None)?;                              // wait until it is readable
//!         let closed = events.iter().any(|event| event.is_read_closed());
//!         loop {
//!             connection.consume_input()?;                            // consume what arrived
//!             while !connection.is_busy() && connection.result().is_some() {}
//!             while let Some(notification) = connection.notifies() {  // drain
//!                 println!("{:?}: {:?}", notification.channel(), notification.payload());
//!             }
//!             if !closed && !connection.has_unread_input()? {
//!                 break;
//!             }
//!         }
//!     }
//! }
//! ```

mod bounded;
mod connect_error;
mod connection;
mod conninfo;
mod notice;
mod notify;
mod query;
mod result;

pub use connection::{Connection, Polling, Status};
pub use conninfo::Conninfo;
pub use notice::Notice;
pub use notify::Notify;
pub use query::Format;
#[cfg(test)]
pub(crate) use result::tests::rows;
pub use result::{QueryResult, ResultStatus};

/// The version of the libpq in use, as `MAJOR.MINOR`.
pub fn version() -> String {
    let (major, minor) = version_numbers();
    format!("{major}.{minor}")
}

#[allow(unsafe_code)]
fn version_numbers() -> (i32, i32) {
    // SAFETY: takes nothing and cannot fail.
    let number = unsafe { pq_sys::PQlibVersion() };
    // The build of pq-src 0.3.14 says 180600 for 18.6, which is 180006 by the manual's rule: undo that.
    let minor = number % 10_000;
    (number / 10_000, if minor >= 100 && minor % 100 == 0 { minor / 100 } else { minor })
}

/// The version of the TLS library that libpq uses, if it can be found in this process.
#[allow(unsafe_code)]
pub fn tls_version() -> Option<String> {
    type OpensslVersion = unsafe extern "C" fn(std::ffi::c_int) -> *const std::ffi::c_char;
    // SAFETY: dlsym takes a C string and gives NULL or an address; the address has the type of the function's
    // manual page (OpenSSL_version(3)), whose answer for 0 is a static C string.
    unsafe {
        let address = libc::dlsym(libc::RTLD_DEFAULT, c"OpenSSL_version".as_ptr());
        if address.is_null() {
            return None;
        }
        let openssl_version = std::mem::transmute::<*mut std::ffi::c_void, OpensslVersion>(address);
        Some(text(openssl_version(0)))
    }
}

/// The text behind a pointer that libpq owns, empty for NULL. Behind its last byte lies a NUL in any case.
///
/// # Safety
///
/// `text` is NULL or ends with a NUL and is neither changed nor freed during `'a`.
#[allow(unsafe_code)]
unsafe fn bytes<'a>(text: *const std::ffi::c_char) -> &'a [u8] {
    if text.is_null() {
        return c"".to_bytes();
    }
    // SAFETY: as the caller promises.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_bytes()
}

/// The same as text, with replacement characters for what is not UTF-8.
///
/// # Safety
///
/// As for [`bytes`].
#[allow(unsafe_code)]
unsafe fn text(text: *const std::ffi::c_char) -> String {
    // SAFETY: as the caller promises.
    String::from_utf8_lossy(unsafe { bytes(text) }).into_owned()
}
