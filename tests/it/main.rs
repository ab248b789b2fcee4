//! The integration tests, in one program: they share a private server, and wait beside one another.

mod common;

#[cfg(not(feature = "bundled"))]
mod any_libpq;
mod before_drop;
mod before_drop_cases;
mod before_drop_random;
mod before_drop_refused;
mod before_drop_rights;
mod command;
mod connecting;
mod cron_command;
mod ddl_reader;
mod deliver;
mod deliver_batches;
mod deliver_kills;
mod drain;
mod event_loop;
mod exec;
mod faults;
mod first_errors;
mod handler_command;
mod leader_faults;
mod listen;
mod log_findings;
#[cfg(feature = "json")]
mod messages;
mod messages_command;
mod messages_crashes;
mod metrics;
mod outage;
mod poll_batch;
mod poll_cursor;
mod poll_errors;
mod polls;
mod refusals;
mod restarts;
#[cfg(feature = "schedules")]
mod schedule_leaders;
#[cfg(feature = "schedules")]
mod schedule_oracle;
#[cfg(feature = "schedules")]
mod schedule_zones;
#[cfg(feature = "schedules")]
mod schedules;
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
#[cfg(feature = "json")]
mod stream_crashes;
mod stream_errors;
#[cfg(feature = "json")]
mod stream_publications;
#[cfg(feature = "json")]
mod stream_random;
#[cfg(feature = "json")]
mod stream_slots;
#[cfg(feature = "json")]
mod stream_standby;
#[cfg(feature = "json")]
mod stream_tables;
#[cfg(feature = "json")]
mod stream_values;
#[cfg(feature = "json")]
mod stream_workloads;
mod watch;
mod watch_bad_days;
mod watch_burst;
mod watch_command;
mod watch_encodings;
