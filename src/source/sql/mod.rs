//! A session that runs SQL: it listens and sends for the caller, and readers read over it. What comes in
//! is given to whom it is for, and what comes out is put into one order: reports, notifications, changes.

mod advice;
mod ahead;
mod channels;
mod commands;
mod ddl;
mod first_statement;
mod link;
mod listen;
mod outbox;
mod poll;
mod read_ahead;
mod readers;
mod refusals;
mod runs;
mod self_test;
mod sender;
mod statements;
mod tag;

use super::report::Report;
use super::schedule::Due;
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::{Event, Notification, SessionId};
use crate::metrics::Metrics;
use crate::options::{Overflow, SessionOptions};
use crate::pq::{Connection, Conninfo, Notify};
use crate::reactor::WaitFor;
use crate::session::{Answer, BackgroundJobs, Kind, Loss, Progress, Rows, Session};
use ddl::DdlReader;
use link::{InLibpq, Link};
use listen::Listen;
use outbox::{Next, Outbox};
use poll::Polls;
use read_ahead::ReadAhead;
use readers::Readers;
use runs::Runs;
use self_test::SelfTest;
use sender::Sender;
use std::time::{Duration, Instant};
use tag::Tag;

pub(crate) use runs::Job;

#[derive(Debug)]
pub(crate) struct SqlSource {
    link: Link,
    listen: Listen,
    sender: Sender,
    self_test: SelfTest,
    readers: Readers,
    read_ahead: ReadAhead,
    at_hand: AtHand,
    skip_own: bool,
    counts_bytes: bool,
    /// Every notification goes to the caller as it comes: there are no readers, nothing is read ahead, and
    /// our own are delivered, too.
    is_plain: bool,
}

/// The event that was gone on to.
#[derive(Debug)]
enum AtHand {
    Nothing,
    /// And how many others of its channel it stands for.
    Notification(Notify, u64),
    /// The outbox has it.
    Change,
    Tick(Due),
    /// The polls have them.
    Rows,
    Report(Report),
}

/// What a look for the next event came to.
enum Look {
    Found,
    /// Nothing that is here may be delivered before others had their turn.
    Yield,
    Nothing,
}

impl SqlSource {
    pub(crate) fn new(
        id: SessionId,
        conninfo: Conninfo,
        options: &SessionOptions,
        jobs: BackgroundJobs,
        now: Instant,
    ) -> Self {
        let session = Session::new(Kind::Sql, conninfo, options.heartbeat, jobs, now);
        let metrics = Metrics { bytes: options.count_bytes.then_some(0), ..Metrics::default() };
        SqlSource {
            link: Link::new(id, session, metrics),
            listen: Listen::default(),
            sender: Sender::default(),
            self_test: SelfTest::new(options.self_test),
            readers: Readers::default(),
            read_ahead: ReadAhead::new(options.overflow),
            at_hand: AtHand::Nothing,
            skip_own: options.skip_own,
            counts_bytes: options.count_bytes,
            is_plain: !options.skip_own && options.overflow == Overflow::Block,
        }
    }

    #[inline]
    pub(super) fn id(&self) -> SessionId {
        self.link.id
    }

    pub(super) fn on_ready(&mut self) {
        self.link.session.set_ready();
    }

    pub(super) fn on_wanted_turn(&mut self) {
        self.link.session.set_held();
    }

    pub(super) fn on_deadline(&mut self, now: Instant) {
        self.link.session.on_deadline(now);
    }

    pub(super) fn on_answer(&mut self, answer: Answer, now: Instant) {
        match answer {
            Answer::Addresses(addresses) => self.link.session.resolved(&addresses, now),
            Answer::SelfTest(outcome) => self.self_test.sent(&mut self.link, outcome),
            Answer::Command(number, outcome) => self.sender.sent_otherwise(&mut self.link, number, outcome),
        }
    }

    pub(super) fn take_interest(&mut self) -> Option<(&Connection, WaitFor)> {
        self.link.session.take_interest()
    }

    pub(super) fn fail(&mut self, error: Error) {
        self.link.session.fail(error);
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.link.session.is_waiting()
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.link.session.is_connecting()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.link.session.has_failed()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.link.metrics
    }

    #[inline]
    pub(super) fn metrics_mut(&mut self) -> &mut Metrics {
        &mut self.link.metrics
    }

    pub(super) fn last_probe(&self) -> Option<(Instant, Duration)> {
        self.link.session.last_probe()
    }

    #[inline]
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.is_plain { self.link.session.deadline() } else { self.deadline_with_readers() }
    }

    #[cold]
    fn deadline_with_readers(&self) -> Option<Instant> {
        self.link.session.deadline().into_iter().chain(self.readers.deadline()).min()
    }

    pub(super) fn slack(&self) -> Duration {
        let session = &self.link.session;
        if self.deadline() == session.deadline() { session.slack() } else { Duration::ZERO }
    }

    #[inline]
    pub(super) fn end_turn(&mut self) -> bool {
        self.link.look_again();
        std::mem::take(&mut self.link.wants_turn) | self.link.session.holds_more()
    }

    /// A reader came or went.
    fn readers_changed(&mut self) {
        self.is_plain = !self.skip_own && !self.read_ahead.is_on() && self.readers.is_empty();
    }

    /// Goes on to the next event. Consumes input once for each time that the session was found ready.
    #[inline(always)]
    pub(super) fn advance(&mut self, now: Instant) -> bool {
        let taken = std::mem::replace(&mut self.at_hand, AtHand::Nothing);
        if !self.is_plain
            && let AtHand::Tick(due) = taken
        {
            self.finish_taken(due);
        }
        if !self.is_plain && self.read_ahead.is_on() {
            return self.advance_ahead(now);
        }
        loop {
            if !self.is_plain || !self.link.reports.is_empty() {
                match self.look_for_any(now) {
                    Look::Found => return true,
                    Look::Yield => return false,
                    Look::Nothing => {}
                }
            } else if self.link.may_hold_notifications()
                && let Some(notify) = self.link.next_notification()
            {
                self.hand_over(notify, 0);
                return true;
            }
            if !self.go_on(now) {
                return false;
            }
            self.link.look_again();
        }
    }

    #[inline(always)]
    pub(crate) fn take_of_stream(&mut self) -> Option<Notify> {
        let notify = self.link.next_notification()?;
        self.link.metrics.notifications += 1;
        Some(notify)
    }

    #[inline]
    pub(super) fn has_notification(&self) -> bool {
        matches!(self.at_hand, AtHand::Notification(..))
    }

    #[inline]
    pub(super) fn is_streaming(&self) -> bool {
        self.is_plain && !self.counts_bytes && self.has_notification()
    }

    #[inline(always)]
    fn hand_over(&mut self, notify: Notify, folded: u64) {
        let metrics = &mut self.link.metrics;
        metrics.notifications += 1;
        metrics.folded += folded;
        if self.counts_bytes {
            *metrics.bytes.get_or_insert(0) += (notify.channel().len() + notify.payload().len()) as u64;
        }
        self.at_hand = AtHand::Notification(notify, folded);
    }

    #[cold]
    fn report(&mut self, report: Report) -> Look {
        report.count_into(&mut self.link.metrics);
        self.at_hand = AtHand::Report(report);
        Look::Found
    }

    pub(super) fn event(&self) -> Option<Event<'_>> {
        let (id, db) = (self.link.id, &self.link.db);
        match &self.at_hand {
            AtHand::Nothing => None,
            AtHand::Notification(notify, folded) => Some(Event::Notification(self.lend(notify, *folded))),
            AtHand::Change => self.readers.get::<Outbox>()?.change(id, db).map(Event::Change),
            AtHand::Tick(due) => self.readers.get::<Runs>()?.event(due),
            AtHand::Rows => self.readers.get::<Polls>()?.rows(id, db).map(Event::Rows),
            AtHand::Report(report) => Some(report.as_event(id, db, Instant::now())),
        }
    }

    /// A notification as the caller sees it.
    #[inline(always)]
    pub(crate) fn lend<'a>(&'a self, notify: &'a Notify, folded: u64) -> Notification<'a> {
        let (channel, payload, pid) = (notify.channel_text(), notify.payload_text(), notify.pid());
        let (session, db, own) = (self.link.id, &*self.link.db, self.link.is_own(pid));
        Notification { session, db, channel, payload, pid, own, folded }
    }

    /// What is here besides notifications, and these, if not all are for the caller.
    #[cold]
    fn look_for_any(&mut self, now: Instant) -> Look {
        loop {
            if let Some(report) = self.link.reports.pop_front() {
                return self.report(report);
            }
            if self.link.may_hold_notifications()
                && let Some(notify) = self.next_for_caller()
            {
                self.hand_over(notify, 0);
                return Look::Found;
            }
            if self.link.is_to_consume() {
                return Look::Nothing;
            }
            match self.look_for_read(now) {
                Look::Nothing => {}
                found => return found,
            }
            // A notification may have brought a report.
            if self.link.reports.is_empty() && !self.give_up_awaited(now) {
                return Look::Nothing;
            }
        }
    }

    /// What readers have for the caller: a change or a gap of the outbox, rows, a due time.
    fn look_for_read(&mut self, now: Instant) -> Look {
        let found = match self.look_for_change(now) {
            Look::Nothing => self.look_for_rows(now),
            found => found,
        };
        match found {
            Look::Nothing => self.look_for_tick(),
            found => found,
        }
    }

    fn look_for_rows(&mut self, now: Instant) -> Look {
        let Some(polls) = self.readers.get_mut::<Polls>() else { return Look::Nothing };
        if polls.advance(&mut self.link, now) {
            self.at_hand = AtHand::Rows;
            return Look::Found;
        }
        if polls.is_over(&self.link) {
            self.readers.remove::<Polls>();
            self.readers_changed();
        }
        Look::Nothing
    }

    /// The next change or gap of the outbox.
    fn look_for_change(&mut self, now: Instant) -> Look {
        let Some(outbox) = self.readers.get_mut::<Outbox>() else { return Look::Nothing };
        match outbox.advance(&mut self.link, now) {
            Next::Change => {
                self.link.metrics.changes += 1;
                self.at_hand = AtHand::Change;
                Look::Found
            }
            Next::Report(report) => self.report(report),
            Next::Yield => {
                (self.link.wants_turn, self.link.in_libpq) = (true, InLibpq::Rest);
                Look::Yield
            }
            Next::Nothing => Look::Nothing,
        }
    }

    /// The next due time of a schedule.
    fn look_for_tick(&mut self) -> Look {
        let Some(due) = self.readers.get_mut::<Runs>().and_then(Runs::next) else { return Look::Nothing };
        self.at_hand = AtHand::Tick(due);
        Look::Found
    }

    /// The caller has asked for the next event.
    #[cold]
    fn finish_taken(&mut self, due: Due) {
        if let Some(runs) = self.readers.get_mut::<Runs>() {
            runs.taken(&mut self.link, due.task);
        }
    }

    /// The next notification but for those that are of no interest to the caller.
    fn next_for_caller(&mut self) -> Option<Notify> {
        loop {
            if !self.is_plain && self.is_held_back() {
                return None;
            }
            let notify = self.link.next_notification()?;
            if self.is_plain {
                return Some(notify);
            }
            if self.skip_own && self.link.is_own(notify.pid()) {
                continue;
            }
            if let Some(notify) = self.readers.heard(&mut self.link, notify) {
                return Some(notify);
            }
            // What it reported comes before the next notification.
            if !self.link.reports.is_empty() {
                return None;
            }
        }
    }

    /// Whether something waits that comes before the next notification.
    fn is_held_back(&self) -> bool {
        self.link.awaits_first() || self.readers.get().is_some_and(Outbox::has_notified)
    }

    /// All that was held has been delivered: see to what comes next; `false` when there is nothing. Once for
    /// each wake-up, so it is kept apart from what runs for each notification.
    #[inline(never)]
    fn go_on(&mut self, now: Instant) -> bool {
        if !self.link.session.is_quiet() || !self.self_test.is_over() {
            return self.progress(now);
        }
        self.link.session.consume(now) || self.send_what_is_due(now)
    }

    #[cold]
    fn progress(&mut self, now: Instant) -> bool {
        match self.link.session.progress(now) {
            Progress::Consumed => self.self_test.heard(&mut self.link),
            Progress::Idle => return self.send_what_is_due(now),
            Progress::Opened => {
                self.listen.connected(&mut self.link);
                match self.self_test.is_over() {
                    true => self.listen.prepare(&mut self.link, !self.readers.is_empty()),
                    false => self.self_test.connected(&mut self.link),
                }
            }
            Progress::Answered(tag, answer) => {
                self.answered(tag, answer, now);
                self.listen.report(&mut self.link);
                self.sender.report(&mut self.link);
            }
            Progress::Lost(loss) => self.lost(loss),
        }
        true
    }

    #[inline]
    fn send_what_is_due(&mut self, now: Instant) -> bool {
        self.listen.step(&mut self.link)
            || self.sender.step(&mut self.link)
            || (!self.is_plain && self.readers.step(&mut self.link, now))
    }

    #[cold]
    fn answered(&mut self, tag: Tag, answer: Result<Rows>, now: Instant) {
        let link = &mut self.link;
        match tag {
            Tag::Listen(request) => {
                let was_listening = link.is_listening;
                self.listen.answered(link, request, answer, now);
                if self.link.is_listening && !was_listening {
                    self.readers.opened(&mut self.link, now);
                }
            }
            Tag::Send(request) => self.sender.answered(link, request, answer),
            Tag::SelfTest(request) => {
                if self.self_test.answered(link, request, answer.map(drop)) {
                    self.listen.prepare(link, !self.readers.is_empty());
                }
            }
            Tag::Outbox(request) => self.readers.answered::<Outbox>(link, request, answer, now),
            Tag::Ddl(request) => self.readers.answered::<DdlReader>(link, request, answer, now),
            Tag::Run(request) => self.readers.answered::<Runs>(link, request, answer, now),
            Tag::Poll(task, request) => self.readers.answered::<Polls>(link, (task, request), answer, now),
        }
        self.readers_changed();
    }

    #[cold]
    fn lost(&mut self, mut loss: Loss<Tag>) {
        self.self_test.lost();
        self.readers.lost();
        if let Some(polls) = self.readers.get_mut::<Polls>() {
            polls.learn_cause(&loss);
        }
        let (unanswered, is_last) = (std::mem::take(&mut loss.unanswered), loss.retry_in.is_none());
        self.sender.lost(&mut self.link, unanswered, is_last.then_some(&loss.error));
        self.listen.lost(&mut self.link, loss);
    }

    /// Answers that will never come any more hold nothing back: what was to be fetched is reported as missed,
    /// what was to be converted is delivered as well as may be. `false` when none was awaited.
    #[cold]
    fn give_up_awaited(&mut self, now: Instant) -> bool {
        if !self.link.session.is_drained() || !self.link.awaits_first() {
            return false;
        }
        let message = "the connection was lost before the server sent what a notification refers to";
        let lost = Error::new(ErrorKind::Connection, message).with_sqlstate(Some(SqlState::CONNECTION_LOST));
        for tag in self.link.session.take_unanswered(Tag::comes_first) {
            self.answered(tag, Err(lost.clone()), now);
        }
        true
    }
}
