//! The readers of a session, each when it is asked for. A new reader is named here and in `tag.rs`.

use super::ddl::DdlReader;
use super::link::{Link, Reader};
use super::outbox::{Next, Outbox};
use super::tag::{DdlRequest, OutboxRequest};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Change, SessionId};
use crate::options::{DdlOptions, WatchOptions};
use crate::pq::Notify;
use crate::session::Rows;
use std::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Readers {
    outbox: Option<Box<Outbox>>,
    ddl: Option<Box<DdlReader>>,
}

impl Readers {
    pub(super) fn is_empty(&self) -> bool {
        self.outbox.is_none() && self.ddl.is_none()
    }

    pub(super) fn watch(&mut self, link: &mut Link, options: WatchOptions, now: Instant) -> Result<()> {
        if self.outbox.is_some() {
            let message = "the session watches already: name all tables at once, or connect another session";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.outbox = Some(begun(Outbox::new(options)?, link, now));
        Ok(())
    }

    pub(super) fn watch_ddl(&mut self, link: &mut Link, options: DdlOptions, now: Instant) -> Result<()> {
        if self.ddl.is_some() {
            let message = "the session hears of DDL already: connect another session";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.ddl = Some(begun(DdlReader::new(options), link, now));
        Ok(())
    }

    /// Acknowledges all changes up to this one.
    pub(super) fn ack(&mut self, link: &mut Link, id: u64, now: Instant) -> Result<()> {
        let Some(outbox) = &mut self.outbox else {
            return Err(Error::new(ErrorKind::InvalidArgument, "the session watches no table"));
        };
        outbox.ack(link, id, now)
    }

    /// All channels listen on a new connection.
    #[cold]
    pub(super) fn opened(&mut self, link: &mut Link, now: Instant) {
        if let Some(outbox) = &mut self.outbox {
            outbox.opened(link, now);
        }
        if let Some(ddl) = &mut self.ddl {
            ddl.opened(link, now);
        }
    }

    /// The connection is lost.
    #[cold]
    pub(super) fn lost(&mut self) {
        if let Some(outbox) = &mut self.outbox {
            outbox.lost();
        }
        if let Some(ddl) = &mut self.ddl {
            ddl.lost();
        }
    }

    /// A notification that no reader takes.
    #[cold]
    pub(super) fn heard(&mut self, link: &mut Link, mut notify: Notify) -> Option<Notify> {
        if let Some(outbox) = &mut self.outbox {
            notify = outbox.heard(link, notify)?;
        }
        match &mut self.ddl {
            Some(ddl) => ddl.heard(link, notify),
            None => Some(notify),
        }
    }

    pub(super) fn outbox_answered(
        &mut self,
        link: &mut Link,
        request: OutboxRequest,
        answer: Result<Rows>,
        now: Instant,
    ) {
        let outbox = self.outbox.as_deref_mut();
        if outbox.is_some_and(|outbox| outbox.answered(link, request, answer, now).is_break()) {
            self.outbox = None;
        }
    }

    pub(super) fn ddl_answered(
        &mut self,
        link: &mut Link,
        request: DdlRequest,
        answer: Result<Rows>,
        now: Instant,
    ) {
        let ddl = self.ddl.as_deref_mut();
        if ddl.is_some_and(|ddl| ddl.answered(link, request, answer, now).is_break()) {
            self.ddl = None;
        }
    }

    /// Sends what is due; `false` when nothing is.
    #[cold]
    pub(super) fn step(&mut self, link: &mut Link, now: Instant) -> bool {
        self.outbox.as_deref_mut().is_some_and(|outbox| outbox.step(link, now))
            || self.ddl.as_deref_mut().is_some_and(|ddl| ddl.step(link, now))
    }

    /// When a step is wanted at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let outbox = self.outbox.as_deref().and_then(Outbox::deadline);
        outbox.into_iter().chain(self.ddl.as_deref().and_then(DdlReader::deadline)).min()
    }

    /// Whether changes wait that come before the next notification.
    pub(super) fn has_notified(&self) -> bool {
        self.outbox.as_deref().is_some_and(Outbox::has_notified)
    }

    /// Whether changes wait to be delivered.
    pub(super) fn has_changes(&self) -> bool {
        self.outbox.as_deref().is_some_and(Outbox::has_changes)
    }

    /// The next change or gap.
    pub(super) fn advance(&mut self, link: &mut Link, now: Instant) -> Next {
        self.outbox.as_deref_mut().map_or(Next::Nothing, |outbox| outbox.advance(link, now))
    }

    /// The change that was gone on to.
    pub(super) fn change<'a>(&'a self, session: SessionId, db: &'a str) -> Option<Change<'a>> {
        self.outbox.as_deref()?.change(session, db)
    }
}

/// A reader that was asked for; on a connection that listens already it begins.
fn begun<R: Reader>(mut reader: R, link: &mut Link, now: Instant) -> Box<R> {
    if link.is_listening {
        reader.opened(link, now);
    }
    Box::new(reader)
}
