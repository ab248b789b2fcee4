-- What a command would drop, by every way that leads to a drop.
SET client_min_messages = warning;
\set SHOW_CONTEXT never
ALTER EVENT TRIGGER show DISABLE;
CREATE SCHEMA d;
SET search_path = d;
CREATE TABLE parent (id int UNIQUE, a int, b text DEFAULT 'b');
CREATE TABLE child (c int) INHERITS (parent);
CREATE TABLE keyed (r int REFERENCES parent (id));
CREATE VIEW seen AS SELECT a FROM parent;
CREATE VIEW seen_again AS SELECT a FROM seen;
CREATE MATERIALIZED VIEW kept AS SELECT a, b FROM parent;
CREATE TABLE parts (id int, a int) PARTITION BY LIST (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1) PARTITION BY LIST (a);
CREATE TABLE parts_1_1 PARTITION OF parts_1 FOR VALUES IN (1);
CREATE INDEX parts_a ON parts (a);
CREATE TYPE pair AS (x int, y int);
CREATE DOMAIN small AS int CONSTRAINT is_small CHECK (VALUE < 10);
CREATE TABLE pairs (id int, p pair, s small);
CREATE FUNCTION of_pair(pair) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE SEQUENCE numbers OWNED BY pairs.id;
CREATE TABLE counted (i int GENERATED ALWAYS AS IDENTITY, j int DEFAULT 1);
CREATE TABLE one (i int);
CREATE TABLE two (i int);
ALTER EVENT TRIGGER show ENABLE;

-- Each is undone, to be there for the next.
\set AUTOCOMMIT off
DROP TABLE one, two;
ROLLBACK;
DROP TABLE IF EXISTS one, nothing, nowhere.nothing;
ROLLBACK;
DROP TABLE IF EXISTS nothing;
ROLLBACK;
DROP TABLE parent;
ROLLBACK;
DROP TABLE parent CASCADE;
ROLLBACK;
DROP VIEW seen CASCADE;
ROLLBACK;
DROP MATERIALIZED VIEW kept;
ROLLBACK;
DROP TABLE parts;
ROLLBACK;
DROP TABLE parts_1;
ROLLBACK;
DROP INDEX parts_a;
ROLLBACK;
ALTER TABLE parts DETACH PARTITION parts_1;
ROLLBACK;
DROP TYPE pair CASCADE;
ROLLBACK;
DROP DOMAIN small CASCADE;
ROLLBACK;
DROP FUNCTION of_pair(pair);
ROLLBACK;
ALTER TABLE parent DROP COLUMN a;
ROLLBACK;
ALTER TABLE parent DROP COLUMN a CASCADE;
ROLLBACK;
ALTER TABLE parent DROP COLUMN b CASCADE, ADD COLUMN d int, DROP CONSTRAINT parent_id_key CASCADE;
ROLLBACK;
ALTER TABLE parent ALTER b DROP DEFAULT;
ROLLBACK;
-- The server does not report what it drops for purposes of its own, as the sequence here.
ALTER TABLE counted ALTER i DROP IDENTITY, ALTER j DROP DEFAULT;
ROLLBACK;
ALTER TABLE IF EXISTS nothing DROP COLUMN a;
ROLLBACK;
ALTER TABLE parent DROP COLUMN IF EXISTS z;
ROLLBACK;
ALTER DOMAIN small DROP CONSTRAINT is_small;
ROLLBACK;
ALTER TYPE pair DROP ATTRIBUTE y CASCADE;
ROLLBACK;
DROP TABLE pairs;
ROLLBACK;
DROP SCHEMA d CASCADE;
ROLLBACK;
-- What is created in the same transaction.
CREATE TABLE fresh (i int);
CREATE VIEW of_fresh AS SELECT * FROM fresh;
DROP TABLE fresh CASCADE;
ROLLBACK;
\set AUTOCOMMIT on

-- By owner, and of an extension.
ALTER EVENT TRIGGER show DISABLE;
CREATE SCHEMA owned AUTHORIZATION regress_pgwake_owner;
SET ROLE regress_pgwake_owner;
CREATE TABLE owned.t (i int);
CREATE FUNCTION owned.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
RESET ROLE;
CREATE VIEW owned.by_another AS SELECT * FROM owned.t;
CREATE TABLE owned.pairs (p d.pair);
ALTER EXTENSION pgwake_ddl ADD FUNCTION d.of_pair(d.pair);
ALTER EVENT TRIGGER show ENABLE;
DROP OWNED BY regress_pgwake_owner;
DROP OWNED BY regress_pgwake_owner CASCADE;
DROP FUNCTION d.of_pair(d.pair);
BEGIN;
DROP EXTENSION pgwake_ddl CASCADE;
ROLLBACK;
ALTER EXTENSION pgwake_ddl DROP FUNCTION d.of_pair(d.pair);

-- With several transactions of its own: not rehearsed, so what it names is all there is.
DROP INDEX CONCURRENTLY d.parent_a_idx;
CREATE INDEX CONCURRENTLY ON d.parent (a);
DROP INDEX CONCURRENTLY d.parent_a_idx;

-- With a slot on another server, which does not come back: named as well.
SET client_min_messages = error;
CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE);
DROP SUBSCRIPTION sub;
DROP SUBSCRIPTION IF EXISTS sub;
SET client_min_messages = warning;

-- Temporary tables hide others.
SET search_path = d;
CREATE TEMP TABLE one (hidden int DEFAULT 1);
DROP TABLE one;
DROP TABLE one;
CREATE TEMP TABLE two (i int);
DROP TABLE d.two, pg_temp.two;

DROP SCHEMA d CASCADE;
