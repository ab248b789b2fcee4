//! What a watched table tells by the server's library is, byte for byte, what it tells without: for random
//! statements, and for all that may have been done to the table since. Of the server alone, so once is
//! enough: with the system's libpq.
#![cfg(not(feature = "bundled"))]

mod common;

use common::Sql;
use common::library::{database, server, watch_both};
use common::outbox::Reader;
use common::random::Random;
use serde_json::Value;

/// Tables with a key: its columns, how the key of the i-th row is computed, its names, and whether the
/// library tells its usual statements.
const KEYS: [(&str, &str, &str, bool); 18] = [
    ("k int2", "(i % 60000 - 30000)::int2", "k", true),
    ("k int4", "i * 3 - 70000", "k", true),
    ("k int8", "i - 3000 + 9007199254740992", "k", true),
    ("k int8", "-i - 9007199254740000", "k", true),
    ("k bool", "i % 2 = 0", "k", true),
    ("k numeric", "i / 8.0 - 4", "k", true),
    ("k text", "concat(chr(1 + i % 127), '\"\\/', E'\\n\\x1d\\x1e', chr(200 + i % 5000), i)", "k", true),
    ("k text", "repeat(chr(33 + i % 90), 50000) || i", "k", true),
    ("k varchar(40)", "concat(i, ' ')", "k", true),
    ("k char(12)", "concat(i, '\"')", "k", true),
    ("k uuid", "md5(i::text)::uuid", "k", true),
    ("k date", "date '1-1-1' + i * 20", "k", false),
    ("k timestamptz", "timestamptz '1066-10-14' + i * interval '7 hours 3 s'", "k", false),
    ("k positive", "i + 1", "k", false),
    ("\"K \"\"1'\" int4, \"\\K2,\" text", "i, concat('b', i)", "\"K \"\"1'\", \"\\K2,\"", true),
    ("a int8, b int4", "i * 1001001001001, i", "a, b", true),
    ("a bool, b uuid, c numeric(20, 3)", "i % 3 = 0, md5(i::text)::uuid, i", "a, b, c", true),
    ("a int4, b date", "i, date '2000-1-1' + i", "a, b", false),
];

/// Numbers of rows, and how often: around where an outbox row ends.
const SIZES: [u64; 14] = [0, 1, 1, 1, 1, 1, 2, 2, 7, 100, 255, 256, 257, 5000];

/// A table that is watched with the library, and another just like it without.
fn make_tables(sql: &mut Sql, columns: &str, key: &str) {
    sql.run("DROP TABLE IF EXISTS plain, quick; DROP DOMAIN IF EXISTS positive");
    sql.run("CREATE DOMAIN positive AS int4 CHECK (VALUE > 0)");
    for table in ["plain", "quick"] {
        sql.run(&format!(
            "CREATE TABLE {table} (gone text, i int, {columns}, n int DEFAULT 0);
             ALTER TABLE {table} DROP COLUMN gone, ADD CONSTRAINT {table}_key PRIMARY KEY ({key});
             CREATE INDEX ON {table} (i, {key})"
        ));
    }
}

/// Where a row lies depends on what else is going on, its place in the index does not.
fn in_order<T>(sql: &mut Sql, work: impl FnOnce(&mut Sql) -> T) -> T {
    sql.run("SET enable_seqscan = off; SET enable_bitmapscan = off");
    let outcome = work(sql);
    sql.run("ROLLBACK; RESET enable_seqscan; RESET enable_bitmapscan");
    outcome
}

/// Runs a statement on both tables, each in a transaction of its own: `$T` is the table. Both may fail.
fn run_on_both(sql: &mut Sql, statement: &str) {
    let outcomes = ["plain", "quick"].map(|table| {
        let outcome = in_order(sql, |sql| sql.try_run(&statement.replace("$T", table)));
        outcome.map(|_| ()).map_err(|error| error.message.replace(table, "$T"))
    });
    assert_eq!(outcomes[0], outcomes[1], "{statement}");
}

/// The outbox rows of both tables in their order, which must be the same. Returns their number.
fn compare_outbox(sql: &mut Sql, context: &str) -> u64 {
    const DIFFERENCES: &str = "WITH r AS (
          SELECT table_name, what % 128 AS op, changes,
            row_number() OVER (PARTITION BY relid ORDER BY o.id) AS n
          FROM (SELECT id, what, changes FROM pgwake.outbox_0
            UNION ALL SELECT id, what, changes FROM pgwake.outbox_1
            UNION ALL SELECT id, what, changes FROM pgwake.outbox_2) o
            JOIN pgwake.watched w ON w.id = what / 128 WHERE NOT w.ended)
        SELECT coalesce(min(format('%s: %s %s instead of %s %s', n, chr(q.op::int), left(q.changes, 300),
          chr(p.op::int), left(p.changes, 300))) FILTER (WHERE (p.op, p.changes) IS DISTINCT FROM
            (q.op, q.changes)), count(*)::text)
        FROM (SELECT * FROM r WHERE table_name = 'plain') p
          FULL JOIN (SELECT * FROM r WHERE table_name = 'quick') q USING (n)";
    let outcome = sql.value(DIFFERENCES);
    let count = outcome.parse().unwrap_or_else(|_| panic!("{context}\n{outcome}"));
    sql.run("TRUNCATE pgwake.outbox_0, pgwake.outbox_1, pgwake.outbox_2");
    count
}

/// From now on messages wait to be read.
fn listen_to_messages(sql: &mut Sql) {
    sql.run("CREATE PUBLICATION nothing");
    sql.run("SELECT pg_create_logical_replication_slot(current_database(), 'pgoutput')");
}

/// A line for each new message: its prefix and its content.
fn messages(sql: &mut Sql) -> String {
    // What is read is M, flags, an LSN, and then these.
    sql.value(
        "SELECT coalesce(string_agg(encode(substr(data, 11), 'escape'), E'\\n'), '')
         FROM pg_logical_slot_get_binary_changes(current_database(), NULL, NULL, 'proto_version', '1',
           'publication_names', 'nothing', 'messages', 'true') WHERE get_byte(data, 0) = 77",
    )
}

/// Runs a statement, which may fail, on both tables, and compares its messages. Returns their number.
fn compare_messages(sql: &mut Sql, statement: &str) -> usize {
    let told = ["plain", "quick"].map(|table| {
        let _ = in_order(sql, |sql| sql.try_run(&statement.replace("$T", table)));
        messages(sql).replace(table, "$T")
    });
    assert!(told[0] == told[1], "{statement}\n{:.900}\n{:.900}", told[0], told[1]);
    told[0].lines().count()
}

/// A random statement, or a few in one transaction.
fn statement(random: &mut Random, names: &str, key: &str, is_long: bool) -> String {
    let size = SIZES[random.below(if is_long { 12 } else { 14 }) as usize];
    let from = random.below(6000);
    let rows = format!("generate_series({from}, {}) AS i", (from + size) as i64 - 1);
    let range = format!("i >= {from} AND i < {}", from + size);
    let insert = format!("INSERT INTO $T (i, {names}) SELECT i, {key} FROM {rows} ON CONFLICT");
    let changed_key = key.replace('i', &format!("(i + {})", random.below(9000)));
    // Words of SQL have an i in them, too.
    let changed_key = if changed_key.contains("((") || key.contains("interval") { key } else { &changed_key };
    match random.below(9) {
        0..=2 => format!("{insert} DO NOTHING"),
        3 => format!("{insert} ({names}) DO UPDATE SET n = 7"),
        4 => format!("UPDATE $T SET n = n + 1 WHERE {range}"),
        5 => format!("UPDATE $T SET ({names}) = ROW({changed_key}) WHERE {range}"),
        6 => format!("DELETE FROM $T WHERE {range}"),
        7 => format!(
            "BEGIN; {insert} DO NOTHING; SAVEPOINT a; DELETE FROM $T WHERE {range}; ROLLBACK TO a;
             UPDATE $T SET n = 1 WHERE {range}; SAVEPOINT b; UPDATE $T SET n = 2 WHERE i = {from};
             RELEASE b; COMMIT"
        ),
        _ => format!("BEGIN; DELETE FROM $T; ROLLBACK; UPDATE $T SET n = 3 WHERE i = {from}"),
    }
}

#[test]
fn random_statements_write_the_same_outbox_rows() {
    let Some(server) = server() else { return };
    let (_, mut sql) = database(server);
    let mut random = Random::seeded();
    let mut compared = 0;
    for (columns, key, names, _) in KEYS {
        make_tables(&mut sql, columns, names);
        watch_both(&mut sql, "");
        let is_long = key.contains("50000");
        for _ in 0..if is_long { 8 } else { 25 } {
            let statement = statement(&mut random, names, key, is_long);
            run_on_both(&mut sql, &statement);
            compared += compare_outbox(&mut sql, &format!("{columns}: {statement}"));
        }
    }
    assert!(compared > 200, "{compared} outbox rows are too few to compare anything");
}

#[test]
fn random_statements_write_the_same_messages() {
    let Some(server) = server() else { return };
    let (_, mut sql) = database(server);
    let mut random = Random::seeded();
    listen_to_messages(&mut sql);
    let mut compared = 0;
    for (columns, key, names, _) in KEYS {
        make_tables(&mut sql, columns, names);
        watch_both(&mut sql, ", transport => 'wal'");
        messages(&mut sql);
        for _ in 0..if key.contains("50000") { 3 } else { 10 } {
            let statement = statement(&mut random, names, key, key.contains("50000"));
            compared += compare_messages(&mut sql, &statement);
        }
    }
    assert!(compared > 100, "{compared} messages are too few to compare anything");
}

#[test]
fn the_usual_statements_never_reach_the_function_in_plpgsql() {
    let Some(server) = server() else { return };
    let (_, mut sql) = database(server);
    for (columns, key, names, is_told) in KEYS {
        for transport in ["outbox", "wal"] {
            make_tables(&mut sql, columns, names);
            watch_both(&mut sql, &format!(", transport => '{transport}'"));
            let watch = sql.value("SELECT id FROM pgwake.watched WHERE relid = 'quick'::regclass");
            for op in ["insert", "update", "delete"] {
                sql.run(&format!(
                    "CREATE OR REPLACE FUNCTION pgwake.change_{watch}_{op}() RETURNS trigger
                       LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''handed on''; END'"
                ));
            }
            // Neither of the numbers that may be too large for JSON, nor more than a megabyte.
            let rows = if columns == "k bool" { 2 } else { 9 };
            let insert = |from| {
                format!(
                    "INSERT INTO quick (i, {names})
                       SELECT i, {key} FROM generate_series({from}, {from} + {rows} - 1) i"
                )
            };
            let outcome = sql.try_run(&insert(1));
            if !is_told || columns == "k int8" && transport == "wal" {
                let message = outcome.unwrap_err().message;
                assert!(message.contains("handed on"), "{columns}: {message}");
                continue;
            }
            outcome.unwrap_or_else(|error| panic!("{columns}, {transport}: {error}"));
            sql.run(
                "UPDATE quick SET n = 1 WHERE i = 1; UPDATE quick SET n = 2; DELETE FROM quick WHERE i = 1",
            );
            sql.run("UPDATE quick SET n = 1 WHERE false; DELETE FROM quick");
        }
    }
}

#[test]
fn a_table_that_was_altered_behind_our_back_is_told_in_the_same_way() {
    let Some(server) = server() else { return };
    let (_, mut sql) = database(server);
    listen_to_messages(&mut sql);
    let alterations = [
        "ALTER TABLE $T RENAME k TO other",
        "ALTER TABLE $T RENAME k TO other; ALTER TABLE $T ADD k int",
        "ALTER TABLE $T ALTER k TYPE int8",
        "ALTER TABLE $T ALTER k TYPE text",
        "ALTER TABLE $T ALTER k TYPE positive",
        "ALTER TABLE $T DROP k",
        "ALTER TABLE $T DROP k, ADD k int4 DEFAULT 5",
        "ALTER TABLE $T DROP CONSTRAINT $T_key, ALTER k DROP NOT NULL; UPDATE $T SET k = NULL WHERE i = 2",
        "ALTER TABLE $T RENAME TO $T_for_now; ALTER TABLE $T_for_now RENAME TO $T",
        "ALTER TABLE $T SET SCHEMA public",
        "CREATE TABLE $T_child () INHERITS ($T)",
    ];
    for alteration in alterations {
        for transport in ["outbox", "wal"] {
            sql.run("DROP TABLE IF EXISTS plain_child, quick_child");
            make_tables(&mut sql, "k int4", "k");
            sql.run("CREATE INDEX ON plain (i); CREATE INDEX ON quick (i)");
            watch_both(&mut sql, &format!(", transport => '{transport}'"));
            sql.run("INSERT INTO plain (i, k) SELECT i, i FROM generate_series(1, 300) i");
            sql.run("INSERT INTO quick TABLE plain; SET pgwake.following = on");
            for table in ["plain", "quick"] {
                sql.run(&alteration.replace("$T", table));
            }
            messages(&mut sql);
            for statement in [
                "INSERT INTO $T (i) VALUES (-1)",
                "UPDATE $T SET n = 1 WHERE i = 1",
                "UPDATE $T SET n = 1 WHERE i < 9",
                "UPDATE $T SET n = 2 WHERE i > 0",
                "DELETE FROM $T WHERE i < 10",
                "DELETE FROM $T WHERE i > 0",
            ] {
                if transport == "wal" {
                    compare_messages(&mut sql, statement);
                } else {
                    run_on_both(&mut sql, statement);
                    compare_outbox(&mut sql, &format!("{alteration}; {statement}"));
                }
            }
            sql.run("RESET pgwake.following");
        }
    }
}

#[test]
fn an_outbox_that_somebody_altered_is_written_by_the_server_itself() {
    let Some(server) = server() else { return };
    let (_, mut sql) = database(server);
    make_tables(&mut sql, "k int4", "k");
    watch_both(&mut sql, "");
    sql.run(
        "CREATE TABLE seen (n bigint);
         CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN INSERT INTO public.seen VALUES (NEW.id); RETURN NEW; END'",
    );
    let alterations = [
        (
            "CREATE TRIGGER mine BEFORE INSERT ON $O FOR EACH ROW EXECUTE FUNCTION count_it()",
            "DROP TRIGGER mine ON $O",
        ),
        ("ALTER TABLE $O ADD CONSTRAINT mine CHECK (what > 0)", "ALTER TABLE $O DROP CONSTRAINT mine"),
        ("ALTER TABLE $O ADD more int DEFAULT 7", "ALTER TABLE $O DROP more"),
        ("CREATE INDEX mine ON $O ((what % 7)) WHERE id % 2 = 0", "DROP INDEX pgwake.mine"),
        ("CREATE UNIQUE INDEX mine ON $O (id)", "DROP INDEX pgwake.mine"),
        ("ALTER TABLE $O SET UNLOGGED", "ALTER TABLE $O SET LOGGED"),
    ];
    for (number, (alteration, remedy)) in alterations.into_iter().enumerate() {
        sql.run(&alteration.replace("$O", "pgwake.outbox_0"));
        run_on_both(&mut sql, &format!("INSERT INTO $T (i, k) VALUES ({number}, {number})"));
        run_on_both(&mut sql, "UPDATE $T SET n = n + 1 WHERE i >= 0");
        assert_eq!(compare_outbox(&mut sql, alteration), 2, "{alteration}");
        sql.run(&remedy.replace("$O", "pgwake.outbox_0"));
    }
    assert_eq!(sql.value("SELECT count(*) FROM seen"), "4");
}

#[test]
fn whatever_fires_the_trigger_is_told_and_read_in_the_same_way() {
    let Some(server) = server() else { return };
    let (conninfo, mut sql) = database(server);
    make_tables(&mut sql, "k int8", "k");
    watch_both(&mut sql, "");
    let mut reader = Reader::open(&conninfo, "both");
    sql.run("CREATE ROLE writer; GRANT ALL ON plain, quick TO writer");
    let merge = "MERGE INTO $T USING generate_series(90, 110) s ON k = s WHEN MATCHED THEN UPDATE SET n = 9
        WHEN NOT MATCHED THEN INSERT (i, k) VALUES (s, s)";
    let has_merge = sql.value("SELECT current_setting('server_version_num')::int >= 150000") == "t";
    for statement in [
        "COPY $T (i, k) FROM PROGRAM 'seq 1 100 | sed p | paste -d, - -' (FORMAT csv)",
        "INSERT INTO $T (i, k) SELECT 1, i FROM generate_series(80, 120) i ON CONFLICT DO NOTHING",
        if has_merge { merge } else { "SELECT 1" },
        "SET ROLE writer; INSERT INTO $T (i, k) VALUES (1000, 1000);
         UPDATE $T SET k = 1001 WHERE k = 1000; RESET ROLE",
        "SET search_path = pg_temp; UPDATE public.$T SET n = 1 WHERE k = 1; RESET search_path",
        "WITH a AS (UPDATE $T SET n = 5 WHERE k < 5 RETURNING k)
         DELETE FROM $T USING a WHERE $T.k = a.k + 10",
        "BEGIN; UPDATE $T SET n = 4 WHERE k = 3; SET CONSTRAINTS ALL IMMEDIATE; COMMIT",
        "BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE $T SET n = 6 WHERE k = 3; COMMIT",
        "BEGIN; INSERT INTO $T (i, k) VALUES (7, 7777); PREPARE TRANSACTION '$T'",
        "COMMIT PREPARED '$T'",
        "SET session_replication_role = replica; DELETE FROM $T; RESET session_replication_role",
        "DO $$ BEGIN FOR i IN 1..9 LOOP BEGIN INSERT INTO $T (i, k) VALUES (i, i + 9007199254740985);
           IF i % 3 = 0 THEN RAISE EXCEPTION 'no'; END IF; EXCEPTION WHEN raise_exception THEN NULL; END;
         END LOOP; END $$",
        "TRUNCATE $T",
    ] {
        run_on_both(&mut sql, statement);
        let of_table = |changes: &[Value], table: &str| -> Vec<Value> {
            changes.iter().filter(|c| c["table"] == table).map(without_table).collect()
        };
        let changes = reader.all();
        let (plain, quick) = (of_table(&changes, "plain"), of_table(&changes, "quick"));
        assert_eq!(plain, quick, "{statement}");
        let is_silent = statement.contains("replica") || statement.contains("PREPARE T") || !has_merge;
        assert!(is_silent || !plain.is_empty(), "{statement}");
    }
}

fn without_table(change: &Value) -> Value {
    let mut change = change.clone();
    change.as_object_mut().unwrap().remove("table");
    change
}
