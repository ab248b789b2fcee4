//! The handle of a C host: a loop, the event delivered last, the last error's text. Calls flow in through
//! `enter`, which is also the guard: what panics comes out as a status, and the handle is dead.
//!
//! A handle's block is never given back to the allocator. It is used again, the one first that was closed
//! first, so that a closed handle can be told from one in use, and its text still be read.

use super::event::Delivered;
use super::status;
use crate::{Error, ErrorKind, EventLoop, Result, Waker, sys};
use std::alloc::Layout;
use std::cell::{Cell, UnsafeCell};
use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Mutex, Once};

/// The room for an error's text with its NUL; longer texts are cut.
const TEXT_BYTES: usize = 1024;

/// How many closed handles are kept before the first of them is used again.
const CLOSED_MAX: usize = 64;

// The states besides the negative ones: such a handle answers every call with that status.
const OPEN: i32 = 0;
const IN_USE: i32 = 1;
const CLOSED: i32 = 2;

const NULL_HANDLE: &CStr = c"the handle is NULL";
const FORKED: &str = "this handle was made before a fork: only the parent may use it, make one in the child";

/// `pgwake`. `inside` belongs to the call that has set the state to `IN_USE`; `text` to whoever uses the
/// handle, and no call holds on to it; all else is shared with [`wake`].
pub(crate) struct Handle {
    state: AtomicI32,
    /// The process it belongs to, as `sys::watch_forks` has it.
    forks: AtomicU32,
    /// How many calls of [`wake`] are looking at `waker` right now.
    wakers: AtomicU32,
    /// Changed only while the handle is closed and nobody is looking.
    waker: UnsafeCell<Option<Waker>>,
    text: UnsafeCell<[u8; TEXT_BYTES]>,
    inside: UnsafeCell<Inside>,
}

/// What only one call at a time may touch.
pub(super) struct Inside {
    events: Option<EventLoop>,
    delivered: Delivered,
}

impl Inside {
    #[inline]
    pub(super) fn events(&mut self) -> Result<&mut EventLoop> {
        Ok(self.parts()?.0)
    }

    /// The loop, and the event that points into it.
    #[inline]
    pub(super) fn parts(&mut self) -> Result<(&mut EventLoop, &mut Delivered)> {
        match &mut self.events {
            Some(events) => Ok((events, &mut self.delivered)),
            None => Err(Error::new(ErrorKind::InvalidArgument, "the handle is closed")),
        }
    }
}

/// A handle may move between threads; so must what is in it.
const _: () = {
    const fn moves_between_threads<T: Send>() {}
    moves_between_threads::<EventLoop>();
};

/// The blocks of closed handles, oldest first.
struct Closed(VecDeque<*mut Handle>);

// SAFETY: a block in this list belongs to nobody else, on whatever thread it was closed.
unsafe impl Send for Closed {}

static CLOSED_HANDLES: Mutex<Closed> = Mutex::new(Closed(VecDeque::new()));

thread_local! {
    /// What the last panic of this thread said.
    static PANIC: Cell<Option<String>> = const { Cell::new(None) };
}

/// Makes a handle around a loop, or around the error; NULL when there is no memory.
pub(super) fn open(make: impl FnOnce() -> Result<EventLoop>) -> *mut Handle {
    // In the tests, the harness wants to hear of panics.
    static LISTEN_FOR_PANICS: Once = Once::new();
    LISTEN_FOR_PANICS.call_once(|| {
        if !cfg!(test) {
            std::panic::set_hook(Box::new(|panic| PANIC.set(Some(panic.to_string()))));
        }
    });
    let raw = closed_or_new();
    if raw.is_null() {
        return raw;
    }
    // SAFETY: the block is initialized, never freed, and belongs to us alone until we give it away.
    let (handle, inside, waker) = unsafe { (&*raw, &mut *(*raw).inside.get(), &mut *(*raw).waker.get()) };
    handle.set_text("");
    handle.forks.store(sys::watch_forks(), Ordering::Relaxed);
    inside.delivered.clear();
    let state = match catch_unwind(AssertUnwindSafe(make)) {
        Ok(Ok(events)) => {
            *waker = Some(events.waker());
            inside.events = Some(events);
            OPEN
        }
        Ok(Err(error)) => handle.refuse(&error),
        Err(_) => handle.dies(),
    };
    handle.state.store(state, Ordering::Release);
    raw
}

/// The oldest block of a closed handle once there are many, or else a new one.
fn closed_or_new() -> *mut Handle {
    // As in `close`, the list may be locked for ever.
    if let Ok(mut closed) = CLOSED_HANDLES.try_lock()
        && closed.0.len() > CLOSED_MAX
        && let Some(handle) = closed.0.pop_front()
    {
        return handle;
    }
    // SAFETY: the layout is not of size zero.
    let raw = unsafe { std::alloc::alloc(Layout::new::<Handle>()) }.cast::<Handle>();
    if !raw.is_null() {
        let handle = Handle {
            state: AtomicI32::new(CLOSED),
            forks: AtomicU32::new(0),
            wakers: AtomicU32::new(0),
            waker: UnsafeCell::new(None),
            text: UnsafeCell::new([0; TEXT_BYTES]),
            inside: UnsafeCell::new(Inside { events: None, delivered: Delivered::new() }),
        };
        // SAFETY: a block of this layout, made just now.
        unsafe { raw.write(handle) };
    }
    raw
}

/// Ends a handle. Nothing else touches it afterwards but to say that it is closed.
///
/// # Safety
///
/// `handle` is NULL or comes from [`open`], and nobody else uses it but for [`wake`].
pub(super) unsafe fn close(handle: *mut Handle) {
    // SAFETY: the blocks of handles are never freed.
    let Some(shared) = (unsafe { handle.as_ref() }) else { return };
    match shared.state.load(Ordering::Relaxed) {
        CLOSED => return,
        IN_USE => {
            shared.is_not_usable();
            return;
        }
        _ => shared.state.store(CLOSED, Ordering::SeqCst),
    }
    let is_parent = !shared.is_forked();
    // Those that are waking it are done in a moment. In the child of a fork they are no more.
    while is_parent && shared.wakers.load(Ordering::SeqCst) > 0 {
        std::hint::spin_loop();
    }
    // SAFETY: nobody else uses the handle, and whoever wants to wake it from now on sees that it is closed.
    let (inside, waker) = unsafe { (&mut *shared.inside.get(), &mut *shared.waker.get()) };
    inside.delivered.clear();
    let (events, waker) = (inside.events.take(), waker.take());
    guard_static(|| drop((events, waker)));
    // In the child of a fork the list may be locked for ever by a thread that is no more.
    let closed = if is_parent { CLOSED_HANDLES.lock().ok() } else { CLOSED_HANDLES.try_lock().ok() };
    if let Some(mut closed) = closed {
        closed.0.push_back(handle);
    }
}

/// Runs a call on the inside of a handle. The one way in.
///
/// # Safety
///
/// `handle` is NULL or comes from [`open`], and no other thread uses it but for [`wake`].
#[inline]
pub(super) unsafe fn enter(handle: *const Handle, call: impl FnOnce(&mut Inside) -> Result<c_int>) -> c_int {
    // SAFETY: the blocks of handles are never freed.
    let Some(handle) = (unsafe { handle.as_ref() }) else { return status::INVALID };
    if handle.state.load(Ordering::Relaxed) != OPEN || handle.is_forked() {
        return handle.is_not_usable();
    }
    handle.state.store(IN_USE, Ordering::Relaxed);
    // SAFETY: the handle was open, and now says that it is in use: a call from within the host's log function
    // does not get here. No other thread uses it, as the caller promises.
    let inside = unsafe { &mut *handle.inside.get() };
    // An error is written down within the guard: what comes out of it fits into registers.
    let outcome = catch_unwind(AssertUnwindSafe(|| match call(inside) {
        Ok(answer) => answer,
        Err(error) => handle.refuse(&error),
    }));
    let (answer, state) = match outcome {
        Ok(answer) => (answer, OPEN),
        Err(_) => (handle.dies(), status::PANIC),
    };
    handle.state.store(state, Ordering::Relaxed);
    answer
}

/// Ends a waiting `next`. Uses atomics and one system call, so that a signal's handler may call it.
///
/// # Safety
///
/// `handle` is NULL or comes from [`open`].
pub(super) unsafe fn wake(handle: *const Handle) -> c_int {
    // SAFETY: the blocks of handles are never freed.
    let Some(handle) = (unsafe { handle.as_ref() }) else { return status::INVALID };
    if handle.is_forked() {
        return status::FORKED;
    }
    // First this, then the state: `close` does it the other way round, so one of the two sees the other.
    handle.wakers.fetch_add(1, Ordering::SeqCst);
    let answer = match handle.state.load(Ordering::SeqCst) {
        OPEN | IN_USE => {
            // SAFETY: it is changed only when the state says closed and we are not counted.
            let waker = unsafe { &*handle.waker.get() };
            match catch_unwind(AssertUnwindSafe(|| waker.as_ref().map(Waker::wake))) {
                Ok(Some(Ok(()))) => status::OK,
                Ok(Some(Err(_))) => status::SYSTEM,
                Ok(None) => status::INVALID,
                Err(_) => status::PANIC,
            }
        }
        CLOSED => status::INVALID,
        dead => dead,
    };
    handle.wakers.fetch_sub(1, Ordering::SeqCst);
    answer
}

/// The text of the last failure.
///
/// # Safety
///
/// As for [`enter`].
pub(super) unsafe fn last_error(handle: *const Handle) -> *const c_char {
    // SAFETY: the blocks of handles are never freed.
    match unsafe { handle.as_ref() } {
        Some(handle) => handle.text.get().cast::<c_char>(),
        None => NULL_HANDLE.as_ptr(),
    }
}

/// Keeps a panic from the host where there is no handle to tell it.
pub(super) fn guard_static(call: impl FnOnce()) {
    drop(catch_unwind(AssertUnwindSafe(call)));
}

fn in_use() -> Error {
    let message = "the handle is in use: it was called from its own log function, or from two threads";
    Error::new(ErrorKind::InvalidArgument, message)
}

impl Handle {
    #[inline]
    fn is_forked(&self) -> bool {
        self.forks.load(Ordering::Relaxed) != sys::forks()
    }

    /// Why a call cannot be let in.
    #[cold]
    fn is_not_usable(&self) -> c_int {
        if self.is_forked() {
            return self.refuse(&Error::new(ErrorKind::Forked, FORKED));
        }
        match self.state.load(Ordering::Relaxed) {
            CLOSED => self.refuse(&super::given::invalid("the handle is closed")),
            IN_USE => self.refuse(&in_use()),
            // The text still says why.
            dead => dead,
        }
    }

    #[cold]
    fn refuse(&self, error: &Error) -> c_int {
        self.set_text(&error.to_string());
        status::of(error)
    }

    #[cold]
    fn dies(&self) -> c_int {
        let what = PANIC.take().unwrap_or_else(|| "see standard error".to_string());
        let what = what.replace('\n', " ");
        self.set_text(&format!("a bug in pgwake: {what}; this handle is dead, close it"));
        status::PANIC
    }

    /// Puts a text into the handle's buffer, cut where a character ends.
    fn set_text(&self, text: &str) {
        let end = (0..TEXT_BYTES.min(text.len() + 1)).rev().find(|end| text.is_char_boundary(*end));
        let end = end.unwrap_or(0);
        let buffer = self.text.get().cast::<u8>();
        // SAFETY: the buffer takes `end` bytes and a NUL, and belongs to whoever uses the handle; there is no
        // reference to it.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), buffer, end);
            buffer.add(end).write(0);
        }
    }
}
