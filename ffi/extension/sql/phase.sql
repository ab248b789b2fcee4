-- Where the targets can be asked for, whichever way the command came, and what is left after an error.
SET client_min_messages = warning;
\set SHOW_CONTEXT never
SELECT pgwake_ddl.on_ddl_start();
SELECT * FROM pgwake_ddl.targets();
CREATE EVENT TRIGGER wrong ON sql_drop EXECUTE FUNCTION pgwake_ddl.on_ddl_start();
CREATE TABLE public.t (i int);
DROP TABLE public.t;
DROP EVENT TRIGGER wrong;
DROP TABLE public.t;

-- In the other phases of the same command, and in a trigger that sorts before.
CREATE FUNCTION show.elsewhere() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pgwake_ddl.targets();
EXCEPTION WHEN event_trigger_protocol_violated THEN
  RAISE INFO '% of %: %', tg_event, tg_tag, sqlerrm;
END $$;
CREATE EVENT TRIGGER at_end ON ddl_command_end EXECUTE FUNCTION show.elsewhere();
CREATE EVENT TRIGGER at_drop ON sql_drop EXECUTE FUNCTION show.elsewhere();
CREATE EVENT TRIGGER at_rewrite ON table_rewrite EXECUTE FUNCTION show.elsewhere();
CREATE EVENT TRIGGER " first" ON ddl_command_start EXECUTE FUNCTION show.elsewhere();
CREATE TABLE public.t (i int);
ALTER TABLE public.t ALTER i TYPE numeric;
DROP TABLE public.t;
DROP EVENT TRIGGER " first";
DROP EVENT TRIGGER at_end;
DROP EVENT TRIGGER at_drop;
DROP EVENT TRIGGER at_rewrite;

-- As the first command of a session, which loads the library.
\c -
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE TABLE public.t (i int);
\c -
SET client_min_messages = warning;
\set SHOW_CONTEXT never
DROP TABLE public.t;

-- In blocks, functions, procedures that commit, and several statements at once.
DO $$ BEGIN CREATE TABLE t (i int); DROP TABLE t; END $$;
CREATE FUNCTION public.by_plpgsql() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  CREATE TABLE t (i int);
  EXECUTE 'DROP TABLE t';
END $$;
CREATE TABLE public.twice (i int);
CREATE FUNCTION public.by_sql() RETURNS void LANGUAGE sql AS
  'ALTER TABLE public.twice RENAME TO thrice; DROP TABLE public.thrice';
CREATE PROCEDURE public.committing() LANGUAGE plpgsql AS $$
BEGIN
  CREATE TABLE t (i int);
  COMMIT;
  DROP TABLE t;
  ROLLBACK;
  DROP TABLE t;
  COMMIT;
END $$;
SELECT public.by_plpgsql();
SELECT public.by_plpgsql();
SELECT public.by_sql();
CALL public.committing();
CREATE TABLE public.a (i int)\; CREATE TABLE public.b (i int)\; DROP TABLE public.a, public.b;

-- A handler that creates and drops, and so is asked for its own commands.
CREATE FUNCTION show.nested() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  IF tg_tag = 'DROP VIEW' THEN
    CREATE TABLE public.of_handler (i int);
    PERFORM FROM pgwake_ddl.targets() WHERE identity = 'public.v';
    RAISE INFO 'still before the view: %', FOUND;
    DROP TABLE public.of_handler;
  END IF;
END $$;
CREATE EVENT TRIGGER nested ON ddl_command_start EXECUTE FUNCTION show.nested();
CREATE VIEW public.v AS SELECT 1;
DROP VIEW public.v;
DROP EVENT TRIGGER nested;

-- A handler that reads what is about to go, and fails when it does not like it.
CREATE TABLE public.t (i int);
CREATE TABLE public.log (was int);
CREATE FUNCTION show.strict() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  IF tg_tag = 'DROP TABLE' THEN
    INSERT INTO public.log SELECT i FROM public.t;
    IF EXISTS (SELECT FROM public.t WHERE i = 0) THEN
      RAISE EXCEPTION 'not this one';
    END IF;
  END IF;
END $$;
CREATE EVENT TRIGGER strict ON ddl_command_start EXECUTE FUNCTION show.strict();
INSERT INTO public.t VALUES (0);
DROP TABLE public.t;
SELECT * FROM pgwake_ddl.targets();
SELECT * FROM public.log;
BEGIN;
SAVEPOINT a;
DROP TABLE public.t;
ROLLBACK TO a;
UPDATE public.t SET i = 1;
DROP TABLE public.t;
SELECT * FROM public.log;
ROLLBACK TO a;
SELECT * FROM public.log;
SELECT * FROM public.t;
DO $$
BEGIN
  DROP TABLE public.t;
EXCEPTION WHEN raise_exception THEN
  RAISE INFO 'caught: %', sqlerrm;
  PERFORM pgwake_ddl.targets();
END $$;
ROLLBACK;
UPDATE public.t SET i = 2;
DROP TABLE public.t;
SELECT * FROM public.log;
DROP EVENT TRIGGER strict;
DROP TABLE public.log;

-- Each command in a block of its own that fails.
CREATE TABLE public.t (i int);
CREATE VIEW public.v AS SELECT * FROM public.t;
DO $$
BEGIN
  FOR attempt IN 1 .. 3 LOOP
    BEGIN
      DROP TABLE public.t;
    EXCEPTION WHEN dependent_objects_still_exist THEN
      RAISE INFO '%', sqlerrm;
    END;
  END LOOP;
  DROP TABLE public.t CASCADE;
END $$;

-- A timeout in the middle.
CREATE FUNCTION show.slow() RETURNS event_trigger LANGUAGE plpgsql AS
  'BEGIN PERFORM pgwake_ddl.targets(), pg_sleep(600); END';
CREATE TABLE public.t (i int);
CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION show.slow();
SET statement_timeout = '50ms';
DROP TABLE public.t;
RESET statement_timeout;
DROP EVENT TRIGGER slow;
DROP TABLE public.t;

-- No lock is left, and no subtransaction.
SELECT mode, relation::regclass FROM pg_locks
WHERE pid = pg_backend_pid() AND locktype <> 'virtualxid' AND mode <> 'AccessShareLock';
DROP FUNCTION public.by_plpgsql(), public.by_sql();
DROP PROCEDURE public.committing();
