//! `pgwake poll`: what a query finds again and again, as lines. Those of a cursor or a batch are acknowledged
//! once they are written, or stored where they are handed over.

mod arguments;

use super::output::Output;
use super::run::{Run, Take};
use super::values::Format;
use super::{Failure, install, with_code};
pub(crate) use arguments::Poll;
use pgwake::{Event, EventLoop, Listening, PollOptions, SessionId, SqlState};
use std::time::{Duration, Instant};

/// How long the last acknowledgement may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn run(dsn: &str, format: Format, arguments: &Poll) -> Result<(), Failure> {
    let mut options = PollOptions::new()
        .every(arguments.every)
        .statement_timeout(arguments.timeout)
        .from_start(arguments.from_start)
        .xid_column(&arguments.xid_column)
        .page_rows(arguments.page_rows)
        .bytes_max(arguments.bytes_max)
        .manual_ack(true);
    options = arguments.parameters.iter().fold(options, PollOptions::parameter);
    options = arguments.name.iter().fold(options, PollOptions::name);
    options = arguments.adaptive.iter().fold(options, |options, max| options.adaptive(*max));
    options = arguments.wake_on.iter().fold(options, |options, channel| options.wake_on(channel));
    options = arguments.cursor.iter().fold(options, PollOptions::cursor);
    options = arguments.order_by.iter().fold(options, PollOptions::order_by);
    options = arguments.batch_rows.iter().fold(options, |options, rows| options.batch_rows(*rows));
    options = arguments.done.iter().fold(options, PollOptions::done);
    if arguments.cursor.is_some() && !arguments.no_install {
        install::ensure(dsn)?;
    }
    let mut events = EventLoop::new()?;
    let session = events.connect(dsn)?;
    events.poll(session, &arguments.sql, options)?;
    let mut run = Run::new(&events, format, &arguments.until)?.handing_over(&events, &arguments.delivery)?;
    let mut found = Found { session, done: None, asked: None, refused: None, failure: None };
    run.run(&mut events, &mut found)?;
    found.finish(&mut events)
}

/// What is done with, and what the database knows of that.
struct Found {
    session: SessionId,
    /// Done with, and not acknowledged.
    done: Option<u64>,
    /// Acknowledged, and not kept yet.
    asked: Option<u64>,
    /// Why what was acknowledged last is not kept.
    refused: Option<String>,
    /// What was refused, until it is known whether the first run ever succeeded.
    failure: Option<String>,
}

impl Found {
    fn acknowledge(&mut self, events: &mut EventLoop) {
        if let Some(id) = self.done.take() {
            match events.ack(self.session, id) {
                Ok(()) => (self.asked, self.refused) = (Some(id), None),
                // It was delivered over an earlier connection, and comes again.
                Err(error) => log::info!("{error}"),
            }
        }
    }

    /// What an event says about the acknowledgement that has no answer.
    fn heed(&mut self, event: &Event<'_>) {
        match event {
            Event::Acknowledged(acknowledged) => self.asked = self.asked.filter(|id| *id != acknowledged.id),
            Event::CommandFailed(failed) => self.refuse(with_code(failed.message, failed.sqlstate)),
            Event::Disconnected(lost) => self.refuse(with_code(lost.message, lost.sqlstate)),
            Event::Failed(failed) => self.refuse(with_code(failed.message, failed.sqlstate)),
            _ => {}
        }
    }

    fn refuse(&mut self, reason: String) {
        if self.asked.take().is_some() {
            self.refused = Some(reason);
        }
    }

    /// The next run begins behind what was written: waits until the database has kept that.
    fn finish(mut self, events: &mut EventLoop) -> Result<(), Failure> {
        self.acknowledge(events);
        let until = Instant::now() + PATIENCE;
        while self.asked.is_some() {
            match events.next(Some(until.saturating_duration_since(Instant::now())))? {
                Some(event) => self.heed(&event),
                None if Instant::now() >= until => self.refuse("the server did not answer in time".into()),
                None => {}
            }
        }
        self.refused.map_or(Ok(()), |reason| {
            let message = format!("the last rows were not acknowledged, and will come again: {reason}");
            Err(Failure::Running(message))
        })
    }
}

impl Take for Found {
    fn take(&mut self, event: &Event<'_>, output: &mut Output) -> Result<bool, Failure> {
        self.heed(event);
        match event {
            // They are about the session, not about what it finds.
            Event::Acknowledged(_) => return Ok(false),
            Event::Listening(listening) if listening.channels.is_empty() => return Ok(false),
            Event::CommandFailed(failed) => {
                let may_pass = |code: SqlState| code == SqlState::OBJECT_IN_USE || code.may_pass();
                if !failed.sqlstate.is_some_and(may_pass) {
                    self.failure = Some(with_code(failed.message, failed.sqlstate));
                }
            }
            _ => {}
        }
        output.write(event)?;
        Ok(matches!(event, Event::Rows(_)))
    }

    fn rest(&mut self, events: &mut EventLoop, output: &mut Output) -> Result<Option<Duration>, Failure> {
        self.done = output.take_done().or(self.done);
        self.acknowledge(events);
        match self.failure.take() {
            Some(sentence) if events.metrics(self.session)?.polls == 0 => Err(Failure::Running(sentence)),
            _ => Ok(None),
        }
    }

    fn has_begun(&self, _: &Listening<'_>) -> bool {
        true
    }
}
