-- Positions of readers, and where from on a reader has to look.
--
-- A position is 'before;xids;ids|upto|last'. What is visible in the snapshot `before` has been read. When
-- `upto` is not empty, what is visible in it and not in `before` is being read, page by page in the order of
-- the ids, up to and including the change `last`. The number of a change is its outbox row's id * 4096 + its
-- place in it.
--
-- `xids` and `ids` are marks. A mark says that a transaction whose number is not below the xid has drawn no
-- id up to the id; for a writer has its number before it draws one. So what is unread of a transaction lies
-- beyond the last mark that is not above its number, and the index on `id` is the only one that the outbox
-- needs. The xid 0 says it of all that `before` does not show. A position without marks is as right, and
-- reading on from it takes longer.

-- The id up to which a position has read all that it will ever see, or all that it sees in `upto`.
CREATE OR REPLACE FUNCTION pgwake.floor_of("position" text, upto pg_snapshot DEFAULT NULL) RETURNS bigint
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  begun text := split_part("position", '|', 1);
  before pg_snapshot := split_part(begun, ';', 1);
  xids xid8[] := string_to_array(split_part(begun, ';', 2), ',');
  ids bigint[] := string_to_array(split_part(begun, ';', 3), ',');
  oldest xid8 := pg_snapshot_xmax(before);
BEGIN
  IF pg_snapshot_xmin(before) < oldest THEN
    oldest := coalesce((SELECT x FROM pg_snapshot_xip(before) x
      WHERE upto IS NULL OR pg_visible_in_snapshot(x, upto) ORDER BY x LIMIT 1), oldest);
  END IF;
  -- Somebody has set the sequence back: what was drawn is drawn again.
  IF ids[cardinality(ids)] > coalesce(pg_sequence_last_value('pgwake.outbox_id'::regclass), 0) THEN
    RETURN 0;
  END IF;
  FOR i IN REVERSE coalesce(cardinality(xids), 0) .. 1 LOOP
    IF xids[i] <= oldest THEN
      RETURN ids[i];
    END IF;
  END LOOP;
  RETURN 0;
END $pgwake$;

-- A mark for now, as 'xid;id', or none. The id is looked up first, and the server says itself that the number
-- is still to come: what it calls the next may be as old as the transaction, or its own.
CREATE OR REPLACE FUNCTION pgwake.mark_now() RETURNS text LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  id bigint := coalesce(pg_sequence_last_value('pgwake.outbox_id'::regclass), 0);
  xid xid8 := pg_snapshot_xmax(pg_current_snapshot());
BEGIN
  xid := (xid::text::bigint + age(xid::xid))::text;
  PERFORM pg_xact_status(xid);
  RETURN NULL;
EXCEPTION WHEN invalid_parameter_value THEN
  RETURN concat(xid, ';', id);
END $pgwake$;

-- Marks with one for now, as far as they are of use after a snapshot.
CREATE OR REPLACE FUNCTION pgwake.marks_after(marks text, upto pg_snapshot) RETURNS text LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  mark text := pgwake.mark_now();
  xids xid8[] := string_to_array(split_part(marks, ';', 1), ',');
  ids bigint[] := string_to_array(split_part(marks, ';', 2), ',');
  last int := coalesce(cardinality(xids), 0);
  many CONSTANT int := 8;
BEGIN
  IF mark IS NULL THEN
    RETURN marks;
  ELSIF xids[last] = split_part(mark, ';', 1)::xid8 THEN
    ids[last] := split_part(mark, ';', 2);
  ELSE
    xids[last + 1] := split_part(mark, ';', 1);
    ids[last + 1] := split_part(mark, ';', 2);
  END IF;
  -- For each transaction that is still to come there stays the one that counts.
  IF last >= many THEN
    SELECT array_agg(m.xid ORDER BY m.xid), array_agg(m.id ORDER BY m.xid) INTO xids, ids FROM (
      SELECT u.xid, u.id, lead(u.xid) OVER (ORDER BY u.xid) AS until FROM unnest(xids, ids) u (xid, id)) m
      WHERE m.until IS NULL OR m.until > pg_snapshot_xmax(upto)
        OR EXISTS (SELECT FROM pg_snapshot_xip(upto) x WHERE x >= m.xid AND x < m.until);
  END IF;
  RETURN concat(array_to_string(xids, ','), ';', array_to_string(ids, ','));
END $pgwake$;
