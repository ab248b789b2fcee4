//! The log for C hosts: messages of the `log` crate flow in, calls of the host's function flow out.

use log::{LevelFilter, Log, Metadata, Record};
use std::cell::Cell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::{Once, PoisonError, RwLock};

/// `pgwake_log_fn`: takes a message of the level; it must neither throw nor jump out.
pub(super) type LogFn = unsafe extern "C" fn(user: *mut c_void, level: c_int, text: *const c_char);

/// The levels by number, from nothing to everything.
pub(super) const LEVELS: [LevelFilter; 6] = [
    LevelFilter::Off,
    LevelFilter::Error,
    LevelFilter::Warn,
    LevelFilter::Info,
    LevelFilter::Debug,
    LevelFilter::Trace,
];

struct Sink {
    write: LogFn,
    user: *mut c_void,
}

// SAFETY: the host promises that its function can be called with its argument from any thread.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

/// Locked for reading while the host's function runs: when a replacement returns, the old one has ended.
static SINK: RwLock<Option<Sink>> = RwLock::new(None);

thread_local! {
    /// The host's function runs on this thread: what it causes to be logged is left out, for it would never
    /// end.
    static IS_WRITING: Cell<bool> = const { Cell::new(false) };
}

struct HostLog;

impl Log for HostLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) || IS_WRITING.get() {
            return;
        }
        // While the function is being replaced, nobody takes messages.
        let Ok(sink) = SINK.try_read() else { return };
        let Some(sink) = &*sink else { return };
        let Ok(text) = CString::new(record.args().to_string().replace('\0', "?")) else { return };
        IS_WRITING.set(true);
        // SAFETY: the host promises that its function takes these from any thread until it is replaced.
        unsafe { (sink.write)(sink.user, record.level() as c_int, text.as_ptr()) };
        IS_WRITING.set(false);
    }

    fn flush(&self) {}
}

/// Replaces the function; without one, nothing is logged. From within the function itself this does nothing.
pub(super) fn set(write: Option<LogFn>, user: *mut c_void, level: c_int) {
    static INSTALL: Once = Once::new();
    if IS_WRITING.get() {
        return;
    }
    // In a Rust program that has a log of its own, that one stays.
    INSTALL.call_once(|| drop(log::set_logger(&HostLog)));
    let level = level.clamp(0, LEVELS.len() as c_int - 1) as usize;
    *SINK.write().unwrap_or_else(PoisonError::into_inner) = write.map(|write| Sink { write, user });
    log::set_max_level(if write.is_some() { LEVELS[level] } else { LevelFilter::Off });
}
