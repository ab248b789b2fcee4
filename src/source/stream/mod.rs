//! Row changes and messages from the log: a session that replicates, and what its messages are to the caller.
//!
//! Promise: at least once, in the order of commits. What was not acknowledged comes again after an outage,
//! known by its position; of a temporary slot it does not, and a gap says so.

mod feedback;
mod identity;
mod log;
mod message;
mod relations;
mod row;
mod slot;
mod snapshot;
mod sql;
mod step;
mod transaction;

use super::report::{Outage, Report};
use crate::decode::replication::{Frame, microseconds, status};
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::{Event, Lsn, SessionId};
use crate::metrics::Metrics;
use crate::options::StreamOptions;
use crate::pq::{Connection, Conninfo, CopyData};
use crate::reactor::WaitFor;
use crate::session::{Answer, BackgroundJobs, Command, Kind, Loss, Progress, Session};
use feedback::Feedback;
use log::{Found, Log, malformed};
use slot::{BUSY_INTERVAL, Next, Preparation};
use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};
use step::Step;

/// How many events one turn brings that are not limited by what was read: those of a transaction that was
/// held back. Then the others have theirs.
const EVENTS_PER_TURN: usize = 256;

/// How long the end of a stream may wait for the server to take what was acknowledged last, and to free the
/// slot. It has done so within a millisecond, unless it is busy with a large transaction, or stopped.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// What comes over the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// There is none yet.
    Connecting,
    /// Answers to what is asked before the stream begins. What the server may wait for, until that is said.
    Preparing(Option<&'static str>),
    /// The slot is in use: it is asked again at this time.
    Waiting(Instant),
    /// Rows of a table.
    Copying,
    Streaming,
}

/// What was said to the caller of the connection.
#[derive(Debug)]
enum Standing {
    /// Nothing yet.
    New,
    /// That it streams.
    Begun,
    /// That it is lost.
    Lost(Outage),
}

#[derive(Debug)]
enum AtHand {
    Nothing,
    Log(Found),
    /// A row that was there when the stream began; its number.
    Row(u64),
    Report(Report),
}

#[derive(Debug)]
pub(crate) struct StreamSource {
    id: SessionId,
    db: String,
    session: Session<Step>,
    preparation: Preparation,
    phase: Phase,
    log: Log,
    feedback: Feedback,
    reports: VecDeque<Report>,
    standing: Standing,
    at_hand: AtHand,
    /// How many events this turn has brought that nothing else limits.
    replayed: usize,
    metrics: Metrics,
}

impl StreamSource {
    pub(crate) fn new(
        id: SessionId,
        conninfo: Conninfo,
        options: StreamOptions,
        jobs: BackgroundJobs,
        now: Instant,
    ) -> Result<Self> {
        options.check()?;
        let session = Session::new(Kind::Replication, conninfo, options.heartbeat, jobs, now);
        Ok(StreamSource {
            id,
            db: session.database_asked_for().to_string(),
            session,
            phase: Phase::Connecting,
            log: Log::new(&options),
            feedback: Feedback::new(options.manual_ack, now),
            preparation: Preparation::new(options),
            reports: VecDeque::new(),
            standing: Standing::New,
            at_hand: AtHand::Nothing,
            replayed: 0,
            metrics: Metrics::default(),
        })
    }

    #[inline]
    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    pub(super) fn on_ready(&mut self) {
        self.session.set_ready();
    }

    pub(super) fn on_wanted_turn(&mut self) {
        self.session.set_held();
    }

    pub(super) fn on_deadline(&mut self, now: Instant) {
        // Nothing was heard for a heartbeat.
        if let Phase::Preparing(waits_for) = &mut self.phase
            && let Some(what) = waits_for.take()
        {
            ::log::warn!("the server waits for {what}");
        }
        self.session.on_deadline(now);
    }

    pub(super) fn on_answer(&mut self, answer: Answer, now: Instant) {
        if let Answer::Addresses(addresses) = answer {
            self.session.resolved(&addresses, now);
        }
    }

    pub(super) fn take_interest(&mut self) -> Option<(&Connection, WaitFor)> {
        self.session.take_interest()
    }

    pub(super) fn fail(&mut self, error: Error) {
        self.session.fail(error);
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.session.is_waiting()
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.session.is_connecting()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.session.has_failed()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn metrics_mut(&mut self) -> &mut Metrics {
        &mut self.metrics
    }

    pub(super) fn last_probe(&self) -> Option<(Instant, Duration)> {
        self.session.last_probe()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let own = match self.phase {
            Phase::Waiting(until) => Some(until),
            Phase::Streaming => self.feedback.deadline(),
            Phase::Connecting | Phase::Preparing(_) | Phase::Copying => None,
        };
        self.session.deadline().into_iter().chain(own).min()
    }

    pub(super) fn slack(&self) -> Duration {
        if self.deadline() == self.session.deadline() { self.session.slack() } else { Duration::ZERO }
    }

    pub(super) fn end_turn(&mut self) -> bool {
        let has_rest = std::mem::take(&mut self.replayed) >= EVENTS_PER_TURN;
        has_rest | self.session.holds_more()
    }

    /// All that was delivered of transactions up to this place in the log is done with.
    pub(crate) fn ack(&mut self, lsn: Lsn) -> Result<()> {
        match self.preparation.rows_at() {
            Some(rows_at) if lsn == rows_at => self.preparation.snapshot().acknowledge(),
            // Rows of an earlier snapshot are delivered again in the next one.
            Some(rows_at) if lsn < rows_at => {}
            _ if self.feedback.acknowledge(lsn) => {}
            _ => return Err(nothing_delivered(lsn)),
        }
        Ok(())
    }

    /// A status, whether or not one is due.
    pub(crate) fn send_status_now(&mut self, now: Instant) {
        if self.phase == Phase::Streaming && !self.session.is_ending() {
            self.send_status(now);
        }
    }

    pub(super) fn event(&self) -> Option<Event<'_>> {
        match &self.at_hand {
            AtHand::Nothing => None,
            AtHand::Log(found) => self.log.event(*found, self.id, &self.db),
            AtHand::Row(number) => {
                let lsn = self.preparation.rows_at().unwrap_or_default();
                self.log.row(self.id, &self.db, lsn, *number).map(Event::Change)
            }
            AtHand::Report(report) => Some(report.as_event(self.id, &self.db, Instant::now())),
        }
    }

    /// Goes on to the next event. Consumes input once for each time that the session was found ready.
    pub(super) fn advance(&mut self, now: Instant) -> bool {
        self.at_hand = AtHand::Nothing;
        self.feedback.asked_for_next();
        loop {
            if let Some(report) = self.reports.pop_front() {
                report.count_into(&mut self.metrics);
                self.at_hand = AtHand::Report(report);
                return true;
            }
            match self.look() {
                Ok(None) => {}
                Ok(Some(at_hand)) => {
                    self.at_hand = at_hand;
                    return true;
                }
                Err(error) => self.session.fail(error),
            }
            // Also while a large transaction is delivered, and nothing is read.
            self.send_what_is_due(now);
            if self.replayed >= EVENTS_PER_TURN || !self.go_on(now) {
                return false;
            }
        }
    }

    /// The next of what libpq holds, and of what was held back.
    #[inline]
    fn look(&mut self) -> Result<Option<AtHand>> {
        match self.phase {
            Phase::Streaming => self.look_at_log(),
            Phase::Copying => self.look_at_rows(),
            Phase::Connecting | Phase::Preparing(_) | Phase::Waiting(_) => Ok(None),
        }
    }

    #[inline]
    fn look_at_log(&mut self) -> Result<Option<AtHand>> {
        while !self.session.is_ending() && self.replayed < EVENTS_PER_TURN {
            if let Some(found) = self.log.rest(&mut self.feedback)? {
                self.replayed += 1;
                match self.found(found) {
                    None => continue,
                    found => return Ok(found),
                }
            }
            let message = match self.session.copy_data() {
                CopyData::Message(message) => message,
                CopyData::End => {
                    self.phase = Phase::Preparing(None);
                    self.session.copy_ended(Step::End);
                    break;
                }
                // Of a failure, the session finds out why.
                CopyData::Nothing | CopyData::Failed => break,
            };
            let found = match Frame::read(&message).map_err(malformed)? {
                Frame::Data { start, message, .. } => self.log.take(start, message, &mut self.feedback)?,
                Frame::Keepalive { end, wants_reply, .. } => {
                    self.feedback.heard(end, self.log.is_idle(), wants_reply);
                    None
                }
                Frame::Unknown(_) => Some(Found::Unknown),
            };
            if let Some(found) = found
                && let Some(at_hand) = self.found(found)
            {
                return Ok(Some(at_hand));
            }
        }
        self.metrics.held_back_bytes = self.log.held_back_bytes();
        self.metrics.received_lsn = Some(self.feedback.received());
        Ok(None)
    }

    #[inline]
    fn found(&mut self, found: Found) -> Option<AtHand> {
        match found {
            Found::Change => self.metrics.changes += 1,
            Found::Unknown => {
                self.metrics.unknown_messages += 1;
                return None;
            }
            _ => {}
        }
        Some(AtHand::Log(found))
    }

    fn look_at_rows(&mut self) -> Result<Option<AtHand>> {
        if self.session.is_ending() {
            return Ok(None);
        }
        let table = self.preparation.snapshot().current();
        if self.log.relations.take_undelivered(table) {
            return Ok(Some(AtHand::Log(Found::Schema(table))));
        }
        match self.session.copy_data() {
            CopyData::Message(line) => {
                let rows = self.preparation.snapshot();
                self.log.copied(rows, &line)?;
                self.metrics.changes += 1;
                Ok(Some(AtHand::Row(rows.rows)))
            }
            CopyData::End => {
                self.phase = Phase::Preparing(None);
                self.session.copy_ended(Step::EndOfTable);
                Ok(None)
            }
            CopyData::Nothing | CopyData::Failed => Ok(None),
        }
    }

    /// Tells the server what is done with, when that is due; and asks it for a sign of life.
    #[inline]
    fn send_what_is_due(&mut self, now: Instant) {
        if self.phase == Phase::Streaming && (self.feedback.is_due(now) || self.session.wants_probe()) {
            self.send_status(now);
        }
    }

    #[cold]
    fn send_status(&mut self, now: Instant) {
        if self.feedback.is_grace_over(now) {
            let message = "the server shuts down, and waits for changes to be acknowledged that are not";
            let ended = Error::new(ErrorKind::Connection, message);
            return self.session.fail(ended.with_sqlstate(Some(SqlState::ADMIN_SHUTDOWN)));
        }
        let done = self.feedback.status_sent(now);
        let written = done.max(self.feedback.received());
        let wants_reply = self.session.take_probe();
        self.session.put_copy_data(&status(done, written, microseconds(SystemTime::now()), wants_reply));
        if self.metrics.acknowledged_lsn.replace(done) < Some(done) {
            self.session.has_come_further();
        }
    }

    /// Sees to what comes next; `false` when there is nothing.
    fn go_on(&mut self, now: Instant) -> bool {
        if let Phase::Waiting(until) = self.phase
            && now >= until
        {
            self.phase = Phase::Preparing(None);
            let next = self.preparation.waited();
            self.take_next(next, now);
            return true;
        }
        if self.session.is_quiet() {
            return self.session.consume(now);
        }
        match self.session.progress(now) {
            Progress::Idle => return false,
            Progress::Consumed => {}
            Progress::Opened => {
                let Some(connection) = self.session.connection() else { return true };
                self.db = connection.database();
                let version = connection.server_version();
                let major = version.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok());
                self.phase = Phase::Preparing(None);
                let next = self.preparation.opened(major.unwrap_or(0), connection.backend_pid());
                self.take_next(next, now);
            }
            Progress::Answered(step, answer) => {
                let places = (self.feedback.done(), self.feedback.reached());
                let next = self.preparation.answered(step, answer, places, &mut self.log.relations);
                self.take_next(next, now);
            }
            Progress::Lost(loss) => self.lost(loss),
        }
        true
    }

    fn take_next(&mut self, next: Next, now: Instant) {
        match next {
            Next::Send(step, sql) => {
                self.session.be_patient(step.may_take_long());
                self.phase = Phase::Preparing(step.waits_for());
                self.session.send(step, [Command::Simple { sql: &sql }].into_iter());
            }
            Next::Wait => self.phase = Phase::Waiting(now + BUSY_INTERVAL),
            Next::GiveUp(error) => self.session.give_up_for_good(error),
            Next::Fail(error) => self.session.fail(error),
            Next::Copying => {
                self.phase = Phase::Copying;
                self.session.settled(now);
                self.report_begin();
            }
            Next::Streaming => {
                self.phase = Phase::Streaming;
                self.session.be_patient(false);
                self.session.settled(now);
                self.feedback.streams_from(self.preparation.begins_at().unwrap_or_default(), now);
                self.report_begin();
            }
        }
    }

    /// Says once for each connection that it streams; after an outage, what that means.
    fn report_begin(&mut self) {
        match std::mem::replace(&mut self.standing, Standing::Begun) {
            Standing::Begun => return,
            Standing::New => {}
            Standing::Lost(outage) if self.preparation.begins_anew() => {
                let error = self.preparation.reason_of_gap().unwrap_or(outage.error);
                let (channels, outage) = (Vec::new(), Outage { error, ..outage });
                return self.reports.push_back(Report::Gap { channels, outage });
            }
            Standing::Lost(_) => self.metrics.reconnects += 1,
        }
        let Some(connection) = self.session.connection() else { return };
        let (channels, backend_pid) = (Vec::new(), connection.backend_pid());
        let (server_version, host) = (connection.server_version(), connection.host());
        self.reports.push_back(Report::Listening { channels, backend_pid, server_version, host });
    }

    #[cold]
    fn lost(&mut self, loss: Loss<Step>) {
        let Loss { error, retry_in, heard_at, .. } = loss;
        let error = if self.phase == Phase::Connecting { step::advise_at_the_door(error) } else { error };
        self.phase = Phase::Connecting;
        self.log.lost();
        if self.preparation.is_temporary() {
            self.feedback.forget();
        }
        self.standing = match std::mem::replace(&mut self.standing, Standing::New) {
            Standing::New => Standing::New,
            Standing::Begun => {
                Standing::Lost(Outage { error: error.clone(), lost_at: heard_at, attempts: 1 })
            }
            Standing::Lost(outage) => Standing::Lost(Outage { attempts: outage.attempts + 1, ..outage }),
        };
        self.reports.push_back(match retry_in {
            Some(retry_in) => Report::Disconnected { error, retry_in },
            None => Report::Failed { error },
        });
    }
}

fn nothing_delivered(lsn: Lsn) -> Error {
    let message =
        format!("nothing was delivered that lies at {lsn} or behind it, so it cannot be acknowledged");
    Error::new(ErrorKind::InvalidArgument, message)
}

/// What was acknowledged last is sent before the connection is closed, or it would come again; and so it
/// would if the server found the connection closed while it writes, before it reads. That waits for the
/// server, [`FAREWELL_MAX`] at most.
impl Drop for StreamSource {
    fn drop(&mut self) {
        if self.phase != Phase::Streaming || !self.feedback.has_acknowledged() || self.session.is_ending() {
            return;
        }
        // In a forked child it is the parent who speaks to the server.
        if self.session.connection().is_some_and(|connection| connection.is_of_this_process()) {
            let now = Instant::now();
            self.send_status(now);
            if !self.session.is_ending()
                && let Some(connection) = self.session.connection()
                && let Err(error) = connection.end_copy(now + FAREWELL_MAX)
            {
                ::log::warn!("what was acknowledged last may come again: {error}");
            }
        }
    }
}
