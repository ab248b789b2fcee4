//! Fields of a message of the server, one after the other: bytes flow in; numbers, strings and slices flow
//! out, borrowed from the message. What does not fit is an error, whatever came.

use crate::event::Lsn;
use std::fmt;

/// What came is not what it says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// What is wrong, as the end of a sentence.
    pub(crate) what: &'static str,
    /// The letter with which the message begins; none where there is no letter, as in a value.
    pub(crate) tag: Option<u8>,
    /// From which byte on it could not be read.
    pub(crate) at: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Malformed { what, tag, at } = self;
        match tag {
            Some(tag) => write!(f, "the server's message '{}'", tag.escape_ascii())?,
            None => f.write_str("what the server sent")?,
        }
        write!(f, " cannot be read from byte {at} on: {what}")
    }
}

/// Reads the fields of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    tag: Option<u8>,
}

impl<'a> Reader<'a> {
    /// Of something without a letter.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0, tag: None }
    }

    /// Of a message, and its letter.
    pub(super) fn tagged(bytes: &'a [u8]) -> Result<(u8, Self), Malformed> {
        match bytes.first() {
            Some(tag) => Ok((*tag, Reader { bytes, at: 1, tag: Some(*tag) })),
            None => Err(Reader::new(bytes).malformed("it is empty")),
        }
    }

    /// What is wrong here.
    pub(super) fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, tag: self.tag, at: self.at }
    }

    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let taken = self.rest().get(..count).ok_or_else(|| self.malformed("it ends too early"))?;
        self.at += count;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let taken = self.rest().first_chunk().ok_or_else(|| self.malformed("it ends too early"))?;
        self.at += N;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn lsn(&mut self) -> Result<Lsn, Malformed> {
        self.u64().map(Lsn)
    }

    /// How many fields follow, as 16 bits.
    pub(super) fn count(&mut self) -> Result<u16, Malformed> {
        let before = *self;
        u16::try_from(self.i16()?).map_err(|_| before.malformed("it counts a negative number of fields"))
    }

    /// How many bytes or fields follow, as 32 bits.
    #[inline]
    pub(super) fn length(&mut self) -> Result<usize, Malformed> {
        let before = *self;
        usize::try_from(self.i32()?).map_err(|_| before.malformed("a length is negative"))
    }

    /// Bytes up to a NUL, which is passed over.
    pub(super) fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let rest = self.rest();
        let end = rest.iter().position(|byte| *byte == 0);
        let end = end.ok_or_else(|| self.malformed("a string has no end"))?;
        self.at += end + 1;
        Ok(&rest[..end])
    }

    /// Nothing is left.
    pub(super) fn finish(self) -> Result<(), Malformed> {
        if self.rest().is_empty() { Ok(()) } else { Err(self.malformed("more follows where it should end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_malformed_is_told_in_one_sentence() {
        let (tag, mut reader) = Reader::tagged(b"I\0\0\0\x01\xff\xff\xff\xff").unwrap();
        assert_eq!((tag, reader.u32(), reader.rest()), (b'I', Ok(1), &[255; 4][..]));
        let told = "the server's message 'I' cannot be read from byte 5 on: a length is negative";
        assert_eq!(reader.length().unwrap_err().to_string(), told);
        let told = "what the server sent cannot be read from byte 0 on: it is empty";
        assert_eq!(Reader::tagged(b"").unwrap_err().to_string(), told);
    }

    #[test]
    fn no_field_reaches_over_the_end() {
        let of = Reader::new;
        assert_eq!(of(b"abc\0d").string(), Ok(&b"abc"[..]));
        assert_eq!(of(b"abc").string().unwrap_err().what, "a string has no end");
        assert_eq!(of(b"abc").take(3), Ok(&b"abc"[..]));
        assert_eq!(of(b"abc").take(usize::MAX).unwrap_err().what, "it ends too early");
        assert_eq!(of(b"abc").u32().unwrap_err().at, 0);
        assert_eq!(of(b"\x80\0").count().unwrap_err().what, "it counts a negative number of fields");
        assert_eq!(of(b"a").finish().unwrap_err().what, "more follows where it should end");
        assert_eq!(of(b"").finish(), Ok(()));
    }
}
