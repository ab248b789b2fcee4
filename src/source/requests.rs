//! What the caller asks of a session: channels to listen on or not any more, and notifications to send. It is
//! kept here until it can be sent.

use super::Report;
use super::channels::{Batch, ChannelSource};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Channel, PAYLOAD_BYTES_MAX};
use crate::session::Command;

/// How many notifications may wait to be sent, and how many bytes they may hold together: a caller that
/// queues faster than the server commits is told to take events first.
const UNSENT_MAX: usize = 65_536;
const UNSENT_BYTES_MAX: usize = 16 << 20;

/// How many batches may be on their way: enough to hide the round trip, few enough to lose when a connection
/// breaks.
const UNANSWERED_MAX: usize = 256;

const NOTIFY_SQL: &[u8] = b"SELECT pg_catalog.pg_notify($1, $2)";

/// LISTEN or UNLISTEN on a session that is connected already.
#[derive(Debug, Clone)]
pub(super) struct Subscription {
    pub(super) listen: bool,
    pub(super) channel: Channel,
}

/// What is to be notified. Its content never reaches a log, not even by `Debug`.
pub(super) struct Payload(Box<[u8]>);

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl ChannelSource {
    pub(crate) fn listen(&mut self, channel: Channel) -> Result<()> {
        self.refuse_if_failed()?;
        if self.wanted.insert(channel.clone()) && self.is_prepared {
            self.changes.push_back(Subscription { listen: true, channel });
        }
        Ok(())
    }

    pub(crate) fn unlisten(&mut self, channel: Channel) -> Result<()> {
        self.refuse_if_failed()?;
        if self.wanted.remove(&channel) && self.is_prepared {
            self.changes.push_back(Subscription { listen: false, channel });
        }
        Ok(())
    }

    pub(crate) fn notify(&mut self, channel: Channel, payload: &[u8]) -> Result<()> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            let n = payload.len();
            let message = format!(
                "the payload has {n} bytes: PostgreSQL takes at most 7999, send a reference to the data"
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        if payload.contains(&0) {
            let message =
                "the payload holds a NUL byte: PostgreSQL has none in text, encode the payload first";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.refuse_if_failed()?;
        if self.unsent.len() >= UNSENT_MAX || self.unsent_bytes + payload.len() > UNSENT_BYTES_MAX {
            let message =
                "too many notifications wait to be sent: take events until `Sent` comes, then go on";
            return Err(Error::new(ErrorKind::QueueFull, message));
        }
        self.unsent_bytes += payload.len();
        self.unsent.push_back((channel, Payload(payload.into())));
        Ok(())
    }

    #[cold]
    pub(super) fn send_change(&mut self, change: Subscription) {
        self.make_lasting();
        self.send(Some(listen_sql(change.listen, &change.channel)), Batch::Subscription(change));
    }

    /// Sends what the caller has queued; `false` when there was nothing to send.
    #[inline(always)]
    pub(super) fn send_queued(&mut self) -> bool {
        self.is_listening && !(self.changes.is_empty() && self.unsent.is_empty()) && self.send_all()
    }

    #[cold]
    fn send_all(&mut self) -> bool {
        for change in std::mem::take(&mut self.changes) {
            self.send_change(change);
        }
        let room = UNANSWERED_MAX.saturating_sub(self.unanswered.len());
        for (channel, Payload(payload)) in self.unsent.drain(..room.min(self.unsent.len())) {
            let parameters: &[&[u8]] = &[channel.as_bytes(), &payload];
            self.session.send(std::iter::once(Command::Run { sql: NOTIFY_SQL, parameters }));
            self.unsent_bytes -= payload.len();
            self.unanswered.push_back(Batch::Notify(channel));
        }
        room > 0
    }

    /// The server refused a LISTEN or UNLISTEN. What is wrong with one name must not stop the others; a
    /// server that listens to nobody, such as a standby, is not the right one.
    #[cold]
    pub(super) fn refused(&mut self, Subscription { listen, channel }: Subscription, error: Error) {
        let is_about_the_name = error.sqlstate.is_some_and(|sqlstate| sqlstate.is_about_the_command());
        if !self.is_listening && !is_about_the_name {
            return self.session.fail(error);
        }
        let is_newer = |change: &Subscription| change.channel == channel;
        let is_wanted_anew = self.changes.iter().any(is_newer)
            || self
                .unanswered
                .iter()
                .any(|batch| matches!(batch, Batch::Subscription(change) if is_newer(change)));
        if !is_wanted_anew && listen {
            self.wanted.remove(&channel);
        } else if !is_wanted_anew {
            self.wanted.insert(channel.clone());
        }
        let command = if listen { "listen" } else { "unlisten" };
        self.reports.push_back(Report::CommandFailed { command, channel, error });
    }
}

/// `LISTEN "…"` or `UNLISTEN "…"`. Quoting needs no connection: the client's encoding is the server's, and in
/// those no multi-byte character holds a quote (manual, "Supported Character Sets": server-safe encodings).
pub(super) fn listen_sql(listen: bool, channel: &Channel) -> Vec<u8> {
    let mut sql = if listen { b"LISTEN \"".to_vec() } else { b"UNLISTEN \"".to_vec() };
    for byte in channel.as_bytes() {
        sql.extend(std::iter::repeat_n(*byte, if *byte == b'"' { 2 } else { 1 }));
    }
    sql.push(b'"');
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_quoted_byte_by_byte() {
        let sql = |name: &[u8]| listen_sql(true, &Channel::new(name).unwrap());
        assert_eq!(sql(b"Foo"), b"LISTEN \"Foo\"");
        assert_eq!(sql(b"a\"; DROP TABLE t; --"), b"LISTEN \"a\"\"; DROP TABLE t; --\"");
        assert_eq!(sql(b"caf\xe9"), b"LISTEN \"caf\xe9\"");
    }
}
