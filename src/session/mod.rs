//! One connection's life: a state machine that never waits. Readiness and the time flow in; out come what
//! happened ([`Progress`]), what it waits for, and until when.
//!
//! ```text
//! Waiting ──▶ Resolving ──▶ Connecting ──▶ Open ──▶ (lost) ──▶ Waiting …
//!                 └──────────────┴────────────────────▲  └──▶ Failed: the same permanent error twice
//! ```
//!
//! What is said over an open connection is the business of the source above.

mod backoff;
mod connecting;
mod pipeline;
mod resolver;
mod route;

use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::pq::{Connection, Conninfo};
use crate::reactor::WaitFor;
use backoff::Backoff;
pub(crate) use pipeline::Command;
use pipeline::{Asker, Pipeline};
pub(crate) use resolver::{Addresses, Lookups, Resolver};
use route::Route;
use std::time::{Duration, Instant};

/// What happened. The source takes the notifications that libpq holds before it asks for more.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Input was consumed: take notifications, then ask again.
    Consumed,
    /// The connection is made, and nothing has been said on it.
    Opened,
    /// The source's oldest unanswered batch was answered.
    Answered(Result<()>),
    /// The connection was lost, or could not be made.
    Lost(Loss),
    /// Nothing more, until readiness or the deadline.
    Idle,
}

/// The end of a connection or of an attempt.
#[derive(Debug)]
pub(crate) struct Loss {
    pub(crate) error: Error,
    /// When the next attempt starts; `None` when there will be none.
    pub(crate) retry_in: Option<Duration>,
    pub(crate) at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting {
        until: Instant,
    },
    /// Names are being looked up, elsewhere.
    Resolving {
        until: Instant,
    },
    /// One host has until then to answer.
    Connecting {
        until: Instant,
    },
    Open,
    Failed,
}

#[derive(Debug)]
pub(crate) struct Session {
    conninfo: Conninfo,
    resolver: Resolver,
    /// The name service was asked and has not answered yet; it is not asked again before it has.
    is_looking_up: bool,
    /// What this attempt goes by: the conninfo with all defaults, for reading only, and the places it names.
    attempt: Conninfo,
    route: Route,
    /// How many places of the route have been silent in this attempt.
    silent: usize,
    /// The place that libpq is trying.
    trying: (String, String),
    connect_timeout: Duration,
    /// Zero: no probes.
    heartbeat: Duration,
    state: State,
    connection: Option<Connection>,
    pipeline: Pipeline,
    /// The poller said that the socket is readable or writable, and it was not looked at yet.
    is_ready: bool,
    /// Input was consumed that may have left bytes behind which no poller sees.
    may_hold_more: bool,
    wait_for: WaitFor,
    /// The socket must be registered anew.
    watch_due: bool,
    /// The connection is over, and libpq may hold notifications that have not been taken.
    ending: Option<Error>,
    heard_at: Instant,
    probed_at: Option<Instant>,
    backoff: Backoff,
    /// The source was content with the connection there is.
    is_settled: bool,
    /// The permanent error of the last attempt: the second in a row is the end.
    refused: Option<SqlState>,
}

impl Session {
    pub(crate) fn new(conninfo: Conninfo, heartbeat: Duration, resolver: Resolver, now: Instant) -> Self {
        Session {
            attempt: conninfo.clone(),
            conninfo,
            resolver,
            is_looking_up: false,
            route: Route::default(),
            silent: 0,
            trying: Default::default(),
            connect_timeout: connecting::CONNECT_TIMEOUT_DEFAULT,
            heartbeat,
            state: State::Waiting { until: now },
            connection: None,
            pipeline: Pipeline::default(),
            is_ready: false,
            may_hold_more: false,
            wait_for: WaitFor::Reading,
            watch_due: false,
            ending: None,
            heard_at: now,
            probed_at: None,
            backoff: Backoff::default(),
            is_settled: false,
            refused: None,
        }
    }

    #[inline]
    pub(crate) fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut()
    }

    /// The database's name as the conninfo has it; the connection knows better.
    pub(crate) fn database_asked_for(&self) -> &str {
        self.conninfo.get("dbname").unwrap_or_default()
    }

    /// The poller told of the socket, or would if it could see what is held before libpq.
    #[inline]
    pub(crate) fn set_ready(&mut self) {
        self.is_ready = true;
    }

    /// Whether bytes may be held where no poller sees them, so that the session wants another turn without
    /// being told.
    #[inline]
    pub(crate) fn holds_more(&mut self) -> bool {
        // An error here is the socket's, and consuming tells it better.
        std::mem::take(&mut self.may_hold_more)
            && self.connection.as_mut().is_some_and(|connection| connection.has_held_input().unwrap_or(true))
    }

    /// What to register anew, if anything: to be called when `progress` has come to rest.
    #[inline]
    pub(crate) fn take_watch(&mut self) -> Option<(&Connection, WaitFor)> {
        if !std::mem::take(&mut self.watch_due) {
            return None;
        }
        self.connection.as_ref().map(|connection| (connection, self.wait_for))
    }

    /// Whether it waits for the time of its next attempt to connect.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// Whether it is on its way to a connection that the source is content with.
    #[inline]
    pub(crate) fn is_connecting(&self) -> bool {
        match self.state {
            State::Open => !self.is_settled,
            State::Resolving { .. } | State::Connecting { .. } => true,
            State::Waiting { .. } | State::Failed => false,
        }
    }

    /// When `on_time` must be called at the latest, if nothing happens before.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } | State::Resolving { until } | State::Connecting { until } => {
                Some(until)
            }
            State::Open if self.heartbeat.is_zero() => None,
            State::Open => Some(self.probed_at.unwrap_or(self.heard_at) + self.heartbeat),
            State::Failed => None,
        }
    }

    /// The deadline may have come.
    pub(crate) fn on_time(&mut self, now: Instant) {
        match self.state {
            State::Waiting { until } if now >= until => self.start_attempt(now),
            State::Resolving { until } if now >= until => self.give_up("the name service did not answer"),
            State::Connecting { until } if now >= until => self.pass_over(now),
            State::Open if self.deadline().is_some_and(|deadline| now >= deadline) => self.beat(now),
            _ => {}
        }
    }

    /// Nothing was heard for a heartbeat: ask the server for a sign of life, or give it up if it was asked
    /// already.
    fn beat(&mut self, now: Instant) {
        let Some(connection) = &mut self.connection else { return };
        // When we were late ourselves, the sign may be waiting in the socket.
        if connection.has_kernel_input().unwrap_or(true) {
            self.set_ready();
        } else if self.probed_at.is_some_and(|at| now >= at + self.heartbeat) {
            let message = format!(
                "the server did not answer for {:?} (heartbeat): it is frozen or cut off",
                now.duration_since(self.heard_at)
            );
            self.ending = Some(lost(message, SqlState::CONNECTION_LOST));
        } else if self.probed_at.is_none() {
            self.probed_at = Some(now);
            self.send_as(Asker::Probe, [Command { sql: b"", parameters: &[] }].into_iter());
        }
    }

    /// Sends a batch of commands as one transaction; its answer comes as [`Progress::Answered`]. A failure to
    /// send is a failure of the connection, and comes as [`Progress::Lost`].
    pub(crate) fn send<'a>(&mut self, batch: impl Iterator<Item = Command<'a>>) {
        self.send_as(Asker::Source, batch);
    }

    fn send_as<'a>(&mut self, asker: Asker, batch: impl Iterator<Item = Command<'a>>) {
        let Some(connection) = &mut self.connection else { return };
        match self.pipeline.send(connection, asker, batch).and_then(|()| connection.flush()) {
            Ok(flushed) => self.wait_for_flush(flushed),
            Err(error) => self.ending = self.ending.take().or(Some(error)),
        }
    }

    fn wait_for_flush(&mut self, flushed: bool) {
        let wait_for = if flushed { WaitFor::Reading } else { WaitFor::Both };
        if self.wait_for != wait_for {
            self.wait_for = wait_for;
            self.watch_due = true;
        }
    }

    /// Ends the connection for a reason that the source found.
    pub(crate) fn fail(&mut self, error: Error) {
        self.ending = Some(error);
    }

    /// Takes one step, and says what it brought.
    #[inline]
    pub(crate) fn progress(&mut self, now: Instant) -> Progress {
        match self.state {
            State::Open => self.progress_open(now),
            State::Connecting { .. } => self.progress_connecting(now),
            State::Resolving { .. } if self.ending.is_some() => self.progress_connecting(now),
            State::Waiting { .. } | State::Resolving { .. } | State::Failed => Progress::Idle,
        }
    }

    fn progress_open(&mut self, now: Instant) -> Progress {
        let Some(connection) = &mut self.connection else { return Progress::Idle };
        if !self.pipeline.is_empty()
            && let Some((asker, answer)) = self.pipeline.next_answer(connection)
        {
            return match asker {
                Asker::Probe => Progress::Consumed,
                Asker::Source => Progress::Answered(answer),
            };
        }
        if let Some(error) = self.ending.take() {
            return Progress::Lost(self.lose(error, now));
        }
        if !std::mem::take(&mut self.is_ready) {
            return Progress::Idle;
        }
        self.consume(now);
        Progress::Consumed
    }

    /// Consumes input although no poller has told of it; `false` when there is none.
    pub(crate) fn read_ahead(&mut self, now: Instant) -> bool {
        let has_input = self.state == State::Open
            && self.ending.is_none()
            && self
                .connection
                .as_ref()
                .is_some_and(|connection| connection.has_kernel_input().unwrap_or(false));
        if has_input {
            self.consume(now);
        }
        has_input
    }

    fn consume(&mut self, now: Instant) {
        let Some(connection) = &mut self.connection else { return };
        self.may_hold_more = true;
        self.heard_at = now;
        self.probed_at = None;
        let consumed = connection.consume_input();
        // Consuming has also sent what it could; how much is only of interest while something was left.
        let flushed = match (&consumed, self.wait_for) {
            (Ok(()), WaitFor::Both) => connection.flush(),
            _ => Ok(self.wait_for != WaitFor::Both),
        };
        match consumed.and(flushed) {
            Ok(flushed) => self.wait_for_flush(flushed),
            Err(error) => self.ending = Some(error),
        }
    }

    /// The source is content with the connection: the next loss starts a new series of attempts.
    pub(crate) fn settled(&mut self) {
        self.is_settled = true;
        self.backoff.reset();
        self.refused = None;
    }

    fn lose(&mut self, error: Error, now: Instant) -> Loss {
        self.connection = None;
        self.is_settled = false;
        self.pipeline.clear();
        (self.is_ready, self.may_hold_more, self.watch_due) = (false, false, false);
        let permanent = error.sqlstate.filter(SqlState::is_permanent);
        let retry_in = if permanent.is_some() && permanent == self.refused {
            self.state = State::Failed;
            None
        } else {
            let delay = self.backoff.next_delay(error.sqlstate == Some(SqlState::TOO_MANY_CONNECTIONS));
            self.state = State::Waiting { until: now + delay };
            Some(delay)
        };
        self.refused = permanent;
        log::info!("{}; next attempt: {retry_in:?}", error);
        Loss { error, retry_in, at: now }
    }
}

fn lost(message: String, sqlstate: SqlState) -> Error {
    Error::new(ErrorKind::Connection, message).with_sqlstate(Some(sqlstate))
}
