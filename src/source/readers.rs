//! What the readers of a session have in common: their turns, and what they await of the server before the
//! next notification may be told.

use super::channels::{Batch, ChannelSource};
use super::outbox::Outbox;
use super::{ddl, outbox};
use crate::error::{Error, ErrorKind, SqlState};
use crate::pq::Notify;
use std::time::Instant;

impl Batch {
    /// Its answer comes before the next notification.
    fn is_fetch(&self) -> bool {
        matches!(
            self,
            Batch::Outbox(outbox::Request::Fetch | outbox::Request::Convert)
                | Batch::Ddl(ddl::Step::Fetch | ddl::Step::Convert)
        )
    }
}

impl ChannelSource {
    /// A reader came or went.
    pub(super) fn readers_changed(&mut self) {
        let has_readers = self.outbox.is_some() || self.ddl.is_some();
        self.is_plain = !self.skip_own && !self.held.reads_ahead() && !has_readers;
    }

    /// Sends what is due; `false` when nothing is.
    #[cold]
    pub(super) fn readers_step(&mut self, now: Instant) -> bool {
        self.watch_step(now) || self.ddl_step(now)
    }

    /// When a turn is wanted at the latest.
    #[cold]
    pub(super) fn deadline_with_readers(&self) -> Option<Instant> {
        let outbox = self.outbox.as_deref().and_then(Outbox::deadline);
        let ddl = self.ddl.as_deref().and_then(ddl::DdlReader::deadline);
        [self.session.deadline(), outbox, ddl].into_iter().flatten().min()
    }

    /// Whether something waits that comes before the next notification.
    #[cold]
    pub(super) fn is_held_back(&self) -> bool {
        self.fetches > 0 || self.outbox.as_deref().is_some_and(Outbox::has_notified)
    }

    /// Takes a notification of the schema `pgwake`; gives back any other.
    #[cold]
    pub(super) fn on_notification(&mut self, notify: Notify) -> Option<Notify> {
        let notify = self.watch_notified(notify)?;
        self.hear_ddl(notify)
    }

    /// Answers that will never come any more hold nothing back: what was to be fetched is told as missed,
    /// what was to be converted as well as may be. `false` when none was awaited.
    #[cold]
    pub(super) fn give_up_fetches(&mut self, now: Instant) -> bool {
        if self.fetches == 0 || !self.session.is_drained() {
            return false;
        }
        let message = "the connection was lost before the server told what a notification refers to";
        let lost = Error::new(ErrorKind::Connection, message).with_sqlstate(Some(SqlState::CONNECTION_LOST));
        for batch in std::mem::take(&mut self.unanswered) {
            match batch {
                Batch::Outbox(request) if batch.is_fetch() => {
                    self.watch_answered(request, Err(lost.clone()), now);
                }
                Batch::Ddl(step) if batch.is_fetch() => self.ddl_answered(step, Err(lost.clone()), now),
                batch => self.unanswered.push_back(batch),
            }
        }
        // What could not be converted may have referred to something: that is given up next.
        self.fetches = self.unanswered.iter().filter(|batch| batch.is_fetch()).count() as u32;
        true
    }
}
