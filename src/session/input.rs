//! What comes over an open connection: readiness in, one read for each time, bounded from the second of a
//! message on, and no more than a message may have.

use super::{Session, State, lost};
use crate::error::{Error, SqlState};
use crate::reactor::WaitFor;
use std::time::Instant;

impl<Tag> Session<Tag> {
    /// The poller told of the socket.
    #[inline]
    pub(crate) fn set_ready(&mut self) {
        (self.is_ready, self.is_held) = (true, false);
    }

    /// The poller would tell if it could see what TLS holds before libpq. While libpq connects, only the
    /// poller knows how far that is: libpq would wait for what it believes to be done.
    #[cold]
    pub(crate) fn set_held(&mut self) {
        if self.is_open() && !self.is_ready {
            (self.is_ready, self.is_held) = (true, true);
        }
    }

    /// Whether there is input to consume.
    #[inline(always)]
    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Whether bytes may be held where no poller sees them, so that the session wants another turn without
    /// being told.
    #[inline(always)]
    pub(crate) fn holds_more(&mut self) -> bool {
        // An error here is the socket's, of which the poller tells.
        std::mem::take(&mut self.may_hold_more)
            && self.connection.as_mut().is_some_and(|connection| connection.has_held_input().unwrap_or(false))
    }

    /// Looks for input although no poller has told of it; `false` when there is none.
    #[cold]
    pub(crate) fn look_ahead(&mut self) -> bool {
        let has_input = self.state == State::Open
            && self.ending.is_none()
            && self
                .connection
                .as_ref()
                .is_some_and(|connection| connection.has_kernel_input().unwrap_or(false));
        if has_input {
            self.set_ready();
        }
        has_input
    }

    /// A message was complete.
    #[inline]
    pub(crate) fn has_said_something(&mut self) {
        (self.is_in_message, self.is_overdue) = (false, false);
    }

    /// Consumes what a poller told of; `false` when it told of nothing.
    #[inline(always)]
    pub(crate) fn consume(&mut self, now: Instant) -> bool {
        let Some(connection) = self.connection.as_mut().filter(|_| self.is_ready) else { return false };
        (self.is_ready, self.may_hold_more) = (false, true);
        // The end of a connection is no sign of the server: what it sent before may have come to nothing.
        let heard_at = std::mem::replace(&mut self.heard_at, now);
        self.probed_at = None;
        if std::mem::replace(&mut self.is_in_message, !self.is_held) {
            self.consume_bounded();
            if self.ending.is_some() {
                self.heard_at = heard_at;
            }
        } else {
            self.message_bytes = 0;
            if !connection.read_input() {
                (self.ending, self.heard_at) = (Some(connection.loss()), heard_at);
            }
            // That has also sent what it could; how much is only of interest while something was left.
            if self.wait_for != WaitFor::Reading {
                self.flush_rest();
            }
        }
        self.is_held = false;
        true
    }

    /// What is longer than one read is taken in bounded ones, and counted.
    #[cold]
    fn consume_bounded(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        self.is_in_message = true;
        match connection.consume_bounded(self.wait_for != WaitFor::Reading) {
            Ok((bytes, is_flushed)) => {
                self.message_bytes += bytes;
                self.wait_for_flush(is_flushed);
            }
            Err(error) => self.ending = Some(error),
        }
        if self.message_bytes > self.message_bytes_max {
            let too_long = if self.are_rows_asked_for { too_many_rows } else { too_long };
            self.ending = Some(too_long(self.message_bytes_max));
        }
    }

    /// Rows are asked for, of which an answer may have so much, or what any answer may have.
    pub(crate) fn accept_rows(&mut self, bytes: usize) {
        self.are_rows_asked_for = true;
        self.message_bytes_max = self.message_bytes_max.max(bytes);
    }

    #[cold]
    fn flush_rest(&mut self) {
        let Some(connection) = self.connection.as_mut().filter(|_| self.ending.is_none()) else { return };
        match connection.flush_into_room() {
            Ok(flushed) => self.wait_for_flush(flushed),
            Err(error) => self.ending = Some(error),
        }
    }
}

/// Of a poll, or of SQL that a schedule runs. What to do about it, a poll says itself.
fn too_many_rows(bytes_max: usize) -> Error {
    let message = format!("the rows of one answer have more than {} MB", bytes_max >> 20);
    lost(message, SqlState::LIMIT_EXCEEDED)
}

pub(super) fn too_long(bytes_max: usize) -> Error {
    let mb = bytes_max >> 20;
    let message =
        format!("the server sent more than {mb} MB in one message: it is broken, or no PostgreSQL server");
    lost(message, SqlState::PROTOCOL_VIOLATION)
}
