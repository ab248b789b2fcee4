//! Where a stream stands: what a caller acknowledges late, a slot that somebody else moves, and what is
//! described while a transaction is held back.

use crate::common::log::{Stream, database};
use crate::common::{Sql, fresh_channel};
use pgwake::{Lsn, StreamOptions, Streaming};
use serde_json::Value;
use std::time::Duration;

fn prepare(sql: &mut Sql) -> (String, StreamOptions) {
    sql.run("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t");
    let slot = fresh_channel();
    (slot.clone(), StreamOptions::new().publication("p").slot(&slot).create_slot(true))
}

/// Ends the process that reads a slot, and waits for its end.
fn end_reader(sql: &mut Sql, slot: &str) {
    let ended = format!(
        "SELECT pg_terminate_backend(active_pid, 20000) FROM pg_replication_slots WHERE slot_name = '{slot}'"
    );
    assert_eq!(sql.value(&ended), "t");
}

fn lsn(event: &Value, name: &str) -> u64 {
    event[name].as_str().unwrap().parse::<Lsn>().unwrap().0
}

#[test]
fn what_was_delivered_before_an_outage_may_be_acknowledged_behind_it() {
    let (conninfo, mut sql) = database("");
    let (slot, options) = prepare(&mut sql);
    let mut stream = Stream::open(&conninfo, options.transactions(true).manual_ack(true));
    sql.run("INSERT INTO t VALUES (1)");
    sql.run("INSERT INTO t VALUES (2)");
    let before = stream.until(|event| event["event"] == "commit" && event["end_lsn"].is_string());
    let after = stream.until(|event| event["event"] == "commit");
    let ends = [&before, &after].map(|events| lsn(events.last().unwrap(), "end_lsn"));
    end_reader(&mut sql, &slot);
    assert_eq!(stream.next()["event"], "disconnected");
    assert_eq!(stream.next()["event"], "listening");
    for end in ends {
        stream.events.ack(stream.id, end).unwrap();
    }
    // They come again, and are acknowledged then.
    stream.until(|event| event["event"] == "change" && event["new"]["id"] == 1);
    stream.events.ack(stream.id, ends[1]).unwrap();
    stream.until(|event| event["event"] == "commit" && lsn(event, "end_lsn") == ends[1]);
    assert!(stream.events.ack(stream.id, ends[1] + (1 << 20)).is_err(), "nothing was delivered there");
}

#[test]
fn a_slot_that_somebody_else_moved_on_is_a_gap() {
    let (conninfo, mut sql) = database("");
    let (slot, options) = prepare(&mut sql);
    let mut stream = Stream::open(&conninfo, options);
    sql.run("INSERT INTO t VALUES (1)");
    assert_eq!(stream.change()["new"]["id"], 1);
    end_reader(&mut sql, &slot);
    sql.run("INSERT INTO t VALUES (2)");
    sql.run(&format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_insert_lsn())"));
    sql.run("INSERT INTO t VALUES (3)");
    assert_eq!(stream.next()["event"], "disconnected");
    let gap = stream.next();
    assert_eq!(gap["event"], "gap");
    assert!(gap["message"].as_str().unwrap().contains("somebody else has moved"), "{gap}");
    assert_eq!(stream.change()["new"]["id"], 3);
    // That it goes on from where it was is none.
    end_reader(&mut sql, &slot);
    assert_eq!(stream.next()["event"], "disconnected");
    assert_eq!(stream.next()["event"], "listening");
}

#[test]
fn a_table_is_called_as_it_is_behind_a_transaction_that_was_held_back_under_its_old_name() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE SCHEMA a; CREATE TABLE a.t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE a.t");
    let slot = fresh_channel();
    let options = StreamOptions::new().publication("p").slot(&slot).create_slot(true);
    let mut stream = Stream::open(&conninfo, options.streaming(Streaming::On));
    let mut other = Sql::connect(&conninfo);
    sql.run("BEGIN; INSERT INTO a.t SELECT generate_series(1, 5000)");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(stream.within(Duration::from_millis(500)), None);
    other.run("ALTER SCHEMA a RENAME TO b");
    other.run("INSERT INTO b.t VALUES (10000)");
    let first = stream.change();
    assert_eq!((&first["schema"], &first["new"]["id"]), (&"b".into(), &10000.into()));
    sql.run("COMMIT");
    for id in 1..=5000 {
        assert_eq!(stream.change()["new"]["id"], id);
    }
    other.run("INSERT INTO b.t VALUES (10001)");
    let last = stream.change();
    assert_eq!((&last["schema"], &last["new"]["id"]), (&"b".into(), &10001.into()));
}

#[test]
fn a_snapshot_leaves_no_slot_behind_but_the_one_that_lasts() {
    let (conninfo, mut sql) = database("");
    let (_, options) = prepare(&mut sql);
    sql.run("INSERT INTO t VALUES (1)");
    let mut stream = Stream::open(&conninfo, options.snapshot(true));
    assert_eq!(stream.change()["new"]["id"], 1);
    sql.run("INSERT INTO t VALUES (2)");
    assert_eq!(stream.change()["new"]["id"], 2);
    let count = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    assert_eq!(sql.value(count), "1");
}
