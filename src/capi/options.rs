//! What a C host may choose: structs that begin with their size, of this version or another, flow in; the
//! crate's own options flow out.

use super::given::invalid;
use crate::{Error, EventLoopOptions, Overflow, Result, SessionOptions};
use std::time::Duration;

/// No version of an options struct will be as long: such a size was never set.
const STRUCT_BYTES_MAX: usize = 4096;

pub(super) const OVERFLOW_BLOCK: i32 = 0;
pub(super) const OVERFLOW_COALESCE: i32 = 1;
pub(super) const OVERFLOW_DROP_OLDEST: i32 = 2;

/// A struct of nothing but integers and raw pointers, without padding, that begins with its size as `u32`.
///
/// # Safety
///
/// All of that is so: any bytes are a valid value. Whether a pointer may be followed is another question,
/// which the host answers.
pub(super) unsafe trait Versioned: Copy {
    /// As it is called in C.
    const NAME: &'static str;
}

/// `pgwake_options`: zero means the default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct CLoopOptions {
    pub(super) struct_size: u32,
    pub(super) spin_us: u32,
    pub(super) stall_warning_ms: i64,
    pub(super) spin_adaptive_permille: u32,
    pub(super) reserved: u32,
}

// SAFETY: two integers of four bytes, one of eight, which lies at a multiple of eight, and two of four.
unsafe impl Versioned for CLoopOptions {
    const NAME: &'static str = "pgwake_options";
}

impl TryFrom<CLoopOptions> for EventLoopOptions {
    type Error = Error;

    fn try_from(options: CLoopOptions) -> Result<Self> {
        if options.reserved != 0 || options.spin_adaptive_permille > 1000 {
            return Err(invalid("of pgwake_options, reserved is 0 and spin_adaptive_permille at most 1000"));
        }
        let own = EventLoopOptions::new()
            .spin(Duration::from_micros(options.spin_us.into()))
            .spin_adaptive(f64::from(options.spin_adaptive_permille) / 1000.0);
        Ok(given(options.stall_warning_ms).into_iter().fold(own, EventLoopOptions::stall_warning))
    }
}

/// `pgwake_session_options`: zero means the default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct CSessionOptions {
    pub(super) struct_size: u32,
    pub(super) overflow: i32,
    pub(super) overflow_max: u32,
    pub(super) skip_own: i32,
    pub(super) heartbeat_ms: i64,
    pub(super) self_test: i32,
    pub(super) reserved: i32,
}

// SAFETY: four integers of four bytes, one of eight, which lies at a multiple of eight, and two of four.
unsafe impl Versioned for CSessionOptions {
    const NAME: &'static str = "pgwake_session_options";
}

impl TryFrom<CSessionOptions> for SessionOptions {
    type Error = Error;

    fn try_from(asked: CSessionOptions) -> Result<Self> {
        let overflow = match asked.overflow {
            OVERFLOW_BLOCK => Overflow::Block,
            OVERFLOW_COALESCE => Overflow::Coalesce,
            OVERFLOW_DROP_OLDEST if asked.overflow_max == 0 => {
                return Err(invalid("PGWAKE_OVERFLOW_DROP_OLDEST keeps overflow_max notifications: set it"));
            }
            OVERFLOW_DROP_OLDEST => Overflow::DropOldest(asked.overflow_max as usize),
            other => return Err(invalid(&format!("overflow is {other}: take a PGWAKE_OVERFLOW_*"))),
        };
        refuse_reserved(asked.reserved, CSessionOptions::NAME)?;
        let options = SessionOptions::new()
            .overflow(overflow)
            .skip_own(asked.skip_own != 0)
            .self_test(asked.self_test != 0);
        Ok(given(asked.heartbeat_ms).into_iter().fold(options, SessionOptions::heartbeat))
    }
}

/// A duration unless it is left to the default by zero. A negative one means never, which the crate calls
/// zero.
pub(super) fn given(ms: i64) -> Option<Duration> {
    (ms != 0).then(|| Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

pub(super) fn refuse_reserved(reserved: i32, name: &str) -> Result<()> {
    match reserved {
        0 => Ok(()),
        _ => Err(invalid(&format!("the reserved field of {name} is not 0"))),
    }
}

/// The size that a struct of the host's claims to have, unless it cannot be: sizes are multiples of the
/// alignment, so that none ends within a field.
pub(super) fn checked_size<T>(size: u32, name: &str) -> Result<usize> {
    let is_possible = (size_of::<u32>()..=STRUCT_BYTES_MAX).contains(&(size as usize));
    if !is_possible || !(size as usize).is_multiple_of(align_of::<T>()) {
        return Err(invalid(&format!("struct_size of {name} is {size}: set it to sizeof({name})")));
    }
    Ok(size as usize)
}

/// The struct as this version knows it. One of an older version is shorter, and what it lacks is zero; one of
/// a newer version is longer, and what this version does not know must be zero. NULL is all zero.
///
/// # Safety
///
/// `given` is NULL or points to as many bytes as the `u32` at its start says.
pub(super) unsafe fn read<T: Versioned>(given: *const T) -> Result<T> {
    // SAFETY: zeroes are a valid value of a `Versioned`.
    let mut own: T = unsafe { std::mem::zeroed() };
    if given.is_null() {
        return Ok(own);
    }
    // SAFETY: the caller promises that at least this much is there.
    let size = checked_size::<T>(unsafe { given.cast::<u32>().read_unaligned() }, T::NAME)?;
    let known = size.min(size_of::<T>());
    // SAFETY: the caller promises `size` bytes; any bytes are a valid value.
    let unknown = unsafe {
        std::ptr::copy_nonoverlapping(given.cast::<u8>(), (&raw mut own).cast::<u8>(), known);
        std::slice::from_raw_parts(given.cast::<u8>().add(known), size - known)
    };
    if unknown.iter().any(|byte| *byte != 0) {
        return Err(invalid(&format!(
            "{} asks for what pgwake {} does not have: the program was built for a newer one",
            T::NAME,
            env!("CARGO_PKG_VERSION")
        )));
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_of_a_session_reaches_it() {
        let chosen = |asked: CSessionOptions| SessionOptions::try_from(asked).unwrap();
        // SAFETY: zeroes are a valid value: every default.
        let none = unsafe { std::mem::zeroed::<CSessionOptions>() };
        assert_eq!(format!("{:?}", chosen(none)), format!("{:?}", SessionOptions::new()));
        let asked = CSessionOptions {
            overflow: 2,
            overflow_max: 3,
            skip_own: 1,
            heartbeat_ms: 4,
            self_test: 1,
            ..none
        };
        let own = SessionOptions::new().overflow(Overflow::DropOldest(3)).skip_own(true);
        let own = own.heartbeat(Duration::from_millis(4)).self_test(true);
        assert_eq!(format!("{:?}", chosen(asked)), format!("{own:?}"));
    }
}
