//! What events and requests call sessions and channels.

use crate::error::{Error, ErrorKind, Result};
use std::fmt;

/// Names one session of one loop. Small, and never mistaken for a later session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub(crate) u32);

/// The longest name of a channel in bytes: `NAMEDATALEN - 1` (manual, "Identifiers and Key Words").
pub const CHANNEL_BYTES_MAX: usize = 63;

/// The longest payload of a notification in bytes (manual, NOTIFY: "shorter than 8000 bytes").
pub const PAYLOAD_BYTES_MAX: usize = 7999;

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

#[cfg(test)]
mod tests {
    use super::*;

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
