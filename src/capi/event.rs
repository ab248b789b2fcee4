//! An event as C sees it: one flat struct in the handle. The crate's events flow in; of a notification only
//! pointers are taken, the texts of other events are copied to get the NUL at their end.

use super::texts::Texts;
use super::watch;
use crate::{
    Change, Channel, Ddl, DdlPhase, Event, Gap, GapReason, Lsn, Message, Notification, Position, Rows,
    Schema, SessionId, SqlState, Tick, Transaction,
};
use std::ffi::{c_char, c_int};
use std::fmt::Write;
use std::ptr::null;
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) const LISTENING: i32 = 1;
pub(super) const NOTIFICATION: i32 = 2;
pub(super) const GAP: i32 = 3;
pub(super) const DISCONNECTED: i32 = 4;
pub(super) const FAILED: i32 = 5;
pub(super) const COMMAND_FAILED: i32 = 6;
pub(super) const SENT: i32 = 7;
pub(super) const CHANGE: i32 = 8;
pub(super) const DDL: i32 = 9;
pub(super) const ACKNOWLEDGED: i32 = 10;
pub(super) const SCHEMA: i32 = 11;
pub(super) const BEGIN: i32 = 12;
pub(super) const COMMIT: i32 = 13;
pub(super) const PREPARE: i32 = 14;
pub(super) const ROLLBACK: i32 = 15;
pub(super) const MESSAGE: i32 = 16;
pub(super) const TICK: i32 = 17;
pub(super) const ROWS: i32 = 18;

/// The session of an event that comes from none.
const NO_SESSION: i32 = -1;

pub(super) const GAP_OUTAGE: i32 = 1;
pub(super) const GAP_OVERFLOW: i32 = 2;
pub(super) const GAP_REPLACED: i32 = 3;

/// `pgwake_event`. What a notification needs lies in front, within one line of the cache.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct FlatEvent {
    pub(super) struct_size: u32,
    pub(super) r#type: i32,
    pub(super) session: i32,
    pub(super) pid: i32,
    pub(super) channel: *const c_char,
    pub(super) channel_len: usize,
    pub(super) payload: *const c_char,
    pub(super) payload_len: usize,
    pub(super) folded: u64,
    pub(super) own: i32,
    pub(super) backend_pid: i32,
    pub(super) db: *const c_char,
    pub(super) db_len: usize,
    pub(super) host: *const c_char,
    pub(super) host_len: usize,
    pub(super) server_version: *const c_char,
    pub(super) server_version_len: usize,
    pub(super) channels: *const *const c_char,
    pub(super) channels_len: usize,
    pub(super) message: *const c_char,
    pub(super) message_len: usize,
    pub(super) command: *const c_char,
    pub(super) command_len: usize,
    pub(super) sqlstate: [c_char; 8],
    pub(super) reason: i32,
    pub(super) attempts: u32,
    pub(super) dropped: u64,
    pub(super) lost_at_us: i64,
    pub(super) retry_in_ms: i64,
    pub(super) count: u64,
    pub(super) op: i32,
    pub(super) transport: i32,
    pub(super) id: u64,
    pub(super) xid: u64,
    pub(super) schema: *const c_char,
    pub(super) schema_len: usize,
    pub(super) table: *const c_char,
    pub(super) table_len: usize,
    pub(super) partition: *const c_char,
    pub(super) partition_len: usize,
    pub(super) key: *const c_char,
    pub(super) key_len: usize,
    pub(super) old_row: *const c_char,
    pub(super) old_row_len: usize,
    pub(super) new_row: *const c_char,
    pub(super) new_row_len: usize,
    pub(super) changed: *const c_char,
    pub(super) changed_len: usize,
    pub(super) phase: i32,
    pub(super) depth: u32,
    pub(super) temp: i32,
    pub(super) reserved: i32,
    pub(super) user: *const c_char,
    pub(super) user_len: usize,
    pub(super) app: *const c_char,
    pub(super) app_len: usize,
    pub(super) lsn: u64,
    pub(super) commit_lsn: u64,
    pub(super) end_lsn: u64,
    pub(super) ordinal: u64,
    pub(super) committed_at_us: i64,
    pub(super) snapshot: i32,
    pub(super) transactional: i32,
    pub(super) gid: *const c_char,
    pub(super) gid_len: usize,
    pub(super) unchanged_toast: *const c_char,
    pub(super) unchanged_toast_len: usize,
    pub(super) position: *const c_char,
    pub(super) position_len: usize,
    pub(super) columns: *const *const c_char,
    pub(super) column_types: *const *const c_char,
    pub(super) column_is_key: *const i32,
    pub(super) columns_len: usize,
    pub(super) task: i32,
    pub(super) reserved_2: i32,
    pub(super) schedule: *const c_char,
    pub(super) schedule_len: usize,
    pub(super) due_us: i64,
    pub(super) missed: u64,
    pub(super) late_us: i64,
    pub(super) poll: *const c_char,
    pub(super) poll_len: usize,
    pub(super) column_type_oids: *const u32,
    pub(super) rows_len: usize,
}

const EMPTY: FlatEvent = FlatEvent {
    struct_size: size_of::<FlatEvent>() as u32,
    // SAFETY: of integers and raw pointers zeroes are a valid value.
    ..unsafe { std::mem::zeroed() }
};

/// The event that was delivered last, and what it points to unless that is the loop's.
#[derive(Debug)]
pub(super) struct Delivered {
    flat: FlatEvent,
    texts: Texts,
    /// The channels, or the columns with their types behind them.
    lists: Vec<*const c_char>,
    flags: Vec<i32>,
    oids: Vec<u32>,
    /// What is shown as text before it is kept.
    shown: String,
}

impl Delivered {
    pub(super) fn new() -> Self {
        let (lists, flags, oids, shown) = (Vec::new(), Vec::new(), Vec::new(), String::new());
        Delivered { flat: EMPTY, texts: Texts::new(), lists, flags, oids, shown }
    }

    pub(super) fn flat(&self) -> *const FlatEvent {
        &self.flat
    }

    /// Forgets the event: nothing points to what is no longer there.
    #[cold]
    pub(super) fn clear(&mut self) {
        self.flat = EMPTY;
        self.texts.clear();
        self.lists.clear();
        self.flags.clear();
        self.oids.clear();
    }

    /// The hot path: nothing is copied but pointers and numbers. Behind channel and payload lies a NUL, as
    /// [`Text`](crate::Text) guarantees. Gives their bytes.
    #[inline]
    pub(super) fn deliver_notification(&mut self, notification: &Notification<'_>) -> usize {
        if self.flat.r#type != NOTIFICATION {
            self.clear();
            self.flat.r#type = NOTIFICATION;
        }
        let (channel, payload) = (notification.channel.as_bytes(), notification.payload.as_bytes());
        self.flat.session = session_number(notification.session);
        self.flat.pid = notification.pid;
        (self.flat.channel, self.flat.channel_len) = (channel.as_ptr().cast(), channel.len());
        (self.flat.payload, self.flat.payload_len) = (payload.as_ptr().cast(), payload.len());
        self.flat.folded = notification.folded;
        self.flat.own = i32::from(notification.own);
        channel.len() + payload.len()
    }

    /// Any event.
    #[cold]
    pub(super) fn deliver(&mut self, event: &Event<'_>) {
        self.clear();
        match event {
            Event::Notification(n) => {
                self.deliver_notification(n);
            }
            Event::Listening(l) => {
                self.begin(LISTENING, l.session, l.db);
                self.keep_channels(l.channels);
                self.flat.backend_pid = l.backend_pid;
                (self.flat.server_version, self.flat.server_version_len) = self.keep(l.server_version);
                (self.flat.host, self.flat.host_len) = self.keep(l.host);
            }
            Event::Gap(g) => self.deliver_gap(g),
            Event::Disconnected(d) => {
                self.begin(DISCONNECTED, d.session, d.db);
                self.keep_reason(d.sqlstate, d.message);
                self.flat.retry_in_ms = i64::try_from(d.retry_in.as_millis()).unwrap_or(i64::MAX);
            }
            Event::Failed(f) => {
                self.begin(FAILED, f.session, f.db);
                self.keep_reason(f.sqlstate, f.message);
            }
            Event::CommandFailed(c) => {
                self.begin(COMMAND_FAILED, c.session, c.db);
                self.keep_reason(c.sqlstate, c.message);
                (self.flat.command, self.flat.command_len) = self.keep(c.command);
                if let Some(channel) = c.channel {
                    (self.flat.channel, self.flat.channel_len) = self.keep(channel);
                }
            }
            Event::Sent(s) => {
                self.begin(SENT, s.session, s.db);
                self.flat.count = s.count;
            }
            Event::Change(c) => self.deliver_change(c),
            Event::Ddl(d) => self.deliver_ddl(d),
            Event::Acknowledged(a) => {
                self.begin(ACKNOWLEDGED, a.session, a.db);
                self.flat.id = a.id;
            }
            Event::Schema(s) => self.deliver_schema(s),
            Event::Begin(t) => self.deliver_transaction(BEGIN, t),
            Event::Commit(t) => self.deliver_transaction(COMMIT, t),
            Event::Prepare(t) => self.deliver_transaction(PREPARE, t),
            Event::Rollback(t) => self.deliver_transaction(ROLLBACK, t),
            Event::Message(m) => self.deliver_message(m),
            Event::Rows(r) => self.deliver_rows(r),
            Event::Tick(t) => self.deliver_tick(t),
        }
    }

    fn deliver_gap(&mut self, g: &Gap<'_>) {
        self.begin(GAP, g.session, g.db);
        self.keep_channels(g.channels);
        self.keep_reason(g.sqlstate, g.message);
        self.flat.reason = match g.reason {
            GapReason::Outage => GAP_OUTAGE,
            GapReason::Overflow => GAP_OVERFLOW,
            GapReason::Replaced => GAP_REPLACED,
        };
        self.flat.attempts = g.attempts;
        self.flat.dropped = g.dropped;
        self.flat.lost_at_us = us_since_1970(g.lost_at);
    }

    fn deliver_change(&mut self, c: &Change<'_>) {
        self.begin(CHANGE, c.session, c.db);
        self.flat.op = watch::op_bit(c.op) as i32;
        self.flat.transport = watch::transport_number(c.transport);
        self.flat.id = c.id.unwrap_or(0);
        self.flat.xid = c.xid.unwrap_or(0);
        self.keep_sqlstate(c.unconvertible);
        (self.flat.schema, self.flat.schema_len) = self.keep(c.schema);
        (self.flat.table, self.flat.table_len) = self.keep(c.table);
        (self.flat.partition, self.flat.partition_len) = self.keep_given(c.partition);
        (self.flat.key, self.flat.key_len) = self.keep_given(c.key);
        (self.flat.old_row, self.flat.old_row_len) = self.keep_given(c.old);
        (self.flat.new_row, self.flat.new_row_len) = self.keep_given(c.new);
        (self.flat.changed, self.flat.changed_len) = self.keep_given(c.changed);
        let json = (!c.json.is_empty()).then_some(c.json);
        (self.flat.payload, self.flat.payload_len) = self.keep_given(json);
        self.flat.lsn = number(c.lsn);
        self.flat.commit_lsn = number(c.commit_lsn);
        self.flat.ordinal = c.ordinal.unwrap_or(0);
        self.flat.committed_at_us = c.committed_at.map_or(0, us_since_1970);
        self.flat.snapshot = i32::from(c.snapshot);
        (self.flat.unchanged_toast, self.flat.unchanged_toast_len) = self.keep_given(c.unchanged_toast);
        self.keep_position(c.position());
    }

    fn deliver_transaction(&mut self, kind: i32, t: &Transaction<'_>) {
        self.begin(kind, t.session, t.db);
        self.flat.xid = t.xid;
        self.flat.lsn = number(t.lsn);
        self.flat.end_lsn = number(t.end_lsn);
        self.flat.committed_at_us = t.committed_at.map_or(0, us_since_1970);
        (self.flat.gid, self.flat.gid_len) = self.keep_given(t.gid);
        self.keep_position(t.position);
    }

    fn deliver_message(&mut self, m: &Message<'_>) {
        self.begin(MESSAGE, m.session, m.db);
        (self.flat.channel, self.flat.channel_len) = self.keep(m.channel);
        (self.flat.payload, self.flat.payload_len) = self.texts.keep_bytes(m.payload);
        self.flat.lsn = m.lsn.0;
        self.flat.transactional = i32::from(m.transactional);
        self.flat.xid = m.xid.unwrap_or(0);
        if let Some(Position::Log(commit_lsn, ordinal)) = m.position {
            (self.flat.commit_lsn, self.flat.ordinal) = (commit_lsn.0, ordinal);
        }
        self.keep_position(m.position);
    }

    /// Their values stay where the loop has them: `pgwake_value` looks there.
    fn deliver_rows(&mut self, r: &Rows<'_>) {
        self.begin(ROWS, r.session, r.db);
        self.flat.task = r.task.0 as i32;
        (self.flat.poll, self.flat.poll_len) = self.keep(r.poll);
        self.flat.id = r.id;
        self.push_list(r.columns().iter());
        self.oids.extend((0..r.columns().len()).map(|column| r.type_oid(column)));
        (self.flat.columns, self.flat.columns_len) = (self.lists.as_ptr(), r.columns().len());
        self.flat.column_type_oids = self.oids.as_ptr();
        self.flat.rows_len = r.len();
    }

    /// It comes from no session.
    fn deliver_tick(&mut self, t: &Tick<'_>) {
        (self.flat.r#type, self.flat.session) = (TICK, NO_SESSION);
        self.flat.task = t.task.0 as i32;
        (self.flat.schedule, self.flat.schedule_len) = self.keep(t.schedule);
        self.flat.due_us = us_since_1970(t.due);
        self.flat.missed = t.missed;
        self.flat.late_us = i64::try_from(t.late.as_micros()).unwrap_or(i64::MAX);
    }

    /// Names and types lie in one list, which no longer grows when it is pointed to.
    fn deliver_schema(&mut self, s: &Schema<'_>) {
        self.begin(SCHEMA, s.session, s.db);
        (self.flat.schema, self.flat.schema_len) = self.keep(s.schema);
        (self.flat.table, self.flat.table_len) = self.keep(s.table);
        self.push_list(s.columns.iter().map(|column| &column.name));
        self.push_list(s.columns.iter().map(|column| &column.type_name));
        self.flags.extend(s.columns.iter().map(|column| i32::from(column.is_key)));
        self.flat.columns = self.lists.as_ptr();
        self.flat.column_types = self.lists[s.columns.len() + 1..].as_ptr();
        self.flat.column_is_key = self.flags.as_ptr();
        self.flat.columns_len = s.columns.len();
    }

    fn deliver_ddl(&mut self, d: &Ddl<'_>) {
        self.begin(DDL, d.session, d.db);
        self.flat.phase = match d.phase {
            DdlPhase::Before => watch::PHASE_BEFORE,
            DdlPhase::After => watch::PHASE_AFTER,
        };
        self.flat.depth = d.depth;
        self.flat.temp = i32::from(d.temp);
        self.flat.xid = d.xid.unwrap_or(0);
        (self.flat.command, self.flat.command_len) = self.keep(d.tag);
        (self.flat.user, self.flat.user_len) = self.keep(d.user);
        (self.flat.app, self.flat.app_len) = self.keep(d.app);
        (self.flat.payload, self.flat.payload_len) = self.keep(d.json);
    }

    fn begin(&mut self, kind: i32, session: SessionId, db: &str) {
        self.flat.r#type = kind;
        self.flat.session = session_number(session);
        (self.flat.db, self.flat.db_len) = self.keep(db);
    }

    fn keep(&mut self, text: impl AsRef<[u8]>) -> (*const c_char, usize) {
        self.texts.keep(text.as_ref())
    }

    fn keep_given(&mut self, text: Option<&str>) -> (*const c_char, usize) {
        text.map_or((null(), 0), |text| self.keep(text))
    }

    fn push_list(&mut self, texts: impl Iterator<Item = impl AsRef<[u8]>>) {
        for text in texts {
            let (text, _) = self.keep(text);
            self.lists.push(text);
        }
        self.lists.push(null());
    }

    fn keep_channels(&mut self, channels: &[Channel]) {
        self.push_list(channels.iter());
        (self.flat.channels, self.flat.channels_len) = (self.lists.as_ptr(), channels.len());
    }

    fn keep_position(&mut self, position: Option<Position>) {
        if let Some(position) = position {
            self.shown.clear();
            // To write to a String cannot fail.
            let _ = write!(self.shown, "{position}");
            (self.flat.position, self.flat.position_len) = self.texts.keep(self.shown.as_bytes());
        }
    }

    fn keep_reason(&mut self, sqlstate: Option<SqlState>, message: &str) {
        self.keep_sqlstate(sqlstate.as_ref().map(SqlState::as_str));
        (self.flat.message, self.flat.message_len) = self.keep(message);
    }

    /// Five characters: the places behind them keep their NUL.
    fn keep_sqlstate(&mut self, sqlstate: Option<&str>) {
        let characters = sqlstate.unwrap_or_default().bytes().take(5);
        for (place, byte) in self.flat.sqlstate.iter_mut().zip(characters) {
            *place = byte as c_char;
        }
    }
}

/// A session as a number that is never negative.
pub(super) fn session_number(session: SessionId) -> c_int {
    session.0 as c_int
}

/// No place in the log is 0.
fn number(lsn: Option<Lsn>) -> u64 {
    lsn.map_or(0, |lsn| lsn.0)
}

fn us_since_1970(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
