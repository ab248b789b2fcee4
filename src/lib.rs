//! pgwake wakes a program up when PostgreSQL has something to tell it.
//!
//! One thread, one file descriptor, one call:
//!
//! ```no_run
//! use pgwake::{Event, EventLoop};
//!
//! fn main() -> pgwake::Result<()> {
//!     let mut events = EventLoop::new()?;
//!     let db = events.connect("dbname=app")?;
//!     events.listen(db, "orders")?;
//!     while let Some(event) = events.next(None)? {
//!         match event {
//!             Event::Notification(n) => println!("{:?} from {}", n.payload_str(), n.pid),
//!             Event::Gap(gap) => println!("look at everything afresh: {}", gap.message),
//!             Event::Failed(failed) => eprintln!("{}", failed.message),
//!             _ => {}
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! [`EventLoop::next`] is the whole interface: it returns the next event, waits when there is none, and is
//! the only place where anything happens. It is pulled, never a callback: nothing can re-enter the loop or
//! free it while it runs. An event borrows from the loop until the next call, so a payload is not copied on
//! its way to you.
//!
//! # Data flows one way
//!
//! ```text
//! socket ready ── reactor ─▶ session ── libpq ─▶ source ─▶ Event ─▶ caller
//!                  ▲                                         │
//!                  └──── commands, queued, sent on the next turn ◀─┘
//! ```
//!
//! | module | role |
//! |---|---|
//! | [`EventLoop`] | one turn after the other; budgets, fairness; alone reads the clock |
//! | `source` | where events come from: a variant for each kind of connection, readers over SQL, the log |
//! | `schedule` in `source` | no connection at all: what is due when; `civil.rs` has the rules of clocks |
//! | `decode` | bytes of the server to messages and values: pure |
//! | `session` | one connection's life: connecting, probing, losing, trying again |
//! | `reactor` | mio: readiness, the timer, the waker |
//! | `capi` | the C interface: a client of the names below, nearly as any other program |
//! | [`install`] | the SQL that goes into the server: pure text |
//! | [`pq`] | the thin layer over libpq, for those who own a mio loop and want the three steps bare |
//!
//! To add something that is read over SQL is to write one file in `source/sql`, a `Reader` with six verbs
//! (opened, lost, heard, answered, step, deadline), and to name it in `mod.rs` and `tag.rs` there. To add a
//! kind of connection is to add a variant to `Source`, of which the loop knows no more than its verbs.
//!
//! # What is promised
//!
//! - Notifications come at most once and in commit order, as PostgreSQL sends them.
//! - Each outage of a session is exactly one [`Gap`], after every channel listens again and before the next
//!   notification. What was notified during an outage is lost; the gap says so.
//! - Row changes that go through the outbox come at least once, each with an id of its own. The database
//!   keeps the position of a named consumer. What the outbox drops at its cap is one gap, and so is a copy of
//!   the database ([`GapReason`]).
//! - Row changes from the log ([`EventLoop::stream`]) come at least once and in commit order, each with a
//!   position of its own. The server keeps how far a slot was read; a slot that it gave up, or that
//!   somebody dropped, is one [`Failed`], and is never made anew unasked. A temporary slot goes with its
//!   connection, and a [`Gap`] says so.
//! - The rows of a poll ([`EventLoop::poll`]) are one event, and its next query is run once they were taken.
//!   With a cursor each row of a table that only grows comes at least once; rows of a batch are locked for
//!   one caller until it acknowledges them.
//! - A due time of a schedule ([`EventLoop::every`], `cron`) comes once or not at all, by the policy for
//!   those that are missed ([`Missed`]), whatever happens to the clock; with a leader, to one of many
//!   processes.
//! - A frozen or half-open server is noticed within two heartbeats, 10 s by default.
//!
//! # Acknowledging
//!
//! [`EventLoop::ack`] takes a number that an event carries, and means: all up to and including this. Of a
//! change from the outbox that is its `id`, of a poll with a cursor or in batches that of its rows, of a
//! stream the LSN of a commit: all only grow, so one word does. The server of a stream hears where a
//! transaction ends once all of it was delivered and acknowledged.
//!
//! # Features
//!
//! The default ones are those of the command. A program that needs no more than the loop takes
//! `default-features = false, features = ["bundled"]`.
//!
//! - `bundled` (default): libpq is built in. Without it the system's libpq is linked (14 or later).
//! - `json` (default): `Notification::json`, and events as JSON lines.
//! - `command` (default): what only the command `pgwake` needs.
//! - `schedules` (part of `command`): cron expressions in time zones. Intervals need it not.
//! - `capi`: the functions of `pgwake.h`, for the C library; a Rust program has no use for them.

#![deny(missing_docs, unsafe_code, clippy::unwrap_used, clippy::expect_used)]

#[cfg(feature = "capi")]
mod capi;
mod decode;
mod error;
mod event;
mod event_loop;
pub mod install;
#[cfg(feature = "json")]
pub mod json;
mod metrics;
mod options;
pub mod pq;
#[cfg(test)]
#[path = "../tests/it/common/random.rs"]
#[allow(dead_code)]
mod random;
mod reactor;
mod session;
mod source;
mod sys;
mod text;

pub use error::{Error, ErrorKind, Result, SqlState};
pub use event::{
    Acknowledged, CHANNEL_BYTES_MAX, Change, ChangeOp, Channel, ColumnIndex, CommandFailed, Ddl, DdlPhase,
    DdlTarget, Disconnected, Event, Failed, Fields, Gap, GapReason, Listening, Lsn, MESSAGE_BYTES_MAX,
    Message, Notification, PAYLOAD_BYTES_MAX, Position, Row, Rows, Schema, Sent, SessionId, Table,
    TableColumn, TaskId, Tick, Transaction, Transport, Value,
};
pub use event_loop::EventLoop;
pub use metrics::{Histogram, Metrics};
pub use options::{
    ChangePayload, DdlOptions, EventLoopOptions, Missed, Origin, Overflow, PollOptions, ScheduleOptions,
    SessionOptions, StreamOptions, Streaming, WatchOptions,
};
pub use reactor::Waker;
#[cfg(feature = "schedules")]
pub use source::Cron;
pub use text::Text;

/// The programs of the README and of the pages about the crate and about polls compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/crate.md")]
#[doc = include_str!("../docs/polls.md")]
#[cfg_attr(feature = "schedules", doc = include_str!("../docs/schedules.md"))]
struct Pages;
