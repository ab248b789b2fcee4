//! Row changes from the log, through publications of every kind: a copy of the tables built from the events
//! is what is published of them.

use crate::common::log::{Stream, database, has, major};
use crate::common::workload::Workload;
use pgwake::StreamOptions;
use serde_json::json;

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
fn what_a_partition_does_not_log_is_not_taken_for_null() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE m (id int PRIMARY KEY, big text) PARTITION BY RANGE (id);
         CREATE TABLE m1 PARTITION OF m DEFAULT; ALTER TABLE m1 ALTER big SET STORAGE EXTERNAL;
         ALTER TABLE m REPLICA IDENTITY FULL; INSERT INTO m VALUES (1, repeat('x', 5000))",
    );
    let mut stream = Stream::open(&conninfo, StreamOptions::new().table("m"));
    sql.run("UPDATE m SET id = 2");
    let update = stream.change();
    assert_eq!((&update["new"], &update["old"]), (&json!({"id": 2}), &json!({"id": 1})));
    assert_eq!((&update["unchanged_toast"], update.get("changed")), (&json!(["big"]), None));
    assert_eq!(update["key"], json!({"id": 2}));
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
