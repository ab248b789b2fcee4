//! DDL as events: one per command, with what it touched, and never in anybody's way.

use crate::common::outbox::{Reader, database};
use crate::common::{PATIENCE, Seen, Sql, listening, say_loudly};
use pgwake::EventLoop;
use serde_json::{Value, json};

/// The events up to those of a table that this makes and drops, as an application of its own.
fn events_until_now(sql: &mut Sql, events: &mut EventLoop) -> Vec<Value> {
    sql.run("BEGIN; SET LOCAL application_name = 'the end'; CREATE TABLE x (); DROP TABLE x; COMMIT");
    let mut seen = Vec::new();
    loop {
        let event = Seen::of(events.next(Some(PATIENCE)).unwrap().expect("the end"));
        let Seen::Notification { payload, .. } = event else { panic!("{event:?}") };
        let event: Value = serde_json::from_str(&payload).unwrap();
        match (event["app"].as_str(), event["tag"].as_str(), event["phase"].as_str()) {
            (Some("the end"), Some("DROP TABLE"), Some("after")) => return seen,
            (Some("the end"), ..) => {}
            _ => seen.push(event),
        }
    }
}

/// The tag, and each target's role, type and identity.
fn short(event: &Value) -> String {
    let targets = event["targets"].as_array().unwrap().iter();
    let mut targets: Vec<String> = targets
        .map(|t| ["role", "type", "identity"].map(|name| t[name].as_str().unwrap()).join(" "))
        .collect();
    targets.sort();
    format!("{}: {}", event["tag"].as_str().unwrap(), targets.join(", "))
}

/// Under `enable_nestloop = off` all plans look dear: each query of ours would be compiled, and a DROP took
/// seconds. Our functions inherit it from the trigger that calls them.
#[test]
fn no_trigger_of_ours_has_its_queries_compiled() {
    let (_, mut sql) = database("");
    let triggers = "SELECT count(*) FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid
        WHERE p.pronamespace = 'pgwake'::regnamespace AND (p.proconfig @> '{jit=off}') IS";
    assert_eq!(sql.value(&format!("{triggers} NOT TRUE")), "0");
    assert_ne!(sql.value(&format!("{triggers} TRUE")), "0");
    sql.run(
        "CREATE SCHEMA app; CREATE TABLE app.seen (jit text);
         CREATE FUNCTION app.keep(pgwake.ddl_target) RETURNS void LANGUAGE sql
           AS 'INSERT INTO app.seen VALUES (current_setting(''jit''))';
         SELECT pgwake.before_drop('app.keep(pgwake.ddl_target)')",
    );
    sql.run("SET jit = on");
    sql.run("CREATE TABLE a ()");
    sql.run("DROP TABLE a");
    assert_eq!(sql.value("SELECT jit FROM app.seen"), "off");
    assert_eq!(sql.value("SHOW jit"), "on");
}

#[test]
fn each_command_is_one_event_with_all_that_it_touched() {
    let (conninfo, mut sql) = database("");
    sql.run("SELECT pgwake.watch_ddl('ddl')");
    let (mut events, _session) = listening(&conninfo, &["ddl"]);
    sql.run("CREATE TABLE a (id int PRIMARY KEY)");
    sql.run("CREATE VIEW v AS SELECT id FROM a");
    sql.run("ALTER TABLE a ADD COLUMN b int DEFAULT random()");
    sql.run("ALTER TABLE a DROP COLUMN b");
    sql.run("CREATE TEMP TABLE hidden (); DROP TABLE hidden");
    sql.run("DO 'BEGIN CREATE TABLE nested (); END'");
    sql.run("BEGIN; CREATE TABLE never (); ROLLBACK");
    sql.run("DROP TABLE a CASCADE");
    let seen = events_until_now(&mut sql, &mut events);
    assert_eq!(
        seen.iter().map(short).collect::<Vec<_>>(),
        [
            "CREATE TABLE: target index public.a_pkey, target table public.a",
            "CREATE VIEW: target view public.v",
            "ALTER TABLE: rewrite table public.a, target table public.a",
            "ALTER TABLE: target table column public.a.b, target table public.a",
            "DROP TABLE: cascade rule \"_RETURN\" on public.v, cascade view public.v, target table public.a",
        ]
    );
    assert_eq!(
        (&seen[0]["phase"], &seen[0]["depth"], &seen[0]["user"]),
        (&json!("after"), &json!(1), &json!("postgres"))
    );
    assert_eq!(seen[3]["targets"].as_array().unwrap().iter().filter(|t| t["column"] == "b").count(), 1);
}

#[test]
fn equal_commands_of_one_transaction_are_events_of_their_own() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE a (id int); SELECT pgwake.watch_ddl('ddl')");
    let (mut events, _session) = listening(&conninfo, &["ddl"]);
    let alter = "ALTER TABLE a ALTER id SET DEFAULT 1";
    sql.run(&format!("BEGIN; {alter}; {alter}; {alter}; COMMIT"));
    let mut seen = events_until_now(&mut sql, &mut events);
    assert_eq!(seen.iter().map(short).collect::<Vec<_>>(), ["ALTER TABLE: target table public.a"; 3]);
    // But for what keeps them apart, they are equal.
    seen.iter_mut().for_each(|event| event["id"] = Value::Null);
    assert!(seen[0] == seen[1] && seen[1] == seen[2], "{seen:?}");
}

#[test]
fn tags_temporary_and_nested_ones_are_asked_for() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "SELECT pgwake.watch_ddl('ddl', tags => '{CREATE TABLE,DROP TABLE}', temp => true, nested => true)",
    );
    let (mut events, _session) = listening(&conninfo, &["ddl"]);
    sql.run("CREATE TEMP TABLE hidden ()");
    sql.run("DO 'BEGIN CREATE TABLE nested (); END'");
    sql.run("CREATE SEQUENCE other");
    // Who runs DDL needs no rights on ours.
    let role = sql.value("SELECT 'maker_' || current_database()");
    sql.run(&format!("CREATE ROLE {role}; GRANT CREATE ON SCHEMA public TO {role}; SET ROLE {role}"));
    sql.run("CREATE TABLE theirs (); RESET ROLE");
    let seen = events_until_now(&mut sql, &mut events);
    let seen: Vec<_> = seen.iter().map(|e| (e["temp"].clone(), e["depth"].clone())).collect();
    assert_eq!(seen, [(json!(true), json!(1)), (json!(false), json!(2)), (json!(false), json!(1))]);
}

#[test]
fn what_triggers_of_others_run_meanwhile_is_told_apart() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE FUNCTION tidy() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
           IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() WHERE object_identity = 'public.a') THEN
             DROP TABLE side; CREATE TABLE log ();
           END IF;
         END $$;
         CREATE EVENT TRIGGER zz_tidy ON sql_drop EXECUTE FUNCTION tidy();
         CREATE TABLE a (); CREATE TABLE side (); SELECT pgwake.watch_ddl('ddl', nested => true)",
    );
    let (mut events, _session) = listening(&conninfo, &["ddl"]);
    sql.run("DROP TABLE a");
    let seen = events_until_now(&mut sql, &mut events);
    assert_eq!(
        seen.iter().map(|event| format!("{} at {}", short(event), event["depth"])).collect::<Vec<_>>(),
        [
            "DROP TABLE: target table public.side at 2",
            "CREATE TABLE: target table public.log at 2",
            "DROP TABLE: target table public.a at 1",
        ]
    );
}

#[test]
fn what_is_nested_deeply_or_cut_short_keeps_no_command_from_running_or_being_told() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE FUNCTION chain() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE n int; BEGIN
           SELECT substr(object_name, 2)::int + 1 INTO n FROM pg_event_trigger_dropped_objects()
             WHERE object_type = 'table' AND object_name ~ '^c[0-9]+$';
           IF to_regclass('c' || n) IS NOT NULL THEN EXECUTE format('DROP TABLE c%s', n); END IF; END $$;
         CREATE FUNCTION quiet() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
           SET LOCAL session_replication_role = replica; RETURN 1; END $$;
         CREATE FUNCTION cut_short() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
           IF EXISTS (SELECT FROM pg_event_trigger_dropped_objects() WHERE object_name = 'outer_one') THEN
             EXECUTE 'CREATE TABLE q AS SELECT quiet()'; SET LOCAL session_replication_role = origin;
           END IF; END $$;
         CREATE EVENT TRIGGER zz_chain ON sql_drop EXECUTE FUNCTION chain();
         CREATE EVENT TRIGGER zz_cut ON sql_drop EXECUTE FUNCTION cut_short();
         DO $$ BEGIN FOR i IN 0..19 LOOP EXECUTE format('CREATE TABLE c%s ()', i); END LOOP; END $$;
         CREATE TABLE outer_one (); CREATE TABLE next_one ();
         SELECT pgwake.watch_ddl('ddl', phases => '{before,after}', tags => '{DROP TABLE}')",
    );
    let (mut events, _session) = listening(&conninfo, &["ddl"]);
    sql.run("DROP TABLE c0");
    assert_eq!(sql.value("SELECT count(*) FROM pg_class WHERE relname ~ '^c[0-9]+$'"), "0");
    sql.run("BEGIN; DROP TABLE outer_one; DROP TABLE next_one; COMMIT");
    let seen = events_until_now(&mut sql, &mut events);
    let after: Vec<_> = seen.iter().filter(|event| event["phase"] == "after").map(short).collect();
    assert_eq!(
        after,
        [
            "DROP TABLE: target table public.c0",
            "DROP TABLE: target table public.outer_one",
            "DROP TABLE: target table public.next_one",
        ]
    );
}

#[test]
fn commands_that_suffer_no_trigger_pass() {
    let (conninfo, mut sql) = database("");
    sql.run("SELECT pgwake.watch_ddl('ddl'), pgwake.watch_ddl('all', NULL, true, true, '{before,after}')");
    let (mut events, _session) = listening(&conninfo, &["ddl"]);
    sql.run("CREATE TABLE a (id int PRIMARY KEY, b int NOT NULL); SELECT pgwake.watch_table('a')");
    sql.run("CREATE MATERIALIZED VIEW m AS SELECT id FROM a");
    sql.run("CREATE UNIQUE INDEX m_id ON m (id)");
    sql.run("REFRESH MATERIALIZED VIEW CONCURRENTLY m");
    sql.run("CREATE INDEX CONCURRENTLY a_b ON a (b)");
    sql.run("REINDEX INDEX CONCURRENTLY a_b");
    sql.run("DROP INDEX CONCURRENTLY a_b");
    sql.run("VACUUM a");
    let error = sql.try_run("SELECT pgwake.watch_table('m')").unwrap_err();
    assert!(error.message.contains("materialized view"), "{error}");
    let seen = events_until_now(&mut sql, &mut events);
    let tags: Vec<_> = seen.iter().map(|event| event["tag"].as_str().unwrap()).collect();
    let tags: Vec<_> = tags.into_iter().filter(|tag| *tag != "REINDEX").collect();
    let expected = [
        "CREATE TABLE",
        "CREATE MATERIALIZED VIEW",
        "CREATE INDEX",
        "REFRESH MATERIALIZED VIEW",
        "CREATE INDEX",
        "DROP INDEX",
    ];
    assert_eq!(tags, expected);
}

#[test]
fn what_commits_in_between_is_followed() {
    let (conninfo, mut sql) = database("");
    sql.run("SELECT pgwake.watch_ddl('all', NULL, true, true, '{before,after}')");
    sql.run(
        "CREATE TABLE t (id int NOT NULL, b int NOT NULL); CREATE TABLE p (id int) PARTITION BY LIST (id);
         CREATE TABLE p_1 PARTITION OF p FOR VALUES IN (1);
         SELECT pgwake.watch_table('t'), pgwake.watch_table('p')",
    );
    let mut reader = Reader::open(&conninfo, "a");
    sql.run("CREATE UNIQUE INDEX CONCURRENTLY t_b ON t (b)");
    sql.run("ALTER TABLE t REPLICA IDENTITY USING INDEX t_b; INSERT INTO t VALUES (1, 2)");
    sql.run("DROP INDEX CONCURRENTLY t_b");
    sql.run("INSERT INTO t VALUES (3, 4)");
    sql.run("ALTER TABLE p DETACH PARTITION p_1 CONCURRENTLY");
    sql.run("INSERT INTO p_1 VALUES (1)");
    let expected = [
        json!({"op": "insert", "table": "t", "key": {"b": 2}}),
        json!({"op": "insert", "table": "t", "key": null, "new": {"id": 3, "b": 4}}),
    ];
    assert_eq!(reader.all(), expected);
}

#[test]
fn the_start_of_a_command_is_told_to_who_asks_for_it() {
    let (conninfo, mut sql) = database("");
    sql.run("SELECT pgwake.watch_ddl('ddl', phases => '{before,after}')");
    let (mut events, _session) = listening(&conninfo, &["ddl"]);
    sql.run("SET application_name = 'tester'; CREATE TABLE a (id int PRIMARY KEY, b int)");
    sql.run("CREATE TEMP TABLE hidden ()");
    sql.run("DROP TABLE hidden");
    sql.run("DO 'BEGIN CREATE TABLE nested (); END'");
    assert!(sql.try_run("CREATE TABLE a ()").is_err());
    sql.run("CREATE EXTENSION IF NOT EXISTS plpgsql; CREATE TABLE IF NOT EXISTS a ()");
    let seen = events_until_now(&mut sql, &mut events);
    let phases: Vec<String> = seen
        .iter()
        .map(|e| format!("{} {}", e["phase"].as_str().unwrap(), e["tag"].as_str().unwrap()))
        .collect();
    // Without the extension nobody knows yet that what is created is temporary.
    let is_known = sql.value("SELECT pgwake.mode()") == "extension";
    let created = if is_known { None } else { Some("before CREATE TABLE") };
    let expected: Vec<&str> = ["before CREATE TABLE", "after CREATE TABLE"]
        .into_iter()
        .chain(created)
        .chain(["before CREATE EXTENSION", "before CREATE TABLE"])
        .collect();
    assert_eq!(phases, expected);
    let before = json!({"phase": "before", "tag": "CREATE TABLE", "depth": 1, "xid": null, "user": "postgres",
        "app": "tester"});
    let told = seen[0].as_object().unwrap();
    assert!(before.as_object().unwrap().iter().all(|(name, value)| told[name] == *value), "{told:?}");
    let target = json!({"role": "target", "type": "table", "schema": "public", "name": "a", "column": null,
        "identity": "public.a", "oid": null, "subid": null, "temp": false, "exists": false});
    let (targets, temp) = if is_known { (json!([target]), json!(false)) } else { (json!([]), json!(null)) };
    assert_eq!((&told["targets"], &told["temp"]), (&targets, &temp));
}

#[test]
fn the_script_of_an_extension_is_nested() {
    let (conninfo, mut sql) = database("");
    if sql.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'") == "0" {
        say_loudly("SKIPPED: the script of an extension: this server has none of contrib's");
        return;
    }
    sql.run("SELECT pgwake.watch_ddl('flat', phases => '{before,after}')");
    sql.run("SELECT pgwake.watch_ddl('deep', phases => '{before,after}', nested => true)");
    let (mut flat, _session) = listening(&conninfo, &["flat"]);
    let (mut deep, _session) = listening(&conninfo, &["deep"]);
    sql.run("CREATE EXTENSION citext");
    let seen = events_until_now(&mut sql, &mut flat);
    let tags: Vec<_> = seen.iter().map(|e| (e["phase"].clone(), e["tag"].clone())).collect();
    let expected = ["before", "after"].map(|phase| (json!(phase), json!("CREATE EXTENSION")));
    assert_eq!(tags, expected);
    let seen = events_until_now(&mut sql, &mut deep);
    let nested = seen.iter().filter(|e| e["tag"] == "CREATE OPERATOR" && e["depth"] == 2);
    assert!(nested.count() > 2, "{seen:?}");
}

#[test]
fn broken_code_of_ours_stops_nobody() {
    let (_, mut sql) = database("");
    sql.run(
        "SELECT pgwake.watch_ddl('ddl'); CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')",
    );
    sql.run("ALTER TABLE pgwake.ddl_watch RENAME TO gone; ALTER TABLE pgwake.watched RENAME TO gone_too");
    sql.run("CREATE TABLE a (id int); ALTER TABLE a ADD b int; DROP TABLE a");
    sql.run("INSERT INTO t VALUES (1)");
}

#[test]
fn without_event_triggers_the_rest_works_and_says_so() {
    let (conninfo, mut sql) = database("");
    let role = sql.value("SELECT 'manager_' || current_database()");
    sql.run(&pgwake::install::uninstall());
    sql.run(&format!(
        "CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role};
         SELECT set_config('pgwake.role', '{role}', false);
         DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {role}', current_database()); END $$"
    ));
    let mut manager = Sql::connect(&conninfo.replace("user=postgres", &format!("user={role}")));
    manager.run(&pgwake::install::install());
    assert_eq!(manager.value("SELECT pgwake.mode()"), "sql, no event triggers");
    assert_eq!(sql.value("SELECT pgwake.mode()"), "sql, no event triggers");
    manager
        .run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t'); INSERT INTO t VALUES (1)");
    let error = manager.try_run("SELECT pgwake.watch_ddl('ddl')").unwrap_err();
    assert!(error.message.contains("event triggers"), "{error}");
    manager.run("ALTER TABLE t RENAME id TO number; INSERT INTO t VALUES (2)");
    let problems = manager.value("SELECT string_agg(object || ': ' || problem, E'\\n') FROM pgwake.check()");
    assert!(
        problems.contains("not those that they were made for") && problems.contains("event triggers"),
        "{problems}"
    );
    manager.run(&pgwake::install::uninstall());
}
