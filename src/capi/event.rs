//! An event as C sees it: one flat struct in the handle. The crate's events flow in; of a notification only
//! pointers are taken, the texts of other events are copied to get the NUL at their end.

use super::texts::Texts;
use super::watch;
use crate::{Change, Channel, Ddl, DdlPhase, Event, GapReason, Notification, SessionId, SqlState};
use std::ffi::{c_char, c_int};
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

pub(super) const GAP_OUTAGE: i32 = 1;
pub(super) const GAP_OVERFLOW: i32 = 2;
pub(super) const GAP_REPLACED: i32 = 3;

pub(super) const PHASE_BEFORE: i32 = 1;
pub(super) const PHASE_AFTER: i32 = 2;

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
}

const EMPTY: FlatEvent = FlatEvent {
    struct_size: size_of::<FlatEvent>() as u32,
    r#type: 0,
    session: 0,
    pid: 0,
    channel: null(),
    channel_len: 0,
    payload: null(),
    payload_len: 0,
    folded: 0,
    own: 0,
    backend_pid: 0,
    db: null(),
    db_len: 0,
    host: null(),
    host_len: 0,
    server_version: null(),
    server_version_len: 0,
    channels: null(),
    channels_len: 0,
    message: null(),
    message_len: 0,
    command: null(),
    command_len: 0,
    sqlstate: [0; 8],
    reason: 0,
    attempts: 0,
    dropped: 0,
    lost_at_us: 0,
    retry_in_ms: 0,
    count: 0,
    op: 0,
    transport: 0,
    id: 0,
    xid: 0,
    schema: null(),
    schema_len: 0,
    table: null(),
    table_len: 0,
    partition: null(),
    partition_len: 0,
    key: null(),
    key_len: 0,
    old_row: null(),
    old_row_len: 0,
    new_row: null(),
    new_row_len: 0,
    changed: null(),
    changed_len: 0,
    phase: 0,
    depth: 0,
    temp: 0,
    reserved: 0,
    user: null(),
    user_len: 0,
    app: null(),
    app_len: 0,
};

/// The event that was delivered last, and what it points to unless that is the loop's.
#[derive(Debug)]
pub(super) struct Delivered {
    flat: FlatEvent,
    texts: Texts,
    channels: Vec<*const c_char>,
}

impl Delivered {
    pub(super) fn new() -> Self {
        Delivered { flat: EMPTY, texts: Texts::new(), channels: Vec::new() }
    }

    pub(super) fn flat(&self) -> *const FlatEvent {
        &self.flat
    }

    /// Forgets the event: nothing points to what is no longer there.
    #[cold]
    pub(super) fn clear(&mut self) {
        self.flat = EMPTY;
        self.texts.clear();
        self.channels.clear();
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
            Event::Gap(g) => {
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
        }
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
        (self.flat.payload, self.flat.payload_len) = self.keep(c.json);
    }

    fn deliver_ddl(&mut self, d: &Ddl<'_>) {
        self.begin(DDL, d.session, d.db);
        self.flat.phase = match d.phase {
            DdlPhase::Before => PHASE_BEFORE,
            DdlPhase::After => PHASE_AFTER,
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

    fn keep_channels(&mut self, channels: &[Channel]) {
        for channel in channels {
            let (text, _) = self.keep(channel);
            self.channels.push(text);
        }
        self.channels.push(null());
        (self.flat.channels, self.flat.channels_len) = (self.channels.as_ptr(), channels.len());
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

fn us_since_1970(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
