//! Polls over a session: queries that are run again and again, each at its time, and whose rows are one
//! event.
//!
//! Promise: the next query of a poll never begins before the caller took what the last one found. With a
//! cursor every row of a table that only grows comes at least once.

mod answer;
mod cursor;
mod one;
mod pace;
mod statements;

use super::link::Link;
use super::readers::Reader;
use super::tag::{PollRequest, Tag};
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::event::{Channel, Rows, SessionId, Table, TaskId};
use crate::pq::Notify;
use crate::session::{self, Loss};
use answer::Answer;
pub(super) use one::Poll;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

/// All polls of a session.
#[derive(Debug, Default)]
pub(super) struct Polls {
    polls: Vec<Poll>,
    /// What the caller has, until it asks for the next event.
    lent: Option<Lent>,
    /// How many events there were.
    count: u64,
    /// Channels that the caller listens on by itself, besides.
    listened: Vec<Channel>,
    /// What was lost with the connection, and not reported.
    failures: Vec<(TaskId, Error)>,
    /// The one that the server is at.
    first: Option<TaskId>,
    is_connected: bool,
}

#[derive(Debug)]
struct Lent {
    task: TaskId,
    name: Arc<str>,
    id: u64,
    /// What the caller sees of it.
    number: u64,
    answer: Answer,
}

impl Polls {
    /// Adds one.
    pub(super) fn add(&mut self, link: &mut Link, mut poll: Poll, now: Instant) {
        link.session.accept_rows(poll.options.bytes_max);
        if let Some(channel) = &poll.wake_on {
            if link.channels.is_wanted(channel) && !self.wakes(channel) {
                self.listened.push(channel.clone());
            }
            link.channels.subscribe(channel.clone());
        }
        if self.is_connected {
            poll.opened(now);
        }
        self.polls.push(poll);
    }

    /// Ends one; `false` when there is none of this number.
    pub(super) fn cancel(&mut self, link: &mut Link, task: TaskId) -> bool {
        let Some(place) = self.polls.iter().position(|poll| poll.task == task) else { return false };
        let mut poll = self.polls.remove(place);
        poll.close(link);
        self.failures.retain(|(failed, _)| *failed != task);
        if let Some(channel) = poll.wake_on.filter(|channel| !self.wakes(channel))
            && !self.listened.contains(&channel)
        {
            link.channels.unsubscribe(channel);
        }
        true
    }

    /// Whether a poll is woken by this channel.
    pub(super) fn wakes(&self, channel: &Channel) -> bool {
        self.polls.iter().any(|poll| poll.wake_on.as_ref() == Some(channel))
    }

    /// The caller listens on a channel by itself, or does so no more.
    pub(super) fn listen(&mut self, channel: &Channel, is_listening: bool) {
        self.listened.retain(|listened| listened != channel);
        if is_listening && self.wakes(channel) {
            self.listened.push(channel.clone());
        }
    }

    /// Whether one of them reads under this name: the server would give it to the same session once more.
    pub(super) fn has_cursor(&self, name: &str) -> bool {
        self.polls.iter().any(|poll| poll.cursor() == Some(name))
    }

    /// Whether one of them has the session for itself.
    pub(super) fn need_session(&self) -> bool {
        self.polls.iter().any(Poll::needs_session)
    }

    /// Whether the caller acknowledges rows of one of them.
    pub(super) fn are_manual(&self) -> bool {
        self.polls.iter().any(Poll::is_manual)
    }

    /// Whether there is nothing more to see to.
    pub(super) fn is_over(&self, link: &Link) -> bool {
        self.polls.is_empty() && self.lent.is_none() && !link.session.unanswered().any(Tag::takes_its_time)
    }

    /// Goes on to the next rows; `false` when none are there. Each poll has its turn.
    pub(super) fn advance(&mut self, link: &mut Link, now: Instant) -> bool {
        if let Some(lent) = self.lent.take() {
            let poll = self.polls.iter_mut().find(|poll| poll.task == lent.task);
            if let Some(poll) = poll {
                poll.gone_on_from(link, lent.id, now);
                link.see_to_patience();
            }
        }
        let Some(place) = self.polls.iter().position(Poll::has_found) else { return false };
        self.count += 1;
        let (id, poll) = (self.count, &mut self.polls[place]);
        self.lent = poll.take_found(id).map(|answer| Lent {
            task: poll.task,
            name: poll.name.clone(),
            id,
            number: poll.number_for(id),
            answer,
        });
        self.polls.rotate_left(place + 1);
        self.lent.is_some()
    }

    /// The rows that were gone on to.
    pub(super) fn rows<'a>(&'a self, session: SessionId, db: &'a str) -> Option<Rows<'a>> {
        let Lent { task, name, number, answer, .. } = self.lent.as_ref()?;
        Some(Rows { session, db, task: *task, poll: name, id: *number, table: Table(answer) })
    }

    /// The connection was lost with an answer that was too long: that of the poll which was to have it.
    pub(super) fn learn_cause(&mut self, loss: &Loss<Tag>) {
        if let Some(Tag::Poll(task, PollRequest::Query)) = loss.unanswered.first()
            && loss.error.sqlstate == Some(SqlState::LIMIT_EXCEEDED)
            && let Some(poll) = self.polls.iter().find(|poll| poll.task == *task)
            && let Some((_, failure)) = self.failures.iter_mut().find(|(failed, _)| failed == task)
        {
            *failure = poll.too_many_rows(&loss.error);
        }
    }

    /// Acknowledges all rows up to this number, but those that were lost with a connection: they come again.
    pub(super) fn ack(&mut self, link: &mut Link, number: u64, now: Instant) -> Result<()> {
        if number == 0 || number > self.count {
            let message = format!("no rows with the id {number} wait to be acknowledged");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        for poll in self.polls.iter_mut().filter(|poll| poll.number_for(1) > 0) {
            poll.acknowledge(link, number, now);
        }
        link.see_to_patience();
        Ok(())
    }
}

impl Polls {
    /// The server answers one after the other. Only of the one that it is at the time runs, from when the one
    /// before was answered.
    fn see_to_order(&mut self, link: &Link, now: Instant) {
        let first = match link.session.unanswered().next() {
            Some(Tag::Poll(task, _)) => Some(*task),
            _ => None,
        };
        let has_begun = first == self.first;
        let waiting = self.polls.iter_mut().filter(|poll| !has_begun || Some(poll.task) != first);
        waiting.for_each(|poll| poll.begin_to_wait(now));
        self.first = first;
    }
}

impl Reader for Polls {
    type Request = (TaskId, PollRequest);

    #[cold]
    fn opened(&mut self, link: &mut Link, now: Instant) {
        link.make_lasting();
        self.is_connected = true;
        self.polls.iter_mut().for_each(|poll| poll.opened(now));
    }

    #[cold]
    fn lost(&mut self) {
        self.is_connected = false;
        self.failures.extend(self.polls.iter_mut().filter_map(|poll| Some((poll.task, poll.lost()?))));
    }

    /// A wake-up is for the polls alone, unless the caller listens, too.
    #[cold]
    fn heard(&mut self, _: &mut Link, notify: Notify) -> Option<Notify> {
        let mut has_woken = false;
        for poll in &mut self.polls {
            if poll.wake_on.as_ref().is_some_and(|channel| channel.as_bytes() == notify.channel()) {
                poll.wake_up();
                has_woken = true;
            }
        }
        let is_callers = || self.listened.iter().any(|channel| channel.as_bytes() == notify.channel());
        (!has_woken || is_callers()).then_some(notify)
    }

    #[cold]
    fn answered(
        &mut self,
        link: &mut Link,
        (task, request): (TaskId, PollRequest),
        answer: Result<session::Rows>,
        now: Instant,
    ) -> ControlFlow<()> {
        if let Some(poll) = self.polls.iter_mut().find(|poll| poll.task == task) {
            poll.answered(link, request, answer, now);
        }
        link.see_to_patience();
        ControlFlow::Continue(())
    }

    #[cold]
    fn step(&mut self, link: &mut Link, now: Instant) -> bool {
        let has_failures = !self.failures.is_empty();
        for (task, error) in self.failures.drain(..) {
            if let Some(poll) = self.polls.iter().find(|poll| poll.task == task) {
                poll.report(link, error);
            }
        }
        self.see_to_order(link, now);
        let has_sent =
            self.is_connected && self.polls.iter_mut().fold(false, |sent, p| p.step(link, now) | sent);
        if has_sent {
            link.see_to_patience();
        }
        has_failures | has_sent
    }

    fn deadline(&self) -> Option<Instant> {
        let polls = self.polls.iter().filter(|_| self.is_connected);
        polls.filter_map(Poll::deadline).min()
    }
}
