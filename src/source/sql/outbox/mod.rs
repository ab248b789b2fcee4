//! Row changes over a session: what the outbox of the schema `pgwake` holds is read page by page, what comes
//! as notifications is taken apart. `install/README.md` is the protocol.
//!
//! Promise: what goes through the outbox comes at least once, with an id by which it is known again; the
//! changes of one row come in their order. What is only notified comes at most once.

mod acknowledge;
mod pace;
mod page;
mod reading;
mod statements;
mod tables;
#[cfg(test)]
mod tests;
mod watching;

use super::advice::{WATCHING, advised};
use super::link::{Link, WAKE_CHANNEL};
use super::readers::Reader;
use super::refusals::Refusals;
use super::statements::{CONVERT, FETCH, WATCHED_PAYLOAD, encoding};
use super::tag::{OutboxRequest, Tag};
use crate::decode::row_change::RowChange;
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::{Change, SessionId, Transport};
use crate::options::WatchOptions;
use crate::pq::Notify;
use crate::session::Rows;
use crate::source::report::Report;
use acknowledge::{Acknowledgements, Passed};
use page::{Position, Row};
use reading::Reading;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Instant;
use watching::Watching;

/// How many changes are delivered in one turn: other sessions have events, too.
const DELIVERED_MAX: u32 = 64;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not begun, or to be begun anew.
    Closed,
    /// Whether and how the tables are watched.
    Looking,
    Opening,
    /// Nothing is asked.
    Open,
    Reading,
}

/// A reader of row changes.
#[derive(Debug)]
pub(super) struct Outbox {
    state: State,
    watching: Watching,
    reading: Reading,
    acknowledgements: Acknowledgements,
    /// When a closed one begins, or an open one is to be opened for other tables.
    open_at: Option<Instant>,
    /// Changes that came as notifications, and one that the server puts into UTF-8.
    notified: VecDeque<String>,
    converting: Option<String>,
    /// The change that was delivered last.
    change: RowChange,
    text: String,
    /// What of the page was delivered last, until the caller goes on from it.
    delivered: Option<(Passed, Position)>,
    delivered_in_turn: u32,
    refusals: Refusals<OutboxRequest>,
}

/// What a reader has for the caller.
#[derive(Debug)]
pub(super) enum Next {
    /// A change; [`Outbox::change`] has it.
    Change,
    Report(Report),
    /// There is more, and others have their turn first.
    Yield,
    Nothing,
}

impl Outbox {
    pub(super) fn new(options: WatchOptions) -> Result<Self> {
        let invalid = |message: &str| Error::new(ErrorKind::InvalidArgument, message);
        if options.tables.is_empty() {
            return Err(invalid("nothing to watch: name a table"));
        }
        if options.consumer.as_ref().is_some_and(String::is_empty) {
            return Err(invalid("the name of a consumer is empty: leave it out, or choose one"));
        }
        if options.transport == Some(Transport::Wal) {
            return Err(invalid(
                "the transport wal is read over a connection of its own: open a stream, or take outbox or \
                 notify",
            ));
        }
        Ok(Outbox {
            state: State::Closed,
            acknowledgements: Acknowledgements::new(options.manual_ack),
            reading: Reading::new(options.fallback()),
            watching: Watching::new(options),
            open_at: None,
            notified: VecDeque::new(),
            converting: None,
            change: RowChange::default(),
            text: String::new(),
            delivered: None,
            delivered_in_turn: 0,
            refusals: Refusals::default(),
        })
    }

    /// Whether changes wait that came as notifications.
    pub(super) fn has_notified(&self) -> bool {
        !self.notified.is_empty()
    }

    /// Whether changes wait to be delivered.
    pub(super) fn has_changes(&self) -> bool {
        self.has_notified() || self.reading.has_page()
    }

    /// The change that was delivered last.
    pub(super) fn change<'a>(&'a self, session: SessionId, db: &'a str) -> Option<Change<'a>> {
        self.change.as_event(session, db, &self.text)
    }

    /// The next change or gap. Some are delivered in a turn, and then others have theirs.
    pub(super) fn advance(&mut self, link: &mut Link, now: Instant) -> Next {
        if self.delivered_in_turn >= DELIVERED_MAX && self.has_changes() {
            self.delivered_in_turn = 0;
            return Next::Yield;
        }
        // A caller that asks for more is done with what was delivered before.
        self.go_on(now);
        self.acknowledge(link, now);
        if let Some(text) = self.notified.pop_front() {
            let next = self.deliver(text);
            self.change.was_notified();
            return next;
        }
        let Some((row, position)) = self.reading.next_row() else {
            if let Some((changes, end)) = self.reading.end_page(now) {
                self.acknowledgements.passed(Passed::Page(changes), end, now);
            }
            return Next::Nothing;
        };
        let what = if matches!(row, Row::Change(_)) { Passed::Change } else { Passed::Gap };
        self.delivered = Some((what, position));
        let channels = || self.watching.channels().into_iter().collect();
        Next::Report(match row {
            Row::Change(text) => return self.deliver(text),
            Row::Dropped(dropped) => {
                let message = "the outbox had no room for more, and changes that were not read are lost";
                Report::Overflow { channels: channels(), dropped, message }
            }
            Row::Replaced => Report::Replaced { channels: channels() },
        })
    }

    /// What is no change is left out.
    fn deliver(&mut self, text: String) -> Next {
        self.text = text;
        self.delivered_in_turn += 1;
        if self.change.read(&self.text) {
            return Next::Change;
        }
        self.delivered = None;
        Next::Report(trouble(unexpected()))
    }

    /// The caller went on from what was delivered last.
    fn go_on(&mut self, now: Instant) {
        if let Some((what, position)) = self.delivered.take() {
            self.acknowledgements.passed(what, position, now);
        }
    }

    /// Acknowledges all changes up to this one.
    pub(super) fn ack(&mut self, link: &mut Link, id: u64, now: Instant) -> Result<()> {
        let is_last = self.delivered.as_ref().is_some_and(|(_, position)| position.number == Some(id));
        if is_last && self.watching.options.manual_ack {
            self.go_on(now);
        }
        self.acknowledgements.acknowledge(id, now)?;
        self.acknowledge(link, now);
        Ok(())
    }

    /// Sends the position up to which all is done with, when it is time.
    fn acknowledge(&mut self, link: &mut Link, now: Instant) {
        if self.state == State::Open
            && let Some(position) = self.acknowledgements.take(now)
        {
            self.reading.acknowledge(link, &position);
        }
    }

    fn read_at(&self) -> Option<Instant> {
        let may_read = self.watching.has_outbox() && self.acknowledgements.has_room();
        may_read.then(|| self.reading.pace.next()).flatten()
    }

    /// Tries to begin again, later and later.
    fn begin_again(&mut self, now: Instant) {
        (self.state, self.reading.is_open) = (State::Closed, false);
        self.open_at = Some(now + self.refusals.next_delay(now));
    }

    fn begin_reading(&mut self, link: &mut Link, now: Instant) {
        (self.state, self.open_at) = (State::Looking, None);
        self.watching.begin(link, now);
    }

    /// How the tables are watched; and what all have read is cleaned away.
    fn look(&mut self, link: &mut Link, now: Instant) {
        if self.reading.is_open {
            link.send(Tag::Outbox(OutboxRequest::Rotate), Some(statements::ROTATE), &[]);
        }
        self.watching.look(link, now);
    }

    fn looked(&mut self, link: &mut Link, rows: Rows, now: Instant) {
        let Some(rows) = rows else { return self.refused(link, OutboxRequest::Look, unexpected(), now) };
        let is_first = self.state == State::Looking;
        if is_first {
            self.refusals.granted(OutboxRequest::Ensure);
        }
        self.refusals.granted(OutboxRequest::Look);
        let (is_new, troubles) = self.watching.looked(&rows);
        link.reports.extend(troubles.into_iter().map(trouble));
        let has_outbox = self.watching.has_outbox();
        if is_first && has_outbox {
            self.open_consumer(link);
        } else if is_first {
            self.state = State::Open;
            self.refusals.recovered();
            self.watching.listen(link);
        } else if is_new && has_outbox {
            self.open_at = Some(now);
        } else if is_new {
            self.watching.listen(link);
        }
    }

    fn open_consumer(&mut self, link: &mut Link) {
        (self.state, self.open_at) = (State::Opening, None);
        let options = &self.watching.options;
        let tables = self.watching.oids();
        self.reading.open(link, options.consumer.as_deref(), &tables, options.from_start);
    }

    fn consumer_opened(&mut self, link: &mut Link, rows: Rows, now: Instant) {
        let Some(begins) = self.reading.opened(rows.as_ref(), now) else {
            return self.refused(link, OutboxRequest::Open, unexpected(), now);
        };
        self.refusals.granted(OutboxRequest::Open);
        self.state = State::Open;
        // What the database keeps counts, and what was not acknowledged comes again.
        if begins {
            self.go_on(now);
            self.acknowledgements.begin();
        }
        self.watching.listen(link);
    }

    fn page_read(&mut self, link: &mut Link, rows: Rows, now: Instant) {
        if !self.reading.page_read(rows, now) {
            return self.refused(link, OutboxRequest::Read, unexpected(), now);
        }
        self.state = State::Open;
        self.refusals.granted(OutboxRequest::Read);
        // A consumer that cannot be opened for further tables is tried less and less often all the same.
        if self.open_at.is_none() {
            self.refusals.recovered();
        }
    }

    /// What a notification referred to, or its text in UTF-8. Nothing else waits meanwhile.
    fn fetched(&mut self, link: &mut Link, rows: Rows) {
        let texts = rows.iter().flat_map(|rows| (0..rows.rows()).filter_map(|row| rows.value(row, 0)));
        self.notified.extend(texts.map(|text| String::from_utf8_lossy(text).into_owned()));
        self.converting = None;
        if self.notified.is_empty() {
            let message = "changes that were too large for a notification are gone from the outbox";
            let error = Error::new(ErrorKind::Server, message);
            link.reports.push_back(trouble(error.with_sqlstate(Some(SqlState::UNDEFINED_OBJECT))));
        }
    }

    /// Takes a notification that brings a change. What it refers to is fetched, what is in another encoding
    /// is converted; meanwhile no further notification is taken.
    fn change_heard(&mut self, link: &mut Link, notify: &Notify, text: &str) {
        if let Some(reference) = self.change.reference() {
            let (reference, encoding) = (reference.to_string(), encoding(link.is_converted()));
            link.send(Tag::Outbox(OutboxRequest::Fetch), Some(FETCH), &[reference.as_bytes(), encoding]);
        } else if !notify.payload().is_ascii() && link.is_converted() {
            self.converting = Some(text.into());
            link.send(Tag::Outbox(OutboxRequest::Convert), Some(CONVERT), &[notify.payload()]);
        } else {
            self.notified.push_back(text.into());
        }
    }

    /// Tables were refused that were to be watched, so nothing is read. What is of no use to try again leaves
    /// the session free to watch something else.
    fn tables_refused(&mut self, link: &mut Link, refused: Vec<Error>, now: Instant) -> ControlFlow<()> {
        let mut may_pass = true;
        for error in refused {
            may_pass &= error.sqlstate.is_some_and(|code| code.may_pass());
            if self.refusals.is_news(OutboxRequest::Ensure, &error) {
                link.reports.push_back(trouble(advised(error, WATCHING)));
            }
        }
        if !may_pass {
            return ControlFlow::Break(());
        }
        self.begin_again(now);
        ControlFlow::Continue(())
    }

    /// The server does not let us read. That is tried again, and reported once.
    fn refused(&mut self, link: &mut Link, request: OutboxRequest, error: Error, now: Instant) {
        let is_about_characters = error.sqlstate.is_some_and(|code| code.is_about_characters());
        match request {
            OutboxRequest::Look if self.state != State::Looking => {}
            OutboxRequest::Read if is_about_characters && self.reading.read_raw(link, now) => {
                // What UTF-8 has not is delivered as well as may be, and with it its page.
                self.state = State::Open;
                return;
            }
            OutboxRequest::Read if error.sqlstate != Some(SqlState::UNDEFINED_OBJECT) => {
                self.state = State::Open;
                self.reading.put_off(now + self.refusals.next_delay(now));
            }
            // One that may not be opened for further tables goes on with those that it has. One that was
            // dropped is opened anew.
            OutboxRequest::Open if self.reading.is_open => {
                self.begin_again(now);
                (self.state, self.reading.is_open) = (State::Open, true);
            }
            OutboxRequest::Look | OutboxRequest::Open | OutboxRequest::Read => self.begin_again(now),
            OutboxRequest::Acknowledge => self.acknowledgements.refused(now),
            OutboxRequest::Fetch => return link.reports.push_back(trouble(advised(error, WATCHING))),
            // It is delivered as well as may be.
            OutboxRequest::Convert => return self.notified.extend(self.converting.take()),
            OutboxRequest::Settings | OutboxRequest::Ensure | OutboxRequest::Rotate => {}
        }
        if self.refusals.is_news(request, &error) {
            link.reports.push_back(trouble(advised(error, WATCHING)));
        }
    }
}

impl Reader for Outbox {
    type Request = OutboxRequest;

    #[cold]
    fn opened(&mut self, link: &mut Link, now: Instant) {
        (self.state, self.open_at) = (State::Closed, Some(now));
        self.reading.connected();
        link.make_lasting();
        link.send(Tag::Outbox(OutboxRequest::Settings), Some(statements::SETTINGS), &[]);
    }

    /// What was read is delivered all the same.
    #[cold]
    fn lost(&mut self) {
        (self.state, self.open_at, self.converting) = (State::Closed, None, None);
    }

    /// Anybody may notify: only on a channel that brings changes is a notification taken for a change.
    #[cold]
    fn heard(&mut self, link: &mut Link, notify: Notify) -> Option<Notify> {
        let is_wake_channel = notify.channel() == WAKE_CHANNEL.as_bytes();
        if is_wake_channel && notify.payload() == WATCHED_PAYLOAD {
            self.watching.look_soon();
            return None;
        }
        if self.watching.brings_changes(notify.channel()) {
            let text = String::from_utf8_lossy(notify.payload());
            if self.change.read(&text) {
                self.change_heard(link, &notify, &text);
                return None;
            }
        }
        if is_wake_channel && self.watching.has_outbox() {
            self.reading.pace.wake_up();
            return None;
        }
        Some(notify)
    }

    #[cold]
    fn answered(
        &mut self,
        link: &mut Link,
        request: OutboxRequest,
        answer: Result<Rows>,
        now: Instant,
    ) -> ControlFlow<()> {
        match (request, answer) {
            (OutboxRequest::Ensure, Err(error)) => self.watching.refused(error),
            (OutboxRequest::Look, answer) => match (self.watching.take_refused(), answer) {
                (Some(refused), _) => return self.tables_refused(link, refused, now),
                (None, Ok(rows)) => self.looked(link, rows, now),
                (None, Err(error)) => self.refused(link, request, error, now),
            },
            (OutboxRequest::Open, Ok(rows)) => self.consumer_opened(link, rows, now),
            (OutboxRequest::Read, Ok(rows)) => self.page_read(link, rows, now),
            (OutboxRequest::Fetch | OutboxRequest::Convert, Ok(rows)) => self.fetched(link, rows),
            (OutboxRequest::Acknowledge, Ok(_)) => {
                self.refusals.granted(OutboxRequest::Acknowledge);
                let acknowledged = self.acknowledgements.answered();
                link.reports.extend(acknowledged.map(|id| Report::Acknowledged { id }));
            }
            (OutboxRequest::Settings | OutboxRequest::Ensure | OutboxRequest::Rotate, Ok(_)) => {}
            (request, Err(error)) => self.refused(link, request, error, now),
        }
        ControlFlow::Continue(())
    }

    /// What is done with is acknowledged before.
    #[cold]
    fn step(&mut self, link: &mut Link, now: Instant) -> bool {
        self.delivered_in_turn = 0;
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match self.state {
            State::Closed if is_due(self.open_at) => self.begin_reading(link, now),
            State::Open if self.reading.has_page() => return false,
            State::Open if is_due(self.open_at) => self.open_consumer(link),
            State::Open if is_due(self.watching.look_at()) => self.look(link, now),
            State::Open if is_due(self.read_at()) => {
                self.state = State::Reading;
                self.reading.read(link, now);
            }
            _ => return false,
        }
        true
    }

    fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Closed => self.open_at,
            State::Open if !self.reading.has_page() => {
                let times =
                    [self.open_at, self.watching.look_at(), self.read_at(), self.acknowledgements.due()];
                times.into_iter().flatten().min()
            }
            _ => None,
        }
    }
}

/// Reports that something is wrong with what is watched.
fn trouble(error: Error) -> Report {
    Report::CommandFailed { command: "watch", channel: None, error }
}

fn unexpected() -> Error {
    let message = "the schema pgwake of this database answers in a way that is unknown here";
    Error::new(ErrorKind::Server, message).with_sqlstate(Some(SqlState::PROTOCOL_VIOLATION))
}
