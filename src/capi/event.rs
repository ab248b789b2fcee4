//! An event as C sees it: one flat struct in the handle. The crate's events flow in; of a notification only
//! pointers are taken, the texts of rarer events are copied to get the NUL at their end.

use crate::{Channel, Event, GapReason, Notification, SessionId, SqlState};
use std::ffi::{CString, c_char, c_int};
use std::ptr::null;
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) const LISTENING: i32 = 1;
pub(super) const NOTIFICATION: i32 = 2;
pub(super) const GAP: i32 = 3;
pub(super) const DISCONNECTED: i32 = 4;
pub(super) const FAILED: i32 = 5;
pub(super) const COMMAND_FAILED: i32 = 6;
pub(super) const SENT: i32 = 7;

pub(super) const GAP_OUTAGE: i32 = 1;
pub(super) const GAP_OVERFLOW: i32 = 2;

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
};

/// The event that was told last, and what it points to unless that is the loop's.
#[derive(Debug)]
pub(super) struct Told {
    flat: FlatEvent,
    texts: Vec<CString>,
    channels: Vec<*const c_char>,
}

impl Told {
    pub(super) fn new() -> Self {
        Told { flat: EMPTY, texts: Vec::new(), channels: Vec::new() }
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
    /// [`Notify`](crate::pq::Notify) guarantees.
    #[inline]
    pub(super) fn tell_notification(&mut self, notification: &Notification<'_>) {
        if self.flat.r#type != NOTIFICATION {
            self.clear();
            self.flat.r#type = NOTIFICATION;
        }
        self.flat.session = session_number(notification.session);
        self.flat.pid = notification.pid;
        self.flat.channel = notification.channel.as_ptr().cast();
        self.flat.channel_len = notification.channel.len();
        self.flat.payload = notification.payload.as_ptr().cast();
        self.flat.payload_len = notification.payload.len();
        self.flat.folded = notification.folded;
        self.flat.own = i32::from(notification.own);
    }

    /// Any event.
    #[cold]
    pub(super) fn tell(&mut self, event: &Event<'_>) {
        self.clear();
        match event {
            Event::Notification(n) => self.tell_notification(n),
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
                (self.flat.channel, self.flat.channel_len) = self.keep(c.channel);
            }
            Event::Sent(s) => {
                self.begin(SENT, s.session, s.db);
                self.flat.count = s.count;
            }
            // No function of C asks for these.
            Event::Change(_) | Event::Ddl(_) | Event::Acknowledged(_) => {}
        }
    }

    fn begin(&mut self, kind: i32, session: SessionId, db: &str) {
        self.flat.r#type = kind;
        self.flat.session = session_number(session);
        (self.flat.db, self.flat.db_len) = self.keep(db);
    }

    /// A copy that ends with a NUL; one inside, which PostgreSQL never sends, would end it early.
    fn keep(&mut self, text: impl AsRef<[u8]>) -> (*const c_char, usize) {
        let bytes = text.as_ref().iter().map(|byte| if *byte == 0 { b'?' } else { *byte });
        let text = CString::new(bytes.collect::<Vec<u8>>()).unwrap_or_default();
        // The text stays where it is while the list of texts grows.
        let kept = (text.as_ptr(), text.as_bytes().len());
        self.texts.push(text);
        kept
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
        if let Some(sqlstate) = sqlstate {
            for (place, byte) in self.flat.sqlstate.iter_mut().zip(sqlstate.as_str().bytes()) {
                *place = byte as c_char;
            }
        }
        (self.flat.message, self.flat.message_len) = self.keep(message);
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
