//! What is asked of a server before it streams, and what can be done where it refuses.

use super::sql::Answered;
use crate::error::{Error, ErrorKind, SqlState};
use crate::event::Lsn;

/// A request, and what its answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Identify,
    History,
    Settings,
    PublicationOfTables,
    CreatePublication,
    /// The one without tables, for messages alone.
    PublishMessages,
    Publications,
    Types,
    Keys,
    Slot,
    EndReader,
    BeginSnapshot,
    CreateSlot,
    /// Of the transaction in which a slot could not be made.
    Rollback,
    Failover,
    SnapshotTables,
    LockTables,
    CopyTable,
    EndOfTable,
    EndSnapshot,
    /// Meanwhile the rows are to be acknowledged.
    AskAlive,
    KeepSlot,
    Start,
    /// The stream has ended, and its result says why.
    End,
}

impl Step {
    /// Whether the server may be silent for as long as it likes: it waits for locks on tables, for
    /// transactions in progress, or reads a table of which no row is wanted.
    pub(super) fn may_take_long(self) -> bool {
        !matches!(
            self,
            Step::Identify
                | Step::History
                | Step::Settings
                | Step::Types
                | Step::Slot
                | Step::EndReader
                | Step::Rollback
                | Step::AskAlive
                | Step::KeepSlot
                | Step::Start
                | Step::End
        )
    }

    /// What the server may wait for, where nothing else says that it waits.
    pub(super) fn waits_for(self) -> Option<&'static str> {
        match self {
            Step::CreateSlot => Some(
                "transactions to end that are in progress, in any database, before it makes the slot; on a \
                 standby also for the primary to log which they are (SELECT pg_log_standby_snapshot() there)",
            ),
            Step::Failover => Some("another one to leave the slot"),
            Step::CreatePublication | Step::LockTables => Some("others to unlock a table"),
            _ => None,
        }
    }

    /// A refusal of this step with what can be done about it.
    pub(super) fn advise(self, refusal: Error) -> Error {
        let advice = match (self, code(&refusal)) {
            (Step::PublicationOfTables, "42P01" | "3F000") => {
                "name it as SQL does: with its schema, sales.orders, and quoted where it has capitals, \
                 \"Orders\""
            }
            (Step::CreatePublication, "42501") => {
                "let the tables' owner, who also needs CREATE on the database, make a publication, and name \
                 that"
            }
            (Step::CreatePublication, "25006") => {
                "a standby takes no new publication, nor does default_transaction_read_only let one be made: \
                 make it on the primary, and name it here"
            }
            (Step::PublishMessages, "42501") => {
                "let a role with CREATE on this database run CREATE PUBLICATION pgwake_messages, once"
            }
            (Step::PublishMessages, "25006") => {
                "a standby takes no new publication, nor does default_transaction_read_only let one be made: \
                 run CREATE PUBLICATION pgwake_messages on the primary, once"
            }
            (Step::CreateSlot | Step::KeepSlot, "53400") => {
                "drop one that is not needed, or raise max_replication_slots"
            }
            (Step::KeepSlot, "42710") => {
                "another one made it while the rows came, and reads on from its own: end one of the two, or \
                 take another slot"
            }
            (Step::CreateSlot | Step::Failover | Step::Start, "0A000") => {
                "a standby sends its log from PostgreSQL 16 on, and without failover: connect to the primary"
            }
            (Step::End, "42704") => {
                "it was not there when that was written: make it, let the slot go on behind that \
                 (pg_replication_slot_advance), and look at the tables afresh"
            }
            (Step::PublicationOfTables | Step::CreatePublication, "22023") => {
                "only tables can be published that are written to the log: no views, and none that is \
                 unlogged, temporary or the system's"
            }
            (Step::End, "22P05" | "22021") => {
                "what the log holds next cannot be written in UTF-8: let the slot go on behind it \
                 (pg_replication_slot_advance), and look at the table afresh"
            }
            (Step::LockTables, "42501") => "grant this role SELECT on it",
            // To lock it takes the same right, so a policy is left.
            (Step::CopyTable, "42501") => {
                "changes are of all rows: ALTER ROLE … BYPASSRLS, or read as the owner of the tables"
            }
            (_, "42501") => "give this role REPLICATION (ALTER ROLE … REPLICATION)",
            (Step::Identify, _) => {
                "logical replication needs the server itself, or a pooler that passes it on as it is"
            }
            _ => return refusal,
        };
        advised(refusal, advice)
    }
}

/// The same where the connection itself is refused.
pub(super) fn advise_at_the_door(refusal: Error) -> Error {
    match code(&refusal) {
        "42501" => advised(refusal, "give this role REPLICATION (ALTER ROLE … REPLICATION)"),
        "08P01" => advised(refusal, "where a pooler stands in between, connect to the server itself"),
        _ => refusal,
    }
}

fn code(refusal: &Error) -> &str {
    refusal.sqlstate.as_ref().map_or("", |code| code.as_str())
}

fn advised(refusal: Error, advice: &str) -> Error {
    Error { message: format!("{}; {advice}", refusal.message), ..refusal }
}

pub(super) fn wal_level_refused(rows: &Answered) -> Error {
    let wal_level = rows.text(0, 0).unwrap_or_default();
    let message = format!(
        "the server's wal_level is {wal_level}: logical replication needs ALTER SYSTEM SET wal_level = \
         logical and a restart"
    );
    error("55000", message)
}

/// For a moment a snapshot has a temporary slot and the one that lasts.
pub(super) fn two_slots_needed(free: i64) -> Error {
    let message = format!(
        "a snapshot takes two replication slots until its rows are acknowledged, and {free} is left: drop \
         one that is not needed, or raise max_replication_slots"
    );
    error("53400", message)
}

pub(super) fn slot_lost(slot: &str) -> Error {
    let message = format!(
        "the replication slot {slot} is lost: the server has removed what was not read yet (see \
         max_slot_wal_keep_size, from 18 on idle_replication_slot_timeout, and on a standby \
         hot_standby_feedback); drop it, look at the tables afresh, then begin anew"
    );
    error("55000", message)
}

pub(super) fn slot_gone(slot: &str) -> Error {
    let message = format!(
        "the replication slot {slot} is gone, and what was not read is lost: somebody dropped it, or a \
         standby took over that did not have it; look at the tables afresh, then begin anew with create_slot"
    );
    error("42704", message)
}

pub(super) fn moved_on(slot: &str, from: Lsn, to: Lsn) -> Error {
    error("55000", format!("somebody else has moved the replication slot {slot} on, from {from} to {to}"))
}

/// A server reads the log by the publications that there were when it was written. `create`: what would make
/// it one that has all the tables.
pub(super) fn published_too_late(slot: &str, create: &str) -> Error {
    if create.starts_with("ALTER") {
        let message = format!(
            "the publication of these tables has lost one, which was dropped and made anew, or unwatched: \
             what was written to that meanwhile is not in what the replication slot {slot} keeps; run \
             {create}, then look at the table afresh"
        );
        return error("42704", message);
    }
    let message = format!(
        "the replication slot {slot} is there, and what it keeps cannot be read through a publication that \
         is made now: name the tables of before; or make a publication yourself and name that, which leaves \
         out what was written before it"
    );
    error("42704", message)
}

pub(super) fn error(sqlstate: &str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Server, message).with_sqlstate(SqlState::new(sqlstate))
}
