//! Whose rights a handler runs with, and that nobody gains any by one.

use crate::common::Sql;
use crate::common::drops::{Mode, in_each_mode};

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
fn a_handler_is_called_by_who_drops() {
    in_each_mode(|_, conninfo, sql| {
        let (name, mut modest) = role(conninfo, sql);
        sql.run(WHO);
        for (handler_name, security) in [("public.as_dropper", "INVOKER"), ("public.as_owner", "DEFINER")] {
            sql.run(&handler(handler_name, security));
            sql.run(&format!("SELECT pgwake.before_drop('{handler_name}(pgwake.ddl_target)')"));
        }
        modest.run("CREATE TABLE own.a ()");
        modest.run("DROP TABLE own.a");
        assert_eq!(sql.value(NAMES), format!("public.as_dropper {name}, public.as_owner postgres"));
        // Who may not call it does not drop.
        sql.run("REVOKE EXECUTE ON FUNCTION public.as_owner FROM PUBLIC");
        modest.run("CREATE TABLE own.a ()");
        let (sqlstate, sentence) = refusal(modest.try_run("DROP TABLE own.a"));
        assert!(sqlstate == "42501" && sentence.contains("own.a is not dropped"), "{sentence}");
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
            "SELECT pgwake.note_handled('DROP TABLE', NULL, NULL, NULL)",
        ] {
            assert_eq!(refusal(modest.try_run(attempt)).0, "42501", "{attempt}");
        }
        let (sqlstate, sentence) =
            refusal(sql.try_run("SELECT pgwake.before_drop('own.grab(pgwake.ddl_target)')"));
        assert!(sqlstate == "42501" && sentence.contains(&format!("belongs to {name}")), "{sentence}");
        let (sqlstate, sentence) = refusal(sql.try_run("SELECT pgwake.before_drop('pgwake.version()')"));
        assert!(sqlstate == "42P13" && sentence.contains("one pgwake.ddl_target"), "{sentence}");
        sql.run(&handler("public.fine", "DEFINER"));
        for bad in ["'{}'", "NULL", "'{table}', '{}'", "'{table,NULL}'", "'{table,rule}', '{public}'"] {
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
        sql.run(&handler("public.tidy", "DEFINER"));
        sql.run("SELECT pgwake.before_drop('public.tidy(pgwake.ddl_target)'); CREATE TABLE a ()");
        sql.run(&format!("GRANT CREATE ON SCHEMA public TO {name}"));
        for security in ["DEFINER", "INVOKER"] {
            sql.run(&format!(
                "ALTER FUNCTION public.tidy SECURITY {security}; ALTER FUNCTION public.tidy OWNER TO {name}"
            ));
            let (sqlstate, sentence) = refusal(sql.try_run("DROP TABLE a"));
            assert!(sqlstate == "42501" && sentence.contains("public.tidy"), "{sentence}");
        }
        modest.run("DROP FUNCTION public.tidy");
        let (sqlstate, sentence) = refusal(sql.try_run("DROP TABLE a"));
        assert!(sqlstate == "42883" && sentence.contains("pgwake.remove_before_drop("), "{sentence}");
        // Another function of the same name is trusted no more than the first.
        modest.run(&handler("public.tidy", "DEFINER"));
        assert_eq!(refusal(sql.try_run("DROP TABLE a")).0, "42501");
        sql.run("SELECT pgwake.remove_before_drop('public.tidy(pgwake.ddl_target)'); DROP TABLE a");
        assert_eq!(sql.value(NAMES), "");
        // However a session writes its name, it is one handler.
        sql.run(&handler("public.mine", "INVOKER"));
        for written in ["off", "on"] {
            sql.run(&format!("SET quote_all_identifiers = {written}"));
            sql.run("SELECT pgwake.before_drop('public.mine(pgwake.ddl_target)')");
        }
        assert_eq!(
            sql.value("SELECT string_agg(handler, ',') FROM pgwake.drop_handler"),
            "public.mine(pgwake.ddl_target)"
        );
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
        modest.run("CREATE TABLE own.a ()");
        modest.run("DROP TABLE own.a");
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
fn a_handler_in_the_schema_of_somebody_else_is_not_trusted() {
    in_each_mode(|_, conninfo, sql| {
        let (name, _) = role(conninfo, sql);
        sql.run(WHO);
        sql.run(&handler("own.tidy", "INVOKER"));
        let register = "SELECT pgwake.before_drop('own.tidy(pgwake.ddl_target)')";
        let (sqlstate, sentence) = refusal(sql.try_run(register));
        assert!(sqlstate == "42501" && sentence.contains(&format!("own belongs to {name}")), "{sentence}");
        sql.run("ALTER SCHEMA own OWNER TO postgres");
        sql.run(register);
        sql.run(&format!("CREATE TABLE a (); ALTER SCHEMA own OWNER TO {name}"));
        assert_eq!(refusal(sql.try_run("DROP TABLE a")), (sqlstate, sentence));
        assert_eq!(sql.value(NAMES), "");
        // The schema public belongs to who owns the database.
        let database = sql.value("SELECT current_database()");
        sql.run(&handler("public.tidy", "INVOKER"));
        sql.run(&format!(
            "SELECT pgwake.remove_before_drop('own.tidy'),
                pgwake.before_drop('public.tidy(pgwake.ddl_target)');
             ALTER SCHEMA public OWNER TO pg_database_owner; ALTER DATABASE {database} OWNER TO {name}"
        ));
        assert!(refusal(sql.try_run("DROP TABLE a")).1.contains(&format!("public belongs to {name}")));
        sql.run(&format!("ALTER DATABASE {database} OWNER TO postgres"));
        sql.run("DROP TABLE a");
        assert_eq!(sql.value(NAMES), "public.tidy postgres");
    });
}
