//! What the caller gets: changes and gaps of the page at hand, and what came as notifications. What it went
//! on from may be acknowledged.

use super::acknowledge::Passed;
use super::page::Row;
use super::{
    CONVERT, FETCH, LOOK_INTERVAL_MIN, Outbox, Request, WATCHED_PAYLOAD, encoding, trouble, unexpected,
};
use crate::error::{Error, ErrorKind, Result};
use crate::pq::Notify;
use crate::source::channels::ChannelSource;
use crate::source::{Pull, Report, WAKE_CHANNEL};
use std::time::Instant;

/// How many changes are delivered in one turn: other sessions have events, too.
const DELIVERED_MAX: u32 = 64;

impl ChannelSource {
    /// The next change or gap, or nothing when none is there. Some are delivered in a turn, and then others
    /// have theirs.
    pub(in crate::source) fn next_change(&mut self, now: Instant) -> Option<Pull> {
        let outbox = self.outbox.as_deref_mut()?;
        if outbox.delivered_in_turn >= DELIVERED_MAX && outbox.has_changes() {
            outbox.delivered_in_turn = 0;
            self.wants_turn = true;
            return Some(Pull::Idle);
        }
        // A caller that asks for more is done with what was delivered before.
        outbox.go_on(now);
        self.acknowledge(now);
        let outbox = self.outbox.as_deref_mut()?;
        if let Some(text) = outbox.notified.pop_front() {
            let pull = outbox.deliver(text);
            outbox.change.was_notified();
            return Some(pull);
        }
        let Some((row, position)) = outbox.page.as_mut()?.next_row() else {
            outbox.end_page(now);
            return None;
        };
        let what = if matches!(row, Row::Change(_)) { Passed::Change } else { Passed::Gap };
        outbox.delivered = Some((what, position));
        let channels = || outbox.channels().into_iter().collect();
        let gap = match row {
            Row::Change(text) => return Some(outbox.deliver(text)),
            Row::Dropped(dropped) => {
                let message = "the outbox had no room for more, and changes that were not read are lost";
                Report::Overflow { channels: channels(), dropped, message }
            }
            Row::Replaced => Report::Replaced { channels: channels() },
        };
        Some(Pull::Report(Box::new(gap)))
    }

    /// Takes a notification that is not meant for the caller; gives back any other. Anybody may send one:
    /// only on a channel that brings changes is it taken for a change.
    #[cold]
    pub(in crate::source) fn watch_notified(&mut self, notify: Notify) -> Option<Notify> {
        let Some(outbox) = self.outbox.as_deref_mut() else { return Some(notify) };
        let is_wake_channel = notify.channel() == WAKE_CHANNEL.as_bytes();
        if is_wake_channel && notify.payload() == WATCHED_PAYLOAD {
            let soon = outbox.looked_at.map(|at| at + LOOK_INTERVAL_MIN);
            outbox.look_at = [outbox.look_at, soon].into_iter().flatten().min();
            return None;
        }
        let brings_changes = outbox.change_channels.iter().any(|c| c.as_bytes() == notify.channel());
        let text = if brings_changes { String::from_utf8_lossy(notify.payload()) } else { "".into() };
        if outbox.change.read(&text) {
            // What it refers to is fetched, what is in another encoding is converted. Meanwhile no further
            // notification is taken.
            if let Some(reference) = outbox.change.reference() {
                let encoding = encoding(outbox.is_converted);
                self.ask_first(Request::Fetch, FETCH, &[reference.to_string().as_bytes(), encoding]);
            } else if outbox.is_converted && !notify.payload().is_ascii() {
                outbox.converting = Some(text.into_owned());
                self.ask_first(Request::Convert, CONVERT, &[notify.payload()]);
            } else {
                outbox.notified.push_back(text.into_owned());
            }
            return None;
        }
        if outbox.has_outbox && is_wake_channel {
            outbox.pace.wake_up();
            return None;
        }
        Some(notify)
    }

    /// Acknowledges all changes up to this one.
    pub(crate) fn ack(&mut self, id: u64, now: Instant) -> Result<()> {
        let outbox = self.outbox.as_deref_mut();
        let outbox =
            outbox.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "the session watches no table"))?;
        let is_last = outbox.delivered.as_ref().is_some_and(|(_, position)| position.number == Some(id));
        if is_last && outbox.options.manual_ack {
            outbox.go_on(now);
        }
        outbox.acknowledgements.acknowledge(id, now)?;
        self.acknowledge(now);
        Ok(())
    }
}

impl Outbox {
    /// The caller went on from what was delivered last.
    pub(super) fn go_on(&mut self, now: Instant) {
        if let Some((what, position)) = self.delivered.take() {
            self.acknowledgements.passed(what, position, now);
        }
    }

    /// The caller has all of the page.
    fn end_page(&mut self, now: Instant) {
        let Some(page) = self.page.take() else { return };
        self.pace.page_ended(now, page.advice, page.changes);
        if self.position != page.end {
            self.position = page.end.clone();
            self.acknowledgements.passed(Passed::Page(page.changes), page.end, now);
        }
    }

    /// What is no change is left out.
    fn deliver(&mut self, text: String) -> Pull {
        self.text = text;
        self.delivered_in_turn += 1;
        if self.change.read(&self.text) {
            return Pull::Change;
        }
        self.delivered = None;
        Pull::Report(Box::new(trouble(unexpected())))
    }
}
