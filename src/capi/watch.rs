//! What a C host watches: lists of names, and structs that begin with their size, flow in; the crate's own
//! options flow out.

use super::given::{invalid, list, utf8};
use super::options::{self, Versioned, given, refuse_reserved};
use crate::{ChangeOp, ChangePayload, DdlOptions, DdlPhase, Result, Transport, WatchOptions};
use std::ffi::c_char;

pub(super) const OP_INSERT: u32 = 1;
pub(super) const OP_UPDATE: u32 = 2;
pub(super) const OP_DELETE: u32 = 4;
pub(super) const OP_TRUNCATE: u32 = 8;
const OP_ALL: u32 = OP_INSERT | OP_UPDATE | OP_DELETE | OP_TRUNCATE;

/// What was not said follows the watch that there is; where there is none yet, it is this.
pub(super) const PAYLOAD_KEY: i32 = 0;
pub(super) const PAYLOAD_WAKE: i32 = 1;
pub(super) const PAYLOAD_CHANGED: i32 = 2;
pub(super) const PAYLOAD_ROW: i32 = 3;

pub(super) const TRANSPORT_OUTBOX: i32 = 0;
pub(super) const TRANSPORT_NOTIFY: i32 = 1;
pub(super) const TRANSPORT_WAL: i32 = 2;

/// Of an event, and as a sum in what is asked for.
pub(super) const PHASE_BEFORE: i32 = 1;
pub(super) const PHASE_AFTER: i32 = 2;
const BOTH_PHASES: i32 = PHASE_BEFORE | PHASE_AFTER;

pub(super) fn op_bit(op: ChangeOp) -> u32 {
    match op {
        ChangeOp::Insert => OP_INSERT,
        ChangeOp::Update => OP_UPDATE,
        ChangeOp::Delete => OP_DELETE,
        ChangeOp::Truncate => OP_TRUNCATE,
    }
}

pub(super) fn transport_number(transport: Transport) -> i32 {
    match transport {
        Transport::Outbox => TRANSPORT_OUTBOX,
        Transport::Notify => TRANSPORT_NOTIFY,
        Transport::Wal => TRANSPORT_WAL,
    }
}

/// `pgwake_watch_options`: zero means the default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct CWatchOptions {
    pub(super) struct_size: u32,
    pub(super) ops: u32,
    pub(super) payload: i32,
    pub(super) transport: i32,
    pub(super) consumer: *const c_char,
    pub(super) columns: *const *const c_char,
    pub(super) from_start: i32,
    pub(super) only_watched: i32,
    pub(super) manual_ack: i32,
    pub(super) reserved: i32,
    pub(super) fallback_poll_ms: i64,
    pub(super) before: i32,
    pub(super) reserved_2: i32,
}

// SAFETY: four integers of four bytes, two pointers, four integers again, one of eight bytes, which lies at a
// multiple of eight whether pointers have four bytes or eight, and two more of four.
unsafe impl Versioned for CWatchOptions {
    const NAME: &'static str = "pgwake_watch_options";
}

/// `pgwake_ddl_options`: zero means the default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct CDdlOptions {
    pub(super) struct_size: u32,
    pub(super) temp: i32,
    pub(super) nested: i32,
    pub(super) reserved: i32,
    pub(super) tags: *const *const c_char,
    pub(super) before: i32,
    pub(super) phases: i32,
}

// SAFETY: four integers of four bytes, a pointer, which lies at a multiple of eight, and two more of four.
unsafe impl Versioned for CDdlOptions {
    const NAME: &'static str = "pgwake_ddl_options";
}

/// What to watch, and how.
///
/// # Safety
///
/// `tables` is NULL or a list of C strings that ends with NULL. `asked` is NULL or points to as many bytes
/// as its first field says; the list in it is NULL or another such list, the text NULL or a C string.
pub(super) unsafe fn tables(
    tables: *const *const c_char,
    asked: *const CWatchOptions,
) -> Result<WatchOptions> {
    // SAFETY: as the caller promises.
    let (tables, asked) = unsafe { (list(tables, "tables")?, options::read(asked)?) };
    refuse_reserved(asked.reserved | asked.reserved_2, CWatchOptions::NAME)?;
    let payload = match asked.payload {
        PAYLOAD_KEY => None,
        PAYLOAD_WAKE => Some(ChangePayload::Wake),
        PAYLOAD_CHANGED => Some(ChangePayload::Changed),
        PAYLOAD_ROW => Some(ChangePayload::Row),
        other => return Err(invalid(&format!("payload is {other}: take a PGWAKE_PAYLOAD_*"))),
    };
    let transport = match asked.transport {
        TRANSPORT_OUTBOX => None,
        TRANSPORT_NOTIFY => Some(Transport::Notify),
        TRANSPORT_WAL => Some(Transport::Wal),
        other => return Err(invalid(&format!("transport is {other}: take a PGWAKE_TRANSPORT_*"))),
    };
    if asked.ops & !OP_ALL != 0 {
        return Err(invalid(&format!("ops is {}: add up PGWAKE_OP_*", asked.ops)));
    }
    let mut own = WatchOptions::new()
        .ops(ChangeOp::ALL.into_iter().filter(|op| asked.ops & op_bit(*op) != 0))
        // SAFETY: as the caller promises.
        .columns(unsafe { list(asked.columns, "columns") }?)
        .from_start(asked.from_start != 0)
        .only_watched(asked.only_watched != 0)
        .manual_ack(asked.manual_ack != 0);
    own = payload.into_iter().fold(own, WatchOptions::payload);
    own = transport.into_iter().fold(own, WatchOptions::transport);
    own = if asked.before == 0 { own } else { own.before(true) };
    if !asked.consumer.is_null() {
        // SAFETY: as the caller promises.
        own = own.consumer(unsafe { utf8(asked.consumer, "consumer") }?);
    }
    own = given(asked.fallback_poll_ms).into_iter().fold(own, WatchOptions::fallback_poll);
    Ok(tables.into_iter().fold(own, WatchOptions::table))
}

/// Which DDL to hear of.
///
/// # Safety
///
/// `asked` is NULL or points to as many bytes as its first field says; the list in it is NULL or one of C
/// strings that ends with NULL.
pub(super) unsafe fn ddl(asked: *const CDdlOptions) -> Result<DdlOptions> {
    // SAFETY: as the caller promises.
    let asked = unsafe { options::read(asked) }?;
    refuse_reserved(asked.reserved, CDdlOptions::NAME)?;
    let phases = match (asked.before, asked.phases) {
        (0, 0) => &[][..],
        (0, PHASE_BEFORE) => &[DdlPhase::Before],
        (0, PHASE_AFTER) => &[DdlPhase::After],
        (0, BOTH_PHASES) | (_, 0) => &[DdlPhase::Before, DdlPhase::After],
        (_, 0..=BOTH_PHASES) => return Err(invalid("before and phases are both set: leave before at 0")),
        (_, other) => return Err(invalid(&format!("phases is {other}: add up PGWAKE_PHASE_*"))),
    };
    // SAFETY: as the caller promises.
    let tags = unsafe { list(asked.tags, "tags") }?;
    let own = DdlOptions::new().tags(tags).temp(asked.temp != 0).nested(asked.nested != 0);
    Ok(phases.iter().fold(own, |own, phase| own.phase(*phase)))
}
