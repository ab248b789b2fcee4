//! What goes with a drop is known before it, and a handler sees each of it once: for each kind of DROP, and
//! in whatever it is wrapped.

use crate::common::Sql;
use crate::common::drops::{Mode, equal_lists, in_each_mode, keep_lists, keep_what_is_seen, seen};
use pgwake::pq::{Format, ResultStatus};

/// What stands in a schema `work` of its own, what runs then, and what the handler has seen after that. Where
/// the mode `sql` refuses, its reason; then nothing of the last command is left.
struct Case {
    name: &'static str,
    setup: &'static str,
    commands: &'static [&'static str],
    seen: &'static [&'static str],
    refused: Option<&'static str>,
}

/// A command that goes by itself, as drivers do it that prepare what they send.
const PREPARED: &str = "prepared: ";

const fn case(
    name: &'static str,
    setup: &'static str,
    commands: &'static [&'static str],
    seen: &'static [&'static str],
) -> Case {
    Case { name, setup, commands, seen, refused: None }
}

const fn refused(
    name: &'static str,
    setup: &'static str,
    commands: &'static [&'static str],
    seen: &'static [&'static str],
    reason: &'static str,
) -> Case {
    Case { name, setup, commands, seen, refused: Some(reason) }
}

const KINDS: &[Case] = &[
    case(
        "several tables",
        "CREATE TABLE a (); CREATE TABLE b ()",
        &["DROP TABLE a, b"],
        &["target table work.a", "target table work.b"],
    ),
    case(
        "CASCADE through views, keys, partitions and inheritance",
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id);
         CREATE TABLE p_1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE r (id int REFERENCES p);
         CREATE VIEW v AS SELECT * FROM p; CREATE TABLE i (LIKE p); CREATE TABLE i_1 () INHERITS (i);
         CREATE TABLE typed OF typed_type",
        &["DROP TABLE p CASCADE", "DROP TABLE i CASCADE", "DROP TYPE typed_type CASCADE"],
        &[
            "target table work.p",
            "cascade table work.p_1",
            "cascade view work.v",
            "target table work.i",
            "cascade table work.i_1",
            "cascade table work.typed",
        ],
    ),
    case(
        "what is not there, and what is",
        "CREATE TABLE a ()",
        &["DROP TABLE IF EXISTS nowhere", "DROP TABLE IF EXISTS nowhere, a, no_schema.b"],
        &["target table work.a"],
    ),
    case(
        "a temporary table in front of another one",
        "CREATE TABLE a (); CREATE TEMP TABLE a ()",
        &["DROP TABLE a", "DROP TABLE a"],
        &["target table work.a"],
    ),
    case(
        "names that need quotes, and a search_path",
        "CREATE TABLE \"A \"\"b\"\"; DROP TABLE c\" (); CREATE TABLE \"é'\" (); CREATE TABLE c ()",
        &["SET search_path = nowhere, \"$user\", work", "DROP TABLE \"A \"\"b\"\"; DROP TABLE c\", \"é'\""],
        &["target table work.\"A \"\"b\"\"; DROP TABLE c\"", "target table work.\"é'\""],
    ),
    case(
        "a schema",
        "CREATE SCHEMA work_2 CREATE TABLE a (id serial PRIMARY KEY) CREATE VIEW v AS SELECT * FROM a;
         CREATE VIEW outside AS SELECT * FROM work_2.v; CREATE SCHEMA work_3 CREATE TABLE b ()",
        &["DROP SCHEMA work_2, work_3 CASCADE"],
        &[
            "cascade table work_2.a",
            "cascade view work_2.v",
            "cascade view work.outside",
            "cascade table work_3.b",
        ],
    ),
    case(
        "a type that is a column",
        "CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE a (id int, m mood); CREATE VIEW v AS SELECT m FROM a",
        &["DROP TYPE mood CASCADE"],
        &["cascade table column work.a.m", "cascade view work.v"],
    ),
    case(
        "a column",
        "CREATE TABLE a (id int, b int, c int); CREATE VIEW v AS SELECT b FROM a",
        &[
            "ALTER TABLE a DROP COLUMN b CASCADE, DROP c",
            "ALTER TABLE IF EXISTS ONLY work.a DROP IF EXISTS c",
        ],
        &["target table column work.a.b", "cascade view work.v", "target table column work.a.c"],
    ),
    refused(
        "a column, in a command that does more",
        "CREATE TABLE a (id int, b int)",
        &["ALTER TABLE a ADD COLUMN c int DEFAULT (1), DROP COLUMN b"],
        &["target table column work.a.b"],
        "the command does more than drop",
    ),
    case(
        "a command that has DROP in it, and drops nothing",
        "CREATE TABLE a (id int NOT NULL DEFAULT 1, b int)",
        &[
            "ALTER TABLE a ALTER id DROP NOT NULL, ALTER id DROP DEFAULT, ADD CHECK (id > 0)",
            "ALTER TABLE a ALTER b TYPE bigint, ALTER b SET DEFAULT 2",
            "ALTER TABLE a RENAME b TO \"drop\"; ALTER TABLE a RENAME TO \"DROP\"",
            "COMMENT ON TABLE \"DROP\" IS 'DROP'",
        ],
        &[],
    ),
    case(
        "a partition that is detached",
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id);
         CREATE TABLE p_1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p_2 PARTITION OF p DEFAULT",
        &["ALTER TABLE p DETACH PARTITION p_1", "DROP TABLE p"],
        &["target table work.p", "cascade table work.p_2"],
    ),
    case(
        "all kinds",
        "CREATE TABLE a (id int); CREATE SEQUENCE s; CREATE DOMAIN d AS int; CREATE TYPE t AS (x int);
         CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1'; CREATE INDEX i ON a (id); CREATE STATISTICS st ON
           id, (id + 1) FROM a; CREATE RULE r AS ON INSERT TO a DO ALSO NOTHING; CREATE VIEW v AS SELECT 1;
         CREATE MATERIALIZED VIEW m AS SELECT 1; CREATE OPERATOR %% (LEFTARG = int, RIGHTARG = int,
           FUNCTION = pg_catalog.int4pl)",
        &[
            "DROP SEQUENCE s",
            "DROP DOMAIN d",
            "DROP TYPE t",
            "DROP FUNCTION f",
            "DROP PROCEDURE p()",
            "DROP INDEX i",
            "DROP STATISTICS st",
            "DROP RULE r ON a",
            "DROP VIEW v",
            "DROP MATERIALIZED VIEW m",
            "DROP OPERATOR %% (int, int)",
            "DROP /* kinds */ TABLE--\na",
        ],
        &["target view work.v", "target table work.a"],
    ),
    case(
        "a column of a composite type",
        "CREATE TYPE t AS (a int, b int); CREATE TABLE a (x int, y t)",
        &["ALTER TYPE t DROP ATTRIBUTE a CASCADE", "DROP TYPE t CASCADE"],
        &["cascade table column work.a.y"],
    ),
];

const WRAPPINGS: &[Case] = &[
    case(
        "DO and dynamic SQL",
        "CREATE TABLE a (); CREATE TABLE b ()",
        &["DO $$ BEGIN DROP TABLE a; EXECUTE format('DROP TABLE %I', 'b');
           CREATE TABLE b (); DROP TABLE b; END $$"],
        &["target table work.a", "target table work.b", "target table work.b"],
    ),
    case(
        "functions in functions, with a search_path of their own",
        "CREATE TABLE a (); CREATE SCHEMA work_2 CREATE TABLE a ();
         CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql SET search_path = work_2 AS
           'BEGIN DROP TABLE a; END';
         CREATE FUNCTION g() RETURNS void LANGUAGE plpgsql AS
           $$ BEGIN PERFORM f(); DROP TABLE a; END $$",
        &["SELECT g()"],
        &["target table work_2.a", "target table work.a"],
    ),
    case(
        "a text that looks like another one",
        "CREATE TABLE a (); CREATE TABLE b ()",
        &["DO $$ BEGIN EXECUTE 'DROP TABLE /*' || E'\"\nPL/pgSQL function b() line 1 */ a'; END $$"],
        &["target table work.a"],
    ),
    refused(
        "a function in SQL",
        "CREATE TABLE a (); CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'DROP TABLE work.a'",
        &["SELECT f()"],
        &["target table work.a"],
        "the command runs in a function in SQL, and its text is not known",
    ),
    case(
        "a procedure that commits",
        "CREATE TABLE a (); CREATE TABLE b (); CREATE TABLE c (); CREATE PROCEDURE p() LANGUAGE plpgsql AS
           $$ BEGIN DROP TABLE a; COMMIT; DROP TABLE b; ROLLBACK; DROP TABLE c; END $$",
        &["CALL p()", "DROP TABLE b"],
        &["target table work.a", "target table work.c", "target table work.b"],
    ),
    case("a prepared statement", "CREATE TABLE a ()", &["prepared: DROP TABLE a;"], &["target table work.a"]),
    case(
        "one statement in a string, and what looks like more",
        "CREATE TABLE a (); CREATE TABLE b (); CREATE TABLE \"c; DROP TABLE d\" ()",
        &[
            "/* a /* b */ c */ ; DROP TABLE a /* ; /* ; */ DROP TABLE b */; -- ; DROP TABLE b",
            "DROP TABLE IF EXISTS nowhere;",
            "DROP TABLE U&\"!0062\" UESCAPE '!', \"c; DROP TABLE d\";",
        ],
        &["target table work.a", "target table work.b", "target table work.\"c; DROP TABLE d\""],
    ),
    refused(
        "several statements in a string",
        "CREATE TABLE a ()",
        &["SELECT 1; DROP TABLE a"],
        &["target table work.a"],
        "the command was not sent by itself",
    ),
    refused(
        "several statements in a string that commits",
        "CREATE TABLE a (); CREATE TABLE b ()",
        &["DROP TABLE a; COMMIT; DROP TABLE b"],
        &["target table work.a", "target table work.b"],
        "the command was not sent by itself",
    ),
    refused(
        "several statements in a string of a function",
        "CREATE TABLE a (); CREATE TABLE b ()",
        &["DO $$ BEGIN EXECUTE 'DROP TABLE a; DROP TABLE b'; END $$"],
        &["target table work.a", "target table work.b"],
        "the command was not sent by itself",
    ),
    case(
        "savepoints",
        "CREATE TABLE a (); CREATE TABLE b ()",
        &["BEGIN; SAVEPOINT one", "DROP TABLE a", "ROLLBACK TO one", "DROP TABLE b", "RELEASE one", "COMMIT"],
        &["target table work.b"],
    ),
    case(
        "blocks that fail, and go on",
        "CREATE TABLE a (); CREATE TABLE b ()",
        &["DO $$ BEGIN BEGIN DROP TABLE a; PERFORM 1 / 0;
             EXCEPTION WHEN division_by_zero THEN DROP TABLE b; END;
             BEGIN DROP TABLE nowhere; EXCEPTION WHEN undefined_table THEN DROP TABLE a; END; END $$"],
        &["target table work.b", "target table work.a"],
    ),
    case(
        "a side table that goes along, and is dropped by the handler of the first",
        "CREATE TABLE a (); CREATE SCHEMA work_2 CREATE TABLE b (side regclass) CREATE TABLE c ();
         INSERT INTO work_2.b VALUES ('work_2.c');
         CREATE FUNCTION kept.clean_up(t pgwake.ddl_target) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
           IF t.object_name = 'b' THEN DROP TABLE work_2.c; END IF; END $$;
         SELECT pgwake.before_drop('kept.clean_up(pgwake.ddl_target)', '{table}', '{work_2}')",
        &["DROP SCHEMA work_2 CASCADE", "SELECT pgwake.remove_before_drop('kept.clean_up')"],
        &["cascade table work_2.b", "target table work_2.c"],
    ),
    case(
        "another event trigger that drops",
        "CREATE TABLE a (); CREATE TABLE b (); CREATE TABLE c ();
         CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS $$
         BEGIN IF coalesce(current_setting('work.once', true), '') = '' THEN
           PERFORM set_config('work.once', 'yes', true); DROP TABLE work.a; END IF; END $$;
         CREATE FUNCTION g() RETURNS event_trigger LANGUAGE plpgsql AS $$
         BEGIN IF to_regclass('work.b') IS NOT NULL THEN DROP TABLE work.b; END IF; END $$;
         CREATE EVENT TRIGGER a_other ON ddl_command_start WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION f();
         CREATE EVENT TRIGGER z_other ON sql_drop WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION g()",
        &["DROP TABLE c"],
        &["target table work.a", "target table work.c", "target table work.b"],
    ),
];

#[test]
fn each_kind_of_drop_is_seen_before_it_happens() {
    all(KINDS);
}

#[test]
fn a_drop_is_seen_whatever_it_is_wrapped_in() {
    all(WRAPPINGS);
}

fn all(cases: &[Case]) {
    in_each_mode(|mode, _, sql| {
        keep_what_is_seen(sql, "table,view,table column");
        keep_lists(sql, &[]);
        for case in cases {
            one(mode, sql, case);
        }
    });
}

fn one(mode: Mode, sql: &mut Sql, case: &Case) {
    println!("{mode:?}: {}", case.name);
    sql.run("CREATE SCHEMA work; SET search_path = work; CREATE TYPE typed_type AS (x int)");
    sql.run(case.setup);
    let refusal = case.refused.filter(|_| mode == Mode::Sql);
    let mut failed = None;
    for command in case.commands {
        failed = send(sql, command).err();
        if failed.is_some() {
            break;
        }
    }
    match (&refusal, &failed) {
        (Some(reason), Some(error)) => {
            assert!(error.message.contains(reason), "{}: {error}", case.name);
            assert_eq!(error.sqlstate.map(|code| code.to_string()), Some("0A000".into()), "{error}");
        }
        (None, None) => {}
        _ => panic!("{mode:?}: {}: {failed:?}, and the refusal should be {refusal:?}", case.name),
    }
    sql.run("RESET search_path");
    // Those of one command come as the server drops them.
    let mut expected = if refusal.is_some() { Vec::new() } else { case.seen.to_vec() };
    let mut seen = seen(sql);
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected, "{mode:?}: {}", case.name);
    equal_lists(sql, case.name);
    sql.run(
        "SET session_replication_role = replica; DROP SCHEMA work CASCADE;
         DROP SCHEMA IF EXISTS work_2, work_3 CASCADE; DISCARD TEMP;
         SET work.once = ''; RESET session_replication_role",
    );
}

fn send(sql: &mut Sql, command: &str) -> Result<(), pgwake::Error> {
    let Some(prepared) = command.strip_prefix(PREPARED) else { return sql.try_run(command).map(drop) };
    sql.0.send_query_params(prepared.as_bytes(), &[], Format::Text)?;
    let mut outcome = Ok(());
    while let Some(result) = sql.0.result() {
        if result.status() == ResultStatus::Failed {
            outcome = Err(result.error());
        }
    }
    outcome
}
