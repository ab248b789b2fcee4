//! LISTEN for the caller: a new connection listens on every channel before it delivers anything, and each
//! outage is reported as one gap.
//!
//! Promise: at most once, in commit order. Each outage is exactly one gap, after every channel listens again
//! and before the next notification.

use super::link::{Link, settings};
use super::tag::{ListenRequest, Subscription, Tag};
use crate::error::{Error, Result};
use crate::event::Channel;
use crate::session::{Loss, Rows};
use crate::source::report::{Outage, Report};
use std::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Listen {
    was_listening: bool,
    outage: Option<Outage>,
}

impl Listen {
    /// Says on a new connection what has to be said before anything else.
    #[cold]
    pub(super) fn connected(&mut self, link: &mut Link) {
        let Some(connection) = link.session.connection() else { return };
        link.db = connection.database();
        link.backend_pid = connection.backend_pid();
        // A payload that cannot be converted to the client's encoding would make the server end this session,
        // and anybody may send one. With the server's own encoding nothing is converted.
        let encoding = connection.parameter(c"server_encoding");
        if encoding != connection.parameter(c"client_encoding") {
            let sql = format!("SET client_encoding TO '{encoding}'");
            link.send(Tag::Listen(ListenRequest::Setting), Some(sql.as_bytes()), &[]);
        }
    }

    /// The rest, at once: that no time-out is to end the connection, and every LISTEN. These come last: by
    /// them the server shows who listens.
    #[cold]
    pub(super) fn prepare(&mut self, link: &mut Link, has_readers: bool) {
        let (changes, is_lasting) = link.channels.prepare(has_readers);
        link.send(Tag::Listen(ListenRequest::Setting), Some(&settings(is_lasting)), &[]);
        for change in changes {
            subscribe(link, change);
        }
    }

    /// Says what the caller wants to listen on or not any more; `false` when that is nothing new.
    #[inline(always)]
    pub(super) fn step(&mut self, link: &mut Link) -> bool {
        link.is_listening && link.channels.has_changes() && send_changes(link)
    }

    /// What the server said to a request of this reader.
    pub(super) fn answered(
        &mut self,
        link: &mut Link,
        request: ListenRequest,
        answer: Result<Rows>,
        now: Instant,
    ) {
        match (request, answer) {
            (ListenRequest::Setting, Ok(rows)) => learn_pid(link, rows),
            (ListenRequest::Setting, Err(error)) => link.session.fail(error),
            (ListenRequest::Subscription(Subscription { listen, channel }), Ok(_)) => {
                if listen {
                    link.channels.confirm(channel);
                }
            }
            (ListenRequest::Subscription(change), Err(error)) => refused(link, change, error),
        }
        // A server that refused a LISTEN is not listened to, whatever else it answers.
        let is_answered = link.session.unanswered().next().is_none() && !link.session.is_ending();
        if link.channels.is_prepared() && is_answered && !link.is_listening {
            self.prepared(link, now);
        }
    }

    /// All that was asked of a new connection is answered.
    fn prepared(&mut self, link: &mut Link, now: Instant) {
        link.session.settled(now);
        link.is_listening = true;
        let channels = link.channels.take_confirmed();
        match self.outage.take() {
            Some(outage) => link.reports.push_back(Report::Gap { channels, outage }),
            None => report_listening(link, channels),
        }
        self.was_listening = true;
    }

    /// Reports channels that were confirmed, once all are.
    #[cold]
    pub(super) fn report(&mut self, link: &mut Link) {
        let has_more_changes =
            matches!(link.session.unanswered().next(), Some(Tag::Listen(ListenRequest::Subscription(_))));
        if link.is_listening && !has_more_changes && link.channels.has_confirmed() {
            let channels = link.channels.take_confirmed();
            report_listening(link, channels);
        }
    }

    #[cold]
    pub(super) fn lost(&mut self, link: &mut Link, loss: Loss<Tag>) {
        let Loss { error, retry_in, heard_at, .. } = loss;
        link.is_listening = false;
        link.channels.lost();
        if self.was_listening {
            let new = Outage { error: error.clone(), lost_at: heard_at, attempts: 0 };
            let outage = self.outage.get_or_insert(new);
            outage.attempts += 1;
        }
        link.reports.push_back(match retry_in {
            Some(retry_in) => Report::Disconnected { error, retry_in },
            None => Report::Failed { error },
        });
    }
}

#[cold]
fn send_changes(link: &mut Link) -> bool {
    for change in link.channels.take_changes() {
        subscribe(link, change);
    }
    true
}

/// The server has said who its process is.
fn learn_pid(link: &mut Link, rows: Rows) {
    let pid = rows.as_ref().and_then(|rows| rows.value(0, 0)?.try_into().ok());
    link.backend_pid = pid.map_or(link.backend_pid, i32::from_be_bytes);
}

#[cold]
fn subscribe(link: &mut Link, change: Subscription) {
    link.make_lasting();
    let sql = listen_sql(change.listen, &change.channel);
    link.send(Tag::Listen(ListenRequest::Subscription(change)), Some(&sql), &[]);
}

/// The server refused a LISTEN or UNLISTEN. What is wrong with one name must not stop the others; a server
/// that listens to nobody, such as a standby, is not the right one.
#[cold]
fn refused(link: &mut Link, change: Subscription, error: Error) {
    let is_about_the_name = error.sqlstate.is_some_and(|sqlstate| sqlstate.is_about_the_command());
    if !link.is_listening && !is_about_the_name {
        return link.session.fail(error);
    }
    let unanswered = link.session.unanswered().filter_map(|tag| match tag {
        Tag::Listen(ListenRequest::Subscription(other)) => Some(other),
        _ => None,
    });
    link.channels.refused(&change, unanswered);
    let command = if change.listen { "listen" } else { "unlisten" };
    link.report_failure(command, Some(change.channel), error);
}

fn report_listening(link: &mut Link, channels: Vec<Channel>) {
    let Some(connection) = link.session.connection() else { return };
    link.reports.push_back(Report::Listening {
        channels,
        backend_pid: link.backend_pid,
        server_version: connection.server_version(),
        host: connection.host(),
    });
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
