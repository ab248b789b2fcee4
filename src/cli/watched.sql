-- What is watched in this database, and who reads it: one JSON object.
SELECT json_build_object(
  'schema', json_build_object('version', pgwake.version(), 'mode', pgwake.mode(),
    'outbox_bytes', pg_total_relation_size('pgwake.outbox_0') + pg_total_relation_size('pgwake.outbox_1')
      + pg_total_relation_size('pgwake.outbox_2')),
  'watched', (SELECT coalesce(json_agg(json_build_object('table', name, 'ops', array_to_string(ops, ','),
      'payload', payload, 'transport', transport, 'channel', channel) ORDER BY name), '[]')
    FROM pgwake.live),
  'ddl', (SELECT coalesce(json_agg(json_build_object('channel', channel, 'tags',
      array_to_string(tags, ',')) ORDER BY channel), '[]') FROM pgwake.ddl_watch),
  'consumers', (SELECT coalesce(json_agg(json_build_object('name', c.name, 'acknowledged_at',
      c.acknowledged_at, 'unread_rows', (SELECT sum(pgwake.unread(box, c."position"))
        FROM unnest('{pgwake.outbox_0,pgwake.outbox_1,pgwake.outbox_2}'::regclass[]) box))
      ORDER BY c.name), '[]') FROM pgwake.consumer c))
