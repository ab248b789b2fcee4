//! The schema `pgwake` in a real server: installed, used and taken out; one right event per change, checked
//! value by value; and none lost or doubled under load.

use crate::common::outbox::{Reader, database};
use crate::common::{Sql, server};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// Everything in a database that is not the server's own, as text.
fn inventory(sql: &mut Sql) -> String {
    sql.value(
        "SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
           SELECT pg_describe_object(classid, objid, objsubid) AS line FROM pg_depend WHERE objid >= 16384
           UNION SELECT tgrelid::regclass || ' ' || tgname FROM pg_trigger
           UNION SELECT nspname || coalesce(nspacl::text, '') FROM pg_namespace
           UNION SELECT relname || coalesce(relacl::text, '') FROM pg_class WHERE oid >= 16384
           UNION SELECT evtname FROM pg_event_trigger) l",
    )
}

#[test]
fn installing_twice_keeps_what_is_there_and_uninstalling_leaves_nothing() {
    let (_, mut sql) = database("");
    sql.run(&pgwake::install::uninstall());
    sql.run(
        "CREATE TABLE users (id int PRIMARY KEY, name text);
         CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER mine AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION mine();
         CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
         INSERT INTO users VALUES (1, 'a')",
    );
    let before = inventory(&mut sql);
    sql.run(&pgwake::install::install());
    sql.run("SELECT pgwake.watch_table('users', payload => 'wake', channel => 'bell')");
    sql.run("SELECT pgwake.watch_table('parts'); SELECT pgwake.watch_ddl('ddl')");
    let conninfo = format!("{} ", sql.value("SELECT current_database()"));
    let conninfo = server().conninfo().replace("dbname=postgres", &format!("dbname={conninfo}"));
    let mut reader = Reader::open(&conninfo, "kept");
    sql.run("INSERT INTO parts VALUES (1)");
    let installed = inventory(&mut sql);
    sql.run(&pgwake::install::install());
    assert!(inventory(&mut sql) == installed, "a second run changes something");
    sql.run("INSERT INTO parts_1 VALUES (2)");
    assert_eq!(reader.all().len(), 2);
    assert_eq!(sql.value("SELECT string_agg(problem, ',') FROM pgwake.check() WHERE severity = 'error'"), "");
    drop(reader);
    sql.run(&pgwake::install::uninstall());
    assert_eq!(inventory(&mut sql), before);
    sql.run("INSERT INTO users VALUES (2, 'b'); INSERT INTO parts VALUES (3)");
    sql.run(&pgwake::install::uninstall());
}

#[test]
fn installing_again_fails_no_writer() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT generate_series(1, 4), 0;
         SELECT pgwake.watch_table('t')",
    );
    let mut reader = Reader::open(&conninfo, "a");
    let is_over = AtomicBool::new(false);
    let written: u64 = std::thread::scope(|scope| {
        let write = |id| {
            let mut sql = Sql::connect(&conninfo);
            let update = format!("UPDATE t SET n = n + 1 WHERE id = {id}");
            (1..)
                .inspect(|_| sql.run(&format!("BEGIN; {update}; {update}; COMMIT")))
                .find(|_| is_over.load(Ordering::Relaxed))
        };
        let writers: Vec<_> = (1..=4).map(|id| scope.spawn(move || write(id))).collect();
        for _ in 0..3 {
            sql.run(&pgwake::install::install());
        }
        is_over.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap().unwrap()).sum()
    });
    assert_eq!(reader.all_raw().len() as u64, 2 * written);
}

#[test]
fn an_earlier_version_is_uninstalled_first() {
    let (_, mut sql) = database("");
    for version in 1..=4 {
        sql.run(&format!("COMMENT ON SCHEMA pgwake IS 'pgwake, version {version}'"));
        let error = sql.try_run(&pgwake::install::install()).unwrap_err();
        assert!(error.message.contains(&format!("of pgwake, version {version}")), "{error}");
        sql.run("ROLLBACK");
    }
    sql.run(&pgwake::install::uninstall());
    sql.run(&pgwake::install::install());
}

#[test]
fn uninstalling_stops_at_what_others_built_on_it() {
    let (_, mut sql) = database("");
    sql.run("CREATE VIEW mine AS SELECT pgwake.counter('a')");
    let error = sql.try_run(&pgwake::install::uninstall()).unwrap_err();
    assert!(error.message.contains("depend"), "{error}");
    sql.run("ROLLBACK; DROP VIEW mine");
    sql.run("SELECT pgwake.version()");
}

#[test]
fn the_command_installs_prints_and_uninstalls() {
    let (conninfo, mut sql) = database("");
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_pgwake"))
            .args(["-d", conninfo.as_str()])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let exists = "SELECT count(*) FROM pg_namespace WHERE nspname = 'pgwake'";
    assert_eq!(run(&["uninstall", "--dry-run"]), pgwake::install::uninstall());
    assert_eq!(run(&["install", "--dry-run"]), pgwake::install::install());
    assert_eq!(sql.value(exists), "1");
    run(&["uninstall"]);
    assert_eq!(sql.value(exists), "0");
    run(&["install"]);
    assert_eq!(sql.value("SELECT pgwake.version()"), pgwake::install::VERSION.to_string());
}

#[test]
fn every_kind_of_statement_gives_one_right_event_per_row() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE \"T \"\"x\" (id int PRIMARY KEY, gone int, big int8, num numeric(10,2), op text,
           \"Quo\"\"ted\" timestamptz, j json, jb jsonb, list int[], f float8, flag bool);
         ALTER TABLE \"T \"\"x\" DROP COLUMN gone;
         SELECT pgwake.watch_table('\"T \"\"x\"', payload => 'row')",
    );
    let mut reader = Reader::open(&conninfo, "a");
    let row = |id: u32, op: &str| {
        json!({"id": id, "big": "9007199254740993", "num": "1.50", "op": op,
            "Quo\"ted": "2026-01-01 10:00:00+00", "j": {"a": 1}, "jb": [null], "list": "{1,2}", "f": "NaN",
            "flag": true})
    };
    let table = "T \"x";
    // The writer's settings do not reach the event.
    sql.run("SET DateStyle = 'German'; SET TimeZone = 'Asia/Tokyo'; SET extra_float_digits = -3");
    let values =
        "9007199254740993, 1.5, 'x', '2026-01-01T12:00+02', '{\"a\": 1}', '[null]', '{1,2}', 'NaN', true";
    sql.run(&format!("INSERT INTO \"T \"\"x\" VALUES (1, {values}), (2, {values})"));
    let insert = |id| json!({"op": "insert", "table": table, "key": {"id": id}, "new": row(id, "x")});
    assert_eq!(reader.all(), [insert(1), insert(2)]);
    sql.run("UPDATE \"T \"\"x\" SET op = 'y' WHERE id = 1; UPDATE \"T \"\"x\" SET op = 'z' WHERE false");
    let update = |id, old: Value, new: Value, changed: &[&str]| {
        let key = json!({"id": id});
        json!({"op": "update", "table": table, "key": key, "changed": changed, "old": old, "new": new})
    };
    assert_eq!(reader.all(), [update(1, row(1, "x"), row(1, "y"), &["op"])]);
    sql.run("UPDATE \"T \"\"x\" SET id = 3 WHERE id = 2; DELETE FROM \"T \"\"x\" WHERE id = 3");
    let delete = json!({"op": "delete", "table": table, "key": {"id": 3}, "old": row(3, "x")});
    assert_eq!(reader.all(), [update(3, row(2, "x"), row(3, "x"), &["id"]), delete]);
    let upsert = |id: u32, op: &str| {
        format!(
            "INSERT INTO \"T \"\"x\" VALUES ({id}, {}) ON CONFLICT (id) DO UPDATE SET op = '{op}'",
            values.replace("'x'", &format!("'{op}'"))
        )
    };
    sql.run(&upsert(1, "u"));
    assert_eq!(reader.all(), [update(1, row(1, "y"), row(1, "u"), &["op"])]);
    sql.run(&upsert(4, "n"));
    let inserted = json!({"op": "insert", "table": table, "key": {"id": 4}, "new": row(4, "n")});
    assert_eq!(reader.all(), [inserted]);
    sql.run("TRUNCATE \"T \"\"x\"");
    assert_eq!(reader.all(), [json!({"op": "truncate", "table": table})]);
    sql.run("BEGIN; DELETE FROM \"T \"\"x\"; ROLLBACK");
    assert_eq!(reader.all(), [] as [Value; 0]);
}

#[test]
fn copy_and_merge_give_one_event_per_row() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY, v int); SELECT pgwake.watch_table('t')");
    let mut reader = Reader::open(&conninfo, "a");
    let file = server().directory().join("copy");
    sql.run(&format!("COPY (SELECT i, i FROM generate_series(1, 600) i) TO '{}'", file.display()));
    sql.run(&format!("COPY t FROM '{}'", file.display()));
    let changes = reader.all();
    let ids: Vec<u64> = changes.iter().map(|change| change["key"]["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (1..=600).collect::<Vec<_>>());
    if sql.value("SHOW server_version_num").parse::<u32>().unwrap() < 150_000 {
        return;
    }
    sql.run(
        "MERGE INTO t USING (VALUES (1, 0), (2, 5), (601, 6)) s (id, v) ON t.id = s.id
         WHEN MATCHED AND s.v = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET v = s.v
         WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v)",
    );
    let mut seen: Vec<String> =
        reader.all().iter().map(|change| format!("{} {}", change["op"], change["key"])).collect();
    seen.sort();
    assert_eq!(seen, [r#""delete" {"id":1}"#, r#""insert" {"id":601}"#, r#""update" {"id":2}"#]);
}

#[test]
fn payloads_carry_what_was_asked_for() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b text, c text);
         INSERT INTO t VALUES (1, 'a', 'b', 'c')",
    );
    let mut reader = Reader::open(&conninfo, "a");
    sql.run(
        "SELECT pgwake.watch_table('t', payload => 'changed', columns => '{a,b}', when_changed => '{b}')",
    );
    sql.run(
        "UPDATE t SET a = 'x'; UPDATE t SET c = 'x'; UPDATE t SET b = 'b'; UPDATE t SET b = 'y', c = 'z'",
    );
    let changed = json!({"op": "update", "table": "t", "key": {"id": 1}, "changed": ["b"],
        "old": {"b": "b"}, "new": {"b": "y"}});
    assert_eq!(reader.all(), [changed]);
    sql.run("SELECT pgwake.watch_table('t', ops => '{update}', payload => 'key')");
    sql.run("INSERT INTO t VALUES (2); UPDATE t SET id = 3 WHERE id = 2; DELETE FROM t WHERE id = 3");
    assert_eq!(reader.all(), [json!({"op": "update", "table": "t", "key": {"id": 3}, "old": {"id": 2}})]);
    sql.run("SELECT pgwake.watch_table('t', payload => 'wake', channel => 'bell')");
    sql.run("UPDATE t SET a = 'x'; INSERT INTO t SELECT i FROM generate_series(10, 19) i");
    assert_eq!(reader.all(), [json!({"op": "update", "table": "t"}), json!({"op": "insert", "table": "t"})]);
    assert_eq!(sql.value("SELECT pgwake.counter('bell')"), "2");
    sql.run("SELECT pgwake.unwatch_table('t'); UPDATE t SET a = 'z'");
    assert_eq!(reader.all(), [] as [Value; 0]);
    for wrong in ["ops => '{upsert}'", "payload => 'all'", "transport => 'kafka'", "columns => '{nix}'"] {
        let error = sql.try_run(&format!("SELECT pgwake.watch_table('t', {wrong})")).unwrap_err();
        assert!(error.message.contains("not") || error.message.contains("no column"), "{error}");
    }
}

#[test]
fn partitions_are_watched_however_they_are_written_to() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE t (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
         CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (10);
         SELECT pgwake.watch_table('t');
         CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (10) TO (20);
         CREATE TABLE t_3 (id int NOT NULL, v int);
         ALTER TABLE t ATTACH PARTITION t_3 FOR VALUES FROM (20) TO (30)",
    );
    let mut reader = Reader::open(&conninfo, "a");
    let event = |op: &str, part: &str, id: u32| {
        let part = format!("public.{part}");
        json!({"op": op, "table": "t", "partition": part, "key": {"id": id}})
    };
    sql.run("INSERT INTO t VALUES (1), (11); INSERT INTO t_2 VALUES (12); INSERT INTO t_3 VALUES (21)");
    let inserts =
        [("t_1", 1), ("t_2", 11), ("t_2", 12), ("t_3", 21)].map(|(part, id)| event("insert", part, id));
    assert_eq!(reader.all(), inserts);
    sql.run("UPDATE t_1 SET v = 1; UPDATE t SET v = 2 WHERE id = 12; DELETE FROM t_3");
    assert_eq!(
        reader.all(),
        [event("update", "t_1", 1), event("update", "t_2", 12), event("delete", "t_3", 21)]
    );
    sql.run("TRUNCATE t; TRUNCATE t_2");
    let truncated = |part: Option<&str>| match part {
        None => json!({"op": "truncate", "table": "t"}),
        Some(part) => json!({"op": "truncate", "table": "t", "partition": format!("public.{part}")}),
    };
    assert_eq!(reader.all(), [truncated(None), truncated(Some("t_2"))]);
    sql.run("BEGIN; TRUNCATE t; TRUNCATE t_3; COMMIT");
    assert_eq!(reader.all(), [truncated(None), truncated(Some("t_3"))]);
    assert_eq!(sql.value("SELECT string_agg(object || problem, ',') FROM pgwake.check()"), "");
}

#[test]
fn children_foreign_to_partitioning_are_watched_too() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (t);
         SELECT pgwake.watch_table('t'); CREATE TABLE later () INHERITS (t)",
    );
    let mut reader = Reader::open(&conninfo, "a");
    sql.run(
        "INSERT INTO t VALUES (1); INSERT INTO child VALUES (2); INSERT INTO later VALUES (3); DELETE FROM t",
    );
    let mut seen: Vec<String> = reader
        .all()
        .iter()
        .map(|c| format!("{} {} {}", c["op"].as_str().unwrap(), c["key"]["id"], c["partition"]))
        .collect();
    seen.sort();
    let expected = ["null", "\"public.child\"", "\"public.later\""];
    let of = |op: &str| (1..).zip(expected).map(|(id, part)| format!("{op} {id} {part}")).collect::<Vec<_>>();
    assert_eq!(seen, [of("delete"), of("insert")].concat());
}

#[test]
fn a_view_stays_alive() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY, v int); CREATE VIEW plain AS SELECT * FROM t");
    let error = sql.try_run("SELECT pgwake.watch_table('plain')").unwrap_err();
    assert!(error.message.contains("automatic update"), "{error}");
    sql.run("INSERT INTO plain VALUES (1)");
    sql.run(
        "CREATE VIEW twice AS SELECT id, 2 * v AS v2 FROM t;
         CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN IF NEW.v2 = 0 THEN RETURN NULL; END IF;
                  INSERT INTO t VALUES (NEW.id, NEW.v2 / 2); RETURN NEW; END';
         CREATE TRIGGER zz INSTEAD OF INSERT ON twice FOR EACH ROW EXECUTE FUNCTION put();
         SELECT pgwake.watch_table('twice', payload => 'row')",
    );
    let mut reader = Reader::open(&conninfo, "a");
    sql.run("INSERT INTO twice VALUES (2, 4), (3, 0)");
    let event = json!({"op": "insert", "table": "twice", "key": null, "new": {"id": 2, "v2": 4}});
    assert_eq!(reader.all(), [event]);
    assert_eq!(sql.value("SELECT v FROM t WHERE id = 2"), "2");
    sql.run("DROP TRIGGER zz ON twice");
    assert!(sql.try_run("INSERT INTO twice VALUES (4, 4)").is_err(), "a write must not vanish");
}
