//! What is asked of a server before it streams, one thing after another: who it is, whether the publications
//! are there, in what state the slot is. Each state that keeps it from streaming has a sentence of its own.

use super::identity::{Identity, objection_of_history};
use super::sql::{self, Answered, quoted};
use super::step::{
    Step, error, moved_on, published_too_late, slot_gone, slot_lost, two_slots_needed, wal_level_refused,
};
use super::{relations::Relations, snapshot};
use crate::error::{Error, Result};
use crate::event::Lsn;
use crate::options::{Origin, StreamOptions};
use crate::session::Rows;
use crate::sys::random;
use std::time::Duration;

/// How long a slot may be in use by somebody else: by our own process of before, which the server has not
/// noticed yet to be gone.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// How often it is looked at meanwhile.
pub(super) const BUSY_INTERVAL: Duration = Duration::from_millis(100);

/// What to do next.
#[derive(Debug)]
pub(super) enum Next {
    Send(Step, String),
    /// Nothing is missing, and the server streams.
    Streaming,
    /// Rows of a table come.
    Copying,
    /// The slot is in use: ask again a little later.
    Wait,
    /// It cannot go on, and the next attempt could not either.
    GiveUp(Error),
    /// It cannot go on now.
    Fail(Error),
}

/// What is known of the slot.
#[derive(Debug, Default)]
struct Slot {
    name: String,
    /// For one that ends with the connection, where the caller has given no name. Another connection has
    /// another one, for the server may not have noticed the end of the last.
    temporary_name: String,
    is_temporary: bool,
    /// It was there once: it is not made again.
    was_there: bool,
    busy_for: Duration,
    /// Another one has read it meanwhile, or moved it on.
    moved: Option<Error>,
    /// The server's process that read it for us last.
    reader: Option<i32>,
}

#[derive(Debug, Default)]
pub(super) struct Preparation {
    options: StreamOptions,
    /// The server that was read last, and the one that we are connected to.
    identity: Option<Identity>,
    found: Identity,
    major: i32,
    backend_pid: i32,
    slot: Slot,
    publications: Vec<String>,
    snapshot: snapshot::Tables,
    /// Rows are to come before the changes.
    wants_snapshot: bool,
    /// Where the slot begins that was made on this connection.
    begins_at: Option<Lsn>,
    rows_at: Option<Lsn>,
}

impl Preparation {
    pub(super) fn new(options: StreamOptions) -> Self {
        let is_temporary = options.temporary || options.slot.is_none();
        let slot = Slot { is_temporary, ..Slot::default() };
        Preparation { wants_snapshot: options.snapshot, options, slot, ..Preparation::default() }
    }

    pub(super) fn begins_at(&self) -> Option<Lsn> {
        self.begins_at
    }

    /// Where the rows of the last snapshot stand: a commit may stand exactly where a slot begins.
    pub(super) fn rows_at(&self) -> Option<Lsn> {
        self.rows_at
    }

    /// Whether what was not read when the connection was lost is lost, too.
    pub(super) fn is_temporary(&self) -> bool {
        self.slot.is_temporary
    }

    /// Whether what comes now does not go on from what came before: changes are missing, or rows come again
    /// as they are now.
    pub(super) fn begins_anew(&self) -> bool {
        self.slot.is_temporary || self.wants_snapshot || self.slot.moved.is_some()
    }

    /// Why changes are missing, where it is not the outage.
    pub(super) fn reason_of_gap(&self) -> Option<Error> {
        self.slot.moved.clone()
    }

    /// The tables whose rows come first.
    pub(super) fn snapshot(&mut self) -> &mut snapshot::Tables {
        &mut self.snapshot
    }

    /// A new connection to a server of this major version, which serves it by this process.
    pub(super) fn opened(&mut self, major: i32, backend_pid: i32) -> Next {
        (self.major, self.backend_pid) = (major, backend_pid);
        // No two streams have the same, wherever they run.
        let temporary_name = format!("pgwake_{:016x}", random());
        self.slot.name = self.options.slot.clone().unwrap_or_else(|| temporary_name.clone());
        self.slot.temporary_name = temporary_name;
        (self.slot.busy_for, self.slot.moved) = (Duration::ZERO, None);
        self.begins_at = None;
        match self.unsupported() {
            Some((what, since)) => {
                let message = format!("{what} needs PostgreSQL {since}, and this is {major}: leave it out");
                Next::GiveUp(error("0A000", message))
            }
            None => Next::Send(Step::Identify, "IDENTIFY_SYSTEM".into()),
        }
    }

    /// What was asked for that this server does not have, and which one has it.
    fn unsupported(&self) -> Option<(&'static str, i32)> {
        let options = &self.options;
        let wanted = [
            (true, "logical replication by pgwake", 14),
            (options.two_phase, "two_phase", 15),
            (options.origin != Origin::Any, "origin", 16),
            (options.failover, "failover", 17),
        ];
        let lacks = wanted.into_iter().find(|(is_wanted, _, since)| *is_wanted && self.major < *since);
        lacks.map(|(_, what, since)| (what, since))
    }

    /// It was waited for the rows of a snapshot to be acknowledged, or for the slot.
    pub(super) fn waited(&mut self) -> Next {
        self.slot.busy_for += BUSY_INTERVAL;
        if self.wants_snapshot && self.begins_at.is_some() {
            if self.slot.busy_for == BUSY_MAX {
                log::warn!("no change comes before all rows of the snapshot are acknowledged");
            }
            return Next::Send(Step::AskAlive, "SELECT".into());
        }
        Next::Send(Step::Slot, self.slot_sql())
    }

    /// `done`: what is done with, whether a status has said so or not. `reached`: what was read.
    pub(super) fn answered(
        &mut self,
        step: Step,
        answer: Result<Rows>,
        (done, reached): (Lsn, Lsn),
        relations: &mut Relations,
    ) -> Next {
        let rows = match answer {
            Ok(rows) => Answered(rows),
            Err(error) => return self.refused(step, error),
        };
        if rows.begin_copy() != matches!(step, Step::Start | Step::CopyTable) {
            return Next::Fail(error("08P01", "the server answered something else than it was asked"));
        }
        match step {
            Step::Identify => self.identified(&rows),
            Step::History => self.history_found(&rows, reached),
            Step::Settings => self.settings_found(&rows, reached),
            Step::PublicationOfTables => self.publication_found(&rows),
            Step::CreatePublication | Step::PublishMessages => self.publications_next(),
            Step::Publications => match rows.text(0, 0) {
                Some(missing) if self.options.has_messages_alone() => {
                    Next::Send(Step::PublishMessages, format!("CREATE PUBLICATION {missing}"))
                }
                Some(missing) => Next::GiveUp(error(
                    "42704",
                    format!(
                        "there is no publication {missing}: make it (CREATE PUBLICATION … FOR TABLE …), or \
                         name tables instead"
                    ),
                )),
                None if relations.has_types() => self.keys_next(),
                None => Next::Send(Step::Types, sql::TYPES.into()),
            },
            Step::Types => {
                relations.found_types(&rows);
                self.keys_next()
            }
            Step::Keys => {
                relations.found_keys(&rows);
                Next::Send(Step::Slot, self.slot_sql())
            }
            Step::Slot => self.slot_found(&rows, done),
            Step::Failover => self.start(done),
            _ => self.slot_answered(step, &rows, relations),
        }
    }

    /// The same for what concerns the slot, once its state is known.
    fn slot_answered(&mut self, step: Step, rows: &Answered, relations: &mut Relations) -> Next {
        match step {
            Step::EndReader | Step::Rollback => Next::Wait,
            Step::BeginSnapshot => self.create_slot(),
            Step::CreateSlot => self.slot_created(rows),
            Step::SnapshotTables => {
                self.snapshot.found(rows, relations);
                match &self.snapshot.names()[..] {
                    [] => self.next_table(),
                    names => Next::Send(Step::LockTables, sql::lock(names)),
                }
            }
            Step::LockTables => self.next_table(),
            Step::CopyTable => Next::Copying,
            Step::EndOfTable => self.next_table(),
            Step::EndSnapshot | Step::AskAlive => self.snapshot_ended(),
            Step::KeepSlot => {
                (self.slot.was_there, self.slot.busy_for) = (true, Duration::ZERO);
                self.wants_snapshot = false;
                self.start_kept(Lsn(0))
            }
            Step::Start => {
                // A temporary slot is a new beginning with each connection.
                self.wants_snapshot = self.options.snapshot && self.slot.is_temporary;
                self.slot.reader = Some(self.backend_pid);
                Next::Streaming
            }
            // A stream has no end of its own.
            _ => Next::Fail(error("08006", "the server has ended the stream")),
        }
    }

    fn identified(&mut self, rows: &Answered) -> Next {
        self.found = Identity::read(rows);
        // A temporary slot begins anew with each connection.
        let before = self.identity.as_ref().filter(|_| !self.slot.is_temporary);
        if let Some(objection) = self.found.objection(before) {
            return Next::GiveUp(error("55000", objection));
        }
        if before.is_some_and(|before| !before.is_standby && before.timeline != self.found.timeline) {
            return Next::Send(Step::History, format!("TIMELINE_HISTORY {}", self.found.timeline));
        }
        self.settings_next()
    }

    fn history_found(&mut self, rows: &Answered, reached: Lsn) -> Next {
        let history = rows.text(0, 1).unwrap_or_default();
        let timeline = self.identity.as_ref().map_or("", |before| &before.timeline);
        match objection_of_history(&history, timeline, reached) {
            Some(objection) => Next::GiveUp(error("55000", objection)),
            None => self.settings_next(),
        }
    }

    fn settings_next(&self) -> Next {
        Next::Send(Step::Settings, sql::settings(self.major, self.options.has_messages_alone()))
    }

    fn settings_found(&mut self, rows: &Answered, reached: Lsn) -> Next {
        self.found.is_standby = rows.text(0, 1).as_deref() == Some("t");
        if let Some(objection) = self.found.objection_of_log(reached) {
            return match self.found.is_standby {
                true => Next::Fail(error("57P03", objection)),
                false => Next::GiveUp(error("55000", objection)),
            };
        }
        self.identity = Some(self.found.clone());
        if !sql::is_enough(self.major, rows.text(0, 0)) {
            return Next::GiveUp(wal_level_refused(rows));
        }
        if self.options.tables.is_empty() {
            self.publications = self.named_publications();
            return self.publications_next();
        }
        let StreamOptions { tables, via_partition_root, .. } = &self.options;
        let publication = sql::publication_of_tables(tables, *via_partition_root, &self.slot.name);
        Next::Send(Step::PublicationOfTables, publication)
    }

    fn named_publications(&self) -> Vec<String> {
        match self.options.has_messages_alone() {
            true => vec![sql::PUBLICATION_OF_MESSAGES.into()],
            false => self.options.publications.clone(),
        }
    }

    fn publication_found(&mut self, rows: &Answered) -> Next {
        let [name, exists, create, unidentified, has_slot] =
            [0, 1, 2, 3, 4].map(|column| rows.text(0, column));
        let create = create.filter(|_| exists.as_deref() != Some("t"));
        if let Some(table) = unidentified.filter(|_| create.is_some()) {
            return Next::GiveUp(error(
                "55000",
                format!(
                    "table {table} has no replica identity: once it is published, its UPDATE and DELETE \
                     would fail; give it a primary key (not DEFERRABLE), or ALTER TABLE {table} REPLICA \
                     IDENTITY FULL"
                ),
            ));
        }
        if let Some(create) = create.as_ref().filter(|_| has_slot.as_deref() == Some("t")) {
            return Next::GiveUp(published_too_late(&self.slot.name, create));
        }
        self.publications = name.into_iter().chain(self.options.publications.clone()).collect();
        match create {
            Some(create) => Next::Send(Step::CreatePublication, create),
            None => self.publications_next(),
        }
    }

    fn publications_next(&self) -> Next {
        Next::Send(Step::Publications, sql::missing_publications(&self.publications))
    }

    fn keys_next(&self) -> Next {
        Next::Send(Step::Keys, sql::keys(&self.publications))
    }

    fn slot_sql(&self) -> String {
        sql::slot(&self.slot.name)
    }

    fn slot_found(&mut self, rows: &Answered, done: Lsn) -> Next {
        if rows.text(0, 0).is_none() {
            return self.slot_missing(rows.number(0, 6).unwrap_or(0));
        }
        // One that lasts is read on without rows.
        self.wants_snapshot &= self.slot.is_temporary;
        let confirmed: Lsn = rows.text(0, 7).and_then(|lsn| lsn.parse().ok()).unwrap_or_default();
        // What it has confirmed, we have said; before that, it is not known how far we are.
        let is_moved = confirmed > done && done > Lsn(0) && !self.slot.is_temporary;
        self.slot.moved = is_moved.then(|| moved_on(&self.slot.name, done, confirmed));
        let name = &self.slot.name;
        self.slot.was_there = true;
        let [plugin, is_here, active_pid, wal_status, temporary] =
            [1, 2, 3, 4, 5].map(|column| rows.text(0, column));
        if plugin.as_deref() != Some("pgoutput") || is_here.as_deref() != Some("t") {
            let message = format!(
                "the replication slot {name} is not one of pgoutput in this database: choose another name"
            );
            return Next::GiveUp(error("55000", message));
        }
        if self.slot.is_temporary && temporary.as_deref() == Some("f") {
            let message = format!(
                "the replication slot {name} is there already, and not a temporary one: choose another name, \
                 or leave out temporary to read on from it"
            );
            return Next::GiveUp(error("42710", message));
        }
        if wal_status.as_deref() == Some("lost") {
            return Next::GiveUp(slot_lost(name));
        }
        match active_pid {
            // It is our own of before: the connection to it broke, and it has not noticed. It may never.
            Some(pid) if self.slot.reader.take().is_some_and(|reader| reader.to_string() == pid) => {
                Next::Send(Step::EndReader, format!("SELECT pg_catalog.pg_terminate_backend({pid})"))
            }
            Some(pid) if self.slot.busy_for >= BUSY_MAX => Next::GiveUp(error(
                "55006",
                format!(
                    "the replication slot {name} is in use by process {pid}: end that one, or take another \
                     slot"
                ),
            )),
            Some(_) => Next::Wait,
            // The server goes by its own position, if that is further on.
            None => self.start_kept(done),
        }
    }

    /// `free`: how many the server has room for.
    fn slot_missing(&self, free: i64) -> Next {
        let name = &self.slot.name;
        if self.slot.was_there && !self.slot.is_temporary {
            return Next::GiveUp(slot_gone(name));
        }
        if !self.slot.is_temporary && !self.options.create_slot {
            let message = format!(
                "there is no replication slot {name}: make it with create_slot (the command: --slot), or \
                 with SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')"
            );
            return Next::GiveUp(error("42704", message));
        }
        if self.wants_snapshot && !self.slot.is_temporary && free < 2 {
            return Next::Fail(two_slots_needed(free));
        }
        if self.wants_snapshot {
            return Next::Send(Step::BeginSnapshot, "BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ".into());
        }
        self.create_slot()
    }

    /// While rows are copied, and for as long as it is to end with the connection, the slot is temporary.
    fn created_name(&self) -> &str {
        let is_kept = self.wants_snapshot && !self.slot.is_temporary;
        if is_kept { &self.slot.temporary_name } else { &self.slot.name }
    }

    fn create_slot(&self) -> Next {
        let is_temporary = self.slot.is_temporary || self.wants_snapshot;
        let [temporary, options] =
            sql::slot_options(self.major, is_temporary, self.wants_snapshot, &self.options);
        let name = sql::identifier(self.created_name());
        Next::Send(
            Step::CreateSlot,
            format!("CREATE_REPLICATION_SLOT {name}{temporary} LOGICAL pgoutput {options}"),
        )
    }

    fn slot_created(&mut self, rows: &Answered) -> Next {
        self.begins_at = rows.text(0, 1).and_then(|lsn| lsn.parse().ok());
        self.rows_at = self.begins_at.map(|begins_at| Lsn(begins_at.0.saturating_sub(1)));
        self.slot.reader = Some(self.backend_pid);
        if self.wants_snapshot {
            return Next::Send(Step::SnapshotTables, sql::snapshot_tables(&self.publications, self.major));
        }
        self.slot.was_there = true;
        self.start(Lsn(0))
    }

    fn next_table(&mut self) -> Next {
        match self.snapshot.next_table() {
            Some(copy) => Next::Send(Step::CopyTable, copy),
            None => Next::Send(Step::EndSnapshot, "COMMIT".into()),
        }
    }

    /// Only when all rows are acknowledged does the slot become one that lasts. A snapshot that was broken
    /// off leaves nothing behind that could be taken for a complete one.
    fn snapshot_ended(&self) -> Next {
        if self.slot.is_temporary {
            return self.start(Lsn(0));
        }
        if self.options.manual_ack && !self.snapshot.is_acknowledged() {
            return Next::Wait;
        }
        let [from, to] = [quoted(self.created_name()), quoted(&self.slot.name)];
        // The temporary one would keep the server's log for as long as this connection lasts.
        Next::Send(
            Step::KeepSlot,
            format!(
                "SELECT pg_catalog.pg_copy_logical_replication_slot({from}, {to}, false); \
                 SELECT pg_catalog.pg_drop_replication_slot({from})"
            ),
        )
    }

    /// Standbys keep the slot from now on, if that is asked for: it may have been made without.
    fn start_kept(&self, from: Lsn) -> Next {
        match self.options.failover && !self.slot.is_temporary {
            true => Next::Send(Step::Failover, sql::set_failover(&self.slot.name)),
            false => self.start(from),
        }
    }

    fn start(&self, from: Lsn) -> Next {
        let name = sql::identifier(&self.slot.name);
        let options = sql::start_options(self.major, &self.publications, &self.options);
        Next::Send(Step::Start, format!("START_REPLICATION SLOT {name} LOGICAL {from} ({options})"))
    }

    fn refused(&mut self, step: Step, refusal: Error) -> Next {
        let code = refusal.sqlstate.map_or(String::new(), |code| code.as_str().to_string());
        match (step, code.as_str()) {
            // Another one has made it meanwhile, or at the same time.
            (Step::CreatePublication | Step::PublishMessages, "42710" | "23505") => {
                return self.publications_next();
            }
            (Step::Start, "55006") | (Step::CreateSlot, "42710") if self.slot.busy_for < BUSY_MAX => {
                return if self.wants_snapshot {
                    Next::Send(Step::Rollback, "ROLLBACK".into())
                } else {
                    Next::Wait
                };
            }
            (Step::EndReader, _) => return Next::Wait,
            // A table was dropped just now.
            (Step::LockTables, "42P01") => return Next::Fail(refusal),
            _ => {}
        }
        let refusal = step.advise(refusal);
        // What the server says about the log and what we ask for will be the same the next time.
        let may_pass = refusal.sqlstate.is_none_or(|code| code.may_pass() || code.is_shutdown())
            || code.starts_with("08")
            || code == "XX000";
        // So is what the log holds, which a data exception is about.
        let may_end = step == Step::End && !code.starts_with("22") && code != "42704";
        if may_pass || may_end { Next::Fail(refusal) } else { Next::GiveUp(refusal) }
    }
}
