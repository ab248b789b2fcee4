//! Changes that come with the ring for them: the same as those that are read, to nobody else, and once.

mod common;

use common::outbox::{Reader, database};
use common::random::Random;
use common::{PATIENCE, Seen, Sql, assert_silent, listening, next};
use pgwake::json::JsonValue;
use pgwake::{Event, EventLoop, SessionId, SessionOptions, WatchOptions};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The texts of what comes on a channel, until the mark.
fn heard(events: &mut EventLoop, sql: &mut Sql, channel: &str) -> Vec<String> {
    sql.notify(channel, "mark");
    let mut texts = Vec::new();
    loop {
        match events.next(Some(PATIENCE)).unwrap() {
            Some(Event::Notification(heard)) if heard.payload == b"mark" => return texts,
            Some(Event::Notification(heard)) => texts.push(heard.payload_str().unwrap().to_string()),
            other => panic!("{other:?}"),
        }
    }
}

/// What a session rings for first is never told early. This one has rung before.
fn has_rung(sql: &mut Sql) {
    sql.run("SET pgwake.has_rung = ''");
}

#[test]
fn what_comes_early_is_what_is_read() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE t (id bigint PRIMARY KEY, n int);
         CREATE TABLE \"Say \"\"hi\"\"\" (a text, b int, PRIMARY KEY (a, b), v text);
         CREATE TABLE p (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
         CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (10);
         CREATE TABLE all_of_it (id int PRIMARY KEY, note text);
         SELECT pgwake.watch_table('t'), pgwake.watch_table('\"Say \"\"hi\"\"\"'), pgwake.watch_table('p'),
           pgwake.watch_table('all_of_it', payload => 'row')",
    );
    let mut reader = Reader::open(&conninfo, "a");
    let ear = reader.sql.value("SELECT pgwake.lend_ear('a')");
    let (mut events, _) = listening(&conninfo, &[&ear]);
    for (statement, count) in [
        ("INSERT INTO t VALUES (0, 0)", 0),
        ("INSERT INTO t VALUES (1, 1); DELETE FROM t WHERE id = 0", 2),
        ("UPDATE t SET n = 2", 1),
        ("UPDATE t SET id = 9007199254740993", 1),
        ("UPDATE t SET id = -9007199254740993", 1),
        ("DELETE FROM t", 1),
        ("INSERT INTO \"Say \"\"hi\"\"\" VALUES ('a\"\\ \u{fc}', 1, 'v')", 1),
        ("UPDATE \"Say \"\"hi\"\"\" SET a = E'b\\n'", 1),
        ("INSERT INTO p VALUES (1, 1)", 1),
        ("UPDATE p_1 SET n = 2", 1),
        ("TRUNCATE p_1", 1),
        ("INSERT INTO all_of_it VALUES (1, 'a note'); UPDATE all_of_it SET note = 'another'", 2),
        ("TRUNCATE all_of_it", 1),
        ("INSERT INTO t VALUES (1); SAVEPOINT s; INSERT INTO t VALUES (2); ROLLBACK TO s; DELETE FROM t", 2),
        // These are only rung for.
        ("INSERT INTO t SELECT generate_series(1, 3)", 0),
        ("INSERT INTO all_of_it VALUES (2, repeat('x', 8000))", 0),
    ] {
        sql.run(&format!("BEGIN; {statement}; COMMIT"));
        let early = heard(&mut events, &mut sql, &ear);
        let read: Vec<String> = reader.all_raw().iter().map(JsonValue::to_string).collect();
        assert_eq!(early.len(), count, "{statement}: {early:?}");
        if count > 0 {
            let early: Vec<_> = early.iter().map(|text| parsed(text).to_string()).collect();
            assert_eq!(early, read, "{statement}");
        }
    }
    for id in 10..30 {
        sql.run(&format!("{}INSERT INTO t VALUES ({id})", if id == 10 { "BEGIN; " } else { "" }));
    }
    sql.run("COMMIT");
    assert_eq!(heard(&mut events, &mut sql, &ear).len(), 8, "whoever writes much is not kept");
}

fn parsed(text: &str) -> JsonValue {
    serde_json::from_str(text).unwrap()
}

#[test]
fn nobody_but_the_reader_hears_it() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t'); CREATE ROLE early_reader LOGIN;
         GRANT USAGE ON SCHEMA pgwake TO early_reader; GRANT SELECT ON t TO early_reader;
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgwake TO early_reader",
    );
    let as_reader = conninfo.replace("user=postgres", "user=early_reader");
    assert_ne!(as_reader, conninfo);
    let mut reader = Reader::open(&as_reader, "a");
    let mut other = Sql::connect(&as_reader);
    let refused = other.try_run("SELECT pgwake.lend_ear('a')").unwrap_err();
    assert_eq!(refused.sqlstate.unwrap().as_str(), "55000", "it belongs to who has the consumer open");
    let refused = other.try_run("SELECT ear FROM pgwake.consumer").unwrap_err();
    assert_eq!(refused.sqlstate.unwrap().as_str(), "42501");
    let ear = reader.sql.value("SELECT pgwake.lend_ear('a')");
    has_rung(&mut sql);
    let (mut public, _) = listening(&conninfo, &["pgwake"]);
    let (mut events, _) = listening(&conninfo, &[&ear]);
    sql.run("INSERT INTO t VALUES (1)");
    assert_eq!(next(&mut public), Seen::notification("pgwake", ""));
    assert_eq!(heard(&mut events, &mut sql, &ear).len(), 1);
    sql.run("REVOKE SELECT ON t FROM early_reader; INSERT INTO t VALUES (2)");
    assert!(heard(&mut events, &mut sql, &ear).is_empty(), "who may not read may not hear");
    let refused = reader.sql.try_run(&format!("SELECT pgwake.read('a', '{}')", reader.position()));
    assert_eq!(refused.unwrap_err().sqlstate.unwrap().as_str(), "42501");
    let another = reader.sql.value("SELECT pgwake.lend_ear('a')");
    assert_ne!(another, ear);
    drop(reader);
    let mut second = Reader::open(&conninfo, "b");
    // An ear goes with its session, which may take a moment to end.
    while sql.value("SELECT count(ear) FROM pgwake.consumer") != "0" {
        std::thread::sleep(Duration::from_millis(10));
        second.sql.run("SELECT pgwake.rotate()");
    }
}

#[test]
fn no_write_fails_because_it_could_not_be_told_early() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')");
    let (mut events, _) = watching(&conninfo, WatchOptions::new().table("t"));
    settle();
    has_rung(&mut sql);
    sql.run("ALTER TABLE pgwake.consumer RENAME COLUMN ear TO nose; INSERT INTO t VALUES (1)");
    assert_eq!(change(&mut events).0, 1);
}

#[test]
fn many_readers_do_not_fill_the_queue() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY, v text); SELECT pgwake.watch_table('t', payload => 'row')");
    let (mut readers, mut ears) = (Vec::new(), Vec::new());
    for n in 0..8 {
        let mut reader = Reader::open(&conninfo, &format!("r{n}"));
        ears.push(reader.sql.value(&format!("SELECT pgwake.lend_ear('r{n}')")));
        readers.push(reader);
    }
    let ears: Vec<&str> = ears.iter().map(String::as_str).chain(["mark"]).collect();
    let (mut events, _) = listening(&conninfo, &ears);
    has_rung(&mut sql);
    let insert = |id| format!("INSERT INTO t VALUES ({id}, repeat('x', 7000));");
    sql.run(&format!("BEGIN; {} {} COMMIT", insert(1), insert(2)));
    let told: usize = heard(&mut events, &mut sql, "mark").iter().map(String::len).sum();
    assert!((7000..32_768).contains(&told), "{told}");
    assert!(readers.iter_mut().all(|reader| reader.all_raw().len() == 2));
}

#[test]
fn no_serializable_write_fails_because_another_was_told_early() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);
         CREATE TABLE c AS SELECT 1 AS n;
         SELECT pgwake.watch_table('a'), pgwake.watch_table('b')",
    );
    let mut reader = Reader::open(&conninfo, "a");
    reader.sql.run("SELECT pgwake.lend_ear('a')");
    let (mut first, mut second) = (Sql::connect(&conninfo), Sql::connect(&conninfo));
    [&mut sql, &mut first, &mut second].into_iter().for_each(has_rung);
    first.run("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT n FROM c");
    second.run("BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO b VALUES (1)");
    sql.run("BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE c SET n = 2; COMMIT");
    second.run("COMMIT");
    // It comes before the third, and has nothing to do with the second.
    first.run("INSERT INTO a VALUES (1); COMMIT");
    assert_eq!(reader.all_raw().len(), 2);
}

/// A loop that watches, without heartbeat and fallback, which could cover up a wake-up that was lost.
fn watching(conninfo: &str, options: WatchOptions) -> (EventLoop, SessionId) {
    let mut events = EventLoop::new().unwrap();
    let session = events.connect_with(conninfo, SessionOptions::new().heartbeat(Duration::ZERO)).unwrap();
    events.watch_with(session, options.fallback_poll(Duration::ZERO)).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[]));
    assert_eq!(next(&mut events), Seen::listening(&["pgwake"]));
    (events, session)
}

/// Lets the reader find out that nothing is left, after which changes can come early.
fn settle() {
    std::thread::sleep(Duration::from_millis(20));
}

/// The key and the id of the next change.
fn change(events: &mut EventLoop) -> (u64, u64) {
    match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Change(change)) => {
            (change.key_as::<JsonValue>().unwrap()["id"].as_u64().unwrap(), change.id.unwrap())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_still_comes_by_an_earlier_ear_is_not_for_the_caller() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY);
         SELECT pgwake.watch_table('t'), pgwake.watch_table('u')",
    );
    let (mut events, _) = watching(&conninfo, WatchOptions::new().table("t").table("u"));
    settle();
    let ear = sql.value("SELECT ear FROM pgwake.consumer");
    let mut late = Sql::connect(&conninfo);
    has_rung(&mut late);
    late.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT ear FROM pgwake.consumer");
    sql.run("SELECT pgwake.unwatch_table('u')");
    assert!(matches!(next(&mut events), Seen::CommandFailed { .. }));
    sql.run("SELECT pgwake.watch_table('u')");
    assert_eq!(next(&mut events), Seen::listening(&["pgwake"]));
    settle();
    let started = Instant::now();
    while sql.value("SELECT coalesce(ear, '') FROM pgwake.consumer") == ear {
        assert!(started.elapsed() < PATIENCE);
    }
    late.run("INSERT INTO t VALUES (1); COMMIT");
    assert_eq!(change(&mut events).0, 1);
    assert_silent(&mut events, Duration::from_millis(100));
}

/// Nobody may read, so what comes can only have come early.
fn forbid_reading(sql: &mut Sql) {
    sql.run("ALTER FUNCTION pgwake.read RENAME TO read_later");
}

#[test]
fn a_change_comes_with_the_ring_and_is_acknowledged_once_it_is_read() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')");
    let named = || WatchOptions::new().table("t").consumer("me").manual_ack(true);
    let (mut events, session) = watching(&conninfo, named());
    sql.run("INSERT INTO t VALUES (1)");
    let (key, first) = change(&mut events);
    assert_eq!(key, 1);
    assert_silent(&mut events, Duration::from_millis(100));
    forbid_reading(&mut sql);
    sql.run("INSERT INTO t VALUES (2)");
    let (key, id) = change(&mut events);
    assert_eq!(key, 2);
    events.ack(session, id).unwrap();
    assert!(events.ack(session, first).is_err(), "it is acknowledged with the second");
    let mut seen = [next(&mut events), next(&mut events)];
    seen.sort_by_key(|seen| matches!(seen, Seen::CommandFailed { .. }));
    assert!(matches!(&seen[0], Seen::Other(event) if event.contains(&format!("id: {first} }}"))), "{seen:?}");
    assert!(matches!(&seen[1], Seen::CommandFailed { sqlstate, .. } if sqlstate == "42883"), "{seen:?}");
    sql.run("ALTER FUNCTION pgwake.read_later RENAME TO read; INSERT INTO t VALUES (3)");
    let mut acknowledged = Vec::new();
    while acknowledged.last() != Some(&id) {
        match events.next(Some(PATIENCE)).unwrap() {
            Some(Event::Acknowledged(event)) => acknowledged.push(event.id),
            Some(Event::Change(change)) => {
                assert_eq!(change.key_as::<JsonValue>().unwrap()["id"].as_u64(), Some(3));
            }
            other => panic!("{other:?}"),
        }
    }
    drop(events);
    let (mut events, _) = watching(&conninfo, named());
    assert_eq!(change(&mut events).0, 3, "which was not acknowledged");
    assert_silent(&mut events, Duration::from_millis(100));
}

#[test]
fn each_change_is_told_once_and_those_of_a_row_in_their_order() {
    const WRITES: u64 = 400;
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 6) i;
         SELECT pgwake.watch_table('t', payload => 'row')",
    );
    for writers in [1, 3] {
        let (mut events, _) = watching(&conninfo, WatchOptions::new().table("t"));
        settle();
        let (mut seen, mut told) = (HashMap::new(), 0);
        let done: u64 = std::thread::scope(|scope| {
            let write = |random: Random| scope.spawn(|| write(&conninfo, random, WRITES));
            let writers: Vec<_> = (0..writers).map(|_| write(Random::seeded())).collect();
            let mut is_over = false;
            // After the last commit it goes on until nothing comes any more.
            while !is_over {
                let is_done = writers.iter().all(|writer| writer.is_finished());
                match events.next(Some(Duration::from_millis(500))).unwrap() {
                    Some(Event::Change(change)) => {
                        told += 1;
                        let new = change.new_as::<JsonValue>().unwrap();
                        let (id, n) = (new["id"].as_u64().unwrap(), new["n"].as_u64().unwrap());
                        let before = seen.insert(id, n).unwrap_or(n - 1);
                        assert_eq!(before + 1, n, "row {id}");
                    }
                    None => is_over = is_done,
                    other => panic!("{other:?}"),
                }
            }
            writers.into_iter().map(|writer| writer.join().unwrap()).sum()
        });
        assert_eq!(told, done);
        assert_silent(&mut events, Duration::from_millis(50));
    }
}

/// Transactions of one to three statements on random rows, some rolled back; how many changes they committed.
fn write(conninfo: &str, mut random: Random, writes: u64) -> u64 {
    let mut sql = Sql::connect(conninfo);
    let mut committed = 0;
    for _ in 0..writes {
        // In one order, so that they do not deadlock.
        let first = random.below(4) + 1;
        let last = first + random.below(3);
        let updates: String =
            (first..=last).map(|id| format!("UPDATE t SET n = n + 1 WHERE id = {id};")).collect();
        let is_committed = random.below(10) > 0;
        sql.run(&format!("BEGIN; {updates} {}", if is_committed { "COMMIT" } else { "ROLLBACK" }));
        committed += if is_committed { last - first + 1 } else { 0 };
        std::thread::sleep(random.duration_below(Duration::from_millis(4)));
    }
    committed
}
