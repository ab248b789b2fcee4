//! Whether and how the tables are watched: what the caller asked for flows in, what the server says of it
//! flows out. A table is made sure to be watched once; after that it is looked at now and then.

use super::statements as sql;
use super::tables::Tables;
use crate::error::Error;
use crate::event::{Channel, Transport};
use crate::options::{ChangePayload, WatchOptions};
use crate::pq::QueryResult;
use crate::source::sql::link::{Link, WAKE_CHANNEL};
use crate::source::sql::statements::{LOOK_INTERVAL, LOOK_INTERVAL_MIN, array, in_utf8};
use crate::source::sql::tag::{OutboxRequest, Tag};
use std::collections::BTreeSet;
use std::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Watching {
    pub(super) options: WatchOptions,
    tables: Tables,
    /// Every table was made sure to be watched, once; or what was refused this time.
    is_ensured: bool,
    refused: Vec<Error>,
    /// Some table's changes go through the outbox, or did.
    has_outbox: bool,
    /// The channels that bring changes, or did: something may be on its way still.
    change_channels: BTreeSet<Channel>,
    /// Once it is read, `Listening` names its channels, also those that listened before.
    is_new: bool,
    look_at: Option<Instant>,
    looked_at: Option<Instant>,
}

impl Watching {
    pub(super) fn new(options: WatchOptions) -> Self {
        Watching { tables: Tables::new(&options.tables), options, ..Watching::default() }
    }

    /// Makes sure that the tables are watched, until they were once: what somebody does to that later is not
    /// undone. In any case it looks how they are.
    pub(super) fn begin(&mut self, link: &mut Link, now: Instant) {
        self.refused.clear();
        if !self.is_ensured {
            self.ensure(link);
        }
        self.look(link, now);
    }

    fn ensure(&self, link: &mut Link) {
        let options = &self.options;
        let make = if options.only_watched { "false" } else { "true" };
        let ops = array(options.ops.iter().map(|op| op.as_str()));
        let payload = options.payload.as_ref().map_or("", ChangePayload::as_str);
        let transport = options.transport.as_ref().map_or("", Transport::as_str);
        let columns = in_utf8(&array(options.columns.iter().map(String::as_str)));
        let timing = options.before.map_or("", |before| if before { "before" } else { "after" });
        for table in &options.tables {
            let texts = [&in_utf8(table), make, &ops, payload, transport, &columns, timing];
            let tag = Tag::Outbox(OutboxRequest::Ensure);
            link.send(tag, Some(sql::ENSURE), &texts.map(str::as_bytes));
        }
    }

    pub(super) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    pub(super) fn look(&mut self, link: &mut Link, now: Instant) {
        (self.looked_at, self.look_at) = (Some(now), Some(now + LOOK_INTERVAL));
        let (names, oids) = (in_utf8(&array(self.tables.names())), array(self.tables.known_oids()));
        let tag = Tag::Outbox(OutboxRequest::Look);
        link.send(tag, Some(sql::LOOK), &[names.as_bytes(), oids.as_bytes()]);
    }

    /// Somebody says that there is something new: anybody may.
    pub(super) fn look_soon(&mut self) {
        let soon = self.looked_at.map(|at| at + LOOK_INTERVAL_MIN);
        self.look_at = [self.look_at, soon].into_iter().flatten().min();
    }

    /// A table was refused that was to be watched.
    pub(super) fn refused(&mut self, error: Error) {
        self.refused.push(error);
    }

    pub(super) fn take_refused(&mut self) -> Option<Vec<Error>> {
        Some(std::mem::take(&mut self.refused)).filter(|refused| !refused.is_empty())
    }

    /// What has become of the tables. Gives whether there are changes that come from now on, or come in
    /// another way, and what is to be reported.
    pub(super) fn looked(&mut self, rows: &QueryResult) -> (bool, Vec<Error>) {
        self.is_ensured = true;
        let (is_new, troubles) = self.tables.looked(rows);
        self.is_new |= is_new;
        self.has_outbox |= self.tables.has_outbox();
        self.change_channels.extend(self.tables.change_channels().cloned());
        (is_new, troubles)
    }

    pub(super) fn has_outbox(&self) -> bool {
        self.has_outbox
    }

    /// All tables whose changes may lie in the outbox, as an array.
    pub(super) fn oids(&self) -> String {
        array(self.tables.all_oids())
    }

    /// What it listens on.
    pub(super) fn channels(&self) -> BTreeSet<Channel> {
        let wake_channel = self.has_outbox.then(|| Channel::of_name(WAKE_CHANNEL));
        self.change_channels.iter().cloned().chain(wake_channel).collect()
    }

    pub(super) fn brings_changes(&self, channel: &[u8]) -> bool {
        self.change_channels.iter().any(|known| known.as_bytes() == channel)
    }

    /// What is listened on already is reported again when there is something new to come on it.
    pub(super) fn listen(&mut self, link: &mut Link) {
        let is_new = std::mem::take(&mut self.is_new);
        for channel in self.channels() {
            if is_new && link.channels.is_wanted(&channel) {
                link.channels.confirm(channel);
            } else {
                link.channels.subscribe(channel);
            }
        }
    }
}
