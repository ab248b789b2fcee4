//! Row changes over a session: what the outbox of the schema `pgwake` holds is read page by page, what comes
//! as notifications is taken apart. `install/README.md` is the protocol.
//!
//! Promise: what goes through the outbox comes at least once, with an id by which it is known again; the
//! changes of one row come in their order. What is only notified comes at most once.

mod acknowledge;
mod pace;
mod page;
mod steps;

use super::WAKE_CHANNEL;
use crate::decode::row_change::RowChange;
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::{Change, Channel, SessionId, Transport};
use crate::options::WatchOptions;
use crate::pq::Notify;
use acknowledge::Acknowledgements;
use pace::Pace;
use page::Page;
use std::collections::{BTreeSet, VecDeque};
use std::ffi::CStr;
use std::time::{Duration, Instant};

/// How many changes are told in one turn: other sessions have events, too.
const TOLD_MAX: u32 = 64;

/// How long is waited after a refusal that may pass, such as that another session still has the consumer.
const RETRY: Duration = Duration::from_millis(250);

/// How often what all have read is cleaned away.
const ROTATE_INTERVAL: Duration = Duration::from_secs(10);

const ENSURE_SQL: &[u8] = b"SELECT transport, channel FROM pgwake.ensure_watched($1::pg_catalog.regclass, \
    $2::bool, nullif($3, '')::text[], nullif($4, ''), $5, nullif($6, '')::name[])";
const OPEN_SQL: &[u8] = b"SELECT consumer_name, \"position\" FROM pgwake.open_consumer(nullif($1, ''), \
    $2::text[]::pg_catalog.regclass[], $3::bool)";
/// A page takes a second snapshot when the first has nothing, and is read faster than compiled.
const ISOLATION_SQL: &[u8] = b"SELECT pg_catalog.set_config('jit', 'off', false), \
    pg_catalog.set_config('default_transaction_isolation', 'read committed', false)";
const READ_SQL: &[u8] = b"SELECT kind, number, body FROM pgwake.read($1, $2, $3::bool)";
/// In a database of another encoding. Bytes come in hexadecimal digits.
const READ_CONVERTED_SQL: &[u8] = b"SELECT kind, number, CASE kind WHEN 'change' THEN \
    pg_catalog.encode(pg_catalog.convert_to(body, 'UTF8'), 'hex') ELSE body END \
    FROM pgwake.read($1, $2, $3::bool)";
pub(super) const FETCH_SQL: &[u8] = b"SELECT 'change', 0, body FROM pgwake.fetch($1::int8, 8388608) AS body";
const ACKNOWLEDGE_SQL: &[u8] = b"SELECT pgwake.acknowledge($1, $2)";
const ROTATE_SQL: &[u8] = b"SELECT pgwake.rotate()";
const READ_NAME: &CStr = c"pgwake_read";
const READ_CONVERTED_NAME: &CStr = c"pgwake_read_converted";

/// What was asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Set,
    Ensure,
    Open,
    Prepare,
    Read,
    Fetch,
    Acknowledge,
    Rotate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not begun on this connection, or to be begun anew at some time.
    Closed {
        at: Option<Instant>,
    },
    /// That many tables are still being looked at.
    Ensuring(usize),
    Opening,
    /// Nothing is asked.
    Open,
    Reading,
}

/// Where the text lies of the change that was told last.
#[derive(Debug)]
enum Told {
    Nothing,
    /// In the page.
    Row(usize),
    /// It comes from the page, and lies in `text`.
    RowText,
    Notify(Notify),
    /// It was notified, and lies in `text`.
    NotifyText,
}

/// A reader of row changes.
#[derive(Debug)]
pub(super) struct Outbox {
    options: WatchOptions,
    state: State,
    /// Every table was found watched.
    is_ensured: bool,
    /// Some table's changes go through the outbox.
    has_outbox: bool,
    /// What wakes it, and what brings changes.
    channels: BTreeSet<Channel>,
    /// Those that bring changes.
    change_channels: BTreeSet<Channel>,
    /// As the server calls it.
    consumer: String,
    /// Where the next page begins.
    position: String,
    pace: Pace,
    pages: VecDeque<Page>,
    /// A change that came as a notification, and what it says.
    heard: Option<Notify>,
    heard_change: RowChange,
    change: RowChange,
    told: Told,
    text: String,
    told_in_turn: u32,
    acknowledgements: Acknowledgements,
    rotate_at: Option<Instant>,
    /// The database has another encoding than UTF-8, and what it holds can be converted.
    is_converted: bool,
    /// The connection has the statement that reads.
    is_prepared: bool,
    /// The refusal that was told last.
    refusal: Option<SqlState>,
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
        if options.transport == Transport::Wal {
            return Err(invalid("what goes through the write-ahead log is read by logical replication"));
        }
        Ok(Outbox {
            acknowledgements: Acknowledgements::new(options.manual_ack),
            pace: Pace::new(options.fallback()),
            options,
            state: State::Closed { at: None },
            is_ensured: false,
            has_outbox: false,
            channels: BTreeSet::new(),
            change_channels: BTreeSet::new(),
            consumer: String::new(),
            position: String::new(),
            pages: VecDeque::new(),
            heard: None,
            heard_change: RowChange::default(),
            change: RowChange::default(),
            told: Told::Nothing,
            text: String::new(),
            told_in_turn: 0,
            rotate_at: None,
            is_converted: false,
            is_prepared: false,
            refusal: None,
        })
    }

    /// All channels listen on a new connection.
    #[cold]
    pub(super) fn connected(&mut self, now: Instant, encoding: &str) {
        self.state = State::Closed { at: Some(now) };
        self.is_converted = !matches!(encoding, "UTF8" | "SQL_ASCII");
        self.is_prepared = false;
    }

    /// The connection is lost. What was read is told all the same.
    #[cold]
    pub(super) fn disconnected(&mut self) {
        self.state = State::Closed { at: None };
        self.acknowledgements.interrupted();
    }

    /// When a turn is wanted at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Closed { at } => at,
            State::Open if !self.pages.is_empty() => None,
            State::Open => {
                [self.read_at(), self.acknowledgements.due(), self.rotate_at].into_iter().flatten().min()
            }
            State::Ensuring(_) | State::Opening | State::Reading => None,
        }
    }

    fn read_at(&self) -> Option<Instant> {
        (self.has_outbox && self.acknowledgements.has_room()).then(|| self.pace.next()).flatten()
    }

    /// Takes a notification that is not meant for the caller; gives back any other. Anybody may send one:
    /// only on a channel that brings changes is it taken for a change.
    #[cold]
    pub(super) fn hear(&mut self, notify: Notify) -> Option<Notify> {
        let brings_changes = self.change_channels.iter().any(|c| c.as_bytes() == notify.channel());
        if brings_changes && !notify.payload().is_empty() {
            let text = String::from_utf8_lossy(notify.payload());
            if self.heard_change.read(&text) {
                self.heard_change.was_notified();
                self.heard = Some(notify);
                return None;
            }
            return Some(notify);
        }
        if self.has_outbox && notify.channel() == WAKE_CHANNEL.as_bytes() {
            self.pace.ring();
            return None;
        }
        Some(notify)
    }

    /// Whether changes wait that came as notifications.
    pub(super) fn has_heard(&self) -> bool {
        self.heard.is_some()
    }

    /// Whether changes wait to be told.
    pub(super) fn has_changes(&self) -> bool {
        self.heard.is_some() || !self.pages.is_empty()
    }

    /// The change that was told last.
    pub(super) fn change<'a>(&'a self, session: SessionId, db: &'a str) -> Option<Change<'a>> {
        let text = match &self.told {
            Told::Nothing => None,
            Told::Row(row) => self.pages.front()?.text(*row),
            Told::Notify(notify) => std::str::from_utf8(notify.payload()).ok(),
            Told::RowText | Told::NotifyText => Some(self.text.as_str()),
        };
        self.change.as_event(session, db, text?)
    }

    /// Goes on to the next change; `false` when there is none.
    fn tell_row(&mut self, row: usize) -> bool {
        let Some(page) = self.pages.front() else { return false };
        let is_change = match page.text(row) {
            Some(text) => {
                self.told = Told::Row(row);
                self.change.read(text)
            }
            None => {
                page.decode(row, &mut self.text);
                self.told = Told::RowText;
                self.change.read(&self.text)
            }
        };
        if !page.has_end() {
            self.change.was_notified();
        }
        is_change
    }

    /// The change that was heard, if one was, becomes the one that is told; the reference, if it is no more
    /// than that.
    fn tell_heard(&mut self) -> Option<Option<u64>> {
        let notify = self.heard.take()?;
        std::mem::swap(&mut self.change, &mut self.heard_change);
        if std::str::from_utf8(notify.payload()).is_ok() {
            self.told = Told::Notify(notify);
        } else {
            self.text = String::from_utf8_lossy(notify.payload()).into_owned();
            self.told = Told::NotifyText;
        }
        Some(self.change.reference())
    }

    /// All of the first page was told.
    fn end_page(&mut self, now: Instant) {
        let Some(page) = self.pages.pop_front() else { return };
        let changes = page.changes();
        let Some((position, advice)) = page.end() else { return };
        self.pace.told(now, advice, changes);
        if self.position != position {
            self.position = position;
            self.acknowledgements.page_done(now, changes);
        }
    }
}

/// A list as PostgreSQL writes arrays; nothing for an empty one.
pub(super) fn array<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let list = texts.map(quoted).collect::<Vec<_>>().join(",");
    if list.is_empty() { list } else { format!("{{{list}}}") }
}

fn unexpected() -> Error {
    let message = "the schema pgwake of this database answers in a way that is unknown here";
    Error::new(ErrorKind::Server, message).with_sqlstate(Some(SqlState::PROTOCOL_VIOLATION))
}

/// What to do about it.
pub(super) fn advised(error: Error) -> Error {
    let advice = match error.sqlstate.as_ref().map(SqlState::as_str) {
        Some("3F000" | "42883") => "run `pgwake install` in this database first",
        Some("42501") => {
            "let its owner watch it, and grant this role SELECT on it, USAGE on the schema pgwake and \
             EXECUTE on watch_of, ensure_watched, open_consumer, read, acknowledge, rotate and fetch"
        }
        Some("55P03") => "something holds the table: this goes on when that is done",
        Some("55006") => "this one goes on when that one ends",
        _ => return error,
    };
    Error { message: format!("{}; {advice}", error.message), ..error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_quoted_as_an_array() {
        assert_eq!(array(["a", "\"B\"", "c\\d", "e,f", ""].into_iter()), r#"{"a","\"B\"","c\\d","e,f",""}"#);
        assert_eq!(array([].into_iter()), "");
    }
}
