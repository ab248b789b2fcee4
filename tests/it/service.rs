//! A service manager that waits for its services, as systemd does: the commands that stream tell it when they
//! hear all that comes from now on, and when they end.
#![cfg(feature = "command")]

use crate::common::command::{Running, pgwake};
use crate::common::outbox::database;
use crate::common::{PATIENCE, Sql, fresh_channel, server, signal};
use rustix::process::Signal;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What is told next.
fn told(socket: &UnixDatagram) -> String {
    let mut text = [0; 100];
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = socket.recv(&mut text).expect("something is told");
    String::from_utf8(text[..length].to_vec()).unwrap()
}

/// Sockets with a path and with an abstract name, and how each is named.
fn sockets(directory: &std::path::Path) -> [(UnixDatagram, String); 2] {
    let (path, name) = (directory.join("notify"), fresh_channel());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    [
        (UnixDatagram::bind(&path).unwrap(), path.display().to_string()),
        (UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}")),
    ]
}

#[test]
fn who_is_told_that_it_is_ready_may_notify_at_once() {
    let directory = tempfile::tempdir().unwrap();
    for (socket, name) in sockets(directory.path()) {
        let (dsn, mut sql) = database("");
        sql.run("CREATE TABLE orders (id int PRIMARY KEY)");
        for (arguments, sql_to_hear, event) in [
            (&["listen", "jobs", "zebras"][..], "NOTIFY zebras", "notification"),
            (&["watch", "orders"], "INSERT INTO orders VALUES (1)", "change"),
            (&["ddl"], "CREATE TABLE heard ()", "ddl"),
        ] {
            let mut command = pgwake(&[&["-d", &dsn, "-f", "json"], arguments].concat());
            let mut running = Running::of(command.env("NOTIFY_SOCKET", &name));
            assert_eq!(told(&socket), "READY=1", "{arguments:?}");
            sql.run(sql_to_hear);
            while running.json()["event"] != event {}
            signal(running.child.id() as i32, Signal::TERM);
            assert_eq!(told(&socket), "STOPPING=1", "{arguments:?}");
            assert_eq!(running.status(), 0);
        }
    }
}

#[test]
fn who_is_told_that_a_stream_is_ready_may_write_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let [(socket, name), _] = sockets(directory.path());
    let (dsn, mut sql) = crate::common::log::database("");
    sql.run("CREATE TABLE orders (id int PRIMARY KEY)");
    let mut command = pgwake(&["-d", &dsn, "-f", "json", "stream", "--table", "orders"]);
    let mut running = Running::of(command.env("NOTIFY_SOCKET", &name));
    assert_eq!(told(&socket), "READY=1");
    sql.run("INSERT INTO orders VALUES (1)");
    while running.json()["event"] != "change" {}
    signal(running.child.id() as i32, Signal::TERM);
    assert_eq!(told(&socket), "STOPPING=1");
    assert_eq!(running.status(), 0);
}

#[test]
fn what_never_listened_was_never_ready() {
    let directory = tempfile::tempdir().unwrap();
    let [(socket, name), _] = sockets(directory.path());
    let mut command = pgwake(&["-d", "host=/nonexistent", "listen", "c"]);
    assert_eq!(command.env("NOTIFY_SOCKET", name).status().unwrap().code(), Some(1));
    assert_eq!(told(&socket), "STOPPING=1");
}

#[test]
fn a_manager_that_is_gone_stops_nothing_and_is_named() {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let mut command = pgwake(&["-d", &dsn, "listen", &channel, "--count", "1"]);
    let mut running = Running::of(command.env("NOTIFY_SOCKET", "/nonexistent/notify"));
    let warning = running.stderr_line();
    assert!(warning.contains("was not told READY=1 through /nonexistent/notify"), "{warning}");
    Sql::connect(&dsn).notify(&channel, "");
    assert_eq!(running.status(), 0);
}

#[test]
fn what_is_run_for_an_event_does_not_speak_for_us() {
    let directory = tempfile::tempdir().unwrap();
    let [(socket, name), _] = sockets(directory.path());
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let script = "echo socket=$NOTIFY_SOCKET";
    let mut command = pgwake(&["-d", &dsn, "listen", &channel, "--count", "1", "--exec", "sh", "-c", script]);
    let mut running = Running::of(command.env("NOTIFY_SOCKET", name));
    assert_eq!(told(&socket), "READY=1");
    Sql::connect(&dsn).notify(&channel, "");
    assert_eq!(running.line(), "socket=\n");
    assert_eq!(running.status(), 0);
}
