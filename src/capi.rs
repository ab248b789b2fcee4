//! The C interface: a client of the crate's public names. Calls of a C host flow in, statuses and flat events
//! flow out. `ffi/include/pgwake.h` is its manual, and says what each function takes and gives. Only for
//! `next` it uses the two halves of the public one, which is 4 % fewer instructions in a flood, and it counts
//! the bytes itself.
//!
//! No export lets a panic out, and none trusts an argument further than C allows it to be checked: NULL, a
//! closed handle, an unknown session, text that is not UTF-8 and structs of other versions are answered with
//! a status.
#![allow(unsafe_code)]

mod event;
mod given;
mod handle;
mod log;
mod metrics;
mod options;
#[cfg(feature = "capi-test")]
mod panic;
mod poll;
mod schedule;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod texts;
mod watch;

use crate::{Event, EventLoopOptions, SessionOptions};
use event::FlatEvent;
use given::{bytes, invalid, session_id, text, texts, utf8};
use handle::Handle;
use log::LogFn;
use metrics::FlatMetrics;
use options::{CLoopOptions, CSessionOptions};
use std::ffi::{CString, c_char, c_int, c_void};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::time::Duration;
use stream::CStreamOptions;
use watch::{CDdlOptions, CWatchOptions};

/// Counts changes of the interface that an older program would not survive.
const ABI_VERSION: u32 = 1;

/// There is no deadline that the descriptor does not tell of by itself.
const TIMEOUT_NONE: c_int = -1;

/// Makes a handle, usable or not; NULL when there is no memory for one.
///
/// # Safety
///
/// `options` is NULL or points to as many bytes as its first field says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_new(options: *const CLoopOptions) -> *mut Handle {
    handle::open(|| {
        // SAFETY: as the caller promises.
        let options: EventLoopOptions = unsafe { options::read(options) }?.try_into()?;
        crate::EventLoop::with_options(options)
    })
}

/// Ends all sessions of a handle. NULL and a handle that is closed already are left alone.
///
/// # Safety
///
/// `handle` is NULL or comes from [`pgwake_new`], and no other thread uses it but for [`pgwake_wake`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_close(handle: *mut Handle) {
    // SAFETY: as the caller promises.
    unsafe { handle::close(handle) }
}

/// The descriptor to watch for reading.
///
/// # Safety
///
/// As for [`pgwake_close`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_fd(handle: *const Handle) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, |inside| Ok(inside.events()?.as_raw_fd())) }
}

/// How long a host may wait that cannot watch a timer: for ever, because timers are in the descriptor.
///
/// # Safety
///
/// As for [`pgwake_close`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_timeout_ms(handle: *const Handle) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, |_| Ok(TIMEOUT_NONE)) }
}

/// The next event: 1 with one, 0 without.
///
/// # Safety
///
/// As for [`pgwake_close`], and `event` is NULL or points to a pointer.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_next(
    handle: *mut Handle,
    timeout_ms: c_int,
    event: *mut *const FlatEvent,
) -> c_int {
    if !event.is_null() {
        // SAFETY: as the caller promises.
        unsafe { event.write(std::ptr::null()) };
    }
    let next = |inside: &mut handle::Inside| {
        if event.is_null() {
            return Err(invalid("pgwake_next has no place for the event: its third argument is NULL"));
        }
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        let (events, delivered) = inside.parts()?;
        if let Some(n) = events.next_of_stream(timeout) {
            let (session, bytes) = (n.session, delivered.deliver_notification(&n));
            events.add_bytes(session, bytes);
        } else {
            match &events.next_of_any()? {
                Some(Event::Notification(n)) => {
                    let (session, bytes) = (n.session, delivered.deliver_notification(n));
                    events.add_bytes(session, bytes);
                }
                Some(event) => delivered.deliver(event),
                None => return Ok(0),
            }
        }
        // SAFETY: as the caller promises. The event lives in the handle.
        unsafe { event.write(delivered.flat()) };
        Ok(1)
    };
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, next) }
}

/// Ends a waiting `pgwake_next`, from any thread and from a signal's handler.
///
/// # Safety
///
/// `handle` is NULL or comes from [`pgwake_new`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_wake(handle: *const Handle) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { handle::wake(handle) }
}

/// Adds a session; its number, which is never negative.
///
/// # Safety
///
/// As for [`pgwake_close`]; `conninfo` is NULL or a C string, `options` NULL or as long as its first field
/// says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_connect(
    handle: *mut Handle,
    conninfo: *const c_char,
    options: *const CSessionOptions,
) -> c_int {
    let connect = |inside: &mut handle::Inside| {
        // SAFETY: as the caller promises.
        let (conninfo, options) = unsafe { (utf8(conninfo, "conninfo")?, options::read(options)?) };
        let options: SessionOptions = options.try_into()?;
        let session = inside.events()?.connect_with(conninfo, options)?;
        Ok(event::session_number(session))
    };
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, connect) }
}

/// Ends a session.
///
/// # Safety
///
/// As for [`pgwake_close`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_disconnect(handle: *mut Handle, session: c_int) -> c_int {
    let disconnect = |inside: &mut handle::Inside| {
        let (events, delivered) = inside.parts()?;
        events.disconnect(session_id(session))?;
        // What the event pointed to is gone.
        delivered.clear();
        Ok(status::OK)
    };
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, disconnect) }
}

/// Listens on a channel.
///
/// # Safety
///
/// As for [`pgwake_close`]; `channel` is NULL or a C string.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_listen(
    handle: *mut Handle,
    session: c_int,
    channel: *const c_char,
) -> c_int {
    let listen = |inside: &mut handle::Inside| {
        // SAFETY: as the caller promises.
        let channel = unsafe { text(channel, "channel") }?;
        inside.events()?.listen(session_id(session), channel).map(|()| status::OK)
    };
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, listen) }
}

/// Stops listening on a channel.
///
/// # Safety
///
/// As for [`pgwake_listen`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_unlisten(
    handle: *mut Handle,
    session: c_int,
    channel: *const c_char,
) -> c_int {
    let unlisten = |inside: &mut handle::Inside| {
        // SAFETY: as the caller promises.
        let channel = unsafe { text(channel, "channel") }?;
        inside.events()?.unlisten(session_id(session), channel).map(|()| status::OK)
    };
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, unlisten) }
}

/// Queues a notification.
///
/// # Safety
///
/// As for [`pgwake_listen`]; `payload` is NULL or points to `len` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_notify(
    handle: *mut Handle,
    session: c_int,
    channel: *const c_char,
    payload: *const c_void,
    len: usize,
) -> c_int {
    let notify = |inside: &mut handle::Inside| {
        // SAFETY: as the caller promises.
        let (channel, payload) = unsafe { (text(channel, "channel")?, bytes(payload, len, "payload")?) };
        inside.events()?.notify(session_id(session), channel, payload).map(|()| status::OK)
    };
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, notify) }
}

/// Queues a durable message.
///
/// # Safety
///
/// As for [`pgwake_notify`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_publish(
    handle: *mut Handle,
    session: c_int,
    channel: *const c_char,
    payload: *const c_void,
    len: usize,
) -> c_int {
    let publish = |inside: &mut handle::Inside| {
        // SAFETY: as the caller promises.
        let (channel, payload) = unsafe { (text(channel, "channel")?, bytes(payload, len, "payload")?) };
        inside.events()?.publish(session_id(session), channel, payload).map(|()| status::OK)
    };
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, publish) }
}

/// Watches tables.
///
/// # Safety
///
/// As for [`pgwake_close`]; `tables` is NULL or a list of C strings that ends with NULL, as are those in
/// `options`, which is NULL or as long as its first field says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_watch(
    handle: *mut Handle,
    session: c_int,
    tables: *const *const c_char,
    options: *const CWatchOptions,
) -> c_int {
    let watch = |inside: &mut handle::Inside| {
        // SAFETY: as the caller promises.
        let options = unsafe { watch::tables(tables, options) }?;
        inside.events()?.watch_with(session_id(session), options).map(|()| status::OK)
    };
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, watch) }
}

/// Hears of DDL.
///
/// # Safety
///
/// As for [`pgwake_close`]; `options` is NULL or as long as its first field says, and the list in it is NULL
/// or one of C strings that ends with NULL.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_watch_ddl(
    handle: *mut Handle,
    session: c_int,
    options: *const CDdlOptions,
) -> c_int {
    let watch = |inside: &mut handle::Inside| {
        // SAFETY: as the caller promises.
        let options = unsafe { watch::ddl(options) }?;
        inside.events()?.watch_ddl(session_id(session), options).map(|()| status::OK)
    };
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, watch) }
}

/// Adds a session that streams row changes from the log; its number, which is never negative.
///
/// # Safety
///
/// As for [`pgwake_close`]; `conninfo` is NULL or a C string, `options` NULL or as long as its first field
/// says, the lists in it are NULL or of C strings that end with NULL.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_stream(
    handle: *mut Handle,
    conninfo: *const c_char,
    options: *const CStreamOptions,
) -> c_int {
    let stream = |inside: &mut handle::Inside| {
        // SAFETY: as the caller promises.
        let (conninfo, options) = unsafe { (utf8(conninfo, "conninfo")?, stream::stream(options)?) };
        let session = inside.events()?.stream(conninfo, options)?;
        Ok(event::session_number(session))
    };
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, stream) }
}

/// Adds a session that takes durable messages from the log; its number, which is never negative.
///
/// # Safety
///
/// As for [`pgwake_stream`]; `channels` is NULL or a list of C strings that ends with NULL.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_subscribe(
    handle: *mut Handle,
    conninfo: *const c_char,
    channels: *const *const c_char,
    options: *const CStreamOptions,
) -> c_int {
    let subscribe = |inside: &mut handle::Inside| {
        // SAFETY: as the caller promises.
        let (conninfo, channels, options) =
            unsafe { (utf8(conninfo, "conninfo")?, texts(channels, "channels")?, stream::stream(options)?) };
        let session = inside.events()?.subscribe(conninfo, channels, options)?;
        Ok(event::session_number(session))
    };
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, subscribe) }
}

/// Acknowledges what was delivered up to a change, rows or a message.
///
/// # Safety
///
/// As for [`pgwake_close`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_ack(handle: *mut Handle, session: c_int, id: u64) -> c_int {
    let ack =
        |inside: &mut handle::Inside| inside.events()?.ack(session_id(session), id).map(|()| status::OK);
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, ack) }
}

/// What a session has done so far.
///
/// # Safety
///
/// As for [`pgwake_close`]; `metrics` is NULL or points to as many bytes as its first field says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_metrics_get(
    handle: *const Handle,
    session: c_int,
    metrics: *mut FlatMetrics,
) -> c_int {
    let get = |inside: &mut handle::Inside| {
        let own = inside.events()?.metrics(session_id(session))?.into();
        // SAFETY: as the caller promises.
        unsafe { metrics::fill(metrics, &own) }.map(|()| status::OK)
    };
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, get) }
}

/// The text of the last failure; empty when there was none.
///
/// # Safety
///
/// As for [`pgwake_close`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_error(handle: *const Handle) -> *const c_char {
    // SAFETY: as the caller promises.
    unsafe { handle::last_error(handle) }
}

/// The name of a status as the header has it.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn pgwake_status_name(status: c_int) -> *const c_char {
    status::name(status).as_ptr()
}

/// Sets the function that takes log messages, for all handles.
///
/// # Safety
///
/// `write` is NULL or can be called with `user` from any thread until it is replaced.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_set_log(write: Option<LogFn>, user: *mut c_void, level: c_int) {
    handle::guard_static(|| log::set(write, user, level));
}

/// The version of the interface.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn pgwake_abi_version() -> u32 {
    ABI_VERSION
}

/// The library's version, such as `0.1.0`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn pgwake_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The version of the libpq inside, such as `18.6`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn pgwake_libpq_version() -> *const c_char {
    static VERSION: OnceLock<CString> = OnceLock::new();
    let version = VERSION.get_or_init(|| CString::new(crate::pq::version()).unwrap_or_default());
    version.as_ptr()
}
