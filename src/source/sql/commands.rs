//! What the caller asks of a session that runs SQL: channels, what is sent, and readers, which begin here.

use super::SqlSource;
use super::ddl::DdlReader;
use super::first_statement::refuse;
use super::outbox::Outbox;
use super::poll::{Poll, Polls};
use super::readers::Reader;
use super::runs::{Job, Runs};
use super::tag::Verb;
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::{Channel, TaskId};
use crate::options::{DdlOptions, PollOptions, WatchOptions};
use crate::source::schedule::Schedule;
use std::time::{Duration, Instant};

const TWO_TO_ACKNOWLEDGE: &str =
    "a session either watches or has polls that are acknowledged by hand: connect another one";

impl SqlSource {
    pub(crate) fn listen(&mut self, channel: Channel) -> Result<()> {
        self.refuse_if_taken()?;
        if let Some(polls) = self.readers.get_mut::<Polls>() {
            polls.listen(&channel, true);
        }
        self.link.channels.subscribe(channel);
        Ok(())
    }

    pub(crate) fn unlisten(&mut self, channel: Channel) -> Result<()> {
        self.link.refuse_if_failed()?;
        if let Some(polls) = self.readers.get_mut::<Polls>() {
            polls.listen(&channel, false);
            if polls.wakes(&channel) {
                return Ok(());
            }
        }
        self.link.channels.unsubscribe(channel);
        Ok(())
    }

    pub(crate) fn notify(&mut self, channel: Channel, payload: &[u8]) -> Result<()> {
        self.refuse_if_taken()?;
        self.sender.queue(&self.link, Verb::Notify, channel, payload)
    }

    pub(crate) fn publish(&mut self, channel: Channel, payload: &[u8]) -> Result<()> {
        self.refuse_if_taken()?;
        self.sender.queue(&self.link, Verb::Publish, channel, payload)
    }

    pub(crate) fn watch(&mut self, options: WatchOptions, now: Instant) -> Result<()> {
        if self.readers.get::<Polls>().is_some_and(Polls::are_manual) {
            return Err(Error::new(ErrorKind::InvalidArgument, TWO_TO_ACKNOWLEDGE));
        }
        let taken = "the session watches already: name all tables at once, or connect another session";
        self.read(Outbox::new(options)?, taken, now)
    }

    pub(crate) fn watch_ddl(&mut self, options: DdlOptions, now: Instant) -> Result<()> {
        let taken = "the session hears of DDL already: connect another session";
        self.read(DdlReader::new(options), taken, now)
    }

    /// Runs a query again and again.
    pub(crate) fn poll(&mut self, task: TaskId, sql: &str, options: PollOptions, now: Instant) -> Result<()> {
        let poll = Poll::new(task, sql, options)?;
        self.refuse_if_taken()?;
        if poll.needs_session() && !(self.readers.is_empty() && self.link.channels.wanted().next().is_none())
        {
            let message = "a batch holds a transaction open, in which nothing else has room: connect a \
                           session of its own for it";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        if poll.is_manual() && self.readers.get::<Outbox>().is_some() {
            return Err(Error::new(ErrorKind::InvalidArgument, TWO_TO_ACKNOWLEDGE));
        }
        if let Some((polls, name)) = self.readers.get::<Polls>().zip(poll.cursor())
            && polls.has_cursor(name)
        {
            let message = "the session has a poll with this cursor: one reads under a name, take another";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        if self.readers.get::<Polls>().is_none() {
            self.read(Polls::default(), "", now)?;
        }
        if let Some(polls) = self.readers.get_mut::<Polls>() {
            polls.add(&mut self.link, poll, now);
        }
        Ok(())
    }

    /// Ends a poll or a schedule; `false` when it is none of this session's.
    pub(crate) fn cancel(&mut self, task: TaskId) -> bool {
        self.readers.get_mut::<Polls>().is_some_and(|polls| polls.cancel(&mut self.link, task))
            || self.readers.get_mut::<Runs>().is_some_and(|runs| runs.cancel(&mut self.link, task))
    }

    fn read<R: Reader>(&mut self, reader: R, taken: &str, now: Instant) -> Result<()> {
        self.refuse_if_taken()?;
        self.readers.add(&mut self.link, reader, taken, now)?;
        self.readers_changed();
        Ok(())
    }

    /// Whether it can be asked for more.
    fn refuse_if_taken(&self) -> Result<()> {
        if self.readers.get::<Polls>().is_some_and(Polls::need_session) {
            let message = "this session holds the rows of a poll locked in a transaction, in which nothing \
                           else has room: connect another one";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.link.refuse_if_failed()
    }

    /// Acknowledges all changes up to this one, or all rows.
    pub(crate) fn ack(&mut self, id: u64, now: Instant) -> Result<()> {
        if let Some(outbox) = self.readers.get_mut::<Outbox>() {
            return outbox.ack(&mut self.link, id, now);
        }
        let nothing =
            || Error::new(ErrorKind::InvalidArgument, "the session watches no table, and polls nothing");
        self.readers.get_mut::<Polls>().ok_or_else(nothing)?.ack(&mut self.link, id, now)
    }

    /// Has a schedule, whose work needs this session.
    pub(crate) fn schedule(&mut self, task: TaskId, schedule: Schedule, job: Job) -> Result<()> {
        self.refuse_if_taken()?;
        if let Some(sql) = &job.sql {
            refuse("a schedule runs one command each time", sql)?;
        }
        let heartbeat = self.link.session.heartbeat();
        if let Some(key) = &job.key {
            check_leader(self.self_test.is_wanted(), heartbeat)?;
            if self.readers.get::<Runs>().is_some_and(|runs| runs.has_key(key)) {
                let message = "the session has a schedule of this key: take another key, or another session";
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        }
        if self.readers.get::<Runs>().is_none() {
            self.read(Runs::new(heartbeat), "", Instant::now())?;
        }
        if let Some(runs) = self.readers.get_mut::<Runs>() {
            runs.add(&mut self.link, task, schedule, job);
        }
        Ok(())
    }

    pub(crate) fn has_schedules(&self) -> bool {
        self.readers.get::<Runs>().is_some()
    }

    /// Whether something of it goes on at the server.
    pub(crate) fn is_under_way(&self, task: TaskId) -> bool {
        self.readers.get::<Runs>().is_some_and(|runs| runs.is_under_way(task))
    }

    pub(crate) fn finish(&mut self, task: TaskId, failure: Option<&str>) -> bool {
        self.readers.get_mut::<Runs>().is_some_and(|runs| runs.finish(&mut self.link, task, failure))
    }
}

/// What a leader's session needs.
fn check_leader(has_self_test: bool, heartbeat: Duration) -> Result<()> {
    let refuse = |message: &str| {
        let error = Error::new(ErrorKind::InvalidArgument, message);
        Err(error.with_sqlstate(Some(SqlState::FEATURE_NOT_SUPPORTED)))
    };
    if !has_self_test {
        return refuse(
            "a leader holds a lock on its session, which a pooler in transaction mode gives to others: \
             connect the session with a self-test, which finds out",
        );
    }
    if heartbeat.is_zero() {
        return refuse(
            "a leader without heartbeats cannot be told from a frozen one: leave the heartbeat on",
        );
    }
    Ok(())
}
