//! Writers of every kind: whatever their settings, their transactions and the DDL beside them, nothing fails
//! them, and what is delivered is right.

use crate::common::outbox::{Reader, database};
use crate::common::{PATIENCE, Seen, Sql, next, say_loudly, server, start_server};
use pgwake::json::JsonValue;
use pgwake::{Event, EventLoop, SessionOptions, Transport, WatchOptions};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A loop that watches `t` already.
fn watching(conninfo: &str, options: WatchOptions) -> (EventLoop, pgwake::SessionId) {
    let mut events = EventLoop::new().unwrap();
    let session = SessionOptions::new().heartbeat(Duration::ZERO);
    let session = events.connect_with(conninfo, session).unwrap();
    events.watch_with(session, options.table("t")).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[]));
    assert!(matches!(next(&mut events), Seen::Listening(names) if names[0].starts_with("pgwake")));
    (events, session)
}

fn key_within(events: &mut EventLoop, time: Duration) -> JsonValue {
    match events.next(Some(time)).unwrap().expect("a change was expected, and none came") {
        Event::Change(change) => change.key_as().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_may_have_as_many_columns_as_an_index() {
    let (conninfo, mut sql) = database("");
    let names: Vec<String> = (1..=32).map(|n| format!("k{n}")).collect();
    let (columns, list) = (names.join(" int, "), names.join(", "));
    sql.run(&format!("CREATE TABLE t ({columns} int, v int, PRIMARY KEY ({list}))"));
    let key = |last: u64| -> Value {
        names.iter().enumerate().map(|(at, name)| (name.clone(), json!(at as u64 % 31 * last))).collect()
    };
    let values = |last: u64| {
        let values: Vec<String> = (0..32).map(|at| (at % 31 * last).to_string()).collect();
        values.join(", ")
    };
    for payload in ["key", "changed", "row"] {
        sql.run(&format!("SELECT pgwake.watch_table('t', payload => '{payload}')"));
        sql.run(&format!("INSERT INTO t VALUES ({}, 1), ({}, 1)", values(1), values(2)));
        let mut reader = Reader::open(&conninfo, payload);
        sql.run("UPDATE t SET v = 2 WHERE k2 = 1; UPDATE t SET v = 3");
        sql.run("UPDATE t SET k32 = 7 WHERE k2 = 1; DELETE FROM t");
        let mut changes = reader.all();
        // The order of a statement's changes is that in which the rows lie.
        changes[1..3].sort_by_key(|change| change["key"]["k2"].as_u64());
        let keys: Vec<&Value> = changes[..3].iter().map(|change| &change["key"]).collect();
        assert_eq!(keys, [&key(1), &key(1), &key(2)], "{payload}");
        let mut moved = key(1);
        moved["k32"] = json!(7);
        assert_eq!(changes[3]["key"], moved, "{payload}");
        assert_eq!(changes[3]["old"]["k32"], 0, "{payload}");
        assert_eq!(changes.len(), 6, "{payload}");
        drop(reader);
    }
    assert_eq!(sql.value("SELECT pg_sequence_last_value('pgwake.unconvertible')"), "");
}

#[test]
fn a_transaction_may_be_prepared_and_its_changes_come_soon_after_its_commit() {
    let mut server = start_server();
    Sql::connect(&server.conninfo()).run("ALTER SYSTEM SET max_prepared_transactions = 5");
    server.restart("fast").unwrap();
    let conninfo = server.conninfo();
    let mut sql = Sql::connect(&conninfo);
    sql.run(&pgwake::install::install());
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')");
    let prepare = |sql: &mut Sql, id: u64| {
        let words = ["PREPARE TRANSACTION", "SET CONSTRAINTS ALL IMMEDIATE; PREPARE TRANSACTION"];
        let words = words
            .into_iter()
            .chain(["PREPARE /* not yet */ TRANSACTION", "prepare -- not yet\n transaction"]);
        let words: Vec<&str> = words.collect();
        sql.run(&format!("BEGIN; INSERT INTO t VALUES ({id}); {} '{id}'", words[id as usize % 4]));
    };
    // Once while nobody reads, and once while somebody does.
    (0..4).for_each(|id| prepare(&mut sql, id));
    (0..4).for_each(|id| sql.run(&format!("COMMIT PREPARED '{id}'")));
    let (mut events, _) = watching(&conninfo, WatchOptions::new());
    for id in 4..8 {
        prepare(&mut sql, id);
        crate::common::assert_silent(&mut events, Duration::from_millis(300));
        sql.run(&format!("COMMIT PREPARED '{id}'"));
        assert_eq!(key_within(&mut events, Duration::from_secs(1)), json!({"id": id}));
    }
    prepare(&mut sql, 8);
    sql.run("ROLLBACK PREPARED '8'");
    crate::common::assert_silent(&mut events, Duration::from_millis(300));
}

#[test]
fn backslashes_in_strings_may_have_their_old_meaning() {
    Sql::connect(&server().conninfo()).run("CREATE DATABASE backslashes");
    let conninfo = server().conninfo().replace("dbname=postgres", "dbname=backslashes");
    let mut sql = Sql::connect(&conninfo);
    sql.run("SET standard_conforming_strings = off; SET escape_string_warning = off");
    sql.run(&pgwake::install::install());
    sql.run("CREATE TABLE \"t\\'\" (\"id\\'\" text PRIMARY KEY, v text)");
    for payload in ["row", "changed", "key"] {
        sql.run(&format!("SELECT pgwake.watch_table('\"t\\\\''\"', payload => '{payload}')"));
        let mut reader = Reader::open(&conninfo, payload);
        sql.run("INSERT INTO \"t\\'\" VALUES ('a\\\\b', '\\''), ('c', '\\\\')");
        sql.run("UPDATE \"t\\'\" SET v = '\\\\\\'' WHERE v = '\\\\'; DELETE FROM \"t\\'\"");
        let changes = reader.all();
        let keys: Vec<&Value> = changes.iter().map(|change| &change["key"]["id\\'"]).collect();
        assert_eq!(keys[..3], ["a\\b", "c", "c"], "{payload}");
        assert_eq!(changes.len(), 5);
        if payload != "key" {
            assert_eq!([&changes[0]["new"]["v"], &changes[1]["new"]["v"]], ["'", "\\"]);
            assert_eq!([&changes[2]["old"]["v"], &changes[2]["new"]["v"]], ["\\", "\\'"]);
        }
    }
    assert_eq!(sql.value("SELECT count(*) FROM pgwake.check() WHERE severity <> 'info'"), "0");
    assert_eq!(sql.value("SELECT pg_sequence_last_value('pgwake.unconvertible')"), "");
}

#[test]
fn a_publication_of_all_tables_hinders_nobody() {
    Sql::connect(&server().conninfo()).run("CREATE DATABASE published");
    let conninfo = server().conninfo().replace("dbname=postgres", "dbname=published");
    let mut sql = Sql::connect(&conninfo);
    sql.run("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION everything FOR ALL TABLES");
    // The second time there is something that is replaced.
    for _ in 0..2 {
        sql.run(&pgwake::install::install());
    }
    sql.run(
        "SELECT pgwake.watch_table('t', payload => 'wake'), pgwake.watch_table('t'), pgwake.watch_ddl('d')",
    );
    let mut reader = Reader::open(&conninfo, "a");
    sql.run("UPDATE pgwake.setting SET value = 8192 WHERE name = 'rotate_bytes'");
    for _ in 0..4 {
        for id in 0..200 {
            sql.run(&format!("INSERT INTO t VALUES ({id})"));
        }
        sql.run("DELETE FROM t");
        assert_eq!(reader.all().len(), 400);
        sql.run("UPDATE pgwake.setting SET value = 0 WHERE name = 'rotated_at'");
        let done = sql.value("SELECT pgwake.rotate()");
        assert!(done == "rotated" || done == "emptied", "{done}");
    }
    sql.run("UPDATE pgwake.setting SET value = 1 WHERE name = 'cap_bytes'; INSERT INTO t VALUES (1)");
    sql.run("SELECT pgwake.rotate(), pgwake.rotate()");
    drop(reader);
    sql.run("SELECT pgwake.unwatch_ddl('d'), pgwake.unwatch_table('t'), pgwake.drop_consumer('a')");
}

#[test]
fn columns_that_were_named_are_followed_when_they_are_renamed() {
    let (conninfo, mut sql) = database("");
    let mut reader = Reader::open(&conninfo, "a");
    for is_followed in [true, false] {
        let verb = if is_followed { "ENABLE" } else { "DISABLE" };
        sql.run(&format!("ALTER EVENT TRIGGER pgwake_ddl_command_end {verb}"));
        sql.run(
            "CREATE TABLE t (gone int, id int PRIMARY KEY, a int, b int); ALTER TABLE t DROP COLUMN gone",
        );
        sql.run(
            "SELECT pgwake.watch_table('t', payload => 'row', columns => '{id,a}', when_changed => '{a}');
             INSERT INTO t VALUES (1, 1, 1), (2, 2, 2); ALTER TABLE t RENAME a TO c",
        );
        let other = if is_followed { "a" } else { "b" };
        if is_followed {
            sql.run("ALTER TABLE t RENAME b TO a");
        }
        reader.all();
        sql.run(&format!("UPDATE t SET {other} = 7 WHERE id = 1; UPDATE t SET {other} = 8"));
        sql.run("UPDATE t SET c = 5 WHERE id = 1");
        sql.run("UPDATE t SET c = c + 10; DELETE FROM t WHERE id = 1");
        let row = |id: u64, c: u64| json!({"id": id, "c": c});
        let update = |id, before, after| {
            json!({"op": "update", "table": "t", "key": {"id": id}, "changed": ["c"], "old": row(id, before),
                "new": row(id, after)})
        };
        let mut changes = reader.all();
        changes[1..3].sort_by_key(|change| change["key"]["id"].as_u64());
        let deleted = json!({"op": "delete", "table": "t", "key": {"id": 1}, "old": row(1, 15)});
        assert_eq!(changes, [update(1, 1, 5), update(1, 5, 15), update(2, 2, 12), deleted], "{is_followed}");
        sql.run("DROP TABLE t");
    }
    assert_eq!(sql.value("SELECT pg_sequence_last_value('pgwake.unconvertible')"), "");
}

#[test]
fn the_role_in_force_is_the_one_whose_rights_count() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE ROLE login_alone LOGIN NOINHERIT; CREATE ROLE may_read; GRANT may_read TO login_alone;
         CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t'); GRANT SELECT ON t TO may_read;
         GRANT USAGE ON SCHEMA pgwake TO may_read, login_alone;
         GRANT EXECUTE ON FUNCTION pgwake.open_consumer, pgwake.read, pgwake.acknowledge
           TO may_read, login_alone",
    );
    let conninfo = conninfo.replace("user=postgres", "user=login_alone");
    let denied = Sql::connect(&conninfo).try_run("SELECT pgwake.open_consumer('a')").unwrap_err();
    assert_eq!(denied.sqlstate.unwrap().to_string(), "42501", "{denied}");
    let mut reader = Reader::open(&format!("{conninfo} options='-c role=may_read'"), "a");
    sql.run("INSERT INTO t VALUES (1)");
    assert_eq!(reader.all(), [json!({"op": "insert", "table": "t", "key": {"id": 1}})]);
    let mut powerful = Sql::connect(&conninfo.replace("user=login_alone", "user=postgres"));
    powerful.run("SET ROLE login_alone");
    let denied = powerful.try_run("SELECT pgwake.open_consumer('b')").unwrap_err();
    assert_eq!(denied.sqlstate.unwrap().to_string(), "42501", "{denied}");
}

#[test]
fn a_channel_that_looks_like_one_of_ours_is_heard_beside_a_watch() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY)");
    let (mut events, session) = watching(&conninfo, WatchOptions::new());
    let channel = "pgwake_0123456789abcdef0123456789abcdef";
    events.listen(session, channel).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[channel]));
    for payload in ["", "watched", "{\"op\":\"insert\"}"] {
        sql.notify(channel, payload);
        assert_eq!(next(&mut events), Seen::notification(channel, payload));
    }
    sql.run("INSERT INTO t VALUES (1)");
    assert_eq!(key_within(&mut events, PATIENCE), json!({"id": 1}));
}

#[test]
fn equal_changes_of_a_transaction_are_all_notified() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0)");
    let (mut events, _) = watching(&conninfo, WatchOptions::new().transport(Transport::Notify));
    sql.run("BEGIN; UPDATE t SET v = 1; UPDATE t SET v = 1; UPDATE t SET v = 1; COMMIT");
    for _ in 0..3 {
        assert_eq!(key_within(&mut events, PATIENCE), json!({"id": 1}));
    }
    crate::common::assert_silent(&mut events, Duration::from_millis(100));
}

#[test]
fn the_settings_of_a_writer_do_not_change_what_is_delivered() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TYPE several AS (at timestamptz, i interval, f float8, b bytea, r regclass, m money);
         CREATE TABLE other (); CREATE TABLE t (id int PRIMARY KEY, at timestamptz, i interval, f float8,
           b bytea, r regclass, m money, a timestamptz[], s several)",
    );
    let expected = json!({"id": 1, "at": "2026-01-02 03:04:05.678+00", "i": "1 day 02:03:04",
        "f": 0.1 + 0.2, "b": "\\x00ff", "r": "public.other", "m": "$1,234.50",
        "a": "{\"2026-01-02 03:04:05.678+00\",NULL}",
        "s": "(\"2026-01-02 03:04:05.678+00\",\"1 day 02:03:04\",0.30000000000000004,\"\\\\x00ff\",\
              public.other,\"$1,234.50\")"});
    let mut writer = Sql::connect(&conninfo);
    writer.run(
        "SET DateStyle = 'German'; SET IntervalStyle = 'sql_standard'; SET TimeZone = 'Asia/Tokyo';
         SET extra_float_digits = -15; SET bytea_output = 'escape'; SET quote_all_identifiers = on",
    );
    let locale =
        "SELECT collcollate FROM pg_collation WHERE collprovider = 'c' AND collname ~ '^(de|en|fr)_' LIMIT 1";
    let locale = sql.value(locale);
    if locale.is_empty() || writer.try_run(&format!("SET lc_monetary = '{locale}'")).is_err() {
        say_loudly("SKIPPED: lc_monetary: the server has no locale but C");
    }
    for payload in ["row", "changed"] {
        sql.run(&format!("SELECT pgwake.watch_table('t', payload => '{payload}')"));
        let mut reader = Reader::open(&conninfo, payload);
        let values = "'2026-01-02T03:04:05.678Z'::timestamptz, interval '1 day 2 hours 3 minutes 4 seconds',
            0.1::float8 + 0.2::float8, decode('00ff', 'hex'), 'public.other'::regclass,
            1234.5::numeric::money";
        let array = "ARRAY['2026-01-02T03:04:05.678Z'::timestamptz, NULL]";
        for writer in [&mut sql, &mut writer] {
            let insert = format!("INSERT INTO t SELECT g, {values}, {array}, ROW({values})::several");
            writer.run(&format!("{insert} FROM generate_series(1, 1) g; DELETE FROM t"));
            writer.run(&format!("{insert} FROM generate_series(1, 2) g; DELETE FROM t WHERE id = 2"));
            writer.run(
                "UPDATE t SET (at, i, f, b, r, m, a, s) = (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
            );
            writer.run("DELETE FROM t");
            let changes = reader.all();
            for (change, name) in [(0, "new"), (1, "old"), (2, "new")] {
                assert_eq!(changes[change][name], expected, "{payload}");
            }
            for (name, value) in changes[5]["old"].as_object().unwrap() {
                assert_eq!(*value, expected[name], "{payload}");
            }
            assert_eq!(changes[5]["changed"].as_array().unwrap().len(), 8);
        }
    }
}

/// An extension that is there while the test runs.
struct Extension(Vec<PathBuf>);

impl Extension {
    fn make(directory: &Path, name: &str, script: &str) -> std::io::Result<Self> {
        let files = ["control", "sql"].map(|kind| match kind {
            "control" => {
                (directory.join(format!("{name}.control")), "default_version = '1'\nrelocatable = false\n")
            }
            _ => (directory.join(format!("{name}--1.sql")), script),
        });
        let mut extension = Extension(Vec::new());
        for (path, text) in files {
            std::fs::write(&path, text)?;
            extension.0.push(path);
        }
        Ok(extension)
    }
}

impl Drop for Extension {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| drop(std::fs::remove_file(path)));
    }
}

#[test]
fn what_is_made_while_a_script_alters_a_table_is_no_member_of_its_extension() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t', payload => 'row')");
    let directory = sql.value("SELECT setting || '/extension' FROM pg_config WHERE name = 'SHAREDIR'");
    let name = format!("pgwake_test_{}", std::process::id());
    let script = "ALTER TABLE public.t ADD COLUMN a int DEFAULT 1; CREATE TABLE public.member (id int);
        ALTER TABLE public.t ADD COLUMN b int DEFAULT 2;";
    let Ok(_extension) = Extension::make(Path::new(&directory), &name, script) else {
        return say_loudly("SKIPPED: scripts of extensions: their directory cannot be written");
    };
    let mut reader = Reader::open(&conninfo, "a");
    let functions = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'pgwake'::regnamespace";
    let before = sql.value(functions);
    sql.run(&format!("CREATE EXTENSION {name}; INSERT INTO t VALUES (1)"));
    assert_eq!(reader.all()[0]["new"], json!({"id": 1, "a": 1, "b": 2}));
    let members = "SELECT string_agg(pg_describe_object(classid, objid, 0), ', ') FROM pg_depend
        WHERE deptype = 'e' AND classid <> 'pg_type'::regclass AND refobjid =
            (SELECT oid FROM pg_extension WHERE extname LIKE 'pgwake_test%')";
    assert_eq!(sql.value(members), "table member", "and nothing of pgwake");
    assert_eq!(sql.value("SELECT count(*) FROM pgwake.check() WHERE severity <> 'info'"), "0");
    sql.run(&format!("DROP EXTENSION {name}; INSERT INTO t VALUES (2)"));
    assert_eq!(reader.all()[0]["new"], json!({"id": 2, "a": 1, "b": 2}));
    assert_eq!(sql.value(functions), before);
}
