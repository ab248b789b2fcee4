//! What the caller asks of a session that runs SQL: channels, notifications, and readers, which begin here.

use super::SqlSource;
use super::ddl::DdlReader;
use super::outbox::Outbox;
use super::readers::Reader;
use super::runs::{Job, Runs, check_leader};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Channel, TaskId};
use crate::options::{DdlOptions, WatchOptions};
use crate::source::schedule::Schedule;
use std::time::Instant;

impl SqlSource {
    pub(crate) fn listen(&mut self, channel: Channel) -> Result<()> {
        self.link.refuse_if_failed()?;
        self.link.channels.subscribe(channel);
        Ok(())
    }

    pub(crate) fn unlisten(&mut self, channel: Channel) -> Result<()> {
        self.link.refuse_if_failed()?;
        self.link.channels.unsubscribe(channel);
        Ok(())
    }

    pub(crate) fn notify(&mut self, channel: Channel, payload: &[u8]) -> Result<()> {
        self.listen.notify(&self.link, channel, payload)
    }

    pub(crate) fn watch(&mut self, options: WatchOptions, now: Instant) -> Result<()> {
        let taken = "the session watches already: name all tables at once, or connect another session";
        self.read(Outbox::new(options)?, taken, now)
    }

    pub(crate) fn watch_ddl(&mut self, options: DdlOptions, now: Instant) -> Result<()> {
        let taken = "the session hears of DDL already: connect another session";
        self.read(DdlReader::new(options), taken, now)
    }

    fn read<R: Reader>(&mut self, reader: R, taken: &str, now: Instant) -> Result<()> {
        self.link.refuse_if_failed()?;
        self.readers.add(&mut self.link, reader, taken, now)?;
        self.readers_changed();
        Ok(())
    }

    /// Acknowledges all changes up to this one.
    pub(crate) fn ack(&mut self, id: u64, now: Instant) -> Result<()> {
        let no_table = || Error::new(ErrorKind::InvalidArgument, "the session watches no table");
        self.readers.get_mut::<Outbox>().ok_or_else(no_table)?.ack(&mut self.link, id, now)
    }

    /// Has a schedule, whose work needs this session.
    pub(crate) fn schedule(&mut self, task: TaskId, schedule: Schedule, job: Job) -> Result<()> {
        self.link.refuse_if_failed()?;
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

    pub(crate) fn cancel(&mut self, task: TaskId) -> bool {
        self.readers.get_mut::<Runs>().is_some_and(|runs| runs.cancel(&mut self.link, task))
    }

    pub(crate) fn finish(&mut self, task: TaskId, failure: Option<&str>) -> bool {
        self.readers.get_mut::<Runs>().is_some_and(|runs| runs.finish(&mut self.link, task, failure))
    }
}
