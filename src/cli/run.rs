//! Events to stdout, or to a process that stores them, until the count is reached, the time is over, or
//! somebody says stop: what the commands that stream have in common.

use super::arguments::{Format, Until};
use super::deliver::{Delivery, Handover};
use super::figures::Reporter;
use super::output::Output;
use super::service;
use super::stop::{Stop, wake_on_children};
use super::{Failure, not_connected};
use pgwake::{Event, EventLoop, Listening, SqlState};
use std::time::{Duration, Instant};

/// So many events are written at once at most, even when there are always more at hand.
const BATCH_EVENTS_MAX: u32 = 4096;

/// What one command does with the events.
pub(crate) trait Take {
    /// Does it; `true` when the event is one of those that are counted.
    fn take(&mut self, event: &Event<'_>, output: &mut Output) -> Result<bool, Failure>;

    /// There is nothing more to take for now, and what is done with is known. What is left to do at some
    /// time, in how long?
    fn rest(&mut self, events: &mut EventLoop, output: &mut Output) -> Result<Option<Duration>, Failure>;

    /// Whether this says that what was asked for comes from now on. With no channels it is only connected.
    fn has_begun(&self, listening: &Listening<'_>) -> bool {
        !listening.channels.is_empty()
    }

    /// Whether all has come that was asked for.
    fn is_done(&self) -> bool {
        false
    }

    /// Why the session has given up.
    fn failure(&self, message: &str, sqlstate: Option<SqlState>) -> Failure {
        not_connected(message, sqlstate)
    }
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
    reporter: Option<Reporter>,
    left: u64,
    is_connected: bool,
    is_ready: bool,
    /// The end is asked for once nobody reads what is written.
    is_read: bool,
}

impl Run {
    pub(crate) fn new(events: &EventLoop, format: Format, until: &Until) -> Result<Self, Failure> {
        Ok(Run {
            output: Output::new(format),
            end: End {
                stop: Stop::on_signals(events.waker())?,
                at: until.duration.map(|duration| Instant::now() + duration),
            },
            reporter: None,
            left: until.count.unwrap_or(u64::MAX),
            is_connected: false,
            is_ready: false,
            is_read: false,
        })
    }

    /// Hands events over, if that is asked for, instead of writing them; and tells how far that is.
    pub(crate) fn handing_over(mut self, events: &EventLoop, delivery: &Delivery) -> Result<Self, Failure> {
        self.reporter = Reporter::new(&delivery.reporting)?;
        if let Some(handover) = Handover::new(delivery)? {
            wake_on_children(events.waker())?;
            self.output.hand_over(handover);
        }
        Ok(self)
    }

    /// For one that waits for no session: it is ready as soon as it has begun.
    pub(crate) fn without_session(mut self) -> Self {
        (self.is_connected, self.is_ready) = (true, true);
        service::tell("READY=1");
        self
    }

    /// Takes what comes, to the end.
    pub(crate) fn run(&mut self, events: &mut EventLoop, taker: &mut impl Take) -> Result<(), Failure> {
        let done = self.take_all(events, taker);
        service::tell("STOPPING=1");
        let stored = self.wait_for_answers(events, taker);
        done.and(stored)
    }

    /// What was handed over is to be stored, whyever it ends.
    fn wait_for_answers(&mut self, events: &mut EventLoop, taker: &mut impl Take) -> Result<(), Failure> {
        self.output.close();
        while !self.output.is_over()? {
            self.output.flush()?;
            let rest = taker.rest(events, &mut self.output)?;
            self.report(false);
            let report = self.reporter.as_ref().map(Reporter::remaining);
            self.output.wait(events, [rest, report].into_iter().flatten().min())?;
        }
        // What was written or stored last is known to be.
        taker.rest(events, &mut self.output)?;
        self.report(true);
        Ok(())
    }

    /// From the first line on, the reader counts.
    fn look_after_reader(&mut self, events: &EventLoop) -> Result<(), Failure> {
        if !self.is_read && self.output.has_written() {
            self.is_read = true;
            self.end.stop.on_lost_reader(events.waker())?;
        }
        Ok(())
    }

    fn report(&mut self, is_last: bool) {
        if let Some(reporter) = &mut self.reporter {
            reporter.tell(|| self.output.figures(), is_last);
        }
    }

    /// How long may be waited for an event.
    fn shortest(&self, rest: Option<Duration>) -> Option<Duration> {
        let report = self.reporter.as_ref().map(Reporter::remaining);
        [self.end.remaining(), rest, report].into_iter().flatten().min()
    }

    /// A batch is written when the loop has nothing more at hand, or when it is large; only then may it
    /// sleep.
    fn take_all(&mut self, events: &mut EventLoop, taker: &mut impl Take) -> Result<(), Failure> {
        let (mut batch, mut rest) = (0, None);
        while self.left > 0 && !self.end.has_come() && !taker.is_done() {
            let wait = self.shortest(rest);
            let event = match batch {
                BATCH_EVENTS_MAX => None,
                _ if !self.output.has_room() => None,
                0 if !self.output.is_handed_over() => events.next(wait)?,
                _ => events.next(Some(Duration::ZERO))?,
            };
            let Some(event) = event else {
                self.output.flush()?;
                self.look_after_reader(events)?;
                rest = taker.rest(events, &mut self.output)?;
                self.report(false);
                if std::mem::take(&mut batch) == 0 {
                    self.output.wait(events, self.shortest(rest))?;
                }
                continue;
            };
            match event {
                Event::Listening(listening) => {
                    self.is_connected = true;
                    if !self.is_ready && taker.has_begun(&listening) {
                        self.is_ready = true;
                        service::tell("READY=1");
                    }
                }
                Event::Disconnected(lost) if !self.is_connected => {
                    return Err(not_connected(lost.message, lost.sqlstate));
                }
                Event::Failed(failed) => {
                    // Where nothing has begun yet, the one sentence says it all.
                    if self.is_connected {
                        self.output.write(&event)?;
                        self.output.flush()?;
                    }
                    return Err(taker.failure(failed.message, failed.sqlstate));
                }
                _ => {}
            }
            self.left -= u64::from(taker.take(&event, &mut self.output)?);
            batch += 1;
        }
        self.output.flush()?;
        if self.is_connected || self.left == 0 || self.end.stop.is_asked_for() {
            return Ok(());
        }
        Err(not_connected("there was no answer within the time of --for", SqlState::new("08001")))
    }
}
