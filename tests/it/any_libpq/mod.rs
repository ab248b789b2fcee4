//! What is the same with any libpq, and runs with the system's alone: what the server does by itself, what
//! becomes of what has come, what is measured, pages, and programs that bring a libpq of their own.

mod before_drop;
mod before_drop_cases;
mod before_drop_random;
mod before_drop_refused;
mod before_drop_rights;
mod before_triggers;
mod bench;
mod bench_page;
mod bench_reports;
mod bench_stream;
mod bench_writers;
mod bridges;
mod build_systems;
mod c_examples;
mod c_interface;
mod check;
mod cron_command;
mod ddl;
mod ddl_reader;
mod deliver;
mod deliver_batches;
mod deliver_kills;
mod dump;
mod exec;
mod extension;
mod failover;
mod findings;
mod handler_attacks;
mod handler_command;
mod help;
mod install;
mod leader_faults;
mod links;
mod login;
mod messages_crashes;
mod metrics;
mod outbox;
mod outbox_attacks;
mod outbox_writers;
mod packaging;
mod peers;
mod poll_batch;
mod poll_cursor;
mod poll_errors;
mod private_server;
mod readme;
mod regress;
mod replay;
#[cfg(feature = "schedules")]
mod schedule_leaders;
#[cfg(feature = "schedules")]
mod schedule_oracle;
#[cfg(feature = "schedules")]
mod schedule_zones;
#[cfg(feature = "schedules")]
mod schedules;
#[cfg(feature = "json")]
mod stream_crashes;
#[cfg(feature = "json")]
mod stream_publications;
#[cfg(feature = "json")]
mod stream_random;
#[cfg(feature = "json")]
mod stream_tables;
#[cfg(feature = "json")]
mod stream_values;
#[cfg(feature = "json")]
mod stream_workloads;
mod watch_burst;
mod watch_encodings;
