//! Readers of DDL on bad days: rights that are lacking, events that are given up; and what comes before.
#![cfg(feature = "command")]

use crate::common::command::{Running, complaint, run};
use crate::common::outbox::database;
use crate::common::{PATIENCE, Seen, assert_silent, next, refusal, signal};
use pgwake::{DdlOptions, DdlPhase, Event, EventLoop, SessionId};
use rustix::process::Signal;
use std::time::{Duration, Instant};

fn watching(conninfo: &str, options: DdlOptions) -> (EventLoop, SessionId) {
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(conninfo).unwrap();
    events.watch_ddl(session, options).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[]));
    let seen = next(&mut events);
    assert!(matches!(&seen, Seen::Listening(names) if names[0].starts_with("pgwake_ddl")), "{seen:?}");
    (events, session)
}

/// Phase, tag and number of targets.
fn ddl(events: &mut EventLoop) -> (DdlPhase, String, usize) {
    match events.next(Some(PATIENCE)).unwrap().expect("DDL was expected, and nothing came") {
        Event::Ddl(ddl) => (ddl.phase, ddl.tag.into(), ddl.targets.len()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_beginning_of_a_command_is_told_where_that_was_asked_for() {
    let (conninfo, mut sql) = database("");
    let (mut both, _) = watching(&conninfo, DdlOptions::new().phase(DdlPhase::Before).phase(DdlPhase::After));
    let (mut after, _) = watching(&conninfo, DdlOptions::new());
    sql.run("CREATE VIEW v AS SELECT 1 AS one");
    let known = usize::from(sql.value("SELECT pgwake.mode()") == "extension");
    assert_eq!(ddl(&mut both), (DdlPhase::Before, "CREATE VIEW".into(), known));
    assert_eq!(ddl(&mut both), (DdlPhase::After, "CREATE VIEW".into(), 1));
    assert_eq!(ddl(&mut after), (DdlPhase::After, "CREATE VIEW".into(), 1));
}

#[test]
fn what_is_granted_as_the_refusal_says_is_enough() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE ROLE ddl_reader LOGIN");
    let stranger = conninfo.replace("user=postgres", "user=ddl_reader");
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&stranger).unwrap();
    events.watch_ddl(session, DdlOptions::new()).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[]));
    let (code, sentence) = refusal(&mut events, "watch_ddl");
    assert_eq!(code, "42501");
    let (_, tables) = sentence.split_once("SELECT, INSERT and UPDATE on its table ").unwrap();
    let (table, functions) = tables.split_once(", and EXECUTE on ").unwrap();
    sql.run("GRANT USAGE ON SCHEMA pgwake TO ddl_reader");
    sql.run(&format!("GRANT SELECT, INSERT, UPDATE ON pgwake.{table} TO ddl_reader"));
    for function in functions.replace(" and ", ", ").split(", ") {
        sql.run(&format!("GRANT EXECUTE ON FUNCTION pgwake.{function} TO ddl_reader"));
    }
    // What was refused leaves the session free to ask again.
    events.watch_ddl(session, DdlOptions::new()).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&["pgwake_ddl"]));
    sql.run("CREATE TABLE t (id int)");
    assert_eq!(ddl(&mut events), (DdlPhase::After, "CREATE TABLE".into(), 1));
    let many: String = (0..200).map(|i| format!("a_rather_long_name_of_a_column_{i} int,")).collect();
    sql.run(&format!("CREATE SCHEMA large CREATE TABLE large ({many} last int)"));
    assert_eq!(ddl(&mut events).1, "CREATE SCHEMA");
}

#[test]
fn without_event_triggers_it_is_a_superuser_who_can_help() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "DO $$ DECLARE name text; BEGIN FOR name IN SELECT e.name FROM pgwake.event_triggers() e LOOP
           EXECUTE format('DROP EVENT TRIGGER %I', name); END LOOP; END $$",
    );
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&conninfo).unwrap();
    events.watch_ddl(session, DdlOptions::new()).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[]));
    let (code, sentence) = refusal(&mut events, "watch_ddl");
    assert!(code == "55000" && sentence.contains("let a superuser run `pgwake install`"), "{sentence}");
}

#[test]
fn events_that_are_given_up_are_told_and_go_on_when_somebody_asks_for_them() {
    let (conninfo, mut sql) = database("");
    let (mut events, _) = watching(&conninfo, DdlOptions::new());
    sql.run("SELECT pgwake.unwatch_ddl('pgwake_ddl')");
    let (code, sentence) = refusal(&mut events, "watch_ddl");
    assert!(code == "55000" && sentence.contains("given up"), "{sentence}");
    sql.run("CREATE TABLE unseen (id int); SELECT pgwake.watch_ddl('pgwake_ddl')");
    assert_eq!(next(&mut events), Seen::listening(&["pgwake_ddl"]));
    sql.run("DROP TABLE unseen");
    assert_eq!(ddl(&mut events).1, "DROP TABLE");
    // The same during an outage.
    sql.run(
        "SELECT pgwake.unwatch_ddl('pgwake_ddl'), pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    let mut seen = next(&mut events);
    while !matches!(&seen, Seen::CommandFailed { sqlstate, .. } if sqlstate == "55000") {
        seen = next(&mut events);
    }
}

#[test]
fn nobody_gives_up_by_mistake_what_others_read_or_what_is_not_told() {
    let (conninfo, mut sql) = database("");
    let remove = |more: &'static [&'static str]| [&["-d", &conninfo, "ddl", "--remove"][..], more].concat();
    let mut reader = Running::start(&["-d", &conninfo, "-f", "json", "ddl", "--phase", "before,after"]);
    while reader.json()["channels"].as_array().unwrap().is_empty() {}
    let (sentence, status) = complaint(&remove(&["--phase", "before,after"]));
    assert!(status == 1 && sentence.contains("are read by backend"), "{sentence}");
    let (sentence, status) = complaint(&remove(&[]));
    assert!(
        status == 1 && sentence.contains("what is delivered is `pgwake ddl --phase before,after`"),
        "{sentence}"
    );
    signal(reader.child.id() as i32, Signal::TERM);
    assert_eq!(reader.status(), 0);
    assert!(run(&remove(&["--phase", "before,after"])).status.success());
    assert_eq!(sql.value("SELECT count(*) FROM pgwake.ddl_watch"), "0");
    let (sentence, status) = complaint(&remove(&[]));
    assert!(status == 1 && sentence.contains("what is delivered is nothing"), "{sentence}");
}

#[test]
fn what_may_pass_is_told_once_and_asked_again_until_the_server_agrees() {
    let (conninfo, mut sql) = database("");
    let name = sql.value("SELECT current_database()");
    sql.run(&format!("ALTER DATABASE {name} SET lock_timeout = '20ms'"));
    sql.run("BEGIN; LOCK TABLE pgwake.ddl_watch");
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&conninfo).unwrap();
    events.watch_ddl(session, DdlOptions::new()).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[]));
    assert_eq!(refusal(&mut events, "watch_ddl").0, "55P03");
    assert_silent(&mut events, Duration::from_secs(1));
    sql.run("COMMIT");
    assert_eq!(next(&mut events), Seen::listening(&["pgwake_ddl"]));
    sql.run("CREATE TABLE t (id int)");
    assert_eq!(ddl(&mut events).1, "CREATE TABLE");
}

#[test]
fn event_triggers_that_are_gone_or_off_are_told_without_a_word_from_anybody() {
    let (conninfo, mut sql) = database("");
    let (mut events, _) = watching(&conninfo, DdlOptions::new());
    sql.run("ALTER EVENT TRIGGER pgwake_sql_drop DISABLE");
    let (code, sentence) = refusal(&mut events, "watch_ddl");
    assert!(code == "55000" && sentence.contains("dropped or disabled"), "{sentence}");
    sql.run("ALTER EVENT TRIGGER pgwake_sql_drop ENABLE; NOTIFY pgwake_ddl, 'watched'");
    assert_eq!(next(&mut events), Seen::listening(&["pgwake_ddl"]));
    sql.run("DROP EVENT TRIGGER pgwake_ddl_command_end; NOTIFY pgwake_ddl, 'watched'");
    assert!(refusal(&mut events, "watch_ddl").1.contains("dropped or disabled"));
    sql.run("SELECT pgwake.make_event_triggers(); DELETE FROM pgwake.ddl_watch");
    sql.run("NOTIFY pgwake_ddl, 'watched'");
    assert_silent(&mut events, Duration::from_secs(1));
    sql.run("SELECT pgwake.watch_ddl('pgwake_ddl')");
    assert_eq!(next(&mut events), Seen::listening(&["pgwake_ddl"]));
    sql.run("CREATE TABLE t (id int)");
    assert_eq!(ddl(&mut events).1, "CREATE TABLE");
}

#[test]
fn nobody_makes_a_reader_ask_all_of_the_time() {
    let (conninfo, mut sql) = database("");
    let (mut events, _) = watching(&conninfo, DdlOptions::new());
    sql.run("ALTER TABLE pgwake.ddl_watch RENAME TO hidden");
    let failures = "SELECT pg_stat_clear_snapshot(); SELECT xact_rollback FROM pg_stat_database
                    WHERE datname = current_database()";
    let (before, began_at) = (sql.value(failures).parse::<u64>().unwrap(), Instant::now());
    sql.run("NOTIFY pgwake_ddl, 'watched'");
    let (code, sentence) = refusal(&mut events, "watch_ddl");
    assert!(code == "42P01" && sentence.contains("pgwake install"), "{sentence}");
    for _ in 0..80 {
        sql.run("NOTIFY pgwake_ddl, 'watched'");
        assert_silent(&mut events, Duration::from_millis(50));
    }
    let asked = u128::from(sql.value(failures).parse::<u64>().unwrap() - before);
    // The first waits after a refusal are short.
    assert!(asked > 1 && asked <= began_at.elapsed().as_millis() / 250 + 10, "{asked} questions");
    sql.run("ALTER TABLE pgwake.hidden RENAME TO ddl_watch; NOTIFY pgwake_ddl, 'watched'");
    assert_eq!(ddl(&mut events).1, "ALTER TABLE", "it was told all the time");
}

#[test]
fn an_event_that_is_gone_from_the_outbox_is_told_as_missed() {
    let (conninfo, mut sql) = database("");
    let (mut events, _) = watching(&conninfo, DdlOptions::new());
    sql.run(
        "SELECT pg_notify('pgwake_ddl',
           '{\"phase\": \"after\", \"tag\": \"DROP TABLE\", \"depth\":1, \"reference\":47, \"objects\": 9}')",
    );
    let (code, sentence) = refusal(&mut events, "watch_ddl");
    assert!(code == "42704" && sentence.contains("gone from the outbox"), "{sentence}");
}

#[test]
fn a_reader_does_not_wait_for_whoever_holds_its_lock() {
    let (conninfo, mut sql) = database("");
    sql.run("SELECT pg_advisory_lock(1885828971, pgwake.ddl_lock('pgwake_ddl'))");
    let (mut events, _) = watching(&conninfo, DdlOptions::new());
    sql.run("CREATE TABLE t (id int)");
    assert_eq!(ddl(&mut events).1, "CREATE TABLE");
}
