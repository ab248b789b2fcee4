//! What the caller asks of a loop: sessions, channels, notifications, watches. Most of it is queued, and sent
//! on the next turn.

use super::{EventLoop, NO_SESSION, NOTHING, Slot};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Channel, SessionId, TaskId};
use crate::metrics::Metrics;
use crate::options::{DdlOptions, PollOptions, SessionOptions, StreamOptions, WatchOptions};
use crate::pq::Conninfo;
use crate::reactor::Waker;
use crate::session::{Background, BackgroundJobs};
use crate::source::{Source, SqlSource, StreamSource};
use std::time::{Instant, SystemTime};

/// Bits of a [`SessionId`] that are the place in the table; the others count how often the place was used
/// before.
const INDEX_BITS: u32 = 16;

/// Ids stay below 2^31, so that they are positive in C. A place that was used that often is not used again.
const GENERATION_MAX: u32 = (1 << (31 - INDEX_BITS)) - 1;

impl EventLoop {
    /// Adds a session. `conninfo` is what libpq takes: `key=value` pairs or a URI; the environment fills in
    /// the rest.
    ///
    /// Returns at once: what becomes of it comes as [`Event::Listening`](crate::Event::Listening) or
    /// [`Event::Disconnected`](crate::Event::Disconnected). An error is one of the settings: of the conninfo
    /// itself, or of the environment and the service file.
    pub fn connect(&mut self, conninfo: &str) -> Result<SessionId> {
        self.connect_with(conninfo, SessionOptions::default())
    }

    /// Adds a session that works as `options` say.
    pub fn connect_with(&mut self, conninfo: &str, options: SessionOptions) -> Result<SessionId> {
        let conninfo = Conninfo::parse(conninfo)?;
        conninfo.check()?;
        self.add(|id, jobs, now| Ok(Source::Sql(Box::new(SqlSource::new(id, conninfo, &options, jobs, now)))))
    }

    /// Adds a connection that streams row changes from the write-ahead log, as `options` say: each comes as
    /// an [`Event::Change`](crate::Event::Change), after the commit and at no cost for the writers. The
    /// server needs `wal_level = logical`, and the role REPLICATION.
    /// [`Event::Listening`](crate::Event::Listening), without channels, says when it streams;
    /// [`Event::Failed`](crate::Event::Failed) what has to be done before it can.
    ///
    /// ```no_run
    /// use pgwake::{Event, EventLoop, StreamOptions};
    ///
    /// let mut events = EventLoop::new()?;
    /// events.stream("dbname=app", StreamOptions::new().table("orders"))?;
    /// while let Some(event) = events.next(None)? {
    ///     if let Event::Change(change) = event {
    ///         println!("{} {} {:?}", change.op.as_str(), change.table, change.new);
    ///     }
    /// }
    /// # Ok::<(), pgwake::Error>(())
    /// ```
    pub fn stream(&mut self, conninfo: &str, options: StreamOptions) -> Result<SessionId> {
        let conninfo = Conninfo::parse(conninfo)?;
        conninfo.check()?;
        self.add(|id, jobs, now| {
            Ok(Source::Stream(Box::new(StreamSource::new(id, conninfo, options, jobs, now)?)))
        })
    }

    /// Adds a connection that takes durable messages of these channels from the write-ahead log: each comes
    /// as an [`Event::Message`](crate::Event::Message) after the commit of the transaction that
    /// [published](Self::publish) it, at least once. With a [slot](StreamOptions::slot) the server keeps them
    /// from when that is made, also while nobody reads; without one they are kept for as long as the
    /// connection lasts.
    ///
    /// Names are exact, as for [`listen`](Self::listen). A publication without tables, `pgwake_messages`, is
    /// made when it is missing. For all channels, or for tables and channels over one slot, take
    /// [`stream`](Self::stream) with [`StreamOptions::messages`] or [`StreamOptions::channel`].
    ///
    /// ```no_run
    /// use pgwake::{Event, EventLoop, StreamOptions};
    ///
    /// let mut events = EventLoop::new()?;
    /// let billing = StreamOptions::new().slot("billing").create_slot(true);
    /// events.subscribe("dbname=app", ["invoices"], billing)?;
    /// while let Some(event) = events.next(None)? {
    ///     if let Event::Message(message) = event {
    ///         println!("{} {:?}", message.channel, message.payload);
    ///     }
    /// }
    /// # Ok::<(), pgwake::Error>(())
    /// ```
    pub fn subscribe<C: AsRef<[u8]>>(
        &mut self,
        conninfo: &str,
        channels: impl IntoIterator<Item = C>,
        mut options: StreamOptions,
    ) -> Result<SessionId> {
        for channel in channels {
            options = options.channel(Channel::new(channel)?);
        }
        if options.channels.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "nothing is subscribed to: name a channel"));
        }
        self.stream(conninfo, options)
    }

    fn add(
        &mut self,
        source: impl FnOnce(SessionId, BackgroundJobs, Instant) -> Result<Source>,
    ) -> Result<SessionId> {
        let (_, id) = self.place(|id, background| source(id, background.jobs(id), Instant::now()))?;
        Ok(id)
    }

    /// Gives a source the first place that is free.
    pub(super) fn place(
        &mut self,
        source: impl FnOnce(SessionId, &Background) -> Result<Source>,
    ) -> Result<(usize, SessionId)> {
        let free = self.slots.iter().position(|s| s.source.is_none() && s.generation < GENERATION_MAX);
        let index = free.unwrap_or(self.slots.len());
        if index >> INDEX_BITS != 0 {
            return Err(Error::new(ErrorKind::System, "a loop holds at most 65536 sessions"));
        }
        let generation = self.slots.get(index).map_or(0, |slot| slot.generation + 1);
        let id = SessionId(index as u32 | generation << INDEX_BITS);
        let source = Some(source(id, &self.background)?);
        let slot = Slot { generation, source, timer: None, is_connecting: false };
        match self.slots.get_mut(index) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
        // Room for everybody to be ready, wanting and due at once: none is made while notifications come.
        self.rotation.ready.reserve(3 * self.slots.len());
        self.rotation.wanting.reserve(self.slots.len());
        self.schedule(index)?;
        Ok((index, id))
    }

    /// Ends a session and closes its connection. What it had queued is dropped, and no event of it comes any
    /// more. That of a stream which has acknowledged something waits, a second at most, until the server
    /// knows.
    pub fn disconnect(&mut self, session: SessionId) -> Result<()> {
        let index = self.index(session)?;
        self.at_hand = NOTHING;
        self.rotation.turn = self.rotation.turn.filter(|turn| *turn != index);
        let slot = &mut self.slots[index];
        slot.source = None;
        if let Some(timer) = slot.timer.take() {
            self.timers.remove(index, timer);
        }
        self.admit(index);
        // Another session may have its turn to connect now.
        self.nudge()
    }

    /// Listens on a channel from now on, also after every reconnect. The name is taken as it is: never folded
    /// to lower case, any bytes but NUL. [`Event::Listening`](crate::Event::Listening) says when the server
    /// has confirmed it. Time-outs of the role or the database that would end an idle session are off for
    /// this one from then on.
    pub fn listen(&mut self, session: SessionId, channel: impl AsRef<[u8]>) -> Result<()> {
        let channel = Channel::new(channel)?;
        let index = self.index(session)?;
        self.sql(index)?.listen(channel)?;
        self.enqueue(index)
    }

    /// Stops listening on a channel. Notifications that are on their way still come.
    pub fn unlisten(&mut self, session: SessionId, channel: impl AsRef<[u8]>) -> Result<()> {
        let channel = Channel::new(channel)?;
        let index = self.index(session)?;
        self.sql(index)?.unlisten(channel)?;
        self.enqueue(index)
    }

    /// Queues a notification, to be sent by [`next`](Self::next) in a transaction of its own once the session
    /// is connected. [`Event::Sent`](crate::Event::Sent) says when all that was queued is committed,
    /// [`Event::CommandFailed`](crate::Event::CommandFailed) what was not. A payload has up to 7999 bytes in
    /// the server's encoding.
    pub fn notify(
        &mut self,
        session: SessionId,
        channel: impl AsRef<[u8]>,
        payload: impl AsRef<[u8]>,
    ) -> Result<()> {
        let channel = Channel::new(channel)?;
        let index = self.index(session)?;
        self.sql(index)?.notify(channel, payload.as_ref())?;
        self.enqueue(index)
    }

    /// Queues a durable message, to be written into the server's log in a transaction of its own, as
    /// [`notify`](Self::notify) queues a notification and with the same events. Every slot of the database
    /// that is there by then keeps it for its reader ([`subscribe`](Self::subscribe)). A payload is any
    /// bytes, up to 1,000,000,000, which come as they are. One of more than 4 MB goes over a connection of
    /// its own, which a short-lived thread makes, when all before it are answered, and before all behind it.
    ///
    /// To publish within a transaction of yours, call `pg_logical_emit_message(true, channel, payload)` in
    /// it.
    pub fn publish(
        &mut self,
        session: SessionId,
        channel: impl AsRef<[u8]>,
        payload: impl AsRef<[u8]>,
    ) -> Result<()> {
        let channel = Channel::new(channel)?;
        let index = self.index(session)?;
        self.sql(index)?.publish(channel, payload.as_ref())?;
        self.enqueue(index)
    }

    /// Watches a table: each change of a row comes as an [`Event::Change`](crate::Event::Change), from when
    /// [`Event::Listening`](crate::Event::Listening) names the channel `pgwake` on. See
    /// [`watch_with`](Self::watch_with).
    pub fn watch(&mut self, session: SessionId, table: &str) -> Result<()> {
        self.watch_with(session, WatchOptions::new().table(table))
    }

    /// Watches tables as `options` say, once for each session. The schema `pgwake` must be in the database:
    /// the command `pgwake install` puts it there. [`Event::CommandFailed`](crate::Event::CommandFailed)
    /// says what the server refuses.
    pub fn watch_with(&mut self, session: SessionId, options: WatchOptions) -> Result<()> {
        let index = self.index(session)?;
        self.sql(index)?.watch(options, Instant::now())?;
        self.enqueue(index)
    }

    /// Hears of DDL commands: each comes as an [`Event::Ddl`](crate::Event::Ddl), once for each session. The
    /// schema `pgwake` must be in the database, with the event triggers that only a superuser can make.
    pub fn watch_ddl(&mut self, session: SessionId, options: DdlOptions) -> Result<()> {
        let index = self.index(session)?;
        self.sql(index)?.watch_ddl(options, Instant::now())?;
        self.enqueue(index)
    }

    /// Runs a query again and again over a session, as `options` say: what it finds comes as
    /// [`Event::Rows`](crate::Event::Rows), and an error of it as
    /// [`Event::CommandFailed`](crate::Event::CommandFailed) once; it goes on all the same. After an outage
    /// it is run at once. A session has any number of polls, which are run one after the other.
    ///
    /// ```no_run
    /// use pgwake::{Event, EventLoop, PollOptions};
    /// use std::time::{Duration, Instant};
    ///
    /// let mut events = EventLoop::new()?;
    /// let db = events.connect("dbname=app")?;
    /// let options = PollOptions::new().wake_on("jobs").adaptive(Duration::from_secs(60));
    /// events.poll(db, "SELECT id, body FROM jobs WHERE due <= now()", options)?;
    /// while let Some(event) = events.next(None)? {
    ///     if let Event::Rows(rows) = event {
    ///         rows.iter().for_each(|row| println!("{:?} {:?}", row.get_str("id"), row.get_str("body")));
    ///     }
    /// }
    /// # Ok::<(), pgwake::Error>(())
    /// ```
    pub fn poll(&mut self, session: SessionId, sql: &str, options: PollOptions) -> Result<TaskId> {
        let index = self.index(session)?;
        let task = self.tasks.next_id()?;
        self.sql(index)?.poll(task, sql, options, Instant::now())?;
        self.enqueue(index)?;
        Ok(task)
    }

    /// Acknowledges all changes that were delivered up to the one with this number, for a session that leaves
    /// that to the caller ([`WatchOptions::manual_ack`], [`StreamOptions::manual_ack`]): they do not come
    /// again.
    ///
    /// From the outbox the number is the change's `id`, and
    /// [`Event::Acknowledged`](crate::Event::Acknowledged) says when the database has kept it. From the log
    /// it is a `commit_lsn` or `end_lsn`: all is acknowledged that was delivered of transactions whose commit
    /// does not lie behind it. The server hears of whole transactions, within a second
    /// ([`Metrics::acknowledged_lsn`](crate::Metrics::acknowledged_lsn)). What was delivered before an outage
    /// may still be named behind it; it comes again, and is to be named again then. The rows of a snapshot
    /// share one `commit_lsn`: no change comes before all of them are acknowledged. Of polls
    /// ([`PollOptions::manual_ack`](crate::PollOptions::manual_ack)) it is the `id` of their rows.
    pub fn ack(&mut self, session: SessionId, number: u64) -> Result<()> {
        let index = self.index(session)?;
        let source = self.slots[index].source.as_mut();
        source.map_or(Ok(()), |source| source.ack(number, Instant::now()))?;
        self.enqueue(index)
    }

    /// Tells the server of a stream what is acknowledged, and that we are alive, without reading on. For a
    /// caller that takes no event for a while: a server that hears nothing for `wal_sender_timeout` ends the
    /// connection. Any other session has no need of it.
    pub fn send_status(&mut self, session: SessionId) -> Result<()> {
        let index = self.index(session)?;
        if let Some(Source::Stream(source)) = &mut self.slots[index].source {
            source.send_status_now(Instant::now());
        }
        Ok(())
    }

    /// What a session has done so far. A copy: it does not change any more.
    pub fn metrics(&self, session: SessionId) -> Result<Metrics> {
        let index = self.index(session)?;
        let Some(source) = &self.slots[index].source else { return Ok(Metrics::default()) };
        let mut metrics = source.metrics().clone();
        if let Some((sent_at, round_trip)) = source.last_probe() {
            metrics.last_probe = SystemTime::now().checked_sub(sent_at.elapsed());
            metrics.probe_round_trip = Some(round_trip);
        }
        (metrics.stalls, metrics.longest_stall) = (self.clock.stalls.count, self.clock.stalls.longest);
        Ok(metrics)
    }

    /// A handle by which another thread ends a waiting [`next`](Self::next).
    pub fn waker(&self) -> Waker {
        self.reactor.waker().clone()
    }

    /// The event that was given last, as long as nothing has ended it.
    #[cfg(feature = "capi")]
    pub(crate) fn event_at_hand(&self) -> Option<crate::event::Event<'_>> {
        self.slots.get(self.at_hand.index)?.source.as_ref()?.event()
    }

    /// Gives the session a turn, and makes the descriptor readable, so that a host that watches it calls
    /// `next`.
    pub(super) fn enqueue(&mut self, index: usize) -> Result<()> {
        if !self.rotation.has_turn_coming(index) {
            self.rotation.ready.push_back(index);
        }
        self.nudge()
    }

    /// Counts the bytes of a notification that was delivered, for a caller that measures them in any case.
    #[cfg(feature = "capi")]
    #[inline]
    pub(crate) fn add_bytes(&mut self, session: SessionId, bytes: usize) {
        let index = (session.0 & ((1 << INDEX_BITS) - 1)) as usize;
        if let Some(source) = self.slots.get_mut(index).and_then(|slot| slot.source.as_mut()) {
            *source.metrics_mut().bytes.get_or_insert(0) += bytes as u64;
        }
    }

    pub(super) fn index(&self, session: SessionId) -> Result<usize> {
        let index = (session.0 & ((1 << INDEX_BITS) - 1)) as usize;
        let source = self.slots.get(index).and_then(|slot| slot.source.as_ref());
        if source.is_some_and(|source| source.session() == Some(session)) {
            return Ok(index);
        }
        let message = "no such session in this loop: it was disconnected, or is none of its own";
        Err(Error::new(ErrorKind::UnknownSession, message))
    }

    /// The session that is asked for something, which may bring forth more than notifications.
    pub(super) fn sql(&mut self, index: usize) -> Result<&mut SqlSource> {
        self.at_hand.stream = NO_SESSION;
        match self.slots[index].source.as_mut() {
            Some(source) => source.sql(),
            None => Err(Error::new(ErrorKind::UnknownSession, "the session was disconnected")),
        }
    }
}
