//! DDL commands, as they are delivered to the caller.

use super::fields::{Fields, Value};
use super::names::SessionId;
use super::target::DdlTarget;

/// When a DDL event was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DdlPhase {
    /// Before the command did anything.
    Before,
    /// After it was done.
    After,
}

impl DdlPhase {
    /// The word used in JSON and in C.
    pub fn as_str(&self) -> &'static str {
        match self {
            DdlPhase::Before => "before",
            DdlPhase::After => "after",
        }
    }
}

/// A DDL command was run, and its transaction committed.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Ddl<'a> {
    /// The session.
    pub session: SessionId,
    /// The database's name.
    pub db: &'a str,
    /// Whether it was sent before or after the command.
    pub phase: DdlPhase,
    /// The command's tag, such as `CREATE TABLE` (manual, "Event Trigger Firing Matrix"), or `login`.
    pub tag: &'a str,
    /// What it was done to; before the command, what it is about to drop or names, as far as it is known.
    pub targets: &'a [DdlTarget],
    /// 1 for a command that a client sent, more for what functions and extensions run.
    pub depth: u32,
    /// Whether all it was done to is temporary.
    pub temp: bool,
    /// The transaction, if it had a number then.
    pub xid: Option<u64>,
    /// Who did it: the role that the session logged in as.
    pub user: &'a str,
    /// The `application_name` of that session.
    pub app: &'a str,
    /// All of it, an object in JSON.
    pub json: &'a str,
}

impl Ddl<'_> {
    pub(super) fn fields(&self, fields: &mut impl Fields) {
        // People take an event for one of the time after it.
        let phrase = if self.phase == DdlPhase::Before { "{} " } else { "" };
        fields.field("phase", Value::Text(self.phase.as_str()), phrase);
        fields.field("tag", Value::Text(self.tag), "{}");
        fields.field("targets", Value::Targets(self.targets), "  {}");
        fields.field("depth", Value::Number(self.depth.into()), "");
        fields.field("temp", Value::Flag(self.temp), "");
        fields.field("xid", Value::of(self.xid.map(Value::Number)), "");
        fields.field("user", Value::Text(self.user), "  by {}");
        fields.field("app", Value::Text(self.app), "");
    }
}
