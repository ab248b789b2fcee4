//! What the reader asks of the server, step by step, and what it makes of the answers.

use super::page::{Page, Position};
use super::statements as sql;
use super::{LOOK_INTERVAL, Outbox, Request, State, array, encoding, in_utf8, trouble, unexpected};
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::Transport;
use crate::options::{ChangePayload, WatchOptions};
use crate::session::{Command, Rows};
use crate::source::Report;
use crate::source::advice::{WATCHING, advised};
use crate::source::channels::{Batch, ChannelSource};
use std::time::Instant;

impl ChannelSource {
    pub(crate) fn watch(&mut self, options: WatchOptions, now: Instant) -> Result<()> {
        self.refuse_if_failed()?;
        if self.outbox.is_some() {
            let message = "the session watches already: name all tables at once, or connect another session";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.outbox = Some(Box::new(Outbox::new(options)?));
        self.readers_changed();
        self.begin_watch(now);
        Ok(())
    }

    /// All channels listen on a new connection, or there is something to watch on the one there is.
    #[cold]
    pub(in crate::source) fn begin_watch(&mut self, now: Instant) {
        let is_converted = self.is_converted();
        let Some(outbox) = self.outbox.as_deref_mut().filter(|_| self.is_listening) else { return };
        outbox.connected(now, is_converted);
        self.make_lasting();
        self.ask(Request::Settings, sql::SETTINGS, &[]);
    }

    /// Whether the database has another encoding than UTF-8, and what it holds can be converted.
    pub(in crate::source) fn is_converted(&mut self) -> bool {
        let encoding = self.session.connection().map(|connection| connection.parameter(c"server_encoding"));
        !matches!(encoding.as_deref(), Some("UTF8" | "SQL_ASCII") | None)
    }

    /// Sends what is due; `false` when nothing is. What is done with is acknowledged before.
    #[cold]
    pub(in crate::source) fn watch_step(&mut self, now: Instant) -> bool {
        let Some(outbox) = self.outbox.as_deref_mut() else { return false };
        outbox.delivered_in_turn = 0;
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match outbox.state {
            State::Closed if is_due(outbox.open_at) => self.begin_reading(now),
            State::Open if outbox.page.is_some() => return false,
            State::Open if is_due(outbox.open_at) => self.open_consumer(),
            State::Open if is_due(outbox.look_at) => self.look(now),
            State::Open if is_due(outbox.read_at()) => self.read_on(now),
            _ => return false,
        }
        true
    }

    fn ask(&mut self, request: Request, sql: &[u8], parameters: &[&[u8]]) {
        self.session.send(std::iter::once(Command::Run { sql, parameters }));
        self.unanswered.push_back(Batch::Outbox(request));
    }

    /// Asks for what comes before the next notification.
    pub(super) fn ask_first(&mut self, request: Request, sql: &[u8], parameters: &[&[u8]]) {
        self.ask(request, sql, parameters);
        self.fetches += 1;
    }

    /// Makes sure that the tables are watched, until they were once: what somebody does to that later is not
    /// undone. In any case it looks how they are.
    fn begin_reading(&mut self, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        (outbox.state, outbox.open_at, outbox.refused) = (State::Looking, None, Vec::new());
        if !outbox.is_ensured {
            let options = outbox.options.clone();
            let make = if options.only_watched { "false" } else { "true" };
            let ops = array(options.ops.iter().map(|op| op.as_str()));
            let payload = options.payload.as_ref().map_or("", ChangePayload::as_str);
            let transport = options.transport.as_ref().map_or("", Transport::as_str);
            let columns = in_utf8(&array(options.columns.iter().map(String::as_str)));
            let timing = options.before.map_or("", |before| if before { "before" } else { "after" });
            for table in &options.tables {
                let texts = [&in_utf8(table), make, &ops, payload, transport, &columns, timing];
                self.ask(Request::Ensure, sql::ENSURE, &texts.map(str::as_bytes));
            }
        }
        self.look(now);
    }

    /// How the tables are watched; and what all have read is cleaned away.
    fn look(&mut self, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        (outbox.looked_at, outbox.look_at) = (Some(now), Some(now + LOOK_INTERVAL));
        let (names, oids) = (in_utf8(&array(outbox.tables.names())), array(outbox.tables.known_oids()));
        if outbox.is_open {
            self.ask(Request::Rotate, sql::ROTATE, &[]);
        }
        self.ask(Request::Look, sql::LOOK, &[names.as_bytes(), oids.as_bytes()]);
    }

    fn looked(&mut self, rows: Rows, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let Some(rows) = rows else { return self.watch_refused(Request::Look, unexpected(), now) };
        let is_first = outbox.state == State::Looking;
        if is_first {
            outbox.refusals.granted(Request::Ensure);
            outbox.is_ensured = true;
        }
        outbox.refusals.granted(Request::Look);
        let (is_new, troubles) = outbox.tables.looked(&rows);
        self.reports.extend(troubles.into_iter().map(trouble));
        outbox.is_new |= is_new;
        outbox.has_outbox |= outbox.tables.has_outbox();
        outbox.change_channels.extend(outbox.tables.change_channels().cloned());
        if is_first && outbox.has_outbox {
            self.open_consumer();
        } else if is_first {
            outbox.state = State::Open;
            outbox.refusals.recovered();
            self.listen_for_changes();
        } else if is_new && outbox.has_outbox {
            outbox.open_at = Some(now);
        } else if is_new {
            self.listen_for_changes();
        }
    }

    /// What is listened on already is reported again when there is something new to come on it.
    fn listen_for_changes(&mut self) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let is_new = std::mem::take(&mut outbox.is_new);
        for channel in outbox.channels() {
            if is_new && self.wanted.contains(&channel) {
                self.listened.insert(channel);
            } else {
                // It cannot have failed: it has just answered.
                let _ = self.listen(channel);
            }
        }
    }

    /// Under the caller's name, or the one that the server gave when it was opened first, which is ASCII.
    fn open_consumer(&mut self) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        (outbox.state, outbox.open_at) = (State::Opening, None);
        let generated = String::from_utf8_lossy(&outbox.consumer);
        let name = in_utf8(outbox.options.consumer.as_deref().unwrap_or(&generated));
        let tables = array(outbox.tables.all_oids());
        let from_start = if outbox.options.from_start { "true" } else { "false" };
        self.ask(Request::Open, sql::OPEN, &[&name, &tables, from_start].map(str::as_bytes));
    }

    fn opened(&mut self, rows: Rows, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let value = |column| rows.as_ref().and_then(|rows| rows.value(0, column));
        let (Some(consumer), Some(position)) = (value(0), value(1)) else {
            return self.watch_refused(Request::Open, unexpected(), now);
        };
        outbox.refusals.granted(Request::Open);
        outbox.state = State::Open;
        // One that was open for other tables goes on from where it is. Otherwise what the database keeps
        // counts, and what was not acknowledged comes again.
        if !std::mem::replace(&mut outbox.is_open, true) {
            (outbox.consumer, outbox.position) = (consumer.to_vec(), Position::of(position));
            outbox.go_on(now);
            outbox.page = None;
            outbox.acknowledgements.begin();
        }
        outbox.pace.begin(now);
        self.listen_for_changes();
    }

    fn read_on(&mut self, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        outbox.state = State::Reading;
        outbox.pace.asked(now);
        let position = outbox.position.to_string();
        let parameters = [&outbox.consumer, position.as_bytes(), encoding(outbox.reads_converted)];
        let (name, sql) = (sql::READ_NAME, sql::READ);
        // An attempt that failed may have prepared it or not.
        let deallocate = Command::Run { sql: sql::DEALLOCATE, parameters: &[] };
        let prepare = Command::Prepare { name, sql, parameters: parameters.len() };
        let prepare = [deallocate, prepare].into_iter().filter(|_| !outbox.is_prepared);
        self.session.send(prepare.chain([Command::RunPrepared { name, parameters: &parameters }]));
        self.unanswered.push_back(Batch::Outbox(Request::Read));
    }

    fn page_read(&mut self, rows: Rows, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let Some(page) = rows.and_then(|rows| Page::new(rows, &outbox.position)) else {
            return self.watch_refused(Request::Read, unexpected(), now);
        };
        (outbox.state, outbox.page) = (State::Open, Some(page));
        (outbox.is_prepared, outbox.reads_converted) = (true, outbox.is_converted);
        outbox.pace.answered(now);
        outbox.refusals.granted(Request::Read);
        // A consumer that cannot be opened for further tables is tried less and less often all the same.
        if outbox.open_at.is_none() {
            outbox.refusals.recovered();
        }
    }

    /// Sends the position up to which all is done with, when it is time.
    pub(super) fn acknowledge(&mut self, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut().filter(|outbox| outbox.state == State::Open) else {
            return;
        };
        let Some(position) = outbox.acknowledgements.take(now) else { return };
        let consumer = outbox.consumer.clone();
        self.ask(Request::Acknowledge, sql::ACKNOWLEDGE, &[&consumer, position.as_bytes()]);
    }

    #[cold]
    pub(in crate::source) fn watch_answered(&mut self, request: Request, answer: Result<Rows>, now: Instant) {
        if matches!(request, Request::Fetch | Request::Convert) {
            self.fetches = self.fetches.saturating_sub(1);
        }
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        match (request, answer) {
            (Request::Ensure, Err(error)) => outbox.refused.push(error),
            (Request::Look, _) if !outbox.refused.is_empty() => self.tables_refused(now),
            (Request::Look, Ok(rows)) => self.looked(rows, now),
            (Request::Open, Ok(rows)) => self.opened(rows, now),
            (Request::Read, Ok(rows)) => self.page_read(rows, now),
            (Request::Fetch | Request::Convert, Ok(rows)) => self.fetched(rows),
            (Request::Acknowledge, Ok(_)) => {
                outbox.refusals.granted(Request::Acknowledge);
                self.reports.extend(outbox.acknowledgements.answered().map(|id| Report::Acknowledged { id }));
            }
            (Request::Settings | Request::Ensure | Request::Rotate, Ok(_)) => {}
            (request, Err(error)) => self.watch_refused(request, error, now),
        }
    }

    /// What a notification referred to, or its text in UTF-8. Nothing else waits meanwhile.
    fn fetched(&mut self, rows: Rows) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let texts = rows.iter().flat_map(|rows| (0..rows.rows()).filter_map(|row| rows.value(row, 0)));
        outbox.notified.extend(texts.map(|text| String::from_utf8_lossy(text).into_owned()));
        outbox.converting = None;
        if outbox.notified.is_empty() {
            let message = "changes that were too large for a notification are gone from the outbox";
            let error = Error::new(ErrorKind::Server, message);
            self.reports.push_back(trouble(error.with_sqlstate(Some(SqlState::UNDEFINED_OBJECT))));
        }
    }

    /// Tables were refused that were to be watched, so nothing is read. What is of no use to try again leaves
    /// the session free to watch something else.
    fn tables_refused(&mut self, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let mut may_pass = true;
        for error in std::mem::take(&mut outbox.refused) {
            may_pass &= error.sqlstate.is_some_and(|code| code.may_pass());
            if outbox.refusals.is_news(Request::Ensure, &error) {
                self.reports.push_back(trouble(advised(error, WATCHING)));
            }
        }
        if may_pass {
            return outbox.begin_again(now);
        }
        self.outbox = None;
        self.readers_changed();
    }

    /// The server does not let us read. That is tried again, and reported once.
    fn watch_refused(&mut self, request: Request, error: Error, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let is_about_characters = error.sqlstate.is_some_and(|code| code.is_about_characters());
        match request {
            Request::Look if outbox.state != State::Looking => {}
            Request::Read if outbox.reads_converted && is_about_characters => {
                // What UTF-8 has not is delivered as well as may be, and with it its page.
                (outbox.state, outbox.reads_converted) = (State::Open, false);
                return outbox.pace.put_off(now);
            }
            Request::Read if error.sqlstate != Some(SqlState::UNDEFINED_OBJECT) => {
                (outbox.state, outbox.is_prepared) = (State::Open, false);
                outbox.pace.put_off(now + outbox.refusals.next_delay(now));
            }
            // One that may not be opened for further tables goes on with those that it has. One that was
            // dropped is opened anew.
            Request::Open if outbox.is_open => {
                outbox.begin_again(now);
                (outbox.state, outbox.is_open) = (State::Open, true);
            }
            Request::Look | Request::Open | Request::Read => outbox.begin_again(now),
            Request::Acknowledge => outbox.acknowledgements.refused(now),
            Request::Fetch => return self.reports.push_back(trouble(advised(error, WATCHING))),
            // It is delivered as well as may be.
            Request::Convert => return outbox.notified.extend(outbox.converting.take()),
            Request::Settings | Request::Ensure | Request::Rotate => {}
        }
        if outbox.refusals.is_news(request, &error) {
            self.reports.push_back(trouble(advised(error, WATCHING)));
        }
    }
}
