//! One poll: its query is asked at its time, and its rows wait until the caller takes them. With a cursor the
//! database keeps how far was read; in batches the rows stay locked until they are acknowledged.

use super::answer::Answer;
use super::cursor::Cursor;
use super::pace::Pace;
use super::statements as sql;
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::{Channel, TaskId};
use crate::options::PollOptions;
use crate::pq::{Format, QueryResult};
use crate::session::{Command, Rows};
use crate::source::report::Report;
use crate::source::sql::advice::{OF_POLLS, advised};
use crate::source::sql::link::Link;
use crate::source::sql::refusals::Refusals;
use crate::source::sql::statements::in_utf8;
use crate::source::sql::tag::{PollRequest, Tag};
use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much longer than the query may take its answer may be on its way.
const ANSWER_SLACK: Duration = Duration::from_secs(5);

/// How much of a query's text stands for the name that it was not given.
const NAME_CHARS_MAX: usize = 60;

#[derive(Debug)]
enum State {
    /// There is no connection, or the cursor is not open.
    Closed,
    Opening(Instant),
    /// Nothing is asked.
    Open,
    /// Since then.
    Asking(Instant),
    /// Rows wait for the caller.
    Found(Answer),
    /// The caller has them, under this number.
    Delivered(u64),
    /// The transaction of a batch is about to end, with this number acknowledged.
    Ending(Option<u64>, Instant),
}

#[derive(Debug)]
pub(crate) struct Poll {
    pub(super) task: TaskId,
    pub(super) name: Arc<str>,
    pub(super) options: PollOptions,
    pub(super) wake_on: Option<Channel>,
    query: sql::Query,
    parameters: Vec<Option<CString>>,
    state: State,
    pace: Pace,
    cursor: Cursor,
    /// There is more to be read at once.
    has_more: bool,
    /// Of the batch that the caller has: the values of the first column.
    keys: CString,
    refusals: Refusals<PollRequest>,
}

impl Poll {
    pub(crate) fn new(task: TaskId, text: &str, options: PollOptions) -> Result<Self> {
        options.check(text)?;
        let (name, query) =
            (options.name.as_deref().unwrap_or(text).into(), sql::Query::new(text, &options)?);
        let parameters = options.parameters.iter().map(|value| value.clone().map(sql::c_string)).collect();
        Ok(Poll {
            task,
            name,
            wake_on: options.wake_on.as_ref().map(Channel::new).transpose()?,
            query,
            parameters,
            state: State::Closed,
            pace: Pace::new(options.every, options.adaptive),
            cursor: Cursor::default(),
            has_more: false,
            keys: CString::default(),
            refusals: Refusals::default(),
            options,
        })
    }

    /// Whether it holds a transaction open, in which nothing else has room.
    pub(crate) fn needs_session(&self) -> bool {
        self.options.batch_rows.is_some()
    }

    /// Under which name it reads, if under one.
    pub(crate) fn cursor(&self) -> Option<&str> {
        self.options.cursor.as_deref()
    }

    fn is_acknowledged(&self) -> bool {
        self.options.cursor.is_some() || self.options.batch_rows.is_some()
    }

    /// Whether only the caller acknowledges its rows.
    pub(crate) fn is_manual(&self) -> bool {
        self.is_acknowledged() && self.options.manual_ack
    }

    pub(super) fn wake_up(&mut self) {
        self.pace.wake_up();
    }

    /// A connection is there. Queries are asked at once, but not one with which the last connection was lost.
    pub(super) fn opened(&mut self, now: Instant) {
        match self.state {
            State::Closed if self.pace.is_asked() => self.pace.put_off(now, Duration::ZERO),
            _ => self.pace.begin(now),
        }
        if self.options.cursor.is_none() && matches!(self.state, State::Closed) {
            self.state = State::Open;
        }
    }

    /// The connection is lost. Rows that were found are delivered all the same, unless they come again. Gives
    /// what the caller has to hear: what was asked may have been done, or what was locked is not.
    pub(super) fn lost(&mut self) -> Option<Error> {
        let message = match &self.state {
            State::Asking(_) | State::Ending(..) => {
                Some("the connection was lost before the server answered: it may have been run or not")
            }
            State::Delivered(_) if self.needs_session() => {
                Some("the connection was lost, and with it the locks on the rows: they come again")
            }
            _ => None,
        };
        if !matches!(self.state, State::Asking(_)) {
            self.pace.forget();
        }
        let has_rows = matches!(self.state, State::Found(_) | State::Delivered(_));
        if !has_rows || self.is_acknowledged() {
            self.state = State::Closed;
        }
        let error = Error::new(ErrorKind::Connection, message?);
        Some(error.with_sqlstate(Some(SqlState::OUTCOME_UNKNOWN)))
    }

    /// When it wants to be stepped.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Closed | State::Open => self.pace.next(),
            // By then the server must have answered.
            State::Opening(at) | State::Asking(at) | State::Ending(_, at) => {
                let timeout = Some(self.options.statement_timeout).filter(|timeout| !timeout.is_zero());
                timeout.map(|timeout| at + timeout + ANSWER_SLACK)
            }
            State::Found(_) | State::Delivered(_) => None,
        }
    }

    /// The time in which the server must answer begins now.
    pub(super) fn begin_to_wait(&mut self, now: Instant) {
        if let State::Opening(at) | State::Asking(at) | State::Ending(_, at) = &mut self.state {
            *at = now;
        }
    }

    /// Sends what is due; `false` when nothing is. Before that it may not be: without a connection, nothing
    /// is sent.
    pub(super) fn step(&mut self, link: &mut Link, now: Instant) -> bool {
        if self.deadline().is_none_or(|at| at > now) {
            return false;
        }
        match self.state {
            State::Closed => self.open(link, now),
            State::Open => self.ask(link, now),
            _ if link.session.look_ahead() => {}
            _ => {
                let message = "the server did not answer a poll in time: it is frozen or cut off";
                let lost = Error::new(ErrorKind::Connection, message);
                link.session.fail(lost.with_sqlstate(Some(SqlState::CONNECTION_LOST)));
            }
        }
        true
    }

    fn send(&self, link: &mut Link, request: PollRequest, text: &[u8], parameters: &[&[u8]]) {
        link.send(Tag::Poll(self.task, request), Some(text), parameters);
    }

    /// The name of the cursor as the server's functions are given it.
    fn cursor_name(&self) -> String {
        in_utf8(self.options.cursor.as_deref().unwrap_or_default())
    }

    fn open(&mut self, link: &mut Link, now: Instant) {
        self.state = State::Opening(now);
        self.pace.asked(now);
        let from_start: &[u8] = if self.options.from_start { b"true" } else { b"false" };
        let (name, timeout) = (self.cursor_name(), [Some(self.query.timeout.as_c_str())]);
        let caller: Vec<_> = self.parameters.iter().map(Option::as_deref).collect();
        // No position is kept for a query that cannot be run.
        let commands = [
            set(link, &timeout),
            Command::Query { sql: &self.query.check, parameters: &caller, results: Format::Text },
            Command::Run { sql: sql::OPEN, parameters: &[name.as_bytes(), from_start] },
        ];
        link.session.send(Tag::Poll(self.task, PollRequest::Open), commands.into_iter());
    }

    fn ask(&mut self, link: &mut Link, now: Instant) {
        self.state = State::Asking(now);
        self.pace.asked(now);
        let timeout = [Some(self.query.timeout.as_c_str())];
        let Cursor { before, upto, last } = &self.cursor;
        let position = [Some(before.as_str()), upto.as_deref(), Some(last.as_deref().unwrap_or("0"))];
        let own = position.map(|part| part.map(sql::c_string));
        let own = own.iter().filter(|_| self.options.cursor.is_some());
        let parameters: Vec<_> = self.parameters.iter().chain(own).map(Option::as_deref).collect();
        let results = if self.options.binary { Format::Binary } else { Format::Text };
        let run = |sql| Command::Query { sql, parameters: &[], results: Format::Text };
        let begin = [run(sql::BEGIN)].into_iter().filter(|_| self.needs_session());
        let query = Command::Query { sql: &self.query.sql, parameters: &parameters, results };
        let commands = begin.chain([set(link, &timeout), query]);
        link.session.send(Tag::Poll(self.task, PollRequest::Query), commands);
    }

    /// Ends the transaction of a batch.
    fn end(&mut self, link: &mut Link, acknowledged: Option<u64>, now: Instant) {
        self.state = State::Ending(acknowledged, now);
        let run = |sql| Command::Query { sql, parameters: &[], results: Format::Text };
        let keys = [Some(self.keys.as_c_str())];
        let done = self.options.done.as_ref().filter(|_| acknowledged.is_some());
        let done =
            done.map(|sql| Command::Query { sql: sql.as_bytes(), parameters: &keys, results: Format::Text });
        let commands = done.into_iter().chain([run(sql::COMMIT)]);
        link.session.send(Tag::Poll(self.task, PollRequest::End), commands);
    }

    fn roll_back(&mut self, link: &mut Link, now: Instant) {
        self.state = State::Ending(None, now);
        self.send(link, PollRequest::RollBack, sql::ROLLBACK, &[]);
    }

    /// Its rows, for the caller, under this number.
    pub(super) fn take_found(&mut self, id: u64) -> Option<Answer> {
        match std::mem::replace(&mut self.state, State::Delivered(id)) {
            State::Found(answer) => {
                if self.options.done.is_some() {
                    self.keys = sql::c_string(answer.first_column());
                }
                Some(answer)
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    pub(super) fn has_found(&self) -> bool {
        matches!(self.state, State::Found(_))
    }

    /// What the caller acknowledges it by; 0 where there is nothing to acknowledge.
    pub(super) fn number_for(&self, id: u64) -> u64 {
        if self.is_acknowledged() { id } else { 0 }
    }

    /// The caller asks for the next event.
    pub(super) fn gone_on_from(&mut self, link: &mut Link, id: u64, now: Instant) {
        if !self.is_manual() {
            self.acknowledge(link, id, now);
        }
    }

    /// All up to this number is acknowledged.
    pub(super) fn acknowledge(&mut self, link: &mut Link, id: u64, now: Instant) {
        let State::Delivered(delivered) = self.state else { return };
        if delivered > id {
            return;
        }
        if self.needs_session() {
            return self.end(link, Some(delivered), now);
        }
        self.state = State::Open;
        self.pace.taken(now, true, self.has_more);
        self.keep(link, Some(delivered));
    }

    fn keep(&self, link: &mut Link, acknowledged: Option<u64>) {
        if self.options.cursor.is_some() {
            let acknowledged = acknowledged.filter(|_| self.is_manual());
            let parameters = [self.cursor_name(), self.cursor.position()];
            self.send(
                link,
                PollRequest::Keep(acknowledged),
                sql::KEEP,
                &parameters.each_ref().map(|p| p.as_bytes()),
            );
        }
    }

    pub(super) fn answered(
        &mut self,
        link: &mut Link,
        request: PollRequest,
        answer: Result<Rows>,
        now: Instant,
    ) {
        match (request, answer) {
            (PollRequest::Open, Ok(rows)) => self.cursor_opened(link, rows, now),
            (PollRequest::Query, Ok(rows)) => self.found(link, rows, now),
            (PollRequest::Keep(acknowledged), Ok(_)) => {
                self.refusals.granted(PollRequest::Keep(None));
                link.reports.extend(acknowledged.map(|id| Report::Acknowledged { id }));
            }
            (PollRequest::End | PollRequest::RollBack, Ok(_)) => self.ended(link, now),
            (PollRequest::Close, _) => {}
            (request, Err(error)) => self.refused(link, request, error, now),
        }
    }

    fn cursor_opened(&mut self, link: &mut Link, rows: Rows, now: Instant) {
        let Some(position) = rows.as_ref().and_then(|rows| rows.value(0, 0)) else {
            return self.refused(link, PollRequest::Open, unexpected(), now);
        };
        self.refusals.granted(PollRequest::Open);
        if rows.as_ref().and_then(|rows| rows.value(0, 1)) == Some(&[1]) {
            link.reports.push_back(Report::Replaced { channels: Vec::new() });
        } else if self.options.from_start && self.cursor == Cursor::default() && position != sql::START {
            log::warn!(
                "the cursor \"{}\" is there already: it goes on where it was read up to, and from_start \
                 (--from-start) changes nothing; SELECT pgwake.drop_cursor(…) forgets it",
                self.options.cursor.as_deref().unwrap_or_default()
            );
        }
        (self.cursor, self.state) = (Cursor::of(position), State::Open);
        self.pace.begin(now);
    }

    fn found(&mut self, link: &mut Link, rows: Rows, now: Instant) {
        // A cursor that was dropped meanwhile is opened anew.
        if !matches!(self.state, State::Asking(_)) {
            return;
        }
        self.refusals.granted(PollRequest::Query);
        self.refusals.recovered();
        link.metrics.polls += 1;
        let answer = match rows {
            Some(rows) if self.options.cursor.is_some() => match self.page_read(link, rows) {
                Ok(answer) => answer,
                Err(error) => return self.refused(link, PollRequest::Query, error, now),
            },
            rows => {
                let rows = rows.filter(|rows| rows.rows() > 0);
                let is_full = |most| rows.as_ref().is_some_and(|rows| rows.rows() >= most as usize);
                self.has_more = self.options.batch_rows.is_some_and(is_full);
                rows.map(|rows| Answer::new(rows, 0, self.options.binary))
            }
        };
        match answer {
            Some(answer) => self.state = State::Found(answer),
            None if self.needs_session() => self.end(link, None, now),
            None => {
                self.state = State::Open;
                self.pace.taken(now, false, false);
            }
        }
    }

    fn page_read(&mut self, link: &mut Link, rows: QueryResult) -> Result<Option<Answer>> {
        let page =
            self.cursor.page(rows, self.options.page_rows, self.options.binary).ok_or_else(unexpected)?;
        let was_within = self.cursor.upto.is_some();
        (self.cursor, self.has_more) = (page.end, page.has_more);
        // What was found is kept once it is acknowledged.
        if page.rows.is_none() && was_within {
            self.keep(link, None);
        }
        Ok(page.rows)
    }

    /// The transaction of a batch has ended.
    fn ended(&mut self, link: &mut Link, now: Instant) {
        let State::Ending(acknowledged, _) = self.state else { return };
        self.state = State::Open;
        // What was rolled back is put off.
        if self.pace.is_asked() {
            self.refusals.granted(PollRequest::End);
            self.pace.taken(now, acknowledged.is_some(), self.has_more);
        }
        let acknowledged = acknowledged.filter(|_| self.is_manual());
        link.reports.extend(acknowledged.map(|id| Report::Acknowledged { id }));
    }

    /// That is reported once, unless the caller waits for it, and tried again by the interval, or later.
    fn refused(&mut self, link: &mut Link, request: PollRequest, error: Error, now: Instant) {
        // Each acknowledgement of the caller has an answer.
        let is_answer = match (request, &self.state) {
            (PollRequest::Keep(acknowledged), _) => acknowledged.is_some(),
            (PollRequest::End, State::Ending(acknowledged, _)) => self.is_manual() && acknowledged.is_some(),
            _ => false,
        };
        let is_gone = error.sqlstate == Some(SqlState::UNDEFINED_OBJECT);
        // What was not kept is kept with the next page, unless somebody has dropped the cursor.
        if is_gone || !matches!(request, PollRequest::Keep(_)) {
            self.pace.put_off(now, self.refusals.next_delay(now));
        }
        match request {
            PollRequest::Query | PollRequest::End if self.needs_session() => self.roll_back(link, now),
            PollRequest::Keep(_) if is_gone => self.state = State::Closed,
            PollRequest::Keep(_) => {}
            PollRequest::Open => self.state = State::Closed,
            _ => self.state = State::Open,
        }
        let step = if let PollRequest::Keep(_) = request { PollRequest::Keep(None) } else { request };
        if self.refusals.is_news(step, &error) || is_answer {
            self.report(link, error);
        }
    }

    /// An error that says so, with what to do.
    pub(super) fn too_many_rows(&self, error: &Error) -> Error {
        let fewer = match (&self.options.cursor, self.options.batch_rows) {
            (Some(_), _) => {
                "have fewer on a page (page_rows, --page-rows); those of one transaction come together"
            }
            (None, Some(_)) => "take fewer at once (batch_rows, --batch-rows)",
            (None, None) => "give its query a LIMIT",
        };
        let message = format!("{}: let it have more (bytes_max, --bytes-max), or {fewer}", error.message);
        Error { message, ..error.clone() }
    }

    pub(super) fn report(&self, link: &mut Link, error: Error) {
        let error = advised(error, OF_POLLS);
        let name: String = self.name.chars().take(NAME_CHARS_MAX + 1).collect();
        let name = match name.char_indices().nth(NAME_CHARS_MAX) {
            Some((end, _)) => format!("{}…", &name[..end]),
            None => name,
        };
        let message = format!("the poll \"{}\": {}", name.replace(char::is_control, " "), error.message);
        link.report_failure("poll", None, Error { message, ..error });
    }

    /// It comes to an end: leaves nothing behind on the connection.
    pub(super) fn close(&mut self, link: &mut Link) {
        if self.needs_session() && !matches!(self.state, State::Closed | State::Open) {
            self.send(link, PollRequest::Close, sql::ROLLBACK, &[]);
        }
        if self.options.cursor.is_some() && !matches!(self.state, State::Closed) {
            self.send(link, PollRequest::Close, sql::CLOSE, &[self.cursor_name().as_bytes()]);
        }
    }
}

/// Sets what holds for the transaction of one query.
fn set<'a>(link: &mut Link, timeout: &'a [Option<&'a CStr>]) -> Command<'a> {
    let sql = if link.is_converted() { sql::SETTINGS_CONVERTED } else { sql::SETTINGS };
    Command::Query { sql, parameters: timeout, results: Format::Text }
}

fn unexpected() -> Error {
    let message = "the schema pgwake of this database answers in a way that is unknown here";
    Error::new(ErrorKind::Server, message).with_sqlstate(Some(SqlState::PROTOCOL_VIOLATION))
}
