//! `pgwake before-drop` and `ddl --phase`, as their users meet them, and what they say when they cannot.
#![cfg(feature = "command")]

use crate::common::command::{Running, complaint, run};
use crate::common::error_table::hold;
use crate::common::outbox::database;
use crate::common::{Sql, server};
use serde_json::{Value, json};
use std::process::Output;

/// A handler that keeps what it was called for.
const HANDLER: &str = "CREATE SCHEMA app; CREATE TABLE app.seen (identity text);
    CREATE FUNCTION app.clean_up(target pgwake.ddl_target) RETURNS void LANGUAGE plpgsql
      AS $$ BEGIN INSERT INTO app.seen VALUES (target.role || ' ' || target.identity); END $$";

fn with_handler() -> (String, Sql) {
    let (dsn, mut sql) = database("");
    sql.run(HANDLER);
    (dsn, sql)
}

fn succeed(dsn: &str, arguments: &[&str]) -> String {
    crate::common::command::succeed(&[&["-d", dsn], arguments].concat())
}

fn seen(sql: &mut Sql) -> String {
    sql.value(
        "WITH gone AS (DELETE FROM app.seen RETURNING identity)
        SELECT coalesce(string_agg(identity, ', ' ORDER BY identity), '') FROM gone",
    )
}

#[test]
fn the_name_alone_is_enough_and_the_function_runs_before_drops() {
    let (dsn, mut sql) = with_handler();
    sql.run("CREATE FUNCTION app.clean_up(int) RETURNS int LANGUAGE sql AS 'SELECT 1'");
    succeed(&dsn, &["before-drop", "app.clean_up"]);
    sql.run("CREATE TABLE a (id int); CREATE TABLE b (id int); CREATE VIEW v AS SELECT * FROM a");
    sql.run("DROP TABLE a CASCADE");
    assert_eq!(seen(&mut sql), "target public.a");
    // Registered again it follows the options given last, however its name was written.
    succeed(
        &dsn,
        &["before-drop", "app.clean_up( pgwake.ddl_target )", "--types", "view", "--schemas", "app"],
    );
    sql.run("DROP TABLE b");
    assert_eq!(seen(&mut sql), "");
    sql.run("CREATE VIEW app.v AS SELECT 1 AS one; CREATE VIEW v AS SELECT * FROM app.v");
    sql.run("DROP VIEW app.v CASCADE");
    assert_eq!(seen(&mut sql), "target app.v");
    succeed(&dsn, &["before-drop", "--remove", "app.clean_up"]);
    sql.run("CREATE VIEW app.v AS SELECT 1 AS one");
    sql.run("DROP VIEW app.v");
    assert_eq!(seen(&mut sql), "");
}

#[test]
fn the_list_says_what_to_type() {
    let (dsn, mut sql) = with_handler();
    sql.run("CREATE FUNCTION app.gone(pgwake.ddl_target) RETURNS void LANGUAGE plpgsql AS 'BEGIN END'");
    assert_eq!(succeed(&dsn, &["before-drop", "--list"]), "");
    succeed(
        &dsn,
        &["before-drop", "app.gone", "--types", "view,materialized view", "--schemas", "app,public"],
    );
    succeed(&dsn, &["before-drop", "app.clean_up"]);
    let listed = succeed(&dsn, &["before-drop", "--list"]);
    let [own, other] = listed.lines().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(own, "app.clean_up(pgwake.ddl_target)  --types 'table'");
    let options = "--types 'view,materialized view' --schemas 'app,public'";
    assert_eq!(other, format!("app.gone(pgwake.ddl_target)  {options}"));
    let listed = succeed(&dsn, &["-f", "json", "before-drop", "--list"]);
    let lines: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["event"], &lines[0]["schemas"]), (&"handler".into(), &Value::Null));
    assert_eq!(lines[1]["types"], json!(["view", "materialized view"]));
    // Also of one whose function is gone.
    sql.run("DROP FUNCTION app.gone");
    succeed(&dsn, &["before-drop", "--remove", "app.gone"]);
    assert_eq!(succeed(&dsn, &["before-drop", "--list"]), format!("{own}\n"));
    let status = succeed(&dsn, &["status"]);
    assert!(
        status.contains("handlers\n  handler app.clean_up(pgwake.ddl_target)  types table\n"),
        "{status}"
    );
}

#[test]
fn both_phases_have_what_is_dropped_and_each_can_be_had_alone() {
    let (dsn, mut sql) = database("");
    sql.run("CREATE TABLE a (id int); CREATE VIEW v AS SELECT * FROM a");
    let ddl = |phases: &[&str]| {
        let arguments = ["-d", &dsn, "-f", "json", "ddl", "--tags", "DROP TABLE"];
        let mut reader = Running::start(&[&arguments[..], phases].concat());
        while reader.json()["channels"].as_array().unwrap().is_empty() {}
        reader
    };
    let mut both = ddl(&["--phase", "before,after", "--count", "2"]);
    let mut before = ddl(&["--phase", "before", "--count", "1"]);
    let mut after = ddl(&["--count", "1"]);
    sql.run("DROP TABLE a CASCADE");
    let [told, done] = [both.json(), both.json()];
    let alone = (before.json(), after.json());
    for (event, phase, exists) in [
        (&told, "before", true),
        (&done, "after", false),
        (&alone.0, "before", true),
        (&alone.1, "after", false),
    ] {
        assert_eq!((&event["phase"], &event["tag"]), (&phase.into(), &"DROP TABLE".into()), "{event}");
        let targets = event["targets"].as_array().unwrap();
        let of = |identity: &str| targets.iter().find(|t| t["identity"] == identity).expect(identity);
        assert_eq!((&of("public.a")["role"], &of("public.v")["role"]), (&"target".into(), &"cascade".into()));
        let table = of("public.a");
        let names = ["role", "type", "schema", "name", "column", "identity", "oid", "subid", "exists"];
        assert!(names.iter().all(|name| table.get(name).is_some()), "{table}");
        assert_eq!((&table["exists"], &table["type"]), (&exists.into(), &"table".into()));
    }
    assert_eq!((both.status(), before.status(), after.status()), (0, 0, 0));
    let removed = |phases: &[&str]| {
        complaint(&[&["-d", &dsn, "ddl", "--remove", "--tags", "DROP TABLE"], phases].concat())
    };
    let (sentence, status) = removed(&["--phase", "after", "--temp"]);
    assert!(status == 1 && sentence.contains("--phase before,after`"), "{sentence}");
    for phases in [&["--phase", "after", "--phase", "before"][..], &["--phase", "before"], &[]] {
        assert_eq!(removed(phases), (String::new(), 0), "{phases:?}");
    }
}

#[test]
fn check_says_that_the_function_of_a_handler_is_gone() {
    let (dsn, mut sql) = with_handler();
    succeed(&dsn, &["before-drop", "app.clean_up"]);
    let found = |dsn: &str| String::from_utf8(run(&["-d", dsn, "check"]).stdout).unwrap();
    let told = found(&dsn);
    assert!(told.contains("app.clean_up(pgwake.ddl_target): who may not call it"), "{told}");
    sql.run("GRANT USAGE ON SCHEMA app TO PUBLIC");
    let told = found(&dsn);
    assert!(!told.contains("app.clean_up"), "{told}");
    sql.run("DROP FUNCTION app.clean_up");
    let told = found(&dsn);
    assert!(told.contains("its function is gone"), "{told}");
}

fn before_drop(dsn: &str, arguments: &[&str]) -> Output {
    run(&[&["-d", dsn, "before-drop"], arguments].concat())
}

#[test]
fn each_reason_not_to_register_has_its_sentence() {
    let (dsn, mut sql) = with_handler();
    sql.run("CREATE FUNCTION app.other(int) RETURNS int LANGUAGE sql AS 'SELECT 1'");
    let role = sql.value("SELECT 'plain_' || current_database()");
    sql.run(&format!("CREATE ROLE {role} LOGIN"));
    sql.run("CREATE FUNCTION app.theirs(pgwake.ddl_target) RETURNS void LANGUAGE plpgsql AS 'BEGIN END'");
    sql.run(&format!("ALTER FUNCTION app.theirs OWNER TO {role}"));
    let theirs = before_drop(&dsn, &["app.theirs"]);
    let plain = dsn.replace("user=postgres", &format!("user={role}"));
    let older = {
        let (dsn, mut sql) = database("");
        sql.run("CREATE OR REPLACE FUNCTION pgwake.version() RETURNS int LANGUAGE sql AS 'SELECT 4'");
        before_drop(&dsn, &["app.clean_up"])
    };
    let situations = vec![
        ("no function is named", before_drop(&dsn, &[])),
        ("an unknown phase of `ddl`", run(&["-d", &dsn, "ddl", "--phase", "during"])),
        ("the schema is not installed", before_drop(&server().conninfo(), &["app.clean_up"])),
        ("the schema is of an earlier version", older),
        ("there are no event triggers", without_event_triggers()),
        ("the function does not exist", before_drop(&dsn, &["app.nowhere"])),
        ("it takes something else", before_drop(&dsn, &["app.other"])),
        ("its name is malformed", before_drop(&dsn, &["app.cl ean"])),
        ("its owner would gain rights", theirs),
        ("`--remove` of one that is not registered", before_drop(&dsn, &["--remove", "app.nowhere"])),
        ("the role may not register one", before_drop(&plain, &["app.clean_up"])),
    ];
    hold("Before a drop", situations);
}

/// In a database whose owner is no superuser, and has installed the schema.
fn without_event_triggers() -> Output {
    let mut sql = Sql::connect(&server().conninfo());
    sql.run("CREATE ROLE owner_of_handlers LOGIN");
    sql.run("CREATE DATABASE of_handlers OWNER owner_of_handlers");
    let dsn = server()
        .conninfo()
        .replace("user=postgres dbname=postgres", "user=owner_of_handlers dbname=of_handlers");
    succeed(&dsn, &["install"]);
    Sql::connect(&dsn).run(HANDLER);
    before_drop(&dsn, &["app.clean_up"])
}
