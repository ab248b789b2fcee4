//! The way to a connection: where to, through which host, and what is asked of it. No step waits, neither for
//! a name service nor for a host.

use super::endpoint::Route;
use super::input::too_long;
use super::limits::MESSAGE_BYTES_MAX;
use super::{Addresses, CONNECT_TIMEOUT_DEFAULT, Kind, Progress, Session, State, lost};
use crate::error::{Error, SqlState};
use crate::options::bounded;
use crate::pq::{Connection, Conninfo, Polling};
use crate::reactor::WaitFor;
use std::time::Instant;

/// After half a minute without a byte, it is asked three times (manual, "Parameter Key Words").
const KEEPALIVES: [(&str, &str); 3] =
    [("keepalives_idle", "30"), ("keepalives_interval", "10"), ("keepalives_count", "3")];

impl<Tag> Session<Tag> {
    /// Finds out where to connect to, and starts to, or looks the names up first.
    pub(super) fn start_attempt(&mut self, now: Instant) {
        self.attempt = self.conninfo.with_defaults();
        self.connect_timeout = self.attempt.connect_timeout().map_or(CONNECT_TIMEOUT_DEFAULT, bounded);
        self.silent = 0;
        // Lists that do not match are for libpq to complain about.
        self.route = Route::of(&self.attempt).unwrap_or_default();
        self.endpoints = self.route.len();
        let names = self.route.names();
        if names.is_empty() {
            return self.connect(now);
        }
        self.state = State::Resolving { until: now + self.connect_timeout };
        if !self.is_looking_up {
            self.is_looking_up = true;
            if let Err(error) = self.jobs.look_up(names) {
                self.is_looking_up = false;
                self.ending = Some(error.into());
            }
        }
    }

    /// The name service has answered; perhaps too late for the attempt that asked.
    pub(crate) fn resolved(&mut self, addresses: &Addresses, now: Instant) {
        self.is_looking_up = false;
        if !matches!(self.state, State::Resolving { .. }) {
            return;
        }
        let answer =
            |name: &str| addresses.get(name).and_then(|found| found.clone().ok()).unwrap_or_default();
        self.route.resolve(answer);
        if self.route.len() > 0 {
            return self.connect(now);
        }
        let reasons = addresses.iter().filter_map(|(name, found)| Some((name, found.as_ref().err()?)));
        let reasons: Vec<_> = reasons.map(|(name, reason)| format!("\"{name}\": {reason}")).collect();
        let message = format!("no address was found for host {}", reasons.join(", "));
        self.ending = Some(lost(message, SqlState::CONNECTION_NOT_MADE));
    }

    /// The host in hand has been silent for too long, or is full: the others first, and it at the end.
    pub(super) fn pass_over(&mut self, now: Instant) {
        self.silent += 1;
        if self.silent >= self.route.len() {
            return self.give_up("no answer to the attempt to connect");
        }
        let (address, port) = &self.trying;
        self.route.put_last(address, port);
        self.connect(now);
    }

    pub(super) fn give_up(&mut self, what: &str) {
        let message = format!("{what} within {} s (connect_timeout)", self.connect_timeout.as_secs());
        self.ending = Some(lost(message, SqlState::CONNECTION_NOT_MADE));
    }

    /// What to connect with, to reach one of these endpoints; without any, libpq goes by the conninfo.
    pub(super) fn conninfo_of(&self, route: &Route) -> Conninfo {
        let mut conninfo = self.conninfo.clone();
        if route.len() > 0 {
            route.write_into(&mut conninfo);
        }
        self.protect(&mut conninfo);
        conninfo
    }

    fn connect(&mut self, now: Instant) {
        let conninfo = self.conninfo_of(&self.route);
        log::debug!("connecting to {conninfo}");
        self.state = State::Connecting { until: now + self.connect_timeout };
        match Connection::start(&conninfo) {
            Ok(connection) => {
                self.trying = connection.address();
                self.connection = Some(connection);
                // What was ready was another socket.
                (self.wait_for, self.is_ready) = (WaitFor::Writing, false);
                self.is_interest_new = true;
            }
            Err(error) => self.ending = Some(error),
        }
    }

    /// What a session wants of a server, where the user has not said otherwise.
    fn protect(&self, conninfo: &mut Conninfo) {
        if self.kind == Kind::Replication {
            conninfo.set("replication", "database");
            // It may be silent for long, and says nothing then that could fail to arrive.
            for (keyword, value) in KEEPALIVES {
                if self.attempt.get(keyword).is_none_or(str::is_empty) {
                    conninfo.set(keyword, value);
                }
            }
        }
        // A standby cannot LISTEN. (`read-write` would also turn away a primary whose transactions are
        // read-only by default, which can.) From 16 on it can send its log, so one that is named is asked.
        let wants_primary = self.kind == Kind::Sql || self.endpoints > 1;
        let is_chosen = self.conninfo.get("target_session_attrs").is_some()
            || self.attempt.get("target_session_attrs").is_some_and(|attributes| attributes != "any");
        if wants_primary && !is_chosen {
            conninfo.set("target_session_attrs", "primary");
        }
        // What was sent and never acknowledged, such as a probe, ends the connection after as long as the
        // probe would.
        if !self.heartbeat.is_zero()
            && self.attempt.get("tcp_user_timeout").is_none_or(|t| t.is_empty() || t == "0")
        {
            conninfo
                .set("tcp_user_timeout", &(2 * self.heartbeat).as_millis().min(i32::MAX as u128).to_string());
        }
        // With its other defaults libpq sends the password in clear to a server that declines TLS and asks
        // for it.
        let is_encrypted =
            ["require", "verify-ca", "verify-full"].map(Some).contains(&self.attempt.get("sslmode"));
        if !is_encrypted
            && !self.route.is_local()
            && self.attempt.get("require_auth").is_none_or(str::is_empty)
        {
            if Conninfo::is_known("require_auth") {
                conninfo.set("require_auth", "!password");
            } else if self.conninfo.get("sslmode").is_none() && std::env::var_os("PGSSLMODE").is_none() {
                // A libpq before 16 cannot be told to keep the password to itself.
                conninfo.set("sslmode", "require");
            }
        }
    }

    #[cold]
    pub(super) fn progress_connecting(&mut self, now: Instant) -> Progress<Tag> {
        if let Some(error) = self.ending.take() {
            return Progress::Lost(self.lose(error, now));
        }
        if !std::mem::take(&mut self.is_ready) {
            return Progress::Idle;
        }
        let Some(connection) = &mut self.connection else { return Progress::Idle };
        // What the server says now is not much; what it may claim to be about to say is.
        let polled = match self.wait_for {
            WaitFor::Reading => connection.poll_connect_bounded(),
            WaitFor::Writing | WaitFor::Both => Ok((connection.poll_connect(), 0)),
        };
        let polling = match polled {
            Ok((polling, bytes)) => {
                self.message_bytes += bytes;
                polling
            }
            Err(error) => return Progress::Lost(self.lose(error, now)),
        };
        if self.message_bytes > MESSAGE_BYTES_MAX {
            return Progress::Lost(self.lose(too_long(MESSAGE_BYTES_MAX), now));
        }
        self.is_interest_new = true;
        let trying = connection.address();
        if trying != self.trying {
            self.trying = trying;
            self.state = State::Connecting { until: now + self.connect_timeout };
        }
        match polling {
            Polling::Reading => self.wait_for = WaitFor::Reading,
            Polling::Writing => self.wait_for = WaitFor::Writing,
            Polling::Failed => {
                let error = of_one_endpoint(connection, self.endpoints);
                // libpq tries no other host after one that is full, although the primary may be behind it.
                let is_full = error.sqlstate == Some(SqlState::TOO_MANY_CONNECTIONS);
                if !is_full || self.silent + 1 >= self.route.len() {
                    return Progress::Lost(self.lose(error, now));
                }
                self.pass_over(now);
                if let Some(error) = self.ending.take() {
                    return Progress::Lost(self.lose(error, now));
                }
            }
            Polling::Ready => return self.opened(now),
        }
        Progress::Idle
    }

    fn opened(&mut self, now: Instant) -> Progress<Tag> {
        let Some(connection) = &mut self.connection else { return Progress::Idle };
        if let Err(error) = connection.set_nonblocking().and_then(|()| match self.kind {
            Kind::Sql => connection.enter_pipeline_mode(),
            Kind::Replication => Ok(()),
        }) {
            return Progress::Lost(self.lose(error, now));
        }
        (self.state, self.wait_for) = (State::Open, WaitFor::Reading);
        (self.heard_at, self.probed_at) = (now, None);
        // The end of the handshake may have come with the head of the next message, or with more.
        (self.is_in_message, self.message_bytes, self.may_hold_more) = (true, 0, true);
        Progress::Opened
    }
}

/// Why an attempt failed. What the server says about us is so wherever it was said. What libpq says about a
/// server is not: where there are several endpoints, another one may be right once it is back.
fn of_one_endpoint(connection: &Connection, endpoints: usize) -> Error {
    let mut error = connection.connect_error();
    let is_about_a_server = !connection.has_answered() && error.sqlstate.is_some_and(|s| s.is_permanent());
    if is_about_a_server && endpoints > 1 {
        error.sqlstate = Some(SqlState::CONNECTION_NOT_MADE);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::SessionId;
    use crate::reactor::Reactor;
    use crate::session::Background;
    use std::time::Duration;

    /// What a session would connect with.
    fn protected(conninfo: &str) -> Conninfo {
        protected_as(Kind::Sql, conninfo)
    }

    fn protected_as(kind: Kind, conninfo: &str) -> Conninfo {
        let background = Background::new(Reactor::new().unwrap().nudge().clone());
        let conninfo = Conninfo::parse(conninfo).unwrap();
        let now = Instant::now();
        let jobs = background.jobs(SessionId(0));
        let mut session = Session::<()>::new(kind, conninfo, Duration::ZERO, jobs, now);
        session.attempt = session.conninfo.with_defaults();
        session.route = Route::of(&session.attempt).unwrap();
        let mut conninfo = session.conninfo.clone();
        session.protect(&mut conninfo);
        conninfo
    }

    #[test]
    fn a_password_goes_in_clear_only_where_nobody_can_listen_in_or_the_user_says_so() {
        if !Conninfo::is_known("require_auth") {
            // A libpq before 16 is only sent where the password is safe.
            assert_eq!(protected("host=192.0.2.1").get("sslmode"), Some("require"));
            assert_eq!(protected("host=/tmp").get("sslmode"), None);
            return;
        }
        let remote = "host=192.0.2.1 password=x";
        assert_eq!(protected(remote).get("require_auth"), Some("!password"));
        assert_eq!(protected(&format!("{remote} sslmode=prefer")).get("require_auth"), Some("!password"));
        assert_eq!(protected("host=db.example").get("require_auth"), Some("!password"));
        for local in ["host=/tmp", "host=127.0.0.1", "host=192.0.2.1 sslmode=require"] {
            assert_eq!(protected(local).get("require_auth"), None, "{local}");
        }
        let asked_for = format!("{remote} require_auth=password");
        assert_eq!(protected(&asked_for).get("require_auth"), Some("password"));
    }

    #[test]
    fn a_listener_goes_to_a_primary_unless_told_otherwise() {
        assert_eq!(protected("host=/tmp").get("target_session_attrs"), Some("primary"));
        let chosen = protected("host=/tmp target_session_attrs=any");
        assert_eq!(chosen.get("target_session_attrs"), Some("any"));
    }

    #[test]
    fn a_session_that_replicates_asks_the_other_kernel_for_signs_of_life() {
        let replicates = |conninfo| protected_as(Kind::Replication, conninfo);
        assert_eq!(replicates("host=192.0.2.1").get("replication"), Some("database"));
        assert_eq!(replicates("host=192.0.2.1").get("keepalives_idle"), Some("30"));
        assert_eq!(replicates("host=192.0.2.1 keepalives_idle=7").get("keepalives_idle"), Some("7"));
        assert_eq!(protected("host=192.0.2.1").get("keepalives_idle"), None);
    }
}
