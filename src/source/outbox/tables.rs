//! The tables that are read, and how each one's changes come: what the server says of that flows in, what the
//! caller must hear of it flows out.

use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::Channel;
use crate::pq::QueryResult;
use crate::source::WAKE_CHANNEL;

/// How the changes of a table come, if they do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    Outbox,
    Notify(Channel),
    /// Through the write-ahead log, which is not read here.
    Wal,
    /// Nobody watches it.
    Unwatched,
    /// There is no such table.
    Gone,
}

impl Way {
    /// A row of a look: the table's OID, its transport, its channel.
    fn of(rows: &QueryResult, row: usize) -> Self {
        let [oid, transport, channel] = [0, 1, 2].map(|column| rows.value(row, column));
        match (oid, transport) {
            (None, _) => Way::Gone,
            (_, Some(b"outbox")) => Way::Outbox,
            (_, Some(b"notify")) => {
                let channel = channel.map(Channel::new).and_then(Result::ok);
                Way::Notify(channel.unwrap_or_else(|| Channel::of_name(WAKE_CHANNEL)))
            }
            (_, Some(_)) => Way::Wal,
            (_, None) => Way::Unwatched,
        }
    }

    fn is_read_here(&self) -> bool {
        matches!(self, Way::Outbox | Way::Notify(_))
    }
}

#[derive(Debug)]
struct Table {
    /// As the caller names it.
    name: String,
    way: Way,
    /// Its OID, and that of the table that had the name before: what was written of that one may be unread.
    oids: [Option<String>; 2],
}

/// What a look has found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What the caller must hear.
    pub(super) troubles: Vec<Error>,
    /// There are tables whose changes come from now on, or come in another way.
    pub(super) is_new: bool,
}

/// What is read.
#[derive(Debug)]
pub(super) struct Tables(Vec<Table>);

impl Tables {
    pub(super) fn new(names: &[String]) -> Self {
        let table = |name: &String| Table { name: name.clone(), way: Way::Unwatched, oids: [None, None] };
        Tables(names.iter().map(table).collect())
    }

    /// The server has made sure that this one is watched. Whether what it tells can be read here.
    pub(super) fn ensured(&mut self, place: usize, rows: &QueryResult) -> bool {
        let Some(table) = self.0.get_mut(place) else { return false };
        table.see(Way::of(rows, 0), oid(rows, 0));
        table.way.is_read_here()
    }

    /// What has become of them, one row for each.
    pub(super) fn looked(&mut self, rows: &QueryResult) -> Findings {
        let mut findings = Findings::default();
        for (row, table) in self.0.iter_mut().enumerate().take(rows.rows()) {
            let (way, oid) = (Way::of(rows, row), oid(rows, row));
            let is_same_table = oid == table.oids[0] || !way.is_read_here();
            if way == table.way && is_same_table {
                continue;
            }
            findings.is_new |= way.is_read_here();
            findings.troubles.extend(table.trouble(&way));
            table.see(way, oid);
        }
        findings
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|table| table.name.as_str())
    }

    /// The OIDs by which they are known; 0, which no table has, where none is.
    pub(super) fn known_oids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|table| table.oids[0].as_deref().unwrap_or("0"))
    }

    /// All whose changes may lie in the outbox.
    pub(super) fn all_oids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|table| &table.oids).flatten().map(String::as_str)
    }

    pub(super) fn has_outbox(&self) -> bool {
        self.0.iter().any(|table| table.way == Way::Outbox)
    }

    /// The channels that bring changes.
    pub(super) fn change_channels(&self) -> impl Iterator<Item = &Channel> {
        self.0.iter().filter_map(|table| match &table.way {
            Way::Notify(channel) => Some(channel),
            _ => None,
        })
    }
}

impl Table {
    fn see(&mut self, way: Way, oid: Option<String>) {
        self.way = way;
        if oid.is_some() && oid != self.oids[0] {
            self.oids.swap(0, 1);
            self.oids[0] = oid;
        }
    }

    /// What the caller hears when its changes do not come any more as they did. That they come again is no
    /// trouble.
    fn trouble(&self, way: &Way) -> Option<Error> {
        let name = &self.name;
        let (sqlstate, message) = match way {
            Way::Gone => (
                SqlState::UNDEFINED_TABLE,
                format!(
                    "the table {name} is gone, and what it tells is over; this goes on when there is one \
                     of that name and it is watched"
                ),
            ),
            Way::Unwatched => (
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "the table {name} is not watched any more, and its changes are not told; this goes on \
                     when it is watched again: SELECT pgwake.watch_table('{}')",
                    name.replace('\'', "''")
                ),
            ),
            Way::Wal => (SqlState::FEATURE_NOT_SUPPORTED, wal(name)),
            Way::Outbox | Way::Notify(_) if self.way.is_read_here() => (
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "the table {name} was watched anew, in another way or in place of one that is gone: \
                     changes in between may be missing"
                ),
            ),
            Way::Outbox | Way::Notify(_) => return None,
        };
        Some(Error::new(ErrorKind::Server, message).with_sqlstate(Some(sqlstate)))
    }
}

fn oid(rows: &QueryResult, row: usize) -> Option<String> {
    String::from_utf8(rows.value(row, 0)?.to_vec()).ok()
}

/// Why what a table tells cannot be read here.
pub(super) fn wal(name: &str) -> String {
    format!(
        "the table {name} is watched through the write-ahead log, which is read by logical replication: to \
         read its changes here, unwatch it first"
    )
}
