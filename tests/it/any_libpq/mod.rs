//! What is the same with any libpq, and runs with the system's alone: what the server does by itself, pages
//! and sources, and programs that bring a libpq of their own.

mod before_triggers;
mod bench_page;
mod bench_reports;
mod bench_writers;
mod build_systems;
mod c_examples;
mod c_interface;
mod check;
mod ddl;
mod dump;
mod help;
mod install;
mod links;
mod outbox;
mod outbox_attacks;
mod outbox_writers;
mod packaging;
mod peers;
mod readme;
mod regress;
mod replay;
