//! What the caller asks of a session that runs SQL: channels, notifications, and readers, which begin here.

use super::SqlSource;
use super::ddl::DdlReader;
use super::outbox::Outbox;
use super::readers::Reader;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Channel;
use crate::options::{DdlOptions, WatchOptions};
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
}
