//! What the reader of the outbox says to the server, as SQL. Changes come back as the bytes of an encoding
//! that is asked for.

use std::ffi::CStr;

/// Holds whatever role and database have set. A reader writes, too: watches and its position. A page takes a
/// second snapshot when the first has nothing, and is read faster than compiled.
pub(super) const SETTINGS: &[u8] = b"SELECT pg_catalog.set_config('default_transaction_read_only', 'off', \
    false), pg_catalog.set_config('default_transaction_isolation', 'read committed', false), \
    pg_catalog.set_config('jit', 'off', false)";
/// What was not asked for is NULL.
pub(super) const ENSURE: &[u8] = b"SELECT FROM pgwake.ensure_watched( \
    pg_catalog.convert_from($1::bytea, 'UTF8')::pg_catalog.regclass, $2::bool, nullif($3, '')::text[], \
    nullif($4, ''), nullif($5, ''), nullif(pg_catalog.convert_from($6::bytea, 'UTF8'), '')::name[], \
    nullif($7, ''))";
/// Of each table how it is watched: the one that has its name now, or if that is not watched, the one that is
/// known, which may have another name by now.
pub(super) const LOOK: &[u8] = b"SELECT f.oid::text, f.transport, f.channel FROM ROWS FROM ( \
    pg_catalog.unnest(pg_catalog.convert_from($1::bytea, 'UTF8')::text[]), \
    pg_catalog.unnest($2::pg_catalog.oid[])) WITH ORDINALITY AS t (name, known, place) \
    LEFT JOIN LATERAL (SELECT c.oid, w.transport, w.channel FROM pg_catalog.pg_class c \
    LEFT JOIN LATERAL pgwake.watch_of(c.oid) w ON true \
    WHERE c.oid IN (t.known, pg_catalog.to_regclass(t.name)::pg_catalog.oid) \
    ORDER BY w.transport IS NULL, c.oid = t.known LIMIT 1) f ON true ORDER BY t.place";
pub(super) const OPEN: &[u8] = b"SELECT consumer_name, \"position\" FROM pgwake.open_consumer( \
    nullif(pg_catalog.convert_from($1::bytea, 'UTF8'), ''), $2::pg_catalog.regclass[], $3::bool)";
pub(super) const READ: &[u8] = b"SELECT kind, number::text, pg_catalog.convert_to(body, $3::name) \
    FROM pgwake.read($1, $2)";
pub(super) const READ_NAME: &CStr = c"pgwake_read";
/// Never fails, and the session has no other.
pub(super) const DEALLOCATE: &[u8] = b"DEALLOCATE ALL";
pub(super) const ACKNOWLEDGE: &[u8] = b"SELECT pgwake.acknowledge($1, $2)";
pub(super) const ROTATE: &[u8] = b"SELECT pgwake.rotate()";
