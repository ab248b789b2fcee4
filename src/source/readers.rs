//! What the readers of a session have in common: their turns, and what of theirs comes before the next
//! notification.

use super::channels::ChannelSource;
use super::ddl::DdlReader;
use super::outbox::Outbox;
use crate::pq::Notify;
use std::time::Instant;

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
        let ddl = self.ddl.as_deref().and_then(DdlReader::deadline);
        [self.session.deadline(), outbox, ddl].into_iter().flatten().min()
    }

    /// Whether something was heard that comes before the next notification.
    #[cold]
    pub(super) fn is_held_back(&self) -> bool {
        self.fetches > 0 || self.outbox.as_deref().is_some_and(Outbox::has_heard)
    }

    /// Takes a notification of the schema `pgwake`; gives back any other.
    #[cold]
    pub(super) fn hear(&mut self, notify: Notify) -> Option<Notify> {
        let notify = match self.outbox.as_deref_mut() {
            Some(outbox) => outbox.hear(notify)?,
            None => notify,
        };
        self.hear_ddl(notify)
    }
}
