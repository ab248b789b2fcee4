//! Row changes from the log, of tables of every kind: a copy of the tables built from the events is as the
//! tables are.

use crate::common::log::{Stream, database, major};
use crate::common::say_loudly;
use crate::common::workload::Workload;
use pgwake::{Lsn, StreamOptions};
use serde_json::json;

/// Whether the server is at least this version; says so, if it is not.
fn has(version: u32, what: &str) -> bool {
    let is_there = major() >= version;
    if !is_there {
        say_loudly(&format!("SKIPPED: {what} came with PostgreSQL {version}"));
    }
    is_there
}

#[test]
fn partitions_come_as_their_root_or_as_themselves() {
    for via_root in [true, false] {
        let mut load = Workload::new(&format!(
            "CREATE TABLE m (id int, v text, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
             CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10);
             CREATE TABLE m2 (day int NOT NULL, gone int, id int NOT NULL, v text, PRIMARY KEY (id, day));
             ALTER TABLE m2 DROP gone; ALTER TABLE m ATTACH PARTITION m2 FOR VALUES FROM (10) TO (20);
             CREATE TABLE m3 PARTITION OF m FOR VALUES FROM (20) TO (100) PARTITION BY LIST (id);
             CREATE TABLE m3a PARTITION OF m3 FOR VALUES IN (1, 2, 3);
             CREATE TABLE m3b PARTITION OF m3 DEFAULT;
             CREATE PUBLICATION p FOR TABLE m, fence, filler WITH (publish_via_partition_root = {via_root})",
        ));
        load.open();
        let insert = |from: i32, to: i32| {
            format!("INSERT INTO m SELECT i, 'v' || i, i % 40 FROM generate_series({from}, {to}) AS i; ")
        };
        load.run(&insert(1, 60));
        load.open_with_snapshot();
        // From one partition to another, to the same, and to a lower one.
        load.run("UPDATE m SET day = day + 10 WHERE day < 25; UPDATE m SET day = 0, v = 'home' WHERE id = 3");
        load.run(
            "UPDATE m2 SET v = 'direct'; INSERT INTO m1 VALUES (100, 'direct', 5);
            DELETE FROM m3b WHERE id < 40",
        );
        load.run(&format!(
            "BEGIN; {} {} UPDATE m SET id = id + 1000 WHERE id % 2 = 0; COMMIT",
            Workload::fill(),
            insert(200, 300)
        ));
        load.check_streamed();
        load.run(
            "CREATE TABLE m4 PARTITION OF m FOR VALUES FROM (100) TO (200);
            INSERT INTO m VALUES (5000, 'new', 150)",
        );
        load.run("UPDATE m SET day = 151 WHERE id IN (100, 5000)");
        load.check_streamed();
        // What leaves the root is gone without an event.
        load.run(&format!(
            "BEGIN; DELETE FROM m1; {} ALTER TABLE m DETACH PARTITION m1; COMMIT",
            Workload::fill()
        ));
        load.run("INSERT INTO m1 VALUES (1, 'no longer', 1)");
        load.catch_up();
        load.run(
            "DELETE FROM m1; ALTER TABLE m ATTACH PARTITION m1 FOR VALUES FROM (0) TO (10);
            INSERT INTO m VALUES (1, 'again', 1)",
        );
        load.run("TRUNCATE m; INSERT INTO m VALUES (1, 'after', 1)");
        load.check_streamed();
    }
}

#[test]
fn children_come_under_their_own_names() {
    let mut load = Workload::new(
        "CREATE TABLE parent (id int PRIMARY KEY, v text);
            CREATE TABLE child (extra int, PRIMARY KEY (id)) INHERITS (parent);
         CREATE TABLE other (PRIMARY KEY (id)) INHERITS (parent);
         CREATE PUBLICATION p FOR TABLE parent, fence, filler",
    );
    load.open();
    load.run(
        "INSERT INTO parent VALUES (1, 'p'), (2, 'p');
        INSERT INTO child VALUES (1, 'c', 1), (3, 'c', 3); INSERT INTO other VALUES (9)",
    );
    load.open_with_snapshot();
    load.run(&format!(
        "BEGIN; UPDATE parent SET v = v || '!'; {} DELETE FROM parent WHERE id = 1; COMMIT",
        Workload::fill()
    ));
    load.run("UPDATE ONLY parent SET id = 5; TRUNCATE ONLY other");
    load.check_streamed();
}

#[test]
fn a_row_filter_makes_updates_inserts_and_deletes() {
    if !has(15, "row filters") {
        return;
    }
    let mut load = Workload::new(
        "CREATE TABLE t (id int PRIMARY KEY, n int, v text); ALTER TABLE t ALTER v SET STORAGE EXTERNAL;
         ALTER TABLE t REPLICA IDENTITY FULL; CREATE TABLE k (id int PRIMARY KEY, v text);
         CREATE TABLE m (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
         CREATE TABLE m1 PARTITION OF m DEFAULT; ALTER TABLE m1 REPLICA IDENTITY FULL;
         ALTER TABLE m REPLICA IDENTITY FULL;
         CREATE PUBLICATION p FOR TABLE t WHERE (n > 10 AND v IS NOT NULL), k WHERE (id % 2 = 0), m
         WHERE (n < 5), fence, filler
           WITH (publish_via_partition_root)",
    );
    load.open();
    let insert = "INSERT INTO t SELECT i, i % 20, repeat('x', 3000) || i
        FROM generate_series(1, 60) AS i ON CONFLICT DO NOTHING;
                  INSERT INTO k SELECT i, 'k' FROM generate_series(1, 10) AS i ON CONFLICT DO NOTHING;
                  INSERT INTO m SELECT i, i FROM generate_series(1, 10) AS i ON CONFLICT DO NOTHING; ";
    load.run(insert);
    load.open_with_snapshot();
    // In, out, and both sides, with large values that stay as they are.
    load.run(
        "UPDATE t SET n = n + 6; UPDATE t SET n = n - 8; UPDATE t SET v = NULL WHERE id % 5 = 0;
        UPDATE m SET n = 10 - n",
    );
    load.run(
        "UPDATE k SET id = id + 11; UPDATE k SET v = 'K'; DELETE FROM k WHERE id < 15;
        DELETE FROM t WHERE id % 3 = 0",
    );
    load.run(&format!(
        "BEGIN; {insert} UPDATE t SET n = n + 5; SAVEPOINT a; DELETE FROM t; ROLLBACK TO a;
        UPDATE t SET n = n - 9; COMMIT"
    ));
    load.check_streamed();
}

#[test]
fn of_two_publications_either_filter_lets_a_row_through() {
    if !has(15, "row filters") {
        return;
    }
    let mut load = Workload::new(
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         CREATE PUBLICATION p FOR TABLE t WHERE (id > 10 OR id = 5), fence, filler;
         CREATE PUBLICATION q FOR TABLE t WHERE (id < 3)",
    )
    .with(|options| options.publication("q"));
    load.open();
    load.run("INSERT INTO t SELECT i, 'v' FROM generate_series(1, 20) AS i");
    load.open_with_snapshot();
    load.run("UPDATE t SET id = 31 - id WHERE id < 3; UPDATE t SET v = 'w'");
    load.catch_up();
    let expected = load
        .sql
        .value("SELECT string_agg(id::text, ',' ORDER BY id) FROM t WHERE id > 10 OR id = 5 OR id < 3");
    for shadow in load.shadows() {
        let mut ids: Vec<_> = shadow.rows("public.t").iter().map(|row| row["id"].as_i64().unwrap()).collect();
        ids.sort_unstable();
        let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
        assert_eq!(ids.join(","), expected, "{shadow}");
    }
}

#[test]
fn a_column_list_leaves_the_others_out() {
    if !has(15, "column lists") {
        return;
    }
    let mut load = Workload::new(
        "CREATE TABLE t (a int, secret text, b text, id int PRIMARY KEY);
         CREATE TABLE m (id int PRIMARY KEY, secret text, b text) PARTITION BY RANGE (id);
         CREATE TABLE m1 PARTITION OF m DEFAULT;
         CREATE PUBLICATION p FOR TABLE t (b, id), m (id, b), fence, filler
         WITH (publish_via_partition_root)",
    );
    load.open();
    load.run(
        "INSERT INTO t SELECT i, 'secret', 'b' || i, i FROM generate_series(1, 50) AS i;
        INSERT INTO m SELECT id, secret, b FROM t",
    );
    load.open_with_snapshot();
    load.run(&format!(
        "BEGIN; UPDATE t SET secret = 'other';
        UPDATE t SET id = id + 100, b = b || '!' WHERE id % 4 = 0; {} DELETE FROM m WHERE id < 9;
        COMMIT",
        Workload::fill()
    ));
    load.run("ALTER TABLE t DROP a; ALTER TABLE t ADD late int; INSERT INTO t VALUES ('s', 'b', 1000, 1)");
    load.check_streamed();
    for shadow in load.shadows() {
        assert!(!shadow.changes.iter().any(|change| change.to_string().contains("secret")), "{shadow}");
    }
}

#[test]
fn generated_columns_come_where_the_server_publishes_them() {
    let columns = "id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED, v text";
    let publications: &[&str] = if has(18, "publish_generated_columns") {
        &["WITH (publish_generated_columns = none)", "WITH (publish_generated_columns = stored)"]
    } else {
        &[""]
    };
    for publication in publications {
        let mut load = Workload::new(&format!(
            "CREATE TABLE t ({columns}); CREATE TABLE f ({columns});
             CREATE PUBLICATION p FOR ALL TABLES {publication}"
        ));
        // A generated column that is not published must not name a row, says PostgreSQL 18.
        if !publication.contains("none") {
            load.run("ALTER TABLE f REPLICA IDENTITY FULL");
        }
        if major() >= 18 {
            load.run("ALTER TABLE t ADD virtual int GENERATED ALWAYS AS (n * 3) VIRTUAL");
        }
        load.open();
        load.run("INSERT INTO t VALUES (1, 1), (2, 2); INSERT INTO f VALUES (1, 1), (2, NULL)");
        load.open_with_snapshot();
        load.run(&format!(
            "BEGIN; UPDATE t SET n = n + 1; {} UPDATE f SET n = 5, id = id + 10;
            DELETE FROM t WHERE id = 1; COMMIT",
            Workload::fill()
        ));
        load.check_streamed();
        let expected = publication.contains("stored");
        for shadow in load.shadows() {
            let first = shadow.rows("public.t");
            assert_eq!(
                (first[0].contains_key("twice"), first[0].contains_key("virtual")),
                (expected, false),
                "{shadow}"
            );
        }
    }
}

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
fn changes_that_came_from_another_server_can_be_left_out() {
    if !has(16, "origin") {
        return;
    }
    let mut load = Workload::new(
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE mine (id int PRIMARY KEY, v text)",
    )
    .with(|options| options.origin(pgwake::Origin::None));
    load.run("SELECT pg_replication_origin_create('loads_' || current_database())");
    load.open();
    load.run("SELECT pg_replication_origin_session_setup('loads_' || current_database())");
    load.run(&format!(
        "BEGIN; {} INSERT INTO t VALUES (1, 'theirs');
        SELECT pg_replication_origin_xact_setup('0/AABB', now()); COMMIT",
        Workload::fill()
    ));
    load.run("SELECT pg_replication_origin_session_reset(); INSERT INTO mine VALUES (1, 'mine')");
    load.catch_up();
    load.run("SELECT pg_replication_origin_drop('loads_' || current_database())");
    for shadow in load.shadows() {
        let rows = ["public.t", "public.mine", "public.filler"].map(|table| shadow.rows(table).len());
        assert_eq!(rows, [0, 1, 0], "{shadow}");
    }
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
