//! What the reader says to the server, as SQL. Texts of the caller go out as UTF-8, in hexadecimal digits,
//! and the server takes them over into the database's encoding, whatever that is. Results come back in the
//! binary format, changes as the bytes of an encoding that is asked for.

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
/// What a notification refers to. In UTF-8 it may be three times as long, and 8 MB at most.
pub(in crate::source) const FETCH: &[u8] =
    b"SELECT pg_catalog.convert_to(body, $2::name) FROM pgwake.fetch( \
    $1::int8, CASE pg_catalog.getdatabaseencoding() WHEN 'UTF8' THEN 8388608 ELSE 2097152 END) AS body";
/// What was notified, in the database's encoding.
pub(in crate::source) const CONVERT: &[u8] = b"SELECT pg_catalog.convert_to($1, 'UTF8')";

/// The encoding to ask for. To `SQL_ASCII` the server converts nothing: the bytes come as they are.
pub(in crate::source) fn encoding(is_converted: bool) -> &'static [u8] {
    if is_converted { b"UTF8" } else { b"SQL_ASCII" }
}

/// A text of the caller, as `convert_from` takes it.
pub(in crate::source) fn in_utf8(text: &str) -> String {
    text.bytes().fold(String::from("\\x"), |digits, byte| digits + &format!("{byte:02x}"))
}

/// A list as PostgreSQL writes arrays; nothing for an empty one.
pub(in crate::source) fn array<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let list: Vec<String> = texts.map(quoted).collect();
    if list.is_empty() { String::new() } else { format!("{{{}}}", list.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_quoted_as_an_array() {
        assert_eq!(array(["a", "\"B\"", "c\\d", "e,f", ""].into_iter()), r#"{"a","\"B\"","c\\d","e,f",""}"#);
        assert_eq!(array([].into_iter()), "");
    }

    #[test]
    fn a_text_is_written_in_hexadecimal_digits() {
        assert_eq!(in_utf8("a\u{fc}"), "\\x61c3bc");
    }
}
