//! The few system calls that neither std nor mio has: a timer as a descriptor, what a socket still holds,
//! readiness by level; and random numbers.
#![allow(unsafe_code)]

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A descriptor for as long as its owner is there.
pub(crate) fn borrow(owner: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the owner keeps it open, and is borrowed as long.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// How many bytes were read or written.
fn count(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A random number: the hash of nothing under fresh random keys.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// How many forks lie between the first process that asked and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Counts the forks that make further processes of this one from now on (pthread_atfork(3)), and says how
/// many made it: a connection belongs to the process that made it.
pub(crate) fn watch_forks() -> u32 {
    static WATCH: Once = Once::new();
    extern "C" fn count_in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: the handler is a plain function that does nothing but change an atomic.
    WATCH.call_once(|| unsafe {
        libc::pthread_atfork(None, None, Some(count_in_child));
    });
    forks()
}

/// How many forks made this process since they are watched: one load, so that each call can afford to look.
#[inline]
pub(crate) fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Starts a thread on which no signal is handled: a host's handlers run on threads of the host's.
pub(crate) fn spawn_without_signals(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut all = std::mem::MaybeUninit::uninit();
    let mut before = std::mem::MaybeUninit::uninit();
    // SAFETY: both sets outlive the calls, and the first is filled before it is read. The new thread inherits
    // the mask; ours is put back below.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let spawned = std::thread::Builder::new().name(name.into()).spawn(run);
    // SAFETY: the set was filled by the call above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    spawned.map(|_| ())
}

/// Closes a descriptor of this process.
pub(crate) fn close(fd: RawFd) {
    // SAFETY: the caller owns it; at worst the call says that it is not open.
    unsafe { libc::close(fd) };
}

/// The number of bytes that wait in the kernel to be read from `socket` (`FIONREAD`, ioctl_tty(2), unix(7),
/// tcp(7)).
pub(crate) fn bytes_unread(socket: RawFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int through the pointer, which outlives the call; a bad descriptor is an
    // error.
    check(unsafe { libc::ioctl(socket, libc::FIONREAD, &mut bytes) })?;
    Ok(bytes.max(0) as usize)
}

/// Waits until `socket` can be read or written (poll(2)); `false` when the time is over.
pub(crate) fn wait_for(
    socket: RawFd,
    read: bool,
    write: bool,
    timeout: Option<Duration>,
) -> io::Result<bool> {
    match poll(socket, read, write, timeout) {
        // Whoever waits looks again.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
        ready => ready,
    }
}

/// Whether the kernel takes what is written to `socket`: a third of its buffer is free then at least
/// (tcp_poll, unix_poll).
#[inline(never)]
pub(crate) fn has_room(socket: RawFd) -> bool {
    // A signal is told only where nothing else is.
    poll(socket, false, true, Some(Duration::ZERO)).unwrap_or(false)
}

#[inline(never)]
fn poll(socket: RawFd, read: bool, write: bool, timeout: Option<Duration>) -> io::Result<bool> {
    let read = if read { libc::POLLIN } else { 0 };
    let write = if write { libc::POLLOUT } else { 0 };
    let mut waiting = libc::pollfd { fd: socket, events: read | write, revents: 0 };
    let timeout_ms = timeout.map_or(-1, |timeout| timeout.as_millis().min(i32::MAX as u128) as libc::c_int);
    // SAFETY: one pollfd that outlives the call.
    Ok(check(unsafe { libc::poll(&mut waiting, 1, timeout_ms) })? > 0)
}

/// The number of bytes that a TCP socket has received in its life (`TCP_INFO`, tcp(7)).
pub(crate) fn tcp_bytes_received(socket: RawFd) -> io::Result<u64> {
    /// `tcpi_bytes_received` of `struct tcp_info` (linux/tcp.h since 4.1), as an index of u64.
    const BYTES_RECEIVED: usize = 128 / 8;
    let mut info = [0u64; 32];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `info`, and any bytes are a valid array of u64.
    check(unsafe {
        libc::getsockopt(
            socket,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast::<libc::c_void>(),
            &mut length,
        )
    })?;
    Ok(info[BYTES_RECEIVED])
}

/// Watches `socket` for reading, for writing, or both, by level: whatever is left unread is told again at the
/// next wait (epoll_ctl(2) without `EPOLLET`). Takes a socket that `epoll` knows and one that it does not.
pub(crate) fn register_by_level(
    epoll: RawFd,
    socket: RawFd,
    key: u64,
    read: bool,
    write: bool,
) -> io::Result<()> {
    let read = if read { libc::EPOLLIN | libc::EPOLLRDHUP } else { 0 };
    let write = if write { libc::EPOLLOUT } else { 0 };
    let mut event = libc::epoll_event { events: (read | write) as u32, u64: key };
    // SAFETY: the kernel reads `event`, which outlives the call; bad descriptors are errors.
    let mut control = |operation| check(unsafe { libc::epoll_ctl(epoll, operation, socket, &mut event) });
    // Whether it is known cannot be remembered: libpq may have closed the socket and opened one of the same
    // number.
    match control(libc::EPOLL_CTL_MOD) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => control(libc::EPOLL_CTL_ADD)?,
        result => result?,
    };
    Ok(())
}

/// For the time of one call of libpq's, a pair of sockets stands in the place of a connection's socket, and
/// holds a copy of no more than some of what has come: who reads until nothing is left comes to an end,
/// however fast more arrives. What was read is then taken out of the real socket; what was not stays there.
/// What is written meanwhile is sent on afterwards.
#[derive(Debug)]
pub(crate) struct BoundedRead {
    socket: RawFd,
    network: OwnedFd,
    near: UnixStream,
    /// The far end of the pair, by its inode: libpq may close it, and open another socket of the same number.
    far_inode: u64,
    offered: usize,
    is_filled: bool,
}

/// What may be written while a [`BoundedRead`] stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    /// The few bytes of a handshake: there is room for them.
    Handshake,
    /// As much as comes: the writer is told when there is no room, as on the real socket.
    Queue,
}

impl BoundedRead {
    /// About a TLS record, and little enough for any stack.
    pub(crate) const BYTES_MAX: usize = 17 << 10;

    /// Stands in for `socket`, with so many bytes; `None` at the end of its stream. Nothing is lost when this
    /// fails.
    #[inline(never)]
    pub(crate) fn begin(socket: RawFd, bytes_max: usize, writes: Writes) -> io::Result<Option<Self>> {
        let mut bytes = [0u8; Self::BYTES_MAX];
        let (flags, most) = (libc::MSG_DONTWAIT | libc::MSG_PEEK, bytes_max.min(Self::BYTES_MAX));
        // SAFETY: the kernel writes at most `most` bytes into the buffer, which has no fewer.
        let peeked = unsafe { libc::recv(socket, bytes.as_mut_ptr().cast(), most, flags) };
        let peeked = match count(peeked) {
            Ok(0) => return Ok(None),
            // TLS may hold some all the same.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            peeked => peeked?,
        };
        let (mut near, mut far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        let offered = if peeked == 0 { 0 } else { near.write(&bytes[..peeked])? };
        if writes == Writes::Queue {
            // Less than the room that there is, unless somebody made the real socket's buffer tiny.
            limit_send_buffer(&far, Self::BYTES_MAX / 2)?;
        }
        let is_filled = writes == Writes::Queue && !has_room(socket);
        if is_filled {
            // What fills the pair is never read.
            let full = loop {
                if let Err(error) = far.write(&bytes) {
                    break error;
                }
            };
            if full.kind() != io::ErrorKind::WouldBlock {
                return Err(full);
            }
        }
        // SAFETY: the caller's socket is open during this call.
        let network = unsafe { BorrowedFd::borrow_raw(socket) }.try_clone_to_owned()?;
        let far_inode = inode(far.as_raw_fd())?;
        // SAFETY: two open descriptors; the real socket lives on in `network`.
        check(unsafe { libc::dup3(far.as_raw_fd(), socket, libc::O_CLOEXEC) })?;
        Ok(Some(BoundedRead { socket, network, near, far_inode, offered, is_filled }))
    }

    /// Gives the socket its place back. Says how many bytes were read meanwhile.
    #[inline(never)]
    pub(crate) fn end(mut self) -> io::Result<usize> {
        // libpq may have closed it. What it said last is sent all the same, and nothing is left unread, which
        // would end the stream with a reset.
        let is_in_place = inode(self.socket).ok() == Some(self.far_inode);
        let unread = if is_in_place { bytes_unread(self.socket)? } else { 0 };
        // Before the far end is closed: what it has not read makes that an error here.
        let mut written = Vec::new();
        if !self.is_filled
            && let Err(error) = self.near.read_to_end(&mut written)
            && !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionReset)
        {
            return Err(error);
        }
        let network = self.network.as_raw_fd();
        if is_in_place {
            // SAFETY: two open descriptors.
            check(unsafe { libc::dup3(network, self.socket, libc::O_CLOEXEC) })?;
        }
        let read = self.offered.saturating_sub(unread);
        let (mut bytes, mut left) = ([0u8; Self::BYTES_MAX], read);
        while left > 0 {
            // SAFETY: the kernel writes at most `left` bytes into the buffer.
            let taken = unsafe { libc::recv(network, bytes.as_mut_ptr().cast(), left, libc::MSG_DONTWAIT) };
            match count(taken)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                taken => left -= taken,
            }
        }
        if written.is_empty() {
            return Ok(read);
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the kernel reads `len` bytes of the buffer.
        let sent = unsafe { libc::send(network, written.as_ptr().cast(), written.len(), flags) };
        match count(sent) {
            Ok(sent) if sent == written.len() => Ok(read),
            Ok(_) => Err(io::Error::other("there was too little room for what had to be sent at once")),
            // Whoever reads on finds that the peer is gone, behind all that has come.
            Err(error) => match error.raw_os_error() {
                Some(libc::EPIPE | libc::ECONNRESET | libc::ETIMEDOUT) => Ok(read),
                _ => Err(error),
            },
        }
    }
}

/// Lets a socket hold no more than about twice as many bytes that were written (socket(7)).
fn limit_send_buffer(socket: &UnixStream, bytes: usize) -> io::Result<()> {
    let bytes = bytes as libc::c_int;
    let length = size_of_val(&bytes) as libc::socklen_t;
    let (fd, value) = (socket.as_raw_fd(), (&raw const bytes).cast());
    // SAFETY: the kernel reads `length` bytes of an integer that outlives the call.
    check(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, value, length) })?;
    Ok(())
}

/// The number that tells one open socket from another (fstat(2)).
fn inode(fd: RawFd) -> io::Result<u64> {
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel fills the struct, which outlives the call; it is read only if it was filled.
    unsafe {
        check(libc::fstat(fd, status.as_mut_ptr()))?;
        Ok(status.assume_init().st_ino)
    }
}

fn timer_on(clock: libc::clockid_t) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked.
    let fd = check(unsafe { libc::timerfd_create(clock, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) })?;
    // SAFETY: the descriptor was made just now and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The timer fires once, at that time.
fn set_timer(timer: &OwnedFd, flags: libc::c_int, at: libc::timespec) -> io::Result<()> {
    let once = libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
    // SAFETY: `once` outlives the call, and the old value is not asked for.
    check(unsafe { libc::timerfd_settime(timer.as_raw_fd(), flags, &once, std::ptr::null_mut()) })?;
    Ok(())
}

/// A timer that makes a descriptor readable (timerfd_create(2)), so that one poll carries sockets and times.
#[derive(Debug)]
pub(crate) struct Timer(OwnedFd);

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        timer_on(libc::CLOCK_MONOTONIC).map(Timer)
    }

    /// Fires once after `delay`; `None` disarms. Setting it also takes back an expiry that nobody has seen.
    pub(crate) fn set(&self, delay: Option<Duration>) -> io::Result<()> {
        // A time of zero would disarm: the shortest delay is a nanosecond.
        let delay = delay.map_or(Duration::ZERO, |d| d.max(Duration::from_nanos(1)));
        let tv_sec = delay.as_secs().min(i32::MAX as u64) as libc::time_t;
        set_timer(&self.0, 0, libc::timespec { tv_sec, tv_nsec: delay.subsec_nanos().into() })
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A descriptor that becomes readable when the wall clock is set, by hand or by a time service, or jumps
/// because the machine slept: a timer that never fires, and is cancelled then (timerfd_create(2),
/// `TFD_TIMER_CANCEL_ON_SET`).
#[derive(Debug)]
pub(crate) struct ClockWatch(OwnedFd);

impl ClockWatch {
    pub(crate) fn new() -> io::Result<Self> {
        let watch = ClockWatch(timer_on(libc::CLOCK_REALTIME)?);
        watch.watch()?;
        Ok(watch)
    }

    /// Watches, from now on, and forgets what was before.
    pub(crate) fn watch(&self) -> io::Result<()> {
        /// In 2255; the kernel counts nanoseconds up to 2262.
        const NEVER_S: libc::time_t = 9_000_000_000;
        let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
        match set_timer(&self.0, flags, libc::timespec { tv_sec: NEVER_S, tv_nsec: 0 }) {
            // It was set between the last look and this call, which is told once.
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => Ok(()),
            result => result,
        }
    }
}

impl AsRawFd for ClockWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_socket_tells_what_it_holds() {
        let (mut near, far) = UnixStream::pair().unwrap();
        assert_eq!(bytes_unread(far.as_raw_fd()).unwrap(), 0);
        near.write_all(b"12345").unwrap();
        assert_eq!(bytes_unread(far.as_raw_fd()).unwrap(), 5);
        assert!(bytes_unread(-1).is_err());
    }

    #[test]
    fn a_tcp_socket_counts_what_it_received() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let before = tcp_bytes_received(far.as_raw_fd()).unwrap();
        near.write_all(&[7; 1000]).unwrap();
        far.read_exact(&mut [0; 1000]).unwrap();
        assert_eq!(tcp_bytes_received(far.as_raw_fd()).unwrap() - before, 1000);
    }

    #[test]
    fn a_bounded_read_comes_to_an_end_and_nothing_is_lost_around_it() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let mut read = [0; 16];
        near.write_all(b"first").unwrap();
        for (size, expected) in [(2, &b"fi"[..]), (16, b"rst"), (16, b"second")] {
            let bounded =
                BoundedRead::begin(far.as_raw_fd(), BoundedRead::BYTES_MAX, Writes::Queue).unwrap().unwrap();
            near.write_all(if size == 2 { b"second" } else { b"" }).unwrap();
            // Only the first read finds what came before it, and no more; the next ones find the rest.
            let count = far.read(&mut read[..size.min(expected.len())]).unwrap();
            assert_eq!(&read[..count], expected);
            assert_eq!(bounded.end().unwrap(), count);
        }
        // Dropping it would not do while a test beside this one forks.
        near.shutdown(std::net::Shutdown::Both).unwrap();
        assert!(
            BoundedRead::begin(far.as_raw_fd(), BoundedRead::BYTES_MAX, Writes::Queue).unwrap().is_none()
        );
    }

    #[test]
    fn what_is_written_during_a_bounded_read_is_sent_if_there_is_room() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let (mut read, mut written) = ([0; 64 << 10], 0);
        let bounded =
            BoundedRead::begin(far.as_raw_fd(), BoundedRead::BYTES_MAX, Writes::Queue).unwrap().unwrap();
        assert_eq!(far.read(&mut read).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        while let Ok(bytes) = far.write(&[7; 4096]) {
            written += bytes;
        }
        assert!((8 << 10..=2 * BoundedRead::BYTES_MAX).contains(&written), "{written}");
        assert_eq!(bounded.end().unwrap(), 0);
        assert_eq!(near.read(&mut read).unwrap(), written);

        // A handshake has more room than that, and a writer that waits for it waits in vain.
        let bounded =
            BoundedRead::begin(far.as_raw_fd(), BoundedRead::BYTES_MAX, Writes::Handshake).unwrap().unwrap();
        far.write_all(&read).unwrap();
        assert_eq!(bounded.end().unwrap(), 0);
        near.read_exact(&mut read).unwrap();

        while far.write(&[7; 1000]).is_ok() {}
        near.write_all(b"more").unwrap();
        let bounded =
            BoundedRead::begin(far.as_raw_fd(), BoundedRead::BYTES_MAX, Writes::Queue).unwrap().unwrap();
        assert_eq!(far.write(b"x").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(far.read(&mut read).unwrap(), 4);
        assert_eq!(bounded.end().unwrap(), 4);

        // Who is gone takes nothing more, and that is found by reading on.
        while near.read(&mut read).is_ok() {}
        near.write_all(b"last").unwrap();
        let bounded =
            BoundedRead::begin(far.as_raw_fd(), BoundedRead::BYTES_MAX, Writes::Queue).unwrap().unwrap();
        far.write_all(b"x").unwrap();
        near.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(bounded.end().unwrap(), 0);
        assert_eq!(far.read(&mut read).unwrap(), 4);
        assert_eq!(far.read(&mut read).unwrap(), 0);
    }

    #[test]
    fn a_thread_of_ours_handles_no_signal_and_the_callers_mask_stays() {
        let mask = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            status.lines().find(|line| line.starts_with("SigBlk")).unwrap().to_string()
        };
        let before = mask();
        let (sender, receiver) = std::sync::mpsc::channel();
        spawn_without_signals("quiet", move || sender.send(mask()).unwrap()).unwrap();
        let on_thread = receiver.recv().unwrap();
        assert_eq!(mask(), before);
        let blocked = u64::from_str_radix(on_thread.split_whitespace().last().unwrap(), 16).unwrap();
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGCHLD, libc::SIGPIPE, libc::SIGUSR1] {
            assert_ne!(blocked & 1 << (signal - 1), 0, "{signal}: {on_thread}");
        }
    }

    #[test]
    fn a_timer_fires_once_and_can_be_taken_back() {
        let timer = Timer::new().unwrap();
        let mut expiries = [0u8; 8];
        let mut read = || (&std::fs::File::from(timer.0.try_clone().unwrap())).read(&mut expiries);
        timer.set(Some(Duration::ZERO)).unwrap();
        while read().is_err() {}
        assert_eq!(read().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        timer.set(Some(Duration::ZERO)).unwrap();
        timer.set(None).unwrap();
        assert_eq!(read().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_clock_that_nobody_sets_is_quiet() {
        let watch = ClockWatch::new().unwrap();
        let is_quiet = || !wait_for(watch.as_raw_fd(), true, false, Some(Duration::from_millis(20))).unwrap();
        assert!(is_quiet());
        watch.watch().unwrap();
        assert!(is_quiet());
    }
}
