//! What events and requests call sessions, tasks, channels, and places in the write-ahead log.

use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::str::FromStr;

/// Names one session of one loop. Small, and never mistaken for a later session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub(crate) u32);

/// Names one poll or schedule of one loop, and never another one later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub(crate) u32);

/// The longest name of a channel in bytes: `NAMEDATALEN - 1` (manual, "Identifiers and Key Words").
pub const CHANNEL_BYTES_MAX: usize = 63;

/// The longest payload of a notification in bytes (manual, NOTIFY: "shorter than 8000 bytes").
pub const PAYLOAD_BYTES_MAX: usize = 7999;

/// The longest message in bytes. With what surrounds it, PostgreSQL must be able to have it in one piece of
/// memory, of less than 2^30 bytes (`MaxAllocSize`, memutils.h), and in one record of its log.
pub const MESSAGE_BYTES_MAX: usize = 1_000_000_000;

/// A channel's name: 1 to 63 bytes, exact, never folded to lower case, any content but NUL.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Box<[u8]>);

impl Channel {
    /// Checks the name. `LISTEN` would cut it at 63 bytes with no more than a notice, so that is refused
    /// here.
    pub fn new(name: impl AsRef<[u8]>) -> Result<Self> {
        let name = name.as_ref();
        let problem = match name.len() {
            0 => "a channel's name is empty: it takes 1 to 63 bytes".to_string(),
            n if n > CHANNEL_BYTES_MAX => {
                format!("a channel's name has {n} bytes: PostgreSQL keeps at most 63, choose a shorter one")
            }
            _ if name.contains(&0) => {
                "a channel's name holds a NUL byte: PostgreSQL has none in text".to_string()
            }
            _ => return Ok(Channel(name.into())),
        };
        Err(Error::new(ErrorKind::InvalidArgument, problem))
    }

    /// A name of our own making, short enough and without NUL.
    pub(crate) fn of_name(name: &str) -> Self {
        Channel(name.as_bytes().into())
    }

    /// The name's bytes, in the server's encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Channel {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

/// A place in a server's write-ahead log, a byte's number: what PostgreSQL calls a log sequence number
/// (manual, "WAL Internals"). It is written and read as the server's type `pg_lsn`, such as `16/B374D848`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let half = |digits: &str| {
            let is_half = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            is_half.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        let halves = text.split_once('/').and_then(|(high, low)| Some((half(high)?, half(low)?)));
        halves.map(|(high, low)| Lsn(high << 32 | low)).ok_or_else(|| {
            let problem = format!(
                "{text:?} is no log sequence number: it takes two hexadecimal numbers, as in 16/B374D848"
            );
            Error::new(ErrorKind::InvalidArgument, problem)
        })
    }
}

/// Where an event stands in its source, for ever: what is known by it when it comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Position {
    /// The outbox's number of a change.
    Outbox(u64),
    /// In the log, where the transaction's commit stands, and the place within the transaction. An LSN alone
    /// says nothing: many changes share one.
    Log(Lsn, u64),
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Outbox(id) => write!(f, "{id}"),
            Position::Log(commit_lsn, ordinal) => write!(f, "{commit_lsn}/{ordinal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_is_written_as_the_server_does_and_read_back() {
        for (text, number) in [
            ("0/0", 0),
            ("0/16B3748", 0x16b_3748),
            ("16/B374D848", 0x16_b374_d848),
            ("FFFFFFFF/FFFFFFFF", u64::MAX),
        ] {
            assert_eq!((Lsn(number).to_string().as_str(), text.parse::<Lsn>().unwrap()), (text, Lsn(number)));
        }
        // PostgreSQL 19 fills the second number up.
        assert_eq!("1/0000abCD".parse::<Lsn>().unwrap(), Lsn(0x1_0000_abcd));
        for bad in
            ["", "/", "1", "1/", "/1", "+1/0", "1/ 2", "1/2/3", "123456789/0", "0/123456789", "g/0", "é/0"]
        {
            assert_eq!(bad.parse::<Lsn>().unwrap_err().kind, ErrorKind::InvalidArgument, "{bad:?}");
        }
    }

    #[test]
    fn a_channel_takes_1_to_63_bytes_of_any_content_but_nul() {
        for good in ["a", "Foo", "two words", "\";'--", "日本", &"x".repeat(63)] {
            assert_eq!(Channel::new(good).unwrap().as_bytes(), good.as_bytes());
        }
        for bad in ["", "a\0b", &"x".repeat(64), &"é".repeat(32)] {
            assert_eq!(Channel::new(bad).unwrap_err().kind, ErrorKind::InvalidArgument, "{bad:?}");
        }
    }
}
