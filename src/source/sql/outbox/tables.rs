//! The tables that are read, and how each one's changes come: what the server says of that flows in, what is
//! to be reported flows out.

use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::Channel;
use crate::pq::QueryResult;
use crate::source::sql::link::WAKE_CHANNEL;

/// How the changes of a table come, if they do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    Outbox,
    Notify(Channel),
    Unwatched,
    /// There is no such table.
    Gone,
}

#[derive(Debug)]
struct Table {
    /// As the caller names it.
    name: String,
    /// Unknown before the first look.
    way: Option<Way>,
    /// Its OID, and that of the table that had the name before: what was written of that one may be unread.
    oids: [Option<String>; 2],
}

/// What is read.
#[derive(Debug, Default)]
pub(super) struct Tables(Vec<Table>);

impl Tables {
    pub(super) fn new(names: &[String]) -> Self {
        let table = |name: &String| Table { name: name.clone(), way: None, oids: [None, None] };
        Tables(names.iter().map(table).collect())
    }

    /// What has become of them, one row for each: its OID, its transport, its channel. Gives whether there
    /// are tables whose changes come from now on, or come in another way, and what is to be reported.
    pub(super) fn looked(&mut self, rows: &QueryResult) -> (bool, Vec<Error>) {
        let (mut is_new, mut troubles) = (false, Vec::new());
        for (row, table) in self.0.iter_mut().enumerate().take(rows.rows()) {
            let [oid, transport, channel] = [0, 1, 2].map(|column| rows.value(row, column));
            let way = match (oid, transport) {
                (None, _) => Way::Gone,
                (_, None) => Way::Unwatched,
                (_, Some(b"notify")) => {
                    let channel = channel.map(Channel::new).and_then(Result::ok);
                    Way::Notify(channel.unwrap_or_else(|| Channel::of_name(WAKE_CHANNEL)))
                }
                (_, Some(_)) => Way::Outbox,
            };
            let (is_changed, trouble) = table.look(way, oid.map(|oid| String::from_utf8_lossy(oid).into()));
            is_new |= is_changed;
            troubles.extend(trouble);
        }
        (is_new, troubles)
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
        self.0.iter().any(|table| table.way == Some(Way::Outbox))
    }

    /// The channels that bring changes.
    pub(super) fn change_channels(&self) -> impl Iterator<Item = &Channel> {
        self.0.iter().filter_map(|table| match &table.way {
            Some(Way::Notify(channel)) => Some(channel),
            _ => None,
        })
    }
}

impl Table {
    /// Whether its changes come from now on, or in another way; and what is reported when they do not come
    /// any more as they did. That they come again is no trouble.
    fn look(&mut self, way: Way, oid: Option<String>) -> (bool, Option<Error>) {
        let is_watched = |way: &Way| matches!(way, Way::Outbox | Way::Notify(_));
        let (was, is) = (self.way.as_ref().is_some_and(is_watched), is_watched(&way));
        if self.way.as_ref() == Some(&way) && (oid == self.oids[0] || !is) {
            return (false, None);
        }
        let (sqlstate, what) = match way {
            Way::Gone => (
                SqlState::UNDEFINED_TABLE,
                "is gone; this goes on when there is one of that name and it is watched",
            ),
            Way::Unwatched => (
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "is not watched any more; this goes on when pgwake.watch_table watches it again",
            ),
            Way::Outbox | Way::Notify(_) => (
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "was watched anew, in another way or in place of one that is gone: changes in between may be \
                 missing",
            ),
        };
        self.way = Some(way);
        if oid.is_some() && oid != self.oids[0] {
            self.oids.swap(0, 1);
            self.oids[0] = oid;
        }
        let error = Error::new(ErrorKind::Server, format!("the table {} {what}", self.name));
        (is, (was || !is).then(|| error.with_sqlstate(Some(sqlstate))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_another_way_is_new_and_what_is_missed_is_reported_once() {
        let mut tables = Tables::new(&["t".into()]);
        let mut look = |way, oid: &str| {
            let (is_new, trouble) = tables.0[0].look(way, (!oid.is_empty()).then(|| oid.into()));
            (is_new, trouble.map_or(String::new(), |error| error.sqlstate.unwrap().to_string()))
        };
        assert_eq!(look(Way::Outbox, "1"), (true, "".into()));
        assert_eq!(look(Way::Outbox, "1"), (false, "".into()));
        assert_eq!(look(Way::Notify(Channel::of_name("c")), "1"), (true, "55000".into()));
        assert_eq!(look(Way::Unwatched, "1"), (false, "55000".into()));
        assert_eq!(look(Way::Unwatched, "1"), (false, "".into()));
        assert_eq!(look(Way::Gone, ""), (false, "42P01".into()));
        assert_eq!(look(Way::Outbox, "2"), (true, "".into()));
        assert_eq!(tables.all_oids().collect::<Vec<_>>(), ["2", "1"]);
    }
}
