//! What a new connection is told before anything else, in one round trip: the encoding, every LISTEN, and
//! that no time-out is to end it. The server's answer says who its process is.

use super::Report;
use super::channels::{Batch, ChannelSource};
use super::requests::Subscription;
use crate::session::Rows;
use std::time::Instant;

/// A pooler makes up the PID that it gives with its welcome. Only the server knows the one that stands in
/// notifications.
const WHO: &str = "SELECT pg_catalog.pg_backend_pid()";

/// What a role or a database may have set to end those who are idle, or take long. The first two are in every
/// version.
const TIMEOUTS: [&str; 4] = [
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
];

/// Asks who the process is and, for a session that is to last, sets the time-outs off for it alone.
fn settings(is_lasting: bool) -> Vec<u8> {
    let off = |name: &str| {
        format!(
            ", CASE WHEN pg_catalog.current_setting('{name}', true) IS NOT NULL \
             THEN pg_catalog.set_config('{name}', '0', false) END"
        )
    };
    let off: String = TIMEOUTS.iter().filter(|_| is_lasting).map(|name| off(name)).collect();
    format!("{WHO}{off}").into_bytes()
}

impl ChannelSource {
    #[cold]
    pub(super) fn prepare(&mut self) {
        let Some(connection) = self.session.connection() else { return };
        self.db = connection.database();
        self.backend_pid = connection.backend_pid();
        // A payload that cannot be converted to the client's encoding would make the server end this session,
        // and anybody may send one. With the server's own encoding nothing is converted.
        let encoding = connection.parameter(c"server_encoding");
        let is_encoding_right = encoding == connection.parameter(c"client_encoding");
        self.changes.clear();
        self.unanswered.clear();
        if !is_encoding_right {
            self.send(Some(format!("SET client_encoding TO '{encoding}'").into_bytes()), Batch::Setting);
        }
        if !self.begin_self_test() {
            self.prepare_channels();
        }
    }

    /// The rest, at once. The LISTENs come last: by them the server shows who listens.
    #[cold]
    pub(super) fn prepare_channels(&mut self) {
        self.is_lasting = !self.wanted.is_empty() || self.outbox.is_some() || self.ddl.is_some();
        self.send(Some(settings(self.is_lasting)), Batch::Setting);
        for channel in self.wanted.clone() {
            self.send_change(Subscription { listen: true, channel });
        }
        self.is_prepared = true;
    }

    /// Before a session that was prepared only to notify begins to listen. One that never does leaves the
    /// time-outs alone: behind a pooler in transaction mode, they would be those of others, too.
    #[cold]
    pub(super) fn make_lasting(&mut self) {
        if self.is_prepared && !std::mem::replace(&mut self.is_lasting, true) {
            self.send(Some(settings(true)), Batch::Setting);
        }
    }

    /// The server has said who its process is.
    pub(super) fn learn_pid(&mut self, rows: Rows) {
        let pid = rows.as_ref().and_then(|rows| rows.value(0, 0)?.try_into().ok());
        self.backend_pid = pid.map_or(self.backend_pid, i32::from_be_bytes);
    }

    /// All that was asked of a new connection is answered.
    pub(super) fn prepared(&mut self, now: Instant) {
        self.session.settled(now);
        self.is_listening = true;
        let channels = self.take_listened();
        match self.outage.take() {
            Some(outage) => self.reports.push_back(Report::Gap { channels, outage }),
            None => self.report_listening(channels),
        }
        self.was_listening = true;
        self.begin_watch(now);
        self.begin_ddl(now);
    }
}
