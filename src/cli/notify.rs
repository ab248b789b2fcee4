//! `pgwake notify`, and what `publish` has in common with it: sends one payload, or each line of stdin, and
//! ends when the server has committed them all.

use super::stop::Stop;
use super::values::Payloads;
use super::{Failure, not_connected};
use pgwake::{Channel, ErrorKind, Event, EventLoop, SessionId, Waker};
use std::io::{self, BufRead, Read};
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

/// How many lines are read ahead of what the loop has queued.
const LINES_AHEAD_MAX: usize = 4096;

pub(crate) fn run(dsn: &str, payloads: &Payloads) -> Result<(), Failure> {
    send_all(dsn, payloads, "notification", |events, session, channel, payload| {
        events.notify(session, channel, payload)
    })
}

/// `noun`: what one is called that `send` sends.
pub(super) fn send_all(
    dsn: &str,
    Payloads { channel, payload, lines }: &Payloads,
    noun: &'static str,
    mut send: impl FnMut(&mut EventLoop, SessionId, &Channel, &[u8]) -> pgwake::Result<()>,
) -> Result<(), Failure> {
    // What is wrong with the name is said before anything is connected.
    let channel = Channel::new(channel.as_bytes())?;
    let mut events = EventLoop::new()?;
    let session = events.connect(dsn)?;
    let payloads = if *lines {
        lines_of_stdin(events.waker())?
    } else {
        let mut payload = payload.as_deref().unwrap_or_default().as_bytes().to_vec();
        if payload == b"-" {
            payload.clear();
            std::io::stdin()
                .lock()
                .read_to_end(&mut payload)
                .map_err(|error| Failure::Running(unreadable(&error)))?;
        }
        let (sender, receiver) = sync_channel(1);
        sender.send(Ok(payload)).map_err(|_| Failure::Running("the payload was lost".into()))?;
        receiver
    };
    let stop = Stop::on_signals(events.waker())?;
    Sender {
        events,
        send: |events: &mut EventLoop, payload: &[u8]| send(events, session, &channel, payload),
        noun,
        payloads,
        held: None,
        fault: None,
        queued: 0,
        sent: 0,
        failed: 0,
        failure: String::new(),
        line: 0,
    }
    .run(&stop)
}

fn unreadable(error: &io::Error) -> String {
    format!("standard input: {error}")
}

/// Reads lines on a thread of its own, so that a slow input does not stop the loop.
fn lines_of_stdin(waker: Waker) -> Result<Receiver<io::Result<Vec<u8>>>, Failure> {
    let (sender, receiver) = sync_channel(LINES_AHEAD_MAX);
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        for line in std::io::stdin().lock().split(b'\n') {
            if sender.send(line).is_err() || waker.wake().is_err() {
                return;
            }
        }
        // The end of the input is told by dropping the sender, before the loop is woken to see it.
        drop(sender);
        let _ = waker.wake();
    })?;
    Ok(receiver)
}

struct Sender<Send> {
    events: EventLoop,
    send: Send,
    noun: &'static str,
    payloads: Receiver<io::Result<Vec<u8>>>,
    /// A payload that the full queue did not take.
    held: Option<Vec<u8>>,
    /// Why nothing is sent from some line on.
    fault: Option<String>,
    queued: u64,
    sent: u64,
    failed: u64,
    /// Why the first of them failed.
    failure: String,
    line: u64,
}

impl<Send: FnMut(&mut EventLoop, &[u8]) -> pgwake::Result<()>> Sender<Send> {
    fn run(mut self, stop: &Stop) -> Result<(), Failure> {
        let mut is_input_open = self.queue()?;
        let mut is_connected = false;
        while !stop.is_asked_for() && (is_input_open || self.sent + self.failed < self.queued) {
            match self.events.next(None)? {
                Some(Event::Listening(_)) => is_connected = true,
                Some(Event::Sent(sent)) => self.sent += sent.count,
                Some(Event::CommandFailed(failed)) => {
                    if self.failed == 0 {
                        self.failure = failed.message.to_string();
                    }
                    self.failed += 1;
                }
                Some(Event::Disconnected(lost)) => {
                    return Err(match not_connected(lost.message, lost.sqlstate) {
                        Failure::Running(why) if is_connected => {
                            Failure::Running(format!("{why}; {}", self.known()))
                        }
                        other => other,
                    });
                }
                _ => {}
            }
            if is_input_open {
                is_input_open = self.queue()?;
            }
        }
        // What was read and is not queued yet.
        let dropped = self.held.iter().count() + self.payloads.try_iter().count();
        if let Some(fault) = &self.fault {
            return Err(Failure::Running(format!("{fault}; {}, and none from there on", self.known())));
        }
        if dropped > 0 || self.sent + self.failed < self.queued {
            let sentence = format!("stopped: {}", self.known());
            return Err(Failure::Running(match dropped {
                0 => sentence,
                _ => format!("{sentence}, and {dropped} more lines that were read are dropped"),
            }));
        }
        match (self.failed, self.queued, self.noun) {
            (0, ..) => Ok(()),
            (_, 1, noun) => Err(Failure::Running(format!("the {noun} failed: {}", self.failure))),
            _ => Err(Failure::Running(self.known())),
        }
    }

    /// How far it has come, when it is over before all is sent.
    fn known(&self) -> String {
        let sentence = format!("{} of {} {}s are known to be sent", self.sent, self.queued, self.noun);
        match self.failed {
            0 => sentence,
            failed => format!("{sentence}, and {failed} failed: {}", self.failure),
        }
    }

    /// Queues what there is to send; `false` at the end of the input, or of what can be sent of it.
    fn queue(&mut self) -> Result<bool, Failure> {
        loop {
            let payload = match self.held.take().map_or_else(|| self.payloads.try_recv(), |held| Ok(Ok(held)))
            {
                Ok(Ok(payload)) => payload,
                Ok(Err(error)) if self.line == 0 => return Err(Failure::Running(unreadable(&error))),
                Ok(Err(error)) => {
                    self.fault = Some(unreadable(&error));
                    return Ok(false);
                }
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            };
            match (self.send)(&mut self.events, &payload) {
                Ok(()) => (self.queued, self.line) = (self.queued + 1, self.line + 1),
                Err(error) if error.kind == ErrorKind::QueueFull => {
                    self.held = Some(payload);
                    return Ok(true);
                }
                // Those before it are sent, so that the line can be mended and the rest sent with it.
                Err(error) if self.line > 0 => {
                    self.fault = Some(format!("line {} of stdin: {error}", self.line + 1));
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
