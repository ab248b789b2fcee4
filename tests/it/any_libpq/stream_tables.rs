//! Row changes from the log, of tables of every kind: a copy of the tables built from the events is as the
//! tables are.

use crate::common::log::{Stream, database, has, until_free};
use crate::common::workload::Workload;
use pgwake::{Lsn, StreamOptions};
use serde_json::json;
use std::time::Duration;

#[test]
fn what_names_a_row_may_be_any_replica_identity_and_change() {
    let mut load = Workload::new(
        "CREATE TABLE d (id int PRIMARY KEY, v text); CREATE TABLE f (id int PRIMARY KEY, v text);
            ALTER TABLE f REPLICA IDENTITY FULL;
         CREATE TABLE w (id int, v text); ALTER TABLE w REPLICA IDENTITY FULL;
         CREATE TABLE x (id int PRIMARY KEY, a int NOT NULL, b text NOT NULL, v text);
         CREATE UNIQUE INDEX x_ab ON x (b, a);
         ALTER TABLE x REPLICA IDENTITY USING INDEX x_ab;
         CREATE TABLE big (id text PRIMARY KEY, v int); ALTER TABLE big ALTER id SET STORAGE EXTERNAL",
    );
    load.open();
    let insert = "INSERT INTO d SELECT i, 'd' FROM generate_series(1, 9) i;
        INSERT INTO f SELECT i, 'f' FROM generate_series(1, 9) i;
                  INSERT INTO w SELECT i % 3, nullif('w' || i % 2, 'w1') FROM generate_series(1, 12) i;
                  INSERT INTO x SELECT i, i % 3, 'b' || i, 'x' FROM generate_series(1, 9) i;
                  INSERT INTO big VALUES (repeat('k', 2500), 1), (repeat('l', 2500), 2)";
    load.run(insert);
    load.open_with_snapshot();
    load.run(
        "UPDATE d SET id = id + 10 WHERE id < 4; UPDATE f SET id = id + 10, v = 'g' WHERE id < 4;
        DELETE FROM f WHERE id = 5",
    );
    load.run(
        "UPDATE w SET v = 'v' WHERE v IS NULL; DELETE FROM w WHERE id = 2;
        UPDATE w SET id = NULL WHERE id = 0",
    );
    load.run(
        "UPDATE x SET id = id + 100; UPDATE x SET a = a + 1, v = 'y' WHERE id < 105;
        DELETE FROM x WHERE id = 106",
    );
    load.run(
        "UPDATE big SET v = v + 1; UPDATE big SET id = repeat('m', 2500) WHERE v = 2;
        DELETE FROM big WHERE v = 3",
    );
    load.check();
    // Another one from now on, in the middle of a transaction as well.
    load.run(&format!(
        "BEGIN; UPDATE d SET v = 'e'; ALTER TABLE d REPLICA IDENTITY FULL;
        UPDATE d SET id = id + 100; {} ALTER TABLE x REPLICA IDENTITY DEFAULT;
        UPDATE x SET id = id - 100; COMMIT",
        Workload::fill()
    ));
    load.run(
        "ALTER TABLE f REPLICA IDENTITY DEFAULT; UPDATE f SET v = 'h', id = id - 1;
        ALTER TABLE x REPLICA IDENTITY FULL; DELETE FROM x WHERE id = 1",
    );
    load.check_streamed();
}

#[test]
fn a_key_that_was_renamed_is_not_taken_for_the_column_that_has_its_name_now() {
    let mut load = Workload::new(
        "CREATE TABLE f (id int PRIMARY KEY, n int); ALTER TABLE f REPLICA IDENTITY FULL;
         CREATE TABLE g (n int, id int PRIMARY KEY); ALTER TABLE g REPLICA IDENTITY FULL",
    );
    load.open();
    let insert = "INSERT INTO f VALUES (1, 7), (2, 7); INSERT INTO g VALUES (7, 1), (7, 2)";
    load.run(insert);
    load.open_with_snapshot();
    let swap: String = [("id", "old"), ("n", "id")]
        .map(|(from, to)| {
            let told = Workload::ddl(&json!({"table": "public.f", "rename": [from, to]}));
            format!("ALTER TABLE f RENAME {from} TO {to}; {told}")
        })
        .concat();
    let add = Workload::ddl(&json!({"table": "public.g", "add": ["new", null]}));
    load.run(&format!("BEGIN; {swap} ALTER TABLE g ADD new int; {add} COMMIT"));
    load.run(&format!("BEGIN; UPDATE f SET id = 8; UPDATE g SET n = 8; {} COMMIT", Workload::fill()));
    load.check_streamed();
    for shadow in load.shadows() {
        let keys = |table: &str| {
            let of_table = shadow.changes.iter().filter(|change| change[3] == table && change[2] == "update");
            of_table.map(|change| change[4].clone()).collect::<Vec<_>>()
        };
        assert_eq!(keys("f"), [json!(null), json!(null)], "{shadow}");
        assert_eq!(keys("g"), [json!({"id": 1}), json!({"id": 2})], "{shadow}");
    }
}

#[test]
fn a_table_without_a_replica_identity_can_be_inserted_into() {
    let mut load = Workload::new(
        "CREATE TABLE n (id int PRIMARY KEY, v text); ALTER TABLE n REPLICA IDENTITY NOTHING;
            CREATE TABLE k (v text);
         CREATE PUBLICATION p FOR ALL TABLES WITH (publish = 'insert, truncate')",
    );
    load.open();
    load.run("INSERT INTO n VALUES (1, 'a'); INSERT INTO k VALUES ('a'), ('a'), (NULL)");
    load.open_with_snapshot();
    load.run(&format!(
        "BEGIN; INSERT INTO n VALUES (2, 'b'); {} INSERT INTO k VALUES ('a'); COMMIT",
        Workload::fill()
    ));
    load.check_streamed();
    load.run("UPDATE n SET v = 'c'; DELETE FROM k; TRUNCATE n");
    load.catch_up();
    for shadow in load.shadows() {
        assert_eq!((shadow.rows("public.n").len(), shadow.rows("public.k").len()), (0, 4), "{shadow}");
        assert_eq!(shadow.told["public.n"], 1, "{shadow}: its columns are the same in rows and changes");
    }
}

#[test]
fn a_table_may_change_between_transactions_and_within() {
    let mut load = Workload::new("CREATE TABLE t (id int PRIMARY KEY, a int, b text, gone text)");
    load.open();
    load.run("INSERT INTO t SELECT i, i, 'b' || i, 'gone' FROM generate_series(1, 20) AS i");
    let steps = [
        ("ALTER TABLE t DROP gone", json!({"table": "public.t", "drop": "gone"})),
        (
            "ALTER TABLE t ADD c jsonb DEFAULT '{\"a\": [1]}'",
            json!({"table": "public.t", "add": ["c", {"a": [1]}]}),
        ),
        (
            "ALTER TABLE t RENAME a TO \"Ä \"\"x\"\"\"",
            json!({"table": "public.t", "rename": ["a", "Ä \"x\""]}),
        ),
        ("ALTER TABLE t ALTER \"Ä \"\"x\"\"\" TYPE text", json!({"table": "public.t", "text": "Ä \"x\""})),
        ("ALTER TABLE t RENAME id TO ident", json!({"table": "public.t", "rename": ["id", "ident"]})),
        ("ALTER TABLE t RENAME TO other", json!({"table": "public.t", "rename_to": "public.other"})),
        ("ALTER TABLE other ALTER ident TYPE bigint", json!({"table": "public.other"})),
        (
            "CREATE SCHEMA s; ALTER TABLE other SET SCHEMA s",
            json!({"table": "public.other", "rename_to": "s.other"}),
        ),
        (
            "ALTER TABLE s.other RENAME TO t; ALTER TABLE s.t SET SCHEMA public",
            json!({"table": "s.other", "rename_to": "public.t"}),
        ),
    ];
    let mut table = "t";
    for (number, (step, command)) in steps.iter().enumerate() {
        let key = if number < 5 { "id" } else { "ident" };
        let update = |table: &str, key: &str| {
            format!("UPDATE {table} SET b = b || {number} WHERE {key} % 3 = {number} % 3; ")
        };
        let fill = if number % 2 == 0 { Workload::fill() } else { String::new() };
        load.run(&format!("BEGIN; {} {fill} {step}; {} COMMIT", update(table, key), Workload::ddl(command)));
        table = match number {
            5 | 6 => "other",
            7 => "s.other",
            _ => "t",
        };
        let key = if number < 4 { "id" } else { "ident" };
        load.run(&update(table, key));
        load.run(&format!("INSERT INTO {table} ({key}, b) VALUES ({}, 'new')", 100 + number));
    }
    load.open_with_snapshot();
    load.run(&format!("BEGIN; UPDATE t SET b = 'end' WHERE ident < 5; {} COMMIT", Workload::fill()));
    load.check_streamed();
}

#[test]
fn large_values_that_stay_apart_keep_what_they_were() {
    let mut load = Workload::new(
        "CREATE TABLE t (id int PRIMARY KEY, n int, a text, b text);
            ALTER TABLE t ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL;
         CREATE TABLE f (LIKE t INCLUDING ALL); ALTER TABLE f REPLICA IDENTITY FULL",
    );
    load.open();
    for table in ["t", "f"] {
        load.run(&format!(
            "INSERT INTO {table} SELECT i, i, repeat('a', 3000 * i), repeat('b', 9000)
            FROM generate_series(1, 5) AS i"
        ));
    }
    load.open_with_snapshot();
    for table in ["t", "f"] {
        load.run(&format!(
            "UPDATE {table} SET n = n + 1; UPDATE {table} SET a = a || 'x';
            UPDATE {table} SET id = id + 10 WHERE id < 3"
        ));
        load.run(&format!(
            "BEGIN; UPDATE {table} SET n = n + 1;
            {} UPDATE {table} SET b = NULL WHERE id = 3; UPDATE {table} SET n = 0;
            COMMIT",
            Workload::fill()
        ));
        load.run(&format!(
            "UPDATE {table} SET a = repeat('z', 1000000) WHERE id = 4;
            UPDATE {table} SET n = 9 WHERE id = 4; DELETE FROM {table} WHERE id = 5"
        ));
    }
    load.check_streamed();
}

#[test]
fn what_writes_rows_in_other_ways_than_one_by_one_is_told_row_by_row() {
    let mut load = Workload::new(
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE UNLOGGED TABLE u (id int PRIMARY KEY);
            CREATE TABLE i (id int PRIMARY KEY, v text)",
    );
    load.open();
    load.run("COPY t FROM PROGRAM 'seq 1 400 | sed \"s/$/\\tcopied/\"'");
    load.run("INSERT INTO u SELECT generate_series(1, 10); CREATE TEMP TABLE temporary AS SELECT 1 AS x");
    load.open_with_snapshot();
    load.run(
        "INSERT INTO t SELECT i, 'upsert' FROM generate_series(390, 410) AS i
        ON CONFLICT (id) DO UPDATE SET v = excluded.v || t.v",
    );
    load.run("INSERT INTO t VALUES (1, 'no'), (500, 'yes') ON CONFLICT DO NOTHING");
    load.run("WITH gone AS (DELETE FROM t WHERE id < 5 RETURNING *) INSERT INTO i SELECT * FROM gone");
    load.run(
        "BEGIN; CREATE TABLE made AS SELECT id, v FROM t WHERE id < 20;
        ALTER TABLE made ADD PRIMARY KEY (id); UPDATE made SET v = 'm'; COMMIT",
    );
    load.run("UPDATE t SET v = 'x' WHERE id % 7 = 0");
    load.run("VACUUM FULL t");
    load.run("CLUSTER t USING t_pkey");
    load.run(&format!(
        "BEGIN; {} ALTER TABLE t ALTER v SET DATA TYPE varchar(2000) USING v;
        UPDATE t SET v = 'y' WHERE id % 9 = 0; COMMIT",
        Workload::fill()
    ));
    if has(15, "MERGE") {
        load.run(
            "MERGE INTO t USING (SELECT generate_series(398, 420) AS id) AS s ON t.id = s.id
            WHEN MATCHED AND s.id < 402 THEN DELETE
                  WHEN MATCHED THEN UPDATE SET v = 'merged' WHEN NOT MATCHED THEN INSERT
                  VALUES (s.id, 'merged')",
        );
    }
    load.check_streamed();
    for shadow in load.shadows() {
        assert_eq!(shadow.rows("public.u").len(), 0, "{shadow}: it is not logged");
    }
}

#[test]
fn a_thousand_columns_and_a_value_of_a_megabyte_come_whole() {
    let columns: Vec<_> = (0..1000).map(|i| format!("c{i} int DEFAULT {i}")).collect();
    let mut load =
        Workload::new(&format!("CREATE TABLE t (id int PRIMARY KEY, v text, {})", columns.join(", ")));
    load.open();
    load.run(
        "INSERT INTO t (id, v) SELECT i, 'v' FROM generate_series(1, 10) i;
        UPDATE t SET c999 = NULL, c0 = -1 WHERE id < 5",
    );
    load.open_with_snapshot();
    load.run(
        "BEGIN; UPDATE t SET v = (SELECT string_agg(md5(i::text), '')
        FROM generate_series(1, 32768) i) WHERE id < 3; UPDATE t SET c500 = 0; COMMIT",
    );
    load.check();
}

#[test]
fn a_slot_lasts_only_from_when_all_rows_are_acknowledged() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)");
    let slot = sql.value("SELECT 'rows_of_' || current_database()");
    let slots = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}'");
    let options = StreamOptions::new().table("t").slot(&slot).create_slot(true).snapshot(true);
    let mut stream = Stream::open(&conninfo, options.manual_ack(true));
    let mut last = 0;
    for id in [1, 2] {
        let row = stream.change();
        assert_eq!(row["new"], json!({"id": id}));
        last = row["commit_lsn"].as_str().unwrap().parse::<Lsn>().unwrap().0;
        if id == 1 {
            stream.events.ack(stream.id, last).unwrap();
        }
    }
    assert!(stream.events.next(Some(Duration::from_millis(400))).unwrap().is_none());
    assert_eq!(sql.value(&slots), "0", "the second row is not acknowledged");
    stream.events.ack(stream.id, last).unwrap();
    sql.run("INSERT INTO t VALUES (3)");
    assert_eq!(stream.change()["new"], json!({"id": 3}));
    assert_eq!(sql.value(&slots), "1");
    drop(stream);
    until_free(&mut sql, &slot);
    sql.run(&format!("SELECT pg_drop_replication_slot('{slot}')"));
}

#[test]
fn a_row_of_a_snapshot_can_be_acknowledged_as_any_change() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)");
    let options = StreamOptions::new().table("t").snapshot(true).manual_ack(true);
    let mut stream = Stream::open(&conninfo, options);
    let mut last = None;
    for id in 1..=3 {
        let change = stream.change();
        assert_eq!((&change["new"], change["snapshot"] == true), (&json!({"id": id}), id < 3));
        let lsn: Lsn = change["commit_lsn"].as_str().unwrap().parse().unwrap();
        assert!(id < 3 || last < Some(lsn), "rows stand before all changes");
        last = Some(lsn);
        stream.events.ack(stream.id, lsn.0).unwrap();
        if id == 2 {
            sql.run("INSERT INTO t VALUES (3)");
        }
    }
    let error = stream.events.ack(stream.id, last.unwrap().0 + 1_000_000).unwrap_err();
    assert_eq!(error.kind, pgwake::ErrorKind::InvalidArgument);
}
