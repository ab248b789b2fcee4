//! The bare C loop of `benches/c_libpq_epoll.c`, compiled in: what pgwake is compared with. It runs in a
//! process of its own (`listener.rs`).
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io::{Error, Result};

/// The C file has the same.
#[repr(C)]
struct Loop {
    poller: c_int,
    backend_pid: c_int,
    first: *mut c_void,
    count_max: i64,
    ends_left: i64,
    times: *mut [i64; 2],
    taken: i64,
    first_ns: i64,
    last_ns: i64,
    cpu_ns: i64,
    error: [c_char; 512],
}

unsafe extern "C" {
    fn c_loop_add(c_loop: *mut Loop, conninfo: *const c_char, listen: *const c_char) -> c_int;
    fn c_loop_run(c_loop: *mut Loop) -> c_int;
    fn c_loop_listen_again(c_loop: *mut Loop, listen: *const c_char) -> i64;
}

/// Connections in one epoll, and what the loop over them has counted. Its connections end with the process.
pub(super) struct CLoop {
    raw: Loop,
    times: Vec<[i64; 2]>,
}

impl CLoop {
    /// A loop without connections. It will end after `count_max` notifications or `ends` payloads `!`.
    pub(super) fn new(count_max: usize, ends: usize, takes_times: bool) -> Self {
        // Touched once, so that no page has to be found while it counts.
        let mut times = vec![[1, 1]; if takes_times { count_max } else { 0 }];
        let raw = Loop {
            poller: -1,
            backend_pid: 0,
            first: std::ptr::null_mut(),
            count_max: count_max as i64,
            ends_left: ends as i64,
            times: if takes_times { times.as_mut_ptr() } else { std::ptr::null_mut() },
            taken: 0,
            first_ns: 0,
            last_ns: 0,
            cpu_ns: 0,
            error: [0; 512],
        };
        CLoop { raw, times }
    }

    /// Adds a connection, which executes `listen` unless that is empty.
    pub(super) fn add(&mut self, conninfo: &str, listen: &str) -> Result<()> {
        let (conninfo, listen) = (c_string(conninfo)?, c_string(listen)?);
        // SAFETY: a struct as the C file has it, and two C strings that outlive the call.
        let done = unsafe { c_loop_add(&mut self.raw, conninfo.as_ptr(), listen.as_ptr()) };
        if done == 0 { Ok(()) } else { Err(self.error()) }
    }

    /// Runs until it has counted what it was made for.
    pub(super) fn run(&mut self) -> Result<()> {
        // SAFETY: a struct as the C file has it; `times` has as many entries as its `count_max` says.
        let done = unsafe { c_loop_run(&mut self.raw) };
        if done == 0 { Ok(()) } else { Err(self.error()) }
    }

    /// Waits until the only connection is lost, and listens again. Gives the nanoseconds in between.
    pub(super) fn listen_again(&mut self, listen: &str) -> Result<i64> {
        let listen = c_string(listen)?;
        // SAFETY: a struct as the C file has it, with a connection, and a C string that outlives the call.
        let took_ns = unsafe { c_loop_listen_again(&mut self.raw, listen.as_ptr()) };
        if took_ns >= 0 { Ok(took_ns) } else { Err(self.error()) }
    }

    /// The PID of the server's process for the first connection.
    pub(super) fn backend_pid(&self) -> i32 {
        self.raw.backend_pid
    }

    /// What it has counted: notifications, the time of the first and of the last, the CPU used.
    pub(super) fn counted(&self) -> (u64, i64, i64, i64) {
        (self.raw.taken.cast_unsigned(), self.raw.first_ns, self.raw.last_ns, self.raw.cpu_ns)
    }

    /// Of each notification what its payload says, and when it was taken.
    pub(super) fn times(&self) -> &[[i64; 2]] {
        &self.times[..self.times.len().min(self.raw.taken as usize)]
    }

    fn error(&self) -> Error {
        // SAFETY: the C file ends the text with NUL within the array.
        let text = unsafe { CStr::from_ptr(self.raw.error.as_ptr()) };
        Error::other(text.to_string_lossy().lines().map(str::trim).collect::<Vec<_>>().join(" "))
    }
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::other("a NUL byte has no place in a conninfo or a command"))
}
