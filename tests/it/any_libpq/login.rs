//! Logins as events, and that none ever fails because of them.

use crate::common::outbox::database;
use crate::common::{PATIENCE, Seen, Sql, assert_silent, listening, make_standby, say_loudly, start_server};
use pgwake::EventLoop;
use serde_json::{Value, json};
use std::time::Duration;

/// Says so where there is no such event trigger.
fn has_logins(sql: &mut Sql) -> bool {
    let is_there = sql.value("SHOW server_version_num").parse::<u32>().unwrap() >= 170_000;
    if !is_there {
        say_loudly("SKIPPED: logins as events: PostgreSQL 17 or later has them");
    }
    is_there
}

fn next_event(events: &mut EventLoop) -> Value {
    match Seen::of(events.next(Some(PATIENCE)).unwrap().expect("an event")) {
        Seen::Notification { payload, .. } => serde_json::from_str(&payload).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_login_is_an_event_for_who_asks_for_it_by_name() {
    let (conninfo, mut sql) = database("");
    if !has_logins(&mut sql) {
        let error = sql.try_run("SELECT pgwake.watch_ddl('logins', tags => '{login}')").unwrap_err();
        assert!(error.message.contains("PostgreSQL 17"), "{error}");
        return;
    }
    let role = sql.value("SELECT 'guest_' || current_database()");
    sql.run(&format!("CREATE ROLE {role} LOGIN"));
    let (mut all, _session) = listening(&conninfo, &["all"]);
    let (mut logins, _session) = listening(&conninfo, &["logins"]);
    sql.run("SELECT pgwake.watch_ddl('all', phases => '{before,after}')");
    sql.run("SELECT pgwake.watch_ddl('logins', tags => '{login,DROP TABLE}')");
    let guest = conninfo.replace("user=postgres", &format!("user={role} application_name=visit"));
    drop(Sql::connect(&guest));
    let mut event = next_event(&mut logins);
    assert!(event["xid"].take().as_u64().is_some());
    let expected = json!({"phase": "after", "tag": "login", "targets": [], "depth": 1, "temp": false,
        "xid": null, "user": role, "app": "visit"});
    assert_eq!(event, expected);
    assert_silent(&mut all, Duration::ZERO);
    // Whoever does not want to know any longer costs nobody anything.
    let triggers = "SELECT count(*) FROM pg_event_trigger WHERE evtname = 'pgwake_login'";
    sql.run("SELECT pgwake.watch_ddl('logins', tags => '{DROP TABLE}')");
    assert_eq!(sql.value(triggers), "0");
    sql.run("SELECT pgwake.watch_ddl('logins', tags => '{login}')");
    assert_eq!(sql.value(triggers), "1");
    sql.run("SELECT pgwake.unwatch_ddl('logins')");
    assert_eq!(sql.value(triggers), "0");
    drop(Sql::connect(&guest));
    assert_silent(&mut logins, Duration::from_millis(50));
}

#[test]
fn no_login_fails_because_of_it() {
    let (conninfo, mut sql) = database("");
    if !has_logins(&mut sql) {
        return;
    }
    sql.run("SELECT pgwake.watch_ddl('logins', tags => '{login}')");
    let enters = || assert_eq!(Sql::connect(&conninfo).value("SELECT 1"), "1");
    // Somebody holds our table: it is not waited for.
    let mut holder = Sql::connect(&conninfo);
    holder.run("BEGIN; LOCK TABLE pgwake.ddl_watch");
    enters();
    holder.run("ROLLBACK");
    let database = sql.value("SELECT current_database()");
    sql.run(&format!("ALTER DATABASE {database} SET default_transaction_read_only = on"));
    let (mut events, _session) = listening(&conninfo, &["logins"]);
    enters();
    assert_eq!(next_event(&mut events)["tag"], "login");
    sql.run(&format!("ALTER DATABASE {database} RESET default_transaction_read_only"));
    for broken in [
        "ALTER TABLE pgwake.ddl_watch RENAME COLUMN tags TO gone",
        "ALTER TABLE pgwake.ddl_watch RENAME TO gone",
        "ALTER FUNCTION pgwake.send_ddl RENAME TO gone",
        "DROP SCHEMA pgwake CASCADE",
    ] {
        sql.run(broken);
        enters();
    }
}

#[test]
fn a_standby_and_a_full_notification_queue_let_everybody_in() {
    let (_, mut sql) = database("");
    if !has_logins(&mut sql) {
        return;
    }
    let mut server = start_server();
    let mut sql = Sql::connect(&server.conninfo());
    sql.run("ALTER SYSTEM SET max_notify_queue_pages = 64");
    drop(sql);
    server.restart("fast").unwrap();
    let mut sql = Sql::connect(&server.conninfo());
    sql.run(&pgwake::install::install());
    sql.run(
        "CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t', transport => 'notify');
         SELECT pgwake.watch_ddl('ddl', tags => '{login,CREATE TABLE}')",
    );
    // A listener that never ends its transaction lets nobody empty the queue.
    let mut sleeper = Sql::connect(&server.conninfo());
    sleeper.run("LISTEN ddl");
    sleeper.run("BEGIN");
    let fill = "SELECT count(pg_notify('fill', repeat('x', 7000) || i)) FROM generate_series(1, 5) i";
    while sql.try_run(fill).is_ok() {}
    assert!(sql.value("SELECT pg_notification_queue_usage() > 0.9") == "t");
    let mut guest = Sql::connect(&server.conninfo());
    guest.run("CREATE TABLE made_anyway (); INSERT INTO t VALUES (1)");
    sleeper.run("COMMIT");
    drop((sql, guest, sleeper));
    make_standby(&mut server);
    assert_eq!(Sql::connect(&server.conninfo()).value("SELECT pg_is_in_recovery()"), "t");
}

#[test]
fn an_upgrade_keeps_it_and_an_uninstall_does_not() {
    let (conninfo, mut sql) = database("");
    if !has_logins(&mut sql) {
        return;
    }
    sql.run("SELECT pgwake.watch_ddl('logins', tags => '{login}')");
    sql.run(&pgwake::install::install());
    let (mut events, _session) = listening(&conninfo, &["logins"]);
    drop(Sql::connect(&conninfo));
    assert_eq!(next_event(&mut events)["user"], "postgres");
    sql.run(&pgwake::install::uninstall());
    drop(Sql::connect(&conninfo));
    assert_eq!(sql.value("SELECT count(*) FROM pg_event_trigger"), "0");
}
