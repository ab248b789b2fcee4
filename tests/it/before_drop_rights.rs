//! Whose rights a handler runs with, and that nobody gains any by one.

use crate::common::Sql;
use crate::common::drops::{Mode, in_each_mode, keep_what_is_seen, seen, until_waiting};

fn refusal(outcome: Result<Option<String>, pgwake::Error>) -> (String, String) {
    let error = outcome.unwrap_err();
    (error.sqlstate.unwrap().to_string(), error.message)
}

/// A role of its own, with a schema in which it may do all.
fn role(conninfo: &str, sql: &mut Sql) -> (String, Sql) {
    let name = sql.value("SELECT 'modest_' || current_database()");
    sql.run(&format!("CREATE ROLE {name} LOGIN; CREATE SCHEMA own AUTHORIZATION {name}"));
    let session = Sql::connect(&conninfo.replace("user=postgres", &format!("user={name}")));
    (name, session)
}

/// Writes down with whose rights it runs.
const WHO: &str = "CREATE TABLE public.who (name text); GRANT INSERT ON public.who TO PUBLIC";
fn handler(name: &str, security: &str) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION {name}(t pgwake.ddl_target) RETURNS void
           LANGUAGE plpgsql SECURITY {security} AS
           $$ BEGIN INSERT INTO public.who VALUES ('{name} ' || current_user); END $$"
    )
}
const NAMES: &str = "SELECT coalesce(string_agg(name, ', ' ORDER BY name), '') FROM public.who";

#[test]
fn a_handler_has_the_rights_of_who_drops_or_those_of_its_owner() {
    in_each_mode(|_, conninfo, sql| {
        let (name, mut modest) = role(conninfo, sql);
        sql.run(WHO);
        sql.run(&handler("public.as_dropper", "INVOKER"));
        sql.run(&handler("public.as_owner", "DEFINER"));
        sql.run(
            "REVOKE EXECUTE ON FUNCTION public.as_owner FROM PUBLIC; CREATE SCHEMA hidden;
            ALTER FUNCTION public.as_owner SET SCHEMA hidden",
        );
        for handler in ["public.as_dropper", "hidden.as_owner"] {
            sql.run(&format!("SELECT pgwake.before_drop('{handler}(pgwake.ddl_target)')"));
        }
        modest.run("CREATE TABLE own.a (); DROP TABLE own.a");
        assert_eq!(sql.value(NAMES), format!("public.as_dropper {name}, public.as_owner postgres"));
        sql.run("TRUNCATE who; CREATE TABLE a (); DROP TABLE a");
        assert_eq!(sql.value(NAMES), "public.as_dropper postgres, public.as_owner postgres");
        // Who may not call the one of the owner cannot make it believe anything.
        let call = "SELECT hidden.as_owner(NULL)";
        assert_eq!(refusal(modest.try_run(call)).0, "42501");
    });
}

#[test]
fn only_who_owns_the_schema_registers_and_only_what_gains_nothing() {
    in_each_mode(|_, conninfo, sql| {
        let (name, mut modest) = role(conninfo, sql);
        modest.run(&handler("own.grab", "INVOKER"));
        for attempt in [
            "SELECT pgwake.before_drop('own.grab(pgwake.ddl_target)')",
            "SELECT pgwake.remove_before_drop('own.grab(pgwake.ddl_target)')",
            "SELECT FROM pgwake.drop_handler",
            "INSERT INTO pgwake.drop_handler VALUES ('own.grab(pgwake.ddl_target)', '{table}')",
            "SELECT pgwake.seal('[]')",
        ] {
            assert_eq!(refusal(modest.try_run(attempt)).0, "42501", "{attempt}");
        }
        let (sqlstate, sentence) =
            refusal(sql.try_run("SELECT pgwake.before_drop('own.grab(pgwake.ddl_target)')"));
        assert!(sqlstate == "42501" && sentence.contains(&format!("belongs to {name}")), "{sentence}");
        let (sqlstate, sentence) = refusal(sql.try_run("SELECT pgwake.before_drop('pgwake.version()')"));
        assert!(sqlstate == "42P13" && sentence.contains("one pgwake.ddl_target"), "{sentence}");
        sql.run(&handler("public.fine", "DEFINER"));
        for bad in ["'{}'", "NULL", "'{table}', '{}'", "'{table,NULL}'"] {
            let attempt = format!("SELECT pgwake.before_drop('public.fine(pgwake.ddl_target)', {bad})");
            assert_eq!(refusal(sql.try_run(&attempt)).0, "22023", "{attempt}");
        }
    });
}

#[test]
fn a_handler_that_comes_to_belong_to_somebody_else_gains_nothing() {
    in_each_mode(|_, conninfo, sql| {
        let (name, mut modest) = role(conninfo, sql);
        sql.run(WHO);
        sql.run(&handler("own.tidy", "DEFINER"));
        sql.run("SELECT pgwake.before_drop('own.tidy(pgwake.ddl_target)'); CREATE TABLE a ()");
        for security in ["DEFINER", "INVOKER"] {
            sql.run(&format!(
                "ALTER FUNCTION own.tidy SECURITY {security}; ALTER FUNCTION own.tidy OWNER TO {name}"
            ));
            let (sqlstate, sentence) = refusal(sql.try_run("DROP TABLE a"));
            assert!(sqlstate == "42501" && sentence.contains("own.tidy"), "{sentence}");
        }
        modest.run("DROP FUNCTION own.tidy");
        let (sqlstate, sentence) = refusal(sql.try_run("DROP TABLE a"));
        assert!(sqlstate == "42883" && sentence.contains("pgwake.remove_before_drop("), "{sentence}");
        // Another function of the same name is trusted no more than the first.
        modest.run(&handler("own.tidy", "DEFINER"));
        assert_eq!(refusal(sql.try_run("DROP TABLE a")).0, "42501");
        sql.run("SELECT pgwake.remove_before_drop('own.tidy(pgwake.ddl_target)'); DROP TABLE a");
        assert_eq!(sql.value(NAMES), "");
    });
}

#[test]
fn a_list_that_somebody_forges_reaches_no_handler_with_the_rights_of_its_owner() {
    in_each_mode(|_, _, sql| {
        keep_what_is_seen(sql, "table");
        sql.run(
            "ALTER FUNCTION kept.handler SECURITY DEFINER; CREATE TABLE a (); CREATE TABLE b ();
             CREATE FUNCTION forge() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
               PERFORM set_config('pgwake.rehearsed', replace(current_setting('pgwake.rehearsed'),
                 'public.a', 'public.b'), true); END $$;
             CREATE EVENT TRIGGER pgwake_c ON ddl_command_start EXECUTE FUNCTION forge()",
        );
        let (sqlstate, sentence) = refusal(sql.try_run("DROP TABLE a"));
        assert!(sqlstate == "0A000" && sentence.contains("somebody has altered"), "{sentence}");
        sql.run("DROP TABLE b");
        assert_eq!(seen(sql), ["target table public.b"]);
    });
}

#[test]
fn a_trigger_of_somebody_else_rehearses_with_the_rights_of_who_drops_alone() {
    in_each_mode(|mode, conninfo, sql| {
        let (_, mut modest) = role(conninfo, sql);
        sql.run(
            "CREATE TABLE a (); CREATE TABLE listed (identity text); GRANT INSERT ON listed TO PUBLIC;
             CREATE FUNCTION list() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO public.listed SELECT identity FROM pgwake.ddl_targets()
                 WHERE object_type = 'table'; END $$;
             CREATE EVENT TRIGGER z_list ON ddl_command_start WHEN TAG IN ('DROP TABLE')
               EXECUTE FUNCTION list()",
        );
        modest.run("CREATE TABLE own.a (); DROP TABLE own.a");
        let (sqlstate, sentence) = refusal(modest.try_run("DROP TABLE a"));
        assert_eq!((sqlstate.as_str(), sentence.as_str()), ("42501", "must be owner of table a"));
        sql.run("ALTER FUNCTION list() SECURITY DEFINER SET search_path = pg_catalog");
        modest.run("CREATE TABLE own.a ()");
        let (sqlstate, sentence) = refusal(modest.try_run("DROP TABLE a"));
        assert_eq!(sqlstate, "42501", "{sentence}");
        let dropped = modest.try_run("DROP TABLE own.a");
        match mode {
            Mode::Extension => assert!(dropped.is_ok(), "{dropped:?}"),
            Mode::Sql => assert!(refusal(dropped).1.contains("SECURITY INVOKER"), "{sentence}"),
        }
        sql.run("DROP TABLE a");
        let names = "SELECT string_agg(DISTINCT identity, ',' ORDER BY identity) FROM listed";
        assert_eq!(sql.value(names), "own.a,public.a");
    });
}

/// Who owns a schema may drop what others have in it, and make something else of the same name.
#[test]
fn a_handler_does_not_become_another_function_while_it_runs() {
    in_each_mode(|_, conninfo, sql| {
        let (_, mut modest) = role(conninfo, sql);
        sql.run(WHO);
        sql.run(
            "CREATE TABLE a (); CREATE TABLE b (); CREATE TABLE held (id int); INSERT INTO held VALUES (1);
             CREATE FUNCTION own.tidy(t pgwake.ddl_target) RETURNS void LANGUAGE plpgsql AS
               $$ BEGIN UPDATE public.held SET id = 2; END $$;
             SELECT pgwake.before_drop('own.tidy(pgwake.ddl_target)')",
        );
        let mut holder = Sql::connect(conninfo);
        holder.run("BEGIN; UPDATE held SET id = 3");
        std::thread::scope(|scope| {
            let dropper = scope.spawn(|| sql.run("DROP TABLE a, b"));
            until_waiting(&mut holder, 1);
            modest.run("SET lock_timeout = '100ms'");
            let replace = format!("DROP FUNCTION own.tidy; {}", handler("own.tidy", "INVOKER"));
            let replaced = modest.try_run(&replace);
            holder.run("COMMIT");
            dropper.join().unwrap();
            assert_eq!(refusal(replaced).0, "55P03");
        });
        assert_eq!(sql.value(NAMES), "");
        // Afterwards it may, and that one is not trusted.
        modest.run(&format!("DROP FUNCTION own.tidy; {}", handler("own.tidy", "INVOKER")));
        sql.run("CREATE TABLE a ()");
        assert_eq!(refusal(sql.try_run("DROP TABLE a")).0, "42501");
    });
}
