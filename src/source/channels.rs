//! LISTEN and NOTIFY over one session: commands in, notifications out, and a gap told after each outage.
//!
//! Promise: at most once, in commit order. Each outage is exactly one gap, after every channel listens again
//! and before the next notification.

use super::ddl::{self, DdlReader};
use super::outbox::{self, Outbox};
use super::overflow::Held;
use super::requests::{Payload, Subscription};
use super::self_test::{SelfTest, Step};
use super::{Outage, Pull, Report};
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::{Change, Channel, SessionId};
use crate::metrics::Metrics;
use crate::options::{Overflow, SessionOptions};
use crate::pq::Notify;
use crate::session::{Command, Loss, Progress, Rows, Session};
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// What was sent as one transaction, so that its failure harms nothing else.
#[derive(Debug)]
pub(super) enum Batch {
    /// Something that holds for the connection is set; with rows, they say who the server's process is.
    Setting,
    Subscription(Subscription),
    Notify(Channel),
    SelfTest(Step),
    Outbox(outbox::Request),
    Ddl(ddl::Step),
}

#[derive(Debug)]
pub(crate) struct ChannelSource {
    id: SessionId,
    pub(super) session: Session,
    pub(super) db: String,
    pub(super) backend_pid: i32,
    pub(super) skip_own: bool,
    /// Every notification goes to the caller as it comes: there are no readers, nothing is read ahead, and
    /// our own are told, too.
    pub(super) is_plain: bool,
    counts_bytes: bool,
    /// All channels listen on the connection there is, and what it brings is passed on.
    pub(super) is_listening: bool,
    /// No further attempt will be made to connect.
    has_failed: bool,
    pub(super) wanted: BTreeSet<Channel>,
    /// The LISTENs for all that was wanted are sent; what is wanted later needs its own.
    pub(super) is_prepared: bool,
    /// No time-out of the role or the database ends the connection there is.
    pub(super) is_lasting: bool,
    pub(super) changes: VecDeque<Subscription>,
    /// The server has confirmed these, and they have not been told.
    pub(super) listened: BTreeSet<Channel>,
    pub(super) unsent: VecDeque<(Channel, Payload)>,
    pub(super) unsent_bytes: usize,
    pub(super) unanswered: VecDeque<Batch>,
    pub(super) held: Held,
    sent: u64,
    pub(super) was_listening: bool,
    pub(super) outage: Option<Outage>,
    pub(super) reports: VecDeque<Report>,
    /// Readers of what the schema `pgwake` tells.
    pub(super) outbox: Option<Box<Outbox>>,
    pub(super) ddl: Option<Box<DdlReader>>,
    /// Answers that come before the next notification: what others referred to.
    pub(super) fetches: u32,
    /// Until it is passed.
    pub(super) self_test: Option<SelfTest>,
    /// libpq held no notification, and nothing has happened since that may have brought it some.
    is_exhausted: bool,
    /// There is more to tell, and others have their turn first.
    pub(super) wants_turn: bool,
    /// Kept by the loop.
    pub(crate) metrics: Metrics,
}

impl ChannelSource {
    pub(crate) fn new(id: SessionId, session: Session, options: &SessionOptions) -> Self {
        ChannelSource {
            id,
            db: session.database_asked_for().to_string(),
            session,
            backend_pid: 0,
            skip_own: options.skip_own,
            counts_bytes: options.count_bytes,
            is_plain: !options.skip_own && options.overflow == Overflow::Block,
            held: Held::new(options.overflow),
            is_listening: false,
            has_failed: false,
            wanted: BTreeSet::new(),
            is_prepared: false,
            is_lasting: false,
            changes: VecDeque::new(),
            listened: BTreeSet::new(),
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            unanswered: VecDeque::new(),
            sent: 0,
            was_listening: false,
            outage: None,
            reports: VecDeque::new(),
            outbox: None,
            ddl: None,
            fetches: 0,
            self_test: options.self_test.then(SelfTest::new),
            is_exhausted: false,
            wants_turn: false,
            metrics: Metrics { bytes: options.count_bytes.then_some(0), ..Metrics::default() },
        }
    }

    pub(crate) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// When the last probe was sent that has been answered, and how long that took.
    pub(crate) fn last_probe(&self) -> Option<(Instant, Duration)> {
        self.session.last_probe()
    }

    /// When a turn is wanted at the latest, if nothing happens before.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.is_plain { self.session.deadline() } else { self.deadline_with_readers() }
    }

    /// How much earlier that may be.
    pub(crate) fn slack(&self) -> Duration {
        if self.deadline() == self.session.deadline() { self.session.slack() } else { Duration::ZERO }
    }

    /// The change that was told last.
    pub(crate) fn change(&mut self) -> Option<Change<'_>> {
        self.metrics.changes += 1;
        self.outbox.as_deref()?.change(self.id, &self.db)
    }

    /// Whether nothing will ever come again.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    #[inline]
    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    #[inline]
    pub(crate) fn db(&self) -> &str {
        &self.db
    }

    pub(super) fn refuse_if_failed(&self) -> Result<()> {
        if !self.has_failed {
            return Ok(());
        }
        let message = "the session has failed for good: disconnect it, mend the cause, and connect again";
        Err(Error::new(ErrorKind::Connection, message))
    }

    /// The next thing to tell. Consumes input once for each time that the session was found ready.
    #[inline(always)]
    pub(crate) fn pull(&mut self, now: Instant) -> Pull {
        if !self.is_plain && self.held.reads_ahead() {
            return self.pull_ahead(now);
        }
        loop {
            if !self.is_plain || !self.reports.is_empty() {
                if let Some(pull) = self.pull_of_any(now) {
                    return pull;
                }
            } else if self.may_hold_notifications()
                && let Some(notify) = self.next_notification()
            {
                return Pull::Notification { notify, folded: 0 };
            }
            if !self.go_on(now) {
                return Pull::Idle;
            }
            self.is_exhausted = false;
        }
    }

    /// What is at hand besides notifications, and these, if not all are for the caller.
    #[cold]
    fn pull_of_any(&mut self, now: Instant) -> Option<Pull> {
        if let Some(report) = self.reports.pop_front() {
            return Some(Pull::Report(Box::new(report)));
        }
        if self.may_hold_notifications()
            && let Some(notify) = self.next_for_caller()
        {
            return Some(Pull::Notification { notify, folded: 0 });
        }
        if self.session.is_ready() {
            return None;
        }
        // A notification may have told of DDL.
        let pull = self.next_change(now).or_else(|| Some(Pull::Report(Box::new(self.reports.pop_front()?))));
        if pull.is_none() && self.give_up_fetches(now) {
            return self.pull_of_any(now);
        }
        pull
    }

    /// A turn begins with consuming: libpq was left empty by the last one.
    #[inline(always)]
    fn may_hold_notifications(&self) -> bool {
        self.is_listening && !self.is_exhausted && !self.session.is_ready()
    }

    /// All that was held has been told: see to what comes next; `false` when there is nothing. Once for each
    /// wake-up, so it is kept apart from what runs for each notification.
    #[inline(never)]
    pub(super) fn go_on(&mut self, now: Instant) -> bool {
        if !self.session.is_quiet() || self.self_test.is_some() {
            return self.progress(now);
        }
        self.session.consume(now) || self.send_what_is_due(now)
    }

    #[cold]
    fn progress(&mut self, now: Instant) -> bool {
        match self.session.progress(now) {
            Progress::Consumed if self.self_test.is_none() => {}
            Progress::Consumed => self.look_for_self_test(),
            Progress::Idle => return self.send_what_is_due(now),
            Progress::Opened => self.prepare(),
            Progress::Answered(answer) => self.answered(answer, now),
            Progress::Lost(loss) => self.lost(loss),
        }
        true
    }

    #[inline]
    fn send_what_is_due(&mut self, now: Instant) -> bool {
        self.send_queued() || (!self.is_plain && self.readers_step(now))
    }

    /// The next notification that libpq holds.
    #[inline(always)]
    pub(crate) fn next_notification(&mut self) -> Option<Notify> {
        let notify = self.session.connection()?.notifies();
        match &notify {
            Some(_) => self.session.has_said_something(),
            None => self.is_exhausted = true,
        }
        notify
    }

    /// Whether every notification goes to the caller as it comes, with nothing else to see to.
    #[inline]
    pub(crate) fn may_stream(&self) -> bool {
        self.is_plain && !self.counts_bytes
    }

    /// Counts what goes to the caller, if that was asked for.
    #[inline]
    pub(crate) fn count_bytes(&mut self, notify: &Notify) {
        if self.counts_bytes {
            self.add_bytes(notify.channel().len() + notify.payload().len());
        }
    }

    /// So many bytes went to the caller.
    #[inline]
    pub(crate) fn add_bytes(&mut self, bytes: usize) {
        *self.metrics.bytes.get_or_insert(0) += bytes as u64;
    }

    /// Whether this is the PID of this session's server process.
    #[inline]
    pub(crate) fn is_own(&self, pid: i32) -> bool {
        pid == self.backend_pid
    }

    /// The next notification but for those that are of no interest to the caller.
    pub(super) fn next_for_caller(&mut self) -> Option<Notify> {
        loop {
            if !self.is_plain && self.is_held_back() {
                return None;
            }
            let notify = self.next_notification()?;
            if self.is_plain {
                return Some(notify);
            }
            if self.skip_own && self.is_own(notify.pid()) {
                continue;
            }
            if let Some(notify) = self.on_notification(notify) {
                return Some(notify);
            }
            // What it told comes before the next notification.
            if !self.reports.is_empty() {
                return None;
            }
        }
    }

    /// Its turn is over: whether it wants another although nothing will be ready.
    pub(crate) fn end_turn(&mut self) -> bool {
        self.is_exhausted = false;
        std::mem::take(&mut self.wants_turn)
    }

    pub(super) fn send(&mut self, sql: Option<Vec<u8>>, meaning: Batch) {
        self.session.send(sql.iter().map(|sql| Command::Run { sql, parameters: &[] }));
        self.unanswered.push_back(meaning);
    }

    #[cold]
    fn answered(&mut self, answer: Result<Rows>, now: Instant) {
        match (self.unanswered.pop_front(), answer) {
            (Some(Batch::Outbox(request)), answer) => self.watch_answered(request, answer, now),
            (Some(Batch::Ddl(step)), answer) => self.ddl_answered(step, answer, now),
            (Some(Batch::Setting), Ok(rows)) => self.learn_pid(rows),
            (batch, answer) => self.confirmed(batch, answer.map(drop)),
        }
        // A server that refused a LISTEN is not listened to, whatever else it answers.
        let is_prepared = self.is_prepared && self.unanswered.is_empty() && !self.session.is_ending();
        if is_prepared && !self.is_listening {
            self.prepared(now);
        }
        let has_more_changes = matches!(self.unanswered.front(), Some(Batch::Subscription(_)));
        if self.is_listening && !has_more_changes && !self.listened.is_empty() {
            let channels = self.take_listened();
            self.report_listening(channels);
        }
        let is_notify = |batch: &Batch| matches!(batch, Batch::Notify(_));
        if self.sent > 0 && self.unsent.is_empty() && !self.unanswered.iter().any(is_notify) {
            self.report_sent();
        }
    }

    /// What the server said to a batch without rows.
    fn confirmed(&mut self, batch: Option<Batch>, answer: Result<()>) {
        match (batch, answer) {
            (Some(Batch::Setting), Ok(())) | (None, _) => {}
            (Some(Batch::Setting), Err(error)) => self.session.fail(error),
            (Some(Batch::Subscription(Subscription { listen, channel })), Ok(())) => {
                if listen {
                    self.listened.insert(channel);
                }
            }
            (Some(Batch::Subscription(change)), Err(error)) => self.refused(change, error),
            (Some(Batch::Notify(_)), Ok(())) => self.sent += 1,
            (Some(Batch::Notify(channel)), Err(error)) => self.report_unsent(channel, error),
            (Some(Batch::SelfTest(step)), answer) => self.self_tested(step, answer),
            (Some(Batch::Outbox(_) | Batch::Ddl(_)), _) => {}
        }
    }

    /// What the server has confirmed, as far as it is still wanted.
    pub(super) fn take_listened(&mut self) -> Vec<Channel> {
        let listened = std::mem::take(&mut self.listened).into_iter();
        listened.filter(|channel| self.wanted.contains(channel)).collect()
    }

    pub(super) fn report_listening(&mut self, channels: Vec<Channel>) {
        let Some(connection) = self.session.connection() else { return };
        let version = connection.parameter(c"server_version");
        self.reports.push_back(Report::Listening {
            channels,
            backend_pid: self.backend_pid,
            // Distributors add a name in brackets.
            server_version: version.split(' ').next().unwrap_or_default().to_string(),
            host: connection.host(),
        });
    }

    fn report_sent(&mut self) {
        self.reports.push_back(Report::Sent { count: std::mem::take(&mut self.sent) });
    }

    fn report_unsent(&mut self, channel: Channel, error: Error) {
        self.reports.push_back(Report::CommandFailed { command: "notify", channel, error });
    }

    #[cold]
    fn lost(&mut self, Loss { error, retry_in, at }: Loss) {
        (self.is_listening, self.is_prepared, self.is_lasting) = (false, false, false);
        self.listened.clear();
        self.interrupt_self_test();
        self.fetches = 0;
        if let Some(outbox) = &mut self.outbox {
            outbox.disconnected();
        }
        if let Some(ddl) = &mut self.ddl {
            ddl.disconnected();
        }
        if self.sent > 0 {
            self.report_sent();
        }
        if self.was_listening {
            let outage = self.outage.get_or_insert(Outage { error: error.clone(), lost_at: at, attempts: 0 });
            outage.attempts += 1;
        }
        let message = "the connection was lost before the server answered: it may have been sent or not";
        let unknown =
            Error::new(ErrorKind::Connection, message).with_sqlstate(Some(SqlState::OUTCOME_UNKNOWN));
        for batch in std::mem::take(&mut self.unanswered) {
            if let Batch::Notify(channel) = batch {
                self.report_unsent(channel, unknown.clone());
            }
        }
        let Some(retry_in) = retry_in else {
            self.has_failed = true;
            self.unsent_bytes = 0;
            for (channel, _) in std::mem::take(&mut self.unsent) {
                self.report_unsent(channel, error.clone());
            }
            return self.reports.push_back(Report::Failed { error });
        };
        self.reports.push_back(Report::Disconnected { error, retry_in });
    }
}
