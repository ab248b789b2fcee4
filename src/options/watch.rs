//! What is watched, and how: tables and DDL.

use super::bounded;
use crate::event::{ChangeOp, Channel, DdlPhase, Transport};
use std::time::Duration;

/// How often a reader looks by itself, whether it was woken or not.
const FALLBACK_POLL_DEFAULT: Duration = Duration::from_secs(5);

/// What a change has of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangePayload {
    /// Nothing: that a statement changed the table. Such statements are counted.
    Wake,
    /// The key.
    Key,
    /// The key, and what an update changed.
    Changed,
    /// The whole row, as it was and as it is.
    Row,
}

impl ChangePayload {
    /// The word used in SQL and in C.
    pub fn as_str(&self) -> &'static str {
        match self {
            ChangePayload::Wake => "wake",
            ChangePayload::Key => "key",
            ChangePayload::Changed => "changed",
            ChangePayload::Row => "row",
        }
    }
}

/// Which tables a session watches, and how.
///
/// A table that is not watched yet is watched from then on, as `ops`, `payload`, `transport`, `columns` and
/// `before` say. One that is watched already stays as it is: what was not said follows it, and what was said
/// must be so already, or the watch is refused (55000). [`CommandFailed`](crate::CommandFailed) reports this,
/// and a table that somebody unwatches or drops later, within about ten seconds. The session does not undo
/// that; it goes on when the table, or another of its name, is watched again. The schema `pgwake` must be
/// there: the command `pgwake install` puts it in, as does [`install::install`](crate::install::install).
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct WatchOptions {
    pub(crate) tables: Vec<String>,
    pub(crate) consumer: Option<String>,
    pub(crate) from_start: bool,
    pub(crate) only_watched: bool,
    pub(crate) ops: Vec<ChangeOp>,
    pub(crate) payload: Option<ChangePayload>,
    pub(crate) transport: Option<Transport>,
    pub(crate) columns: Vec<String>,
    pub(crate) before: Option<bool>,
    pub(crate) fallback_poll: Option<Duration>,
    pub(crate) manual_ack: bool,
}

impl WatchOptions {
    /// No table yet; a consumer without a name of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches this table, too: a name as SQL takes it, `orders`, `sales.orders` or `"Orders"`.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.tables.push(table.into());
        self
    }

    /// Reads under a name for which the database keeps the position, so that nothing is missed between two
    /// runs: at least once. Without one the server gives a name, under which the session comes back after an
    /// outage; the server forgets it three minutes after the session. One session at a time reads under a
    /// name. A name that is not used any more keeps the outbox from being emptied: forget it with `SELECT
    /// pgwake.drop_consumer(name)`.
    pub fn consumer(mut self, name: impl Into<String>) -> Self {
        self.consumer = Some(name.into());
        self
    }

    /// A consumer that is new begins with the oldest change that is still there, not with the next one.
    pub fn from_start(mut self, from_start: bool) -> Self {
        self.from_start = from_start;
        self
    }

    /// Refuses tables that are not watched already, instead of making triggers.
    pub fn only_watched(mut self, only_watched: bool) -> Self {
        self.only_watched = only_watched;
        self
    }

    /// Which operations a table is watched for. All, where nothing was said before.
    pub fn ops(mut self, ops: impl IntoIterator<Item = ChangeOp>) -> Self {
        self.ops = ops.into_iter().collect();
        self
    }

    /// What the changes of a table have of their rows. [`ChangePayload::Key`], where nothing was said before.
    pub fn payload(mut self, payload: ChangePayload) -> Self {
        self.payload = Some(payload);
        self
    }

    /// How the changes of a table come. By [`Transport::Outbox`], where nothing was said before.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Which columns the changes of a table have. All, where nothing was said before.
    pub fn columns<C: Into<String>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        self.columns = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Takes a change before it is made, as the other BEFORE triggers leave the row: the event of a DELETE
    /// comes before those of the rows that it cascades to. After the change, where nothing was said before.
    /// It comes with the commit in either case.
    pub fn before(mut self, before: bool) -> Self {
        self.before = Some(before);
        self
    }

    /// How often the outbox is read without a wake-up: for commits whose leader failed or hangs, and for a
    /// full notification queue. Zero: never. 5 s unless said otherwise. Where transactions may be prepared
    /// nothing wakes the session, and it reads about every 100 ms in any case.
    pub fn fallback_poll(mut self, every: Duration) -> Self {
        self.fallback_poll = Some(bounded(every));
        self
    }

    /// Acknowledges changes by [`EventLoop::ack`](crate::EventLoop::ack) alone. Otherwise a change is done
    /// with when the next event is asked for, and the database hears of it about once a second. A gap in the
    /// outbox is done with then in either case, once no change before it waits.
    pub fn manual_ack(mut self, manual_ack: bool) -> Self {
        self.manual_ack = manual_ack;
        self
    }

    pub(crate) fn fallback(&self) -> Duration {
        self.fallback_poll.unwrap_or(FALLBACK_POLL_DEFAULT)
    }
}

/// Which DDL commands are delivered to a session.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct DdlOptions {
    pub(crate) tags: Vec<String>,
    pub(crate) temp: bool,
    pub(crate) nested: bool,
    phases: Vec<DdlPhase>,
}

impl DdlOptions {
    /// The channel on which the database notifies such commands. Sessions that ask for the same share it.
    pub fn channel(&self) -> Channel {
        let DdlOptions { tags, temp, nested, .. } = self;
        let phases = match self.phases().as_slice() {
            [DdlPhase::After] => "",
            [DdlPhase::Before] => "before alone ",
            _ => "before ",
        };
        if tags.is_empty() && !temp && !nested && phases.is_empty() {
            return Channel::of_name("pgwake_ddl");
        }
        // FNV-1a: the same in every version of ours.
        let text = format!("{phases}{temp} {nested} {}", tags.join(","));
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Channel::of_name(&format!("pgwake_ddl_{hash:016x}"))
    }

    /// All commands that clients send, but those on temporary objects.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only commands with these tags, such as `DROP TABLE`. The tag `login` must be asked for (PostgreSQL 17
    /// and later).
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Also commands on temporary objects.
    pub fn temp(mut self, temp: bool) -> Self {
        self.temp = temp;
        self
    }

    /// Also what functions, triggers and extensions run.
    pub fn nested(mut self, nested: bool) -> Self {
        self.nested = nested;
        self
    }

    /// The events of this phase; with another call, those of that one, too. Those after a command, where
    /// nothing was said. Before a command, an event has the targets that it is about to drop: all that go
    /// with a DROP, or an ALTER that does nothing but drop; and with the server extension `pgwake_ddl`, what
    /// any other command names. All events come with the commit: to act before a drop, register a handler
    /// with `pgwake.before_drop`.
    pub fn phase(mut self, phase: DdlPhase) -> Self {
        if !self.phases.contains(&phase) {
            self.phases.push(phase);
        }
        self
    }

    /// In their order, without what was said twice.
    pub(crate) fn phases(&self) -> Vec<DdlPhase> {
        let mut phases = self.phases.clone();
        if phases.is_empty() {
            phases.push(DdlPhase::After);
        }
        phases.sort_by_key(|phase| *phase == DdlPhase::After);
        phases
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_of_ddl_has_a_channel_of_its_own() {
        let name = |options: &DdlOptions| options.channel().to_string();
        assert_eq!(name(&DdlOptions::new()), "pgwake_ddl");
        let dropped = DdlOptions::new().tags(["DROP TABLE"]);
        assert_eq!(name(&dropped), name(&dropped.clone()));
        assert_ne!(name(&dropped), name(&dropped.clone().temp(true)));
        assert_ne!(name(&dropped.clone().nested(true)), name(&dropped.clone().temp(true)));
        let before = DdlOptions::new().phase(DdlPhase::Before);
        let both = before.clone().phase(DdlPhase::After);
        assert_eq!(name(&DdlOptions::new().phase(DdlPhase::After)), name(&DdlOptions::new()));
        assert_eq!(name(&both), name(&both.clone().phase(DdlPhase::Before)));
        assert_eq!(both.phases(), DdlOptions::new().phase(DdlPhase::After).phase(DdlPhase::Before).phases());
        assert_ne!(name(&before), name(&DdlOptions::new()));
        assert_ne!(name(&before), name(&both));
        assert_ne!(name(&dropped.clone().phase(DdlPhase::Before)), name(&dropped));
        assert!(name(&dropped).len() <= crate::event::CHANNEL_BYTES_MAX);
    }
}
