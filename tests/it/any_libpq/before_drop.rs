//! Handlers that run before a drop: what they can do, and what becomes of it when something fails.

use crate::common::drops::{Mode, in_each_mode, keep_what_is_seen, seen, until_waiting};
use crate::common::{PATIENCE, Sql, listening};
use pgwake::{DdlPhase, Event};

fn code(outcome: Result<Option<String>, pgwake::Error>) -> (String, String) {
    let error = outcome.unwrap_err();
    (error.sqlstate.unwrap().to_string(), error.message)
}

/// The task that this is for: rows of a table name side tables, which are to go with it. Users write this.
const RASTERS: &str = "CREATE SCHEMA survey; CREATE SCHEMA tiles;
    CREATE TABLE tiles.alps (x int); CREATE TABLE tiles.dunes (x int); CREATE TABLE tiles.other (x int);
    CREATE TABLE survey.raster (name text, side regclass);
    INSERT INTO survey.raster VALUES ('Alps', 'tiles.alps'), ('Dunes', 'tiles.dunes');
    CREATE TABLE survey.later () INHERITS (survey.raster)";
const CLEAN_UP: &str = "CREATE FUNCTION tiles.clean_up(target pgwake.ddl_target) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
      side regclass;
    BEGIN
      FOR side IN EXECUTE format('SELECT side FROM ONLY %s JOIN pg_class c ON c.oid = side
          WHERE c.relnamespace = ''tiles''::regnamespace', target.identity) LOOP
        EXECUTE format('DROP TABLE %s', side);
      END LOOP;
    END $$";
const TILES: &str = "SELECT coalesce(string_agg(relname, ' ' ORDER BY 1), '') FROM pg_class
    WHERE relnamespace = 'tiles'::regnamespace AND relkind = 'r'";

#[test]
fn side_tables_go_with_the_table_whose_rows_name_them() {
    in_each_mode(|_, _, sql| {
        sql.run(RASTERS);
        sql.run(CLEAN_UP);
        sql.run("SELECT pgwake.before_drop('tiles.clean_up(pgwake.ddl_target)', schemas => '{survey}')");
        sql.run("BEGIN");
        sql.run("DROP SCHEMA survey CASCADE");
        assert_eq!(sql.value(TILES), "other");
        sql.run("ROLLBACK");
        assert_eq!(sql.value(TILES), "alps dunes other");
        sql.run("INSERT INTO survey.later VALUES ('Plains', 'tiles.other')");
        sql.run("DROP TABLE survey.raster CASCADE");
        assert_eq!(sql.value(TILES), "");
    });
}

#[test]
fn a_handler_that_fails_cancels_the_drop_and_the_session_goes_on() {
    in_each_mode(|_, _, sql| {
        keep_what_is_seen(sql, "table");
        sql.run(
            "CREATE TABLE a (); CREATE TABLE b ();
             CREATE FUNCTION refuse(target pgwake.ddl_target) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
               IF target.object_name = 'a' THEN
                 RAISE 'keep it' USING ERRCODE = 'QQ123', DETAIL = 'in detail', HINT = 'a hint'; END IF;
               RETURN 1; END $$;
             SELECT pgwake.before_drop('refuse(pgwake.ddl_target)')",
        );
        let (sqlstate, sentence) = code(sql.try_run("DROP TABLE b, a"));
        assert_eq!(sqlstate, "QQ123");
        let expected = "public.a is not dropped, because its handler public.refuse failed: keep it";
        assert!(sentence.contains(expected) && sentence.contains("a hint"), "{sentence}");
        // In a transaction, up to a savepoint.
        sql.run("BEGIN");
        sql.run("DROP TABLE b");
        sql.run("SAVEPOINT s");
        assert_eq!(code(sql.try_run("DROP TABLE a")).0, "QQ123");
        sql.run("ROLLBACK TO s; COMMIT");
        assert_eq!(seen(sql), ["target table public.b"]);
        assert_eq!(sql.value("SELECT count(*) FROM a"), "0");
        sql.run("SELECT pgwake.remove_before_drop('refuse(pgwake.ddl_target)')");
        sql.run("DROP TABLE a");
        assert_eq!(seen(sql), ["target table public.a"]);
    });
}

#[test]
fn the_server_s_own_refusals_come_first_and_in_its_own_words() {
    in_each_mode(|_, conninfo, sql| {
        keep_what_is_seen(sql, "table");
        let role = sql.value("SELECT 'stranger_' || current_database()");
        sql.run(&format!("CREATE ROLE {role} LOGIN; CREATE TABLE a (); CREATE VIEW v AS SELECT FROM a"));
        let mut stranger = Sql::connect(&conninfo.replace("user=postgres", &format!("user={role}")));
        assert_eq!(
            code(stranger.try_run("DROP TABLE a")),
            ("42501".into(), "must be owner of table a".into())
        );
        let (sqlstate, sentence) = code(sql.try_run("DROP TABLE a"));
        assert!(sqlstate == "2BP01" && sentence.starts_with("cannot drop table a because"), "{sentence}");
        assert_eq!(code(sql.try_run("DROP TABLE nowhere")).0, "42P01");
        assert_eq!(code(sql.try_run("BEGIN READ ONLY; DROP TABLE a")).0, "25006");
        sql.run("ROLLBACK");
        assert!(seen(sql).is_empty());
    });
}

#[test]
fn a_handler_may_run_ddl_but_not_drop_what_the_command_names() {
    in_each_mode(|_, _, sql| {
        keep_what_is_seen(sql, "table");
        sql.run(
            "CREATE TABLE a (); CREATE TABLE b (); CREATE TABLE self (); CREATE VIEW v AS SELECT FROM a;
             CREATE FUNCTION tidy(target pgwake.ddl_target) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
               CASE target.object_name WHEN 'a' THEN
                 CREATE TABLE public.made (); DROP VIEW public.v; DROP TABLE public.b;
                 ALTER TABLE public.made ADD x int;
               WHEN 'self' THEN DROP TABLE public.self;
               ELSE END CASE; END $$;
             SELECT pgwake.before_drop('tidy(pgwake.ddl_target)')",
        );
        sql.run("DROP TABLE a CASCADE");
        assert_eq!(seen(sql), ["target table public.a", "target table public.b"]);
        assert_eq!(sql.value("SELECT to_regclass('made')"), "made");
        let (sqlstate, sentence) = code(sql.try_run("DROP TABLE self"));
        assert!(
            sqlstate == "54001"
                && sentence.contains("public.self is not dropped, because its handler public.tidy"),
            "{sentence}"
        );
        sql.run("SELECT pgwake.remove_before_drop('tidy(pgwake.ddl_target)')");
        sql.run("DROP TABLE self, made");
        seen(sql);
        // Twenty that drop one another are no fault, nor is a text that looks like it.
        sql.run(
            "CREATE FUNCTION chain(target pgwake.ddl_target) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
               EXECUTE format('DROP TABLE IF EXISTS public.c%s', substr(target.object_name, 2)::int + 1);
             END $$;
             DO $$ BEGIN FOR i IN 1..20 LOOP EXECUTE format('CREATE TABLE c%s ()', i); END LOOP; END $$;
             SELECT pgwake.before_drop('chain(pgwake.ddl_target)')",
        );
        let look_alike = " pgwake.run_handlers(".repeat(40);
        sql.run(&format!("DO $$ BEGIN EXECUTE 'DROP TABLE c1 /*{look_alike}*/'; END $$"));
        assert_eq!(seen(sql).len(), 20);
        sql.run("SELECT pgwake.remove_before_drop('chain(pgwake.ddl_target)')");
    });
}

#[test]
fn what_is_cancelled_or_times_out_leaves_nothing_behind() {
    in_each_mode(|_, conninfo, sql| {
        keep_what_is_seen(sql, "table");
        sql.run(
            "CREATE TABLE a (); CREATE TABLE slow ();
             CREATE FUNCTION wait(target pgwake.ddl_target) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
               IF target.object_name = 'slow' THEN PERFORM pg_sleep(100); END IF; END $$;
             SELECT pgwake.before_drop('wait(pgwake.ddl_target)')",
        );
        // In a handler, in the rehearsal, which waits for a lock, and for a lock no longer than it may.
        sql.run("SET statement_timeout = '300ms'");
        assert_eq!(code(sql.try_run("DROP TABLE slow")).0, "57014");
        let mut holder = Sql::connect(conninfo);
        holder.run("BEGIN; LOCK TABLE a IN ACCESS SHARE MODE");
        assert_eq!(code(sql.try_run("DROP TABLE a")).0, "57014");
        sql.run("RESET statement_timeout; SET lock_timeout = '100ms'");
        assert_eq!(code(sql.try_run("DROP TABLE a")).0, "55P03");
        sql.run("RESET lock_timeout");
        let locks =
            "SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock'
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        assert_eq!((sql.value(locks), seen(sql)), ("0".into(), vec![]));
        holder.run("COMMIT");
        sql.run("DROP TABLE a");
        assert_eq!(seen(sql), ["target table public.a"]);
    });
}

#[test]
fn two_sessions_that_drop_the_same_table_have_one_handler_run() {
    in_each_mode(|_, conninfo, sql| {
        keep_what_is_seen(sql, "table");
        for drop in ["DROP TABLE a", "DROP TABLE IF EXISTS a"] {
            sql.run("CREATE TABLE a ()");
            sql.run("BEGIN; LOCK TABLE a IN ACCESS SHARE MODE");
            let outcomes = std::thread::scope(|scope| {
                let threads = [0, 1].map(|_| {
                    scope.spawn(|| Sql::connect(conninfo).try_run(drop).map_err(|error| error.sqlstate))
                });
                until_waiting(sql, 2);
                sql.run("COMMIT");
                threads.map(|thread| thread.join().unwrap())
            });
            let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
            assert_eq!(failed, if drop.contains("IF") { 0 } else { 1 }, "{outcomes:?}");
            assert_eq!(seen(sql), ["target table public.a"], "{drop}");
        }
    });
}

#[test]
fn rows_that_are_not_committed_yet_are_waited_for() {
    let rounds = std::env::var("PGWAKE_TEST_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    in_each_mode(|_, conninfo, sql| {
        sql.run(
            "CREATE TABLE side (id int);
             CREATE FUNCTION clean_up(target pgwake.ddl_target) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
               EXECUTE format('DELETE FROM public.side WHERE id IN (SELECT id FROM %s)', target.identity);
             END $$;
             SELECT pgwake.before_drop('clean_up(pgwake.ddl_target)')",
        );
        let mut writer = Sql::connect(conninfo);
        for round in 0..rounds {
            sql.run("CREATE TABLE a (id int)");
            writer.run(&format!("BEGIN; INSERT INTO side VALUES ({round}); INSERT INTO a VALUES ({round})"));
            std::thread::scope(|scope| {
                let dropper = scope.spawn(|| Sql::connect(conninfo).run("DROP TABLE a"));
                until_waiting(sql, 1);
                writer.run("COMMIT");
                dropper.join().unwrap();
            });
        }
        assert_eq!(sql.value("SELECT count(*) FROM side"), "0");
    });
}

#[test]
fn events_before_a_drop_have_what_will_go_and_those_after_it_what_has_gone() {
    in_each_mode(|_, conninfo, sql| {
        sql.run("CREATE TABLE a (id int PRIMARY KEY); CREATE VIEW v AS SELECT id FROM a");
        sql.run("SELECT pgwake.watch_ddl('ddl', phases => '{before}')");
        sql.run("SELECT pgwake.watch_ddl('ddl_too', phases => '{after}')");
        let (mut events, _session) = listening(conninfo, &["ddl", "ddl_too"]);
        for command in ["BEGIN", "DROP TABLE a CASCADE", "ROLLBACK"] {
            sql.run(command);
        }
        sql.run("DROP TABLE a CASCADE");
        let mut told = Vec::new();
        while told.len() < 2 {
            match events.next(Some(PATIENCE)).unwrap().expect("an event") {
                Event::Notification(n) => {
                    let event: serde_json::Value = serde_json::from_slice(&n.payload).unwrap();
                    let mut targets: Vec<String> = event["targets"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|t| format!("{} {} {}", t["role"], t["identity"], t["exists"]))
                        .collect();
                    targets.sort();
                    told.push((event["phase"].as_str().unwrap().to_string(), targets.join(", ")));
                }
                other => panic!("{other:?}"),
            }
        }
        let list = |exists: bool| {
            format!(
                "\"cascade\" \"\\\"_RETURN\\\" on public.v\" {exists}, \"cascade\" \"public.v\" {exists}, \
                 \"target\" \"public.a\" {exists}"
            )
        };
        let phases = [DdlPhase::Before, DdlPhase::After].map(|phase| phase.as_str().to_string());
        let [before, after] = phases;
        assert_eq!(told, [(before, list(true)), (after, list(false))]);
    });
}

#[test]
fn under_the_role_of_a_replica_no_handler_runs() {
    in_each_mode(|_, _, sql| {
        keep_what_is_seen(sql, "table");
        sql.run("CREATE TABLE a (); SET session_replication_role = replica; DROP TABLE a");
        sql.run("RESET session_replication_role");
        assert!(seen(sql).is_empty());
    });
}

#[test]
fn check_knows_what_keeps_a_handler_from_running() {
    in_each_mode(|mode, _, sql| {
        let role = sql.value("SELECT 'somebody_' || current_database()");
        keep_what_is_seen(sql, "table");
        let finds = |sql: &mut Sql, problem: &str| {
            let lines =
                "SELECT coalesce(string_agg(concat_ws('|', severity, object, problem, remedy), E'\\n'), '')
                FROM pgwake.check() WHERE object <> 'pgwake_ddl'";
            let lines = sql.value(lines);
            assert!(lines.contains(problem) && lines.lines().count() == 1, "{problem} is not: {lines:?}");
            lines.rsplit_once('|').unwrap().1.to_string()
        };
        let name = "kept.handler(pgwake.ddl_target)";
        sql.run("REVOKE EXECUTE ON FUNCTION kept.handler FROM PUBLIC");
        let remedy = finds(sql, &format!("warning|{name}|who may not call it cannot drop"));
        sql.run(&remedy);
        sql.run(&format!("CREATE ROLE {role}; ALTER FUNCTION kept.handler OWNER TO {role}"));
        let remedy =
            finds(sql, &format!("error|{name}|the function {name} belongs to {role}, so it does not run"));
        sql.run(&remedy);
        sql.run("ALTER EVENT TRIGGER \"!pgwake_ddl_command_start\" DISABLE");
        let remedy = finds(sql, "error|event trigger !pgwake_ddl_command_start|it does not fire");
        sql.run("CREATE TABLE a ()");
        let (_, sentence) = code(sql.try_run("DROP TABLE a"));
        assert!(sentence.contains("the command was not rehearsed"), "{sentence}");
        sql.run(&remedy);
        sql.run("DROP EVENT TRIGGER \"!pgwake_dropped\"");
        let remedy = finds(sql, "error|event trigger !pgwake_dropped|it is missing");
        sql.run(&remedy);
        if mode == Mode::Sql {
            sql.run(
                "CREATE FUNCTION early() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
                 CREATE EVENT TRIGGER \"!a\" ON sql_drop EXECUTE FUNCTION early()",
            );
            let remedy = finds(sql, "warning|event trigger !a|it sorts before ours");
            sql.run(&remedy);
        } else {
            sql.run("ALTER EVENT TRIGGER \"!pgwake_ddl\" DISABLE");
            let remedy = finds(sql, "error|event trigger !pgwake_ddl|it is disabled");
            sql.run(&remedy);
        }
        sql.run(&format!("SELECT pgwake.before_drop('{name}', schemas => '{{kept,nowhere,pg_temp}}')"));
        let remedy = finds(sql, &format!("warning|{name}|there is no schema nowhere"));
        sql.run(&remedy);
        assert_eq!(sql.value("SELECT schemas::text FROM pgwake.drop_handler"), "{kept,pg_temp}");
        let database = sql.value("SELECT quote_ident(current_database())");
        sql.run(&format!("ALTER DATABASE {database} SET session_replication_role = replica"));
        let remedy = finds(sql, "no handler runs before a drop");
        sql.run(&remedy);
        if sql.value("SELECT current_setting('event_triggers', true) IS NOT NULL") == "t" {
            sql.run("SET event_triggers = off");
            finds(sql, "error|event triggers|event_triggers is off");
            sql.run("RESET event_triggers");
        }
        sql.run("ALTER FUNCTION kept.handler RENAME TO other");
        let remedy = finds(sql, &format!("error|{name}|its function is gone, or was renamed"));
        sql.run(&remedy);
        assert_eq!(sql.value("SELECT count(*) FROM pgwake.check()"), "0");
    });
}
