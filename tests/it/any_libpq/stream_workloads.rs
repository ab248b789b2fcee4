//! Row changes from the log, under workloads of transactions: whatever a transaction does before its end, a
//! copy of the tables built from the events is as the tables are.

use crate::common::log::major;
use crate::common::say_loudly;
use crate::common::workload::Workload;
use serde_json::json;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";

/// SQL that writes rows; some hundred numbers are enough for their transaction to be streamed.
fn insert(from: i32, to: i32) -> String {
    format!("INSERT INTO t SELECT i, repeat('x', 600) || i FROM generate_series({from}, {to}, 4) AS i; ")
}

#[test]
fn messages_come_with_their_transactions_or_at_once() {
    let mut load = Workload::new(TABLE);
    load.open();
    load.run("SELECT pg_logical_emit_message(true, 'p', 'alone')");
    load.run(
        "BEGIN; INSERT INTO t VALUES (1); SELECT pg_logical_emit_message(true, 'p', 'with a row'); COMMIT",
    );
    load.run(
        "BEGIN; SELECT pg_logical_emit_message(true, 'p', 'gone');
              SELECT pg_logical_emit_message(false, 'q', 'kept'); ROLLBACK",
    );
    load.run(&format!(
        "BEGIN; {} SAVEPOINT a; SELECT pg_logical_emit_message(true, 'p', 'of a savepoint'); {}
         ROLLBACK TO a; SELECT pg_logical_emit_message(true, 'p', 'behind it'); COMMIT",
        insert(10, 600),
        insert(601, 1200)
    ));
    load.check_streamed();
    for shadow in load.shadows() {
        let of = |channel: &str| -> Vec<_> {
            let of_channel = shadow.messages.iter().filter(|message| message.0 == channel);
            of_channel.map(|message| message.1.as_str()).collect()
        };
        assert_eq!(of("q"), ["kept"], "{shadow}");
        // What a savepoint wrote that was rolled back may come, where it was streamed.
        let is_streamed = !shadow.to_string().contains("Off");
        let mut transactional = of("p");
        transactional.retain(|text| !is_streamed || *text != "of a savepoint");
        assert_eq!(transactional, ["alone", "with a row", "behind it"], "{shadow}");
    }
}

#[test]
fn large_transactions_come_whole() {
    let mut load = Workload::new(TABLE);
    load.open();
    load.run(&insert(1, 3));
    load.run(&format!(
        "BEGIN; {} UPDATE t SET v = v || '!' WHERE id % 3 = 0; DELETE FROM t WHERE id % 7 = 0; COMMIT",
        insert(4, 3000)
    ));
    load.open_with_snapshot();
    load.run(&format!("BEGIN; {} DELETE FROM t WHERE id > 3500; ROLLBACK", insert(3001, 5000)));
    load.run("BEGIN; UPDATE t SET id = id + 10000; UPDATE t SET id = id - 10000 WHERE id > 11000; COMMIT");
    load.check_streamed();
}

#[test]
fn large_transactions_that_run_beside_one_another_are_told_apart() {
    let mut load = Workload::new(TABLE);
    load.open();
    let mut others = [0, 1, 2].map(|_| crate::common::Sql::connect(&load.conninfo));
    for other in &mut others {
        other.run("BEGIN");
    }
    for round in 0..4 {
        for (writer, other) in others.iter_mut().enumerate() {
            let from = (writer as i32 * 10 + round) * 1000;
            other.run(&insert(from, from + 600));
            other.run(&format!("SAVEPOINT s{round}; {}", insert(from + 601, from + 999)));
            if (writer + round as usize).is_multiple_of(2) {
                other.run(&format!("ROLLBACK TO s{round}"));
            }
        }
        load.run(&format!("INSERT INTO t VALUES ({})", 100_000 + round));
    }
    for (other, end) in others.iter_mut().zip(["COMMIT", "ROLLBACK", "COMMIT"]) {
        other.run(end);
    }
    load.check_streamed();
}

#[test]
fn subtransactions_end_each_in_its_own_way() {
    let mut load = Workload::new(TABLE);
    load.open();
    load.run(&insert(1, 50));
    // Nested, released and rolled back at each depth; what lies between them stays.
    load.run(&format!(
        "BEGIN; {} SAVEPOINT a; {} SAVEPOINT b; {} SAVEPOINT c; {} ROLLBACK TO c; {} RELEASE b; {}
         ROLLBACK TO a; {} SAVEPOINT d; {} SAVEPOINT e; {} RELEASE e; {} RELEASE d; {} COMMIT",
        insert(1000, 1400),
        insert(2000, 2400),
        insert(3000, 3400),
        insert(4000, 4400),
        insert(4000, 4100),
        insert(5000, 5400),
        insert(2000, 2300),
        insert(3000, 3300),
        insert(4000, 4300),
        insert(5000, 5300),
        insert(6000, 6300)
    ));
    // All of it at once, after some of it was streamed.
    load.run(&format!(
        "BEGIN; {} SAVEPOINT a; {} RELEASE a; SAVEPOINT b; {} ROLLBACK",
        insert(7000, 7400),
        insert(7500, 7900),
        insert(8000, 8400)
    ));
    // Many, of which every second one is rolled back.
    let many: String = (0..60)
        .map(|i| {
            let end = if i % 2 == 0 { "ROLLBACK TO" } else { "RELEASE" };
            format!(
                "SAVEPOINT s{i}; {} UPDATE t SET v = 's{i}' WHERE id < 5; {end} s{i}; ",
                insert(i * 30 + 20_000, i * 30 + 20_029)
            )
        })
        .collect();
    load.run(&format!("BEGIN; {many} COMMIT"));
    // Twenty deep, and back from the middle.
    let deep: String =
        (0..20).map(|i| format!("SAVEPOINT s{i}; {}", insert(i * 60 + 30_000, i * 60 + 30_059))).collect();
    load.run(&format!("BEGIN; {deep} ROLLBACK TO s10; {} COMMIT", insert(40_000, 40_200)));
    // Those of functions.
    load.run(&format!(
        "BEGIN; {} DO $$ BEGIN FOR i IN 1..300 LOOP BEGIN
           INSERT INTO t VALUES (50000 + i, 'loop'), (50000 + i + i % 2 * 1000 - i % 2 * 1000, 'twice');
         EXCEPTION WHEN unique_violation THEN INSERT INTO t VALUES (50000 + i, 'once'); END; END LOOP; END $$;
         COMMIT",
        insert(60_000, 60_400)
    ));
    load.check_streamed();
}

#[test]
fn ddl_within_a_transaction_holds_from_its_place_on() {
    let mut load = Workload::new(TABLE).in_large_parts();
    load.open();
    load.run(&insert(1, 20));
    let add = Workload::ddl(&json!({"table": "public.t", "add": ["c", 7]}));
    let drop = Workload::ddl(&json!({"table": "public.t", "drop": "c"}));
    load.run(&format!(
        "BEGIN; {} ALTER TABLE t ADD c int DEFAULT 7; {add} INSERT INTO t VALUES (900, 'new', 1);
         UPDATE t SET c = 8 WHERE id < 3; SAVEPOINT a; ALTER TABLE t ADD d text;
         INSERT INTO t VALUES (901, 'a', 2, 'd'); {}
         ROLLBACK TO a; INSERT INTO t VALUES (902, 'b', 3); COMMIT",
        insert(100, 600),
        insert(1000, 1400),
    ));
    load.open_with_snapshot();
    load.run(&format!(
        "BEGIN; SAVEPOINT a; ALTER TABLE t DROP c; INSERT INTO t VALUES (903, 'gone'); {} ROLLBACK TO a;
         INSERT INTO t VALUES (904, 'stays', 4); ALTER TABLE t DROP c;
         {drop} {} ALTER TABLE t ADD c int DEFAULT 1;
         {} UPDATE t SET c = 5 WHERE id < 10; COMMIT",
        insert(2000, 2400),
        insert(3000, 3400),
        Workload::ddl(&json!({"table": "public.t", "add": ["c", 1]})),
    ));
    // A table that comes and goes within it.
    load.run(&format!(
        "BEGIN; CREATE TABLE n (id int PRIMARY KEY, v text); INSERT INTO n VALUES (1, 'n');
            {} DROP TABLE n; {}
         CREATE TABLE n (id text PRIMARY KEY, other int); INSERT INTO n VALUES ('1', 1), ('2', NULL); COMMIT",
        insert(5000, 5400),
        Workload::ddl(&json!({"table": "public.n", "gone": true})),
    ));
    load.check_streamed();
}

#[test]
fn a_table_is_truncated_alone_with_others_and_with_those_that_refer_to_it() {
    let mut load = Workload::new(
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id serial PRIMARY KEY, v text);
         CREATE TABLE r (id int PRIMARY KEY, t int REFERENCES t);
         CREATE TABLE part (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (10);
         CREATE TABLE part2 PARTITION OF part DEFAULT",
    );
    load.open();
    let fill = "INSERT INTO t SELECT i FROM generate_series(1, 5) i ON CONFLICT DO NOTHING;
        INSERT INTO u (v) VALUES ('u');
                INSERT INTO r VALUES (1, 1) ON CONFLICT DO NOTHING;
                INSERT INTO part SELECT i FROM generate_series(5, 15) i
                ON CONFLICT DO NOTHING;";
    for truncate in [
        "TRUNCATE u",
        "TRUNCATE u RESTART IDENTITY",
        "TRUNCATE t CASCADE",
        "TRUNCATE t, r, u, part",
        "TRUNCATE part1",
    ] {
        load.run(fill);
        load.run(truncate);
        load.check();
        load.run(&format!(
            "BEGIN; {fill} {} {truncate}; {fill} SAVEPOINT a; {truncate}; ROLLBACK TO a; COMMIT",
            Workload::fill()
        ));
        load.check_streamed();
    }
}

#[test]
fn prepared_transactions_count_once_they_are_committed() {
    if major() < 15 {
        return say_loudly("SKIPPED: PostgreSQL 14 does not send prepared transactions before their commit");
    }
    let mut load = Workload::new(TABLE).with(|options| options.two_phase(true));
    load.open();
    load.run("BEGIN; INSERT INTO t VALUES (1, 'small'); PREPARE TRANSACTION 'loads_a'");
    load.run(&format!(
        "BEGIN; {} SAVEPOINT s; {} ROLLBACK TO s; {} PREPARE TRANSACTION 'loads_b'",
        insert(1000, 1500),
        insert(2000, 2500),
        insert(3000, 3400)
    ));
    load.run(&format!("BEGIN; {} PREPARE TRANSACTION 'loads_c'", insert(4000, 4500)));
    load.run("BEGIN; INSERT INTO t VALUES (2, 'it''s \"small\"'); PREPARE TRANSACTION 'loads '' \" d'");
    load.catch_up();
    load.run("INSERT INTO t VALUES (3, 'between')");
    load.run("COMMIT PREPARED 'loads_a'");
    load.catch_up();
    for shadow in load.shadows() {
        assert_eq!(shadow.rows("public.t").len(), 2, "{shadow}");
        let prepared = shadow.events.iter().filter(|event| event["event"] == "prepare");
        let gids: Vec<_> = prepared.map(|event| event["gid"].as_str().unwrap()).collect();
        assert_eq!(gids, ["loads_a", "loads_b", "loads_c", "loads ' \" d"], "{shadow}");
    }
    load.run("ROLLBACK PREPARED 'loads_c'");
    load.run("COMMIT PREPARED 'loads_b'");
    load.run("ROLLBACK PREPARED 'loads '' \" d'");
    // DDL holds its lock until the commit.
    load.run(&format!(
        "BEGIN; ALTER TABLE t ADD c int DEFAULT 3; {} INSERT INTO t VALUES (10, 'ten', 10);
            PREPARE TRANSACTION 'loads_e'",
        Workload::ddl(&json!({"table": "public.t", "add": ["c", 3]}))
    ));
    load.run("COMMIT PREPARED 'loads_e'");
    load.check_streamed();
    // One that never asked for it.
    let mut load = Workload::new(TABLE);
    load.open();
    load.run(&format!("BEGIN; {} PREPARE TRANSACTION 'loads_f'", insert(1, 500)));
    load.run("INSERT INTO t VALUES (1000)");
    load.run("COMMIT PREPARED 'loads_f'");
    load.check_streamed();
}
