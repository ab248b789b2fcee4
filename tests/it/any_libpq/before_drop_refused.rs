//! What cannot be rehearsed: a handler that is due cancels it, and nobody else is in its way.

use crate::common::drops::{Mode, in_each_mode, keep_what_is_seen, seen};
use crate::common::{Sql, say_loudly};

fn refusal(sql: &mut Sql, command: &str) -> String {
    let error = sql.try_run(command).expect_err(command);
    assert_eq!(error.sqlstate.map(|code| code.to_string()), Some("0A000".into()), "{error}");
    error.message
}

#[test]
fn what_is_not_rehearsed_passes_where_no_handler_is_due() {
    in_each_mode(|_, _, sql| {
        keep_what_is_seen(sql, "view");
        sql.run("SELECT pgwake.before_drop('kept.handler(pgwake.ddl_target)', '{table}', '{elsewhere}')");
        sql.run(
            "CREATE TABLE a (id int, b int); CREATE TABLE b (); CREATE TABLE c (); CREATE TABLE d ();
             CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'DROP TABLE public.b'",
        );
        sql.run("SELECT f()");
        sql.run("DROP TABLE c; COMMIT; DROP TABLE d");
        sql.run("ALTER TABLE a ADD c int DEFAULT (1), DROP COLUMN b");
        sql.run("CREATE INDEX i ON a (id)");
        sql.run("DROP INDEX CONCURRENTLY i");
        sql.run("DO $$ BEGIN EXECUTE 'DROP FUNCTION f; DROP TABLE a'; END $$");
        assert_eq!(
            sql.value("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"),
            "0"
        );
        assert!(seen(sql).is_empty());
    });
}

#[test]
fn an_index_that_is_dropped_concurrently_stays_valid_where_its_handler_cannot_run() {
    in_each_mode(|_, _, sql| {
        keep_what_is_seen(sql, "index");
        sql.run("CREATE TABLE a (id int); CREATE INDEX i ON a (id); CREATE INDEX j ON a (id)");
        for command in [
            "DROP /* now */ INDEX CONCURRENTLY IF EXISTS i",
            "DROP INDEX CONCURRENTLY\"i\"",
            "DROP INDEX /* /* */ */ CONCURRENTLY j",
        ] {
            let sentence = refusal(sql, command);
            assert!(sentence.contains("kept.handler(pgwake.ddl_target)"), "{sentence}");
        }
        assert_eq!(
            sql.value(
                "SELECT string_agg(indisvalid::text, ',') FROM pg_index WHERE indrelid =
            'a'::regclass"
            ),
            "true,true"
        );
        sql.run("DROP INDEX i, j");
        let mut seen = seen(sql);
        seen.sort();
        assert_eq!(seen, ["target index public.i", "target index public.j"]);
    });
}

#[test]
fn the_script_of_an_extension_is_rehearsed_by_the_extension_alone() {
    in_each_mode(|mode, _, sql| {
        let versions = "SELECT count(*) FROM pg_available_extension_versions
            WHERE name = 'pg_stat_statements' AND version IN ('1.7', '1.8')";
        if sql.value(versions) != "2" {
            return say_loudly("SKIPPED: the script of an extension: this server has none of contrib's");
        }
        keep_what_is_seen(sql, "view");
        sql.run("CREATE EXTENSION pg_stat_statements VERSION '1.7'");
        let update = "ALTER EXTENSION pg_stat_statements UPDATE TO '1.8'";
        if mode == Mode::Sql {
            let sentence = refusal(sql, update);
            assert!(sentence.contains("runs in the script of an extension"), "{sentence}");
            sql.run("SELECT pgwake.before_drop('kept.handler(pgwake.ddl_target)')");
        }
        sql.run(update);
        // What it drops by itself, as a member of nothing.
        sql.run("SELECT pgwake.before_drop('kept.handler(pgwake.ddl_target)', '{view}')");
        sql.run("DROP EXTENSION pg_stat_statements");
        let mut seen = seen(sql);
        seen.dedup();
        assert_eq!(seen.last().map(String::as_str), Some("cascade view public.pg_stat_statements"));
    });
}

#[test]
fn who_may_drop_a_table_but_not_lock_it_is_told_so() {
    in_each_mode(|mode, conninfo, sql| {
        keep_what_is_seen(sql, "table");
        let role = sql.value("SELECT 'owner_' || current_database()");
        sql.run(&format!(
            "CREATE ROLE {role} LOGIN; CREATE SCHEMA theirs AUTHORIZATION {role}; CREATE TABLE theirs.a ()"
        ));
        let mut owner = Sql::connect(&conninfo.replace("user=postgres", &format!("user={role}")));
        if mode == Mode::Sql {
            let sentence = refusal(&mut owner, "DROP TABLE theirs.a");
            assert!(sentence.contains("permission denied for table a"), "{sentence}");
            sql.run(&format!("GRANT TRUNCATE ON theirs.a TO {role}"));
        }
        owner.run("DROP TABLE theirs.a");
        assert_eq!(seen(sql), ["target table theirs.a"]);
    });
}

#[test]
fn other_event_triggers_that_write_or_raise_in_a_rehearsal_harm_nobody() {
    in_each_mode(|mode, _, sql| {
        keep_what_is_seen(sql, "table");
        sql.run(
            "CREATE TABLE a (); CREATE TABLE b (); CREATE TABLE log (tag text);
             CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS
               $$ BEGIN INSERT INTO public.log VALUES (tg_tag); END $$;
             CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
               IF to_regclass('public.a') IS NULL THEN RAISE 'not that one'; END IF; END $$;
             CREATE FUNCTION scratch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
               IF tg_tag = 'DROP TABLE' AND to_regclass('pg_temp.scratch') IS NULL THEN
                 CREATE TEMP TABLE scratch (); DROP TABLE pg_temp.scratch; END IF; END $$;
             CREATE EVENT TRIGGER a_note ON ddl_command_start WHEN TAG IN ('DROP TABLE')
               EXECUTE FUNCTION note();
             CREATE EVENT TRIGGER z_note ON sql_drop EXECUTE FUNCTION note();
             CREATE EVENT TRIGGER z_forbid ON sql_drop EXECUTE FUNCTION forbid();
             CREATE TABLE once ()",
        );
        let error = sql.try_run("DROP TABLE a").unwrap_err();
        assert!(error.message.contains("not that one"), "{error}");
        sql.run("DROP TABLE b");
        assert_eq!(sql.value("SELECT string_agg(tag, ',') FROM log"), "DROP TABLE,DROP TABLE");
        assert_eq!(seen(sql), ["target table public.b"]);
        // One that drops tables of its own for each drop, at any time.
        sql.run("CREATE EVENT TRIGGER b_scratch ON ddl_command_start EXECUTE FUNCTION scratch()");
        sql.run("DROP TABLE once");
        let mut seen = seen(sql);
        seen.retain(|line| !line.contains("scratch"));
        assert_eq!(seen, ["target table public.once"], "{mode:?}");
    });
}

#[test]
fn settings_of_ours_that_somebody_sets_do_not_keep_a_handler_from_running() {
    in_each_mode(|_, _, sql| {
        keep_what_is_seen(sql, "table");
        sql.run(
            "SET pgwake.following = on; SET pgwake.rehearsal = 'DROP TABLE a';
             SET pgwake.level = '1 nonsense'; SET pgwake.command_1 = 'nonsense';
             SET pgwake.handled_1 = '{}';
             CREATE TABLE a ()",
        );
        sql.run("DROP TABLE a");
        assert_eq!(seen(sql), ["target table public.a"]);
    });
}
