//! One connection's life: a state machine that never waits. Readiness and the time flow in; out come what
//! happened ([`Progress`]), what it waits for, and until when.
//!
//! ```text
//! Waiting ──▶ Resolving ──▶ Connecting ──▶ Open ──▶ (lost) ──▶ Waiting …
//!                 └──────────────┴────────────────────▲  └──▶ Failed: the same permanent error twice
//! ```
//!
//! What is said over an open connection is the business of the source above.

mod background;
mod backoff;
mod connecting;
mod endpoint;
mod heartbeat;
mod input;
mod limits;
mod requests;

use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::Channel;
use crate::options::HEARTBEAT_DEFAULT;
use crate::pq::{Connection, Conninfo, CopyData, Notice, Status};
use crate::reactor::WaitFor;
pub(crate) use background::{Addresses, Answer, Background, BackgroundJobs, outcome_unknown};
pub(crate) use backoff::Backoff;
use endpoint::Route;
use requests::Requests;
pub(crate) use requests::{Command, Rows};
use std::time::{Duration, Instant};

/// How long one host, or the name service, may be silent when nothing says `connect_timeout`; libpq enforces
/// that only in its blocking calls.
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// The wait between two attempts that a permanent error ends.
const PERMANENT_RETRY: Duration = Duration::from_secs(1);

/// So many heartbeats may a server take to answer that sends its log, a minute by default. It does not look
/// up from a transaction of which it has nothing to send, however large that is, and when we come back it
/// begins with it anew: so each time that it is given up without having come further it has twice as long.
const LOG_HEARTBEATS: u32 = 12;

/// How long a connection must have worked to count as a success.
const SETTLED_TIME_MIN: Duration = Duration::from_secs(2);

/// What is said over a session. It decides where it goes to, how it is opened, and who probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// SQL, in a pipeline, on a primary: a standby cannot LISTEN. An empty query is the probe.
    Sql,
    /// Replication: one command at a time, the last of which begins COPY. Only the source knows what a probe
    /// says then.
    Replication,
}

/// What happened. The source takes the notifications that libpq holds before it asks for more.
#[derive(Debug)]
pub(crate) enum Progress<Tag> {
    /// Input was consumed: take notifications, then ask again.
    Consumed,
    /// The connection is made, and nothing has been said on it.
    Opened,
    /// The request that was sent with this tag was answered.
    Answered(Tag, Result<Rows>),
    /// The connection was lost, or could not be made.
    Lost(Loss<Tag>),
    /// Nothing more, until readiness or the deadline.
    Idle,
}

/// The end of a connection or of an attempt.
#[derive(Debug)]
pub(crate) struct Loss<Tag> {
    pub(crate) error: Error,
    /// What was not answered and never will be.
    pub(crate) unanswered: Vec<Tag>,
    /// When the next attempt starts; `None` when there will be none.
    pub(crate) retry_in: Option<Duration>,
    /// When the server was last heard from: what it sent since then is lost.
    pub(crate) heard_at: Instant,
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
pub(crate) struct Session<Tag> {
    kind: Kind,
    conninfo: Conninfo,
    jobs: BackgroundJobs,
    /// The name service was asked and has not answered yet; it is not asked again before it has.
    is_looking_up: bool,
    /// What this attempt goes by: the conninfo with all defaults, for reading only, and its endpoints.
    attempt: Conninfo,
    route: Route,
    /// How many endpoints the conninfo names.
    endpoints: usize,
    /// How many endpoints of the route have been silent in this attempt, or full.
    silent: usize,
    /// The endpoint that libpq is trying.
    trying: (String, String),
    connect_timeout: Duration,
    /// Zero: no probes.
    heartbeat: Duration,
    state: State,
    connection: Option<Connection>,
    requests: Requests<Tag>,
    /// The poller said that the socket is readable or writable, and it was not looked at yet.
    is_ready: bool,
    /// It did not; but TLS may hold some.
    is_held: bool,
    /// Input was consumed that may have left bytes behind which no poller sees.
    may_hold_more: bool,
    /// Input was consumed since the last message was complete; if more than once, how many bytes since.
    is_in_message: bool,
    message_bytes: usize,
    /// How much that may be at most.
    message_bytes_max: usize,
    /// The answers are rows of a poll: when they are too long, the error says so.
    are_rows_asked_for: bool,
    wait_for: WaitFor,
    /// The socket is to be registered anew.
    is_interest_new: bool,
    /// The connection is over, and libpq may hold notifications that have not been taken.
    ending: Option<Error>,
    /// They have been, once more after the last answer.
    is_drained: bool,
    heard_at: Instant,
    probed_at: Option<Instant>,
    /// The last probe that was answered: when it was sent, and how long its answer took.
    last_probe: Option<(Instant, Duration)>,
    /// When the probe that is on its way was sent.
    probe_sent_at: Instant,
    /// The source is to send one.
    is_probe_due: bool,
    /// One was sent, and no message was complete since.
    is_overdue: bool,
    /// What was asked takes as long as it takes.
    is_patient: bool,
    /// How many heartbeats a server has to answer that sends its log.
    log_heartbeats: u32,
    backoff: Backoff,
    /// Since when the source is content with the connection there is.
    settled_at: Option<Instant>,
    /// The permanent error of the last attempt: the second in a row is the end.
    refused: Option<SqlState>,
    /// No further attempt is of use.
    is_final: bool,
}

impl<Tag> Session<Tag> {
    pub(crate) fn new(
        kind: Kind,
        conninfo: Conninfo,
        heartbeat: Duration,
        jobs: BackgroundJobs,
        now: Instant,
    ) -> Self {
        Session {
            kind,
            attempt: conninfo.clone(),
            conninfo,
            jobs,
            is_looking_up: false,
            route: Route::default(),
            endpoints: 0,
            silent: 0,
            trying: Default::default(),
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            heartbeat,
            state: State::Waiting { until: now },
            connection: None,
            requests: Requests::default(),
            is_ready: false,
            is_held: false,
            may_hold_more: false,
            is_in_message: false,
            message_bytes: 0,
            message_bytes_max: match kind {
                Kind::Sql => limits::MESSAGE_BYTES_MAX,
                Kind::Replication => limits::LOG_MESSAGE_BYTES_MAX,
            },
            are_rows_asked_for: false,
            wait_for: WaitFor::Reading,
            is_interest_new: false,
            ending: None,
            is_drained: false,
            heard_at: now,
            probed_at: None,
            last_probe: None,
            probe_sent_at: now,
            is_probe_due: false,
            is_overdue: false,
            is_patient: false,
            log_heartbeats: LOG_HEARTBEATS,
            backoff: Backoff::default(),
            settled_at: None,
            refused: None,
            is_final: false,
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

    /// What to register anew, if anything: to be called when `progress` has come to rest.
    #[inline(always)]
    pub(crate) fn take_interest(&mut self) -> Option<(&Connection, WaitFor)> {
        if !std::mem::take(&mut self.is_interest_new) {
            return None;
        }
        self.connection.as_ref().map(|connection| (connection, self.wait_for))
    }

    /// Whether it has given up, and nothing comes any more.
    pub(crate) fn has_failed(&self) -> bool {
        self.state == State::Failed
    }

    /// Whether it waits for the time of its next attempt to connect.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// Whether it is on its way to a connection that the source is content with.
    #[inline]
    pub(crate) fn is_connecting(&self) -> bool {
        if self.is_open() {
            return self.settled_at.is_none();
        }
        matches!(self.state, State::Resolving { .. } | State::Connecting { .. })
    }

    #[inline(always)]
    fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// The deadline may have come.
    #[cold]
    pub(crate) fn on_deadline(&mut self, now: Instant) {
        let soon = now + self.slack();
        match self.state {
            State::Waiting { until } if now >= until => self.start_attempt(now),
            State::Resolving { until } if now >= until => self.give_up("the name service did not answer"),
            State::Connecting { until } if now >= until => self.pass_over(now),
            State::Open if self.deadline().is_some_and(|deadline| soon >= deadline) => self.beat(now),
            _ => {}
        }
    }

    /// Sends a notification to itself over another connection; the answer comes when it should have been
    /// heard.
    pub(crate) fn notify_otherwise(&mut self, channel: Channel) -> Result<()> {
        let patience = if self.heartbeat.is_zero() { HEARTBEAT_DEFAULT } else { self.heartbeat };
        let (address, port) = &self.trying;
        Ok(self.jobs.notify(self.conninfo_of(&self.route.only(address, port)), channel, patience)?)
    }

    /// Sends a large command over another connection, beside which the loop goes on; the answer comes with
    /// this number.
    pub(crate) fn send_otherwise(
        &mut self,
        number: u64,
        sql: &'static [u8],
        parameters: [Box<[u8]>; 2],
    ) -> Result<()> {
        let (address, port) = &self.trying;
        let conninfo = self.conninfo_of(&self.route.only(address, port));
        Ok(self.jobs.command(conninfo, number, sql, parameters)?)
    }

    /// Sends commands as one transaction; its answer comes as [`Progress::Answered`]. A failure to send is a
    /// failure of the connection, and comes as [`Progress::Lost`]. Nothing is sent before it is open.
    pub(crate) fn send<'a>(&mut self, tag: Tag, commands: impl Iterator<Item = Command<'a>>) {
        self.send_as(Some(tag), commands);
    }

    /// The next message of the COPY that is going on.
    #[inline]
    pub(crate) fn copy_data(&mut self) -> CopyData {
        let Some(connection) = &mut self.connection else { return CopyData::Failed };
        let data = connection.copy_data();
        match data {
            CopyData::Message(_) => self.has_said_something(),
            CopyData::Failed if self.ending.is_none() => self.ending = Some(connection.loss()),
            _ => {}
        }
        data
    }

    /// Sends a message of COPY.
    pub(crate) fn put_copy_data(&mut self, message: &[u8]) {
        let Some(connection) = self.connection.as_mut().filter(|_| self.state == State::Open) else { return };
        match connection.put_copy_data(message).and_then(|()| connection.flush()) {
            Ok(flushed) => self.wait_for_flush(flushed),
            Err(error) => self.ending = self.ending.take().or(Some(error)),
        }
    }

    /// The COPY that was going on has ended. What came of it comes as the answer to this.
    pub(crate) fn copy_ended(&mut self, tag: Tag) {
        self.requests.copy_ended(tag);
    }

    /// What was sent and not answered, in order.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = &Tag> {
        self.requests.tags()
    }

    /// Takes what is not answered any more, of a connection that [is drained](Self::is_drained).
    pub(crate) fn take_unanswered(&mut self, is_it: impl Fn(&Tag) -> bool) -> Vec<Tag> {
        self.requests.take(is_it)
    }

    fn send_as<'a>(&mut self, tag: Option<Tag>, commands: impl Iterator<Item = Command<'a>>) {
        let Some(connection) = self.connection.as_mut().filter(|_| self.state == State::Open) else { return };
        match self.requests.send(connection, tag, commands).and_then(|()| connection.flush()) {
            Ok(flushed) => self.wait_for_flush(flushed),
            Err(error) => self.ending = self.ending.take().or(Some(error)),
        }
    }

    fn wait_for_flush(&mut self, flushed: bool) {
        let wait_for = if flushed { WaitFor::Reading } else { WaitFor::Both };
        if self.wait_for != wait_for {
            self.wait_for = wait_for;
            self.is_interest_new = true;
        }
    }

    /// Ends the connection for a reason that the source found.
    #[cold]
    pub(crate) fn fail(&mut self, error: Error) {
        self.ending = Some(error);
    }

    /// Ends it for good.
    #[cold]
    pub(crate) fn give_up_for_good(&mut self, error: Error) {
        self.is_final = true;
        self.ending = Some(error);
    }

    /// Whether the connection is given up, although answers may still come.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Whether it is given up, and no answer comes any more: what was delivered before is all there is.
    pub(crate) fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// Whether there is nothing to see to but input. libpq may have given up while it read what it held
    /// already: then no call has failed, and nothing will ever be ready again.
    #[inline(always)]
    pub(crate) fn is_quiet(&self) -> bool {
        self.is_open()
            && self.requests.is_empty()
            && self.ending.is_none()
            && self.connection.as_ref().is_some_and(|connection| connection.status() == Status::Ok)
    }

    /// Takes one step, and says what it brought.
    #[cold]
    pub(crate) fn progress(&mut self, now: Instant) -> Progress<Tag> {
        match self.state {
            State::Open => self.progress_open(now),
            State::Connecting { .. } => self.progress_connecting(now),
            State::Resolving { .. } if self.ending.is_some() => self.progress_connecting(now),
            State::Waiting { .. } | State::Resolving { .. } | State::Failed => Progress::Idle,
        }
    }

    fn progress_open(&mut self, now: Instant) -> Progress<Tag> {
        let Some(connection) = &mut self.connection else { return Progress::Idle };
        if !self.requests.is_empty()
            && let Some((tag, answer)) = self.requests.next_answer(connection)
        {
            self.has_said_something();
            return match tag {
                None => {
                    self.last_probe = Some((self.probe_sent_at, now - self.probe_sent_at));
                    Progress::Consumed
                }
                Some(tag) => Progress::Answered(tag, answer),
            };
        }
        if self.ending.is_none() && connection.status() != Status::Ok {
            self.ending = Some(connection.loss());
        }
        if self.ending.is_some() && !std::mem::replace(&mut self.is_drained, true) {
            // Looking for answers may have brought notifications to light: they come before the loss, and
            // nothing is consumed any more.
            self.is_ready = false;
            return Progress::Consumed;
        }
        if let Some(error) = self.ending.take() {
            return Progress::Lost(self.lose(error, now));
        }
        if self.consume(now) { Progress::Consumed } else { Progress::Idle }
    }

    /// The source is content with the connection.
    pub(crate) fn settled(&mut self, now: Instant) {
        self.settled_at = Some(now);
        self.refused = None;
    }

    #[cold]
    fn lose(&mut self, error: Error, now: Instant) -> Loss<Tag> {
        // Where libpq only knows that the connection is gone, the server may have said why: in answer to a
        // command, or before we found that it had hung up.
        let answer = self.requests.take_last_words();
        let notice = self.connection.take().and_then(|mut connection| connection.take_fatal_notice());
        let said = |n: Notice| Error::new(ErrorKind::Connection, n.message).with_sqlstate(n.sqlstate);
        let said = answer.or(notice.map(said)).filter(|_| error.sqlstate == Some(SqlState::CONNECTION_LOST));
        let mut error = said.unwrap_or(error);
        // What the system refuses has no code of its own.
        error.sqlstate.get_or_insert(SqlState::IO_ERROR);
        (self.is_in_message, self.message_bytes) = (false, 0);
        let unanswered = self.requests.clear();
        (self.is_ready, self.is_held, self.may_hold_more) = (false, false, false);
        (self.is_interest_new, self.is_drained) = (false, false);
        (self.is_probe_due, self.is_overdue, self.is_patient) = (false, false, false);
        // A connection that breaks at once is no success: the waits go on growing. Unless somebody ended it,
        // once for each of our attempts: then the pace is theirs.
        let was_terminated = error.sqlstate == Some(SqlState::ADMIN_SHUTDOWN);
        let is_success = |at| was_terminated || now.saturating_duration_since(at) >= SETTLED_TIME_MIN;
        if self.settled_at.take().is_some_and(is_success) {
            self.backoff.reset();
        }
        let permanent = error.sqlstate.filter(SqlState::is_permanent);
        let retry_in = match permanent {
            _ if self.is_final => None,
            Some(_) if permanent == self.refused => None,
            // Time for a reload of the server's rules, or for the other half of a change of password.
            Some(_) => Some(PERMANENT_RETRY),
            None => {
                let is_crowded = error.sqlstate == Some(SqlState::TOO_MANY_CONNECTIONS);
                Some(self.backoff.next_delay(is_crowded, now))
            }
        };
        self.state = retry_in.map_or(State::Failed, |delay| State::Waiting { until: now + delay });
        self.refused = permanent;
        Loss { error, unanswered, retry_in, heard_at: self.heard_at }
    }
}

fn lost(message: String, sqlstate: SqlState) -> Error {
    Error::new(ErrorKind::Connection, message).with_sqlstate(Some(sqlstate))
}
