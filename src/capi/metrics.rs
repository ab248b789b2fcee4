//! What a session has done, as C sees it: metrics of the crate flow in; a struct of the host, of this version
//! or another, is filled.

use super::given::invalid;
use super::options;
use crate::{Metrics, Result};
use std::time::{Duration, UNIX_EPOCH};

/// `pgwake_metrics`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlatMetrics {
    pub(super) struct_size: u32,
    pub(super) notifications: u64,
    pub(super) bytes: u64,
    pub(super) folded: u64,
    pub(super) dropped: u64,
    pub(super) gaps: u64,
    pub(super) reconnects: u64,
    pub(super) last_probe_us: i64,
    pub(super) probe_round_trip_ns: i64,
    pub(super) turns: u64,
    pub(super) longest_turn_ns: i64,
    pub(super) delivery_count: u64,
    pub(super) delivery_p50_ns: i64,
    pub(super) delivery_p99_ns: i64,
    pub(super) delivery_max_ns: i64,
    pub(super) stalls: u64,
    pub(super) longest_stall_ns: i64,
    pub(super) changes: u64,
    pub(super) received_lsn: u64,
    pub(super) acknowledged_lsn: u64,
    pub(super) unknown_messages: u64,
    pub(super) held_back_bytes: u64,
    pub(super) polls: u64,
}

impl From<Metrics> for FlatMetrics {
    fn from(metrics: Metrics) -> Self {
        let since_1970 = metrics.last_probe.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        FlatMetrics {
            struct_size: size_of::<FlatMetrics>() as u32,
            notifications: metrics.notifications,
            bytes: metrics.bytes.unwrap_or(0),
            folded: metrics.folded,
            dropped: metrics.dropped,
            gaps: metrics.gaps,
            reconnects: metrics.reconnects,
            last_probe_us: since_1970.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX)),
            probe_round_trip_ns: ns(metrics.probe_round_trip.unwrap_or_default()),
            turns: metrics.turns,
            longest_turn_ns: ns(metrics.longest_turn),
            delivery_count: metrics.delivery.count(),
            delivery_p50_ns: ns(metrics.delivery.quantile(0.5)),
            delivery_p99_ns: ns(metrics.delivery.quantile(0.99)),
            delivery_max_ns: ns(metrics.delivery.max()),
            stalls: metrics.stalls,
            longest_stall_ns: ns(metrics.longest_stall),
            changes: metrics.changes,
            received_lsn: metrics.received_lsn.unwrap_or_default().0,
            acknowledged_lsn: metrics.acknowledged_lsn.unwrap_or_default().0,
            unknown_messages: metrics.unknown_messages,
            held_back_bytes: metrics.held_back_bytes,
            polls: metrics.polls,
        }
    }
}

fn ns(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Fills the host's struct as far as it goes. What only a newer version knows becomes zero; the size stays.
///
/// # Safety
///
/// `given` is NULL or points to as many bytes as the `u32` at its start says, which may be written.
pub(super) unsafe fn fill(given: *mut FlatMetrics, own: &FlatMetrics) -> Result<()> {
    if given.is_null() {
        return Err(invalid("there is no place for the metrics: the argument is NULL"));
    }
    // SAFETY: the caller promises that at least this much is there.
    let size = unsafe { given.cast::<u32>().read_unaligned() };
    let size = options::checked_size::<FlatMetrics>(size, "pgwake_metrics")?;
    let (start, known) = (size_of::<u32>(), size.min(size_of::<FlatMetrics>()));
    // SAFETY: the caller promises `size` bytes, of which no more than our own struct has are copied.
    unsafe {
        let to = given.cast::<u8>();
        let from = std::ptr::from_ref(own).cast::<u8>();
        std::ptr::copy_nonoverlapping(from.add(start), to.add(start), known - start);
        std::ptr::write_bytes(to.add(known), 0, size - known);
    }
    Ok(())
}
