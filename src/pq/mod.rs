//! The thin layer over libpq: ownership by `Drop`, lifetimes instead of copies, no policy. Nothing else names
//! `PQ*`.
//!
//! Most programs want [`EventLoop`](crate::EventLoop). This layer is for those who own a mio loop and want
//! the three steps of every LISTEN program bare: wait until the socket is readable, consume, drain.
//!
//! # Draining readiness
//!
//! mio reports an edge: readiness is told once, and not again for what was left unread. libpq's
//! `PQconsumeInput` makes one `recv` of some kilobytes at most. One call per wake-up therefore loses
//! wake-ups: of a burst of 300 notifications of 4 KB it delivers 4 and hangs. So consume and take
//! notifications until [`has_unread_input`](Connection::has_unread_input) says that nothing is left, and,
//! when mio says that the peer has closed, until the connection is no longer [`Status::Ok`].
//!
//! ```no_run
//! use mio::{Events, Interest, Poll, Token};
//! use pgwake::pq::{Conninfo, Connection, Polling, Status};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut poll = Poll::new()?;
//!     let mut connection = Connection::start(&Conninfo::parse("dbname=app")?)?;
//!     // For brevity this waits by sleeping; a real program registers the socket anew after each step.
//!     while connection.poll_connect() != Polling::Ready {
//!         if connection.status() == Status::Bad {
//!             return Err(connection.connect_error().into());
//!         }
//!         std::thread::sleep(std::time::Duration::from_millis(1));
//!     }
//!     connection.set_nonblocking()?;
//!     connection.send_query("LISTEN virtual")?;
//!     poll.registry().register(&mut connection, Token(0), Interest::READABLE)?;
//!
//!     let mut events = Events::with_capacity(8);
//!     loop {
//!         poll.poll(&mut events, None)?;                              // wait until it is readable
//!         let closed = events.iter().any(|event| event.is_read_closed());
//!         loop {
//!             connection.consume_input()?;                            // consume what arrived
//!             while !connection.is_busy() && connection.result().is_some() {}
//!             while let Some(notification) = connection.notifies() {  // drain
//!                 println!("{:?}: {:?}", notification.channel(), notification.payload());
//!             }
//!             if !closed && !connection.has_unread_input()? {
//!                 break;
//!             }
//!         }
//!     }
//! }
//! ```

mod bounded;
mod connect_error;
mod connection;
mod conninfo;
mod copy;
mod notice;
mod notify;
mod query;
mod result;
mod text;
mod version;

pub use connection::{Connection, Polling, Status};
pub use conninfo::Conninfo;
pub use copy::{CopyData, CopyMessage};
pub use notice::Notice;
pub use notify::Notify;
pub use query::Format;
#[cfg(test)]
pub(crate) use result::tests::rows;
pub use result::{QueryResult, ResultStatus};
pub use version::{tls_version, version};
