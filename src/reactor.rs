//! Readiness in, tokens out: the poll, its timer, and the waker that ends its sleep from elsewhere. Nothing else names
//! mio.
//!
//! mio tells an edge once. Whoever stops reading before the socket is empty must [`watch`](Reactor::watch) it again:
//! the poller then looks at the socket afresh and tells of it at the next harvest. So leftover readiness is kept in
//! the kernel, and never in a flag of ours.

use crate::pq::Connection;
use crate::sys::Timer;
use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const WAKER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

/// How many sockets one harvest takes; the others come with the next.
const HARVEST_EVENTS_MAX: usize = 256;

/// A libpq connection can be registered with any mio poll. Register it anew after each step of connecting.
impl Source for Connection {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&open_socket(self)?).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&open_socket(self)?).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&open_socket(self)?).deregister(registry)
    }
}

fn open_socket(connection: &Connection) -> io::Result<RawFd> {
    connection.socket().ok_or_else(|| io::ErrorKind::NotConnected.into())
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitFor {
    Reading,
    Writing,
    Both,
}

/// What a harvest found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// A socket can be read or written. `closed`: the peer will send nothing more than what is there.
    Socket { index: usize, closed: bool },
    /// The timer fired.
    Timer,
    /// Somebody woke us.
    Waker,
}

#[derive(Debug)]
pub(crate) struct Reactor {
    poll: Poll,
    events: Events,
    timer: Timer,
    waker: Waker,
}

impl Reactor {
    pub(crate) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = Timer::new()?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let waker = Waker(Arc::new(Shared {
            asked: AtomicBool::new(false),
            waker: mio::Waker::new(poll.registry(), WAKER)?,
        }));
        Ok(Reactor { poll, events: Events::with_capacity(HARVEST_EVENTS_MAX), timer, waker })
    }

    /// Watches a connection's socket, whether it is known here or not, and looks at it afresh.
    pub(crate) fn watch(&self, connection: &mut Connection, index: usize, wait_for: WaitFor) -> io::Result<()> {
        let interest = match wait_for {
            WaitFor::Reading => Interest::READABLE,
            WaitFor::Writing => Interest::WRITABLE,
            WaitFor::Both => Interest::READABLE | Interest::WRITABLE,
        };
        let (registry, token) = (self.poll.registry(), Token(index));
        // libpq may have closed the socket that was registered and opened another under the same number.
        match connection.reregister(registry, token, interest) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                connection.register(registry, token, interest)
            }
            result => result,
        }
    }

    /// Waits until something is ready, at most for `timeout`, and takes what is.
    pub(crate) fn harvest(&mut self, timeout: Option<Duration>) -> io::Result<impl Iterator<Item = Ready>> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            result => result?,
        }
        Ok(self.events.iter().map(|event| match event.token() {
            WAKER => Ready::Waker,
            TIMER => Ready::Timer,
            Token(index) => Ready::Socket { index, closed: event.is_read_closed() || event.is_error() },
        }))
    }

    /// Sets the one timer, to fire once.
    pub(crate) fn set_timer(&self, delay: Option<Duration>) -> io::Result<()> {
        self.timer.set(delay)
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Makes the descriptor readable, so that a host which watches it calls `next`.
    pub(crate) fn nudge(&self) -> io::Result<()> {
        self.waker.0.waker.wake()
    }
}

impl AsRawFd for Reactor {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

/// Ends a waiting [`EventLoop::next`](crate::EventLoop::next) from another thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    asked: AtomicBool,
    waker: mio::Waker,
}

impl Waker {
    /// Makes the loop's current or next wait end with no event. Several calls before that count as one.
    pub fn wake(&self) -> io::Result<()> {
        // A request that was not taken yet has already made the descriptor readable.
        if self.0.asked.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.0.waker.wake().inspect_err(|_| self.0.asked.store(false, Ordering::Release))
    }

    /// Takes the request.
    pub(crate) fn take(&self) -> bool {
        self.0.asked.swap(false, Ordering::AcqRel)
    }

    /// Whether somebody besides the loop can wake it.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}
