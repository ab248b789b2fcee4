//! The server's library in use: it is taken into use and out of it, it wakes readers and loses nothing under
//! load, and what it lacks is said. Of the server alone, so once is enough: with the system's libpq.
#![cfg(not(feature = "bundled"))]

mod common;

use common::command::{complaint, run};
use common::library::{database, server, start_server, watch_both};
use common::outbox::Reader;
use common::{PATIENCE, PrivateServer, Seen, Sql, listening, next, say_loudly};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How many of a table's triggers run in the library.
fn by_library(sql: &mut Sql, table: &str) -> String {
    sql.value(&format!(
        "SELECT count(*) FROM pgwake.own_trigger WHERE tgrelid = '{table}'::regclass AND is_by_library"
    ))
}

/// What check() says, but for what is only good to know.
fn problems(sql: &mut Sql) -> String {
    sql.value(
        "SELECT string_agg(concat_ws(': ', severity, object, problem), E'\\n') FROM pgwake.check()
        WHERE severity <> 'info'",
    )
}

/// A database whose table `t` is watched by the library, and a plain table `u`.
fn with_library(server: &PrivateServer) -> (String, Sql) {
    let (conninfo, mut sql) = database(server);
    sql.run("CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE u (id date PRIMARY KEY)");
    sql.run("SELECT pgwake.watch_table('t'); SELECT pgwake.watch_table('u')");
    sql.run("SELECT pgwake.use_library(true)");
    (conninfo, sql)
}

#[test]
fn it_is_used_where_it_helps_until_it_is_given_up() {
    let Some(server) = server() else { return };
    let (conninfo, mut sql) = with_library(server);
    assert_eq!((by_library(&mut sql, "t"), by_library(&mut sql, "u")), ("3".into(), "0".into()));
    assert_eq!(problems(&mut sql), "");
    assert_eq!(sql.value("SELECT count(*) FROM pgwake.check() WHERE object = 'library'"), "1");
    // An upgrade keeps it, and what is altered and watched later uses it.
    sql.run(&pgwake::install::install());
    sql.run(
        "ALTER TABLE t ADD more text; CREATE TABLE v (id text PRIMARY KEY); SELECT pgwake.watch_table('v')",
    );
    assert_eq!((by_library(&mut sql, "t"), by_library(&mut sql, "v")), ("3".into(), "3".into()));
    // A partition cannot be watched by statement.
    sql.run("CREATE TABLE child () INHERITS (t)");
    assert_eq!(by_library(&mut sql, "t"), "0");
    sql.run("DROP TABLE child; SELECT pgwake.rebuild()");
    assert_eq!(by_library(&mut sql, "t"), "3");
    let mut reader = Reader::open(&conninfo, "a");
    sql.run("INSERT INTO t VALUES (1, 1); INSERT INTO u VALUES ('today'); INSERT INTO v VALUES ('a')");
    sql.run("SELECT pgwake.use_library(false)");
    assert_eq!((by_library(&mut sql, "t"), by_library(&mut sql, "v")), ("0".into(), "0".into()));
    assert_eq!(sql.value("SELECT count(*) FROM pgwake.check() WHERE object = 'library'"), "0");
    assert_eq!(sql.value("SELECT count(*) FROM pg_proc WHERE probin LIKE '%pgwake%'"), "0");
    sql.run("INSERT INTO t VALUES (2, 2); SELECT pgwake.unwatch_table('v')");
    assert_eq!(reader.all_raw().len(), 4);
    drop(reader);
    sql.run("SELECT pgwake.use_library(true)");
    sql.run(&pgwake::install::uninstall());
    assert_eq!(
        sql.value(
            "SELECT to_regnamespace('pgwake') IS NULL AND NOT EXISTS (
        SELECT FROM pg_trigger WHERE tgname LIKE '%pgwake%')"
        ),
        "t"
    );
    sql.run("INSERT INTO t VALUES (3, 3)");
}

#[test]
fn whoever_alters_what_the_library_is_told_is_found() {
    let Some(server) = server() else { return };
    let (_, mut sql) = with_library(server);
    sql.run("ALTER FUNCTION pgwake.change_by_library() SECURITY INVOKER");
    assert!(problems(&mut sql).contains("pgwake.change_by_library() was altered"), "{}", problems(&mut sql));
    sql.run("SELECT pgwake.use_library(true)");
    assert_eq!(problems(&mut sql), "");
    // As if there were no event triggers, which would make it anew at once.
    sql.run("SET pgwake.following = on");
    // Another `what`: the changes of t would be told as those of another table.
    let made = "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'pgwake_1_insert'";
    let trigger = sql.value(made);
    let what = sql.value("SELECT pgwake.what(1, 'i')");
    let altered = trigger.replace(&format!("\n{what}\n"), "\n777\n");
    assert_ne!(altered, trigger);
    sql.run(&format!("DROP TRIGGER pgwake_1_insert ON t; {altered}"));
    assert!(problems(&mut sql).contains("altered"), "{}", problems(&mut sql));
    // What the library does not understand it hands on.
    let call = trigger.find("change_by_library(").unwrap() + "change_by_library(".len();
    let version = sql.value("SELECT pgwake.template_version()");
    let template = &trigger[trigger.find(&format!("'{version}\n")).unwrap() + 1..trigger.len() - 2];
    let cuts = (0..template.len()).map(|length| template[..length].to_string());
    let later = template.replacen(&version, "99", 1);
    let nonsense = cuts.chain([later, template.replace("int4", "date"), template.replace("raw", "bool")]);
    for (id, template) in nonsense.enumerate() {
        let definition = format!("{}'change_1_insert', '{template}')", &trigger[..call]);
        sql.run(&format!("DROP TRIGGER pgwake_1_insert ON t; {definition}; TRUNCATE pgwake.outbox_0"));
        sql.run(&format!("INSERT INTO t VALUES ({id}, 1)"));
        assert_eq!(sql.value("SELECT changes FROM pgwake.outbox_0"), format!("{{\"id\":\u{1d}{id}"));
    }
    sql.run(&format!("DROP TRIGGER pgwake_1_insert ON t; {})", &trigger[..call]));
    assert!(sql.try_run("INSERT INTO t VALUES (-1, 1)").is_err());
    assert!(sql.try_run("SELECT pgwake.change_by_library()").is_err());
    sql.run("DROP TRIGGER pgwake_1_insert ON t; SELECT pgwake.rebuild()");
    assert_eq!(problems(&mut sql), "");
}

#[test]
fn only_a_superuser_takes_it_into_use_and_anybody_may_write() {
    let Some(server) = server() else { return };
    let (_, mut sql) = database(server);
    let name = sql.value("SELECT current_database()");
    sql.run(&format!("CREATE ROLE {name}_owner; CREATE ROLE {name}_writer; DROP SCHEMA public"));
    sql.run(&pgwake::install::uninstall());
    sql.run(&format!("GRANT CREATE ON DATABASE {name} TO {name}_owner; SET ROLE {name}_owner"));
    sql.run(&pgwake::install::install());
    let refused = sql.try_run("SELECT pgwake.use_library(true)").unwrap_err();
    assert_eq!(refused.sqlstate.unwrap().as_str(), "42501");
    sql.run("RESET ROLE; SELECT pgwake.use_library(true)");
    sql.run(&format!(
        "SET ROLE {name}_owner; CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY);
         SELECT pgwake.watch_table('s.t'); RESET ROLE; GRANT USAGE ON SCHEMA s TO {name}_writer;
         GRANT INSERT ON s.t TO {name}_writer; SET ROLE {name}_writer; INSERT INTO s.t VALUES (1); RESET ROLE"
    ));
    assert_eq!(by_library(&mut sql, "s.t"), "3");
    assert_eq!(sql.value("SELECT changes FROM pgwake.outbox_0"), "{\"id\":\u{1d}1");
    sql.run("SELECT pgwake.use_library(false); SELECT pgwake.use_library(true)");
    // The owner of the schema may give it up.
    sql.run(&format!("SET ROLE {name}_owner; SELECT pgwake.use_library(false); RESET ROLE"));
    assert_eq!(by_library(&mut sql, "s.t"), "0");
}

#[test]
fn a_server_that_lost_it_says_so_and_can_do_without() {
    let Some(server) = start_server() else { return };
    let (conninfo, mut sql) = with_library(&server);
    sql.run("INSERT INTO t VALUES (1, 1)");
    let library = server.directory().join("pgwake.so");
    let elsewhere = server.directory().join("elsewhere.so");
    std::fs::rename(&library, &elsewhere).unwrap();
    // Another session has it in memory still.
    let mut sql = Sql::connect(&conninfo);
    assert!(sql.try_run("INSERT INTO t VALUES (2, 2)").is_err());
    assert!(problems(&mut sql).contains("error: library: the server cannot load it, and refuses writes"));
    sql.run("SELECT pgwake.use_library(false)");
    sql.run("INSERT INTO t VALUES (2, 2)");
    assert_eq!(problems(&mut sql), "");
    let refused = sql.try_run("SELECT pgwake.use_library(true)").unwrap_err();
    assert!(refused.message.contains("the server has no library pgwake"), "{refused}");
    let dsn = ["-d", &conninfo];
    let (sentence, status) = complaint(&[&dsn[..], &["install", "--library"]].concat());
    assert!(status == 1 && sentence.contains("make install in ffi/extension"), "{sentence}");
    std::fs::rename(&elsewhere, &library).unwrap();
    let said = |arguments: &[&str]| {
        let output = run(&[&dsn[..], arguments].concat());
        (String::from_utf8(output.stdout).unwrap(), output.status.success())
    };
    assert_eq!(said(&["install", "--library"]), (String::new(), true));
    assert!(said(&["status"]).0.contains("in use") && !said(&["status"]).0.contains("not in use"));
    assert!(said(&["check"]).0.contains("a server without it"));
    assert!(said(&["install", "--dry-run", "--library"]).0.ends_with("SELECT pgwake.use_library(true);\n"));
    assert_eq!(said(&["install"]), (String::new(), true));
    assert_eq!(by_library(&mut sql, "t"), "3");
    assert_eq!(said(&["install", "--no-library"]), (String::new(), true));
    assert_eq!(by_library(&mut sql, "t"), "0");
    assert!(said(&["status"]).0.contains("not in use"));
}

#[test]
fn a_dump_is_restored_with_the_library_and_without() {
    let Some(server) = start_server() else { return };
    if Command::new("pg_dump").arg("--version").output().is_err() {
        say_loudly("SKIPPED: there is no pg_dump, so nothing is dumped");
        return;
    }
    let (from, mut sql) = with_library(&server);
    sql.run("SELECT pgwake.watch_table('t', ops => '{insert}')");
    let dump = Command::new("pg_dump").args(["-d", &from]).output().unwrap();
    if !dump.status.success() {
        // A server that is newer than the programs of the system.
        say_loudly(&format!("SKIPPED: {}", String::from_utf8_lossy(&dump.stderr)));
        return;
    }
    let dump_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(dump_file.path(), &dump.stdout).unwrap();
    for has_library in [true, false] {
        let name = format!("restored_{has_library}");
        sql.run(&format!("CREATE DATABASE {name}"));
        if !has_library {
            std::fs::remove_file(server.directory().join("pgwake.so")).unwrap();
        }
        let to = server.conninfo().replace("dbname=postgres", &format!("dbname={name}"));
        let restored = Command::new("psql").args(["-qX", "-d", &to, "-f"]).arg(dump_file.path()).output();
        let complaints = String::from_utf8(restored.unwrap().stderr).unwrap();
        assert_eq!(complaints.contains("could not access file"), !has_library, "{complaints}");
        let mut sql = Sql::connect(&to);
        sql.run("INSERT INTO t VALUES (1, 1)");
        assert_eq!(problems(&mut sql).contains("trigger for insert is missing"), !has_library);
        assert!(!has_library || !problems(&mut sql).contains("altered"), "{}", problems(&mut sql));
        sql.run("SELECT pgwake.rebuild(); INSERT INTO t VALUES (2, 2)");
        assert_eq!(sql.value("SELECT changes FROM pgwake.outbox_0"), "{\"id\":\u{1d}2");
        assert_eq!(by_library(&mut sql, "t"), if has_library { "1" } else { "0" });
        assert_eq!(problems(&mut sql), "");
    }
}

#[test]
fn a_sleeping_reader_is_woken_and_a_waking_one_is_not() {
    let Some(server) = server() else { return };
    let (conninfo, mut sql) = with_library(server);
    let (mut events, _) = listening(&conninfo, &["pgwake"]);
    let mut reader = Reader::open(&conninfo, "a");
    for id in 1..=3 {
        assert_eq!(reader.all_raw().len(), 0);
        sql.run(&format!("INSERT INTO t VALUES ({id}, 0)"));
        assert_eq!(next(&mut events), Seen::notification("pgwake", ""));
        assert_eq!(reader.all_raw().len(), 1);
    }
    // In one transaction the others need not ring.
    sql.run("BEGIN; UPDATE t SET n = 1 WHERE id = 1; UPDATE t SET n = 1 WHERE id = 2; COMMIT");
    assert_eq!(next(&mut events), Seen::notification("pgwake", ""));
    assert_eq!(reader.all_raw().len(), 2);
    let rope = "SELECT count(*) FROM pgwake.rope";
    let before = sql.value(rope);
    let awake = format!("SELECT count(*) FROM pgwake.read('a', '{}', true)", reader.position());
    reader.sql.run(&awake);
    sql.run("UPDATE t SET n = 2 WHERE id = 1");
    // One transaction in 8192 rings in any case, to keep house.
    let xid: u64 = sql.value("SELECT max(xid::text::bigint) FROM pgwake.outbox_0").parse().unwrap();
    assert!(sql.value(rope) == before || xid.is_multiple_of(8192));
    assert!(events.next(Some(Duration::from_millis(50))).unwrap().is_none() || xid.is_multiple_of(8192));
}

#[test]
fn nothing_is_lost_or_doubled_while_the_outbox_turns() {
    let Some(server) = server() else { return };
    let (conninfo, mut sql) = database(server);
    sql.run("CREATE TABLE plain (id int PRIMARY KEY, n int); CREATE TABLE quick (LIKE plain INCLUDING ALL)");
    sql.run("INSERT INTO plain SELECT i, 0 FROM generate_series(1, 8) i; INSERT INTO quick TABLE plain");
    watch_both(&mut sql, "");
    sql.run("UPDATE pgwake.setting SET value = 16384 WHERE name = 'rotate_bytes'");
    let mut reader = Reader::open(&conninfo, "a");
    let is_over = AtomicBool::new(false);
    let (written, mut read, mut turns) = std::thread::scope(|scope| {
        let write = |number: usize| {
            let mut sql = Sql::connect(&conninfo);
            let table = ["plain", "quick", "quick"][number % 3];
            let update = format!("UPDATE {table} SET n = n + 1 WHERE id = {}", number + 1);
            let end = ["COMMIT", "ROLLBACK"];
            (1..=300)
                .map(|i| {
                    let end = end[usize::from(i % 5 == 0)];
                    sql.run(&format!("BEGIN; {update}; SAVEPOINT a; {update}; ROLLBACK TO a; {end}"));
                    u64::from(end == "COMMIT")
                })
                .sum::<u64>()
        };
        let writers: Vec<_> = (0..6).map(|number| scope.spawn(move || write(number))).collect();
        let (is_over, reader) = (&is_over, &mut reader);
        let rotator = scope.spawn(|| {
            let mut sql = Sql::connect(&conninfo);
            let mut turns = 0;
            while !is_over.load(Ordering::Relaxed) {
                turns += usize::from(sql.value("SELECT pgwake.rotate()") == "rotated");
                std::thread::sleep(Duration::from_millis(5));
            }
            turns
        });
        let reading = scope.spawn(move || {
            let mut read = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                read.extend(reader.all_raw());
            }
            read
        });
        let written: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        is_over.store(true, Ordering::Relaxed);
        (written, reading.join().unwrap(), rotator.join().unwrap())
    });
    read.extend(reader.all_raw());
    let mut ids: Vec<_> = read.iter().map(|change| change["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len() as u64, read.len() as u64), (written, written));
    let started = std::time::Instant::now();
    while turns < 2 && started.elapsed() < PATIENCE {
        sql.run("UPDATE quick SET n = n + 1 WHERE id = 1");
        read.extend(reader.all_raw());
        turns += usize::from(sql.value("SELECT pgwake.rotate()") == "rotated");
    }
    assert!(turns >= 2, "the outbox turned {turns} times: that tells nothing");
}

#[test]
fn writers_are_measured_with_it_where_the_server_has_it() {
    let Some(server) = start_server() else { return };
    let conninfo = server.conninfo();
    let arguments = ["bench", "writers", "--clients", "2", "--seconds", "0.1", "--rounds", "1"];
    let output = run(&[&["-d", &conninfo, "-f", "json"], &arguments[..]].concat());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let contenders =
        report["measurements"].as_array().unwrap().iter().map(|m| m["contender"].as_str().unwrap());
    let names: Vec<_> = contenders.collect();
    assert_eq!(names, ["none", "naive", "outbox", "outbox+library", "notify", "wal", "wal+library"]);
    let (sentence, status) = complaint(&["-d", &conninfo, "bench", "writers", "--library", "/tmp"]);
    assert!(status == 2 && sentence.contains("--private"), "{sentence}");
    std::fs::remove_file(server.directory().join("pgwake.so")).unwrap();
    let only = ["--only", "outbox+library"];
    let (sentence, status) = complaint(&[&["-d", &conninfo], &arguments[..], &only].concat());
    assert!(status == 1 && sentence.contains("has no library"), "{sentence}");
}
