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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capi::status;
    use std::time::Duration;

    #[test]
    fn every_choice_of_a_stream_reaches_it() {
        // SAFETY: the lists end with NULL.
        let chosen = |asked: &CStreamOptions| format!("{:?}", unsafe { stream(asked) }.unwrap());
        // SAFETY: zeroes are a valid value: every default.
        let none = unsafe { std::mem::zeroed::<CStreamOptions>() };
        let none = CStreamOptions { struct_size: size_of::<CStreamOptions>() as u32, ..none };
        assert_eq!(chosen(&none), format!("{:?}", StreamOptions::new()));
        let (publications, tables) =
            ([c"p".as_ptr(), c"q".as_ptr(), std::ptr::null()], [c"t".as_ptr(), std::ptr::null()]);
        let asked = CStreamOptions {
            create_slot: 1,
            slot: c"s".as_ptr(),
            publications: publications.as_ptr(),
            tables: tables.as_ptr(),
            streaming: 2,
            origin: 1,
            memory_max_bytes: 5_000_000,
            heartbeat_ms: 6,
            ..none
        };
        let own =
            StreamOptions::new().create_slot(true).slot("s").publication("p").publication("q").table("t");
        let own = own.streaming(Streaming::Early).origin(Origin::None).memory_max(5_000_000);
        assert_eq!(chosen(&asked), format!("{:?}", own.heartbeat(Duration::from_millis(6))));
        // One at a time, so that none stands for another.
        type Flag = (fn(&mut CStreamOptions) -> &mut i32, fn(StreamOptions) -> StreamOptions);
        let flags: [Flag; 9] = [
            (|c| &mut c.temporary, |own| own.temporary(true)),
            (|c| &mut c.failover, |own| own.failover(true)),
            (|c| &mut c.partition_names, |own| own.via_partition_root(false)),
            (|c| &mut c.snapshot, |own| own.snapshot(true)),
            (|c| &mut c.messages, |own| own.messages(true)),
            (|c| &mut c.transactions, |own| own.transactions(true)),
            (|c| &mut c.two_phase, |own| own.two_phase(true)),
            (|c| &mut c.binary, |own| own.binary(true)),
            (|c| &mut c.manual_ack, |own| own.manual_ack(true)),
        ];
        for (flag, own) in flags {
            let mut asked = none;
            *flag(&mut asked) = 7;
            assert_eq!(chosen(&asked), format!("{:?}", own(StreamOptions::new())));
        }
        for wrong in [
            CStreamOptions { streaming: 3, ..none },
            CStreamOptions { origin: -1, ..none },
            CStreamOptions { reserved: 1, ..none },
            CStreamOptions { reserved_2: c"".as_ptr().cast(), ..none },
            CStreamOptions { slot: c"\xff".as_ptr(), ..none },
        ] {
            // SAFETY: as above.
            assert_eq!(status::of(&unsafe { stream(&wrong) }.unwrap_err()), status::INVALID, "{wrong:?}");
        }
    }
}
