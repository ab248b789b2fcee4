//! Messages of the log: which of them are for the caller, and the one that it has now.

use crate::event::{Channel, Lsn, Message, Position, SessionId};
use std::ffi::CString;

/// The last one, until the next.
#[derive(Debug)]
pub(super) struct Messages {
    /// Of these channels; of all, when there is none.
    channels: Vec<Channel>,
    prefix: CString,
    content: Vec<u8>,
    lsn: Lsn,
    is_transactional: bool,
}

impl Messages {
    pub(super) fn new(channels: Vec<Channel>) -> Self {
        let (prefix, content) = (CString::default(), Vec::new());
        Messages { channels, prefix, content, lsn: Lsn(0), is_transactional: false }
    }

    /// Takes one that ends at this place in the log, if it is for the caller.
    pub(super) fn take(&mut self, lsn: Lsn, is_transactional: bool, prefix: &[u8], content: &[u8]) -> bool {
        let is_wanted =
            self.channels.is_empty() || self.channels.iter().any(|channel| channel.as_bytes() == prefix);
        if is_wanted {
            // It ended with a NUL on the wire, and holds none.
            self.prefix = CString::new(prefix).unwrap_or_default();
            self.content = content.to_vec();
            (self.lsn, self.is_transactional) = (lsn, is_transactional);
        }
        is_wanted
    }

    /// Where one that belongs to no transaction is known to stand, and where it ends. There the commit of a
    /// transaction may stand.
    pub(super) fn alone(&self) -> (Lsn, Lsn) {
        (Lsn(self.lsn.0.saturating_sub(1)), self.lsn)
    }

    /// As the caller sees it. `xid`, `position`: of the transaction that is being delivered.
    pub(super) fn as_event<'a>(
        &'a self,
        session: SessionId,
        db: &'a str,
        xid: u32,
        position: Option<Position>,
    ) -> Message<'a> {
        let transactional = self.is_transactional;
        Message {
            session,
            db,
            channel: self.prefix.as_c_str().into(),
            payload: &self.content,
            lsn: self.lsn,
            transactional,
            xid: transactional.then_some(xid.into()),
            position: if transactional { position } else { Some(Position::Log(self.alone().0, 1)) },
        }
    }
}
