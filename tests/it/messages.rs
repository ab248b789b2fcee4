//! Durable messages: what is published comes as it is, with its commit, to every slot that was there, also
//! after their reader was away.

use crate::common::log::{Stream, database, has};
use crate::common::{PATIENCE, Seen, Sql, fresh_channel, next};
use pgwake::{Channel, Event, EventLoop, Message, StreamOptions, Transport};
use std::time::{Duration, Instant};

/// What a message is, once it is not borrowed any more.
#[derive(Debug, Clone, PartialEq)]
struct Taken {
    channel: Vec<u8>,
    payload: Vec<u8>,
    position: String,
    transactional: bool,
}

impl Taken {
    fn of(message: &Message<'_>) -> Self {
        assert_eq!(message.xid.is_some(), message.transactional);
        Taken {
            channel: message.channel.to_vec(),
            payload: message.payload.to_vec(),
            position: message.position.expect("it can be acknowledged").to_string(),
            transactional: message.transactional,
        }
    }
}

/// A loop that is subscribed already.
fn subscribed(conninfo: &str, channels: &[&[u8]], options: StreamOptions) -> (EventLoop, pgwake::SessionId) {
    let mut events = EventLoop::new().unwrap();
    let id = events.subscribe(conninfo, channels, options).unwrap();
    match next(&mut events) {
        Seen::Listening { .. } => (events, id),
        other => panic!("{other:?}"),
    }
}

fn message(events: &mut EventLoop) -> Taken {
    match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Message(message)) => Taken::of(&message),
        other => panic!("a message was expected, and this came: {other:?}"),
    }
}

fn payloads<const N: usize>(events: &mut EventLoop) -> [String; N] {
    [(); N].map(|()| String::from_utf8(message(events).payload).unwrap())
}

/// Publishes all of it, and waits until it is committed.
fn publish(conninfo: &str, messages: &[(&[u8], &[u8])]) {
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(conninfo).unwrap();
    for (channel, payload) in messages {
        events.publish(session, channel, payload).unwrap();
    }
    let mut sent = 0;
    while sent < messages.len() as u64 {
        match events.next(Some(PATIENCE)).unwrap() {
            Some(Event::Sent(event)) => sent += event.count,
            Some(Event::Listening(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sent, messages.len() as u64);
}

/// As soon as the server has noticed that its reader is gone.
fn drop_slot(sql: &mut Sql, slot: &str) {
    while let Err(error) = sql.try_run(&format!("SELECT pg_drop_replication_slot('{slot}')")) {
        assert_eq!(error.sqlstate.unwrap().as_str(), "55006", "{error}");
    }
}

/// Bytes of which no two blocks are equal, all values among them.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut all = Vec::with_capacity(length + 8);
    while all.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        all.extend_from_slice(&state.to_ne_bytes());
    }
    all.truncate(length);
    all
}

#[test]
fn messages_of_any_size_and_any_bytes_come_as_they_are() {
    for options in ["", "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"] {
        let (conninfo, _) = database(options);
        // Not only not UTF-8: WIN1252 has no character for some of these, nor has anything a NUL.
        let all: Vec<u8> = (0..=255).collect();
        let large = [1, 8 << 10, 1 << 20, 100 << 20].map(bytes);
        let (mut events, _) = subscribed(&conninfo, &[b"Exact"], StreamOptions::new());
        publish(&conninfo, &[(b"Exact", b""), (b"Exact", &all)]);
        assert_eq!([message(&mut events).payload, message(&mut events).payload], [vec![], all]);
        for payload in &large {
            publish(&conninfo, &[(b"Exact", payload)]);
            let came = message(&mut events).payload;
            assert_eq!(came.len(), payload.len());
            assert!(came == *payload, "{} bytes did not come as they were", payload.len());
        }
        // Several large ones are never in libpq's buffers at once.
        publish(&conninfo, &[(&b"Exact"[..], &large[2][..]); 16]);
        for _ in 0..16 {
            assert!(message(&mut events).payload == large[2]);
        }
    }
}

#[test]
fn channels_are_exact_bytes_in_every_encoding() {
    let latin: &[u8] = b"caf\xe9";
    let utf8 = "café".as_bytes();
    let longest = [b'x'; 63];
    for (options, odd) in [
        ("", utf8),
        ("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0", latin),
        // It has no character for this byte that another encoding could have.
        ("ENCODING 'WIN1252' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0", b"\x81"),
        ("ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0", b"\xff\xfe"),
    ] {
        let (conninfo, _) = database(options);
        let wanted: [&[u8]; 4] = [b"Foo", odd, b"two words; \"'", &longest];
        let (mut events, _) = subscribed(&conninfo, &wanted, StreamOptions::new());
        let mut all: Vec<(&[u8], &[u8])> = vec![(b"foo", b"no"), (b"Foo ", b"no"), (b"Fo", b"no")];
        all.extend(wanted.map(|channel| (channel, channel)));
        publish(&conninfo, &all);
        for channel in wanted {
            let came = message(&mut events);
            assert_eq!((&came.channel[..], &came.payload[..]), (channel, channel), "{options}");
        }
        assert!(
            events.next(Some(Duration::from_millis(100))).unwrap().is_none(),
            "all others are for others"
        );
    }
    // In a database in LATIN1, SQL of a client in UTF-8 names the same channel.
    let (conninfo, mut sql) = database("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    let (mut events, _) = subscribed(&conninfo, &[latin], StreamOptions::new());
    sql.run("SET client_encoding TO 'UTF8'");
    sql.run("SELECT pg_logical_emit_message(true, 'café', 'café')");
    let came = message(&mut events);
    assert_eq!((&came.channel[..], &came.payload[..]), (latin, latin), "text is in the server's encoding");
}

#[test]
fn a_message_comes_with_its_commit_and_not_after_a_rollback() {
    let (conninfo, mut sql) = database("");
    let (mut events, _) = subscribed(&conninfo, &[b"c"], StreamOptions::new());
    let emit = |text: &str| format!("SELECT pg_logical_emit_message(true, 'c', '{text}');");
    sql.run(&format!("BEGIN; {} ROLLBACK", emit("rolled back")));
    sql.run(&format!(
        "BEGIN; {} SAVEPOINT a; {} ROLLBACK TO a; SAVEPOINT b; {}",
        emit("1"),
        emit("no"),
        emit("2")
    ));
    let silence = events.next(Some(Duration::from_millis(200))).unwrap();
    assert!(silence.is_none(), "it is not committed yet: {silence:?}");
    Sql::connect(&conninfo).run(&emit("0"));
    sql.run("RELEASE b; COMMIT");
    assert_eq!(payloads(&mut events), ["0", "1", "2"], "in the order of the commits");
    // One that belongs to no transaction comes at once, whatever becomes of it.
    let flush = if has(17, "a message that is flushed at once") { ", true" } else { "" };
    sql.run(&format!("BEGIN; {} SELECT pg_logical_emit_message(false, 'c', 'now'{flush})", emit("gone")));
    let came = message(&mut events);
    assert_eq!((&came.payload[..], came.transactional), (&b"now"[..], false));
    sql.run("ROLLBACK");
    assert!(events.next(Some(Duration::from_millis(100))).unwrap().is_none());
}

#[test]
fn a_slot_keeps_what_comes_while_nobody_reads_and_goes_on_where_it_was() {
    let (conninfo, mut sql) = database("");
    let slot = fresh_channel();
    let options = || StreamOptions::new().slot(&slot).create_slot(true).manual_ack(true);
    drop(subscribed(&conninfo, &[b"a", b"b"], options()));
    publish(&conninfo, &[(b"a", b"1"), (b"other", b"no"), (b"b", b"2"), (b"a", b"3")]);
    let (mut events, id) = subscribed(&conninfo, &[b"a", b"b"], options());
    let first = [(); 3].map(|()| message(&mut events));
    assert_eq!(first.each_ref().map(|message| &message.payload[..]), [b"1", b"2", b"3"]);
    let commit_lsn = |message: &Taken| -> u64 {
        let (lsn, _) = message.position.rsplit_once('/').unwrap();
        lsn.parse::<pgwake::Lsn>().unwrap().0
    };
    events.ack(id, commit_lsn(&first[1])).unwrap();
    drop(events);
    let (mut events, _) = subscribed(&conninfo, &[b"a", b"b"], options());
    assert_eq!(message(&mut events), first[2], "what was not acknowledged comes again, and nothing else");
    drop(events);
    // The backend is killed: the rest comes over another connection.
    let (mut events, id) = subscribed(&conninfo, &[b"a", b"b"], options());
    assert_eq!(message(&mut events), first[2]);
    sql.run(&format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{slot}'"
    ));
    publish(&conninfo, &[(b"b", b"4")]);
    let mut again = Vec::new();
    while again.last().is_none_or(|last: &Taken| last.payload != b"4") {
        if let Some(Event::Message(message)) = events.next(Some(PATIENCE)).unwrap() {
            again.push(Taken::of(&message));
        }
    }
    assert_eq!((again.len(), &again[0]), (2, &first[2]), "{again:?}");
    events.ack(id, commit_lsn(&again[1])).unwrap();
    events.disconnect(id).unwrap();
    drop_slot(&mut sql, &slot);
}

#[test]
fn a_position_is_the_same_for_those_who_take_other_channels() {
    let (conninfo, mut sql) = database("");
    let open = |channels: &[&[u8]]| subscribed(&conninfo, channels, StreamOptions::new()).0;
    let (mut one, mut other, mut both) = (open(&[b"a"]), open(&[b"b"]), open(&[b"a", b"b"]));
    let emit = |channel: &str| format!("SELECT pg_logical_emit_message(true, '{channel}', '{channel}');");
    sql.run(&format!("BEGIN; {}{}{}{} COMMIT", emit("a"), emit("b"), emit("a"), emit("c")));
    let of_both = [(); 3].map(|()| message(&mut both));
    let of_one = [(); 2].map(|()| message(&mut one));
    assert_eq!(of_one, [of_both[0].clone(), of_both[2].clone()]);
    assert_eq!(message(&mut other), of_both[1]);
}

#[test]
fn what_is_for_others_is_done_with_unread() {
    let (conninfo, mut sql) = database("");
    let slot = fresh_channel();
    let options = StreamOptions::new().slot(&slot).create_slot(true).manual_ack(true);
    let heartbeat = Duration::from_millis(300);
    let (mut events, id) = subscribed(&conninfo, &[b"mine"], options.heartbeat(heartbeat));
    // The last message of the transaction is for others: the one before it ends what is to be acknowledged.
    sql.run(
        "BEGIN; SELECT pg_logical_emit_message(true, 'mine', ''); \
         SELECT pg_logical_emit_message(true, 'other', ''); COMMIT",
    );
    let position = message(&mut events).position;
    let commit_lsn = position.rsplit_once('/').unwrap().0.parse::<pgwake::Lsn>().unwrap();
    events.ack(id, commit_lsn.0).unwrap();
    publish(&conninfo, &[(b"other", b"")]);
    let here: pgwake::Lsn = sql.value("SELECT pg_current_wal_lsn()").parse().unwrap();
    let confirmed = format!(
        "SELECT confirmed_flush_lsn >= '{here}' FROM pg_replication_slots WHERE slot_name = '{slot}'"
    );
    let started = Instant::now();
    while sql.value(&confirmed) != "t" {
        assert!(events.next(Some(Duration::from_millis(20))).unwrap().is_none());
        assert!(started.elapsed() < PATIENCE, "the slot stands still");
    }
    drop(events);
    drop_slot(&mut sql, &slot);
}

/// What belongs to no transaction is acknowledged as what does: an idle server's word is no proof.
#[test]
fn a_message_outside_of_transactions_comes_again_until_it_is_acknowledged() {
    let (conninfo, mut sql) = database("");
    let slot = fresh_channel();
    let options = || {
        let options = StreamOptions::new().slot(&slot).create_slot(true).manual_ack(true);
        options.heartbeat(Duration::from_millis(100))
    };
    let (mut events, _) = subscribed(&conninfo, &[b"c"], options());
    sql.run("SELECT pg_logical_emit_message(false, 'c', 'now'); CREATE TABLE t ()");
    let first = message(&mut events);
    // Time enough for signs of life that say how far the server is.
    assert!(events.next(Some(Duration::from_millis(500))).unwrap().is_none());
    drop(events);
    let (mut events, id) = subscribed(&conninfo, &[b"c"], options());
    assert_eq!(message(&mut events), first);
    let (lsn, _) = first.position.rsplit_once('/').unwrap();
    events.ack(id, lsn.parse::<pgwake::Lsn>().unwrap().0).unwrap();
    drop(events);
    let (mut events, _) = subscribed(&conninfo, &[b"c"], options());
    sql.run("SELECT pg_logical_emit_message(true, 'c', 'later')");
    assert_eq!(message(&mut events).payload, b"later");
    drop(events);
    drop_slot(&mut sql, &slot);
}

#[test]
fn one_slot_serves_messages_and_row_changes_together() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY)");
    let of = |options: StreamOptions| Stream::open(&conninfo, options.table("t"));
    let mut all = of(StreamOptions::new().messages(true));
    let mut some = of(StreamOptions::new().channel(Channel::new("c").unwrap()));
    sql.run(
        "BEGIN; SELECT pg_logical_emit_message(true, 'c', 'before'); INSERT INTO t VALUES (1); \
         SELECT pg_logical_emit_message(true, 'd', 'behind'); INSERT INTO t VALUES (2); COMMIT",
    );
    let mut of_all = all.until(|event| event["key"]["id"] == 2);
    of_all.retain(|event| event["event"] != "schema");
    assert_eq!(
        of_all.iter().map(|event| event["event"].as_str().unwrap()).collect::<Vec<_>>(),
        ["message", "change", "message", "change"]
    );
    let position = |event: &serde_json::Value| event["position"].as_str().unwrap().to_string();
    let mut of_some = some.until(|event| event["key"]["id"] == 2);
    of_some.retain(|event| event["event"] != "schema");
    of_all.remove(2);
    assert_eq!(
        of_some.iter().map(position).collect::<Vec<_>>(),
        of_all.iter().map(position).collect::<Vec<_>>()
    );
    assert_eq!(of_all[1]["transport"], Transport::Wal.as_str());
}

#[test]
fn a_publisher_is_told_what_became_of_each_message() {
    let (conninfo, mut sql) = database("");
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&conninfo).unwrap();
    assert!(matches!(next(&mut events), Seen::Listening { .. }));
    // In their order with notifications, and counted together.
    events.listen(session, "n").unwrap();
    assert!(matches!(next(&mut events), Seen::Listening { .. }));
    events.notify(session, "n", "1").unwrap();
    events.publish(session, "m", "2").unwrap();
    let mut sent = 0;
    while sent < 2 {
        match events.next(Some(PATIENCE)).unwrap() {
            Some(Event::Sent(event)) => sent += event.count,
            Some(Event::Notification(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    // The server refuses one, whose name is none in its encoding: the others go on.
    events.publish(session, b"\xff", "refused").unwrap();
    events.publish(session, "m", "goes on").unwrap();
    let (mut refused, mut sent) = (0, 0);
    while refused + sent < 2 {
        match events.next(Some(PATIENCE)).unwrap() {
            Some(Event::CommandFailed(failed)) => {
                assert_eq!((failed.command, failed.channel.unwrap().as_bytes()), ("publish", &b"\xff"[..]));
                assert_eq!(failed.sqlstate.unwrap().as_str(), "22021");
                refused += 1;
            }
            Some(Event::Sent(event)) => sent += event.count,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((refused, sent), (1, 1));
    // What cannot be at all is refused at once.
    assert!(events.publish(session, "", "x").is_err());
    assert!(events.publish(session, "x".repeat(64), "x").is_err());
    // The connection breaks before the server answers.
    sql.end_others();
    events.publish(session, "m", "who knows").unwrap();
    let mut unknown = 0;
    while unknown == 0 {
        match events.next(Some(PATIENCE)).unwrap() {
            // Or it was not sent yet, and goes over the next connection.
            Some(Event::CommandFailed(failed)) => {
                assert_eq!(failed.sqlstate.unwrap().as_str(), "08007");
                unknown += 1;
            }
            Some(Event::Sent(_)) => unknown += 1,
            Some(Event::Disconnected(_) | Event::Gap(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_full_queue_says_so_and_one_large_message_waits_until_it_is_alone() {
    let (conninfo, _) = database("");
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&conninfo).unwrap();
    let large = bytes(17 << 20);
    events.publish(session, "m", &large).unwrap();
    let error = events.publish(session, "m", &large).unwrap_err();
    assert_eq!(error.kind, pgwake::ErrorKind::QueueFull, "{error}");
    let mut sent = 0;
    while sent == 0 {
        if let Some(Event::Sent(event)) = events.next(Some(PATIENCE)).unwrap() {
            sent += event.count;
        }
    }
    events.publish(session, "m", &large).unwrap();
}

#[test]
fn a_large_message_keeps_its_place_and_its_refusal_stops_nothing() {
    let (conninfo, _) = database("");
    let (mut reader, _) = subscribed(&conninfo, &[b"m"], StreamOptions::new());
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&conninfo).unwrap();
    let large = bytes(5 << 20);
    events.publish(session, "m", "1").unwrap();
    events.publish(session, "m", &large).unwrap();
    // It goes another way, and is refused there all the same: that is no name in the server's encoding.
    events.publish(session, b"\xff", &large).unwrap();
    events.publish(session, "m", "3").unwrap();
    let (mut refused, mut sent) = (0, 0);
    while refused + sent < 4 {
        match events.next(Some(PATIENCE)).unwrap() {
            Some(Event::CommandFailed(failed)) => {
                assert_eq!((failed.command, failed.sqlstate.unwrap().as_str()), ("publish", "22021"));
                refused += 1;
            }
            Some(Event::Sent(event)) => sent += event.count,
            Some(Event::Listening(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((refused, sent), (1, 3));
    let came = [(); 3].map(|()| message(&mut reader).payload);
    assert!(came == [b"1".to_vec(), large, b"3".to_vec()], "{:?}", came.map(|payload| payload.len()));
}

#[test]
fn the_function_in_sql_publishes_under_the_channel_itself() {
    let (conninfo, mut sql) = database("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    sql.run(&pgwake::install::install());
    let (mut events, _) = subscribed(&conninfo, &[b"Jobs"], StreamOptions::new());
    sql.run("BEGIN; SELECT pgwake.publish('Jobs', 'no'); ROLLBACK");
    let lsn = sql.value("SELECT pgwake.publish('Jobs', 'text')");
    sql.run("SELECT pgwake.publish('Jobs', '\\x00ff'::bytea)");
    match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Message(message)) => {
            assert_eq!((message.payload, message.lsn.to_string()), (&b"text"[..], lsn));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(message(&mut events).payload, b"\0\xff");
    for name in ["''", "repeat('x', 64)"] {
        let refused = sql.try_run(&format!("SELECT pgwake.publish({name}, 'x')")).unwrap_err();
        assert_eq!(refused.sqlstate.unwrap().as_str(), "22023", "{refused}");
    }
    assert_eq!(sql.value("SELECT pgwake.publish(NULL, 'x') IS NULL"), "t");
    sql.run("SELECT pgwake.publish(repeat('x', 63), '')");
}
