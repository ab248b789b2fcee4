//! One turn after the other: what is at hand is delivered, what was asked for is sent, due timers fire,
//! readiness is polled for, and ready sessions are drained in rotation. Alone reads the clock.
//!
//! A session consumes once (some 16 KB) for each time that it was found ready, so none keeps the others
//! waiting; what it leaves in its socket is found by the next poll.

mod admission;
mod commands;
mod rotation;
mod schedules;
mod spin;
mod stalls;
mod tasks;
mod timers;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Notification};
use crate::options::{EventLoopOptions, bounded};
use crate::pq::Notify;
use crate::reactor::{Reactor, Ready};
use crate::session::Background;
use crate::source::Source;
use crate::sys;
use admission::Admission;
use rotation::Rotation;
use spin::Spin;
use stalls::Stalls;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};
use tasks::Tasks;
use timers::Timers;

/// How often a call polls for more when its time is over: readiness that never brings an event must not keep
/// it. Before it gives up, it makes the descriptor readable.
const POLLS_MAX: u32 = 64;
/// To begin a connection takes as long as some polls.
const POLLS_PER_CONNECT: u32 = 16;

/// There is no such place in the table of sessions.
const NO_SESSION: usize = usize::MAX;

/// A place in the table of sessions.
#[derive(Debug)]
struct Slot {
    generation: u32,
    source: Option<Source>,
    /// The entry of this session in the table of timers; never later than its deadline.
    timer: Option<Instant>,
    /// It is counted among those that are on their way to a connection.
    is_connecting: bool,
}

/// The event at hand.
#[derive(Debug)]
struct AtHand {
    /// A notification of the stream. There is one: which session gave it has its place.
    notification: Option<Notify>,
    /// The session that gives a stream of notifications: it gave one, and nothing else has happened since.
    stream: usize,
    /// The session that has any other event at hand.
    index: usize,
}

const NOTHING: AtHand = AtHand { notification: None, stream: NO_SESSION, index: NO_SESSION };

#[derive(Debug)]
struct Clock {
    /// The time as far as it was looked at.
    now: Instant,
    /// The time of the last poll.
    polled_at: Instant,
    /// Since when the session has its turn: since the poll, or the end of the last turn.
    turn_began_at: Instant,
    /// No notification has come out of this turn yet.
    is_turn_fresh: bool,
    /// What of it was lost.
    stalls: Stalls,
}

/// How far a call of `next` has come with its wait, and who asked for its end.
#[derive(Debug, Default)]
struct Wait {
    /// What it waits at most.
    timeout: Option<Duration>,
    until: Option<Instant>,
    /// How often it has polled for more when its time was over.
    polls: u32,
    /// The descriptor was made readable for the host, and not polled since.
    is_nudged: bool,
    /// Somebody called [`Waker::wake`](crate::Waker::wake), and no wait has ended for it yet.
    is_woken: bool,
}

/// The loop: sessions in, events out. See the [crate's page](crate) for a picture.
#[derive(Debug)]
pub struct EventLoop {
    /// The process it belongs to, as `sys::watch_forks` has it.
    forks: u32,
    at_hand: AtHand,
    wait: Wait,
    rotation: Rotation,
    clock: Clock,
    slots: Vec<Slot>,
    reactor: Reactor,
    background: Background,
    admission: Admission,
    timers: Timers,
    spin: Spin,
    tasks: Tasks,
}

impl EventLoop {
    /// A loop without sessions.
    pub fn new() -> Result<Self> {
        Self::with_options(EventLoopOptions::default())
    }

    /// A loop without sessions that works as `options` say.
    pub fn with_options(options: EventLoopOptions) -> Result<Self> {
        let now = Instant::now();
        let reactor = Reactor::new()?;
        Ok(EventLoop {
            forks: sys::watch_forks(),
            at_hand: NOTHING,
            wait: Wait::default(),
            rotation: Rotation::default(),
            clock: Clock {
                now,
                polled_at: now,
                turn_began_at: now,
                is_turn_fresh: false,
                stalls: Stalls::new(options.stall_warning),
            },
            slots: Vec::new(),
            background: Background::new(reactor.nudge().clone()),
            reactor,
            admission: Admission::default(),
            timers: Timers::new(now),
            spin: Spin::new(options.spin, options.spin_adaptive, now),
            tasks: Tasks::default(),
        })
    }

    /// The next event. It borrows from the loop until the next call.
    ///
    /// With `None` this waits until there is one; with a timeout at most that long (milliseconds count,
    /// fractions are rounded up); with zero not at all. It gives `None` when the time is over, when
    /// [`Waker::wake`](crate::Waker::wake) was called, and when there is nothing left to wait for: no session
    /// that could ever report, and nobody to wake it.
    ///
    /// # In a loop of your own
    ///
    /// Watch [`as_raw_fd`](AsRawFd::as_raw_fd) for reading: it is one descriptor for the loop's whole life,
    /// timers included. When it is readable, call `next(Some(Duration::ZERO))` until it gives `None`.
    /// Stopping earlier leaves events inside that the descriptor does not tell of; to do so all the same,
    /// call [`Waker::wake`](crate::Waker::wake) first.
    #[inline]
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Option<Event<'_>>> {
        match self.take_of_stream(timeout) {
            Some((index, notify)) => Ok(self.lend(index, notify).map(Event::Notification)),
            // What libpq holds was read before a fork. Behind that, a socket would be read that is another's.
            None if self.forks != sys::forks() => Err(forked()),
            None => self.next_of_any(),
        }
    }

    /// The first half of [`next`](Self::next), for a caller that makes a flat event of it with none of Rust's
    /// in between: `next_of_any` is the other half. That the loop is not forked is for that caller to know.
    #[cfg(feature = "capi")]
    #[inline]
    pub(crate) fn next_of_stream(&mut self, timeout: Option<Duration>) -> Option<Notification<'_>> {
        let (index, notify) = self.take_of_stream(timeout)?;
        self.lend(index, notify)
    }

    #[inline(always)]
    fn take_of_stream(&mut self, timeout: Option<Duration>) -> Option<(usize, Notify)> {
        self.wait.timeout = timeout;
        self.at_hand.notification = None;
        let index = self.at_hand.stream;
        let Some(Source::Sql(source)) = &mut self.slots.get_mut(index)?.source else { return None };
        Some((index, source.take_of_stream()?))
    }

    #[inline(always)]
    fn lend(&mut self, index: usize, notify: Notify) -> Option<Notification<'_>> {
        let notify = self.at_hand.notification.insert(notify);
        let Some(Source::Sql(source)) = &self.slots[index].source else { return None };
        Some(source.lend(notify, 0))
    }

    /// The other half.
    #[inline(never)]
    pub(crate) fn next_of_any(&mut self) -> Result<Option<Event<'_>>> {
        if !self.advance()? {
            return Ok(None);
        }
        Ok(self.slots[self.at_hand.index].source.as_ref().and_then(Source::event))
    }

    /// Works until an event is at hand; `false` when the wait is over without one.
    fn advance(&mut self) -> Result<bool> {
        self.at_hand = NOTHING;
        (self.wait.until, self.wait.polls) = (None, 0);
        if self.rotation.turn.is_none() && !self.rotation.ready.is_empty() {
            // Commands gave these sessions a turn, and nobody waited for it before now.
            let now = Instant::now();
            (self.clock.now, self.clock.polled_at, self.clock.turn_began_at) = (now, now, now);
        }
        loop {
            while let Some(index) = self.rotation.turn {
                let Some(source) = &mut self.slots[index].source else {
                    self.rotation.turn = None;
                    continue;
                };
                if !source.advance(self.clock.now) {
                    self.end_turn(index)?;
                    continue;
                }
                self.at_hand.index = index;
                if source.has_notification() && std::mem::take(&mut self.clock.is_turn_fresh) {
                    source.metrics_mut().delivery.record(self.clock.polled_at.elapsed());
                }
                if source.is_streaming() {
                    self.at_hand.stream = index;
                }
                return Ok(true);
            }
            self.rotation.turn = self.rotation.ready.pop_front();
            self.clock.is_turn_fresh = true;
            if self.rotation.turn.is_none() && !self.wait()? {
                return Ok(false);
            }
        }
    }

    /// A session has come to rest, or used up its rounds: see to what it waits for.
    #[inline(never)]
    fn end_turn(&mut self, index: usize) -> Result<()> {
        self.rotation.turn = None;
        let Some(source) = &mut self.slots[index].source else { return Ok(()) };
        if source.end_turn() {
            self.rotation.wanting.push(index);
        }
        if let Some((connection, wait_for)) = source.take_interest()
            && let Err(error) = self.reactor.register(connection, index, wait_for)
        {
            // A socket that cannot be polled is this session's trouble, and no other's.
            source.fail(error.into());
            self.rotation.ready.push_back(index);
        }
        let ended_at = Instant::now();
        let took = ended_at.saturating_duration_since(self.clock.turn_began_at);
        (self.clock.turn_began_at, self.clock.now) = (ended_at, ended_at);
        source.metrics_mut().end_turn(took);
        self.clock.stalls.note(took);
        self.admit(index);
        self.schedule(index)
    }

    /// Waits for readiness and hands it to the sessions. `false`: the wait is over, and there is nothing.
    #[inline(never)]
    fn wait(&mut self) -> Result<bool> {
        let has_admitted = self.admit_next();
        let timeout = match self.wait.timeout {
            // Somebody wants us back; but not before all that is there has been taken.
            _ if self.wait.is_woken => Some(Duration::ZERO),
            Some(timeout) if !timeout.is_zero() => {
                let at = *self.wait.until.get_or_insert_with(|| Instant::now() + bounded(timeout));
                Some(at.saturating_duration_since(Instant::now()))
            }
            None if self.is_deserted() => return Ok(false),
            timeout => timeout,
        };
        let may_wait = timeout.is_none_or(|timeout| !timeout.is_zero());
        if may_wait && self.spin.is_on() && !has_admitted && self.spin_on(timeout)? {
            return Ok(true);
        }
        // Between two that begin to connect, what the others wait for is polled for.
        let has_found =
            self.poll_readiness(if has_admitted { Some(Duration::ZERO) } else { timeout })? || has_admitted;
        if may_wait {
            return Ok(true);
        }
        self.wait.polls += if has_admitted { POLLS_PER_CONNECT } else { 1 };
        if has_found && self.wait.polls < POLLS_MAX {
            return Ok(true);
        }
        self.wait.is_woken = false;
        if has_found {
            self.nudge()?;
            // It begins with the next call.
            self.rotation.ready.extend(self.rotation.turn.take());
        }
        Ok(false)
    }

    /// Polls without sleeping as long as that is worth it; `true` when that brought something.
    #[cold]
    fn spin_on(&mut self, timeout: Option<Duration>) -> Result<bool> {
        let began_at = Instant::now();
        self.clock.now = began_at;
        let until = self.spin.begin(began_at);
        let until = timeout.map_or(until, |timeout| until.min(began_at + timeout));
        let mut has_found = false;
        while !has_found && self.clock.now < until {
            has_found = self.poll_readiness(Some(Duration::ZERO))?;
        }
        self.spin.spent(self.clock.now.saturating_duration_since(began_at));
        Ok(has_found)
    }

    /// Takes what is ready and gives each such session a turn; `false` when there was nothing at all.
    #[inline(always)]
    fn poll_readiness(&mut self, timeout: Option<Duration>) -> Result<bool> {
        let (mut has_found, mut is_timer_due, mut is_waker_due, mut is_clock_set) =
            (false, false, false, false);
        let timeout = if self.rotation.wanting.is_empty() { timeout } else { Some(Duration::ZERO) };
        for ready in self.reactor.poll(timeout)? {
            has_found = true;
            match ready {
                Ready::Timer => is_timer_due = true,
                Ready::Waker => is_waker_due = true,
                Ready::Clock => is_clock_set = true,
                Ready::Socket(index) => {
                    if let Some(source) = self.slots.get_mut(index).and_then(|slot| slot.source.as_mut()) {
                        source.on_ready();
                        self.rotation.line_up(index);
                    }
                }
            }
        }
        if !self.rotation.wanting.is_empty() {
            self.line_up_wanting();
        }
        let now = Instant::now();
        (self.clock.now, self.clock.polled_at) = (now, now);
        if is_timer_due {
            // Before the turns begin, whose time is counted for itself.
            self.clock.stalls.note(self.timers.lateness(now, self.clock.turn_began_at));
        }
        self.clock.turn_began_at = now;
        if self.spin.is_on() && self.rotation.turn.is_some() {
            self.spin.arrived(now);
        }
        if is_timer_due {
            self.fire_timers()?;
        }
        if is_waker_due {
            self.on_wakeup();
        }
        if is_clock_set {
            self.on_clock_set()?;
        }
        Ok(has_found || self.rotation.turn.is_some())
    }

    #[cold]
    fn line_up_wanting(&mut self) {
        // What they stood in is kept: no room is made while notifications come.
        let mut wanting = std::mem::take(&mut self.rotation.wanting);
        for index in wanting.drain(..) {
            if let Some(source) = &mut self.slots[index].source {
                source.on_wanted_turn();
                // The poller may have told of it all the same, or it may have had two turns.
                if !self.rotation.has_turn_coming(index) {
                    self.rotation.line_up(index);
                }
            }
        }
        self.rotation.wanting = wanting;
    }

    #[cold]
    fn on_wakeup(&mut self) {
        self.wait.is_nudged = false;
        self.wait.is_woken |= self.reactor.waker().take();
        while let Some((session, answer)) = self.background.next() {
            let Ok(index) = self.index(session) else { continue };
            if let Some(source) = &mut self.slots[index].source {
                source.on_answer(answer, self.clock.now);
                self.rotation.ready.push_back(index);
            }
        }
    }

    #[cold]
    fn fire_timers(&mut self) -> Result<()> {
        while let Some(index) = self.timers.take_due(self.clock.now) {
            self.slots[index].timer = None;
            self.on_deadline(index);
        }
        self.timers.has_fired();
        self.set_timer()
    }

    /// A session's deadline may have come. When that means to connect, it has to wait for its admission.
    #[cold]
    fn on_deadline(&mut self, index: usize) {
        let Some(source) = &mut self.slots[index].source else { return };
        // A timer that was set before may fire too early: then its turn sets the right one.
        if source.is_waiting() && source.deadline().is_some_and(|deadline| deadline <= self.clock.now) {
            return self.admission.wait(index);
        }
        source.on_deadline(self.clock.now);
        self.rotation.ready.push_back(index);
        self.admit(index);
    }

    /// Keeps count of the sessions on their way to a connection.
    #[inline(always)]
    fn admit(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let is_connecting = slot.source.as_ref().is_some_and(|source| source.is_connecting());
        let was_connecting = std::mem::replace(&mut slot.is_connecting, is_connecting);
        if was_connecting != is_connecting {
            self.admission.count(is_connecting);
        }
    }

    /// Lets a session that waits for it begin to connect, if there is room; `true` when one did. One at a
    /// time: to begin takes libpq a good part of a millisecond, and the others must not wait for fifty.
    #[inline(always)]
    fn admit_next(&mut self) -> bool {
        let Some(index) = self.admission.next() else { return false };
        if let Some(source) = &mut self.slots[index].source {
            source.on_deadline(Instant::now());
            self.rotation.ready.push_back(index);
            self.admit(index);
        }
        true
    }

    /// Sees to it that the timer fires no later than the session's deadline. It may fire earlier: a deadline
    /// that moves away with each notification costs nothing then.
    #[inline(always)]
    fn schedule(&mut self, index: usize) -> Result<()> {
        let slot = &mut self.slots[index];
        let Some(deadline) = slot.source.as_ref().and_then(|source| source.deadline()) else {
            return Ok(());
        };
        if slot.timer.is_none_or(|timer| deadline < timer) {
            let slack = slot.source.as_ref().map_or(Duration::ZERO, |source| source.slack());
            slot.timer = Some(self.timers.enter(index, slot.timer, deadline, slack));
            self.set_timer()?;
        }
        Ok(())
    }

    #[cold]
    fn set_timer(&mut self) -> Result<()> {
        if let Some(first) = self.timers.take_setting() {
            self.reactor.set_timer(first.map(|at| at.saturating_duration_since(Instant::now())))?;
        }
        Ok(())
    }

    /// Whether no session can report anything ever again, and nobody else can wake us.
    fn is_deserted(&self) -> bool {
        self.rotation.wanting.is_empty()
            && self.slots.iter().all(|slot| slot.source.as_ref().is_none_or(|source| source.has_failed()))
            && !self.reactor.waker().is_shared()
    }

    fn nudge(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.wait.is_nudged, true) {
            self.reactor.nudge().nudge()?;
        }
        Ok(())
    }
}

/// The descriptor to watch for reading in a loop of one's own; the same for the loop's whole life.
impl AsRawFd for EventLoop {
    fn as_raw_fd(&self) -> RawFd {
        self.reactor.as_raw_fd()
    }
}

impl AsFd for EventLoop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        sys::borrow(&self.reactor)
    }
}

#[cold]
fn forked() -> Error {
    let message = "this loop was made before a fork: only the parent may use it, make one in the child";
    Error::new(ErrorKind::Forked, message)
}
