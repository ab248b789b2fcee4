//! Readiness in, tokens out: the poll, its timer, and the waker that ends its sleep from elsewhere. Nothing
//! else names mio.
//!
//! mio registers by edge: readiness is reported once, so a reader must read until nothing is left, and must
//! ask the kernel whether that is so after each wake-up. Sockets are therefore put into mio's epoll instance
//! by level: what is left is reported again, no question is asked, and no leftover is ever kept in a flag.
//! That is one system call of three saved for each notification that comes alone (10 % of its CPU). The
//! waker and the timer are edges, as mio has them.

use crate::pq::Connection;
use crate::sys::{ClockWatch, Timer, register_by_level};
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
const CLOCK: Token = Token(usize::MAX - 2);

/// How many sockets one poll takes; the others come with the next.
const POLL_EVENTS_MAX: usize = 256;

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

/// What a poll found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// A socket can be read or written.
    Socket(usize),
    /// The timer fired.
    Timer,
    /// Somebody woke us.
    Waker,
    /// The wall clock was set.
    Clock,
}

#[derive(Debug)]
pub(crate) struct Reactor {
    poll: Poll,
    events: Events,
    timer: Timer,
    /// There once somebody asked for the time of day.
    clock: Option<ClockWatch>,
    waker: Waker,
}

impl Reactor {
    pub(crate) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = Timer::new()?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let nudge = Nudge(Arc::new(mio::Waker::new(poll.registry(), WAKER)?));
        let waker = Waker(Arc::new(Shared { asked: AtomicBool::new(false), nudge }));
        Ok(Reactor { poll, events: Events::with_capacity(POLL_EVENTS_MAX), timer, clock: None, waker })
    }

    /// Registers a connection's socket, known here or not. Needed after each step of connecting.
    pub(crate) fn register(
        &self,
        connection: &Connection,
        index: usize,
        wait_for: WaitFor,
    ) -> io::Result<()> {
        let (read, write) = (wait_for != WaitFor::Writing, wait_for != WaitFor::Reading);
        register_by_level(self.poll.as_raw_fd(), open_socket(connection)?, index as u64, read, write)
    }

    /// Waits until something is ready, at most for `timeout`, and takes what is.
    #[inline(always)]
    pub(crate) fn poll(&mut self, timeout: Option<Duration>) -> io::Result<impl Iterator<Item = Ready>> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            result => result?,
        }
        Ok(self.events.iter().map(|event| match event.token() {
            WAKER => Ready::Waker,
            TIMER => Ready::Timer,
            CLOCK => Ready::Clock,
            Token(index) => Ready::Socket(index),
        }))
    }

    /// Sets the one timer, to fire once.
    pub(crate) fn set_timer(&self, delay: Option<Duration>) -> io::Result<()> {
        self.timer.set(delay)
    }

    /// Tells from now on when the wall clock is set. Where the system cannot, nobody is told.
    pub(crate) fn watch_clock(&mut self) -> io::Result<()> {
        match &self.clock {
            Some(clock) => clock.watch(),
            None => {
                let clock = match ClockWatch::new() {
                    Err(error) => {
                        log::warn!(
                            "when the clock is set, schedules notice at the next due time only: {error}"
                        );
                        return Ok(());
                    }
                    Ok(clock) => self.clock.insert(clock),
                };
                self.poll.registry().register(&mut SourceFd(&clock.as_raw_fd()), CLOCK, Interest::READABLE)
            }
        }
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    pub(crate) fn nudge(&self) -> &Nudge {
        &self.waker.0.nudge
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
    nudge: Nudge,
}

/// Makes the descriptor readable, so that the loop, or a host that watches it, takes a turn.
#[derive(Debug, Clone)]
pub(crate) struct Nudge(Arc<mio::Waker>);

impl Nudge {
    pub(crate) fn nudge(&self) -> io::Result<()> {
        self.0.wake()
    }
}

impl Waker {
    /// Makes the loop's current or next wait end with no event. Several calls before that count as one.
    pub fn wake(&self) -> io::Result<()> {
        // Before the other, so that it is there for who is woken by that. The descriptor is made readable
        // also for a request that was not taken yet: a host that watches it by edge has seen that edge, and
        // may have taken an event since, for which nobody looked at the request.
        self.0.asked.store(true, Ordering::Release);
        self.0.nudge.nudge().inspect_err(|_| self.0.asked.store(false, Ordering::Release))
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
