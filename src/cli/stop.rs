//! SIGINT, SIGTERM and SIGHUP end the command in good order: a thread waits for them and wakes the loop.

use super::Failure;
use pgwake::Waker;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Wakes the loop whenever a process that we started has ended.
pub(crate) fn wake_on_children(waker: Waker) -> Result<(), Failure> {
    wake_on(&[SIGCHLD], "children", waker)
}

fn wake_on(signals: &[i32], name: &str, waker: Waker) -> Result<(), Failure> {
    let mut signals = Signals::new(signals)?;
    std::thread::Builder::new().name(name.into()).spawn(move || {
        for _ in &mut signals {
            if waker.wake().is_err() {
                std::process::exit(1);
            }
        }
    })?;
    Ok(())
}

/// The signals that ask for the end. A terminal that is lost says so more than once, by itself and by its
/// shell: a second SIGHUP ends nothing at once.
fn signals() -> Vec<i32> {
    let hangs_up = !is_ignored(SIGHUP);
    [SIGINT, SIGTERM].into_iter().chain(hangs_up.then_some(SIGHUP)).collect()
}

/// Whether who started us wants us to ignore a signal, as nohup(1) does. In doubt he does.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_none_or(|mask| mask & (1 << (signal - 1)) != 0)
}

/// No wait of a command that looks by itself is longer, so that a wish to stop is heard.
pub(crate) const NAP: Duration = Duration::from_millis(100);

/// So long after a wish to stop somebody else may still take to answer.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// Whether somebody asked the command to end.
#[derive(Debug, Clone)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Watches for the signals from now on, and wakes the loop with each: the flag is registered first, so it
    /// is seen then.
    pub(crate) fn on_signals(waker: Waker) -> Result<Self, Failure> {
        let stop = Self::flag_on_signals()?;
        wake_on(&signals(), "signals", waker)?;
        Ok(stop)
    }

    /// The same for a command that looks by itself. A second signal by hand ends the process at once, as if
    /// nobody watched.
    pub(crate) fn flag_on_signals() -> Result<Self, Failure> {
        let stop = Stop(Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register_conditional_default(signal, stop.0.clone())?;
        }
        for signal in signals() {
            signal_hook::flag::register(signal, stop.0.clone())?;
        }
        Ok(stop)
    }

    /// Asks for the end, too, once nobody reads the pipe that stdout is, as behind `head -1`: it may be long
    /// until the next line would fail. A FIFO with a name may get another reader.
    pub(crate) fn on_lost_reader(&self, waker: Waker) -> Result<(), Failure> {
        let name = std::fs::read_link("/proc/self/fd/1").unwrap_or_default();
        if !name.to_string_lossy().starts_with("pipe:") {
            return Ok(());
        }
        let stop = self.clone();
        std::thread::Builder::new().name("reader".into()).spawn(move || {
            let stdout = std::io::stdout();
            // That it has no reader comes unasked.
            let mut pipe = [PollFd::new(&stdout, PollFlags::empty())];
            while let Err(Errno::INTR) | Ok(0) = poll(&mut pipe, None) {}
            stop.0.store(true, Ordering::Release);
            // The loop may have ended by itself.
            let _ = waker.wake();
        })?;
        Ok(())
    }

    pub(crate) fn is_asked_for(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
