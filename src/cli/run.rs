//! Events to stdout until the count is reached, the time is over, or somebody says stop: what the commands
//! that stream have in common.

use super::arguments::{Format, Until};
use super::output::Output;
use super::service;
use super::stop::Stop;
use super::{Failure, not_connected};
use pgwake::{Event, EventLoop, SqlState};
use std::time::{Duration, Instant};

/// What one command does with the events.
pub(crate) trait Take {
    /// Does it; `true` when the event is one of those that are counted.
    fn take(&mut self, event: &Event<'_>, output: &mut Output) -> Result<bool, Failure>;

    /// All that was there has been taken and written. What is left to do at some time, in how long?
    fn rest(&mut self, events: &mut EventLoop) -> Result<Option<Duration>, Failure>;
}

/// When a run is to end, whatever has come by then.
#[derive(Debug, Clone)]
pub(crate) struct End {
    stop: Stop,
    at: Option<Instant>,
}

impl End {
    /// The time that is left, if it is limited; none when somebody asked for the end.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        if self.stop.is_asked_for() {
            return Some(Duration::ZERO);
        }
        self.at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn has_come(&self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }
}

/// How far a run has come.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) output: Output,
    pub(crate) end: End,
    left: u64,
    is_connected: bool,
    is_ready: bool,
}

impl Run {
    pub(crate) fn new(events: &EventLoop, format: Format, until: &Until) -> Result<Self, Failure> {
        Ok(Run {
            output: Output::new(format),
            end: End {
                stop: Stop::on_signals(events.waker())?,
                at: until.duration.map(|duration| Instant::now() + duration),
            },
            left: until.count.unwrap_or(u64::MAX),
            is_connected: false,
            is_ready: false,
        })
    }

    /// Takes what comes, to the end.
    pub(crate) fn run(&mut self, events: &mut EventLoop, taker: &mut impl Take) -> Result<(), Failure> {
        let done = self.take_all(events, taker);
        service::tell("STOPPING=1");
        done
    }

    /// A batch is written when the loop has nothing more at hand; only then may it sleep.
    fn take_all(&mut self, events: &mut EventLoop, taker: &mut impl Take) -> Result<(), Failure> {
        let (mut is_batch_open, mut rest) = (false, None);
        while self.left > 0 && !self.end.has_come() {
            let wait = [self.end.remaining(), rest].into_iter().flatten().min();
            let Some(event) = events.next(if is_batch_open { Some(Duration::ZERO) } else { wait })? else {
                self.output.flush()?;
                rest = taker.rest(events)?;
                is_batch_open = false;
                continue;
            };
            match event {
                Event::Listening(listening) => {
                    self.is_connected = true;
                    // With no channels it is only connected.
                    if !self.is_ready && !listening.channels.is_empty() {
                        self.is_ready = true;
                        service::tell("READY=1");
                    }
                }
                Event::Disconnected(lost) if !self.is_connected => {
                    return Err(not_connected(lost.message, lost.sqlstate));
                }
                Event::Failed(failed) => {
                    self.output.write(&event)?;
                    self.output.flush()?;
                    return Err(not_connected(failed.message, failed.sqlstate));
                }
                _ => {}
            }
            self.left -= u64::from(taker.take(&event, &mut self.output)?);
            is_batch_open = true;
        }
        self.output.flush()?;
        if self.is_connected || self.left == 0 || self.end.stop.is_asked_for() {
            return Ok(());
        }
        Err(not_connected("there was no answer within the time of --for", SqlState::new("08001")))
    }
}
