//! The outbox on bad days: many writers, a full outbox, odd encodings and types, altered tables, and writers
//! without any rights; and the other transports.

use crate::common::outbox::{Reader, database};
use crate::common::{PATIENCE, Seen, Sql, listening, next};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const WRITERS: u64 = 16;

#[test]
fn nothing_is_lost_or_doubled_under_concurrent_writers() {
    let (conninfo, mut sql) = database("");
    sql.run(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, n int); SELECT pgwake.watch_table('t', payload => 'row');
         INSERT INTO t SELECT i, 0 FROM generate_series(1, {WRITERS}) i"
    ));
    let mut reader = Reader::open(&conninfo, "a");
    let mut long = Sql::connect(&conninfo);
    long.run("BEGIN; INSERT INTO t VALUES (1000, 0)");
    let stop = AtomicBool::new(false);
    let mut seen: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut take = |changes: Vec<Value>| {
        for change in changes.iter().filter(|change| change["op"] == "update") {
            let number = |name: &str| change["new"][name].as_u64().unwrap();
            seen.entry(number("id")).or_default().push(number("n"));
        }
    };
    let written: HashMap<u64, u64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (1..=WRITERS)
            .map(|id| (id, scope.spawn(|| (Sql::connect(&conninfo), &stop))))
            .map(|(id, ready)| {
                let (mut sql, stop) = ready.join().unwrap();
                (id, scope.spawn(move || write(&mut sql, id, stop)))
            })
            .collect();
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            take(reader.page(100));
            std::thread::sleep(Duration::from_millis(2));
        }
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|(id, writer)| (id, writer.join().unwrap())).collect()
    });
    take(reader.all_raw());
    assert_eq!(
        (reader.page(1000).len(), reader.state),
        (0, 2),
        "the long transaction has written and is still open"
    );
    long.run("COMMIT");
    let last = reader.all_raw();
    assert_eq!(last.len(), 1, "{last:?}");
    assert_eq!(last[0]["key"], json!({"id": 1000}));
    assert_eq!((reader.page(1000).len(), reader.state), (0, 0));
    for (id, count) in written {
        assert_eq!(seen[&id], (1..=count).collect::<Vec<_>>(), "writer {id}: each once, in order");
    }
}

/// Counts a row of one's own up; every tenth time the transaction is rolled back. Returns the last number.
fn write(sql: &mut Sql, id: u64, stop: &AtomicBool) -> u64 {
    let (mut number, mut attempt) = (0, id);
    while !stop.load(Ordering::Relaxed) {
        attempt += 1;
        if attempt % 10 == 0 {
            sql.run(&format!("BEGIN; UPDATE t SET n = n + 1 WHERE id = {id}; ROLLBACK"));
        } else {
            sql.run(&format!("UPDATE t SET n = n + 1 WHERE id = {id}"));
            number += 1;
        }
    }
    number
}

#[test]
fn whoever_writes_wakes_the_readers_and_one_of_many_does_it_for_all() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')");
    let (mut events, _session) = listening(&conninfo, &["pgwake"]);
    let mut reader = Reader::open(&conninfo, "a");
    sql.run("INSERT INTO t VALUES (1)");
    sql.run("BEGIN; INSERT INTO t VALUES (2); ROLLBACK");
    assert_eq!(next(&mut events), Seen::notification("pgwake", ""));
    // The leader of this moment is another transaction, which has not ended.
    let mut leader = Sql::connect(&conninfo);
    leader.run("BEGIN; INSERT INTO t VALUES (3); SET CONSTRAINTS ALL IMMEDIATE");
    sql.run("INSERT INTO t VALUES (4)");
    crate::common::assert_silent(&mut events, Duration::from_millis(100));
    assert_eq!(reader.page(1000).len(), 2, "what is committed is read, whoever is the leader");
    assert_eq!((reader.page(1000).len(), reader.state), (0, 2), "and it looks again, for one is at work");
    leader.run("COMMIT");
    assert_eq!(next(&mut events), Seen::notification("pgwake", ""));
    assert_eq!(reader.all().len(), 1);
}

#[test]
fn a_consumer_goes_on_where_it_acknowledged_and_is_used_once_at_a_time() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')");
    let mut reader = Reader::open(&conninfo, "a");
    sql.run("INSERT INTO t SELECT i FROM generate_series(1, 700) i");
    assert_eq!(reader.page(2).len(), 512);
    let error = sql.try_run("SELECT pgwake.open_consumer('a')").unwrap_err();
    assert!(error.message.contains("is in use by backend"), "{error}");
    drop(reader);
    let started = Instant::now();
    while sql.try_run("SELECT pgwake.open_consumer('a')").is_err() {
        assert!(started.elapsed() < PATIENCE);
    }
    sql.run("SELECT pg_advisory_unlock_all()");
    let mut reader = Reader::open(&conninfo, "a");
    let mut rest = reader.page(1);
    while reader.state == 1 {
        rest.extend(reader.page(1));
    }
    let ids: Vec<u64> = rest.iter().map(|change| change["key"]["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (513..=700).collect::<Vec<_>>());
}

#[test]
fn what_is_read_is_emptied_and_what_is_too_much_is_told_as_a_gap() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')");
    let mut reader = Reader::open(&conninfo, "a");
    let set = |sql: &mut Sql, name: &str, value: u64| {
        sql.run(&format!("UPDATE pgwake.setting SET value = {value} WHERE name = '{name}'"));
    };
    set(&mut sql, "rotate_bytes", 8192);
    let fill = |sql: &mut Sql, from: u32| {
        for id in from..from + 200 {
            sql.run(&format!("INSERT INTO t VALUES ({id})"));
        }
        sql.value("SELECT pgwake.rotate()")
    };
    assert_eq!(fill(&mut sql, 0), "rotated");
    assert_eq!(fill(&mut sql, 1000), "rotated");
    assert_eq!(fill(&mut sql, 2000), "unread");
    assert_eq!(reader.all().len(), 600);
    assert_eq!(sql.value("SELECT pgwake.rotate()"), "unread", "notifications may refer to what is so fresh");
    set(&mut sql, "rotated_at", 0);
    // With a snapshot of before it would not see what was written since, and lose it.
    sql.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(sql.value("SELECT pgwake.rotate()"), "busy");
    sql.run("COMMIT");
    let mut writer = Sql::connect(&conninfo);
    writer.run("BEGIN; INSERT INTO t VALUES (2999)");
    assert_eq!(sql.value("SELECT pgwake.rotate()"), "emptied", "both that are not written");
    assert_eq!(sql.value("SELECT pgwake.rotate()"), "rotated", "not in the transaction that has them locked");
    set(&mut sql, "rotated_at", 0);
    assert_eq!(sql.value("SELECT pgwake.rotate()"), "busy", "and one has a writer");
    writer.run("COMMIT");
    assert_eq!(sql.value("SELECT pgwake.rotate()"), "nothing", "what it wrote is unread");
    assert_eq!(reader.all().len(), 1);
    assert_eq!(sql.value("SELECT pgwake.rotate()"), "emptied");
    assert_eq!(fill(&mut sql, 3000), "rotated");
    set(&mut sql, "cap_bytes", 1);
    assert_eq!(sql.value("SELECT pgwake.rotate()"), "dropped");
    assert!(reader.all().is_empty());
    assert_eq!(reader.gaps, ["200"]);
    assert_eq!((reader.all().len(), reader.gaps.len()), (0, 1), "it comes once");
}

#[test]
fn where_nobody_reads_writers_of_long_rows_keep_the_outbox_below_its_cap() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY, v text); SELECT pgwake.watch_table('t', payload => 'row')");
    sql.run("UPDATE pgwake.setting SET value = 1000000 WHERE name IN ('rotate_bytes', 'cap_bytes')");
    let reader = Reader::open(&conninfo, "away");
    drop(reader);
    while !sql.value("SELECT pgwake.backend_of(id) FROM pgwake.consumer").is_empty() {}
    let (mut written, mut size) = (0, 0);
    // Each of these makes its writer look with a probability of more than a half.
    loop {
        assert!(written < 40, "{size} bytes");
        sql.run(&format!("INSERT INTO t VALUES ({written}, repeat('x', 40000000))"));
        written += 1;
        let before = size;
        size = sql.value("SELECT pgwake.outbox_bytes()").parse::<u64>().unwrap();
        if size < before {
            break;
        }
    }
    let mut reader = Reader::open(&conninfo, "away");
    let read = reader.all().len();
    let missed: usize = reader.gaps.iter().map(|gap| gap.parse::<usize>().unwrap()).sum();
    assert_eq!(read + missed, written);
}

#[test]
fn odd_encodings_and_types_and_large_rows_pass() {
    let (conninfo, mut sql) = database("ENCODING 'LATIN1' TEMPLATE template0");
    sql.run("SET client_encoding = 'UTF8'");
    sql.run(
        "CREATE TYPE pair AS (a int, b text); CREATE TYPE mood AS ENUM ('ok');
         CREATE DOMAIN positive AS int CHECK (VALUE > 0);
         CREATE TABLE t (id uuid PRIMARY KEY, \"größe\" positive, p pair, m mood, x xml, v tsvector, pt point,
           b bytea, r int4range, text text);
         CREATE FUNCTION evil(pair) RETURNS json LANGUAGE plpgsql AS 'BEGIN RAISE ''ran''; END';
         CREATE CAST (pair AS json) WITH FUNCTION evil(pair);
         SELECT pgwake.watch_table('t', payload => 'row')",
    );
    let mut reader = Reader::open(&conninfo, "a");
    reader.sql.run("SET client_encoding = 'UTF8'");
    let id = "00000000-0000-0000-0000-000000000001";
    sql.run(&format!(
        "INSERT INTO t VALUES ('{id}', 3, (1, 'é'), 'ok', '<a/>', 'b', '(1,2)', '\\x00ff',
           '[1,3)', repeat('é', 1000000))"
    ));
    let new = json!({"id": id, "größe": 3, "p": "(1,é)", "m": "ok", "x": "<a/>", "v": "'b'", "pt": "(1,2)",
        "b": "\\x00ff", "r": "[1,3)", "text": "é".repeat(1_000_000)});
    let changes = reader.all();
    for (name, value) in new.as_object().unwrap() {
        assert!(changes[0]["new"][name] == *value, "{name}: {:.80}", changes[0]["new"][name].to_string());
    }
    assert_eq!(changes[0]["key"], json!({"id": id}));
    sql.run("UPDATE t SET m = NULL");
    assert_eq!(reader.all()[0]["changed"], json!(["m"]));
}

#[test]
fn an_altered_table_is_followed_and_never_fails_its_writer() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY, a int); SELECT pgwake.watch_table('t', payload => 'row')");
    let mut reader = Reader::open(&conninfo, "a");
    // Without event triggers, as on a managed server, and then with them.
    for is_followed in [false, true] {
        let verb = if is_followed { "ENABLE" } else { "DISABLE" };
        sql.run(&format!("ALTER EVENT TRIGGER pgwake_ddl_command_end {verb}; DROP TABLE IF EXISTS t"));
        sql.run("SELECT pgwake.rebuild(); CREATE TABLE t (id int PRIMARY KEY, a int, b text)");
        sql.run("SELECT pgwake.watch_table('t', payload => 'row')");
        sql.run("ALTER TABLE t DROP COLUMN a; INSERT INTO t VALUES (1, 'b')");
        sql.run("ALTER TABLE t RENAME COLUMN b TO c; INSERT INTO t VALUES (2, 'c')");
        sql.run("ALTER TABLE t ADD COLUMN d int; INSERT INTO t VALUES (3, 'c', 4)");
        sql.run("ALTER TABLE t ALTER COLUMN d TYPE text; UPDATE t SET d = 'x' WHERE id = 3");
        let new = |row: &Value| row["new"].clone();
        let seen: Vec<Value> = reader.all().iter().map(new).collect();
        let expected = [
            json!({"id": 1, "b": "b"}),
            json!({"id": 2, "c": "c"}),
            json!({"id": 3, "c": "c", "d": 4}),
            json!({"id": 3, "c": "c", "d": "x"}),
        ];
        assert_eq!(seen, expected);
        let stale = sql.value("SELECT count(*) FROM pgwake.check() WHERE problem LIKE 'its columns%'");
        assert_eq!(stale, if is_followed { "0" } else { "1" });
    }
    assert_eq!(sql.value("SELECT pg_sequence_last_value('pgwake.unconvertible')"), "");
}

#[test]
fn keys_of_every_kind_are_told_by_the_fast_path_and_by_the_slow_one() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE t (size bigint, part text, change uuid, state timestamptz, keys numeric, flag bool,
           PRIMARY KEY (size, part, change, state, keys, flag), v int); SELECT pgwake.watch_table('t')",
    );
    let mut reader = Reader::open(&conninfo, "a");
    sql.run("SET DateStyle = 'German'; SET TimeZone = 'Asia/Tokyo'");
    let uuid = "00000000-0000-0000-0000-00000000000a";
    let mut expected = Vec::new();
    for size in [1, 999_999_999_999_999, 9_007_199_254_740_992, -9_007_199_254_740_992] {
        expected.push((size, json!(size)));
    }
    for size in [9_007_199_254_740_993, -9_007_199_254_740_993, -99_999_999_999_999_999, i64::MIN] {
        expected.push((size, json!(size.to_string())));
    }
    for (size, size_json) in expected {
        let row = format!("{size}, 'a\"é', '{uuid}', '2026-01-01T12:00+02', 1.50, false, 1");
        sql.run(&format!("INSERT INTO t VALUES ({row}); UPDATE t SET v = 2; DELETE FROM t"));
        // Of two rows at once the slow path tells.
        let rows = format!("({row}), ({})", row.replace("1.50", "2"));
        sql.run(&format!("INSERT INTO t VALUES {rows}; UPDATE t SET v = 3; DELETE FROM t"));
        let key = |keys: &str| {
            json!({"size": size_json, "part": "a\"é", "change": uuid, "state": "2026-01-01 10:00:00+00",
                "keys": keys, "flag": false})
        };
        let changes = reader.all();
        let seen: Vec<_> = changes.iter().map(|c| (c["op"].as_str().unwrap(), c["key"].clone())).collect();
        let one = ["insert", "update", "delete"].map(|op| (op, key("1.50")));
        let two = ["insert", "update", "delete"].map(|op| [(op, key("1.50")), (op, key("2"))]);
        assert_eq!(seen, [one.to_vec(), two.concat()].concat());
    }
}

#[test]
fn a_whole_number_beyond_what_json_holds_is_told_as_a_string() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id bigint PRIMARY KEY, n int); SELECT pgwake.watch_table('t')");
    let mut reader = Reader::open(&conninfo, "a");
    let (exact, beyond) = (9_007_199_254_740_992_i64, -9_007_199_254_740_993_i64);
    sql.run(&format!("INSERT INTO t VALUES ({exact}); UPDATE t SET n = 1; UPDATE t SET id = {beyond}"));
    let beyond_json = json!({"id": beyond.to_string()});
    assert_eq!(
        reader.all(),
        [
            json!({"op": "insert", "table": "t", "key": {"id": exact}}),
            json!({"op": "update", "table": "t", "key": {"id": exact}}),
            json!({"op": "update", "table": "t", "key": beyond_json, "old": {"id": exact}}),
        ]
    );
    sql.run(&format!("INSERT INTO t VALUES ({}), (7); UPDATE t SET id = -id; DELETE FROM t", i64::MAX));
    let changes = reader.all();
    let keys: Vec<_> = changes.iter().map(|c| (c["key"]["id"].clone(), c["old"].clone())).collect();
    let (most, least) = (i64::MAX.to_string(), (-i64::MAX).to_string());
    let positive = json!((-beyond).to_string());
    let inserted = [(json!(most), Value::Null), (json!(7), Value::Null)];
    let moved =
        [(positive.clone(), beyond_json), (json!(least), json!({"id": most})), (json!(-7), json!({"id": 7}))];
    let deleted = [positive, json!(least), json!(-7)].map(|key| (key, Value::Null));
    assert_eq!(keys, [inserted.to_vec(), moved.to_vec(), deleted.to_vec()].concat());
}

#[test]
fn keys_of_many_rows_are_told_with_those_before() {
    let (conninfo, mut sql) = database("");
    // Characters that separate the keys of an outbox row are characters like others in a key.
    sql.run(
        "CREATE TABLE t (id int, \"b%s,\"\"\\\" text DEFAULT E'\\x1c\\x1d\\x1e', n int,
           PRIMARY KEY (id, \"b%s,\"\"\\\") DEFERRABLE);
         SELECT pgwake.watch_table('t')",
    );
    let key = |id: i64| json!({"id": id, "b%s,\"\\": "\u{1c}\u{1d}\u{1e}"});
    let insert = |id| json!({"op": "insert", "table": "t", "key": key(id)});
    let unmoved = |id| json!({"op": "update", "table": "t", "key": key(id)});
    let moved = |id, before| json!({"op": "update", "table": "t", "key": key(id), "old": key(before)});
    let mut reader = Reader::open(&conninfo, "a");
    // Where the rows lie, and so the order of a statement's changes, depends on who vacuums when.
    let mut all = |place: fn(&Value) -> i64| {
        let mut changes = reader.all();
        changes.sort_by_key(place);
        changes
    };
    let by_key = |change: &Value| change["key"]["id"].as_i64().unwrap();
    let by_old_key = |change: &Value| change.get("old").unwrap_or(&change["key"])["id"].as_i64().unwrap();
    for rows in [1, 2, 3, 256, 257, 600] {
        sql.run(&format!("INSERT INTO t SELECT generate_series(1, {rows})"));
        assert_eq!(all(by_key), (1..=rows).map(insert).collect::<Vec<_>>());
        sql.run("UPDATE t SET n = 1");
        assert_eq!(all(by_key), (1..=rows).map(unmoved).collect::<Vec<_>>());
        sql.run(&format!("UPDATE t SET id = {rows} + 1 - id"));
        let swapped = |id| match rows + 1 - id {
            same if same == id => unmoved(id),
            other => moved(other, id),
        };
        assert_eq!(all(by_old_key), (1..=rows).map(swapped).collect::<Vec<_>>(), "{rows} rows");
        sql.run("DELETE FROM t");
        let deleted: Vec<_> = all(by_key).iter().map(by_key).collect();
        assert_eq!(deleted, (1..=rows).collect::<Vec<_>>());
    }
    assert_eq!(sql.value("SELECT pg_sequence_last_value('pgwake.unconvertible')"), "");
}

#[test]
fn a_long_number_in_the_key_before_is_told_as_exactly_as_in_the_key_after() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (a int8, b int, PRIMARY KEY (a, b)); SELECT pgwake.watch_table('t')");
    sql.run("INSERT INTO t VALUES (1234567890123456, 1), (2, 2), (9007199254740993, 3)");
    let mut reader = Reader::open(&conninfo, "a");
    sql.run("UPDATE t SET a = 7 WHERE b = 1; UPDATE t SET a = 1234567890123456 WHERE b = 1");
    sql.run("UPDATE t SET a = b + 10");
    let update = |key, old| json!({"op": "update", "table": "t", "key": key, "old": old});
    let of = |a: Value, b| json!({"a": a, "b": b});
    let long = || json!(1_234_567_890_123_456_u64);
    let mut changes = reader.all();
    changes[2..].sort_by_key(|change| change["key"]["b"].as_u64());
    assert_eq!(
        changes,
        [
            update(of(json!(7), 1), of(long(), 1)),
            update(of(long(), 1), of(json!(7), 1)),
            update(of(json!(11), 1), of(long(), 1)),
            update(of(json!(12), 2), of(json!(2), 2)),
            update(of(json!(13), 3), of(json!("9007199254740993"), 3)),
        ]
    );
}

#[test]
fn keys_that_were_altered_behind_our_back_fail_no_writer() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TYPE pair AS (a int, b text); CREATE TABLE other (id int PRIMARY KEY)");
    let mut reader = Reader::open(&conninfo, "a");
    for (alter, key) in [
        ("RENAME COLUMN id TO number", json!({"number": 1})),
        ("ALTER COLUMN id TYPE text USING 'x' || id", json!({"id": "x1"})),
        ("ALTER COLUMN id TYPE bigint", json!({"id": 1})),
        ("ALTER COLUMN id TYPE pair USING ROW(id, 'b')::pair", json!({"id": "(1,b)"})),
        ("DROP COLUMN id, ADD COLUMN key int PRIMARY KEY DEFAULT 7", json!({"key": 7})),
    ] {
        sql.run("CREATE TABLE t (id int PRIMARY KEY, v int); SELECT pgwake.watch_table('t')");
        sql.run("INSERT INTO t VALUES (1, 1); UPDATE t SET v = 2");
        assert_eq!(reader.all().len(), 2);
        sql.run(&format!(
            "ALTER EVENT TRIGGER pgwake_ddl_command_end DISABLE; ALTER TABLE t {alter};
             ALTER EVENT TRIGGER pgwake_ddl_command_end ENABLE"
        ));
        sql.run("UPDATE t SET v = 3");
        assert_eq!(reader.all(), [json!({"op": "update", "table": "t", "key": key})], "{alter}");
        sql.run("UPDATE t SET v = 4; DELETE FROM t");
        assert_eq!(reader.all().len(), 2, "{alter}");
        sql.run("DROP TABLE t");
    }
    assert_eq!(sql.value("SELECT pg_sequence_last_value('pgwake.unconvertible')"), "");
}

#[test]
fn a_writer_needs_no_rights_and_gets_none() {
    let (conninfo, mut sql) = database("");
    let role = sql.value("SELECT 'writer_' || current_database()");
    sql.run(&format!(
        "CREATE ROLE {role} LOGIN; CREATE TABLE t (id int, p int) PARTITION BY LIST (p);
         CREATE TABLE s (id int PRIMARY KEY); GRANT ALL ON s TO {role}; ALTER TABLE t OWNER TO {role};
         GRANT CREATE ON SCHEMA public TO {role};
         SELECT pgwake.watch_table('s', payload => 'row')"
    ));
    // The owner of a watched table may attach partitions.
    sql.run("SELECT pgwake.watch_table('t')");
    let mut writer = Sql::connect(&conninfo.replace("user=postgres", &format!("user={role}")));
    let mut reader = Reader::open(&conninfo, "a");
    // A search_path that puts other operators before the server's own changes nothing.
    writer.run(
        "DO $$ DECLARE pair text; sign text; BEGIN
           FOREACH pair IN ARRAY ARRAY['int,int','bigint,int','bigint,bigint','oid,oid','text,text'] LOOP
             EXECUTE format('CREATE FUNCTION no(%s) RETURNS bool LANGUAGE plpgsql AS %L', pair,
               'BEGIN RAISE ''ran''; END');
             FOREACH sign IN ARRAY '{=,<>,<,>,>=,<=}'::text[] LOOP
               EXECUTE format('CREATE OPERATOR %s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = no)', sign,
                 split_part(pair, ',', 1), split_part(pair, ',', 2));
             END LOOP;
           END LOOP;
         END $$; SET search_path = public, pg_catalog",
    );
    writer.run("CREATE TABLE t_1 PARTITION OF t FOR VALUES IN (1)");
    writer.run("INSERT INTO s VALUES (1), (2); UPDATE s SET id = id + 10; DELETE FROM s; TRUNCATE s");
    assert_eq!(reader.all().len(), 7);
    for denied in [
        "SELECT * FROM pgwake.outbox_0",
        "SELECT pgwake.append(1, NULL, 'insert', '[{}]')",
        "SELECT pgwake.watch_table('s')",
        "SELECT pgwake.read('a', '1:1:||')",
    ] {
        assert!(writer.try_run(denied).is_err(), "{denied}");
    }
}

#[test]
fn notifications_carry_changes_and_refer_to_what_is_too_large() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    sql.run("SELECT pgwake.watch_table('t', payload => 'row', transport => 'notify', channel => 'news')");
    let (mut events, _session) = listening(&conninfo, &["news"]);
    let payload = |seen: Seen| match seen {
        Seen::Notification { payload, .. } => serde_json::from_str::<Value>(&payload).unwrap(),
        other => panic!("{other:?}"),
    };
    sql.run("INSERT INTO t VALUES (1, 'a')");
    let small = payload(next(&mut events));
    assert_eq!((&small["op"], &small["new"]), (&json!("insert"), &json!({"id": 1, "v": "a"})));
    sql.run("UPDATE t SET v = repeat('x', 10000)");
    let large = payload(next(&mut events));
    let reference = large["reference"].as_u64().unwrap();
    let fetched = sql.value(&format!("SELECT pgwake.fetch({reference})"));
    let fetched: Value = serde_json::from_str(&fetched).unwrap();
    assert_eq!(fetched["new"]["v"].as_str().unwrap().len(), 10_000);
    sql.run("INSERT INTO t SELECT n, repeat('x', 9000) FROM generate_series(2, 5) n");
    let many = payload(next(&mut events));
    let oversize = "count(*) FILTER (WHERE f::json ->> 'oversize' IS NOT NULL)";
    let of_many = format!("SELECT {oversize} FROM pgwake.fetch({}, 20000) f", many["reference"]);
    assert_eq!(sql.value(&of_many), "2", "what goes over the limit together is left out");
    assert_eq!(Reader::open(&conninfo, "a").all(), [] as [Value; 0]);
    sql.run("SELECT pgwake.publish('c', 'text'), pgwake.publish('c', '\\x00'::bytea)");
}

#[test]
fn virtual_columns_have_their_values() {
    let (conninfo, mut sql) = database("");
    if sql.value("SHOW server_version_num").parse::<u32>().unwrap() < 180_000 {
        return;
    }
    sql.run("CREATE TABLE t (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL)");
    sql.run("SELECT pgwake.watch_table('t', payload => 'changed')");
    let mut reader = Reader::open(&conninfo, "a");
    sql.run("INSERT INTO t VALUES (1, 2); UPDATE t SET a = 3");
    let changes = reader.all();
    assert_eq!(changes[0]["new"], json!({"id": 1, "a": 2, "b": 4}));
    assert_eq!(changes[1]["changed"], json!(["a", "b"]));
    assert_eq!(changes[1]["new"], json!({"a": 3, "b": 6}));
}
