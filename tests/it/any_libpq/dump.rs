//! Databases that were dumped and restored, in the same cluster or in another: their writers never fail, no
//! change is told of a wrong table, and each reader is told that what it had not read is not there.

use crate::common::outbox::Reader;
use crate::common::{PATIENCE, PrivateServer, Sql, start_server};
use pgwake::{Event, EventLoop, GapReason, WatchOptions};
use serde_json::json;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The cluster that is dumped: the system's version, for which there is a pg_dump. The numbers of
/// its transactions are far ahead of the other's.
fn origin() -> Option<&'static PrivateServer> {
    static ORIGIN: OnceLock<Option<PrivateServer>> = OnceLock::new();
    let start = || {
        if Command::new("pg_dump").arg("--version").output().is_err() {
            crate::common::say_loudly("SKIPPED: there is no pg_dump, so nothing is dumped");
            return None;
        }
        let origin = PrivateServer::start(&Default::default()).unwrap();
        let ahead = "DO 'BEGIN FOR i IN 1..20000 LOOP PERFORM txid_current(); COMMIT; END LOOP; END'";
        Sql::connect(&origin.conninfo()).run(ahead);
        Some(origin)
    };
    ORIGIN.get_or_init(start).as_ref()
}

/// Another cluster, in which few transactions have been.
fn other_cluster() -> &'static PrivateServer {
    static OTHER: OnceLock<PrivateServer> = OnceLock::new();
    OTHER.get_or_init(start_server)
}

/// An empty database.
fn empty(server: &PrivateServer) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let name = format!("dump_{}", COUNTER.fetch_add(1, Ordering::Relaxed));
    Sql::connect(&server.conninfo()).run(&format!("CREATE DATABASE {name}"));
    server.conninfo().replace("dbname=postgres", &format!("dbname={name}"))
}

/// Watched tables of all kinds.
fn watched(server: &PrivateServer) -> (String, Sql) {
    let conninfo = empty(server);
    let mut sql = Sql::connect(&conninfo);
    sql.run(&pgwake::install::install());
    sql.run(
        "CREATE TYPE mood AS ENUM ('sad', 'glad');
         CREATE TABLE other (id int);
         CREATE TABLE t (id int PRIMARY KEY, n int);
         CREATE TABLE r (gone int, id bigint PRIMARY KEY, m mood, v text); ALTER TABLE r DROP COLUMN gone;
         CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (100);
         CREATE TABLE i (id int PRIMARY KEY); CREATE TABLE i_1 () INHERITS (i);
         CREATE TABLE b (id int PRIMARY KEY);
         CREATE TABLE n (id int PRIMARY KEY);
         CREATE TABLE k (id int PRIMARY KEY);
         CREATE VIEW v AS SELECT * FROM other;
         CREATE FUNCTION v() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER v INSTEAD OF INSERT ON v FOR EACH ROW EXECUTE FUNCTION v();
         CREATE TABLE ended (id int PRIMARY KEY); CREATE TABLE again (id int PRIMARY KEY);
         CREATE TABLE first (id int PRIMARY KEY)",
    );
    sql.run(
        "SELECT pgwake.watch_table('ended'); SELECT pgwake.unwatch_table('ended');
         SELECT pgwake.watch_table('again'); DROP TABLE again; CREATE TABLE again (id int PRIMARY KEY);
         SELECT pgwake.watch_table('again');
         SELECT pgwake.watch_table('first'); ALTER TABLE first RENAME TO second;
         SELECT pgwake.watch_table('t'), pgwake.watch_table('r', payload => 'row'), pgwake.watch_table('p'),
           pgwake.watch_table('i'), pgwake.watch_table('b', timing => 'before'), pgwake.watch_table('v'),
           pgwake.watch_table('n', transport => 'notify', channel => 'heard'),
           pgwake.watch_table('k', payload => 'wake', channel => 'bell');
         SELECT pgwake.watch_ddl('ddl')",
    );
    (conninfo, sql)
}

/// How a dump is made and restored.
const PLAIN: &str = "pg_dump -d '$FROM' | psql -qX -v ON_ERROR_STOP=1 -d '$TO'";
const CUSTOM: &str = "pg_dump -Fc -d '$FROM' | pg_restore --exit-on-error -d '$TO'";
const AT_ONCE: &str = "pg_dump -Fc -d '$FROM' | pg_restore -1 -d '$TO'";
const SCHEMA: &str = "pg_dump --schema-only -d '$FROM' | psql -qX -v ON_ERROR_STOP=1 -d '$TO'";
const DATA_LAST: &str = "pg_dump --schema-only -d '$FROM' | psql -qX -v ON_ERROR_STOP=1 -d '$TO' &&
    pg_dump --data-only -d '$FROM' | psql -qX -v ON_ERROR_STOP=1 -d '$TO'";
const DATA_QUIETLY: &str = "pg_dump --schema-only -d '$FROM' | psql -qX -v ON_ERROR_STOP=1 -d '$TO' &&
    pg_dump --data-only --disable-triggers -d '$FROM' | psql -qX -v ON_ERROR_STOP=1 -d '$TO'";
const OVER: &str = "dump=$(pg_dump -d '$FROM') && psql -qX -v ON_ERROR_STOP=1 -d '$TO' \
    -c 'DROP EXTENSION IF EXISTS pgwake_ddl; DROP SCHEMA IF EXISTS pgwake_ddl' \
    -c 'DROP SCHEMA public, pgwake CASCADE; CREATE SCHEMA public' 2>/dev/null &&
    psql -qX -v ON_ERROR_STOP=1 -d '$TO' <<<\"$dump\"";

fn run(commands: &str, from: &str, to: &str) {
    let commands = commands.replace("$FROM", from).replace("$TO", to);
    let mut command = Command::new("bash");
    let output = command.args(["-c", &format!("set -o pipefail; {commands}")]).output().unwrap();
    assert!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Writes to every table; none of it may fail.
fn write(sql: &mut Sql, id: u32) {
    for table in ["again", "second", "t", "p", "p_1", "i", "i_1", "b", "n", "k", "v", "ended", "other"] {
        sql.run(&format!("INSERT INTO {table} (id) VALUES ({})", if table == "p_1" { id + 50 } else { id }));
    }
    sql.run(&format!("INSERT INTO r (id, m, v) VALUES ({id}, 'glad', 'é')"));
    sql.run(&format!("UPDATE t SET n = 1 WHERE id = {id}; DELETE FROM t WHERE id = {id}"));
    sql.run("TRUNCATE p");
}

/// What is to be told of that.
fn written(id: u32) -> Vec<serde_json::Value> {
    let of = |op: &str, table: &str| json!({"op": op, "table": table, "key": {"id": id}});
    let of_part = |op: &str, table: &str, part: &str, id: u32| {
        let key = json!({"id": id});
        json!({"op": op, "table": table, "partition": part, "key": key})
    };
    let mut told: Vec<_> = ["again", "second", "t"].map(|table| of("insert", table)).into();
    told.push(of_part("insert", "p", "public.p_1", id));
    told.push(of_part("insert", "p", "public.p_1", id + 50));
    told.push(of("insert", "i"));
    told.push(of_part("insert", "i", "public.i_1", id));
    told.push(of("insert", "b"));
    told.push(json!({"op": "insert", "table": "k"}));
    told.push(json!({"op": "insert", "table": "v", "key": null, "new": {"id": id}}));
    told.push(json!({"op": "insert", "table": "r", "key": {"id": id},
        "new": {"id": id, "m": "glad", "v": "é"}}));
    told.extend([of("update", "t"), of("delete", "t"), json!({"op": "truncate", "table": "p"})]);
    told
}

/// The copy does what its original did.
fn is_all_there(sql: &mut Sql, conninfo: &str) {
    // As an application does that knows nothing of it, before any reader comes.
    write(sql, 1);
    let mut reader = Reader::open(conninfo, "a");
    write(sql, 2);
    let told = reader.all();
    assert_eq!(reader.gaps, ["replaced"]);
    assert_eq!(told, written(2));
    write(sql, 3);
    assert_eq!(reader.all(), written(3));
    drop(reader);
    let mut reader = Reader::open(conninfo, "a");
    assert!(reader.all().is_empty() && reader.gaps.is_empty(), "it is told once");
    // Whoever comes later begins with what was written here.
    let position = sql.value("SELECT position FROM pgwake.open_consumer('late', from_start => true)");
    assert_ne!(position, "");
    sql.run("SELECT pgwake.drop_consumer('late'); LISTEN heard; INSERT INTO n VALUES (4)");
    sql.run("SELECT 1");
    let heard = sql.0.notifies().expect("a notification");
    let heard: serde_json::Value = serde_json::from_slice(heard.payload()).unwrap();
    assert_eq!(
        (&heard["op"], &heard["table"], &heard["key"]),
        (&json!("insert"), &json!("n"), &json!({"id": 4}))
    );
    sql.run("UNLISTEN *");
}

/// No number of a relation stands in what was generated, whatever it may mean here.
fn has_no_numbers(sql: &mut Sql) {
    let named = "SELECT string_agg(p.proname || ' has ' || m[1], ', ') FROM pg_proc p,
        regexp_matches(p.prosrc, '\\m(1[6-9]\\d{3}|[2-9]\\d{4})\\M', 'g') m
        WHERE p.pronamespace = 'pgwake'::regnamespace AND p.proname ~ '^change_'
          AND m[1]::oid NOT IN (SELECT oid FROM pg_type WHERE typrelid = 0)";
    assert_eq!(sql.value(named), "");
}

fn restored(commands: &str, target: &PrivateServer) -> Option<(String, Sql)> {
    let (from, mut sql) = watched(origin()?);
    has_no_numbers(&mut sql);
    let mut reader = Reader::open(&from, "a");
    sql.run("INSERT INTO t VALUES (100), (101); INSERT INTO other VALUES (100)");
    assert_eq!(reader.all().len(), 2);
    sql.run("INSERT INTO t VALUES (102)");
    let to = empty(target);
    run(commands, &from, &to);
    let sql = Sql::connect(&to);
    Some((to, sql))
}

#[test]
fn a_copy_in_the_same_cluster_tells_its_own_changes_alone() {
    let Some(origin) = origin() else { return };
    for commands in [PLAIN, CUSTOM, AT_ONCE, DATA_LAST, DATA_QUIETLY] {
        let (conninfo, mut sql) = restored(commands, origin).unwrap();
        is_all_there(&mut sql, &conninfo);
    }
}

#[test]
fn a_copy_in_another_cluster_tells_its_own_changes_alone() {
    for commands in [PLAIN, CUSTOM, AT_ONCE, DATA_LAST, DATA_QUIETLY] {
        let Some((conninfo, mut sql)) = restored(commands, other_cluster()) else { return };
        is_all_there(&mut sql, &conninfo);
    }
}

#[test]
fn a_copy_of_the_files_tells_its_own_changes_alone() {
    let Some(origin) = origin() else { return };
    let (from, mut sql) = watched(origin);
    drop(Reader::open(&from, "a"));
    sql.run("INSERT INTO t VALUES (102)");
    drop(sql);
    let name = |conninfo: &str| conninfo.rsplit('=').next().unwrap().to_string();
    let to = empty(origin);
    let (copy, original) = (name(&to), name(&from));
    let mut sql = Sql::connect(&origin.conninfo());
    sql.run(&format!("DROP DATABASE {copy}"));
    sql.run(&format!("CREATE DATABASE {copy} TEMPLATE {original}"));
    is_all_there(&mut Sql::connect(&to), &to);
    // The original is what it was.
    let mut reader = Reader::open(&from, "a");
    assert_eq!((reader.all().len(), reader.gaps.len()), (1, 0));
}

#[test]
fn a_database_that_is_restored_over_itself_tells_a_gap() {
    let Some(origin) = origin() else { return };
    let (conninfo, mut sql) = watched(origin);
    let mut reader = Reader::open(&conninfo, "a");
    sql.run("INSERT INTO t VALUES (100)");
    assert_eq!(reader.all().len(), 1);
    drop(reader);
    run(OVER, &conninfo, &conninfo);
    is_all_there(&mut Sql::connect(&conninfo), &conninfo);
}

#[test]
fn a_dump_without_data_leaves_triggers_that_harm_nobody() {
    let Some(origin) = origin() else { return };
    let (from, _sql) = watched(origin);
    let to = empty(other_cluster());
    run(SCHEMA, &from, &to);
    let mut copy = Sql::connect(&to);
    write(&mut copy, 1);
    let problems = "SELECT string_agg(problem, ',') FROM pgwake.check() WHERE problem LIKE '%no watch%'";
    assert_ne!(copy.value(problems), "");
    // Another table does not get the number of one that still has a trigger.
    copy.run("SELECT pgwake.watch_table('other')");
    let mut reader = Reader::open(&to, "a");
    write(&mut copy, 2);
    assert_eq!(reader.all(), [json!({"op": "insert", "table": "other", "key": null, "new": {"id": 2}})]);
    copy.run("SELECT pgwake.rebuild(); SELECT pgwake.watch_table('t')");
    assert_eq!(copy.value(problems), "");
    write(&mut copy, 3);
    let mut told = written(3);
    told.retain(|change| change["table"] == "t");
    let mut changes = reader.all();
    assert_eq!(changes.len(), told.len() + 1);
    changes.retain(|change| change["table"] == "t");
    assert_eq!(changes, told);
    drop(reader);
    copy.run(&pgwake::install::uninstall());
    assert_eq!(copy.value("SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%pgwake%'"), "0");
}

#[test]
fn a_table_that_was_left_out_is_no_harm_to_the_others() {
    let Some(origin) = origin() else { return };
    let (from, _sql) = watched(origin);
    let to = empty(other_cluster());
    // Of the list of watches nothing is restored then, which pg_restore says.
    run("pg_dump -Fc -T t -d '$FROM' | pg_restore -d '$TO' || true", &from, &to);
    let mut copy = Sql::connect(&to);
    copy.run("CREATE TABLE t (id int PRIMARY KEY, n int)");
    write(&mut copy, 1);
    copy.run(&pgwake::install::install());
    copy.run("SELECT pgwake.watch_table('p')");
    let mut reader = Reader::open(&to, "a");
    write(&mut copy, 2);
    let mut told = written(2);
    told.retain(|change| change["table"] == "p");
    assert_eq!(reader.all(), told);
}

#[test]
fn check_says_what_is_to_be_done_in_a_copy_and_that_does_it() {
    let Some((conninfo, mut sql)) = restored(PLAIN, other_cluster()) else { return };
    let found = "SELECT string_agg(problem, ',') FROM pgwake.check()
        WHERE problem LIKE '%restored or copied%' OR problem LIKE '%not those%'";
    // Of `r` a column was dropped, and another is of a type that has another number here.
    let problems = sql.value(found);
    assert!(problems.contains("restored or copied") && problems.contains("not those"), "{problems}");
    sql.run("SELECT pgwake.rebuild()");
    assert_eq!(sql.value(found), "");
    let errors = "SELECT string_agg(problem, ',') FROM pgwake.check() WHERE severity = 'error'
        AND problem NOT LIKE '%wal_level%'";
    assert_eq!(sql.value(errors), "");
    let mut reader = Reader::open(&conninfo, "a");
    write(&mut sql, 1);
    assert_eq!((reader.all(), reader.gaps.clone()), (written(1), vec!["replaced".into()]));
    sql.run("SELECT pgwake.unwatch_table('t'); INSERT INTO t VALUES (9)");
    assert!(reader.all().is_empty());
}

#[test]
fn installing_and_uninstalling_leave_nothing_of_a_copy_behind() {
    let Some((_, mut sql)) = restored(CUSTOM, other_cluster()) else { return };
    sql.run(&pgwake::install::install());
    assert_eq!(sql.value("SELECT count(*) FROM pgwake.check() WHERE problem LIKE '%restored%'"), "0");
    sql.run(&pgwake::install::uninstall());
    let left = "SELECT string_agg(name, ',') FROM (
          SELECT tgname AS name FROM pg_trigger WHERE NOT tgisinternal UNION
          SELECT evtname FROM pg_event_trigger UNION SELECT nspname FROM pg_namespace WHERE nspname ~ 'pgwake'
          UNION SELECT proname FROM pg_proc WHERE oid >= 16384) n";
    assert_eq!(sql.value(left), "v");
    write(&mut sql, 1);
}

#[test]
fn the_loop_tells_a_copy_as_a_gap() {
    let Some((conninfo, mut sql)) = restored(PLAIN, other_cluster()) else { return };
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&conninfo).unwrap();
    events.watch_with(session, WatchOptions::new().table("t").consumer("a")).unwrap();
    loop {
        match events.next(Some(PATIENCE)).unwrap().expect("a gap") {
            Event::Gap(gap) => {
                assert_eq!((gap.reason, gap.dropped), (GapReason::Replaced, 0));
                break;
            }
            Event::Change(change) => panic!("{change:?}"),
            _ => {}
        }
    }
    sql.run("INSERT INTO t VALUES (1)");
    let Some(Event::Change(change)) = events.next(Some(PATIENCE)).unwrap() else { panic!("a change") };
    assert_eq!((change.table, change.key), ("t", Some(r#"{"id":1}"#)));
}
