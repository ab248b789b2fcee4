//! What the reader of the outbox asks of the server, step by step, and what it makes of the answers.

use super::page::{Page, Row};
use super::{
    ACKNOWLEDGE_SQL, ENSURE_SQL, FETCH_SQL, ISOLATION_SQL, OPEN_SQL, Outbox, READ_CONVERTED_NAME,
    READ_CONVERTED_SQL, READ_NAME, READ_SQL, RETRY, ROTATE_INTERVAL, ROTATE_SQL, State, Step, TOLD_MAX, Told,
    advised, array, unexpected,
};
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::Channel;
use crate::options::WatchOptions;
use crate::session::{Command, Rows};
use crate::source::channels::{Batch, ChannelSource};
use crate::source::{Pull, Report, WAKE_CHANNEL};
use std::time::Instant;

impl ChannelSource {
    /// The next change, or nothing when none is there. Some are told in a turn, and then others have theirs.
    pub(in crate::source) fn tell_change(&mut self, now: Instant) -> Option<Pull> {
        let outbox = self.outbox.as_deref_mut()?;
        if outbox.told_in_turn >= TOLD_MAX && outbox.has_changes() {
            outbox.told_in_turn = 0;
            let is_ack_due = outbox.acknowledgements.due().is_some_and(|at| at <= now);
            if is_ack_due && outbox.state == State::Open {
                self.acknowledge();
            }
            self.wants_turn = true;
            return Some(Pull::Idle);
        }
        // Whoever asks for more is done with what was told before.
        if let (Told::Row(_) | Told::RowText, Some(page)) = (&outbox.told, outbox.pages.front()) {
            outbox.acknowledgements.done(outbox.change.id(), page.prefix(), now);
        }
        outbox.told = Told::Nothing;
        // What was fetched comes before what was heard after it.
        if !outbox.pages.iter().all(Page::has_end)
            && let Some(pull) = self.tell_from_page(now)
        {
            return Some(pull);
        }
        match self.tell_heard() {
            Some(pull) => Some(pull),
            None => self.tell_from_page(now),
        }
    }

    fn tell_heard(&mut self) -> Option<Pull> {
        let outbox = self.outbox.as_deref_mut()?;
        let Some(reference) = outbox.tell_heard()? else {
            outbox.told_in_turn += 1;
            return Some(Pull::Change);
        };
        outbox.told = Told::Nothing;
        self.ask(Step::Fetch, FETCH_SQL, &[reference.to_string().as_bytes()]);
        self.fetches += 1;
        None
    }

    fn tell_from_page(&mut self, now: Instant) -> Option<Pull> {
        let outbox = self.outbox.as_deref_mut()?;
        while let Some(page) = outbox.pages.front_mut() {
            match page.next_row() {
                Some(Row::Change(row)) => {
                    if outbox.tell_row(row) {
                        outbox.told_in_turn += 1;
                        return Some(Pull::Change);
                    }
                    log::warn!("a row of the outbox holds no change, and was left out");
                }
                Some(Row::Gap(dropped)) => {
                    let channels = outbox.channels.iter().cloned().collect();
                    let message = "the outbox had no room for more, and changes that were not read are lost";
                    return Some(Pull::Report(Box::new(Report::Overflow { channels, dropped, message })));
                }
                None => outbox.end_page(now),
            }
        }
        None
    }

    /// Sends what is due; `false` when nothing is.
    #[cold]
    pub(in crate::source) fn watch_step(&mut self, now: Instant) -> bool {
        let Some(outbox) = self.outbox.as_deref_mut() else { return false };
        outbox.told_in_turn = 0;
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match outbox.state {
            State::Closed { at } if is_due(at) => self.ensure_watched(),
            State::Open if !outbox.pages.is_empty() => return false,
            State::Open if is_due(outbox.acknowledgements.due()) => self.acknowledge(),
            State::Open if is_due(outbox.rotate_at) => {
                outbox.rotate_at = Some(now + ROTATE_INTERVAL);
                self.ask(Step::Rotate, ROTATE_SQL, &[]);
            }
            State::Open if is_due(outbox.read_at()) => self.read_on(now),
            _ => return false,
        }
        true
    }

    pub(crate) fn watch(&mut self, options: WatchOptions, now: Instant) -> Result<()> {
        self.refuse_if_failed()?;
        if self.outbox.is_some() {
            let message = "the session watches already: name all tables at once, or connect another session";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.outbox = Some(Box::new(Outbox::new(options)?));
        self.is_plain = false;
        self.begin_watch(now);
        Ok(())
    }

    /// All channels listen on a new connection, or there is something to watch on the one there is.
    #[cold]
    pub(in crate::source) fn begin_watch(&mut self, now: Instant) {
        if !self.is_listening {
            return;
        }
        let encoding = self.session.connection().map(|connection| connection.parameter(c"server_encoding"));
        if let Some(outbox) = self.outbox.as_deref_mut() {
            outbox.connected(now, &encoding.unwrap_or_default());
        }
    }

    /// On a new connection, or after a refusal.
    fn ensure_watched(&mut self) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        match (outbox.is_ensured, outbox.has_outbox) {
            (true, true) => return self.open_consumer(),
            (true, false) => return outbox.state = State::Open,
            (false, _) => {}
        }
        let options = outbox.options.clone();
        outbox.state = State::Ensuring(options.tables.len());
        outbox.has_outbox = false;
        (outbox.channels, outbox.change_channels) = Default::default();
        let make = if options.only_watched { "false" } else { "true" };
        let ops = array(options.ops.iter().map(|op| op.as_str()));
        let payload = options.payload.map_or("", |payload| payload.as_str());
        let columns = array(options.columns.iter().map(String::as_str));
        for table in &options.tables {
            let texts = [table, make, &ops, payload, options.transport.as_str(), &columns];
            self.ask(Step::Ensure, ENSURE_SQL, &texts.map(str::as_bytes));
        }
    }

    fn open_consumer(&mut self) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        outbox.state = State::Opening;
        let (name, tables) = {
            let options = &outbox.options;
            (options.consumer.clone().unwrap_or_default(), array(options.tables.iter().map(String::as_str)))
        };
        let from_start = if outbox.options.from_start { "true" } else { "false" };
        self.ask(Step::Set, ISOLATION_SQL, &[]);
        self.ask(Step::Open, OPEN_SQL, &[&name, &tables, from_start].map(str::as_bytes));
    }

    fn read_on(&mut self, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        outbox.state = State::Reading;
        let stay_awake: &[u8] = if outbox.pace.asked(now) { b"true" } else { b"false" };
        let parameters: &[&[u8]] = &[outbox.consumer.as_bytes(), outbox.position.as_bytes(), stay_awake];
        let (name, sql) = match outbox.is_converted {
            true => (READ_CONVERTED_NAME, READ_CONVERTED_SQL),
            false => (READ_NAME, READ_SQL),
        };
        if !std::mem::replace(&mut outbox.is_prepared, true) {
            self.session.send(std::iter::once(Command::Prepare { name, sql, parameters: 3 }));
            self.unanswered.push_back(Batch::Outbox(Step::Prepare));
        }
        self.session.send(std::iter::once(Command::RunPrepared { name, parameters }));
        self.unanswered.push_back(Batch::Outbox(Step::Read));
    }

    fn acknowledge(&mut self) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let position = outbox.acknowledgements.take(&outbox.position);
        let consumer = outbox.consumer.clone();
        let parameters = [consumer.as_bytes(), position.as_bytes()];
        self.ask(Step::Acknowledge, ACKNOWLEDGE_SQL, &parameters);
    }

    fn ask(&mut self, step: Step, sql: &[u8], parameters: &[&[u8]]) {
        self.session.send(std::iter::once(Command::Run { sql, parameters }));
        self.unanswered.push_back(Batch::Outbox(step));
    }

    #[cold]
    pub(in crate::source) fn watch_answered(&mut self, step: Step, answer: Result<Rows>, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        match (step, answer) {
            (Step::Ensure, Ok(rows)) => self.ensured(rows, now),
            (Step::Open, Ok(rows)) => self.opened(rows, now),
            (Step::Read, Ok(rows)) => self.page_read(rows, now),
            (Step::Fetch, Ok(rows)) => self.fetched(rows),
            (Step::Set | Step::Prepare | Step::Rotate, Ok(_)) => {}
            (Step::Acknowledge, Ok(_)) => {
                let id = outbox.acknowledgements.answered();
                self.reports.extend(id.map(|id| Report::Acknowledged { id }));
            }
            (Step::Rotate, Err(error)) => log::info!("the outbox was not cleaned: {error}"),
            (step, Err(error)) => self.watch_refused(step, error, now),
        }
    }

    fn ensured(&mut self, rows: Rows, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let State::Ensuring(left) = outbox.state else { return };
        let value = |column| rows.as_ref().and_then(|rows| rows.value(0, column));
        match value(0) {
            Some(b"outbox") => {
                outbox.has_outbox = true;
                outbox.channels.insert(Channel::of_name(WAKE_CHANNEL));
            }
            Some(b"notify") => {
                let channel = value(1).map(Channel::new);
                let channel = channel.and_then(Result::ok).unwrap_or_else(|| Channel::of_name(WAKE_CHANNEL));
                outbox.channels.insert(channel.clone());
                outbox.change_channels.insert(channel);
            }
            _ => {
                let message = "the table is watched through the write-ahead log, which is read by logical \
                    replication: to read its changes here, unwatch it first";
                let error = Error::new(ErrorKind::Server, message);
                let error = error.with_sqlstate(Some(SqlState::FEATURE_NOT_SUPPORTED));
                return self.watch_refused(Step::Ensure, error, now);
            }
        }
        outbox.state = State::Ensuring(left - 1);
        if left > 1 {
            return;
        }
        outbox.is_ensured = true;
        if outbox.has_outbox {
            return self.open_consumer();
        }
        outbox.state = State::Open;
        self.listen_for_changes();
    }

    fn listen_for_changes(&mut self) {
        let channels = self.outbox.as_deref().map(|outbox| outbox.channels.clone());
        for channel in channels.unwrap_or_default() {
            // It cannot have failed: it has just answered.
            let _ = self.listen(channel);
        }
    }

    fn opened(&mut self, rows: Rows, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let text = |column| Some(String::from_utf8_lossy(rows.as_ref()?.value(0, column)?).into_owned());
        let (Some(consumer), Some(position)) = (text(0), text(1)) else {
            return self.watch_refused(Step::Open, unexpected(), now);
        };
        (outbox.consumer, outbox.state, outbox.refusal) = (consumer, State::Open, None);
        outbox.rotate_at = Some(now + ROTATE_INTERVAL);
        let is_named = outbox.options.consumer.is_some();
        if is_named || outbox.position.is_empty() {
            // What the database keeps counts, also after an outage: it may be another server by now, which
            // has not all that we have seen. What was not acknowledged comes again.
            outbox.pages.clear();
            outbox.told = Told::Nothing;
            outbox.acknowledgements.begin_at(&position);
            outbox.position = position;
        } else {
            outbox.acknowledgements.repeat(now);
        }
        outbox.pace.begin(now);
        self.listen_for_changes();
    }

    fn page_read(&mut self, rows: Rows, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let page = rows.and_then(|rows| Page::new(rows, &outbox.position, outbox.is_converted));
        let Some(page) = page.filter(Page::has_end) else {
            return self.watch_refused(Step::Read, unexpected(), now);
        };
        (outbox.state, outbox.refusal) = (State::Open, None);
        outbox.pace.answered(now);
        outbox.pages.push_back(page);
    }

    /// The server does not let us watch, or read. What may pass is tried again, and told once.
    fn watch_refused(&mut self, step: Step, error: Error, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let has_other_characters = error.sqlstate.is_some_and(|code| code.is_about_characters());
        match (step, outbox.state) {
            // A table before it was refused already.
            (Step::Ensure, State::Closed { .. }) => return,
            // The table is locked, or the server was asked to end the command: that passes.
            (Step::Ensure, _) if error.sqlstate.is_some_and(|code| code.may_pass()) => {
                outbox.state = State::Closed { at: Some(now + 4 * RETRY) };
            }
            (Step::Ensure, _) => outbox.state = State::Closed { at: None },
            (Step::Open, _) => outbox.state = State::Closed { at: Some(now + RETRY) },
            (Step::Read, _) if error.sqlstate == Some(SqlState::UNDEFINED_OBJECT) => {
                // Somebody has dropped the consumer.
                outbox.state = State::Closed { at: Some(now + RETRY) };
                outbox.position.clear();
            }
            (Step::Read, _) if outbox.is_converted && has_other_characters => {
                // What has no place in UTF-8 is told as well as may be.
                (outbox.is_converted, outbox.is_prepared) = (false, false);
                outbox.state = State::Open;
                return outbox.pace.put_off(now);
            }
            (Step::Read, _) => {
                outbox.state = State::Open;
                outbox.pace.put_off(now + RETRY);
            }
            (Step::Acknowledge, _) => outbox.acknowledgements.refused(now),
            (Step::Prepare, _) => outbox.is_prepared = false,
            (Step::Fetch, _) => return self.miss_reference(advised(error)),
            (Step::Set | Step::Rotate, _) => {}
        }
        let code = error.sqlstate.unwrap_or(SqlState::PROTOCOL_VIOLATION);
        if outbox.refusal.replace(code) != Some(code) {
            let (command, channel, error) = ("watch", Channel::of_name(WAKE_CHANNEL), advised(error));
            self.reports.push_back(Report::CommandFailed { command, channel, error });
        }
    }

    /// What a notification referred to.
    fn fetched(&mut self, rows: Rows) {
        self.fetches = self.fetches.saturating_sub(1);
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        match rows.filter(|rows| rows.rows() > 0).and_then(|rows| Page::new(rows, "", false)) {
            Some(page) => outbox.pages.push_back(page),
            None => {
                let message = "changes that were too large for a notification are gone from the outbox";
                let error = Error::new(ErrorKind::Server, message);
                self.miss_reference(error.with_sqlstate(Some(SqlState::UNDEFINED_OBJECT)));
            }
        }
    }

    fn miss_reference(&mut self, error: Error) {
        self.fetches = 0;
        let channel = Channel::of_name(WAKE_CHANNEL);
        self.reports.push_back(Report::CommandFailed { command: "watch", channel, error });
    }

    /// Acknowledges all changes up to this one.
    pub(crate) fn ack(&mut self, id: u64, now: Instant) -> Result<()> {
        let outbox = self.outbox.as_deref_mut();
        let outbox =
            outbox.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "the session watches no table"))?;
        let is_row = matches!(outbox.told, Told::Row(_) | Told::RowText);
        let is_told_last = is_row && outbox.change.id() == Some(id);
        if is_told_last && let Some(page) = outbox.pages.front() {
            outbox.acknowledgements.done(Some(id), page.prefix(), now);
            outbox.told = Told::Nothing;
        }
        outbox.acknowledgements.ack(id, now)?;
        if outbox.state == State::Open && outbox.acknowledgements.due().is_some() {
            self.acknowledge();
        }
        Ok(())
    }
}
