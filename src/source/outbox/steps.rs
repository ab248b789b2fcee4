//! What the reader of the outbox asks of the server, step by step, and what it makes of the answers.

use super::page::{Page, Row};
use super::place::{forget_marks, is_elsewhere, split_place, xid_max};
use super::refusals::advised;
use super::statements as sql;
use super::tables::wal;
use super::{LOOK_INTERVAL, Outbox, State, Step, TOLD_MAX, Told, array, in_utf8, unexpected};
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
        if outbox.heard_change.reference().is_none() && outbox.must_convert() {
            let notify = outbox.heard.take()?;
            self.ask(Step::Convert, sql::CONVERT, &[notify.payload()]);
            self.outbox.as_deref_mut()?.converting = Some(notify);
        } else {
            let Some(reference) = outbox.tell_heard()? else {
                outbox.told_in_turn += 1;
                return Some(Pull::Change);
            };
            outbox.told = Told::Nothing;
            let fetch = sql::fetch(outbox.is_converted);
            self.ask(Step::Fetch, fetch, &[reference.to_string().as_bytes()]);
        }
        self.fetches += 1;
        None
    }

    fn tell_from_page(&mut self, now: Instant) -> Option<Pull> {
        let outbox = self.outbox.as_deref_mut()?;
        while let Some(page) = outbox.pages.front_mut() {
            match page.next_row() {
                Some(Row::Change(row)) => {
                    if !outbox.tell_row(row) {
                        // It is left out.
                        let (command, channel) = ("watch", Channel::of_name(WAKE_CHANNEL));
                        let report = Report::CommandFailed { command, channel, error: unexpected() };
                        return Some(Pull::Report(Box::new(report)));
                    } else if !outbox.was_told_early(now) {
                        outbox.told_in_turn += 1;
                        return Some(Pull::Change);
                    }
                }
                Some(Row::Settled(row)) => outbox.acknowledgements.lost(outbox.early.settle(row)),
                Some(Row::Gap(dropped)) => {
                    let channels = outbox.channels.iter().cloned().collect();
                    let message = "the outbox had no room for more, and changes that were not read are lost";
                    return Some(Pull::Report(Box::new(Report::Overflow { channels, dropped, message })));
                }
                Some(Row::Replaced) => {
                    let channels = outbox.channels.iter().cloned().collect();
                    return Some(Pull::Report(Box::new(Report::Replaced { channels })));
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
            State::Closed { at } if is_due(at) => self.ensure_watched(now),
            State::Open if !outbox.pages.is_empty() => return false,
            State::Open if is_due(outbox.acknowledgements.due()) => self.acknowledge(),
            State::Open if is_due(outbox.open_at) => self.open_consumer(),
            State::Open if is_due(outbox.look_at) => self.look(now),
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
        self.readers_changed();
        self.begin_watch(now);
        Ok(())
    }

    /// All channels listen on a new connection, or there is something to watch on the one there is.
    #[cold]
    pub(in crate::source) fn begin_watch(&mut self, now: Instant) {
        if !self.is_listening {
            return;
        }
        let is_converted = self.is_converted();
        if let Some(outbox) = self.outbox.as_deref_mut() {
            outbox.connected(now, is_converted);
        }
    }

    /// Whether the database has another encoding than UTF-8, and what it holds can be converted.
    pub(in crate::source) fn is_converted(&mut self) -> bool {
        let encoding = self.session.connection().map(|connection| connection.parameter(c"server_encoding"));
        !matches!(encoding.as_deref(), Some("UTF8" | "SQL_ASCII") | None)
    }

    /// On a new connection, or after a refusal.
    fn ensure_watched(&mut self, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        if outbox.is_ensured {
            outbox.state = State::Looking;
            return self.look(now);
        }
        let options = outbox.options.clone();
        outbox.state = State::Ensuring { left: options.tables.len(), may_pass: false, is_refused: false };
        let make = if options.only_watched { "false" } else { "true" };
        let ops = array(options.ops.iter().map(|op| op.as_str()));
        let payload = options.payload.map_or("", |payload| payload.as_str());
        let columns = in_utf8(&array(options.columns.iter().map(String::as_str)));
        let timing = if options.before { "before" } else { "after" };
        for table in &options.tables {
            let table = in_utf8(table);
            let texts = [&table, make, &ops, payload, options.transport.as_str(), &columns, timing];
            self.ask(Step::Ensure, sql::ENSURE, &texts.map(str::as_bytes));
        }
    }

    /// Whether the tables are still watched; and what all have read is cleaned away.
    fn look(&mut self, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        (outbox.looked_at, outbox.look_at) = (Some(now), Some(now + LOOK_INTERVAL));
        let (names, oids) = (in_utf8(&array(outbox.tables.names())), array(outbox.tables.known_oids()));
        if outbox.is_open {
            self.ask(Step::Rotate, sql::ROTATE, &[]);
        }
        self.ask(Step::Look, sql::LOOK, &[names.as_bytes(), oids.as_bytes()]);
    }

    fn open_consumer(&mut self) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        (outbox.state, outbox.open_at) = (State::Opening, None);
        let name = match &outbox.options.consumer {
            Some(name) => name.clone(),
            // The server has named it, in ASCII.
            None if outbox.is_open => String::from_utf8_lossy(&outbox.consumer).into_owned(),
            None => String::new(),
        };
        let (name, tables) = (in_utf8(&name), array(outbox.tables.all_oids()));
        let from_start = if outbox.options.from_start { "true" } else { "false" };
        self.ask(Step::Set, sql::ISOLATION, &[]);
        self.ask(Step::Open, sql::OPEN, &[&name, &tables, from_start].map(str::as_bytes));
    }

    /// A reader without one asks a little longer; so does one of an older schema, or without the right to it.
    fn ear_answered(&mut self, rows: Rows) {
        let ear = rows.as_ref().and_then(|rows| rows.value(0, 0)).unwrap_or_default();
        if let Some(outbox) = self.outbox.as_deref_mut() {
            outbox.early.listens_on(ear);
        }
    }

    fn read_on(&mut self, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        outbox.state = State::Reading;
        let stay_awake: &[u8] = if outbox.pace.asked(now) { b"true" } else { b"false" };
        let parameters: &[&[u8]] = &[&outbox.consumer, outbox.position.as_bytes(), stay_awake];
        let (name, sql) = match outbox.reads_converted {
            true => (sql::READ_CONVERTED_NAME, sql::READ_CONVERTED),
            false => (sql::READ_NAME, sql::READ),
        };
        if !std::mem::replace(&mut outbox.is_prepared[usize::from(outbox.reads_converted)], true) {
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
        self.ask(Step::Acknowledge, sql::ACKNOWLEDGE, &[&consumer, position.as_bytes()]);
    }

    fn ask(&mut self, step: Step, sql: &[u8], parameters: &[&[u8]]) {
        self.session.send(std::iter::once(Command::Run { sql, parameters }));
        self.unanswered.push_back(Batch::Outbox(step));
    }

    #[cold]
    pub(in crate::source) fn watch_answered(&mut self, step: Step, answer: Result<Rows>, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let is_hex = outbox.is_converted;
        match (step, answer) {
            (Step::Ensure, Ok(rows)) => self.ensured(rows, now),
            (Step::Look, Ok(rows)) => self.looked(rows, now),
            (Step::Open, Ok(rows)) => self.opened(rows, now),
            (Step::Ear, answer) => self.ear_answered(answer.ok().flatten()),
            (Step::Read, Ok(rows)) => self.page_read(rows, now),
            (Step::Fetch, Ok(rows)) => self.fetched(rows, is_hex),
            (Step::Convert, Ok(rows)) => self.fetched(rows, true),
            (Step::Set | Step::Prepare | Step::Rotate, Ok(_)) => {}
            (Step::Acknowledge, Ok(_)) => {
                outbox.refusals.granted(Step::Acknowledge);
                let id = outbox.acknowledgements.answered();
                self.reports.extend(id.map(|id| Report::Acknowledged { id }));
            }
            (Step::Ensure, Err(error)) => {
                self.watch_refused(Step::Ensure, error, now);
                self.ensured_one(now);
            }
            (step, Err(error)) => self.watch_refused(step, error, now),
        }
    }

    fn ensured(&mut self, rows: Rows, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let State::Ensuring { left, .. } = outbox.state else { return };
        let place = outbox.options.tables.len() - left;
        if !rows.is_some_and(|rows| outbox.tables.ensured(place, &rows)) {
            let error = Error::new(ErrorKind::Server, wal(&outbox.options.tables[place]));
            let error = error.with_sqlstate(Some(SqlState::FEATURE_NOT_SUPPORTED));
            self.watch_refused(Step::Ensure, error, now);
        }
        self.ensured_one(now);
    }

    /// One table more was made sure of, or was refused. When all are through, it goes on if none was.
    fn ensured_one(&mut self, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        match &mut outbox.state {
            State::Ensuring { left, .. } if *left > 1 => *left -= 1,
            // Nothing is watched, and the caller may ask for something else.
            State::Ensuring { is_refused: true, .. } => {
                self.outbox = None;
                self.readers_changed();
            }
            State::Ensuring { may_pass: true, .. } => {
                outbox.state = State::Closed { at: Some(now + outbox.refusals.next_delay(now)) };
            }
            _ => {
                outbox.refusals.granted(Step::Ensure);
                outbox.is_ensured = true;
                (outbox.looked_at, outbox.look_at) = (Some(now), Some(now + LOOK_INTERVAL));
                self.begin_reading();
            }
        }
    }

    /// It is known how the changes of each table come.
    fn begin_reading(&mut self) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        outbox.know_channels();
        if outbox.has_outbox {
            return self.open_consumer();
        }
        outbox.state = State::Open;
        outbox.refusals.recovered();
        self.listen_for_changes();
    }

    /// What has become of the tables.
    fn looked(&mut self, rows: Rows, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let Some(rows) = rows else { return self.watch_refused(Step::Look, unexpected(), now) };
        outbox.refusals.granted(Step::Look);
        let findings = outbox.tables.looked(&rows);
        outbox.is_new |= findings.is_new;
        for error in findings.troubles {
            let (command, channel) = ("watch", Channel::of_name(WAKE_CHANNEL));
            self.reports.push_back(Report::CommandFailed { command, channel, error });
        }
        if outbox.state == State::Looking {
            return self.begin_reading();
        }
        outbox.know_channels();
        if findings.is_new && outbox.has_outbox {
            outbox.open_at = Some(now);
        } else if findings.is_new {
            self.listen_for_changes();
        }
    }

    /// What is listened on already is told again when there is something new to hear on it.
    fn listen_for_changes(&mut self) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let is_new = std::mem::take(&mut outbox.is_new);
        for channel in outbox.channels.clone() {
            if is_new && self.wanted.contains(&channel) {
                self.listened.insert(channel);
            } else {
                // It cannot have failed: it has just answered.
                let _ = self.listen(channel);
            }
        }
    }

    fn opened(&mut self, rows: Rows, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let value = |column| rows.as_ref().and_then(|rows| rows.value(0, column));
        let (Some(consumer), Some(position)) = (value(0), value(1)) else {
            return self.watch_refused(Step::Open, unexpected(), now);
        };
        outbox.refusals.granted(Step::Open);
        (outbox.consumer, outbox.state) = (consumer.to_vec(), State::Open);
        let consumer = outbox.consumer.clone();
        let (position, place) = split_place(&String::from_utf8_lossy(position));
        let was_open = std::mem::replace(&mut outbox.is_open, true);
        let is_named = outbox.options.consumer.is_some();
        // The numbers of transactions that another server has lost it gives again, to others.
        let read_to = xid_max(&outbox.position);
        let is_replaced = is_elsewhere(&place, &outbox.place, read_to) || xid_max(&position) < read_to;
        let goes_on = !is_named && !is_replaced && !outbox.position.is_empty();
        if was_open {
            // It reads other tables from now on, from where it is.
        } else if goes_on && outbox.place == place {
            outbox.acknowledgements.repeat(now);
        } else {
            // What the database keeps counts, also after an outage: it may be another server by now, which
            // has not all that we have seen. What was not acknowledged comes again.
            if !is_named && !goes_on && !outbox.position.is_empty() {
                let channels = outbox.channels.iter().cloned().collect();
                self.reports.push_back(Report::Replaced { channels });
            }
            match goes_on {
                // The same server after a crash that took nothing of ours.
                true => forget_marks(&mut outbox.position),
                false => outbox.position = position,
            }
            outbox.pages.clear();
            outbox.told = Told::Nothing;
            outbox.acknowledgements.begin_at(&outbox.position);
        }
        outbox.place = place;
        outbox.pace.begin(now);
        self.ask(Step::Ear, sql::LEND_EAR, &[&consumer]);
        self.listen_for_changes();
    }

    fn page_read(&mut self, rows: Rows, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let page = rows.and_then(|rows| Page::new(rows, &outbox.position, outbox.reads_converted));
        let Some(page) = page.filter(Page::has_end) else {
            return self.watch_refused(Step::Read, unexpected(), now);
        };
        (outbox.state, outbox.reads_converted) = (State::Open, outbox.is_converted);
        outbox.refusals.granted(Step::Read);
        // A consumer that cannot be opened for further tables is tried less and less often all the same.
        if outbox.open_at.is_none() {
            outbox.refusals.recovered();
        }
        outbox.pace.answered(now);
        outbox.pages.push_back(page);
    }

    /// The server does not let us watch, or read. What may pass is tried again, and told once.
    fn watch_refused(&mut self, step: Step, error: Error, now: Instant) {
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        let has_other_characters = error.sqlstate.is_some_and(|code| code.is_about_characters());
        let is_dropped = step == Step::Read && error.sqlstate == Some(SqlState::UNDEFINED_OBJECT);
        match (step, &mut outbox.state) {
            (Step::Ensure, State::Ensuring { may_pass, is_refused, .. }) => {
                let passes = error.sqlstate.is_some_and(|code| code.may_pass());
                (*may_pass, *is_refused) = (*may_pass || passes, *is_refused || !passes);
            }
            (Step::Read, _) if outbox.reads_converted && has_other_characters => {
                // What has no place in UTF-8 is told as well as may be, and with it its page.
                outbox.reads_converted = false;
                outbox.state = State::Open;
                return outbox.pace.put_off(now);
            }
            (Step::Open | Step::Read | Step::Look, state) => {
                let at = now + outbox.refusals.next_delay(now);
                outbox.early.unsettle();
                if is_dropped {
                    // Somebody has dropped the consumer: it begins anew.
                    outbox.is_open = false;
                    outbox.position.clear();
                }
                match step {
                    Step::Look if *state != State::Looking => {}
                    // The server goes on with the tables that it was open for.
                    Step::Open if outbox.is_open => (*state, outbox.open_at) = (State::Open, Some(at)),
                    Step::Read if !is_dropped => {
                        *state = State::Open;
                        outbox.pace.put_off(at);
                    }
                    _ => *state = State::Closed { at: Some(at) },
                }
            }
            (Step::Acknowledge, _) => outbox.acknowledgements.refused(now),
            (Step::Prepare, _) => outbox.is_prepared[usize::from(outbox.reads_converted)] = false,
            (Step::Fetch, _) => return self.miss_reference(advised(error)),
            (Step::Convert, _) => {
                (outbox.heard, outbox.is_unconvertible) = (outbox.converting.take(), true);
                self.fetches = self.fetches.saturating_sub(1);
                return;
            }
            (Step::Ensure | Step::Set | Step::Ear | Step::Rotate, _) => {}
        }
        if outbox.refusals.is_news(step, &error) {
            let (command, channel, error) = ("watch", Channel::of_name(WAKE_CHANNEL), advised(error));
            self.reports.push_back(Report::CommandFailed { command, channel, error });
        }
    }

    /// What a notification referred to.
    fn fetched(&mut self, rows: Rows, is_hex: bool) {
        self.fetches = self.fetches.saturating_sub(1);
        let Some(outbox) = self.outbox.as_deref_mut() else { return };
        outbox.converting = None;
        match rows.filter(|rows| rows.rows() > 0).and_then(|rows| Page::new(rows, "", is_hex)) {
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
        if outbox.options.manual_ack && outbox.early.acknowledge(id) {
            outbox.acknowledgements.ack_all(now);
        } else {
            outbox.acknowledgements.ack(id, now)?;
        }
        if outbox.state == State::Open && outbox.acknowledgements.due().is_some() {
            self.acknowledge();
        }
        Ok(())
    }
}
