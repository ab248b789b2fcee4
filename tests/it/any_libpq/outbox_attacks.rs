//! What a hostile or unlucky user may do to the outbox: nobody gains a right, no reader is stopped, and
//! nothing is lost of what others wrote.

use crate::common::outbox::{Reader, database, role};
use crate::common::{Sql, say_loudly};
use serde_json::{Value, json};

#[test]
fn a_column_that_is_gone_calls_no_function_of_the_writer() {
    let (conninfo, mut sql) = database("");
    let (name, mut owner) = role(&conninfo, &mut sql, "mallory");
    owner.run(&format!("CREATE TABLE {name}.t (id int PRIMARY KEY, v int)"));
    sql.run(&format!(
        "SELECT pgwake.watch_table('{name}.t'), pgwake.watch_table('{name}.t', payload => 'row')"
    ));
    // PostgreSQL takes n.id for id(n) where n has no such column.
    owner.run(&format!(
        "CREATE FUNCTION {name}.id(record) RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE ''ran''; END';
         SET search_path = {name}; SET pgwake.following = on; ALTER TABLE t RENAME id TO number"
    ));
    let mut reader = Reader::open(&conninfo, "a");
    owner.run("INSERT INTO t VALUES (1, 2)");
    assert_eq!(reader.all_raw()[0]["new"], json!({"number": 1, "v": 2}));
    let open = "SELECT string_agg(proname, ',') FROM pg_proc WHERE pronamespace = 'pgwake'::regnamespace
        AND prosecdef AND proconfig IS NULL";
    assert_eq!(sql.value(open), "wake", "which names nothing but functions of the server and of ours");
}

#[test]
fn a_key_that_is_null_stops_no_reader() {
    let (conninfo, mut sql) = database("");
    if sql.value("SHOW server_version_num").parse::<u32>().unwrap() >= 180_000 {
        return say_loudly("SKIPPED: keys that are NULL in a child: this server inherits NOT NULL");
    }
    sql.run(
        "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c () INHERITS (p);
         ALTER TABLE c ALTER id DROP NOT NULL; SELECT pgwake.watch_table('p')",
    );
    let mut reader = Reader::open(&conninfo, "a");
    sql.run("INSERT INTO c VALUES (NULL), (77)");
    let keys: Vec<_> = reader.all().iter().map(|change| change["key"].clone()).collect();
    assert_eq!(keys, [json!({"id": null}), json!({"id": 77})]);
}

#[test]
fn a_row_that_is_too_deep_to_be_read_stops_no_reader() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE deep (id int PRIMARY KEY, j json);
         SELECT pgwake.watch_table('deep', payload => 'row')",
    );
    let mut reader = Reader::open(&conninfo, "a");
    // As deep as this session may write it, which is deeper than one that reads it within functions.
    let mut depth = 16_000;
    while sql
        .try_run(&format!("INSERT INTO deep SELECT 1, (repeat('[', {depth}) || repeat(']', {depth}))::json"))
        .is_err()
    {
        depth -= 50;
    }
    sql.run("INSERT INTO deep VALUES (2, '{}')");
    let last = reader.sql.value(&format!(
        "SELECT count(*) FROM pgwake.read('a', '{}') WHERE kind = 'change' AND body ~ '\"id\":2'",
        reader.position()
    ));
    assert_eq!(last, "1", "what follows is read");
}

#[test]
fn gaps_hide_neither_each_other_nor_the_first_change() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')");
    let mut reader = Reader::open(&conninfo, "a");
    // The first outbox row that there ever is, behind two gaps.
    for count in [5, 7] {
        sql.run(&format!(
            "SELECT pgwake.append(NULL, NULL, 'gap', '{{\"a\":{count}}}', nextval('pgwake.gap_id'))"
        ));
    }
    sql.run("INSERT INTO t VALUES (1)");
    assert_eq!(reader.all().len(), 1);
    assert_eq!(reader.gaps, ["5", "7"]);
    assert_eq!((reader.all().len(), reader.gaps.len()), (0, 2));
}

#[test]
fn a_statement_of_many_rows_leaves_no_cursor_behind() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY, v int); SELECT pgwake.watch_table('t', payload => 'row')");
    let mut reader = Reader::open(&conninfo, "a");
    sql.run("BEGIN; INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i; UPDATE t SET v = 0");
    assert_eq!(sql.value("SELECT count(*) FROM pg_cursors"), "0");
    sql.run("COMMIT");
    assert_eq!(reader.all().len(), 2000);
}

#[test]
fn a_table_of_any_width_is_delivered_with_its_values() {
    let (conninfo, mut sql) = database("");
    let mut reader = Reader::open(&conninfo, "a");
    for width in [48, 49, 50, 97, 98, 99, 400, 800] {
        let columns: String = (0..width).map(|i| format!(", c{i} int")).collect();
        sql.run(&format!(
            "CREATE TABLE t{width} (id int PRIMARY KEY{columns});
             SELECT pgwake.watch_table('t{width}', payload => 'row');
             INSERT INTO t{width} VALUES (1, 7); UPDATE t{width} SET c1 = 8"
        ));
        let changes = reader.all();
        let new = changes[1]["new"].as_object().unwrap();
        assert_eq!((new.len(), &new["c0"], &new["c1"]), (width + 1, &json!(7), &json!(8)), "{width}");
    }
}

#[test]
fn a_reader_sees_what_it_may_select_and_no_position_of_others() {
    let (conninfo, mut sql) = database("");
    let (name, mut eve) = role(&conninfo, &mut sql, "eve");
    sql.run(&format!(
        "CREATE TABLE secret (id int PRIMARY KEY); CREATE TABLE open (id int PRIMARY KEY);
         SELECT pgwake.watch_table('secret'), pgwake.watch_table('open'); GRANT SELECT ON open TO {name};
         GRANT USAGE ON SCHEMA pgwake TO {name}; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgwake TO {name}"
    ));
    let reader = Reader::open(&conninfo, "admin");
    sql.run("INSERT INTO secret VALUES (1); INSERT INTO open VALUES (1)");
    let id = sql.value("SELECT min(id) FROM pgwake.outbox_0");
    assert_eq!(eve.value(&format!("SELECT count(*) FROM pgwake.fetch({id})")), "0");
    let refused = eve.try_run("SELECT pgwake.read('admin', '1:1:||')").unwrap_err();
    assert!(refused.message.contains("no consumer"), "{refused}");
    eve.run("SELECT pgwake.acknowledge('admin', '9:9:||')");
    assert_eq!(sql.value("SELECT position FROM pgwake.consumer"), reader.position());
    let oid = sql.value("SELECT 'secret'::regclass::oid");
    sql.run("DROP TABLE secret");
    eve.run(&format!("SELECT pgwake.open_consumer('eve', ARRAY[{oid}, 'open'::regclass]::regclass[], true)"));
    let read = "SELECT string_agg(body::json ->> 'table', ',') FROM pgwake.read('eve', '1:1:||')
        WHERE kind = 'change'";
    assert_eq!(eve.value(read), "open");
    assert!(eve.try_run("SELECT pgwake.acknowledge('eve', 'garbage')").is_err());
    sql.run("SELECT pgwake.rotate(), pgwake.check()");
}

#[test]
fn each_table_that_is_truncated_is_delivered_once() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c () INHERITS (p);
         CREATE TABLE g (id int PRIMARY KEY) PARTITION BY LIST (id);
         CREATE TABLE g_1 PARTITION OF g FOR VALUES IN (1);
         SELECT pgwake.watch_table('p'), pgwake.watch_table('g'), pgwake.watch_table('g_1')",
    );
    let mut reader = Reader::open(&conninfo, "a");
    let mut tables = |sql: &mut Sql, statements: &[&str]| {
        statements.iter().for_each(|statement| sql.run(statement));
        let changes = reader.all();
        let name = |c: &Value| c["partition"].as_str().or(c["table"].as_str()).unwrap().to_string();
        let mut names: Vec<_> = changes.iter().map(name).collect();
        names.sort();
        names
    };
    let only = ["BEGIN", "TRUNCATE ONLY p", "TRUNCATE c", "COMMIT"];
    assert_eq!(tables(&mut sql, &only), ["p", "public.c"]);
    assert_eq!(tables(&mut sql, &["TRUNCATE p"]), ["p"]);
    assert_eq!(tables(&mut sql, &["TRUNCATE g"]), ["g", "g_1"], "there are two watches");
    let again = ["BEGIN", "TRUNCATE g_1, g", "TRUNCATE g_1", "COMMIT"];
    let names = tables(&mut sql, &again);
    assert_eq!(names.iter().filter(|name| *name == "public.g_1").count(), 2, "{names:?}");
}
