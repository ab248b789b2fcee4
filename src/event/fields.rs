//! What is in an event: each is described once, and lines of JSON and of text come from that description.

use super::column::TableColumn;
use super::names::{Channel, Lsn, Position};
use super::table::Table;
use super::target::DdlTarget;
use crate::error::SqlState;
use std::time::SystemTime;

/// The value of a field.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Value<'a> {
    /// There is none: null in JSON, nothing in text.
    Null,
    /// Yes or no. In text, the phrase of a yes.
    Flag(bool),
    /// A number.
    Number(u64),
    /// Text of ours.
    Text(&'a str),
    /// Somebody else's text in the server's encoding; what is not UTF-8 comes in Base64 in JSON.
    Bytes(&'a [u8]),
    /// JSON as PostgreSQL wrote it.
    Json(&'a str),
    /// A point in time.
    Time(SystemTime),
    /// A place in the write-ahead log.
    Lsn(Lsn),
    /// Where an event stands in its source.
    Position(Position),
    /// The columns of a table.
    Columns(&'a [TableColumn]),
    /// The names of channels.
    Channels(&'a [Channel]),
    /// What a DDL command was about.
    Targets(&'a [DdlTarget]),
    /// Names, of columns for one.
    Names(&'a [String]),
    /// Rows: of each its values, in the order of the columns.
    Rows(Table<'a>),
}

/// Takes the fields of an event, in their order.
pub trait Fields {
    /// A field by its name in JSON. In text it is `phrase`, with the value in place of `{}`; an empty phrase
    /// leaves it out.
    fn field(&mut self, name: &'static str, value: Value<'_>, phrase: &'static str);

    /// A value that stands in text alone: JSON has it elsewhere.
    fn in_text(&mut self, value: Value<'_>, phrase: &'static str);

    /// A field that is there only if it has a value.
    fn if_any(&mut self, name: &'static str, value: Option<Value<'_>>, phrase: &'static str) {
        if let Some(value) = value {
            self.field(name, value, phrase);
        }
    }

    /// A number that is there only if it is not 0.
    fn if_not_zero(&mut self, name: &'static str, number: u64, phrase: &'static str) {
        self.if_any(name, (number > 0).then_some(Value::Number(number)), phrase);
    }
}

impl<'a> Value<'a> {
    /// Null where there is nothing.
    pub(super) fn of(value: Option<Value<'a>>) -> Self {
        value.unwrap_or(Value::Null)
    }

    pub(super) fn code(sqlstate: &'a Option<SqlState>) -> Self {
        Value::of(sqlstate.as_ref().map(|code| Value::Text(code.as_str())))
    }
}
