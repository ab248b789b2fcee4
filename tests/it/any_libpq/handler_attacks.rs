//! What a hostile or unlucky user may do where handlers run before drops: nobody gains a right, nobody gets
//! around a handler, and no drop fails that no handler is registered for.

use crate::common::outbox::{database, role};
use crate::common::{Sql, say_loudly};

/// A database for each mode, with a handler for tables in the schema `guarded` that keeps what it was called
/// for. Anybody may make tables there.
fn guarded() -> Vec<(String, Sql)> {
    ["extension", "sql"].into_iter().filter_map(guarded_by).collect()
}

fn guarded_by(mode: &str) -> Option<(String, Sql)> {
    let (conninfo, mut sql) = database("");
    if mode == "sql" {
        sql.run("DROP EXTENSION IF EXISTS pgwake_ddl");
    }
    if sql.value("SELECT pgwake.mode()") != mode {
        say_loudly(&format!("SKIPPED: the mode {mode}: this server does not have the extension pgwake_ddl"));
        return None;
    }
    sql.run(
        "CREATE SCHEMA guarded; GRANT ALL ON SCHEMA guarded TO PUBLIC;
         CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC;
         CREATE TABLE app.seen (n int GENERATED ALWAYS AS IDENTITY, identity text, rights text);
         CREATE FUNCTION app.keep(target pgwake.ddl_target) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
           AS $$ BEGIN
             INSERT INTO app.seen (identity, rights) VALUES (target.identity, session_user);
           END $$",
    );
    sql.run("SELECT pgwake.before_drop('app.keep(pgwake.ddl_target)', schemas => '{guarded}')");
    Some((conninfo, sql))
}

/// What the handler was called for since the last time.
fn seen(sql: &mut Sql) -> String {
    sql.value(
        "WITH gone AS (DELETE FROM app.seen RETURNING n, identity)
         SELECT coalesce(string_agg(identity, ', ' ORDER BY n), '') FROM gone",
    )
}

/// The settings of a session that the installed SQL looks at.
fn settings() -> Vec<String> {
    let script = pgwake::install::install();
    let names = script.split('\'').filter(|word| {
        let is_name = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        word.strip_prefix("pgwake.").is_some_and(|name| !name.is_empty() && is_name(name))
    });
    let of_commands = ["command", "gone", "handled"].into_iter();
    let of_commands = of_commands.flat_map(|what| (0..3).map(move |level| format!("pgwake.{what}_{level}")));
    let names: std::collections::BTreeSet<_> = names.map(String::from).chain(of_commands).collect();
    names.into_iter().collect()
}

#[test]
fn no_setting_of_a_session_gets_around_a_handler() {
    for (conninfo, mut sql) in guarded() {
        let (_, mut mallory) = role(&conninfo, &mut sql, "mallory");
        let settings = settings();
        assert!(settings.contains(&"pgwake.following".to_string()), "{settings:?}");
        let mut faults = Vec::new();
        for setting in settings {
            for value in [
                "on",
                "off",
                "",
                "[]",
                "{}",
                "1",
                "0",
                "nonsense",
                "DROP TABLE guarded.t",
                "18446744073709551615",
            ] {
                mallory.run("RESET ALL");
                mallory.run("CREATE TABLE guarded.t (id int)");
                let dropped = format!("SET {setting} = '{value}'");
                // The server may not take it, or the drop may be refused: then nothing is lost.
                if mallory.try_run(&dropped).is_err() || mallory.try_run("DROP TABLE guarded.t").is_err() {
                    mallory.run("RESET ALL");
                    mallory.run("DROP TABLE guarded.t");
                    seen(&mut sql);
                } else if seen(&mut sql) != "guarded.t" {
                    faults.push(dropped);
                }
            }
        }
        assert!(faults.is_empty(), "these get around it: {faults:?}");
    }
}

/// Such as those by which it names functions in contexts, and compiles them: once in each session.
#[test]
fn no_setting_of_the_server_keeps_a_handler_from_running() {
    for (conninfo, mut sql) in guarded() {
        for setting in ["quote_all_identifiers=on", "plpgsql.extra_errors=all", "array_nulls=off"] {
            let mut session = Sql::connect(&format!("{conninfo} options='-c {setting}'"));
            session.run("SET statement_timeout = '20s'");
            session.run("CREATE TABLE guarded.t (id int)");
            session.run("DROP TABLE guarded.t");
            assert_eq!(seen(&mut sql).replace('"', ""), "guarded.t", "{setting}");
        }
    }
}

/// The trigger that has the search_path of who sends the command names each type whole.
#[test]
fn no_type_of_a_session_runs_a_function_as_somebody_else() {
    for (conninfo, mut sql) in guarded() {
        let (name, mut mallory) = role(&conninfo, &mut sql, "mallory");
        sql.run(
            "CREATE FUNCTION app.maintain() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
               SET search_path = pg_catalog, pg_temp AS $$ BEGIN
               CREATE TABLE app.made (); DROP TABLE app.made; END $$;
             CREATE TABLE app.evil (who text); GRANT INSERT ON app.evil TO PUBLIC",
        );
        for base in ["bool", "text", "int4", "jsonb", "oid"] {
            mallory.run(&format!(
                "CREATE FUNCTION {name}.evil(value pg_catalog.{base}) RETURNS pg_catalog.bool
                   LANGUAGE plpgsql AS $$ BEGIN
                     INSERT INTO app.evil VALUES (current_user); RETURN true; END $$;
                 CREATE DOMAIN {name}.{base} AS pg_catalog.{base} CHECK ({name}.evil(value))"
            ));
        }
        // Of a session of its own: types are looked up once in each.
        let mut session = Sql::connect(&conninfo.replace("user=postgres", &format!("user={name}")));
        session.run(&format!("SET search_path = {name}, pg_catalog"));
        session.run("CREATE TEMP TABLE x (); DROP TABLE x");
        session.run("SELECT app.maintain()");
        let evil = sql.value(&format!("SELECT count(*) FROM app.evil WHERE who <> '{name}'"));
        assert_eq!(evil, "0", "functions of a plain role have run as another");
    }
}

/// What runs in a rehearsal is told from what runs in functions that are called the same.
#[test]
fn no_function_of_a_session_gets_around_a_handler() {
    for (conninfo, mut sql) in guarded() {
        let (name, mut mallory) = role(&conninfo, &mut sql, "mallory");
        let ours = sql.value(
            "SELECT string_agg(format('%I(%s)', proname, (
               SELECT string_agg(format_type(t, NULL), ', ' ORDER BY n)
               FROM unnest(proargtypes) WITH ORDINALITY a (t, n))), '; ' ORDER BY proname)
             FROM pg_proc WHERE pronamespace = 'pgwake'::regnamespace AND prokind = 'f'
               AND prorettype <> 'event_trigger'::regtype",
        );
        let mut faults = Vec::new();
        for own in ours.split("; ") {
            mallory.run("CREATE TABLE guarded.t (id int)");
            mallory.run(&format!(
                "CREATE FUNCTION {name}.{own} RETURNS void LANGUAGE plpgsql AS $$ BEGIN
                   PERFORM set_config('pgwake.rehearsal', 'DROP TABLE guarded.other', true);
                   DROP TABLE guarded.t; END $$"
            ));
            let call = mallory.value(&format!(
                "SELECT format('SELECT {name}.%I(%s)', proname, array_to_string(array(
                   SELECT 'NULL::' || format_type(t, NULL) FROM unnest(proargtypes) t), ', '))
                 FROM pg_proc WHERE pronamespace = '{name}'::regnamespace"
            ));
            if mallory.try_run(&call).is_err() {
                mallory.run("DROP TABLE guarded.t");
                seen(&mut sql);
            } else if seen(&mut sql) != "guarded.t" {
                faults.push(own);
            }
            mallory.run(&format!("DROP FUNCTION {name}.{own}"));
        }
        assert!(faults.is_empty(), "functions called like these get around it: {faults:?}");
        for text in
            ["rehearse_drop(text,text) line ", "\nPL/pgSQL function pgwake.rehearse_drop(text,text) line 5"]
        {
            mallory.run("CREATE TABLE guarded.t (id int)");
            let drop = format!("DO $$ BEGIN EXECUTE 'DROP TABLE guarded.t /* {text} at EXECUTE\n*/'; END $$");
            let outcome = mallory.try_run(&drop);
            assert!(outcome.is_err() || seen(&mut sql) == "guarded.t", "{drop} gets around it");
            mallory.run("DROP TABLE IF EXISTS guarded.t");
            seen(&mut sql);
        }
    }
}

#[test]
fn a_handler_that_runs_as_a_plain_role_does_not_become_a_superuser_at_the_commit() {
    for (conninfo, mut sql) in guarded() {
        let (name, mut mallory) = role(&conninfo, &mut sql, "mallory");
        sql.run(&format!("GRANT USAGE ON SCHEMA pgwake TO {name}"));
        for statement in [
            format!("CREATE TABLE {name}.t (i int)"),
            format!(
                "CREATE FUNCTION {name}.at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               EXECUTE 'ALTER ROLE {name} SUPERUSER'; RETURN NULL; END $$"
            ),
            format!(
                "CREATE CONSTRAINT TRIGGER c AFTER INSERT ON {name}.t DEFERRABLE INITIALLY DEFERRED
               FOR EACH ROW EXECUTE FUNCTION {name}.at_commit()"
            ),
            format!(
                "CREATE FUNCTION {name}.handler(pgwake.ddl_target) RETURNS void SECURITY DEFINER
               LANGUAGE plpgsql AS $$ BEGIN INSERT INTO {name}.t VALUES (1); END $$"
            ),
        ] {
            mallory.run(&statement);
        }
        sql.run("CREATE TABLE guarded.t (id int)");
        // It is refused when it is registered, when it is to run, or at the commit.
        let _ = sql.try_run(&format!("SELECT pgwake.before_drop('{name}.handler(pgwake.ddl_target)')"));
        let _ = sql.try_run("DROP TABLE guarded.t");
        assert_eq!(sql.value(&format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{name}'")), "f");
    }
}

#[test]
fn what_goes_along_may_belong_to_others() {
    for (conninfo, mut sql) in guarded() {
        let (name, mut owner) = role(&conninfo, &mut sql, "owner");
        let (other, mut others) = role(&conninfo, &mut sql, "other");
        owner.run(&format!("GRANT ALL ON SCHEMA {name} TO {other}"));
        others.run(&format!("CREATE TABLE {name}.theirs (id int)"));
        others.run(&format!("CREATE VIEW {name}.their_view AS SELECT 1 AS one"));
        others.run(&format!("CREATE MATERIALIZED VIEW {name}.their_matview AS SELECT 1 AS one"));
        others.run(&format!("CREATE SEQUENCE {name}.their_sequence"));
        // Without the extension nobody locks for a handler what he may not lock himself.
        if sql.value("SELECT pgwake.mode()") == "extension" {
            sql.run("SELECT pgwake.before_drop('app.keep(pgwake.ddl_target)', types => '{table,view}')");
        }
        owner.run(&format!("DROP SCHEMA {name} CASCADE"));
        let told = seen(&mut sql);
        assert!(told.is_empty() || told.contains("theirs") && told.contains("their_view"), "{told}");
        // A table of somebody else loses a column, and stays.
        sql.run(&format!("CREATE SCHEMA {name} AUTHORIZATION {name}"));
        owner.run(&format!("CREATE TYPE {name}.kind AS ENUM ('a')"));
        owner.run(&format!("GRANT USAGE ON SCHEMA {name} TO PUBLIC"));
        others.run(&format!("CREATE TABLE {other}.t (id int, kind {name}.kind)"));
        owner.run(&format!("DROP TYPE {name}.kind CASCADE"));
    }
}

/// Names that look like something else to whoever takes texts apart.
#[test]
fn a_name_is_only_a_name() {
    for (conninfo, mut sql) in guarded() {
        sql.run("CREATE TABLE guarded.victim (id int)");
        let (_, mut mallory) = role(&conninfo, &mut sql, "mallory");
        // Functions by which people drop what they are told to.
        sql.run(
            "CREATE FUNCTION app.drop_one(name text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS
           $$ BEGIN EXECUTE format('DROP TABLE guarded.%I', name); END $$",
        );
        for name in [
            "x\"\nSQL statement \"DROP TABLE guarded.victim",
            "x\nSQL statement \"DROP TABLE guarded.victim\"\nPL/pgSQL function y",
            "; DROP TABLE guarded.victim",
            "/* victim",
            "-- victim",
            "it's",
            "$$",
            "a\\b",
            "E'\\''",
            "é ü",
            "%s %I",
        ] {
            let quoted = format!("guarded.\"{}\"", name.replace('"', "\"\""));
            for drop in [
                format!("DROP TABLE {quoted}"),
                format!("/* a comment; */ DROP -- another;\n TABLE {quoted};  "),
                format!("DO $drop$ BEGIN DROP TABLE {quoted}; END $drop$"),
                format!("SELECT app.drop_one('{}')", name.replace('\'', "''")),
            ] {
                sql.run(&format!("CREATE TABLE {quoted} (id int)"));
                let session = if drop.starts_with("SELECT") { &mut mallory } else { &mut sql };
                // Where it cannot be told what the text means, the command is refused.
                match session.try_run(&drop) {
                    Err(error) if error.message.contains("is not dropped, because") => {
                        sql.run(&format!("DROP TABLE {quoted}"));
                    }
                    outcome => assert!(outcome.is_ok(), "{drop}: {outcome:?}"),
                }
                let told = seen(&mut sql);
                assert_eq!(
                    sql.value("SELECT count(*) FROM pg_class WHERE relnamespace = 'guarded'::regnamespace"),
                    "1"
                );
                assert!(
                    !told.contains(", ") && !told.is_empty() && told != "guarded.victim",
                    "{drop}: {told:?}"
                );
            }
        }
    }
}

/// Whatever command takes tables along: what must be there first, and the command.
const TAKING_ALONG: [(&str, &str); 17] = [
    (
        "CREATE TABLE guarded.a (id int); CREATE TABLE guarded.b () INHERITS (guarded.a)",
        "DROP TABLE guarded.a CASCADE",
    ),
    (
        "CREATE TABLE guarded.a (id int); CREATE TABLE guarded.b (id int)",
        "DROP TABLE IF EXISTS guarded.b, guarded.a, nowhere",
    ),
    ("CREATE TYPE app.k AS (a int); CREATE TABLE guarded.a OF app.k", "DROP TYPE app.k CASCADE"),
    (
        "CREATE DOMAIN app.d AS int; CREATE TABLE guarded.a (d app.d) PARTITION BY LIST (d);
         CREATE TABLE guarded.b PARTITION OF guarded.a DEFAULT",
        "DROP DOMAIN app.d CASCADE",
    ),
    (
        "CREATE FUNCTION app.f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
         CREATE TABLE guarded.a (i int) PARTITION BY RANGE (app.f(i))",
        "DROP FUNCTION app.f CASCADE",
    ),
    (
        "CREATE FUNCTION app.f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
         CREATE TABLE guarded.a (i int) PARTITION BY RANGE (app.f(i))",
        "DROP ROUTINE app.f CASCADE",
    ),
    (
        "CREATE COLLATION app.c FROM \"C\";
         CREATE TABLE guarded.a (t text) PARTITION BY RANGE (t COLLATE app.c)",
        "DROP COLLATION app.c CASCADE",
    ),
    (
        "CREATE OPERATOR CLASS app.o FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =,
           OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 btint4cmp(int, int);
         CREATE TABLE guarded.a (i int) PARTITION BY RANGE (i app.o)",
        "DROP OPERATOR CLASS app.o USING btree CASCADE",
    ),
    (
        "CREATE OPERATOR CLASS app.o FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =,
           OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 btint4cmp(int, int);
         CREATE TABLE guarded.a (i int) PARTITION BY RANGE (i app.o)",
        "DROP OPERATOR FAMILY app.o USING btree CASCADE",
    ),
    (
        "CREATE ACCESS METHOD own TYPE TABLE HANDLER heap_tableam_handler;
         CREATE TABLE guarded.a (i int) USING own",
        "DROP ACCESS METHOD own CASCADE",
    ),
    (
        "CREATE LANGUAGE own HANDLER plpgsql_call_handler;
         CREATE FUNCTION app.f(i int) RETURNS int LANGUAGE own IMMUTABLE AS 'BEGIN RETURN i; END';
         CREATE TABLE guarded.a (i int) PARTITION BY RANGE (app.f(i))",
        "DROP LANGUAGE own CASCADE",
    ),
    (
        "CREATE TEXT SEARCH CONFIGURATION app.t (PARSER = default);
         CREATE TABLE guarded.a (t text) PARTITION BY RANGE (length(to_tsvector('app.t'::regconfig, t)))",
        "DROP TEXT SEARCH CONFIGURATION app.t CASCADE",
    ),
    (
        "CREATE SEQUENCE app.s;
         CREATE FUNCTION app.f(int, regclass) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
         CREATE TABLE guarded.a (i int) PARTITION BY RANGE (app.f(i, 'app.s'::regclass))",
        "DROP SEQUENCE app.s CASCADE",
    ),
    (
        "CREATE VIEW app.v AS SELECT 1;
         CREATE FUNCTION app.f(int, regclass) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
         CREATE TABLE guarded.a (i int) PARTITION BY RANGE (app.f(i, 'app.v'::regclass))",
        "DROP VIEW app.v CASCADE",
    ),
    (
        "CREATE SCHEMA gone; CREATE TABLE guarded.a (i int); ALTER TABLE guarded.a SET SCHEMA gone",
        "DROP SCHEMA gone CASCADE",
    ),
    (
        "CREATE TABLE guarded.a (i int) PARTITION BY LIST (i); CREATE TABLE guarded.b PARTITION OF guarded.a
           DEFAULT PARTITION BY LIST (i); CREATE TABLE guarded.c PARTITION OF guarded.b DEFAULT",
        "DROP TABLE guarded.a",
    ),
    (
        "CREATE TABLE guarded.a (i int); CREATE TEMP TABLE a (i int); SET search_path = guarded, public",
        "DROP TABLE a",
    ),
];

#[test]
fn whatever_command_takes_tables_along_their_handler_runs() {
    for (before, command) in TAKING_ALONG {
        for (_, mut sql) in guarded() {
            sql.run(
                "SELECT pgwake.before_drop('app.keep(pgwake.ddl_target)',
                   schemas => '{guarded,gone,pg_temp}')",
            );
            sql.run(
                "CREATE TABLE app.gone (identity text);
             CREATE FUNCTION app.note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO app.gone SELECT object_identity FROM pg_event_trigger_dropped_objects()
                 WHERE object_type = 'table'; END $$;
             CREATE EVENT TRIGGER zz ON sql_drop EXECUTE FUNCTION app.note()",
            );
            sql.run(before);
            sql.run("DELETE FROM app.gone");
            seen(&mut sql);
            sql.run(command);
            let sorted = |list: String| {
                let mut names: Vec<_> = list.split(", ").map(String::from).collect();
                names.sort();
                names
            };
            let gone = sorted(sql.value("SELECT string_agg(identity, ', ') FROM app.gone"));
            assert_eq!(sorted(seen(&mut sql)), gone, "{command}");
            assert_ne!(gone, [""], "{command}");
        }
    }
}

/// Commands that are not rehearsed, or cannot be, go on as if there were no handler.
#[test]
fn what_cannot_be_rehearsed_is_not_broken() {
    for (conninfo, mut sql) in guarded() {
        sql.run("SELECT pgwake.before_drop('app.keep(pgwake.ddl_target)', types => '{table,view}')");
        sql.run(
            "CREATE SUBSCRIPTION s CONNECTION 'host=/nonexistent' PUBLICATION p
           WITH (connect = false, slot_name = NONE)",
        );
        sql.run("DROP SUBSCRIPTION s");
        sql.run("CREATE TABLE guarded.t (id int PRIMARY KEY, v int)");
        sql.run("CREATE INDEX CONCURRENTLY i ON guarded.t (v)");
        sql.run("DROP INDEX CONCURRENTLY guarded.i");
        sql.run("CREATE TABLE guarded.p (id int) PARTITION BY LIST (id)");
        sql.run("CREATE TABLE guarded.c PARTITION OF guarded.p FOR VALUES IN (1)");
        sql.run("ALTER TABLE guarded.p DETACH PARTITION guarded.c CONCURRENTLY");
        let (nobody, _) = role(&conninfo, &mut sql, "nobody");
        sql.run(&format!("DROP OWNED BY {nobody}"));
        sql.run("CREATE MATERIALIZED VIEW guarded.m AS SELECT id FROM guarded.t");
        sql.run("CREATE UNIQUE INDEX ON guarded.m (id)");
        sql.run("REFRESH MATERIALIZED VIEW CONCURRENTLY guarded.m");
        sql.run("ALTER TABLE guarded.t ALTER v TYPE bigint, ALTER v SET DEFAULT 3");
        sql.run("CLUSTER guarded.t USING t_pkey");
        sql.run("VACUUM FULL guarded.t");
    }
}

#[test]
fn the_schema_can_be_taken_out_while_handlers_are_registered() {
    for (_, mut sql) in guarded() {
        sql.run("DROP FUNCTION app.keep");
        sql.run(&pgwake::install::uninstall());
        assert_eq!(sql.value("SELECT count(*) FROM pg_event_trigger"), "0");
    }
    for (_, mut sql) in guarded() {
        sql.run("DROP SCHEMA pgwake CASCADE");
        assert_eq!(sql.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'pgwake'"), "0");
        sql.run("DROP SCHEMA guarded CASCADE");
    }
}

/// What is not a function of one target is refused when it is registered, not in everybody's drops.
#[test]
fn what_cannot_be_called_is_refused_when_it_is_registered() {
    for (_, mut sql) in guarded() {
        sql.run("CREATE PROCEDURE app.procedure(pgwake.ddl_target) LANGUAGE plpgsql AS 'BEGIN END'");
        sql.run("CREATE FUNCTION app.number(int) RETURNS int LANGUAGE sql AS 'SELECT 1'");
        sql.run("CREATE FUNCTION app.two(pgwake.ddl_target, int) RETURNS int LANGUAGE sql AS 'SELECT 1'");
        for call in [
            "'app.procedure(pgwake.ddl_target)'",
            "'app.number(int)'",
            "'app.two(pgwake.ddl_target, int)'",
            "NULL",
            "'app.keep(pgwake.ddl_target)', types => '{tabel}'",
            "'app.keep(pgwake.ddl_target)', types => '{}'",
            "'app.keep(pgwake.ddl_target)', types => NULL",
        ] {
            assert!(sql.try_run(&format!("SELECT pgwake.before_drop({call})")).is_err(), "{call} was taken");
        }
    }
}

/// pg_upgrade refuses columns of these types (check_for_reg_data_type_usage, src/bin/pg_upgrade/version.c).
#[test]
fn a_database_with_handlers_can_be_upgraded() {
    for (_, mut sql) in guarded() {
        let columns = "SELECT coalesce(string_agg(format('%s.%s', attrelid::regclass, attname), ', '), '')
        FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE relkind IN ('r', 'm', 'i')
        AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
        AND NOT attisdropped AND atttypid = ANY ('{regcollation,regconfig,regdictionary,regnamespace,regoper,
          regoperator,regproc,regprocedure}'::regtype[])";
        assert_eq!(sql.value(columns), "");
    }
}
