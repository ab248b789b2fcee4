-- Says what is wrong, or would go wrong, with what is watched here: `error` loses events or fails somebody,
-- `warning` will, `info` is good to know. A remedy is SQL to run wherever SQL can mend it. What concerns the
-- server and its log is in findings.sql of the command, which needs no schema.

-- The watches whose table is there.
CREATE OR REPLACE VIEW pgwake.live AS
  SELECT w AS entry, w.*, w.relid::pg_catalog.regclass::text AS name FROM pgwake.watched w
  WHERE NOT w.ended AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = w.relid);

-- Who may run it needs no rights on our tables. What it says about rights is about that role. To compile
-- these queries takes seconds, to run them milliseconds.
CREATE OR REPLACE FUNCTION pgwake.check() RETURNS TABLE (severity text, object text, problem text, remedy
    text) LANGUAGE plpgsql STABLE SECURITY DEFINER SET jit = off AS $pgwake$
#variable_conflict use_column
DECLARE
  role regrole := quote_ident(pgwake.caller())::regrole;
BEGIN
  -- A setting under which no trigger fires.
  RETURN QUERY SELECT 'warning', concat_ws(' in ', nullif(setrole, 0)::regrole, d.datname),
    'under session_replication_role = replica no trigger fires but those watched with always => true, and no '
      'handler runs before a drop',
    format('ALTER %s RESET session_replication_role', concat_ws(' IN DATABASE ',
      'ROLE ' || CASE setrole WHEN 0 THEN 'ALL' ELSE setrole::regrole::text END, quote_ident(d.datname)))
    FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase
    WHERE 'session_replication_role=replica' = ANY (setconfig)
      AND (s.setdatabase = 0 OR d.datname = current_database())
      AND (EXISTS (SELECT FROM pgwake.live w WHERE NOT w.always) OR EXISTS (SELECT FROM pgwake.drop_handler));
  -- A copy that no reader has opened yet; and what a dump without data has left.
  RETURN QUERY SELECT 'warning', current_database()::text,
    'it was restored or copied, or its server took over: each consumer will be delivered a gap',
    'SELECT pgwake.rebuild()'
    WHERE NOT pgwake.is_original()
  UNION ALL SELECT DISTINCT 'error', t.rel::regclass::text,
    format('its trigger %s belongs to no watch, so what it writes is read by nobody', t.name),
    'SELECT pgwake.rebuild(), then pgwake.watch_table for each table'
    FROM pgwake.own_trigger t WHERE t.parent = 0 AND t.watch NOT IN (SELECT id FROM pgwake.watched);
  -- Missing, silent, altered and forgotten triggers.
  RETURN QUERY WITH wanted AS MATERIALIZED (
    SELECT w.id, x.* FROM pgwake.live w, pgwake.wanted_triggers(w.entry) x
  ), present AS MATERIALIZED (
    SELECT w.always, w.mode, w.relid, o.*, o.rel::regclass::text AS table_name
    FROM pgwake.live w JOIN pgwake.own_trigger o ON o.watch = w.id
  )
  SELECT 'error', x.rel::regclass::text, format('its trigger for %s is missing', x.op),
    'SELECT pgwake.rebuild()' FROM wanted x
    WHERE NOT EXISTS (SELECT FROM present o WHERE o.watch = x.id AND o.rel = x.rel AND o.op = x.op)
  UNION ALL SELECT 'error', table_name, format('its trigger %s does not fire: it is disabled', name),
    format('ALTER TABLE %s ENABLE %s TRIGGER %I', table_name, CASE WHEN always THEN 'ALWAYS' END, name)
    FROM present WHERE enabled IN ('D', 'R')
  UNION ALL SELECT 'error', table_name, format('its trigger %s does not fire for replicated changes', name),
    format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', table_name, name)
    FROM present WHERE always AND enabled = 'O'
  UNION ALL SELECT 'error', o.table_name, format('its trigger %s was altered', o.name),
    'SELECT pgwake.rebuild()' FROM present o JOIN wanted x ON o.watch = x.id AND o.rel = x.rel AND o.op = x.op
    WHERE NOT o.is_plain OR o.bits <> x.bits OR o.parent = 0 AND o.name <> x.name
  UNION ALL SELECT 'warning', o.table_name, format('its trigger %s was left behind', o.name),
    'SELECT pgwake.rebuild()' FROM present o WHERE o.parent = 0 AND o.mode <> 'instead'
      AND NOT EXISTS (SELECT FROM wanted x WHERE o.watch = x.id AND o.rel = x.rel AND o.op = x.op)
  UNION ALL SELECT DISTINCT 'error', w.name,
    'its columns, or the functions of its triggers, are not those that they were made for',
    'SELECT pgwake.rebuild()' FROM pgwake.live w JOIN (SELECT DISTINCT id, op FROM wanted) x ON x.id = w.id
    WHERE NOT pgwake.is_function(pgwake.function_name(w.entry, x.op), pgwake.trigger_body(w.entry, x.op),
      pgwake.trigger_settings(w.entry, x.op))
  UNION ALL SELECT DISTINCT 'error', c.oid::regclass::text,
    format('it belongs to %s, who cannot make its next partition', c.relowner::regrole),
    'SELECT pgwake.rebuild()'
    FROM present o JOIN pg_class c ON c.oid = o.rel AND c.relkind = 'p'
    WHERE NOT has_function_privilege(c.relowner, o.function, 'EXECUTE')
  UNION ALL SELECT 'error', table_name,
    format('without another INSTEAD OF trigger, %s is refused', upper(op)),
    format('SELECT pgwake.unwatch_table(%L)', table_name) FROM present o
    WHERE mode = 'instead' AND NOT EXISTS (SELECT FROM pg_trigger i WHERE i.tgrelid = o.rel
      AND i.tgenabled <> 'D' AND pgwake.is_instead_of(i.tgname, i.tgtype, o.op))
  UNION ALL SELECT 'info', t.tgrelid::regclass::text, format('if its trigger %s writes to the row that was '
      'changed, that change is delivered before the first one', t.tgname),
    'see Limits in the documentation; the log has them in their order'
    FROM pgwake.live w JOIN pg_trigger t ON t.tgrelid = w.relid AND NOT t.tgisinternal AND t.tgtype & 67 = 1
    WHERE w.mode = 'statement' AND t.tgname NOT LIKE 'pgwake%';
  -- Tables that changed, or have no key.
  RETURN QUERY SELECT 'error', name,
    'it became a partition, a parent or a child, and its triggers miss changes',
    'SELECT pgwake.rebuild()' FROM pgwake.live
    WHERE mode = 'statement' AND pgwake.mode_for(relid, always, timing) <> 'statement'
  UNION ALL SELECT 'info', name,
    'its key is deferrable: of two rows that have it one after the other, the changes may change places',
    format('ALTER TABLE %s with a key that is not deferrable', name)
    FROM pgwake.live w JOIN pg_index i ON i.indexrelid = w.key_index WHERE NOT i.indimmediate
  UNION ALL SELECT 'warning', format('%I.%I', schema_name, table_name), 'it was dropped while watched',
    'SELECT pgwake.rebuild()' FROM pgwake.watched w
    WHERE NOT ended AND NOT EXISTS (SELECT FROM pg_class WHERE oid = w.relid)
  UNION ALL SELECT 'info', name, CASE WHEN EXISTS (SELECT FROM pgwake.columns_of(relid, 'r') c WHERE c.in_key)
      THEN 'its key is computed after BEFORE triggers, so each change carries the whole row'
      ELSE 'it has no primary key, so each change carries the whole row' END,
    CASE WHEN EXISTS (SELECT FROM pgwake.columns_of(relid, 'r') c WHERE c.in_key)
      THEN format('SELECT pgwake.watch_table(%L, timing => ''after'')', name)
      ELSE format('ALTER TABLE %s ADD PRIMARY KEY (...), or REPLICA IDENTITY USING INDEX ...', name) END
    FROM pgwake.live WHERE payload = 'key' AND mode <> 'instead' AND pgwake.key_columns(relid, mode) = '{}';
  -- Without them there are no events of DDL, and altered tables are not followed.
  RETURN QUERY SELECT 'warning', 'event triggers',
    'there are none: there are no events of DDL, and altered tables need pgwake.rebuild()',
    'let a superuser run pgwake install'
    WHERE pgwake.mode() = 'sql, no event triggers' AND EXISTS (SELECT FROM pgwake.live)
  UNION ALL SELECT 'error', format('event trigger %s', k.name), 'it is missing', k.remedy
    FROM (SELECT name, 'SELECT pgwake.make_event_triggers()' FROM pgwake.event_triggers()
      UNION SELECT 'pgwake_login', 'SELECT pgwake.follow_login()' FROM pgwake.ddl_watch
        WHERE tags @> '{login}')
      AS k (name, remedy)
    WHERE pgwake.mode() <> 'sql, no event triggers'
      AND NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = k.name)
  UNION ALL SELECT 'error', format('event trigger %s', evtname), 'it does not fire: it is disabled',
    format('ALTER EVENT TRIGGER %I ENABLE', evtname)
    FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid
    WHERE p.pronamespace = 'pgwake'::regnamespace AND e.evtenabled IN ('D', 'R')
  UNION ALL SELECT 'error', 'event triggers', 'event_triggers is off: none fires, so no handler runs before '
      'a drop, there are no events of DDL, and altered tables are not followed',
    'set it on again where it was set off: SELECT source, sourcefile FROM pg_settings '
      'WHERE name = ''event_triggers'''
    WHERE current_setting('event_triggers', true) = 'off' AND pgwake.mode() <> 'sql, no event triggers'
  UNION ALL SELECT 'error', 'schema pgwake', 'its rights were taken from PUBLIC: DROP and ALTER of other '
      'roles fail, for there may be a handler, and events before their other commands are lost',
    'pgwake install'
    WHERE pgwake.mode() <> 'sql, no event triggers' AND NOT (has_schema_privilege('public', 'pgwake', 'USAGE')
      AND has_function_privilege('public', 'pgwake.asked(text)', 'EXECUTE'))
  UNION ALL SELECT 'info', 'event triggers', format('they run functions of %s in the DDL of superusers, too: '
      'trust that role, or own the schema yourself', p.proowner::regrole),
    'pgwake uninstall, then install as a superuser'
    FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid JOIN pg_roles r ON r.oid = p.proowner
    WHERE e.evtname = 'pgwake_ddl_command_end' AND p.pronamespace = 'pgwake'::regnamespace AND NOT r.rolsuper;
  -- What runs before a drop. Of RDS its user guide says so ("Event triggers for RDS for PostgreSQL").
  RETURN QUERY WITH registered AS (
    SELECT h.handler AS name, h.types, h.schemas, p.oid, p.pronamespace
    FROM pgwake.drop_handler h LEFT JOIN pg_proc p ON p.oid = to_regprocedure(h.handler)
  )
  SELECT 'error', name, 'its function is gone, or was renamed, and what it is for cannot be dropped',
    format('SELECT pgwake.remove_before_drop(%L)', name) FROM registered WHERE oid IS NULL
  UNION ALL SELECT 'error', name, format('the %s belongs to %s, so it does not run, and what it is for '
      'cannot be dropped', u.object, u.owner), format('ALTER %s OWNER TO %s', u.object,
      (SELECT evtowner::regrole FROM pg_event_trigger WHERE evtname = '!pgwake_ddl_command_start'))
    FROM registered r, pgwake.untrusted(r.oid) u
  UNION ALL SELECT 'error', name, 'there are no event triggers, so it does not run',
    'let a superuser run pgwake install' FROM registered WHERE pgwake.mode() = 'sql, no event triggers'
  UNION ALL SELECT 'warning', name, format('there is no schema %s, so it runs for nothing in it', s),
    CASE WHEN schemas <@ ARRAY[s] THEN format('SELECT pgwake.remove_before_drop(%L)', name)
      ELSE format('SELECT pgwake.before_drop(%L, %L, %L)', name, types, array_remove(schemas, s)) END
    FROM registered r, unnest(r.schemas) s WHERE s <> 'pg_temp' AND NOT EXISTS (SELECT FROM pg_namespace
      WHERE nspname = s)
  UNION ALL SELECT 'warning', name, 'who may not call it cannot drop what it is for',
    format('GRANT USAGE ON SCHEMA %s TO PUBLIC; GRANT EXECUTE ON FUNCTION %s TO PUBLIC',
      pronamespace::regnamespace, name) FROM registered WHERE oid IS NOT NULL
      AND NOT (has_function_privilege('public', oid, 'EXECUTE')
        AND has_schema_privilege('public', pronamespace, 'USAGE'))
  UNION ALL SELECT 'warning', format('event trigger %s', e.evtname),
    'it sorts before ours, so it runs, too, for drops that are only rehearsed',
    format('ALTER EVENT TRIGGER %I RENAME TO %I', e.evtname, 'z' || e.evtname) FROM pg_event_trigger e
    WHERE e.evtevent = 'sql_drop' AND e.evtenabled <> 'D' AND e.evtname < '!pgwake_dropped'
      AND pgwake.mode() = 'sql' AND EXISTS (SELECT FROM registered)
  UNION ALL SELECT 'error', 'event trigger !pgwake_ddl', 'it is disabled, and what it is for is not known',
    'ALTER EVENT TRIGGER "!pgwake_ddl" ENABLE ALWAYS'
    FROM pg_event_trigger WHERE evtname = '!pgwake_ddl' AND evtenabled IN ('D', 'R')
  UNION ALL SELECT 'info', 'pgwake_ddl', 'the extension is on this server, and not in this database: it '
      'rehearses what functions in SQL and scripts of extensions drop, too',
    'let a superuser run pgwake install'
    FROM pg_available_extensions WHERE name = 'pgwake_ddl' AND installed_version IS NULL
      AND EXISTS (SELECT FROM registered)
  UNION ALL SELECT 'info', 'event triggers',
    'Amazon RDS wants them dropped before an upgrade to another major version',
    format('before it, %s; after it, SELECT pgwake.make_event_triggers()',
      (SELECT string_agg(format('DROP EVENT TRIGGER %I', evtname), '; ' ORDER BY evtname)
        FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid
        WHERE p.pronamespace = 'pgwake'::regnamespace))
    FROM pg_roles WHERE rolname = 'rds_superuser' AND pgwake.mode() <> 'sql, no event triggers';
  -- Rights: of the role that asks, and of the one that owns what runs in other people's transactions.
  RETURN QUERY WITH our AS (SELECT nspowner AS owner FROM pg_namespace WHERE nspname = 'pgwake'),
  reader AS (SELECT oid FROM pg_proc WHERE pronamespace = 'pgwake'::regnamespace
    AND proname = ANY ('{ensure_watched,watch_of,open_consumer,read,fetch,acknowledge,rotate,
      drop_consumer}'))
  SELECT 'info', role::text, 'it may not read the outbox', format(
      'GRANT USAGE ON SCHEMA pgwake TO %s; GRANT EXECUTE ON FUNCTION %s TO %s', role,
      (SELECT string_agg(oid::regprocedure::text, ', ' ORDER BY oid) FROM reader), role)
    WHERE NOT has_schema_privilege(role, 'pgwake', 'USAGE')
      OR EXISTS (SELECT FROM reader r WHERE NOT has_function_privilege(role, r.oid, 'EXECUTE'))
  UNION ALL SELECT 'info', role::text, format('it may not watch tables: that is for %s', owner::regrole),
    format('GRANT %s TO %s', owner::regrole, role) FROM our WHERE NOT pg_has_role(role, owner, 'USAGE')
  UNION ALL SELECT 'error', owner::regrole::text, 'it owns the schema pgwake and may create nothing in it',
    format('GRANT CREATE, USAGE ON SCHEMA pgwake TO %s', owner::regrole) FROM our
    WHERE NOT has_schema_privilege(owner, 'pgwake', 'CREATE')
  UNION ALL SELECT 'warning', c.oid::regclass::text, format(
      'it belongs to %s, and %s, who owns pgwake, may not renew its triggers', c.relowner::regrole,
      owner::regrole),
    format('GRANT %s TO %s', c.relowner::regrole, owner::regrole)
    FROM our, pgwake.live w, pgwake.family(w.relid) f JOIN pg_class c ON c.oid = f
    WHERE NOT pg_has_role(owner, c.relowner, 'USAGE')
  UNION ALL SELECT 'error', p.oid::regprocedure::text, format(
      'it runs as %s, who may not write to the outbox: writers of watched tables fail', p.proowner::regrole),
    format('ALTER FUNCTION %s OWNER TO %s', p.oid::regprocedure, owner::regrole)
    FROM our, pg_proc p WHERE p.pronamespace = 'pgwake'::regnamespace AND p.prosecdef
      AND NOT (has_schema_privilege(p.proowner, 'pgwake', 'USAGE')
        AND has_table_privilege(p.proowner, 'pgwake.outbox_0', 'INSERT')
        AND has_table_privilege(p.proowner, 'pgwake.outbox_1', 'INSERT')
        AND has_table_privilege(p.proowner, 'pgwake.outbox_2', 'INSERT'));
  -- What a transport needs or costs.
  RETURN QUERY SELECT 'warning', name,
    'each change is notified, which makes PREPARE TRANSACTION fail for its writers',
    format('SELECT pgwake.watch_table(%L), without a channel; or max_prepared_transactions = 0', name)
    FROM pgwake.live WHERE (transport = 'notify' OR transport = 'outbox' AND channel IS NOT NULL)
      AND pgwake.may_be_prepared()
  UNION ALL SELECT 'warning', 'DDL', 'it is notified, which makes PREPARE TRANSACTION fail after it',
    format('SELECT pgwake.unwatch_ddl(%L); or max_prepared_transactions = 0', min(channel))
    FROM pgwake.ddl_watch WHERE pgwake.may_be_prepared() HAVING count(*) > 0
  UNION ALL SELECT 'warning', name, 'transport notify slows down every writer of the cluster',
    format('SELECT pgwake.watch_table(%L, transport => ''outbox'')', name) FROM pgwake.live
    WHERE transport = 'notify' AND payload <> 'wake'
  UNION ALL SELECT 'info', 'two-phase commit',
    'transactions may be prepared here, and such a one must not notify: '
      'so nobody wakes readers, which look every 100 ms', 'max_prepared_transactions = 0, if nobody uses it'
    WHERE pgwake.may_be_prepared() AND EXISTS (SELECT FROM pgwake.live)
  UNION ALL SELECT 'info', 'unconvertible', format('%s statements were delivered without their values', n),
    'look into the server''s log and the tables'' types; SELECT setval(''pgwake.unconvertible'', 1, false)'
    FROM (SELECT pg_sequence_last_value('pgwake.unconvertible') AS n) s WHERE n > 0
  UNION ALL SELECT 'info', 'spilled', format('%s notifications were too large: they went by the outbox', n),
    'payload => ''key'', or transport => ''outbox''; SELECT setval(''pgwake.spilled'', 1, false)'
    FROM (SELECT pg_sequence_last_value('pgwake.spilled') AS n) s WHERE n > 0;
  -- Publications and subscriptions.
  RETURN QUERY SELECT DISTINCT 'warning', format('publication %s', t.pubname),
    'it publishes the outbox: a subscriber without the schema pgwake stops',
    'install pgwake at the subscriber, or let the publication name its tables' FROM pg_publication_tables t
    WHERE t.schemaname = 'pgwake' AND t.tablename LIKE 'outbox%'
  UNION ALL SELECT DISTINCT 'warning', w.name,
    'logical replication writes to it, and its triggers do not fire then',
    format('SELECT pgwake.watch_table(%L, always => true)', w.name)
    FROM pgwake.live w, pgwake.family(w.relid) f JOIN pg_subscription_rel s ON s.srrelid = f
    WHERE NOT w.always;
  -- Consumers that lag, or whose position means nothing here, and what keeps the outbox from being emptied.
  RETURN QUERY WITH late AS (
    SELECT clock_timestamp() - make_interval(secs => pgwake.setting_of('late_seconds')) AS since)
  SELECT 'warning', c.name, format('it has not acknowledged since %s, and %s rows wait for it',
      date_trunc('second', c.acknowledged_at), n.unread),
    format('run it, or SELECT pgwake.drop_consumer(%L)', c.name)
    FROM late, pgwake.consumer c CROSS JOIN LATERAL (
      SELECT pgwake.unread(c, 0) + pgwake.unread(c, 1) + pgwake.unread(c, 2) AS unread) n
    WHERE n.unread > 0 AND c.acknowledged_at < late.since
      AND (c.is_named OR pgwake.backend_of(c.id) IS NOT NULL)
  UNION ALL SELECT 'error', 'pgwake.outbox_id', 'it was altered, and changes come out of their order',
    'SET lock_timeout = ''1s''; ALTER SEQUENCE pgwake.outbox_id INCREMENT 256 NO CYCLE CACHE 1'
    FROM pg_sequence WHERE seqrelid = 'pgwake.outbox_id'::regclass
      AND (seqcache, seqincrement, seqcycle) <> (1, 256, false)
  UNION ALL SELECT 'warning', 'outbox', format('it takes %s of %s, beyond which its oldest rows are dropped',
      pg_size_pretty(size), pg_size_pretty(pgwake.setting_of('cap_bytes'))),
    format('run its consumers, or UPDATE pgwake.setting SET value = %s WHERE name = ''cap_bytes''',
      2 * pgwake.setting_of('cap_bytes'))
    FROM pgwake.outbox_bytes() AS size
    WHERE size > pgwake.setting_of('cap_bytes') * 0.8
  UNION ALL SELECT 'warning', format('prepared transaction %s', x.gid),
    format('it has been open since %s, and the outbox cannot be emptied', date_trunc('second', x.prepared)),
    format('COMMIT PREPARED %1$L, or ROLLBACK PREPARED %1$L', x.gid)
    FROM late, pg_prepared_xacts x WHERE x.database = current_database() AND x.prepared < late.since
  UNION ALL SELECT DISTINCT 'warning', format('backend %s', a.pid),
    format('it has written and been in a transaction since %s, and the outbox cannot be emptied',
      date_trunc('second', a.xact_start)), format('SELECT pg_terminate_backend(%s)', a.pid)
    FROM late, pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
    WHERE a.datname = current_database() AND a.xact_start < late.since AND a.pid <> pg_backend_pid()
      AND l.mode = 'RowExclusiveLock' AND l.relation IN ('pgwake.outbox_0'::regclass,
        'pgwake.outbox_1'::regclass, 'pgwake.outbox_2'::regclass);
END $pgwake$;
