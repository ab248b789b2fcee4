//! A text in libpq's memory, as libpq has it: a C string.
#![allow(unsafe_code)]

use std::cmp::Ordering;
use std::ffi::{CStr, c_char};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

/// Bytes with a NUL behind the last and none among them: a channel's name, a payload, in the encoding of the
/// client. They are looked at as a slice.
///
/// It is as small as a pointer, and how long it is has not been counted: each look at the slice counts. Who
/// needs it often keeps [`as_bytes`](Self::as_bytes).
#[derive(Clone, Copy)]
pub struct Text<'a> {
    start: NonNull<c_char>,
    lives: PhantomData<&'a CStr>,
}

// SAFETY: as a `&CStr`, which it is but for its size.
unsafe impl Send for Text<'_> {}
// SAFETY: the same.
unsafe impl Sync for Text<'_> {}

impl<'a> Text<'a> {
    /// # Safety
    ///
    /// `start` points to a C string that lives as long as `'a`, and nobody changes it.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(start: *mut c_char) -> Self {
        // SAFETY: no C string begins at NULL.
        Text { start: unsafe { NonNull::new_unchecked(start) }, lives: PhantomData }
    }

    /// The bytes without the NUL, which live as long as what the text was taken from, an event for one.
    #[inline(always)]
    pub fn as_bytes(self) -> &'a [u8] {
        self.as_c_str().to_bytes()
    }

    /// The bytes with the NUL.
    #[inline(always)]
    pub fn as_c_str(self) -> &'a CStr {
        // SAFETY: `start` points to a C string that lives as long as `'a`.
        unsafe { CStr::from_ptr(self.start.as_ptr()) }
    }

    /// As a `str`, if it is UTF-8.
    #[inline]
    pub fn to_str(self) -> Option<&'a str> {
        std::str::from_utf8(self.as_bytes()).ok()
    }
}

impl<'a> From<&'a CStr> for Text<'a> {
    fn from(text: &'a CStr) -> Self {
        // SAFETY: it lives that long, and a pointer to what is borrowed is not NULL.
        unsafe { Text::from_raw(text.as_ptr().cast_mut()) }
    }
}

impl Deref for Text<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<[u8]> for Text<'_> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Text<'_> {
    #[inline]
    fn eq(&self, other: &T) -> bool {
        self.as_bytes() == other.as_ref()
    }
}

impl Eq for Text<'_> {}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Text<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

/// Characters that are not UTF-8 show as U+FFFD.
impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(self).fmt(f)
    }
}

/// As that of a string.
impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_its_bytes_and_no_larger_than_a_pointer() {
        assert_eq!(size_of::<Option<Text<'_>>>(), size_of::<usize>());
        let text = Text::from(c"caf\xe9 \"1\"");
        assert_eq!((text.len(), text.first(), text.as_c_str()), (8, Some(&b'c'), c"caf\xe9 \"1\""));
        assert!(text > Text::from(c"c") && std::collections::HashSet::from([text]).contains(&text));
        assert!(text == b"caf\xe9 \"1\"" && text != "caf" && text == text);
        assert_eq!((text.to_str(), Text::from(c"").to_str()), (None, Some("")));
        assert_eq!(text.to_string(), "caf\u{fffd} \"1\"");
        assert_eq!(format!("{text:?}"), r#""caf� \"1\"""#);
    }
}
