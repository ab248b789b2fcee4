//! What is the same with any libpq, and runs with the system's alone: what the server does by itself, what is
//! measured, pages and sources, and programs that bring a libpq of their own.

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
mod ddl;
mod dump;
mod extension;
mod failover;
mod handler_attacks;
mod help;
mod install;
mod links;
mod login;
mod outbox;
mod outbox_attacks;
mod outbox_writers;
mod packaging;
mod peers;
mod private_server;
mod readme;
mod regress;
mod replay;
