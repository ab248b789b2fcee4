//! One connection: made without blocking, read without blocking, closed on drop.
#![allow(unsafe_code)]

use super::connect_error::{connect_sqlstate, read_connect_error};
use super::conninfo::Conninfo;
use super::notice::{self, Notice, Notices};
use super::notify::Notify;
use super::text::text;
use super::version::version_numbers;
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::sys;
use std::ffi::c_void;
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

/// A `PGconn`.
#[derive(Debug)]
pub struct Connection {
    pub(super) raw: NonNull<pq_sys::PGconn>,
    /// From a box, freed on drop. A bare pointer, because libpq holds it, too.
    notices: NonNull<Notices>,
    /// The process it belongs to, as `sys::watch_forks` has it.
    forks: u32,
    encrypted: bool,
    /// TLS before 1.3: to read on it may have to write, and libpq does not come back before it has
    /// (`pgtls_read`, fe-secure-openssl.c).
    pub(super) may_renegotiate: bool,
    /// TLS or GSSAPI may keep from libpq what it took out of the kernel; see `has_held_input`.
    may_hold: bool,
    /// The socket's count of received bytes at a moment when the kernel held none; see `has_held_input`.
    quiet_at: Option<u64>,
}

// SAFETY: libpq lets any thread use a connection, one at a time (manual, "Behavior in Threaded Programs"),
// and nothing here takes `&self` where libpq changes the connection.
unsafe impl Send for Connection {}

/// What [`Connection::poll_connect`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polling {
    /// Call it again when the socket is readable.
    Reading,
    /// Call it again when the socket is writable.
    Writing,
    /// The connection is made.
    Ready,
    /// It failed: see [`Connection::connect_error`].
    Failed,
}

/// Whether a connection works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It does.
    Ok,
    /// It does not, and never will again.
    Bad,
    /// It is being made.
    Connecting,
}

impl Connection {
    /// Starts to connect (`PQconnectStartParams`). Host names are looked up within this call.
    pub fn start(conninfo: &Conninfo) -> Result<Self> {
        let (keywords, values) = conninfo.as_arrays();
        // SAFETY: two arrays of C strings of the same length that end with NULL and outlive the call.
        let raw = unsafe { pq_sys::PQconnectStartParams(keywords.as_ptr(), values.as_ptr(), 0) };
        let raw = NonNull::new(raw)
            .ok_or_else(|| Error::new(ErrorKind::System, "libpq could not allocate a connection"))?;
        let notices = NonNull::from(Box::leak(Box::<Notices>::default()));
        // SAFETY: the connection is alive; the box keeps its address as long as the connection lives.
        unsafe {
            let argument = notices.as_ptr().cast::<c_void>();
            pq_sys::PQsetNoticeReceiver(raw.as_ptr(), Some(notice::receive), argument);
            // Without this a connect error has no SQLSTATE, and its text depends on the server's language.
            pq_sys::PQsetErrorVerbosity(raw.as_ptr(), pq_sys::PGVerbosity::PQERRORS_VERBOSE);
        }
        let forks = sys::watch_forks();
        let connection = Connection {
            raw,
            notices,
            forks,
            encrypted: false,
            may_renegotiate: false,
            may_hold: false,
            quiet_at: None,
        };
        match connection.status() {
            Status::Bad => Err(connection.connect_error()),
            _ => Ok(connection),
        }
    }

    /// Connects and waits until that is done, as a tool or a test may; no longer than `connect_timeout` says
    /// for all hosts together.
    pub fn connect(conninfo: &Conninfo) -> Result<Self> {
        let Some(timeout) = conninfo.with_defaults().connect_timeout() else {
            return Self::connect_until(conninfo, None);
        };
        Self::connect_until(conninfo, Instant::now().checked_add(timeout))
    }

    /// The same, but no longer than that.
    pub(crate) fn connect_until(conninfo: &Conninfo, until: Option<Instant>) -> Result<Self> {
        let mut connection = Connection::start(conninfo)?;
        let mut polling = Polling::Writing;
        loop {
            match polling {
                Polling::Ready => return Ok(connection),
                Polling::Failed => return Err(connection.connect_error()),
                Polling::Reading => connection.wait(true, false, until)?,
                Polling::Writing => connection.wait(false, true, until)?,
            }
            polling = connection.poll_connect();
        }
    }

    /// Waits until the socket can be read or written, or fails when the time is over.
    pub(crate) fn wait(&self, read: bool, write: bool, until: Option<Instant>) -> Result<()> {
        let Some(socket) = self.socket() else { return Err(self.connect_error()) };
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        if sys::wait_for(socket, read, write, timeout)? { Ok(()) } else { Err(late()) }
    }

    /// Waits until the socket can be read, or also written, and no longer than that; for a tool or a test
    /// that polls nothing else.
    pub fn wait_ready(&self, write: bool, timeout: Duration) -> Result<()> {
        match self.socket() {
            Some(socket) => Ok(sys::wait_for(socket, true, write, Some(timeout)).map(drop)?),
            None => Ok(()),
        }
    }

    /// Takes the next step of connecting (`PQconnectPoll`); never waits. The socket may be another one
    /// afterwards, even under the same number, so it must be registered anew after each step.
    pub fn poll_connect(&mut self) -> Polling {
        // SAFETY: the connection is alive.
        match unsafe { pq_sys::PQconnectPoll(self.raw.as_ptr()) } {
            pq_sys::PostgresPollingStatusType::PGRES_POLLING_OK => {
                // SAFETY: the connection is alive.
                self.encrypted = unsafe {
                    pq_sys::PQsslInUse(self.raw.as_ptr()) != 0
                        || pq_sys::PQgssEncInUse(self.raw.as_ptr()) != 0
                };
                self.may_renegotiate = self.encrypted && self.is_tls_before_1_3();
                self.may_hold = self.encrypted && !takes_all(version_numbers());
                Polling::Ready
            }
            pq_sys::PostgresPollingStatusType::PGRES_POLLING_READING => Polling::Reading,
            pq_sys::PostgresPollingStatusType::PGRES_POLLING_WRITING => Polling::Writing,
            _ => Polling::Failed,
        }
    }

    /// Whether the connection works. Look after every `consume_input`: after some fatal errors that still
    /// succeeds.
    #[inline]
    pub fn status(&self) -> Status {
        // SAFETY: the connection is alive.
        match unsafe { pq_sys::PQstatus(self.raw.as_ptr()) } {
            pq_sys::ConnStatusType::CONNECTION_OK => Status::Ok,
            pq_sys::ConnStatusType::CONNECTION_BAD => Status::Bad,
            _ => Status::Connecting,
        }
    }

    /// The socket, or `None` once libpq has closed it.
    pub fn socket(&self) -> Option<RawFd> {
        // SAFETY: the connection is alive.
        let socket = unsafe { pq_sys::PQsocket(self.raw.as_ptr()) };
        (socket >= 0).then_some(socket)
    }

    /// Makes queries and flushes return instead of waiting for the socket (`PQsetnonblocking`).
    pub fn set_nonblocking(&mut self) -> Result<()> {
        // SAFETY: the connection is alive.
        self.accepted(unsafe { pq_sys::PQsetnonblocking(self.raw.as_ptr(), 1) } == 0)
    }

    /// Reads what the socket holds, up to some kilobytes, and sends what is still to be sent
    /// (`PQconsumeInput`).
    ///
    /// That it succeeds says neither that something came nor that nothing is left.
    #[inline]
    pub fn consume_input(&mut self) -> Result<()> {
        if self.read_input() && self.status() == Status::Ok { Ok(()) } else { Err(self.loss()) }
    }

    /// The same for a caller that looks at the status later; `false` for a failure.
    #[inline(always)]
    pub(crate) fn read_input(&mut self) -> bool {
        // SAFETY: the connection is alive.
        unsafe { pq_sys::PQconsumeInput(self.raw.as_ptr()) == 1 }
    }

    /// Takes the next notification that libpq holds (`PQnotifies`). Never reads the socket.
    #[inline]
    pub fn notifies(&mut self) -> Option<Notify> {
        // SAFETY: the connection is alive; the notification has no other owner.
        unsafe { Notify::from_raw(pq_sys::PQnotifies(self.raw.as_ptr())) }
    }

    /// Whether input may be left that no further edge would tell of: for a poll that reports edges, as mio
    /// does. Ask when [`notifies`](Self::notifies) has given all it had; on `true`, consume once more.
    pub fn has_unread_input(&mut self) -> Result<bool> {
        Ok(self.has_kernel_input()? || self.has_held_input()?)
    }

    /// Whether the kernel holds input for us (`FIONREAD`).
    pub(crate) fn has_kernel_input(&self) -> io::Result<bool> {
        Ok(self.socket().map_or(Ok(0), sys::bytes_unread)? > 0)
    }

    /// Whether an encrypted connection may hold bytes that were taken out of the kernel and not yet handed to
    /// libpq, of which no poll can tell. Older libpq reads one TLS record a call, and not always all of it; a
    /// libpq that `takes_all` never leaves any.
    ///
    /// The answer is `false` when the kernel has more, for then a poll tells, and when nothing has arrived
    /// since a moment at which the kernel was empty, and libpq has consumed once more since that moment: it
    /// asks for 8 KB at least (`pqReadData`, fe-misc.c), which is as much as the first read of a record of 16
    /// KB can leave behind.
    #[inline(always)]
    pub(crate) fn has_held_input(&mut self) -> io::Result<bool> {
        if self.may_hold { self.has_held_tls_input() } else { Ok(false) }
    }

    #[cold]
    fn has_held_tls_input(&mut self) -> io::Result<bool> {
        let Some(socket) = self.socket() else { return Ok(false) };
        // In this order: what arrives between the two is found by the second.
        let received = Some(sys::tcp_bytes_received(socket)?);
        if sys::bytes_unread(socket)? > 0 {
            return Ok(false);
        }
        let is_quiet = self.quiet_at == received;
        self.quiet_at = received;
        Ok(!is_quiet)
    }

    /// Sends what libpq still holds (`PQflush`); `false` when some of it is left, and the socket must be
    /// watched for reading and for writing.
    pub fn flush(&mut self) -> Result<bool> {
        // SAFETY: the connection is alive.
        match unsafe { pq_sys::PQflush(self.raw.as_ptr()) } {
            0 => Ok(true),
            1 => Ok(false),
            _ => Err(self.loss()),
        }
    }

    /// Whether this process made it, and not one of which it is a fork.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.forks == sys::forks()
    }

    /// The PID of the server's process (`PQbackendPID`). It changes with each connection.
    pub fn backend_pid(&self) -> i32 {
        // SAFETY: the connection is alive.
        unsafe { pq_sys::PQbackendPID(self.raw.as_ptr()) }
    }

    /// A setting that the server reports by itself, such as `server_encoding` (`PQparameterStatus`).
    pub fn parameter(&self, name: &std::ffi::CStr) -> String {
        // SAFETY: the connection is alive, the value is copied before anything else is called.
        unsafe { text(pq_sys::PQparameterStatus(self.raw.as_ptr(), name.as_ptr())) }
    }

    /// The server's version, such as `15.18`, without what distributors put behind it.
    pub fn server_version(&self) -> String {
        let version = self.parameter(c"server_version");
        version.split(' ').next().unwrap_or_default().to_string()
    }

    /// The database's name (`PQdb`).
    pub fn database(&self) -> String {
        // SAFETY: the connection is alive, the value is copied.
        unsafe { text(pq_sys::PQdb(self.raw.as_ptr())) }
    }

    /// The host that was reached (`PQhost`): a name, an address, or a socket's directory.
    pub fn host(&self) -> String {
        // SAFETY: the connection is alive, the value is copied.
        unsafe { text(pq_sys::PQhost(self.raw.as_ptr())) }
    }

    /// The address and the port that are being tried or were reached (`PQhostaddr`, `PQport`); of a unix
    /// socket the directory instead of an address.
    pub fn address(&self) -> (String, String) {
        // SAFETY: the connection is alive, the values are copied.
        let (address, port) =
            unsafe { (text(pq_sys::PQhostaddr(self.raw.as_ptr())), text(pq_sys::PQport(self.raw.as_ptr()))) };
        (if address.is_empty() { self.host() } else { address }, port)
    }

    /// Whether the connection is encrypted, by TLS or GSSAPI.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Takes the last message by which the server ended the connection. It comes as a notice, not as a
    /// result.
    pub fn take_fatal_notice(&mut self) -> Option<Notice> {
        // SAFETY: the box is alive until drop, and libpq writes to it only within calls that borrow `self` as
        // this does.
        unsafe { self.notices.as_mut() }.fatal.take()
    }

    /// Why connecting failed, in one line. libpq has the SQLSTATE in its text only.
    pub fn connect_error(&self) -> Error {
        let text = self.message();
        let (mut message, sqlstate) = read_connect_error(&text);
        if message.is_empty() {
            // libpq passes this over, in case another address does better (`PQconnectPoll`, fe-connect.c).
            message = "no socket could be made: too many files may be open (ulimit -n)".into();
        }
        let sqlstate = sqlstate.unwrap_or_else(|| match self.lacks_password() {
            true => SqlState::INVALID_PASSWORD,
            false => connect_sqlstate(&text),
        });
        Error::new(ErrorKind::Connection, message).with_sqlstate(Some(sqlstate))
    }

    /// Whether a connect that failed did so because of what the server said about us, and not because of what
    /// libpq found.
    pub(crate) fn has_answered(&self) -> bool {
        self.lacks_password() || read_connect_error(&self.message()).1.is_some()
    }

    /// The server asks for a password, and there is none (`PQconnectionNeedsPassword`).
    fn lacks_password(&self) -> bool {
        // SAFETY: the connection is alive.
        unsafe { pq_sys::PQconnectionNeedsPassword(self.raw.as_ptr()) == 1 }
    }

    /// Why the connection was lost: what the server said, or else what libpq found.
    #[cold]
    pub(crate) fn loss(&mut self) -> Error {
        if let Some(notice) = self.take_fatal_notice() {
            return Error::new(ErrorKind::Connection, notice.message).with_sqlstate(notice.sqlstate);
        }
        let message = self.message();
        let message = message.lines().next().unwrap_or_default().trim();
        let message = if message.is_empty() { "the server closed the connection" } else { message };
        Error::new(ErrorKind::Connection, message).with_sqlstate(Some(loss_sqlstate(message)))
    }

    /// libpq's text about the last failure.
    fn message(&self) -> String {
        // SAFETY: the connection is alive, the text is copied.
        unsafe { text(pq_sys::PQerrorMessage(self.raw.as_ptr())) }
    }

    /// Turns libpq's "no" into an error with its text.
    pub(super) fn accepted(&mut self, accepted: bool) -> Result<()> {
        if accepted {
            Ok(())
        } else if self.status() == Status::Ok {
            let message = self.message();
            Err(Error::new(ErrorKind::InvalidArgument, message.lines().next().unwrap_or_default().trim()))
        } else {
            Err(self.loss())
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.is_of_this_process() {
            // In a forked child: PQfinish would say goodbye to the server in the name of the parent. Its
            // memory stays.
            return self.socket().map_or((), sys::close);
        }
        // SAFETY: the connection is alive and finished once, here; the notices it points to are dropped after
        // it.
        unsafe {
            pq_sys::PQfinish(self.raw.as_ptr());
            drop(Box::from_raw(self.notices.as_ptr()));
        }
    }
}

/// Whether a libpq of this version takes out of TLS or GSSAPI, with each read, all that was taken out of the
/// kernel (`pqDrainPending`, fe-misc.c): since the releases of November 2026.
fn takes_all((major, minor): (i32, i32)) -> bool {
    /// The first minor version that does, of 15 and those after it.
    const SINCE: [i32; 5] = [20, 16, 12, 6, 1];
    let Ok(branch) = usize::try_from(major - 15) else { return false };
    minor >= SINCE.get(branch).copied().unwrap_or(0)
}

/// Somebody waited for the server for as long as may be.
pub(super) fn late() -> Error {
    let message = "the server did not answer in time";
    Error::new(ErrorKind::Connection, message).with_sqlstate(Some(SqlState::CONNECTION_NOT_MADE))
}

/// The code for a loss that only libpq speaks of: its words are all there is (`handleSyncLoss`,
/// fe-protocol3.c).
pub(super) fn loss_sqlstate(message: &str) -> SqlState {
    match message.starts_with("lost synchronization") {
        true => SqlState::PROTOCOL_VIOLATION,
        false => SqlState::CONNECTION_LOST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_libpq_takes_all_since_the_release_that_does() {
        for takes in [(15, 20), (15, 21), (16, 16), (17, 12), (18, 6), (19, 1), (20, 0)] {
            assert!(takes_all(takes), "{takes:?}");
        }
        for leaves in [(9, 600), (14, 99), (15, 19), (16, 15), (17, 11), (18, 5), (19, 0)] {
            assert!(!takes_all(leaves), "{leaves:?}");
        }
    }
}
