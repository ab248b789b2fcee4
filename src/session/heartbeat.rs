//! Signs of life: when the server is asked for one, and when it is given up for want of it.

use super::{Command, Kind, LOG_HEARTBEATS, Session, State, lost};
use crate::error::SqlState;
use crate::options::HEARTBEAT_DEFAULT;
use std::time::{Duration, Instant};

/// Heartbeats are taken together within this part of one.
const HEARTBEAT_PARTS: u32 = 16;

/// A server that sends its log has at most so many heartbeats to answer, an hour by default.
const LOG_HEARTBEATS_MAX: u32 = 720;

impl<Tag> Session<Tag> {
    /// When `on_deadline` must be called at the latest, if nothing happens before.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } | State::Resolving { until } | State::Connecting { until } => {
                Some(until)
            }
            // Without heartbeats, a server must at least answer what is said first.
            State::Open if self.heartbeat.is_zero() && self.settled_at.is_some() => None,
            State::Open if self.heartbeat.is_zero() => {
                Some(self.heard_at + self.connect_timeout.max(2 * HEARTBEAT_DEFAULT))
            }
            State::Open => Some(match (self.probed_at, self.kind) {
                (None, _) => self.heard_at + self.heartbeat,
                (Some(probed_at), Kind::Sql) => probed_at + self.heartbeat,
                (Some(probed_at), Kind::Replication) => probed_at + self.log_heartbeats * self.heartbeat,
            }),
            State::Failed => None,
        }
    }

    /// How often it is asked for a sign of life; zero: never.
    pub(crate) fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// How much earlier than the deadline `on_deadline` may be called: heartbeats of many sessions are taken
    /// together, or each would wake the process for itself.
    pub(crate) fn slack(&self) -> Duration {
        let is_for_a_probe = self.state == State::Open && self.probed_at.is_none();
        if is_for_a_probe { self.heartbeat / HEARTBEAT_PARTS } else { Duration::ZERO }
    }

    /// Nothing was heard for a heartbeat: ask the server for a sign of life, or give it up if it was asked
    /// already.
    #[cold]
    pub(super) fn beat(&mut self, now: Instant) {
        let Some(connection) = &mut self.connection else { return };
        if self.is_patient {
            self.heard_at = now;
        } else if self.probed_at.is_none() && !self.heartbeat.is_zero() && !self.is_overdue {
            (self.probed_at, self.probe_sent_at) = (Some(now), now);
            match self.kind {
                Kind::Sql => self.send_as(None, [Command::Run { sql: b"", parameters: &[] }].into_iter()),
                // Its answer is a message. What comes without making one up belongs to a message that is
                // broken: the server has sent all of it, or it would go on.
                Kind::Replication => (self.is_probe_due, self.is_overdue) = (true, true),
            }
        } else if connection.has_kernel_input().unwrap_or(true) {
            // We were late ourselves: the sign waits in the socket.
            (self.heard_at, self.probed_at) = (now, None);
            self.set_ready();
        } else {
            self.log_heartbeats = (2 * self.log_heartbeats).min(LOG_HEARTBEATS_MAX);
            let message = format!(
                "the server did not answer for {:.1?}: it is frozen or cut off",
                now.duration_since(self.heard_at)
            );
            self.ending = Some(lost(message, SqlState::CONNECTION_LOST));
        }
    }

    /// Whether the source is to ask the server for a sign of life.
    #[inline]
    pub(crate) fn wants_probe(&self) -> bool {
        self.is_probe_due
    }

    /// The same, once for each time.
    pub(crate) fn take_probe(&mut self) -> bool {
        std::mem::take(&mut self.is_probe_due)
    }

    /// The server has come further in its log.
    pub(crate) fn has_come_further(&mut self) {
        self.log_heartbeats = LOG_HEARTBEATS;
    }

    /// Whether the server may be silent for as long as it likes: it waits for a lock, or reads a table.
    pub(crate) fn be_patient(&mut self, is_patient: bool) {
        self.is_patient = is_patient;
    }

    /// When the last probe was sent that has been answered, and how long that took.
    pub(crate) fn last_probe(&self) -> Option<(Instant, Duration)> {
        self.last_probe
    }
}
