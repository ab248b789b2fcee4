//! Which libpq, and which TLS library, is in use.

use super::text::text;

/// The version of the libpq in use, as `MAJOR.MINOR`.
pub fn version() -> String {
    let (major, minor) = version_numbers();
    format!("{major}.{minor}")
}

#[allow(unsafe_code)]
pub(super) fn version_numbers() -> (i32, i32) {
    // SAFETY: takes nothing and cannot fail.
    let number = unsafe { pq_sys::PQlibVersion() };
    // The build of pq-src 0.3.14 says 180600 for 18.6, which is 180006 by the manual's rule: undo that.
    let minor = number % 10_000;
    (number / 10_000, if minor >= 100 && minor % 100 == 0 { minor / 100 } else { minor })
}

/// The version of the TLS library that libpq uses, if it can be found in this process.
#[allow(unsafe_code)]
pub fn tls_version() -> Option<String> {
    type OpensslVersion = unsafe extern "C" fn(std::ffi::c_int) -> *const std::ffi::c_char;
    // SAFETY: dlsym takes a C string and gives NULL or an address; the address has the type of the function's
    // manual page (OpenSSL_version(3)), whose answer for 0 is a static C string.
    unsafe {
        let address = libc::dlsym(libc::RTLD_DEFAULT, c"OpenSSL_version".as_ptr());
        if address.is_null() {
            return None;
        }
        let openssl_version = std::mem::transmute::<*mut std::ffi::c_void, OpensslVersion>(address);
        Some(text(openssl_version(0)))
    }
}
