//! Watching with BEFORE triggers: what an event tells, and that the row goes on as it was.

use crate::common::outbox::{Reader, database};
use serde_json::{Value, json};

#[test]
fn an_event_tells_the_row_as_the_last_trigger_left_it_and_the_row_goes_on_unchanged() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE t (id int PRIMARY KEY, v int, w text DEFAULT 'd');
         CREATE FUNCTION double() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN NEW.v := NEW.v * 2; RETURN NEW; END';
         CREATE TRIGGER zz BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION double();
         SELECT pgwake.watch_table('t', payload => 'row', timing => 'before')",
    );
    let mut reader = Reader::open(&conninfo, "a");
    sql.run("INSERT INTO t VALUES (1, 5), (2, 6)");
    let row = |id: u32, v: u32| json!({"id": id, "v": v, "w": "d"});
    let insert = |id, v| json!({"op": "insert", "table": "t", "key": {"id": id}, "new": row(id, v)});
    assert_eq!(reader.all(), [insert(1, 10), insert(2, 12)]);
    sql.run("UPDATE t SET v = 7 WHERE id = 1; DELETE FROM t WHERE id = 2");
    let update = json!({"op": "update", "table": "t", "key": {"id": 1}, "changed": ["v"],
        "old": row(1, 10), "new": row(1, 14)});
    let delete = json!({"op": "delete", "table": "t", "key": {"id": 2}, "old": row(2, 12)});
    assert_eq!(reader.all(), [update, delete]);
    assert_eq!(sql.value("SELECT string_agg(t::text, ' ') FROM t"), "(1,14,d)");
    sql.run("TRUNCATE t");
    assert_eq!(reader.all(), [json!({"op": "truncate", "table": "t"})]);
    assert_eq!(sql.value("SELECT string_agg(problem, ',') FROM pgwake.check()"), "");
    sql.run(
        "SELECT pgwake.watch_table('t', payload => 'changed', when_changed => '{w}', timing => 'before')",
    );
    sql.run("INSERT INTO t VALUES (3, 1); UPDATE t SET v = 2; UPDATE t SET w = 'x'");
    let changed = json!({"op": "update", "table": "t", "key": {"id": 3}, "changed": ["v", "w"],
        "old": {"v": 4, "w": "d"}, "new": {"v": 8, "w": "x"}});
    assert_eq!(reader.all(), [insert(3, 2), changed]);
    sql.run("SELECT pgwake.watch_table('t'); INSERT INTO t VALUES (4, 1); SELECT pgwake.unwatch_table('t')");
    assert_eq!(reader.all(), [json!({"op": "insert", "table": "t", "key": {"id": 4}})]);
    assert_eq!(
        sql.value("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = 't'::regclass"),
        "1"
    );
}

#[test]
fn an_event_is_an_attempt_that_the_rest_of_the_statement_may_still_undo() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE t (id int PRIMARY KEY, v int CHECK (v >= 0));
         CREATE FUNCTION cancel() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN IF NEW.v = 0 THEN RETURN NULL; END IF; RETURN NEW; END';
         CREATE TRIGGER \"~zz\" BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION cancel();
         CREATE TRIGGER aa BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION cancel();
         SELECT pgwake.watch_table('t', timing => 'before')",
    );
    let mut reader = Reader::open(&conninfo, "a");
    let event = |op: &str, id: u32| json!({"op": op, "table": "t", "key": {"id": id}});
    // A trigger that sorts behind even "~pgwake" cancels the row: the attempt is told.
    sql.run("INSERT INTO t VALUES (1, 0), (2, 2)");
    assert_eq!(reader.all(), [event("insert", 1), event("insert", 2)]);
    assert_eq!(sql.value("SELECT string_agg(id::text, ' ') FROM t"), "2");
    // One that sorts before it: nothing was tried that far.
    sql.run("UPDATE t SET v = 0");
    assert_eq!(reader.all(), [] as [Value; 0]);
    // What a constraint refuses, nobody hears of.
    assert!(sql.try_run("INSERT INTO t VALUES (3, -1)").is_err());
    assert_eq!(reader.all(), [] as [Value; 0]);
    // An upsert tries the INSERT first.
    sql.run("INSERT INTO t VALUES (2, 5) ON CONFLICT (id) DO UPDATE SET v = excluded.v");
    sql.run("INSERT INTO t VALUES (2, 5) ON CONFLICT DO NOTHING");
    assert_eq!(reader.all(), [event("insert", 2), event("update", 2), event("insert", 2)]);
    assert_eq!(sql.value("SELECT string_agg(t::text, ' ') FROM t"), "(2,5)");
}

#[test]
fn a_cause_is_told_before_its_effects() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE parent (id int PRIMARY KEY);
         CREATE TABLE child (id int PRIMARY KEY REFERENCES parent ON DELETE CASCADE);
         INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1);
         SELECT pgwake.watch_table('parent', timing => 'before'), pgwake.watch_table('child')",
    );
    let mut reader = Reader::open(&conninfo, "a");
    sql.run("DELETE FROM parent");
    let seen: Vec<String> =
        reader.all().iter().map(|change| format!("{} {}", change["table"], change["key"])).collect();
    assert_eq!(seen, [r#""parent" {"id":1}"#, r#""parent" {"id":2}"#, r#""child" {"id":1}"#]);
}

#[test]
fn what_is_computed_after_the_trigger_is_left_out() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE FUNCTION twice(a int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT a * 2';
         CREATE TABLE t (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (twice(a)) STORED);
         SELECT pgwake.watch_table('t', payload => 'row', timing => 'before')",
    );
    let mut reader = Reader::open(&conninfo, "a");
    sql.run("INSERT INTO t VALUES (1, 2); UPDATE t SET a = 3; DELETE FROM t");
    let key = json!({"id": 1});
    let full = |a: u32| json!({"id": 1, "a": a, "b": a * 2});
    assert_eq!(
        reader.all(),
        [
            json!({"op": "insert", "table": "t", "key": key, "new": {"id": 1, "a": 2}}),
            json!({"op": "update", "table": "t", "key": key, "changed": ["a"], "old": full(2),
                "new": {"id": 1, "a": 3}}),
            json!({"op": "delete", "table": "t", "key": key, "old": full(3)}),
        ]
    );
    let error =
        sql.try_run("SELECT pgwake.watch_table('t', when_changed => '{b}', timing => 'before')").unwrap_err();
    assert!(error.message.contains("generated columns"), "{error}");
    // A key that is not known yet is no key.
    sql.run(
        "CREATE TABLE k (a int, b int GENERATED ALWAYS AS (a + 1) STORED PRIMARY KEY);
         SELECT pgwake.watch_table('k', timing => 'before'); INSERT INTO k VALUES (1); DELETE FROM k",
    );
    assert_eq!(
        reader.all(),
        [
            json!({"op": "insert", "table": "k", "key": null, "new": {"a": 1}}),
            json!({"op": "delete", "table": "k", "key": null, "old": {"a": 1, "b": 2}}),
        ]
    );
    sql.run("ALTER TABLE k ALTER b DROP EXPRESSION; INSERT INTO k VALUES (1, 2)");
    assert_eq!(reader.all(), [json!({"op": "insert", "table": "k", "key": {"b": 2}})]);
    if sql.value("SHOW server_version_num").parse::<u32>().unwrap() >= 180_000 {
        sql.run(
            "CREATE TABLE v (id int PRIMARY KEY, b int GENERATED ALWAYS AS (id * 2) VIRTUAL);
             SELECT pgwake.watch_table('v', payload => 'row', timing => 'before'); INSERT INTO v VALUES (4)",
        );
        assert_eq!(reader.all()[0]["new"], json!({"id": 4, "b": 8}));
    }
}

#[test]
fn partitions_tell_a_move_as_all_that_is_tried() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE t (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
         CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (10);
         SELECT pgwake.watch_table('t', timing => 'before');
         CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (10) TO (20)",
    );
    let mut reader = Reader::open(&conninfo, "a");
    sql.run("INSERT INTO t VALUES (1); INSERT INTO t_2 VALUES (11); UPDATE t SET id = 12 WHERE id = 1");
    let event = |op: &str, part: &str, id: u32| {
        let part = format!("public.{part}");
        json!({"op": op, "table": "t", "partition": part, "key": {"id": id}})
    };
    let mut moved = event("update", "t_1", 12);
    moved["old"] = json!({"id": 1});
    assert_eq!(
        reader.all(),
        [
            event("insert", "t_1", 1),
            event("insert", "t_2", 11),
            moved,
            event("delete", "t_1", 1),
            event("insert", "t_2", 12),
        ]
    );
    sql.run("TRUNCATE t");
    assert_eq!(reader.all(), [json!({"op": "truncate", "table": "t"})]);
    assert_eq!(sql.value("SELECT string_agg(object || problem, ',') FROM pgwake.check()"), "");
}

#[test]
fn what_has_no_such_triggers_is_refused() {
    let (_, mut sql) = database("");
    sql.run(
        "CREATE TABLE t (id int); CREATE VIEW v AS SELECT id + 1 AS id FROM t;
         CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER zz INSTEAD OF INSERT ON v FOR EACH ROW EXECUTE FUNCTION put()",
    );
    for (wrong, reason) in
        [("'v', timing => 'before'", "INSTEAD OF"), ("'t', timing => 'during'", "after or before")]
    {
        let error = sql.try_run(&format!("SELECT pgwake.watch_table({wrong})")).unwrap_err();
        assert!(error.message.contains(reason), "{error}");
    }
}

#[test]
fn a_table_without_columns_has_empty_rows() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (); SELECT pgwake.watch_table('t')");
    let mut reader = Reader::open(&conninfo, "a");
    sql.run("INSERT INTO t DEFAULT VALUES; DELETE FROM t");
    assert_eq!(
        reader.all(),
        [
            json!({"op": "insert", "table": "t", "key": null, "new": {}}),
            json!({"op": "delete", "table": "t", "key": null, "old": {}}),
        ]
    );
}
