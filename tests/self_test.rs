//! The self-test of a session: where notifications do not arrive although LISTEN is taken, it says so.

mod common;

use common::{PATIENCE, Seen, Sql, assert_silent, fresh_channel, next, server};
use pgwake::{EventLoop, SessionOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// Between us and the server stands one who passes on everything but notifications, as a pooler in
/// transaction mode does. Its port.
fn swallower(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own_port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", port)).unwrap());
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
            std::thread::spawn(move || pass_on_messages(server, &mut client));
        }
    });
    own_port
}

/// Messages have a type, a length, and content; notifications are of type A (manual, "Message Formats").
fn pass_on_messages(mut server: TcpStream, client: &mut TcpStream) -> std::io::Result<()> {
    loop {
        let mut head = [0; 5];
        server.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4;
        let mut content = vec![0; length];
        server.read_exact(&mut content)?;
        if head[0] != b'A' {
            client.write_all(&[&head[..], &content].concat())?;
        }
    }
}

fn connect(port: u16, channel: &str) -> EventLoop {
    let conninfo = format!(
        "host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable gssencmode=disable"
    );
    let mut events = EventLoop::new().unwrap();
    let options = SessionOptions::new().heartbeat(Duration::from_millis(300)).self_test(true);
    let session = events.connect_with(&conninfo, options).unwrap();
    events.listen(session, channel).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[channel]));
    events
}

#[test]
fn where_notifications_do_not_arrive_the_session_fails_and_says_why() {
    let channel = fresh_channel();
    let mut events = connect(swallower(server().port()), &channel);
    assert_eq!(next(&mut events), Seen::Disconnected("0A000".into()));
    assert!(matches!(next(&mut events), Seen::Gap { .. }));
    match events.next(Some(PATIENCE)).unwrap() {
        Some(pgwake::Event::Failed(failed)) => {
            assert_eq!(failed.sqlstate.unwrap().as_str(), "0A000");
            assert!(failed.message.contains("pooler"), "{}", failed.message);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn where_they_do_nothing_is_seen_of_the_test() {
    let channel = fresh_channel();
    let mut events = connect(server().port(), &channel);
    assert_silent(&mut events, Duration::from_millis(900));
    Sql::connect(&server().conninfo()).notify(&channel, "as ever");
    assert_eq!(next(&mut events), Seen::notification(&channel, "as ever"));
}
