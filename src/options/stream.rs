//! What can be asked for of a stream of row changes from the write-ahead log.

use super::limits::{HEARTBEAT_DEFAULT, bounded};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Channel;
use std::time::Duration;

/// How much of transactions that are not committed yet is kept in memory.
const MEMORY_MAX_DEFAULT: usize = 64 << 20;
/// With less, what is read from files and written to them would be a few bytes at a time.
const MEMORY_MAX_MIN: usize = 64 << 10;
/// As long as a name is in PostgreSQL (`NAMEDATALEN`).
const SLOT_BYTES_MAX: usize = 63;

/// What becomes of a large transaction before it is committed (manual, "Streaming of Large Transactions for
/// Logical Decoding").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Streaming {
    /// The server keeps it, and sends it after its commit.
    #[default]
    Off,
    /// The server sends it while it runs. It is held back until its commit, in memory and then in a file.
    On,
    /// The server sends it while it runs, and it is delivered at once, in parts. Each part begins with
    /// [`Event::Begin`](crate::Event::Begin), which says of which transaction it is, and has no `lsn`. The
    /// changes in it have no `commit_lsn`; their `xid` is that of the transaction or of a subtransaction.
    /// They are to be forgotten if [`Event::Rollback`](crate::Event::Rollback) comes for that `xid` or for
    /// the transaction, or the connection is lost, and count once [`Event::Commit`](crate::Event::Commit)
    /// comes for the transaction.
    Early,
}

/// Whose changes come (manual, CREATE SUBSCRIPTION, `origin`), from PostgreSQL 16 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Origin {
    /// All, also those that the server itself has from another one.
    #[default]
    Any,
    /// Only what was written on the server itself.
    None,
}

/// What to stream, and how. At least a publication, a table or a channel is named.
#[derive(Debug, Clone)]
#[must_use]
pub struct StreamOptions {
    pub(crate) slot: Option<String>,
    pub(crate) create_slot: bool,
    pub(crate) temporary: bool,
    pub(crate) failover: bool,
    pub(crate) publications: Vec<String>,
    pub(crate) tables: Vec<String>,
    pub(crate) via_partition_root: bool,
    pub(crate) channels: Vec<Channel>,
    pub(crate) snapshot: bool,
    pub(crate) messages: bool,
    pub(crate) transactions: bool,
    pub(crate) streaming: Streaming,
    pub(crate) memory_max: usize,
    pub(crate) two_phase: bool,
    pub(crate) binary: bool,
    pub(crate) origin: Origin,
    pub(crate) manual_ack: bool,
    pub(crate) heartbeat: Duration,
}

impl Default for StreamOptions {
    fn default() -> Self {
        StreamOptions {
            slot: None,
            create_slot: false,
            temporary: false,
            failover: false,
            publications: Vec::new(),
            tables: Vec::new(),
            via_partition_root: true,
            channels: Vec::new(),
            snapshot: false,
            messages: false,
            transactions: false,
            streaming: Streaming::Off,
            memory_max: MEMORY_MAX_DEFAULT,
            two_phase: false,
            binary: false,
            origin: Origin::Any,
            manual_ack: false,
            heartbeat: HEARTBEAT_DEFAULT,
        }
    }
}

impl StreamOptions {
    /// The defaults: a temporary slot, which ends with the connection; changes alone, each transaction after
    /// its commit, acknowledged when the caller asks for the next event.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads from this slot of the server, which keeps the position. Its name has 63 bytes at most. It must
    /// be there, unless [`create_slot`](Self::create_slot) is given. A slot that nobody reads keeps the
    /// server's log for ever: drop it when it is not needed any more (`pg_drop_replication_slot`).
    pub fn slot(mut self, name: impl Into<String>) -> Self {
        self.slot = Some(name.into());
        self
    }

    /// Whether nothing comes but messages.
    pub(crate) fn has_messages_alone(&self) -> bool {
        self.messages && self.publications.is_empty() && self.tables.is_empty()
    }

    /// Makes the slot when it is missing at the first connect. It is never made anew after that: what was
    /// written meanwhile would be missing without a word.
    pub fn create_slot(mut self, create_slot: bool) -> Self {
        self.create_slot = create_slot;
        self
    }

    /// Makes the slot a temporary one, which ends with the connection. After an outage a new one is made, and
    /// a [`Gap`](crate::Gap) says what is missing.
    pub fn temporary(mut self, temporary: bool) -> Self {
        self.temporary = temporary;
        self
    }

    /// Makes the slot one that standbys keep, too, also if it is there already, from PostgreSQL 17 on
    /// (manual, "Logical Replication Failover").
    pub fn failover(mut self, failover: bool) -> Self {
        self.failover = failover;
        self
    }

    /// Takes what this publication has. May be called several times.
    pub fn publication(mut self, name: impl Into<String>) -> Self {
        self.publications.push(name.into());
        self
    }

    /// Takes the changes of this table, a name as SQL takes it. May be called several times. A publication is
    /// made for all of them, and kept: its name begins with `pgwake_`, and the same tables have the same one.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.tables.push(table.into());
        self
    }

    /// For a publication that is made here: whether changes of partitions come under the name of their
    /// partitioned table, as they do unless said otherwise.
    pub fn via_partition_root(mut self, via_partition_root: bool) -> Self {
        self.via_partition_root = via_partition_root;
        self
    }

    /// Delivers the rows first that are there when the slot is made ([`Change::snapshot`](crate::Change)),
    /// and then the changes from exactly there. The slot lasts only from when all rows are acknowledged, and
    /// no change comes before: the calls of [`next`](crate::EventLoop::next) behind that see to it. One that
    /// is there already is read on from its position, without a snapshot.
    pub fn snapshot(mut self, snapshot: bool) -> Self {
        self.snapshot = snapshot;
        self
    }

    /// Delivers messages of this channel, and of no other unless that is named, too: of the same bytes, in
    /// UTF-8 where tables or publications are named besides, and in the server's encoding otherwise. May be
    /// called several times.
    pub fn channel(mut self, channel: Channel) -> Self {
        self.channels.push(channel);
        self.messages(true)
    }

    /// Delivers messages, too, of all channels ([`Event::Message`](crate::Event::Message)). PostgreSQL does
    /// not say which subtransaction wrote one: where [`streaming`](Self::streaming) is on, one may come from
    /// a subtransaction that was rolled back, and counts among the ordinals of its transaction.
    pub fn messages(mut self, messages: bool) -> Self {
        self.messages = messages;
        self
    }

    /// Delivers begin and commit of each transaction, too.
    pub fn transactions(mut self, transactions: bool) -> Self {
        self.transactions = transactions;
        self
    }

    /// What becomes of large transactions before their commit.
    pub fn streaming(mut self, streaming: Streaming) -> Self {
        self.streaming = streaming;
        self
    }

    /// How many bytes of transactions that are held back are kept in memory; what is more goes to a file
    /// without a name in the directory for temporary files. 64 MB unless said otherwise, and 64 KB at least.
    pub fn memory_max(mut self, bytes: usize) -> Self {
        self.memory_max = bytes.max(MEMORY_MAX_MIN);
        self
    }

    /// Delivers transactions when they are prepared (PREPARE TRANSACTION), with begin and end: they are
    /// committed or rolled back later.
    pub fn two_phase(mut self, two_phase: bool) -> Self {
        self.two_phase = two_phase;
        self
    }

    /// Has the server send values in the binary format, which is cheaper for it. The events are the same,
    /// but for types whose binary form is not known here: ranges, geometric types, `money`, `tsvector` and
    /// the like, and all that are not built in. Their bytes come as `\x…`, while the rows of a snapshot have
    /// them as text.
    pub fn binary(mut self, binary: bool) -> Self {
        self.binary = binary;
        self
    }

    /// Whose changes come.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// Leaves it to the caller to say what is done with ([`EventLoop::ack`](crate::EventLoop::ack)). Without
    /// it, an event is acknowledged when the caller asks for the next one.
    pub fn manual_ack(mut self, manual_ack: bool) -> Self {
        self.manual_ack = manual_ack;
        self
    }

    /// When nothing came for this long, 5 s unless said otherwise, the server is asked for a sign of life. It
    /// has 12 times as long to answer, for it does not look up from a large transaction of which it sends
    /// nothing; and twice as long again each time that it was given up without having come further. It also
    /// bounds how late an idle slot moves on. Zero: a frozen server goes unnoticed.
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = bounded(heartbeat);
        self
    }

    /// What is wrong with them.
    pub(crate) fn check(&self) -> Result<()> {
        let mut names = self.publications.iter().chain(&self.tables).chain(&self.slot);
        let problem = if self.publications.is_empty() && self.tables.is_empty() && !self.messages {
            "a stream needs a publication, a table or a channel: name one"
        } else if names.any(|name| name.contains('\0')) {
            "a name of a stream holds a NUL byte: PostgreSQL has none in text"
        } else if self.slot.as_ref().is_some_and(|slot| slot.len() > SLOT_BYTES_MAX) {
            // The server would cut it, and two readers share what is left.
            "a slot's name has 63 bytes at most: choose a shorter one"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::InvalidArgument, problem))
    }
}
