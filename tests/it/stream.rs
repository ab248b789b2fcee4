//! Row changes from the log: what comes, in which order, under which position.

use crate::common::log::{Stream, database};
use pgwake::{StreamOptions, Streaming};
use serde_json::json;
use std::time::Duration;

fn of_table(table: &str) -> StreamOptions {
    StreamOptions::new().table(table)
}

#[test]
fn each_kind_of_change_comes_with_its_rows() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY, n numeric, j jsonb, a int[])");
    let mut stream = Stream::open(&conninfo, of_table("t"));
    sql.run("INSERT INTO t VALUES (1, 1.50, '{\"a\": 1}', '{1,NULL}')");
    let schema = stream.next();
    assert_eq!(schema["event"], "schema");
    assert_eq!((&schema["schema"], &schema["table"]), (&json!("public"), &json!("t")));
    assert_eq!(schema["columns"][0], json!({"name": "id", "type": "integer", "key": true}));
    assert_eq!(schema["columns"][3], json!({"name": "a", "type": "integer[]", "key": false}));
    let insert = stream.next();
    assert_eq!((&insert["event"], &insert["op"]), (&json!("change"), &json!("insert")));
    assert_eq!(insert["new"], json!({"id": 1, "n": "1.50", "j": {"a": 1}, "a": [1, null]}));
    assert_eq!((&insert["key"], &insert["transport"]), (&json!({"id": 1}), &json!("wal")));
    let position = insert["position"].as_str().unwrap();
    assert_eq!(position, format!("{}/1", insert["commit_lsn"].as_str().unwrap()));
    sql.run("UPDATE t SET n = 2");
    let update = stream.next();
    assert_eq!((&update["op"], &update["new"]["n"]), (&json!("update"), &json!("2")));
    assert_eq!(update.get("old"), None);
    sql.run("UPDATE t SET id = 7");
    let update = stream.next();
    assert_eq!((&update["old"], &update["key"]), (&json!({"id": 1}), &json!({"id": 7})));
    sql.run("DELETE FROM t");
    let delete = stream.next();
    assert_eq!((&delete["op"], &delete["key"]), (&json!("delete"), &json!({"id": 7})));
    sql.run("TRUNCATE t");
    let truncate = stream.next();
    assert_eq!((&truncate["op"], &truncate["key"]), (&json!("truncate"), &json!(null)));
    assert_eq!(stream.within(Duration::from_millis(200)), None);
}

#[test]
fn a_session_that_quotes_all_names_has_the_same_publication_and_the_same_types() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE t (id int PRIMARY KEY, m mood)");
    for options in ["", " options='-c quote_all_identifiers=on'"] {
        let mut stream = Stream::open(&format!("{conninfo}{options}"), of_table("t"));
        sql.run("TRUNCATE t; INSERT INTO t VALUES (1, 'ok')");
        let schema = stream.next();
        assert_eq!(schema["columns"][1], json!({"name": "m", "type": "public.mood", "key": false}));
    }
    assert_eq!(sql.value("SELECT count(*) FROM pg_publication"), "1");
}

#[test]
fn a_transaction_is_told_whole_with_its_begin_and_commit() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY)");
    let mut stream = Stream::open(&conninfo, of_table("t").transactions(true));
    sql.run("BEGIN; INSERT INTO t VALUES (1), (2); COMMIT");
    let all = stream.until(|event| event["event"] == "commit");
    let names: Vec<_> = all.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["begin", "schema", "change", "change", "commit"]);
    let [begin, _, first, second, commit] = &all[..] else { panic!("{all:?}") };
    assert_eq!((&begin["lsn"], &begin["xid"]), (&commit["lsn"], &commit["xid"]));
    assert_eq!(first["xid"], begin["xid"]);
    let positions =
        [begin, first, second, commit].map(|event| event["position"].as_str().unwrap().to_string());
    let lsn = commit["lsn"].as_str().unwrap();
    assert_eq!(positions, [0, 1, 2, 3].map(|ordinal| format!("{lsn}/{ordinal}")));
    assert!(commit["end_lsn"].is_string() && begin.get("end_lsn").is_none());
}

#[test]
fn the_old_row_of_a_full_identity_tells_what_was_changed_and_what_is_stored_apart() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE t (id int PRIMARY KEY, n int, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL",
    );
    sql.run("CREATE TABLE f (LIKE t INCLUDING ALL); ALTER TABLE f REPLICA IDENTITY FULL");
    let mut stream = Stream::open(&conninfo, of_table("t").table("f"));
    for table in ["t", "f"] {
        sql.run(&format!("INSERT INTO {table} VALUES (1, 1, repeat('x', 5000))"));
        sql.run(&format!("UPDATE {table} SET n = 2"));
    }
    let (_, update) = (stream.change(), stream.change());
    assert_eq!(update["unchanged_toast"], json!(["big"]));
    assert_eq!((&update["new"], update.get("changed")), (&json!({"id": 1, "n": 2}), None));
    let (_, update) = (stream.change(), stream.change());
    assert_eq!((update.get("unchanged_toast"), &update["changed"]), (None, &json!(["n"])));
    assert_eq!((&update["old"]["n"], &update["key"]), (&json!(1), &json!({"id": 1})));
    assert_eq!(update["new"]["big"].as_str().unwrap().len(), 5000);
}

#[test]
fn rows_come_first_and_then_what_was_written_since_without_a_gap_or_a_double() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    sql.run("INSERT INTO t SELECT i, E'a\\tb\\\\' || i FROM generate_series(1, 1000) AS i");
    sql.run("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)");
    sql.run("CREATE TABLE p1 PARTITION OF p DEFAULT; INSERT INTO p VALUES (1), (2)");
    let options = of_table("t").table("p").snapshot(true).slot("snap").create_slot(true);
    let mut stream = Stream::open(&conninfo, options.clone());
    let mut rows = Vec::new();
    while rows.len() < 1002 {
        let change = stream.change();
        assert_eq!((&change["snapshot"], &change["op"]), (&json!(true), &json!("insert")));
        rows.push(change);
        if rows.len() == 500 {
            sql.run("INSERT INTO t VALUES (2000, 'later')");
        }
    }
    let t: Vec<_> = rows.iter().filter(|row| row["table"] == "t").collect();
    assert_eq!((t.len(), &t[0]["new"]), (1000, &json!({"id": 1, "v": "a\tb\\1"})));
    let later = stream.change();
    assert_eq!((&later["new"]["id"], later.get("snapshot")), (&json!(2000), None));
    drop(stream);
    sql.run("INSERT INTO t VALUES (3000, 'away')");
    let mut stream = Stream::open(&conninfo, options);
    let mut change = stream.change();
    // It may not have been acknowledged.
    if change["new"]["id"] == json!(2000) {
        change = stream.change();
    }
    assert_eq!((&change["new"]["id"], change.get("snapshot")), (&json!(3000), None), "read on, not anew");
}

#[test]
fn a_large_transaction_is_held_back_until_its_commit_without_what_was_rolled_back_of_it() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    for streaming in [Streaming::Off, Streaming::On] {
        let options = of_table("t").streaming(streaming).transactions(true).memory_max(100_000);
        let mut stream = Stream::open(&conninfo, options);
        let insert = |from: i32, to: i32| {
            format!("INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series({from}, {to}) AS i; ")
        };
        sql.run("TRUNCATE t");
        sql.run(&format!(
            "BEGIN; {}SAVEPOINT a; {}SAVEPOINT b; {}RELEASE b; ROLLBACK TO a; {}COMMIT",
            insert(1, 3000),
            insert(3001, 6000),
            insert(6001, 9000),
            insert(9001, 12_000)
        ));
        stream.until(|event| event["event"] == "commit");
        let all = stream.until(|event| event["event"] == "commit");
        let ids: Vec<_> = all.iter().filter_map(|event| event["new"]["id"].as_i64()).collect();
        assert!(ids.iter().copied().eq((1..=3000).chain(9001..=12_000)), "{streaming:?}: {}", ids.len());
        let held = stream.events.metrics(stream.id).unwrap().held_back_bytes;
        assert_eq!(held, 0, "all of it has been given out");
    }
}

/// How often this thread has asked the kernel to read or to write (proc(5)).
fn system_calls() -> u64 {
    let io = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    let counts = io.lines().filter_map(|line| line.strip_prefix("sysc")?.split(' ').nth(1));
    counts.map(|count| count.parse::<u64>().unwrap()).sum()
}

#[test]
fn however_little_memory_is_granted_a_file_is_not_read_and_written_byte_by_byte() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    let options = of_table("t").streaming(Streaming::On).transactions(true).memory_max(1);
    let mut stream = Stream::open(&conninfo, options);
    let before = system_calls();
    sql.run("INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 5000) AS i");
    stream.until(|event| event["event"] == "commit");
    let calls = system_calls() - before;
    assert!(calls < 100_000, "{calls} calls for half a megabyte");
}
