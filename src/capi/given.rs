//! What a host gives: texts and numbers, and the error for those that cannot be.

use crate::{Error, ErrorKind, Result, SessionId};
use std::ffi::{CStr, c_char, c_int, c_void};

pub(super) fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// Whatever a host gives as a session: a number that names none is found out by the loop.
pub(super) fn session_id(session: c_int) -> SessionId {
    SessionId(session as u32)
}

/// The bytes of a C string, without the NUL.
///
/// # Safety
///
/// `text` is NULL or a C string that stays as it is during `'a`.
pub(super) unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<&'a [u8]> {
    if text.is_null() {
        return Err(invalid(&format!("the {name} is NULL")));
    }
    // SAFETY: as the caller promises.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// That many bytes; none for a length of 0.
///
/// # Safety
///
/// `start` is NULL or points to `len` bytes that stay as they are during `'a`.
pub(super) unsafe fn bytes<'a>(start: *const c_void, len: usize, name: &str) -> Result<&'a [u8]> {
    match len {
        0 => Ok(&[]),
        _ if start.is_null() => Err(invalid(&format!("the {name} is NULL, and its length is not 0"))),
        // No object is longer: this is a negative number of the host's.
        len if len > isize::MAX as usize => Err(invalid(&format!("the {name}'s length is negative"))),
        // SAFETY: as the caller promises.
        len => Ok(unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) }),
    }
}

/// A C string as text.
///
/// # Safety
///
/// As for [`text`].
pub(super) unsafe fn utf8<'a>(given: *const c_char, name: &str) -> Result<&'a str> {
    // SAFETY: as the caller promises.
    let bytes = unsafe { text(given, name) }?;
    std::str::from_utf8(bytes).map_err(|_| invalid(&format!("the {name} is not UTF-8")))
}

/// The texts of a list, in UTF-8; none for NULL.
///
/// # Safety
///
/// As for [`texts`].
pub(super) unsafe fn list<'a>(list: *const *const c_char, name: &str) -> Result<Vec<&'a str>> {
    // SAFETY: as the caller promises.
    let texts = unsafe { texts(list, name) }?;
    let as_text = |text| std::str::from_utf8(text).map_err(|_| invalid(&format!("the {name} is not UTF-8")));
    texts.into_iter().map(as_text).collect()
}

/// The texts of a list; none for NULL.
///
/// # Safety
///
/// `list` is NULL or a list of C strings that ends with NULL; all of it stays as it is during `'a`.
pub(super) unsafe fn texts<'a>(list: *const *const c_char, name: &str) -> Result<Vec<&'a [u8]>> {
    let mut texts = Vec::new();
    let mut place = list;
    // SAFETY: as the caller promises; no place behind the NULL is looked at.
    while !place.is_null() && !unsafe { place.read_unaligned() }.is_null() {
        // SAFETY: the same.
        unsafe {
            texts.push(text(place.read_unaligned(), name)?);
            place = place.add(1);
        }
    }
    Ok(texts)
}
