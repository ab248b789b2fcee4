//! Rows that a poll found.

use super::fields::{Fields, Value};
use super::names::{SessionId, TaskId};
use super::table::Table;
use std::ops::Deref;

/// A poll found rows ([`EventLoop::poll`](crate::EventLoop::poll)). There is at least one.
///
/// ```no_run
/// # fn on(rows: pgwake::Rows<'_>) {
/// for row in rows.iter() {
///     println!("{:?} {:?}", row.get_str("id"), row.get_str(1));
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Rows<'a> {
    /// The session.
    pub session: SessionId,
    /// The database's name.
    pub db: &'a str,
    /// The poll.
    pub task: TaskId,
    /// Its name; its SQL, if it was given none.
    pub poll: &'a str,
    /// What [`EventLoop::ack`](crate::EventLoop::ack) takes, for a poll with a cursor or in batches; 0 for
    /// any other. It counts the batches of the session, and says nothing to another run.
    pub id: u64,
    pub(crate) table: Table<'a>,
}

/// Its rows, by name and position.
impl<'a> Deref for Rows<'a> {
    type Target = Table<'a>;

    fn deref(&self) -> &Table<'a> {
        &self.table
    }
}

impl Rows<'_> {
    pub(super) fn fields(&self, fields: &mut impl Fields) {
        fields.field("poll", Value::Text(self.poll), "{}");
        fields.field("columns", Value::Names(self.columns()), "  {}");
        fields.field("rows", Value::Rows(self.table), ":{}");
        fields.if_not_zero("id", self.id, "");
    }
}
