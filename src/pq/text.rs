//! The texts that libpq owns.

/// The text behind a pointer that libpq owns, empty for NULL. Behind its last byte lies a NUL in any case.
///
/// # Safety
///
/// `text` is NULL or ends with a NUL and is neither changed nor freed during `'a`.
#[allow(unsafe_code)]
pub(super) unsafe fn bytes<'a>(text: *const std::ffi::c_char) -> &'a [u8] {
    if text.is_null() {
        return c"".to_bytes();
    }
    // SAFETY: as the caller promises.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_bytes()
}

/// The same as text, with replacement characters for what is not UTF-8.
///
/// # Safety
///
/// As for [`bytes`].
#[allow(unsafe_code)]
pub(super) unsafe fn text(text: *const std::ffi::c_char) -> String {
    // SAFETY: as the caller promises.
    String::from_utf8_lossy(unsafe { bytes(text) }).into_owned()
}
