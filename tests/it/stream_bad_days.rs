//! Streams on bad days: what the server may forget and what not, callers that are slow, servers that stop or
//! freeze, processes that fork, and changes that do not fit into one read.

use crate::common::log::{SETTINGS, Stream, database, log_server, until_free};
use crate::common::random::Random;
use crate::common::{PATIENCE, Sql, fresh_channel, processor_time, signal, start_with_settings, transports};
use pgwake::{Event, EventLoop, StreamOptions, Streaming};
use rustix::process::Signal;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{TryRecvError, channel};
use std::time::{Duration, Instant};

const HEARTBEAT: Duration = Duration::from_millis(500);

/// A table `t` that is published, one that is not, and a slot.
fn prepare(sql: &mut Sql) -> (String, StreamOptions) {
    sql.run("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION p FOR TABLE t");
    sql.run("CREATE TABLE other (v text)");
    let slot = fresh_channel();
    sql.run(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    let options = StreamOptions::new().publication("p").slot(&slot).heartbeat(HEARTBEAT);
    (slot, options)
}

fn number(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap_or_else(|| panic!("{text}"));
    u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap()
}

fn confirmed(sql: &mut Sql, slot: &str) -> u64 {
    let sentence = format!("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{slot}'");
    number(&sql.value(&sentence))
}

fn lsn(event: &Value, name: &str) -> u64 {
    number(event[name].as_str().unwrap_or_else(|| panic!("{event}")))
}

/// Works on, without an event, until it is so.
fn idle_until(stream: &mut Stream, mut is_so: impl FnMut(&mut Stream) -> bool) -> Duration {
    let started = Instant::now();
    while !is_so(stream) {
        assert_eq!(stream.within(Duration::from_millis(20)), None);
        assert!(started.elapsed() < PATIENCE, "it never is so");
    }
    started.elapsed()
}

#[test]
fn nothing_is_acknowledged_that_was_not_proven_and_all_is_when_nothing_is_open() {
    let (conninfo, mut sql) = database("");
    let (slot, options) = prepare(&mut sql);
    let mut stream = Stream::open(&conninfo, options.manual_ack(true));
    let commits = [1, 2, 3].map(|id| {
        sql.run(&format!("INSERT INTO t VALUES ({id}), (-{id})"));
        stream.change();
        lsn(&stream.change(), "commit_lsn")
    });
    // The server's log goes on, and it says so.
    sql.run("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 1000)");
    let end = number(&sql.value("SELECT pg_current_wal_lsn()"));
    let is_heard = |stream: &mut Stream| {
        stream.events.metrics(stream.id).unwrap().received_lsn.is_some_and(|lsn| lsn.0 >= end)
    };
    idle_until(&mut stream, is_heard);
    assert!(confirmed(&mut sql, &slot) <= commits[0], "the first is not acknowledged");
    stream.events.ack(stream.id, commits[0]).unwrap();
    idle_until(&mut stream, |_| confirmed(&mut sql, &slot) > commits[0]);
    let first = confirmed(&mut sql, &slot);
    assert!(first <= commits[1], "the second is not");
    let quiet = Instant::now();
    idle_until(&mut stream, |_| quiet.elapsed() > 3 * HEARTBEAT);
    assert_eq!(confirmed(&mut sql, &slot), first, "a sign of life is no proof");
    assert!(stream.events.ack(stream.id, end + (1 << 20)).is_err(), "nothing was delivered there");
    stream.events.ack(stream.id, commits[2]).unwrap();
    idle_until(&mut stream, |_| confirmed(&mut sql, &slot) >= end);
}

#[test]
fn an_idle_slot_follows_what_is_written_elsewhere() {
    let megabytes = std::env::var("PGWAKE_TEST_UNPUBLISHED_MB").map_or(100, |mb| mb.parse().unwrap());
    let (conninfo, mut sql) = database("");
    let (slot, options) = prepare(&mut sql);
    let mut stream = Stream::open(&conninfo, options);
    let mut writer = Sql::connect(&conninfo);
    let writes = std::thread::spawn(move || {
        writer.run("ALTER TABLE other ALTER v SET STORAGE PLAIN");
        for _ in 0..megabytes {
            writer.run("INSERT INTO other SELECT repeat('x', 7000) FROM generate_series(1, 150)");
        }
        number(&writer.value("SELECT pg_current_wal_lsn()"))
    });
    idle_until(&mut stream, |_| writes.is_finished());
    let end = writes.join().unwrap();
    let took = idle_until(&mut stream, |_| confirmed(&mut sql, &slot) >= end);
    println!("{megabytes} MB were written elsewhere: the slot followed {took:.1?} after the last of them");
}

/// How long a server takes to stop while a stream of these options is read, after some changes.
fn stop_time(changes: u32, is_acknowledged: bool) -> Duration {
    let mut server = start_with_settings(&SETTINGS);
    let (conninfo, mut sql) = (server.conninfo(), Sql::connect(&server.conninfo()));
    let (_, options) = prepare(&mut sql);
    let (is_over, (tells, told)) = (AtomicBool::new(false), channel());
    std::thread::scope(|scope| {
        let (is_over, conninfo) = (&is_over, &conninfo);
        scope.spawn(move || {
            let mut stream = Stream::open(conninfo, options.manual_ack(!is_acknowledged));
            tells.send(()).unwrap();
            while !is_over.load(Ordering::SeqCst) {
                if stream.within(Duration::from_millis(50)).is_some_and(|event| event["event"] == "change") {
                    tells.send(()).unwrap();
                }
            }
        });
        told.recv_timeout(PATIENCE).unwrap();
        for id in 0..changes {
            sql.run(&format!("INSERT INTO t VALUES ({id})"));
            told.recv_timeout(PATIENCE).unwrap();
        }
        drop(sql);
        let pid_file = server.directory().join("data/postmaster.pid");
        let pid = std::fs::read(&pid_file).unwrap()[..5].to_vec();
        let started = Instant::now();
        let restarts = scope.spawn(move || server.restart("fast").map(|()| server));
        while std::fs::read(&pid_file).is_ok_and(|now| now.starts_with(&pid)) {
            assert!(started.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(1));
        }
        let took = started.elapsed();
        restarts.join().unwrap().unwrap();
        is_over.store(true, Ordering::SeqCst);
        took
    })
}

#[test]
fn a_server_stops_soon_whatever_its_reader_has_left_open() {
    let (idle, caught_up, lagging) = (stop_time(0, true), stop_time(10, true), stop_time(10, false));
    println!(
        "it stops in {idle:.1?} when idle, {caught_up:.1?} when read, {lagging:.1?} when not acknowledged"
    );
    // Without an answer it would wait for ever; without a busy machine it takes 0.2 s, and 5.2 s at last.
    assert!(idle.max(caught_up) < Duration::from_secs(4), "{idle:?} {caught_up:?}");
    assert!(lagging < Duration::from_secs(10), "{lagging:?}");
}

#[test]
fn that_a_server_was_stopped_is_one_line() {
    let mut server = start_with_settings(&SETTINGS);
    let (_, options) = prepare(&mut Sql::connect(&server.conninfo()));
    let mut stream = Stream::open(&server.conninfo(), options);
    std::thread::scope(|scope| {
        scope.spawn(|| server.restart("fast").unwrap());
        let lost = stream.next();
        assert_eq!(lost["event"], "disconnected");
        // What it says depends on whether it had read all that was written to it, or had only just begun.
        assert!(["08006", "57P01"].contains(&lost["sqlstate"].as_str().unwrap()), "{lost}");
        let message = lost["message"].as_str().unwrap();
        assert!(!message.contains(['\n', '\t']) && !message.contains("probably"), "{message}");
    });
}

#[test]
fn what_was_acknowledged_before_a_disconnect_does_not_come_again() {
    let (name, mut sql) = database("");
    let database = sql.value("SELECT current_database()");
    let (slot, options) = prepare(&mut sql);
    let options = options.manual_ack(true);
    let (going_on, goes_on) = channel::<()>();
    std::thread::scope(|scope| {
        // It goes with this closure, and the thread ends, also when it panics.
        let _going_on = going_on;
        let name = &name;
        scope.spawn(move || {
            let mut writer = Sql::connect(name);
            // Now the server is busy when it is left, and now it waits.
            for id in 0.. {
                if goes_on.try_recv() == Err(TryRecvError::Disconnected) {
                    return;
                }
                let rows = if id % 100 < 50 { 100 } else { 1 };
                let many = format!("generate_series({}, {}) AS i", id * 100, id * 100 + rows - 1);
                writer.run(&format!("INSERT INTO t SELECT i, repeat('x', 1000) FROM {many}"));
            }
        });
        let mut last = 0;
        for round in 0..12 {
            let (transport, conninfo) = &transports(log_server())[round % 3];
            let conninfo = conninfo.replace("dbname=postgres", &format!("dbname={database}"));
            let mut stream = Stream::open(&conninfo, options.clone());
            let mut position = lsn(&stream.change(), "commit_lsn");
            assert!(position > last, "{transport}: a change of {position} came again after {last}");
            for _ in 0..100 * round {
                position = lsn(&stream.change(), "commit_lsn");
            }
            // All of that one.
            let next = loop {
                let next = lsn(&stream.change(), "commit_lsn");
                if next > position {
                    break next;
                }
            };
            stream.events.ack(stream.id, position).unwrap();
            if round % 2 == 1 {
                // The status is sent, but the server writes and does not read.
                stream.events.send_status(stream.id).unwrap();
            }
            stream.events.disconnect(stream.id).unwrap();
            drop(stream);
            last = position;
            until_free(&mut sql, &slot);
            let confirmed = confirmed(&mut sql, &slot);
            assert!(confirmed > position && confirmed <= next, "{transport}: {confirmed} {position} {next}");
        }
    });
}

#[test]
fn a_forked_child_says_nothing_to_the_server_in_the_name_of_its_parent() {
    let (conninfo, mut sql) = database("");
    let (slot, options) = prepare(&mut sql);
    let mut stream = Stream::open(&conninfo, options.manual_ack(true));
    sql.run("INSERT INTO t VALUES (1)");
    let position = lsn(&stream.change(), "commit_lsn");
    stream.events.ack(stream.id, position).unwrap();
    // SAFETY: the child drops the loop, as it should be able to, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(stream);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(7) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 7);
    std::thread::sleep(Duration::from_millis(100));
    assert!(confirmed(&mut sql, &slot) <= position, "the parent has not told it yet");
    sql.run("INSERT INTO t VALUES (2)");
    assert_eq!(stream.change()["new"]["id"], 2);
    idle_until(&mut stream, |_| confirmed(&mut sql, &slot) > position);
}

#[test]
fn a_caller_may_take_longer_than_heartbeats_for_a_transaction_that_was_held_back() {
    let (conninfo, mut sql) = database("");
    let (slot, options) = prepare(&mut sql);
    let options = options.streaming(Streaming::On).memory_max(100_000);
    let mut stream = Stream::open(&conninfo, options);
    sql.run("INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 5000) AS i");
    for id in 1..=5000 {
        assert_eq!(stream.change()["new"]["id"], id);
        if id % 100 == 0 {
            std::thread::sleep(HEARTBEAT / 5);
        }
    }
    let end = number(&sql.value("SELECT pg_current_wal_lsn()"));
    idle_until(&mut stream, |_| confirmed(&mut sql, &slot) >= end);
}

#[test]
fn a_snapshot_waits_for_a_lock_for_as_long_as_it_takes() {
    let (conninfo, mut sql) = database("");
    let (_, options) = prepare(&mut sql);
    sql.run("INSERT INTO t VALUES (1); BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE");
    let options = options.slot(fresh_channel()).create_slot(true).snapshot(true);
    let mut stream = Stream::start(&conninfo, options);
    assert_eq!(stream.within(4 * HEARTBEAT), None);
    sql.run("COMMIT");
    assert_eq!(stream.next()["event"], "listening");
    assert_eq!(stream.change()["snapshot"], true);
}

#[test]
fn a_frozen_server_process_is_noticed_and_ended() {
    let (conninfo, mut sql) = database("");
    let (slot, options) = prepare(&mut sql);
    let mut stream = Stream::open(&conninfo, options);
    let active = format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}'");
    let pid = sql.value(&active).parse().unwrap();
    let frozen_at = Instant::now();
    signal(pid, Signal::STOP);
    assert_eq!(stream.next()["sqlstate"], "08006");
    println!("it was noticed after {:.1?}", frozen_at.elapsed());
    assert!(stream.within(HEARTBEAT).is_none(), "the slot is waited for");
    signal(pid, Signal::CONT);
    assert_eq!(stream.next()["event"], "listening");
    sql.run("INSERT INTO t VALUES (1)");
    assert_eq!(stream.change()["new"]["id"], 1);
}

#[test]
fn a_frozen_server_is_noticed_while_rows_wait_to_be_acknowledged() {
    let (conninfo, mut sql) = database("");
    let (slot, options) = (fresh_channel(), prepare(&mut sql).1);
    sql.run("INSERT INTO t VALUES (1)");
    let options = options.slot(&slot).create_slot(true).snapshot(true).manual_ack(true);
    let mut stream = Stream::open(&conninfo, options);
    assert_eq!(stream.change()["new"]["id"], 1);
    assert!(stream.within(2 * HEARTBEAT).is_none());
    let active = "SELECT active_pid FROM pg_replication_slots WHERE temporary AND \
        database = current_database()";
    let pid = sql.value(active).parse().unwrap();
    signal(pid, Signal::STOP);
    assert_eq!(stream.next()["sqlstate"], "08006");
    // It still has the slot of before, and the rows come as they are now.
    assert_eq!(stream.next()["event"], "gap");
    signal(pid, Signal::CONT);
    let row = stream.change();
    assert_eq!(row["new"]["id"], 1);
    let lsn: pgwake::Lsn = row["commit_lsn"].as_str().unwrap().parse().unwrap();
    stream.events.ack(stream.id, lsn.0).unwrap();
    sql.run("INSERT INTO t VALUES (2)");
    assert_eq!(stream.change()["new"]["id"], 2);
}

#[test]
fn a_change_that_takes_many_reads_arrives_at_once() {
    let mut random = Random::seeded();
    for (transport, conninfo) in transports(log_server()) {
        let (_, mut sql) = database("");
        let name = sql.value("SELECT current_database()");
        let conninfo = conninfo.replace("dbname=postgres", &format!("dbname={name}"));
        let (_, options) = prepare(&mut sql);
        let mut events = EventLoop::new().unwrap();
        events.stream(&conninfo, options.heartbeat(Duration::ZERO)).unwrap();
        assert!(matches!(events.next(Some(PATIENCE)).unwrap(), Some(Event::Listening(_))));
        let ((asks, asked), (tells, told)) = (channel(), channel());
        let writer = std::thread::spawn(move || {
            for (id, bytes) in asked.iter().enumerate() {
                sql.run(&format!("INSERT INTO t VALUES ({id}, repeat('x', {bytes}))"));
                tells.send(Instant::now()).unwrap();
            }
        });
        let mut late = Vec::new();
        for _ in 0..40 {
            let bytes = 20_000 + random.below(130_001);
            asks.send(bytes).unwrap();
            let arrived = loop {
                match events.next(Some(PATIENCE)).unwrap().expect("a change was expected, and none came") {
                    Event::Change(change) => {
                        assert!(change.new.unwrap().len() as u64 > bytes);
                        break Instant::now();
                    }
                    Event::Schema(_) => {}
                    other => panic!("{other:?}"),
                }
            };
            late.push(arrived.saturating_duration_since(told.recv_timeout(PATIENCE).unwrap()));
        }
        drop(asks);
        writer.join().unwrap();
        late.sort();
        println!(
            "{transport}: 20 to 150 KB arrive {:.2?} after the commit, at most {:.2?}",
            late[20], late[39]
        );
        assert!(late[20] < Duration::from_millis(50), "{late:?}");
    }
}

/// Half of how long notifications take, in a loop of a hundred listeners; each of them must be heard.
fn median_of_listeners(events: &mut EventLoop, channels: &[String]) -> Duration {
    let started = Instant::now();
    let conninfo = log_server().conninfo();
    let mut latencies = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut sql = Sql::connect(&conninfo);
            for round in 0..10 {
                for channel in channels {
                    let sent_at = started.elapsed().as_nanos();
                    sql.notify(channel, &format!("{round} {sent_at}"));
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        while latencies.len() < 10 * channels.len() {
            match events.next(Some(PATIENCE)).unwrap().expect("a notification was expected, and none came") {
                Event::Notification(notification) => {
                    let payload = String::from_utf8(notification.payload.to_vec()).unwrap();
                    let sent_at = payload.split_once(' ').unwrap().1.parse().unwrap();
                    latencies.push(started.elapsed() - Duration::from_nanos(sent_at));
                }
                Event::Change(_) | Event::Schema(_) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    latencies.sort();
    latencies[latencies.len() / 2]
}

#[test]
fn listeners_beside_a_busy_stream_hear_everything() {
    let (conninfo, mut sql) = database("");
    let (_, options) = prepare(&mut sql);
    let mut events = EventLoop::new().unwrap();
    let channels: Vec<_> = (0..100).map(|_| fresh_channel()).collect();
    for channel in &channels {
        let session = events.connect(&log_server().conninfo()).unwrap();
        events.listen(session, channel).unwrap();
    }
    for _ in &channels {
        let event = events.next(Some(PATIENCE)).unwrap();
        assert!(matches!(event, Some(Event::Listening(_))), "{event:?}");
    }
    let without = median_of_listeners(&mut events, &channels);
    events.stream(&conninfo, options).unwrap();
    assert!(matches!(events.next(Some(PATIENCE)).unwrap(), Some(Event::Listening(_))));
    let (going_on, goes_on) = channel::<()>();
    let writes = std::thread::spawn(move || {
        for id in 0.. {
            if goes_on.try_recv() == Err(TryRecvError::Disconnected) {
                return id;
            }
            sql.run(&format!("INSERT INTO t VALUES ({id})"));
        }
        0
    });
    let with = median_of_listeners(&mut events, &channels);
    drop(going_on);
    let written = writes.join().unwrap();
    println!("listeners hear after {without:.1?}, beside a stream of {written} changes after {with:.1?}");
}

#[test]
fn a_stream_that_waits_sleeps() {
    let (conninfo, mut sql) = database("");
    let (slot, options) = prepare(&mut sql);
    let options = options.manual_ack(true);
    let mut unacknowledged = Stream::open(&conninfo, options.clone());
    sql.run("INSERT INTO t VALUES (1)");
    unacknowledged.change();
    let mut busy = Stream::start(&conninfo, options.clone());
    let idle = options.clone().slot(fresh_channel()).create_slot(true);
    let mut idle = Stream::open(&conninfo, idle);
    let mut refused = Stream::start("host=127.0.0.1 port=1", options);
    assert_eq!(refused.next()["event"], "disconnected");
    for (what, stream) in [
        ("unacknowledged", &mut unacknowledged),
        ("busy", &mut busy),
        ("idle", &mut idle),
        ("refused", &mut refused),
    ] {
        let (before, started) = (processor_time(), Instant::now());
        while started.elapsed() < Duration::from_secs(2) {
            let event = stream.within(Duration::from_secs(2));
            assert!(event.is_none_or(|event| event["event"] == "disconnected"));
        }
        let spent = processor_time() - before;
        println!("{what}: {spent:.1?} of a processor in two seconds");
        assert!(spent < Duration::from_millis(200), "{what}: {spent:?}");
    }
    drop((busy, slot));
}
