//! `--to`: events are handed to a child that answers in each way there is, good or bad. Nothing is lost, what
//! is acknowledged is stored, and what the child did is said.
#![cfg(feature = "command")]

use crate::common::command::{Running, pgwake, run};
use crate::common::error_table::hold;
use crate::common::log::{database, has, until_free};
use crate::common::sink::Sink;
use crate::common::{PATIENCE, Sql, fresh_channel, server, signal};
use rustix::process::Signal;
use std::process::Output;
use std::time::{Duration, Instant};

/// A table in a database of its own, and the name of a slot that no other test has.
fn orders() -> (String, Sql, String) {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE orders (id int PRIMARY KEY)");
    let slot = sql.value("SELECT 'deliver_' || current_database()");
    (conninfo, sql, slot)
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ends a run in good order; what it said on stderr, and its status.
fn end(mut running: Running) -> (String, i32) {
    signal(running.child.id() as i32, Signal::TERM);
    let said = running.rest_of_stderr();
    (said, running.status())
}

/// What a slot's position covers: changes behind it come again.
fn left(sql: &mut Sql, slot: &str) -> u64 {
    until_free(sql, slot);
    let peek = format!(
        "SELECT count(*) FROM pg_logical_slot_peek_binary_changes('{slot}', NULL, NULL, 'proto_version', \
         '1', 'publication_names', (SELECT pubname FROM pg_publication LIMIT 1)) \
         WHERE get_byte(data, 0) = 73"
    );
    sql.value(&peek).parse().unwrap()
}

/// Streams 50 rows to a child that is bad for so many runs, and good afterwards.
fn stream_to(mode: &str, bad_runs: u32, options: &[&str]) -> (Sink, String) {
    let (dsn, mut sql, slot) = orders();
    let sink = Sink::new();
    let arguments = ["-d", &dsn, "stream", "--table", "orders", "--slot", &slot];
    let mut running = Running::start(&[&arguments[..], options, &sink.to(mode, bad_runs)].concat());
    // A slot waits for the transactions that run: a child may be the first to be heard of.
    let mut said = String::new();
    while !said.contains("listening") {
        let line = running.stderr_line();
        assert!(!line.is_empty(), "it ended: {said}");
        said += &line;
    }
    for id in 1..=50 {
        sql.run(&format!("INSERT INTO orders VALUES ({id})"));
    }
    wait_until("all rows are stored", || sink.ids().len() == 50);
    let (rest, status) = end(running);
    said += &rest;
    assert_eq!(status, 0, "{said}");
    assert_eq!(sink.ids(), (1..=50).collect::<Vec<_>>(), "none is missing, in their order");
    assert_eq!(left(&mut sql, &slot), 0, "not all is acknowledged: {said}");
    sql.run(&format!("SELECT pg_drop_replication_slot('{slot}')"));
    (sink, said)
}

#[test]
fn what_a_child_has_stored_is_acknowledged_and_nothing_comes_twice() {
    let (sink, said) = stream_to("good", 0, &[]);
    assert_eq!((sink.runs(), sink.changes().len()), (1, 50), "{said}");
    let (sink, said) = stream_to("thousand", 1, &[]);
    assert_eq!((sink.runs(), sink.changes().len()), (1, 50), "{said}");
}

#[test]
fn a_slot_lasts_only_from_when_the_rows_of_its_snapshot_are_stored() {
    let (dsn, mut sql, slot) = orders();
    sql.run("INSERT INTO orders SELECT generate_series(1, 50)");
    let sink = Sink::new();
    let arguments = ["-d", &dsn, "stream", "--table", "orders", "--slot", &slot, "--snapshot"];
    let start = || Running::start(&[&arguments[..], &sink.to("unanswered", 1)].concat());
    let slots = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}'");
    let mut running = start();
    wait_until("a child has all rows", || sink.changes().len() == 50);
    // Longer than anybody waits before looking again.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(sql.value(&slots), "0");
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    let running = start();
    wait_until("the slot lasts", || sql.value(&slots) == "1");
    assert_eq!((sink.ids().len(), sink.changes().len()), (50, 100), "each row came again, and was stored");
    sql.run("INSERT INTO orders VALUES (51)");
    wait_until("a change follows", || sink.ids().len() == 51);
    let (said, status) = end(running);
    assert_eq!(status, 0, "{said}");
    assert_eq!(left(&mut sql, &slot), 0, "not all is acknowledged: {said}");
    sql.run(&format!("SELECT pg_drop_replication_slot('{slot}')"));
}

#[test]
fn what_was_prepared_before_its_slot_knew_of_that_is_not_taken_for_what_comes_again() {
    if !has(15, "streams of prepared transactions") {
        return;
    }
    let (dsn, mut sql, slot) = orders();
    sql.run("CREATE PUBLICATION p FOR TABLE orders");
    sql.run(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    sql.run(&format!("BEGIN; INSERT INTO orders VALUES (1); PREPARE TRANSACTION '{slot}'"));
    sql.run(&format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_insert_lsn())"));
    let sink = Sink::new();
    let arguments = ["-d", &dsn, "stream", "--publication", "p", "--slot", &slot, "--two-phase"];
    let running = Running::start(&[&arguments[..], &sink.to("good", 0)].concat());
    let pid = format!("SELECT coalesce(active_pid, 0) FROM pg_replication_slots WHERE slot_name = '{slot}'");
    wait_until("it streams", || sql.value(&pid) != "0");
    sql.run("INSERT INTO orders VALUES (2)");
    wait_until("the first is stored", || sink.ids() == [2]);
    let end = sql.value("SELECT pg_current_wal_insert_lsn()");
    let is_confirmed =
        format!("SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = '{slot}'");
    wait_until("it is acknowledged", || sql.value(&is_confirmed) == "t");
    let before = sql.value(&pid);
    sql.run(&format!("SELECT pg_terminate_backend({before}, 20000)"));
    wait_until("it streams again", || !["0", &before].contains(&&*sql.value(&pid)));
    sql.run(&format!("COMMIT PREPARED '{slot}'"));
    wait_until("it is stored", || sink.ids() == [2, 1]);
    let (said, status) = self::end(running);
    assert_eq!(status, 0, "{said}");
    until_free(&mut sql, &slot);
    sql.run(&format!("SELECT pg_drop_replication_slot('{slot}')"));
}

#[test]
fn a_child_that_answers_out_of_order_and_twice_loses_nothing() {
    let (sink, said) = stream_to("unordered", 1, &["--window", "7"]);
    assert_eq!(sink.runs(), 1, "an answer that says less than one before it is passed over: {said}");
}

#[test]
fn a_child_that_breaks_the_rules_is_ended_and_the_next_goes_on() {
    for (mode, words) in [
        ("garbage", "said \"hello world\", which is no answer"),
        ("never", "answered for FFFFFFFF/FFFFFFFF/7, which it does not have"),
        ("ends", "ended: exit status: 3"),
        ("cut", "ended: exit status: 0"),
        ("closes", "closed its stdin"),
        ("shuts", "closed its stdout"),
    ] {
        let (sink, said) = stream_to(mode, 1, &[]);
        assert!(said.contains(words) && sink.runs() == 2, "{mode}: {} runs: {said}", sink.runs());
    }
}

#[test]
fn a_child_that_answers_nothing_is_ended_after_its_time() {
    for (mode, words) in [
        ("silent", "has not answered for 3s, the oldest event at "),
        ("deaf", "has not answered for 3s, the oldest event at "),
        ("mute", "has not said `ready` within 3s"),
        ("stubborn", "has not answered for 3s, the oldest event at "),
    ] {
        let (sink, said) = stream_to(mode, 1, &["--ack-timeout", "3s"]);
        assert!(said.contains(words) && sink.runs() == 2, "{mode}: {} runs: {said}", sink.runs());
        let first = sink.pids()[0];
        assert!(!std::path::Path::new(&format!("/proc/{first}")).exists(), "{mode}: it lives on");
    }
}

#[test]
fn a_nak_brings_all_from_its_position_again_to_the_same_child() {
    let (sink, said) = stream_to("naks", 1, &[]);
    assert!(said.contains("again, in ") && said.contains("the sink is away"), "{said}");
    assert_eq!(sink.runs(), 1);
}

#[test]
fn what_is_dropped_is_in_the_file_of_dead_letters() {
    let (dsn, mut sql, slot) = orders();
    let sink = Sink::new();
    let file = sink.path("dead");
    let arguments = ["-d", &dsn, "stream", "--table", "orders", "--slot", &slot, "--dead-letters", &file];
    let mut running = Running::start(&[&arguments[..], &sink.to("drops", 1)].concat());
    assert!(running.stderr_line().contains("listening"));
    sql.run("INSERT INTO orders SELECT generate_series(1, 10)");
    let dead = || std::fs::read_to_string(&file).unwrap_or_default();
    wait_until("all rows are dealt with", || sink.ids().len() == 5 && dead().lines().count() == 5);
    let (said, status) = end(running);
    assert!(status == 0 && said.contains("is a dead letter: an even one"), "{status}: {said}");
    assert_eq!(left(&mut sql, &slot), 0, "they are done with");
    for line in dead().lines() {
        let letter: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&letter["event"], &letter["reason"]), (&"change".into(), &"an even one".into()));
        assert!(letter["position"].is_string() && letter["key"]["id"].as_u64().unwrap().is_multiple_of(2));
    }
    sql.run(&format!("SELECT pg_drop_replication_slot('{slot}')"));
}

#[test]
fn an_event_on_which_the_child_fails_again_and_again_ends_it_or_is_set_aside() {
    let (dsn, mut sql, slot) = orders();
    sql.run("CREATE PUBLICATION p FOR TABLE orders");
    let arguments = ["-d", &dsn, "stream", "--publication", "p", "--slot", &slot];
    let sink = Sink::new();
    let mut running = Running::start(&[&arguments[..], &sink.to("poisoned", 1000)].concat());
    assert!(running.stderr_line().contains("listening"));
    sql.run("INSERT INTO orders SELECT generate_series(1, 3)");
    let said = running.rest_of_stderr();
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("python3 fails on the event at ") && last.contains("--poison drop"), "{said}");
    assert_eq!(running.status(), 1);
    assert_eq!(sink.ids(), [1], "what it does not fail on is stored");
    let file = sink.path("dead");
    let options = ["--poison", "drop", "--dead-letters", &file];
    let running = Running::start(&[&arguments[..], &options, &sink.to("poisoned", 1000)].concat());
    wait_until("the next is stored", || sink.ids() == [1, 3]);
    let (said, status) = end(running);
    assert!(status == 0 && said.contains("is a dead letter"), "{said}");
    let letter: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(letter["key"]["id"], 2);
    assert_eq!(left(&mut sql, &slot), 0);
    sql.run(&format!("SELECT pg_drop_replication_slot('{slot}')"));
}

#[test]
fn what_is_not_stored_by_the_end_is_said_and_comes_again() {
    let (dsn, mut sql, slot) = orders();
    sql.run("CREATE PUBLICATION p FOR TABLE orders");
    let arguments = ["-d", &dsn, "stream", "--publication", "p", "--slot", &slot];
    let sink = Sink::new();
    let late = ["--count", "2", "--ack-timeout", "4s"];
    let mut running = Running::start(&[&arguments[..], &late, &sink.to("stubborn", 1000)].concat());
    assert!(running.stderr_line().contains("listening"));
    sql.run("INSERT INTO orders SELECT generate_series(1, 2)");
    let said = running.rest_of_stderr();
    assert!(said.contains("were not stored within 4s of the end"), "{said}");
    assert_eq!(running.status(), 1);
    for pid in sink.pids() {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "it lives on");
    }
    let next = pgwake(&[&arguments[..], &["--count", "2"], &sink.to("good", 0)].concat()).output().unwrap();
    assert_eq!((next.status.code(), sink.ids()), (Some(0), vec![1, 2]));
    assert_eq!(left(&mut sql, &slot), 0, "{}", String::from_utf8_lossy(&next.stderr));
    sql.run(&format!("SELECT pg_drop_replication_slot('{slot}')"));
}

#[test]
fn while_the_window_is_full_nothing_is_read_and_the_server_hears_of_us() {
    let (dsn, mut sql, slot) = orders();
    sql.run("CREATE PUBLICATION p FOR TABLE orders");
    sql.run("CREATE TABLE fillers (id int PRIMARY KEY, text text); ALTER PUBLICATION p ADD TABLE fillers");
    let sink = Sink::new();
    let options = ["--window", "100", "--ack-timeout", "1h"];
    let name = format!("{dsn} options='-c wal_sender_timeout=3s'");
    let arguments = ["-d", &name, "stream", "--publication", "p", "--slot", &slot];
    let mut running = Running::start(&[&arguments[..], &options, &sink.to("silent", 1)].concat());
    assert!(running.stderr_line().contains("listening"));
    sql.run("INSERT INTO fillers SELECT i, repeat('x', 1000) FROM generate_series(1, 100000) i");
    let pid = running.child.id();
    let memory = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    wait_until("the child has some", || sink.runs() == 1);
    let sent = "SELECT sent_lsn FROM pg_stat_replication WHERE application_name = 'pgwake' \
        AND pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = '$')"
        .replace('$', &slot);
    let (mut before, mut same) = (sql.value(&sent), 0);
    wait_until("nothing is sent any more", || {
        std::thread::sleep(Duration::from_millis(100));
        let now = sql.value(&sent);
        same = if now == before { same + 1 } else { 0 };
        before = now;
        same > 5
    });
    // Twice the time after which the server ends a connection that it hears nothing of.
    let (begin, began) = (memory(), Instant::now());
    while began.elapsed() < Duration::from_secs(6) {
        std::thread::sleep(Duration::from_millis(100));
        let active = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}'");
        assert_eq!(sql.value(&active), "t", "the server has ended the connection");
    }
    assert!(memory() < begin + 4096, "{} kB, then {} kB", begin, memory());
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    wait_until("the slot is free", || {
        sql.try_run(&format!("SELECT pg_drop_replication_slot('{slot}')")).is_ok()
    });
}

#[test]
fn what_is_watched_is_acknowledged_once_it_is_stored() {
    let (dsn, mut sql, _) = orders();
    let sink = Sink::new();
    let watch = ["-d", &dsn, "watch", "orders", "--name", "billing"];
    let mut first = Running::start(
        &[&watch[..], &["--window", "4", "--ack-timeout", "1h"], &sink.to("silent", 1)].concat(),
    );
    assert!(first.stderr_line().contains("listening"));
    sql.run("INSERT INTO orders SELECT generate_series(1, 10)");
    wait_until("it has a child", || sink.runs() == 1);
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let second = Running::start(&[&watch[..], &sink.to("good", 0)].concat());
    wait_until("all are stored", || sink.ids().len() == 10);
    assert_eq!(end(second).1, 0);
    let nothing = pgwake(&[&watch[..], &["--for", "1s"], &sink.to("good", 0)].concat()).output().unwrap();
    assert_eq!((nothing.status.code(), sink.changes().len()), (Some(0), 10), "it was acknowledged");
}

#[test]
fn what_a_child_has_of_the_outbox_is_not_handed_to_it_again_behind_an_outage() {
    let (dsn, mut sql, _) = orders();
    let sink = Sink::new();
    let arguments = ["-d", &dsn, "watch", "orders"];
    let mut running = Running::start(&[&arguments[..], &sink.to("good", 0)].concat());
    assert!(running.stderr_line().contains("listening"));
    sql.run("INSERT INTO orders VALUES (1)");
    wait_until("the first is stored", || sink.ids() == [1]);
    let child = sink.pids()[0] as i32;
    signal(child, Signal::STOP);
    sql.run("INSERT INTO orders SELECT generate_series(2, 10)");
    let reader = "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE datname = current_database() \
                  AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
    // Longer than it takes to read them, also anew.
    std::thread::sleep(Duration::from_millis(500));
    let before = sql.value(reader);
    assert_eq!(sql.value(&format!("SELECT pg_terminate_backend({before}, 20000)")), "t");
    wait_until("there is another session", || !["0", &before].contains(&&*sql.value(reader)));
    std::thread::sleep(Duration::from_millis(1000));
    signal(child, Signal::CONT);
    sql.run("INSERT INTO orders VALUES (11)");
    wait_until("all are stored", || sink.ids().len() == 11);
    let (said, status) = end(running);
    assert_eq!((status, sink.runs()), (0, 1), "{said}");
    assert_eq!(sink.changes().len(), 11, "{:?}", sink.changes());
}

#[test]
fn events_without_a_position_get_a_running_number() {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let sink = Sink::new();
    let listen = ["-d", &dsn, "listen", &channel, "--count", "3"];
    let mut running = Running::start(&[&listen[..], &sink.to("garbage", 1)].concat());
    assert!(running.stderr_line().contains("listening"));
    let mut sql = Sql::connect(&dsn);
    (1..=3).for_each(|i| sql.notify(&channel, &i.to_string()));
    let said = running.rest_of_stderr();
    assert_eq!(running.status(), 0, "{said}");
    let stored = sink.lines();
    let payloads: Vec<_> = stored.iter().map(|(_, payload)| payload.as_str()).collect();
    assert_eq!(payloads, ["\"1\"", "\"2\"", "\"3\""], "{said}");
    let numbers: Vec<u64> = stored.iter().map(|(position, _)| position.parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

#[test]
fn rows_of_a_cursor_are_acknowledged_once_they_are_stored() {
    let (dsn, mut sql) = database("");
    sql.run("CREATE TABLE log (id int PRIMARY KEY, xid xid8 NOT NULL DEFAULT pg_current_xact_id())");
    sql.run("INSERT INTO log SELECT generate_series(1, 10)");
    let sink = Sink::new();
    let poll = ["-d", &dsn, "poll", "SELECT * FROM log", "--cursor", "c", "--from-start", "--order-by", "id"];
    let rest = ["--every", "20ms", "--page-rows", "1"];
    let of = |count: &str, mode: &str, runs: u32| {
        let arguments = [&poll[..], &rest, &["--count", count, "--ack-timeout", "4s"], &sink.to(mode, runs)];
        pgwake(&arguments.concat()).output().unwrap()
    };
    let output = of("1", "stubborn", 1000);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("1 event was not stored"), "{said}");
    assert_eq!(of("1", "good", 0).status.code(), Some(0));
    let first = sink.lines().len();
    assert!(first >= 1, "what was not stored came again");
}

#[test]
fn what_a_child_leaves_behind_in_its_group_is_ended() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = directory.path().join("pid");
    let script = "(trap '' TERM; sleep 1000) & echo $! >$0; echo ready; cat >/dev/null";
    let to = ["--for", "300ms", "--to", "sh", "-c", script, file.to_str().unwrap()];
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    assert!(run(&[&["-d", &dsn, "listen", &channel], &to[..]].concat()).status.success());
    let pid = std::fs::read_to_string(&file).unwrap();
    let process = format!("/proc/{}/cwd", pid.trim());
    wait_until("it is ended, too", || std::path::Path::new(&process).read_link().is_err());
}

/// Listens, and is notified until it ends.
fn listen(arguments: &[&str]) -> Output {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let mut child = pgwake(&[&["-d", &dsn, "listen", &channel], arguments].concat()).spawn().unwrap();
    let mut sql = Sql::connect(&dsn);
    while child.try_wait().unwrap().is_none() {
        sql.notify(&channel, "x");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn what_cannot_be_handed_over_has_its_sentence() {
    let nowhere = |arguments: &[&str]| run(&[&["-d", "host=/nonexistent"], arguments].concat());
    let stream = |arguments: &[&str]| nowhere(&[&["stream", "--table", "t"], arguments].concat());
    let to = ["--to", "cat"];
    let once = ["--count", "1", "--ack-timeout", "1s", "--to", "sh", "-c", "echo ready; exec sleep 1000"];
    let situations = vec![
        ("`--poison drop` without a file", nowhere(&["listen", "c", "--poison", "drop", "--to", "cat"])),
        ("a batch without a size", nowhere(&["listen", "c", "--batch", "many", "cat"])),
        ("a batch without a command", nowhere(&["listen", "c", "--batch", "5"])),
        ("`--streaming early`", stream(&[&["--streaming", "early"], &to[..]].concat())),
        ("`--ack-timeout` without time", nowhere(&["listen", "c", "--ack-timeout", "0s", "--to", "cat"])),
        ("`--stats` without an interval", nowhere(&["listen", "c", "--stats", "0s"])),
        ("the process cannot be started", listen(&["--to", "/no/such/program"])),
        ("the file of dead letters cannot be opened", listen(&["--dead-letters", "/no/file", "--to", "cat"])),
        ("the file of figures cannot be written", listen(&["--metrics", "/no/file"])),
        ("an event is dropped, and there is no file", listen(&["--batch", "1", "sh", "-c", "exit 65"])),
        ("the process fails on one event", listen(&["--batch", "1", "sh", "-c", "exit 1"])),
        ("not all is stored at the end", listen(&once)),
    ];
    hold("Handing over", situations);
}
