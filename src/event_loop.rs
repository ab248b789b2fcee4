//! One turn after the other: what is decoded is returned, what was asked for is sent, due timers fire,
//! readiness is harvested, and ready sessions are drained in rotation. Alone reads the clock.
//!
//! A session consumes once (some 16 KB) for each time that it was found ready, so none keeps the others
//! waiting; what it leaves in its socket is found by the next harvest.

mod commands;
mod spin;
mod timing;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Notification};
use crate::options::{EventLoopOptions, bounded};
use crate::pq::Notify;
use crate::reactor::{Reactor, Ready};
use crate::session::Background;
use crate::source::channels::ChannelSource;
use crate::source::{Pull, Report};
use crate::sys;
use spin::Spin;
use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// How often a call looks for more when its time is over: readiness that never brings an event must not keep
/// it. Before it gives up, it makes the descriptor readable.
const POLLS_MAX: u32 = 64;
/// To begin a connection takes as long as some looks.
const POLLS_PER_CONNECT: u32 = 16;

/// Bits of a [`SessionId`] that are the place in the table; the others count how often the place was used
/// before.
const INDEX_BITS: u32 = 16;

/// Ids stay below 2^31, so that they are positive in C. A place that was used that often is not used again.
const GENERATION_MAX: u32 = (1 << (31 - INDEX_BITS)) - 1;

/// There is no such place in the table of sessions.
const NO_STREAM: usize = usize::MAX;

/// How far one call of `next` has come with its wait.
#[derive(Debug, Default)]
struct Wait {
    until: Option<Instant>,
    /// How often it has looked for more when its time was over.
    polls: u32,
}

/// A place in the table of sessions.
#[derive(Debug)]
struct Slot {
    generation: u32,
    source: Option<Box<ChannelSource>>,
    /// The entry of this session in the table of timers; never later than its deadline.
    timer: Option<Instant>,
    /// It is counted among those that are on their way to a connection.
    is_connecting: bool,
}

/// What the last call of `next` gave out, if not a notification. It stays here while the event borrows from
/// it.
#[derive(Debug)]
enum Taken {
    Nothing,
    Change { index: usize },
    Report { report: Box<Report>, index: usize },
}

/// The loop: sessions in, events out. See the [crate's page](crate) for a picture.
#[derive(Debug)]
pub struct EventLoop {
    /// The process it belongs to, as `sys::watch_forks` has it.
    forks: u32,
    /// What the last call of `next` gave out; the event borrows from it.
    notification: Option<Notify>,
    /// What the call of `next` that goes on waits at most. Kept here, it takes no register from the way of
    /// a notification.
    timeout: Option<Duration>,
    /// The session that has the turn, while all it gives are notifications: it gave one, and nothing else has
    /// happened since.
    stream: usize,
    taken: Taken,
    /// The session whose turn it is.
    turn: Option<usize>,
    /// Since when it has it: since the harvest, or the end of the last turn.
    turn_began_at: Instant,
    /// No notification has come out of this turn yet.
    is_turn_fresh: bool,
    /// The time of the last harvest.
    harvested_at: Instant,
    /// The time as far as it was looked at since.
    now: Instant,
    /// From here on the times are counted at which heartbeats are taken together.
    began_at: Instant,
    slots: Vec<Slot>,
    ready: VecDeque<usize>,
    /// Sessions that want a turn after the next harvest although no poller will tell of them.
    held: Vec<usize>,
    reactor: Reactor,
    background: Background,
    /// How many sessions are on their way to a connection, and who waits until it is fewer.
    connecting: usize,
    waiting_to_connect: VecDeque<usize>,
    timers: BTreeSet<(Instant, usize)>,
    timer_set_to: Option<Instant>,
    /// The descriptor was made readable for the host, and not harvested since.
    is_nudged: bool,
    /// Somebody called [`Waker::wake`](crate::Waker::wake), and no wait has ended for it yet.
    is_woken: bool,
    spin: Spin,
    /// Since when the wait has lasted that is going on.
    waiting_since: Instant,
    stall_warning: Duration,
    stalls: u64,
    longest_stall: Duration,
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
            notification: None,
            timeout: None,
            stream: NO_STREAM,
            taken: Taken::Nothing,
            turn: None,
            turn_began_at: now,
            is_turn_fresh: false,
            harvested_at: now,
            now,
            began_at: now,
            slots: Vec::new(),
            ready: VecDeque::new(),
            held: Vec::new(),
            background: Background::new(reactor.nudge().clone()),
            reactor,
            connecting: 0,
            waiting_to_connect: VecDeque::new(),
            timers: BTreeSet::new(),
            timer_set_to: None,
            is_nudged: false,
            is_woken: false,
            spin: Spin::new(options.spin, options.spin_adaptive, now),
            waiting_since: now,
            stall_warning: options.stall_warning,
            stalls: 0,
            longest_stall: Duration::ZERO,
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
        if self.forks != sys::forks() {
            return Err(forked());
        }
        self.timeout = timeout;
        match self.take_of_stream() {
            Some((index, notify)) => Ok(self.lend(index, notify, 0).map(Event::Notification)),
            None => self.next_of_any(),
        }
    }

    /// The first half of [`next`](Self::next), for a caller that makes a flat event of it with none of Rust's
    /// in between: `next_of_any` is the other half. That the loop is not forked is for that caller to know.
    #[cfg(feature = "capi")]
    #[inline]
    pub(crate) fn next_of_stream(&mut self, timeout: Option<Duration>) -> Option<Notification<'_>> {
        self.timeout = timeout;
        let (index, notify) = self.take_of_stream()?;
        self.lend(index, notify, 0)
    }

    #[inline(always)]
    fn take_of_stream(&mut self) -> Option<(usize, Notify)> {
        self.notification = None;
        let index = self.stream;
        let source = self.slots.get_mut(index)?.source.as_deref_mut()?;
        let notify = source.next_notification();
        if notify.is_none() {
            self.stream = NO_STREAM;
        }
        Some((index, notify?))
    }

    /// Works until there is something for the caller.
    #[inline(never)]
    pub(crate) fn next_of_any(&mut self) -> Result<Option<Event<'_>>> {
        (self.stream, self.taken) = (NO_STREAM, Taken::Nothing);
        if self.turn.is_none() && !self.ready.is_empty() {
            // Commands gave these sessions a turn, and nobody waited for it before now.
            self.now = Instant::now();
            (self.harvested_at, self.turn_began_at) = (self.now, self.now);
        }
        let mut progress = Wait::default();
        loop {
            while let Some(index) = self.turn {
                let Some(source) = &mut self.slots[index].source else {
                    self.turn = None;
                    continue;
                };
                match source.pull(self.now) {
                    Pull::Notification { notify, folded } => {
                        self.stream = if source.may_stream() { index } else { NO_STREAM };
                        source.count_bytes(&notify);
                        if std::mem::take(&mut self.is_turn_fresh) {
                            self.note_delivery(index);
                        }
                        return Ok(self.lend(index, notify, folded).map(Event::Notification));
                    }
                    Pull::Change => self.taken = Taken::Change { index },
                    Pull::Report(report) => self.taken = Taken::Report { report, index },
                    Pull::Idle => {
                        self.end_turn(index)?;
                        continue;
                    }
                }
                return Ok(self.rarer_event());
            }
            self.turn = self.ready.pop_front();
            self.is_turn_fresh = true;
            if self.turn.is_none() && !self.wait(&mut progress)? {
                return Ok(None);
            }
        }
    }

    /// A notification as the caller sees it. There is one: who gave it has its place.
    #[inline(always)]
    fn lend(&mut self, index: usize, notify: Notify, folded: u64) -> Option<Notification<'_>> {
        let notify = self.notification.insert(notify);
        let (channel, payload, pid) = (notify.channel_text(), notify.payload_text(), notify.pid());
        let source = self.slots[index].source.as_deref_mut()?;
        source.metrics.notifications += 1;
        source.metrics.folded += folded;
        let (session, db, own) = (source.id(), source.db(), source.is_own(pid));
        Some(Notification { session, db, channel, payload, pid, own, folded })
    }

    /// What was taken, for the caller.
    #[cold]
    fn rarer_event(&mut self) -> Option<Event<'_>> {
        match &self.taken {
            Taken::Nothing => None,
            Taken::Change { index } => self.slots[*index].source.as_mut()?.change().map(Event::Change),
            Taken::Report { report, index } => {
                let source = self.slots[*index].source.as_mut()?;
                report.count_into(&mut source.metrics);
                Some(report.as_event(source.id(), source.db(), Instant::now()))
            }
        }
    }

    /// A session has come to rest, or used up its rounds: see to what it waits for.
    #[inline(never)]
    fn end_turn(&mut self, index: usize) -> Result<()> {
        self.turn = None;
        let Some(source) = &mut self.slots[index].source else { return Ok(()) };
        let wants_turn = source.end_turn();
        let session = source.session();
        if session.holds_more() || wants_turn {
            self.held.push(index);
        }
        if let Some((connection, wait_for)) = session.take_watch()
            && let Err(error) = self.reactor.watch(connection, index, wait_for)
        {
            // A socket that cannot be watched is this session's trouble, and no other's.
            session.fail(error.into());
            self.ready.push_back(index);
        }
        self.note_turn(index);
        self.admit(index);
        self.schedule(index)
    }

    /// Waits for readiness and hands it to the sessions. `false`: the wait is over, and there is nothing.
    #[inline(never)]
    fn wait(&mut self, progress: &mut Wait) -> Result<bool> {
        let has_let_in = self.let_in();
        let timeout = match self.timeout {
            // Somebody wants us back; but not before all that is there has been taken.
            _ if self.is_woken => Some(Duration::ZERO),
            Some(timeout) if !timeout.is_zero() => {
                let at = *progress.until.get_or_insert_with(|| Instant::now() + bounded(timeout));
                Some(at.saturating_duration_since(Instant::now()))
            }
            None if self.is_deserted() => return Ok(false),
            timeout => timeout,
        };
        let may_wait = timeout.is_none_or(|timeout| !timeout.is_zero());
        if may_wait && self.spin.is_on() && !has_let_in && self.spin_on(timeout)? {
            return Ok(true);
        }
        // Between two that begin to connect, what the others wait for is looked at.
        let has_found = self.harvest(if has_let_in { Some(Duration::ZERO) } else { timeout })? || has_let_in;
        if may_wait {
            return Ok(true);
        }
        progress.polls += if has_let_in { POLLS_PER_CONNECT } else { 1 };
        if has_found && progress.polls < POLLS_MAX {
            return Ok(true);
        }
        self.is_woken = false;
        if has_found {
            self.nudge()?;
            // It begins with the next call.
            self.ready.extend(self.turn.take());
        }
        Ok(false)
    }

    /// Polls without sleeping as long as that is worth it; `true` when that brought something.
    #[cold]
    fn spin_on(&mut self, timeout: Option<Duration>) -> Result<bool> {
        let began_at = Instant::now();
        (self.now, self.waiting_since) = (began_at, began_at);
        let until = self.spin.until(began_at);
        let until = timeout.map_or(until, |timeout| until.min(began_at + timeout));
        let mut has_found = false;
        while !has_found && self.now < until {
            has_found = self.harvest(Some(Duration::ZERO))?;
        }
        self.spin.spent(self.now.saturating_duration_since(began_at));
        Ok(has_found)
    }

    /// Takes what is ready and gives each such session a turn; `false` when there was nothing at all.
    #[inline(always)]
    fn harvest(&mut self, timeout: Option<Duration>) -> Result<bool> {
        let (mut has_found, mut is_timer_due, mut is_waker_due) = (false, false, false);
        let timeout = if self.held.is_empty() { timeout } else { Some(Duration::ZERO) };
        for ready in self.reactor.harvest(timeout)? {
            has_found = true;
            match ready {
                Ready::Timer => is_timer_due = true,
                Ready::Waker => is_waker_due = true,
                Ready::Socket(index) => {
                    if let Some(source) = self.slots.get_mut(index).and_then(|slot| slot.source.as_mut()) {
                        source.session().set_ready();
                        line_up(&mut self.turn, &mut self.ready, index);
                    }
                }
            }
        }
        if !self.held.is_empty() {
            self.line_up_held();
        }
        self.now = Instant::now();
        self.harvested_at = self.now;
        if is_timer_due {
            // Before the turns begin, whose time is counted for itself.
            self.note_lateness();
        }
        self.turn_began_at = self.now;
        if self.spin.is_on() && self.turn.is_some() {
            self.spin.arrived(self.waiting_since, self.now);
        }
        if is_timer_due {
            self.fire_timers()?;
        }
        if is_waker_due {
            self.come_to_waker();
        }
        Ok(has_found || self.turn.is_some())
    }

    #[cold]
    fn line_up_held(&mut self) {
        for index in self.held.drain(..) {
            if let Some(source) = &mut self.slots[index].source {
                source.session().set_held();
                line_up(&mut self.turn, &mut self.ready, index);
            }
        }
    }

    #[cold]
    fn come_to_waker(&mut self) {
        self.is_nudged = false;
        self.is_woken |= self.reactor.waker().take();
        self.take_answers();
    }

    /// Whether no session can report anything ever again, and nobody else can wake us.
    fn is_deserted(&self) -> bool {
        self.slots.iter().all(|slot| slot.source.as_ref().is_none_or(|source| source.has_failed()))
            && !self.reactor.waker().is_shared()
    }

    fn nudge(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.is_nudged, true) {
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

#[cold]
fn forked() -> Error {
    let message = "this loop was made before a fork: only the parent may use it, make one in the child";
    Error::new(ErrorKind::Forked, message)
}

/// Gives a session the next turn that is free.
#[inline(always)]
fn line_up(turn: &mut Option<usize>, ready: &mut VecDeque<usize>, index: usize) {
    match turn {
        None => *turn = Some(index),
        Some(_) => ready.push_back(index),
    }
}
