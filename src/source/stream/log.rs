//! The log, message by message, and what of it is delivered: transactions in the order of their
//! commits, each change with its place.

use super::feedback::Feedback;
use super::message::Messages;
use super::relations::Relations;
use super::row::Row;
use super::snapshot::Tables;
use super::transaction::{HeldBack, Replay};
use crate::decode::pgoutput::{self, Commit, InStream, Message as Read, Prepared, Relation};
use crate::decode::replication::time;
use crate::decode::wire::Malformed;
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::{Change, Event, Lsn, Position, Schema, SessionId, Transaction};
use crate::options::{StreamOptions, Streaming};
use std::collections::{HashMap, VecDeque};

/// What was found, for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A table's columns, before its first change.
    Schema(u32),
    Change,
    Begin,
    Commit,
    Prepare,
    Rollback,
    Message,
    /// A message of a kind that is not known here.
    Unknown,
}

/// What the caller wants to hear of besides changes.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    transactions: bool,
    /// Transactions that are not committed yet, too.
    early: bool,
}

/// The transaction whose events are being delivered.
#[derive(Debug, Default)]
struct Current {
    is_open: bool,
    xid: u32,
    /// `None`: it is not committed yet.
    commit_lsn: Option<Lsn>,
    end_lsn: Option<Lsn>,
    at_us: i64,
    /// Of its last event, and of the last that was delivered: messages for others count, too, so that a
    /// position is the same for every reader.
    ordinal: u64,
    delivered: u64,
    gid: Option<String>,
}

/// How a transaction ends that was held back.
#[derive(Debug)]
struct Ending {
    replay: Replay,
    found: Found,
    end_lsn: Lsn,
}

#[derive(Debug)]
pub(super) struct Log {
    wanted: Wanted,
    pub(super) relations: Relations,
    row: Row,
    /// Where the change stands, and which subtransaction wrote it, where that is known.
    place: (Lsn, Option<u32>),
    /// The change is in `row`, and its table's columns were delivered first.
    is_change_due: bool,
    current: Current,
    /// The transaction whose block of a stream this is.
    streamed: Option<u32>,
    /// The ordinals of those that are delivered before their commit.
    early: HashMap<u32, u64>,
    held: HeldBack,
    ending: Option<Box<Ending>>,
    /// Tables that a TRUNCATE has emptied, and of which the caller has not heard.
    truncated: VecDeque<u32>,
    messages: Messages,
}

impl Log {
    pub(super) fn new(options: &StreamOptions) -> Self {
        let early = options.streaming == Streaming::Early;
        Log {
            wanted: Wanted { transactions: options.transactions || options.two_phase || early, early },
            relations: Relations::default(),
            row: Row::default(),
            place: (Lsn(0), None),
            is_change_due: false,
            current: Current::default(),
            streamed: None,
            early: HashMap::new(),
            held: HeldBack::new(options.memory_max, std::env::temp_dir()),
            ending: None,
            truncated: VecDeque::new(),
            messages: Messages::new(options.channels.clone()),
        }
    }

    /// A new connection begins where the server knows that we are: what was not complete comes again.
    pub(super) fn lost(&mut self) {
        self.held.clear();
        self.early.clear();
        self.truncated.clear();
        self.is_change_due = false;
        (self.ending, self.streamed) = (None, None);
        self.current = Current::default();
    }

    /// Whether no transaction is being delivered.
    pub(super) fn is_idle(&self) -> bool {
        !self.current.is_open && !self.is_change_due && self.ending.is_none() && self.truncated.is_empty()
    }

    pub(super) fn held_back_bytes(&self) -> u64 {
        self.held.bytes_in_memory() as u64 + self.held.bytes_in_files()
    }

    /// What is left of messages that were taken: a change whose table was delivered first, tables of a
    /// TRUNCATE, and a transaction that was held back. `None` when nothing is.
    #[inline]
    pub(super) fn rest(&mut self, feedback: &mut Feedback) -> Result<Option<Found>> {
        if !self.is_change_due && self.truncated.is_empty() && self.ending.is_none() {
            return Ok(None);
        }
        self.next_rest(feedback)
    }

    #[cold]
    fn next_rest(&mut self, feedback: &mut Feedback) -> Result<Option<Found>> {
        if std::mem::take(&mut self.is_change_due) {
            return Ok(Some(self.counted(Found::Change, feedback)));
        }
        loop {
            if let Some(&relation) = self.truncated.front() {
                if self.relations.take_undelivered(relation) {
                    return Ok(Some(Found::Schema(relation)));
                }
                self.truncated.pop_front();
                self.row.truncate(relation);
                return Ok(Some(self.counted(Found::Change, feedback)));
            }
            let Some(mut ending) = self.ending.take() else { return Ok(None) };
            let found = match ending.replay.next()? {
                Some((lsn, message)) => {
                    self.place.0 = lsn;
                    self.read(message, true, feedback)?
                }
                None => {
                    self.relations.replayed();
                    let (found, end_lsn) = (ending.found, ending.end_lsn);
                    if let Some(found) = self.end(found, end_lsn, feedback) {
                        return Ok(Some(found));
                    }
                    continue;
                }
            };
            self.ending = Some(ending);
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    /// Takes one message, when there is no [rest](Self::rest).
    #[inline]
    pub(super) fn take(
        &mut self,
        lsn: Lsn,
        message: &[u8],
        feedback: &mut Feedback,
    ) -> Result<Option<Found>> {
        // What describes a table stands at no place, and has the number of its description.
        self.place.0 = if lsn == Lsn(0) { Lsn(self.relations.next_number()) } else { lsn };
        match self.streamed {
            None => self.read(message, false, feedback),
            Some(xid) => self.take_streamed(xid, message, feedback),
        }
    }

    /// A message within the block of a transaction that is not committed yet. What is held back is read when
    /// it is taken.
    fn take_streamed(&mut self, xid: u32, message: &[u8], feedback: &mut Feedback) -> Result<Option<Found>> {
        match pgoutput::look(message).map_err(malformed)? {
            InStream::Stop => {
                self.streamed = None;
                if self.wanted.early {
                    self.early.insert(xid, self.current.ordinal);
                    self.current = Current::default();
                }
                Ok(None)
            }
            InStream::Of(_) if self.wanted.early => self.read(message, true, feedback),
            InStream::Of(subxid) => {
                self.held.append(xid, subxid.unwrap_or(xid), self.place.0, message)?;
                Ok(None)
            }
        }
    }

    #[inline]
    fn read(&mut self, message: &[u8], is_streamed: bool, feedback: &mut Feedback) -> Result<Option<Found>> {
        let (subxid, read) = pgoutput::read(message, is_streamed).map_err(malformed)?;
        self.place.1 = subxid;
        let row = &mut self.row;
        let relation_of = |id: u32| self.relations.get(id).ok_or_else(|| undescribed(id));
        let id = match read {
            Read::Insert { relation, .. } | Read::Update { relation, .. } | Read::Delete { relation, .. } => {
                relation
            }
            other => return self.read_other(other, feedback),
        };
        let relation = relation_of(id)?;
        match read {
            Read::Insert { new, .. } => row.insert(id, relation, new),
            Read::Update { old, new, .. } => row.update(id, relation, old, new),
            Read::Delete { old, .. } => row.delete(id, relation, old),
            _ => Ok(()),
        }
        .map_err(malformed)?;
        if self.relations.take_undelivered(id) {
            self.is_change_due = true;
            return Ok(Some(Found::Schema(id)));
        }
        Ok(Some(self.counted(Found::Change, feedback)))
    }

    fn read_other(&mut self, read: Read<'_>, feedback: &mut Feedback) -> Result<Option<Found>> {
        match read {
            Read::Begin { commit_lsn, committed_at_us, xid } => {
                self.begin(xid, Some(commit_lsn), committed_at_us, None);
                Ok(self.begun(feedback))
            }
            Read::BeginPrepare(prepared) => {
                self.begin_prepared(&prepared);
                Ok(self.begun(feedback))
            }
            Read::Commit(commit) => {
                // Its end will be acknowledged: what lies before, the server forgets.
                if self.current.commit_lsn != Some(commit.commit_lsn) || self.place.0 != commit.end_lsn {
                    return Err(broken("a commit of another transaction than the one that it began"));
                }
                Ok(self.end(Found::Commit, commit.end_lsn, feedback))
            }
            Read::Prepare(prepared) => Ok(self.end(Found::Prepare, prepared.end_lsn, feedback)),
            Read::CommitPrepared { commit, xid, gid } => {
                let gid = String::from_utf8_lossy(gid).into_owned();
                self.begin(xid, Some(commit.commit_lsn), commit.committed_at_us, Some(gid));
                Ok(self.end(Found::Commit, commit.end_lsn, feedback))
            }
            Read::RollbackPrepared(rolled_back) => {
                let gid = String::from_utf8_lossy(rolled_back.gid).into_owned();
                let at_us = rolled_back.rolled_back_at_us;
                // The server does not say where it begins, and where it ends the next commit may stand.
                let lsn = Lsn(rolled_back.end_lsn.0.saturating_sub(1));
                self.begin(rolled_back.xid, Some(lsn), at_us, Some(gid));
                Ok(self.end(Found::Rollback, rolled_back.end_lsn, feedback))
            }
            Read::Relation(relation) => {
                self.describe(&relation);
                Ok(None)
            }
            Read::Type { oid, namespace, name } => {
                self.relations.name_type(oid, namespace, name);
                Ok(None)
            }
            Read::Truncate { relations, .. } => {
                self.truncated.extend(relations.iter());
                if let Some(id) = self.truncated.iter().find(|id| self.relations.get(**id).is_none()) {
                    return Err(undescribed(*id));
                }
                self.rest(feedback)
            }
            Read::Logical { lsn, is_transactional, prefix, content } => {
                let is_wanted = self.messages.take(lsn, is_transactional, prefix, content);
                Ok(self.message_taken(is_wanted, is_transactional, feedback))
            }
            other => self.read_streamed(other, feedback),
        }
    }

    /// One of another channel counts all the same; one that belongs to no transaction is done with by itself.
    fn message_taken(&mut self, wanted: bool, transactional: bool, feedback: &mut Feedback) -> Option<Found> {
        match (wanted, transactional) {
            (true, true) => _ = self.counted(Found::Message, feedback),
            (false, true) => self.current.ordinal += 1,
            (true, false) => {
                let (place, end) = self.messages.alone();
                feedback.delivers(place, 1);
                feedback.committed(place, end, 1);
            }
            (false, false) => {}
        }
        wanted.then_some(Found::Message)
    }

    /// What concerns transactions that are sent before their commit.
    fn read_streamed(&mut self, read: Read<'_>, feedback: &mut Feedback) -> Result<Option<Found>> {
        match read {
            Read::StreamStart { xid, .. } => {
                self.streamed = Some(xid);
                if !self.wanted.early {
                    return Ok(None);
                }
                self.begin(xid, None, 0, None);
                self.current.ordinal = self.early.remove(&xid).unwrap_or(0);
                Ok(self.begun(feedback))
            }
            Read::StreamCommit { xid, commit } => {
                self.streamed_ends(xid, Found::Commit, commit, None, feedback)
            }
            Read::StreamPrepare(prepared) => {
                let Prepared { prepare_lsn, end_lsn, prepared_at_us, xid, gid } = prepared;
                let gid = Some(String::from_utf8_lossy(gid).into_owned());
                let commit = Commit { commit_lsn: prepare_lsn, end_lsn, committed_at_us: prepared_at_us };
                self.streamed_ends(xid, Found::Prepare, commit, gid, feedback)
            }
            Read::StreamAbort { xid, subxid, .. } => {
                self.held.abort(xid, subxid);
                let was_delivered = self.early.contains_key(&xid);
                if xid == subxid {
                    self.early.remove(&xid);
                }
                if !was_delivered {
                    return Ok(None);
                }
                self.begin(subxid, None, 0, None);
                self.current.is_open = false;
                Ok(Some(Found::Rollback))
            }
            Read::Unknown(_) => Ok(Some(Found::Unknown)),
            // An origin says where a transaction was written first.
            _ => Ok(None),
        }
    }

    /// The commit of a transaction that was held back, or has been delivered.
    fn streamed_ends(
        &mut self,
        xid: u32,
        found: Found,
        commit: Commit,
        gid: Option<String>,
        feedback: &mut Feedback,
    ) -> Result<Option<Found>> {
        self.begin(xid, Some(commit.commit_lsn), commit.committed_at_us, gid);
        if let Some(ordinal) = self.early.remove(&xid) {
            self.current.ordinal = ordinal;
            return Ok(self.end(found, commit.end_lsn, feedback));
        }
        let replay = self.held.take(xid);
        self.ending = Some(Box::new(Ending { replay, found, end_lsn: commit.end_lsn }));
        match self.begun(feedback) {
            None => self.next_rest(feedback),
            found => Ok(found),
        }
    }

    fn describe(&mut self, relation: &Relation<'_>) {
        let (number, names) = (self.place.0.0, (relation.namespace, relation.name));
        self.relations.describe(number, relation.id, names, relation.identity, relation.columns());
    }

    fn begin(&mut self, xid: u32, commit_lsn: Option<Lsn>, at_us: i64, gid: Option<String>) {
        self.current =
            Current { is_open: true, xid, commit_lsn, end_lsn: None, at_us, ordinal: 0, delivered: 0, gid };
    }

    fn begin_prepared(&mut self, prepared: &Prepared<'_>) {
        let gid = String::from_utf8_lossy(prepared.gid).into_owned();
        self.begin(prepared.xid, Some(prepared.prepare_lsn), prepared.prepared_at_us, Some(gid));
    }

    fn begun(&mut self, feedback: &mut Feedback) -> Option<Found> {
        if !self.wanted.transactions {
            return None;
        }
        self.delivers(feedback);
        Some(Found::Begin)
    }

    /// The end of the current transaction, which is delivered if that is wanted.
    fn end(&mut self, found: Found, end_lsn: Lsn, feedback: &mut Feedback) -> Option<Found> {
        let found = self.wanted.transactions.then(|| self.counted(found, feedback));
        self.current.is_open = false;
        self.current.end_lsn = Some(end_lsn);
        if let Some(commit_lsn) = self.current.commit_lsn {
            feedback.committed(commit_lsn, end_lsn, self.current.delivered);
        }
        found
    }

    /// An event more of the current transaction.
    #[inline]
    fn counted(&mut self, found: Found, feedback: &mut Feedback) -> Found {
        self.current.ordinal += 1;
        self.current.delivered = self.current.ordinal;
        self.delivers(feedback);
        found
    }

    #[inline]
    fn delivers(&self, feedback: &mut Feedback) {
        if let Some(commit_lsn) = self.current.commit_lsn {
            feedback.delivers(commit_lsn, self.current.ordinal);
        }
    }

    fn position(&self) -> Option<Position> {
        Some(Position::Log(self.current.commit_lsn?, self.current.ordinal))
    }

    /// What was found, as the caller sees it.
    pub(super) fn event<'a>(&'a self, found: Found, session: SessionId, db: &'a str) -> Option<Event<'a>> {
        let transaction = |is_end: bool| Transaction {
            session,
            db,
            xid: self.current.xid.into(),
            lsn: self.current.commit_lsn,
            end_lsn: self.current.end_lsn.filter(|_| is_end),
            committed_at: self.current.commit_lsn.map(|_| time(self.current.at_us)),
            gid: self.current.gid.as_deref(),
            position: self.position(),
        };
        Some(match found {
            Found::Schema(id) => {
                let relation = self.relations.get(id)?;
                let (schema, table, columns) = (&*relation.schema, &*relation.table, &*relation.columns);
                Event::Schema(Schema { session, db, schema, table, columns })
            }
            Found::Unknown => return None,
            Found::Change => Event::Change(self.change(session, db)?),
            Found::Begin => Event::Begin(transaction(false)),
            Found::Commit => Event::Commit(transaction(true)),
            Found::Prepare => Event::Prepare(transaction(true)),
            Found::Rollback => Event::Rollback(transaction(true)),
            Found::Message => {
                Event::Message(self.messages.as_event(session, db, self.current.xid, self.position()))
            }
        })
    }

    /// Takes a row that was there before the stream.
    pub(super) fn copied(&mut self, tables: &mut Tables, line: &[u8]) -> Result<()> {
        tables.read(line, &self.relations, &mut self.row).map_err(malformed)
    }

    /// That row, which stands before all that the slot has.
    pub(super) fn row<'a>(
        &'a self,
        session: SessionId,
        db: &'a str,
        lsn: Lsn,
        number: u64,
    ) -> Option<Change<'a>> {
        let relation = self.relations.get(self.row.relation)?;
        Some(Change {
            lsn: Some(lsn),
            commit_lsn: Some(lsn),
            ordinal: Some(number),
            snapshot: true,
            ..self.row.as_event(session, db, relation)
        })
    }

    fn change<'a>(&'a self, session: SessionId, db: &'a str) -> Option<Change<'a>> {
        let relation = self.relations.get(self.row.relation)?;
        // While it is not committed, its parts may still be taken back one by one.
        let subxid = self.place.1.filter(|_| self.current.commit_lsn.is_none());
        Some(Change {
            xid: Some(subxid.unwrap_or(self.current.xid).into()),
            lsn: Some(self.place.0),
            commit_lsn: self.current.commit_lsn,
            ordinal: Some(self.current.ordinal),
            committed_at: self.current.commit_lsn.map(|_| time(self.current.at_us)),
            ..self.row.as_event(session, db, relation)
        })
    }
}

fn undescribed(id: u32) -> Error {
    broken(&format!("a change of table {id}, which it never described"))
}

pub(super) fn malformed(malformed: Malformed) -> Error {
    violation(malformed.to_string())
}

pub(super) fn broken(what: &str) -> Error {
    violation(format!("the server sent what its protocol does not have: {what}"))
}

fn violation(message: String) -> Error {
    Error::new(ErrorKind::Connection, message).with_sqlstate(Some(SqlState::PROTOCOL_VIOLATION))
}
