//! Row changes over a session: what the outbox of the schema `pgwake` holds is read page by page, what comes
//! as notifications is taken apart. `install/README.md` is the protocol.
//!
//! Promise: what goes through the outbox comes at least once, with an id by which it is known again; the
//! changes of one row come in their order. What is only notified comes at most once.

mod acknowledge;
mod deliver;
mod pace;
mod page;
mod statements;
mod steps;
mod tables;

use super::refusals::Refusals;
use super::{Report, WAKE_CHANNEL};
use crate::decode::row_change::RowChange;
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::{Change, Channel, SessionId, Transport};
use crate::options::WatchOptions;
use acknowledge::{Acknowledgements, Passed};
use pace::Pace;
use page::{Page, Position};
pub(super) use statements::{CONVERT, FETCH, array, encoding, in_utf8};
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};
use tables::Tables;

/// How often the server cleans away what all readers have read, and is asked how the tables are watched.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// How often it is asked because somebody notifies so: anybody may.
pub(super) const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(250);

/// On the channel that wakes readers: something is watched anew, or not any more.
pub(super) const WATCHED_PAYLOAD: &[u8] = b"watched";

/// What was asked of the server; it comes back with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Settings,
    Ensure,
    Look,
    Open,
    Read,
    Fetch,
    Convert,
    Acknowledge,
    Rotate,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Not begun, or to be begun anew.
    #[default]
    Closed,
    /// Whether and how the tables are watched.
    Looking,
    Opening,
    /// Nothing is asked.
    Open,
    Reading,
}

/// A reader of row changes.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    options: WatchOptions,
    state: State,
    tables: Tables,
    /// Every table was made sure to be watched, once; or what was refused this time.
    is_ensured: bool,
    refused: Vec<Error>,
    /// Some table's changes go through the outbox, or did.
    has_outbox: bool,
    /// The channels that bring changes, or did: something may be on its way still.
    change_channels: BTreeSet<Channel>,
    /// Once it reads, `Listening` names its channels, also those that listened before.
    is_new: bool,
    /// As the server calls it, in its encoding.
    consumer: Vec<u8>,
    /// The consumer is open on this connection.
    is_open: bool,
    /// When a closed one begins, or an open one is to be opened for other tables.
    open_at: Option<Instant>,
    /// Where the next page begins.
    position: Position,
    pace: Pace,
    page: Option<Page>,
    /// Changes that came as notifications, and one that the server puts into UTF-8.
    notified: VecDeque<String>,
    converting: Option<String>,
    /// The change that was delivered last.
    change: RowChange,
    text: String,
    /// What of the page was delivered last, until the caller goes on from it.
    delivered: Option<(Passed, Position)>,
    delivered_in_turn: u32,
    acknowledgements: Acknowledgements,
    look_at: Option<Instant>,
    looked_at: Option<Instant>,
    /// The database has another encoding than UTF-8, and what it holds can be converted.
    is_converted: bool,
    /// So is the next page, unless something is on it that cannot be.
    reads_converted: bool,
    /// The connection has the statement that reads.
    is_prepared: bool,
    refusals: Refusals<Request>,
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
                "the transport wal will read the write-ahead log itself, which this version cannot: take \
                 outbox or notify",
            ));
        }
        Ok(Outbox {
            acknowledgements: Acknowledgements::new(options.manual_ack),
            pace: Pace::new(options.fallback()),
            tables: Tables::new(&options.tables),
            options,
            ..Outbox::default()
        })
    }

    /// All channels listen on a new connection.
    #[cold]
    fn connected(&mut self, now: Instant, is_converted: bool) {
        (self.state, self.open_at) = (State::Closed, Some(now));
        (self.is_converted, self.reads_converted) = (is_converted, is_converted);
        (self.is_prepared, self.is_open) = (false, false);
    }

    /// The connection is lost. What was read is delivered all the same.
    #[cold]
    pub(super) fn disconnected(&mut self) {
        (self.state, self.open_at, self.converting) = (State::Closed, None, None);
    }

    /// When a turn is wanted at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Closed => self.open_at,
            State::Open if self.page.is_none() => {
                let times = [self.open_at, self.look_at, self.read_at(), self.acknowledgements.due()];
                times.into_iter().flatten().min()
            }
            _ => None,
        }
    }

    /// Tries to begin again, later and later.
    fn begin_again(&mut self, now: Instant) {
        (self.state, self.is_open) = (State::Closed, false);
        self.open_at = Some(now + self.refusals.next_delay(now));
    }

    fn read_at(&self) -> Option<Instant> {
        (self.has_outbox && self.acknowledgements.has_room()).then(|| self.pace.next()).flatten()
    }

    /// What it listens on.
    fn channels(&self) -> BTreeSet<Channel> {
        let wake_channel = self.has_outbox.then(|| Channel::of_name(WAKE_CHANNEL));
        self.change_channels.iter().cloned().chain(wake_channel).collect()
    }

    /// Whether changes wait that came as notifications.
    pub(super) fn has_notified(&self) -> bool {
        !self.notified.is_empty()
    }

    /// Whether changes wait to be delivered.
    pub(super) fn has_changes(&self) -> bool {
        self.has_notified() || self.page.is_some()
    }

    /// The change that was delivered last.
    pub(super) fn change<'a>(&'a self, session: SessionId, db: &'a str) -> Option<Change<'a>> {
        self.change.as_event(session, db, &self.text)
    }
}

/// Reports that something is wrong with what is watched.
fn trouble(error: Error) -> Report {
    Report::CommandFailed { command: "watch", channel: Channel::of_name(WAKE_CHANNEL), error }
}

fn unexpected() -> Error {
    let message = "the schema pgwake of this database answers in a way that is unknown here";
    Error::new(ErrorKind::Server, message).with_sqlstate(Some(SqlState::PROTOCOL_VIOLATION))
}
