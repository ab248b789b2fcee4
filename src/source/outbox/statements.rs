//! What the reader says to the server, as SQL. Texts of the caller go out as UTF-8, in hexadecimal digits,
//! and the server takes them over into the database's encoding, whatever that is; changes come back so, too,
//! where the database has another.

use std::ffi::CStr;

pub(super) const ENSURE: &[u8] = b"SELECT t.rel::pg_catalog.oid, w.transport, w.channel \
    FROM (SELECT pg_catalog.convert_from($1::bytea, 'UTF8')::pg_catalog.regclass AS rel) t, \
    pgwake.ensure_watched(t.rel, $2::bool, nullif($3, '')::text[], nullif($4, ''), $5, \
    nullif(pg_catalog.convert_from($6::bytea, 'UTF8'), '')::name[], $7) w";
/// Of each table how it is watched: the one that has its name now, or if that is not watched, the one that is
/// known, which may have another name by now.
pub(super) const LOOK: &[u8] = b"SELECT f.oid, f.transport, f.channel FROM ROWS FROM ( \
    pg_catalog.unnest(pg_catalog.convert_from($1::bytea, 'UTF8')::text[]), \
    pg_catalog.unnest($2::pg_catalog.oid[])) WITH ORDINALITY AS t (name, known, place) \
    LEFT JOIN LATERAL (SELECT c.oid, w.transport, w.channel FROM pg_catalog.pg_class c \
    LEFT JOIN LATERAL pgwake.watch_of(c.oid) w ON true \
    WHERE c.oid IN (t.known, pg_catalog.to_regclass(t.name)::pg_catalog.oid) \
    ORDER BY w.transport IS NULL, c.oid = t.known LIMIT 1) f ON true ORDER BY t.place";
pub(super) const OPEN: &[u8] = b"SELECT consumer_name, \"position\" FROM pgwake.open_consumer( \
    nullif(pg_catalog.convert_from($1::bytea, 'UTF8'), ''), $2::pg_catalog.regclass[], $3::bool)";
pub(super) const LEND_EAR: &[u8] = b"SELECT pgwake.lend_ear($1)";
/// A page takes a second snapshot when the first has nothing, and is read faster than compiled.
pub(super) const ISOLATION: &[u8] = b"SELECT pg_catalog.set_config('jit', 'off', false), \
    pg_catalog.set_config('default_transaction_isolation', 'read committed', false)";
pub(super) const READ: &[u8] = b"SELECT kind, number, body FROM pgwake.read($1, $2, $3::bool)";
pub(super) const READ_CONVERTED: &[u8] = b"SELECT kind, number, CASE kind WHEN 'change' THEN \
    pg_catalog.encode(pg_catalog.convert_to(body, 'UTF8'), 'hex') ELSE body END \
    FROM pgwake.read($1, $2, $3::bool)";
pub(super) const READ_NAME: &CStr = c"pgwake_read";
pub(super) const READ_CONVERTED_NAME: &CStr = c"pgwake_read_converted";
const FETCH: &[u8] = b"SELECT 'change', 0, body FROM pgwake.fetch($1::int8, 8388608) AS body";
const FETCH_CONVERTED: &[u8] = b"SELECT 'change', 0, pg_catalog.encode(pg_catalog.convert_to(body, 'UTF8'), \
    'hex') FROM pgwake.fetch($1::int8, 2097152) AS body";
/// What was notified, in the database's encoding.
pub(in crate::source) const CONVERT: &[u8] =
    b"SELECT 'change', 0, pg_catalog.encode(pg_catalog.convert_to($1::text, 'UTF8'), 'hex')";
pub(super) const ACKNOWLEDGE: &[u8] = b"SELECT pgwake.acknowledge($1, $2)";
pub(super) const ROTATE: &[u8] = b"SELECT pgwake.rotate()";

/// Gives what a notification refers to.
pub(in crate::source) fn fetch(is_converted: bool) -> &'static [u8] {
    if is_converted { FETCH_CONVERTED } else { FETCH }
}

/// A text of the caller, as `convert_from` takes it.
pub(in crate::source) fn in_utf8(text: &str) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    let mut digits = String::from("\\x");
    for byte in text.bytes() {
        digits.push(digit(byte >> 4));
        digits.push(digit(byte & 15));
    }
    digits
}

/// The bytes that were written in hexadecimal digits.
pub(in crate::source) fn from_hex(digits: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default() as u8;
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for pair in digits.chunks_exact(2) {
        bytes.push(digit(pair[0]) << 4 | digit(pair[1]));
    }
    bytes
}

/// A list as PostgreSQL writes arrays; nothing for an empty one.
pub(in crate::source) fn array<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut list = String::new();
    for text in texts {
        list.push_str(if list.is_empty() { "{\"" } else { ",\"" });
        add_escaped(&mut list, text);
        list.push('"');
    }
    if !list.is_empty() {
        list.push('}');
    }
    list
}

fn add_escaped(list: &mut String, text: &str) {
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            list.push('\\');
        }
        list.push(character);
    }
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
    fn hexadecimal_digits_are_bytes() {
        assert_eq!(from_hex(b"00ff4A"), [0, 255, 0x4a]);
        assert!(from_hex(b"").is_empty());
        assert_eq!(in_utf8("a\u{fc}"), "\\x61c3bc");
    }
}
