//! Row changes over a session: what the outbox of the schema `pgwake` holds is read page by page, what comes
//! as notifications is taken apart. `install/README.md` is the protocol.
//!
//! Promise: what goes through the outbox comes at least once, with an id by which it is known again; the
//! changes of one row come in their order. What is only notified comes at most once.

mod acknowledge;
mod early;
mod pace;
mod page;
mod place;
mod refusals;
mod statements;
mod steps;
mod tables;

use super::WAKE_CHANNEL;
use crate::decode::row_change::RowChange;
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::{Change, Channel, SessionId, Transport};
use crate::options::WatchOptions;
use crate::pq::Notify;
use acknowledge::Acknowledgements;
use early::Early;
use pace::Pace;
use page::Page;
pub(super) use refusals::Refusals;
pub(super) use statements::{CONVERT, array, fetch, from_hex, in_utf8};
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};
use tables::Tables;

/// How many changes are told in one turn: other sessions have events, too.
const TOLD_MAX: u32 = 64;

/// How often what all have read is cleaned away, and looked whether the tables are still watched.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// How often it is looked because somebody says so: anybody may.
pub(super) const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(250);

/// On the channel that wakes readers: something is watched anew, or not any more.
pub(super) const WATCHED_PAYLOAD: &[u8] = b"watched";

/// What was asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Set,
    Ensure,
    Look,
    Open,
    Ear,
    Prepare,
    Read,
    Fetch,
    Convert,
    Acknowledge,
    Rotate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not begun on this connection, or to be begun anew at some time.
    Closed {
        at: Option<Instant>,
    },
    /// That many tables are still being made sure of; whether one was refused, for now or for good.
    Ensuring {
        left: usize,
        may_pass: bool,
        is_refused: bool,
    },
    /// On a new connection: whether they are still watched.
    Looking,
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
    tables: Tables,
    /// Every table was found watched.
    is_ensured: bool,
    /// Some table's changes go through the outbox, or did.
    has_outbox: bool,
    /// The consumer is open on this connection.
    is_open: bool,
    /// When it is to be opened for other tables than it was.
    open_at: Option<Instant>,
    /// Once that is done, the caller is to hear that it listens.
    is_new: bool,
    /// What wakes it, and what brings changes.
    channels: BTreeSet<Channel>,
    /// Those that bring changes.
    change_channels: BTreeSet<Channel>,
    /// As the server calls it, in its encoding.
    consumer: Vec<u8>,
    /// Where the next page begins.
    position: String,
    /// In which database, and on which of its timelines.
    place: String,
    pace: Pace,
    pages: VecDeque<Page>,
    /// A change that came as a notification, and what it says.
    heard: Option<Notify>,
    heard_change: RowChange,
    /// What the server puts into UTF-8 for us; if it cannot, it is told as well as may be.
    converting: Option<Notify>,
    is_unconvertible: bool,
    change: RowChange,
    told: Told,
    text: String,
    told_in_turn: u32,
    acknowledgements: Acknowledgements,
    early: Early,
    look_at: Option<Instant>,
    looked_at: Option<Instant>,
    /// The database has another encoding than UTF-8, and what it holds can be converted.
    is_converted: bool,
    /// So is the next page, unless something is on it that cannot be.
    reads_converted: bool,
    /// The connection has the statement that reads, and the one that converts what it reads.
    is_prepared: [bool; 2],
    refusals: Refusals<Step>,
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
            early: Early::default(),
            pace: Pace::new(options.fallback()),
            tables: Tables::new(&options.tables),
            options,
            state: State::Closed { at: None },
            is_ensured: false,
            has_outbox: false,
            is_open: false,
            open_at: None,
            is_new: false,
            channels: BTreeSet::new(),
            change_channels: BTreeSet::new(),
            consumer: Vec::new(),
            position: String::new(),
            place: String::new(),
            pages: VecDeque::new(),
            heard: None,
            heard_change: RowChange::default(),
            converting: None,
            is_unconvertible: false,
            change: RowChange::default(),
            told: Told::Nothing,
            text: String::new(),
            told_in_turn: 0,
            look_at: None,
            looked_at: None,
            is_converted: false,
            reads_converted: false,
            is_prepared: [false; 2],
            refusals: Refusals::default(),
        })
    }

    /// All channels listen on a new connection.
    #[cold]
    pub(super) fn connected(&mut self, now: Instant, is_converted: bool) {
        self.state = State::Closed { at: Some(now) };
        (self.is_converted, self.reads_converted) = (is_converted, is_converted);
        (self.is_prepared, self.is_open, self.open_at) = ([false; 2], false, None);
    }

    /// The connection is lost. What was read is told all the same; what was only notified, and needs the
    /// server to be told, is lost with it.
    #[cold]
    pub(super) fn disconnected(&mut self) {
        self.state = State::Closed { at: None };
        self.acknowledgements.interrupted(self.early.end());
        self.converting = None;
        if self.heard_change.reference().is_some() || self.must_convert() {
            self.heard = None;
        }
    }

    /// Whether what was heard is in another encoding, and the server is to convert it.
    fn must_convert(&self) -> bool {
        let is_other = |notify: &Notify| self.is_converted && !notify.payload().is_ascii();
        !self.is_unconvertible && self.heard.as_ref().is_some_and(is_other)
    }

    /// When a turn is wanted at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Closed { at } => at,
            State::Open if !self.pages.is_empty() => None,
            State::Open => {
                let times = [self.read_at(), self.acknowledgements.due(), self.look_at, self.open_at];
                times.into_iter().flatten().min()
            }
            State::Ensuring { .. } | State::Looking | State::Opening | State::Reading => None,
        }
    }

    fn read_at(&self) -> Option<Instant> {
        (self.has_outbox && self.acknowledgements.has_room()).then(|| self.pace.next()).flatten()
    }

    /// Takes a notification that is not meant for the caller; gives back any other. Anybody may send one:
    /// only on a channel that brings changes is it taken for a change.
    #[cold]
    pub(super) fn hear(&mut self, notify: Notify) -> Option<Notify> {
        let is_wake = notify.channel() == WAKE_CHANNEL.as_bytes();
        if is_wake && notify.payload() == WATCHED_PAYLOAD {
            let soon = self.looked_at.map(|at| at + LOOK_INTERVAL_MIN);
            self.look_at = [self.look_at, soon].into_iter().flatten().min();
            return None;
        }
        if self.early.is_ear(notify.channel()) {
            self.hear_early(notify);
            return None;
        } else if Early::is_any_ear(notify.channel()) {
            return None;
        }
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
        if self.has_outbox && is_wake {
            self.pace.ring();
            return None;
        }
        Some(notify)
    }

    /// Takes over by which channels the tables are told of. Those of before go on: who knows what is on its
    /// way.
    fn know_channels(&mut self) {
        self.has_outbox |= self.tables.has_outbox();
        for channel in self.tables.change_channels() {
            self.change_channels.insert(channel.clone());
            self.channels.insert(channel.clone());
        }
        if self.has_outbox {
            self.channels.insert(Channel::of_name(WAKE_CHANNEL));
        }
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
        self.is_unconvertible = false;
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

fn unexpected() -> Error {
    let message = "the schema pgwake of this database answers in a way that is unknown here";
    Error::new(ErrorKind::Server, message).with_sqlstate(Some(SqlState::PROTOCOL_VIOLATION))
}
