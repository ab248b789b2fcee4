//! For tests only, and not in what is shipped: an export that panics, to see that the guard of the packed
//! archive holds.

use super::handle::{self, Handle};
use std::ffi::c_int;

/// Panics inside of the guard.
///
/// # Safety
///
/// As for `pgwake_close`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_test_panic(handle: *mut Handle) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, |_| panic!("as if there were a bug")) }
}
