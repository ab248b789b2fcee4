//! The integration tests, in one program: they share a private server, and wait beside one another.

mod common;

#[cfg(not(feature = "bundled"))]
mod any_libpq;
mod command;
mod connecting;
mod drain;
mod event_loop;
mod faults;
mod first_errors;
mod listen;
#[cfg(feature = "json")]
mod messages;
mod messages_command;
mod outage;
mod polls;
mod refusals;
mod restarts;
mod self_test;
mod service;
mod sessions;
#[cfg(feature = "json")]
mod stream;
#[cfg(feature = "json")]
mod stream_bad_days;
#[cfg(feature = "json")]
mod stream_bad_input;
mod stream_command;
mod stream_errors;
#[cfg(feature = "json")]
mod stream_positions;
#[cfg(feature = "json")]
mod stream_slots;
#[cfg(feature = "json")]
mod stream_standby;
mod watch;
mod watch_bad_days;
mod watch_command;
