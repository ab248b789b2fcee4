//! A proxy between a session and a real server: bytes flow in on either side and out on the other, until a
//! fault is set that does to them what networks do.
//!
//! Each connection is a link with two threads, one for each direction, which sleep in `read`. A fault takes
//! hold of live links at once, from within [`Proxy::set`]; new ones meet it when they begin.

use rustix::io::{read, retry_on_intr, write};
use rustix::net::{Shutdown, listen, shutdown, sockopt::set_socket_linger};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// Which way bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// In good order: a FIN after the last byte.
    Fin,
    /// As by a peer that knows nothing of it: a RST.
    Reset,
}

/// What happens to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: they flow.
    Nothing,
    /// They wait before they go on; what comes meanwhile waits up to as long again.
    Delay { up: Duration, down: Duration },
    /// Each way they go on in pieces of so many, with a pause after each.
    Trickle { bytes: usize, pause: Duration },
    /// Each link ends once so many have flowed in a direction; one that is past that, at once.
    Cut { direction: Direction, at: u64, ending: Ending },
    /// The kernels go on acknowledging, and everything is thrown away: such a link never speaks again.
    BlackHole,
    /// Nothing is read any more, so the kernels acknowledge until their buffers are full. Lifted, they flow.
    Stall,
    /// The server's side is closed, and the client hears nothing of it. New connections get the same silence,
    /// or are refused.
    HalfOpen { refuses: bool },
}

/// Where the proxy leads to.
#[derive(Debug, Clone)]
pub(crate) enum Upstream {
    /// A port of 127.0.0.1.
    Tcp(u16),
    /// The path of a socket.
    Unix(PathBuf),
}

/// The test's handle. When it goes, the proxy goes, with every connection and every thread.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<thread::JoinHandle<()>>,
}

struct Shared {
    upstream: Upstream,
    listener: TcpListener,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    fault: Fault,
    is_closed: bool,
    links: Vec<Weak<Link>>,
}

/// One connection. Its sockets are closed when the last thread lets go of it.
struct Link {
    client: OwnedFd,
    server: OwnedFd,
    flowed: [AtomicU64; 2],
    /// Nothing is forwarded any more, whatever happens to the fault.
    is_over: AtomicBool,
}

impl Proxy {
    pub(crate) fn new(upstream: Upstream) -> Self {
        // The second bind, to a port that is named, makes the kernel keep the port while nobody listens.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind(free).unwrap();
        let state = Mutex::new(State { fault: Fault::Nothing, is_closed: false, links: Vec::new() });
        let shared = Arc::new(Shared { upstream, listener, state, changed: Condvar::new() });
        let accepting = shared.clone();
        let acceptor = thread::spawn(move || accepting.accept());
        Proxy { port: free.port(), shared, acceptor: Some(acceptor) }
    }

    /// Its port of 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What a session needs to get to the server's superuser through the proxy.
    pub(crate) fn conninfo(&self, sslmode: &str) -> String {
        format!(
            "host=127.0.0.1 port={} user=postgres dbname=postgres sslmode={sslmode} gssencmode=disable",
            self.port
        )
    }

    /// From now on this happens, and what was before happens no more.
    pub(crate) fn set(&self, fault: Fault) {
        let mut state = self.shared.state();
        let refused = std::mem::replace(&mut state.fault, fault).refuses();
        match (refused, fault.refuses()) {
            (false, true) => shutdown(&self.shared.listener, Shutdown::Both).unwrap(),
            (true, false) => listen(&self.shared.listener, 128).unwrap(),
            _ => {}
        }
        state.links.retain(|link| link.strong_count() > 0);
        state.links.iter().filter_map(Weak::upgrade).for_each(|link| link.suffer(fault));
        self.shared.changed.notify_all();
    }

    /// How many bytes have flowed that way over the connections there are.
    pub(crate) fn flowed(&self, direction: Direction) -> u64 {
        let state = self.shared.state();
        state.links.iter().filter_map(Weak::upgrade).map(|link| link.flowed(direction)).sum()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state();
            state.is_closed = true;
            // Here and below: what the other side has closed already needs no shutting down.
            let _ = shutdown(&self.shared.listener, Shutdown::Both);
            state.links.iter().filter_map(Weak::upgrade).for_each(|link| link.close());
            self.shared.changed.notify_all();
        }
        let _ = self.acceptor.take().map(thread::JoinHandle::join);
    }
}

impl Fault {
    fn refuses(self) -> bool {
        self == Fault::HalfOpen { refuses: true }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is not so any more, or all is over.
    fn wait_while(&self, is_so: impl Fn(Fault) -> bool) -> MutexGuard<'_, State> {
        let condition = |state: &mut State| !state.is_closed && is_so(state.fault);
        self.changed.wait_while(self.state(), condition).unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self) {
        thread::scope(|scope| {
            while !self.wait_while(Fault::refuses).is_closed {
                // An error says that nobody listens now.
                let Ok((client, _)) = self.listener.accept() else { continue };
                // The server may be away; then the client finds its connection closed.
                let Ok(link) = self.link(client) else { continue };
                let upward = link.clone();
                scope.spawn(move || {
                    self.pump(&upward, Direction::Up);
                    let _ = shutdown(&upward.server, Shutdown::Both);
                });
                scope.spawn(move || {
                    self.pump(&link, Direction::Down);
                    if !link.is_over() {
                        let _ = shutdown(&link.client, Shutdown::Write);
                    }
                });
            }
        });
    }

    fn link(&self, client: TcpStream) -> io::Result<Arc<Link>> {
        client.set_nodelay(true)?;
        let server: OwnedFd = match &self.upstream {
            Upstream::Tcp(port) => {
                let server = TcpStream::connect(("127.0.0.1", *port))?;
                server.set_nodelay(true)?;
                server.into()
            }
            Upstream::Unix(path) => UnixStream::connect(path)?.into(),
        };
        let (flowed, is_over) = (Default::default(), AtomicBool::new(false));
        let link = Arc::new(Link { client: client.into(), server, flowed, is_over });
        let mut state = self.state();
        link.suffer(state.fault);
        state.links.retain(|link| link.strong_count() > 0);
        state.links.push(Arc::downgrade(&link));
        if state.is_closed {
            link.close();
        }
        Ok(link)
    }

    /// Hands on what comes, to its end. What comes over a link that is over is read all the same, so that its
    /// kernel acknowledges it.
    fn pump(&self, link: &Link, direction: Direction) {
        let from = if direction == Direction::Up { &link.client } else { &link.server };
        let mut buffer = [0; 16384];
        while let Ok(length @ 1..) = retry_on_intr(|| read(from, &mut buffer)) {
            let mut rest = &buffer[..length];
            while !rest.is_empty() && !link.is_over() {
                let fault = self.wait_while(|fault| fault == Fault::Stall).fault;
                let Ok(handed_on) = link.hand_on(rest, direction, fault) else { return };
                rest = &rest[handed_on..];
                // It may have flowed as far as it may; or another fault was set meanwhile, which could not
                // see this yet.
                link.suffer(self.state().fault);
            }
        }
    }
}

impl Link {
    fn flowed(&self, direction: Direction) -> u64 {
        self.flowed[direction as usize].load(Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    fn close(&self) {
        let _ = shutdown(&self.client, Shutdown::Both);
        let _ = shutdown(&self.server, Shutdown::Both);
    }

    /// Writes as much of it as the fault lets pass at once, and says how much that is.
    fn hand_on(&self, bytes: &[u8], direction: Direction, fault: Fault) -> io::Result<usize> {
        let (length, before, after) = match fault {
            Fault::Delay { up, down } => {
                (bytes.len(), if direction == Direction::Up { up } else { down }, Duration::ZERO)
            }
            Fault::Trickle { bytes: piece, pause } => (piece.max(1), Duration::ZERO, pause),
            Fault::Cut { direction: cut, at, .. } if cut == direction => {
                let room = at.saturating_sub(self.flowed(direction));
                (room.min(bytes.len() as u64) as usize, Duration::ZERO, Duration::ZERO)
            }
            _ => (bytes.len(), Duration::ZERO, Duration::ZERO),
        };
        thread::sleep(before);
        let to = if direction == Direction::Up { &self.server } else { &self.client };
        let mut rest = &bytes[..length.min(bytes.len())];
        let length = rest.len();
        while !rest.is_empty() {
            rest = &rest[retry_on_intr(|| write(to, rest))?..];
        }
        self.flowed[direction as usize].fetch_add(length as u64, Ordering::SeqCst);
        thread::sleep(after);
        Ok(length)
    }

    /// What the fault does to a link besides slowing it down.
    fn suffer(&self, fault: Fault) {
        let is_struck = match fault {
            Fault::Cut { direction, at, .. } => self.flowed(direction) >= at,
            Fault::BlackHole | Fault::HalfOpen { .. } => true,
            Fault::Nothing | Fault::Delay { .. } | Fault::Trickle { .. } | Fault::Stall => false,
        };
        if !is_struck || self.is_over.swap(true, Ordering::SeqCst) {
            return;
        }
        if fault != Fault::BlackHole {
            let _ = shutdown(&self.server, Shutdown::Both);
        }
        let Fault::Cut { ending, .. } = fault else { return };
        let _ = match ending {
            // What the client still says is read until it closes its side, for unread bytes would make a RST.
            Ending::Fin => shutdown(&self.client, Shutdown::Write),
            // No time to linger makes closing a RST; the thread that reads must let go of it for that.
            Ending::Reset => set_socket_linger(&self.client, Some(Duration::ZERO))
                .and_then(|()| shutdown(&self.client, Shutdown::Read)),
        };
    }
}
