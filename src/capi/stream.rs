//! What a C host streams from the write-ahead log: a struct that begins with its size flows in; the crate's
//! own options flow out.

use super::given::{invalid, list, utf8};
use super::options::{self, Versioned, given, refuse_reserved};
use crate::{Origin, Result, StreamOptions, Streaming};
use std::ffi::{c_char, c_void};

pub(super) const STREAMING_OFF: i32 = 0;
pub(super) const STREAMING_ON: i32 = 1;
pub(super) const STREAMING_EARLY: i32 = 2;

pub(super) const ORIGIN_ANY: i32 = 0;
pub(super) const ORIGIN_NONE: i32 = 1;

/// `pgwake_stream_options`: zero means the default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct CStreamOptions {
    pub(super) struct_size: u32,
    pub(super) create_slot: i32,
    pub(super) slot: *const c_char,
    pub(super) publications: *const *const c_char,
    pub(super) tables: *const *const c_char,
    pub(super) reserved_2: *const c_void,
    pub(super) temporary: i32,
    pub(super) failover: i32,
    pub(super) partition_names: i32,
    pub(super) snapshot: i32,
    pub(super) messages: i32,
    pub(super) transactions: i32,
    pub(super) streaming: i32,
    pub(super) two_phase: i32,
    pub(super) binary: i32,
    pub(super) origin: i32,
    pub(super) manual_ack: i32,
    pub(super) reserved: i32,
    pub(super) memory_max_bytes: u64,
    pub(super) heartbeat_ms: i64,
}

// SAFETY: two integers of four bytes, four pointers, twelve integers of four bytes, and two of eight, which
// lie at multiples of eight whether pointers have four bytes or eight.
unsafe impl Versioned for CStreamOptions {
    const NAME: &'static str = "pgwake_stream_options";
}

/// What to stream, and how.
///
/// # Safety
///
/// `asked` is NULL or points to as many bytes as its first field says; the lists in it are NULL or of C
/// strings and end with NULL, the text is NULL or a C string.
pub(super) unsafe fn stream(asked: *const CStreamOptions) -> Result<StreamOptions> {
    // SAFETY: as the caller promises.
    let asked = unsafe { options::read(asked) }?;
    let reserved = asked.reserved | i32::from(!asked.reserved_2.is_null());
    refuse_reserved(reserved, CStreamOptions::NAME)?;
    let streaming = match asked.streaming {
        STREAMING_OFF => Streaming::Off,
        STREAMING_ON => Streaming::On,
        STREAMING_EARLY => Streaming::Early,
        other => return Err(invalid(&format!("streaming is {other}: take a PGWAKE_STREAMING_*"))),
    };
    let origin = match asked.origin {
        ORIGIN_ANY => Origin::Any,
        ORIGIN_NONE => Origin::None,
        other => return Err(invalid(&format!("origin is {other}: take a PGWAKE_ORIGIN_*"))),
    };
    // SAFETY: as the caller promises.
    let (publications, tables) =
        unsafe { (list(asked.publications, "publications")?, list(asked.tables, "tables")?) };
    let mut own = StreamOptions::new()
        .create_slot(asked.create_slot != 0)
        .temporary(asked.temporary != 0)
        .failover(asked.failover != 0)
        .via_partition_root(asked.partition_names == 0)
        .snapshot(asked.snapshot != 0)
        .messages(asked.messages != 0)
        .transactions(asked.transactions != 0)
        .streaming(streaming)
        .two_phase(asked.two_phase != 0)
        .binary(asked.binary != 0)
        .origin(origin)
        .manual_ack(asked.manual_ack != 0);
    if !asked.slot.is_null() {
        // SAFETY: as the caller promises.
        own = own.slot(unsafe { utf8(asked.slot, "slot") }?);
    }
    own = publications.into_iter().fold(own, StreamOptions::publication);
    own = tables.into_iter().fold(own, StreamOptions::table);
    if asked.memory_max_bytes != 0 {
        own = own.memory_max(usize::try_from(asked.memory_max_bytes).unwrap_or(usize::MAX));
    }
    Ok(given(asked.heartbeat_ms).into_iter().fold(own, StreamOptions::heartbeat))
}
