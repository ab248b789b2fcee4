//! Connecting never holds up the loop: names are looked up elsewhere, and a silent host is passed over.

use crate::common::{PATIENCE, Seen, Sql, fresh_channel, listening, next, server, start_server};
use pgwake::{ErrorKind, Event, EventLoop, Overflow, SessionOptions};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

/// A host that takes connections and never says a word, and its port.
fn silent_host() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[test]
fn a_silent_host_costs_its_timeout_and_the_next_one_is_reached() {
    let (_listener, silent) = silent_host();
    let port = server().port();
    let channel = fresh_channel();
    let (mut events, quick) = listening(&server().conninfo(), &[&channel]);
    let conninfo = format!(
        "host=127.0.0.1,127.0.0.1 port={silent},{port} user=postgres dbname=postgres connect_timeout=1"
    );
    let started = Instant::now();
    let slow = events.connect(&conninfo).unwrap();
    let mut sql = Sql::connect(&server().conninfo());
    let mut heard_meanwhile = 0;
    loop {
        sql.notify(&channel, "the loop goes on");
        match events.next(Some(PATIENCE)).unwrap().unwrap() {
            Event::Notification(n) if n.session == quick => heard_meanwhile += 1,
            Event::Listening(listening) => break assert_eq!(listening.session, slow),
            other => panic!("{other:?}"),
        }
    }
    let took = started.elapsed();
    assert!(took.as_secs_f64() >= 1.0 && took.as_secs_f64() < 1.5, "{took:?}");
    assert!(heard_meanwhile > 10, "the other session heard only {heard_meanwhile}");
}

#[test]
fn a_host_that_is_full_is_passed_over_too() {
    let full = start_server();
    for (server, limit) in [(&full, 0), (server(), -1)] {
        let create = format!("CREATE ROLE welcome LOGIN CONNECTION LIMIT {limit}");
        Sql::connect(&server.conninfo()).run(&create);
    }
    let (full, free) = (full.port(), server().port());
    let conninfo = |ports: &str, hosts| format!("host={hosts} port={ports} user=welcome dbname=postgres");
    let mut events = EventLoop::new().unwrap();
    events.connect(&conninfo(&format!("{full},{free}"), "127.0.0.1,127.0.0.1")).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[]));
    // Where all are full, that is what is said.
    events.connect(&conninfo(&format!("{full},{full}"), "127.0.0.1,127.0.0.1")).unwrap();
    assert_eq!(next(&mut events), Seen::Disconnected("53300".into()));
}

#[test]
fn a_host_that_is_silent_and_alone_is_told_as_such() {
    let (_listener, silent) = silent_host();
    let mut events = EventLoop::new().unwrap();
    events.connect(&format!("host=127.0.0.1 port={silent} connect_timeout=1")).unwrap();
    match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Disconnected(lost)) => {
            assert_eq!(lost.sqlstate.unwrap().as_str(), "08001");
            assert!(lost.message.contains("connect_timeout"), "{}", lost.message);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_are_looked_up_and_certificates_still_go_by_them() {
    let port = server().port();
    let certificate = server().directory().join("server.crt");
    for tls in
        ["sslmode=disable".into(), format!("sslmode=verify-full sslrootcert={}", certificate.display())]
    {
        let conninfo = format!("host=localhost port={port} user=postgres dbname=postgres {tls}");
        let mut events = EventLoop::new().unwrap();
        events.connect(&conninfo).unwrap();
        match events.next(Some(PATIENCE)).unwrap() {
            Some(Event::Listening(listening)) => assert_eq!(listening.host, "localhost"),
            other => panic!("{tls}: {other:?}"),
        }
    }
}

#[test]
fn an_unknown_name_is_named_and_tried_again() {
    let mut events = EventLoop::new().unwrap();
    let known = format!(
        "host=no-such-host.invalid,127.0.0.1 port=1,{} user=postgres dbname=postgres",
        server().port()
    );
    events.connect(&known).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[]));
    events.connect("host=no-such-host.invalid").unwrap();
    for _ in 0..2 {
        match events.next(Some(PATIENCE)).unwrap() {
            Some(Event::Disconnected(lost)) => {
                assert!(lost.message.contains("no-such-host.invalid"), "{lost:?}")
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn settings_that_libpq_refuses_are_refused_at_once_in_its_words() {
    let mut events = EventLoop::new().unwrap();
    for (conninfo, word) in [
        ("host=127.0.0.1,127.0.0.2,127.0.0.3 port=1,2", "port"),
        ("sslmode=wrong", "sslmode"),
        ("service=no_such_service", "no_such_service"),
    ] {
        let error = events.connect(conninfo).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error}");
        assert!(error.message.contains(word), "{error}");
    }
}

/// The manual, "Connection URIs", and "Parameter Key Words" on abstract sockets.
#[test]
fn every_server_that_libpq_reaches_is_reached() {
    let (directory, port) = (server().directory().display().to_string(), server().port());
    Sql::connect(&server().conninfo()).run("CREATE DATABASE \"a@b/c\"");
    let address = SocketAddr::from_abstract_name(format!("pgwake/.s.PGSQL.{port}"));
    let listener = std::os::unix::net::UnixListener::bind_addr(&address.unwrap()).unwrap();
    let upstream = format!("{directory}/.s.PGSQL.{port}");
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), UnixStream::connect(&upstream).unwrap());
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
            std::thread::spawn(move || std::io::copy(&mut server, &mut client));
        }
    });
    let encoded = directory.replace('/', "%2F");
    for (conninfo, db, host) in [
        (format!("postgresql://postgres@127.0.0.1:{port}/a%40b%2Fc"), "a@b/c", "127.0.0.1"),
        (format!("postgresql://postgres@{encoded}:{port}/postgres"), "postgres", &*directory),
        (format!("postgresql:///postgres?host=%40pgwake&port={port}&user=postgres"), "postgres", "@pgwake"),
        (format!("postgresql://postgres@%40pgwake:{port}/a%40b%2Fc"), "a@b/c", "@pgwake"),
        (format!("host=@pgwake port={port} user=postgres dbname=postgres"), "postgres", "@pgwake"),
    ] {
        let mut events = EventLoop::new().unwrap();
        events.connect(&conninfo).unwrap();
        match events.next(Some(PATIENCE)).unwrap() {
            Some(Event::Listening(listening)) => assert_eq!((listening.db, listening.host), (db, host)),
            other => panic!("{conninfo}: {other:?}"),
        }
    }
}

#[test]
fn no_more_than_fifty_sessions_connect_at_once_and_the_others_follow() {
    let (listener, silent) = silent_host();
    listener.set_nonblocking(true).unwrap();
    let mut events = EventLoop::new().unwrap();
    for _ in 0..120 {
        events.connect(&format!("host=127.0.0.1 port={silent} connect_timeout=1")).unwrap();
    }
    let mut accepted = Vec::new();
    let mut told = 0;
    // Until the first fifty have waited in vain, nobody else has knocked.
    while told == 0 {
        told += usize::from(events.next(Some(std::time::Duration::from_millis(10))).unwrap().is_some());
        accepted.extend(std::iter::from_fn(|| listener.accept().ok()));
        assert!(told > 0 || accepted.len() <= 50, "{} knocked at once", accepted.len());
    }
    assert!(accepted.len() >= 50, "only {} knocked", accepted.len());
    let started = Instant::now();
    while accepted.len() < 120 && started.elapsed() < PATIENCE {
        events.next(Some(std::time::Duration::from_millis(10))).unwrap();
        accepted.extend(std::iter::from_fn(|| listener.accept().ok()));
    }
    assert!(accepted.len() >= 120, "only {} had their turn", accepted.len());
}

#[test]
fn a_silent_unix_socket_is_passed_over_too() {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let port = server().port();
    let silent =
        std::os::unix::net::UnixListener::bind(directory.path().join(format!(".s.PGSQL.{port}"))).unwrap();
    let hosts = format!("{},{}", directory.path().display(), server().directory().display());
    let mut events = EventLoop::new().unwrap();
    events
        .connect(&format!("host={hosts} port={port} user=postgres dbname=postgres connect_timeout=1"))
        .unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[]));
    drop(silent);
}

#[test]
fn a_host_that_is_cut_off_does_not_hold_up_what_was_read_before() {
    // Its queue is full: the kernel drops whoever else knocks.
    let (listener, deaf) = silent_host();
    rustix::net::listen(&listener, 0).unwrap();
    let _queue: Vec<_> = (0..3)
        .map_while(|_| {
            TcpStream::connect_timeout(&listener.local_addr().unwrap(), Duration::from_millis(200)).ok()
        })
        .collect();
    let server = start_server();
    let channel = fresh_channel();
    let mut events = EventLoop::new().unwrap();
    let conninfo = format!(
        "host=127.0.0.1,127.0.0.1 port={},{deaf} user=postgres dbname=postgres connect_timeout=2",
        server.port()
    );
    let options = SessionOptions::new().heartbeat(Duration::ZERO).overflow(Overflow::DropOldest(usize::MAX));
    let session = events.connect_with(&conninfo, options).unwrap();
    events.listen(session, &channel).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[&channel]));
    let mut sql = Sql::connect(&server.conninfo());
    sql.run(&format!("SELECT count(pg_notify('{channel}', i::text)) FROM generate_series(1, 1000) i"));
    assert_eq!(next(&mut events), Seen::notification(&channel, "1"));
    drop(server);
    let started = Instant::now();
    for i in 2..=1000 {
        assert_eq!(next(&mut events), Seen::notification(&channel, &i.to_string()));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(started.elapsed() < PATIENCE, "the loop stood still for {:?}", started.elapsed());
}
