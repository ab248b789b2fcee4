-- What is watched in this database, and who reads it: one JSON object.
SELECT json_build_object(
  'schema', json_build_object('version', pgwake.version(), 'mode', pgwake.mode(),
    'outbox_bytes', pgwake.outbox_bytes()),
  'watched', (SELECT coalesce(json_agg(json_build_object('table', name, 'ops', array_to_string(ops, ','),
      'payload', payload, 'transport', transport, 'channel', channel) ORDER BY name), '[]')
    FROM pgwake.live),
  'ddl', (SELECT coalesce(json_agg(json_build_object('channel', channel, 'tags',
      array_to_string(tags, ','), 'phases', array_to_string(phases, ',')) ORDER BY channel), '[]') FROM pgwake.ddl_watch),
  'handlers', (SELECT coalesce(json_agg(json_build_object('handler', handler, 'types',
      array_to_string(types, ','), 'schemas', array_to_string(schemas, ',')) ORDER BY handler), '[]')
    FROM pgwake.drop_handler),
  'consumers', (SELECT coalesce(json_agg(json_build_object('name', c.name, 'backend', pgwake.backend_of(c.id),
      'acknowledged_at', c.acknowledged_at,
      'unread_rows', pgwake.unread(c, 0) + pgwake.unread(c, 1) + pgwake.unread(c, 2)) ORDER BY c.name), '[]')
    FROM pgwake.consumer c WHERE c.is_named OR pgwake.backend_of(c.id) IS NOT NULL))
