//! What readers of the schema `pgwake` have in common on the wire. Texts of the caller go out as UTF-8, in
//! hexadecimal digits, and the server takes them over into the database's encoding, whatever that is. Results
//! come back in the binary format.

use std::time::Duration;

/// How often the server is asked whether what is read still comes.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// How often it is asked because somebody notifies so: anybody may.
pub(super) const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(250);

/// On a channel of the schema `pgwake`: something is watched anew, or not any more.
pub(super) const WATCHED_PAYLOAD: &[u8] = b"watched";

/// What a notification refers to. In UTF-8 it may be three times as long, and 8 MB at most.
pub(super) const FETCH: &[u8] = b"SELECT pg_catalog.convert_to(body, $2::name) FROM pgwake.fetch( \
    $1::int8, CASE pg_catalog.getdatabaseencoding() WHEN 'UTF8' THEN 8388608 ELSE 2097152 END) AS body";
/// What was notified, in the database's encoding.
pub(super) const CONVERT: &[u8] = b"SELECT pg_catalog.convert_to($1, 'UTF8')";

/// The encoding to ask for. To `SQL_ASCII` the server converts nothing: the bytes come as they are.
pub(super) fn encoding(is_converted: bool) -> &'static [u8] {
    if is_converted { b"UTF8" } else { b"SQL_ASCII" }
}

/// A text of the caller, as `convert_from` takes it.
pub(super) fn in_utf8(text: &str) -> String {
    text.bytes().fold(String::from("\\x"), |digits, byte| digits + &format!("{byte:02x}"))
}

/// A list as PostgreSQL writes arrays; nothing for an empty one.
pub(super) fn array<'a>(texts: impl Iterator<Item = &'a str>) -> String {
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
