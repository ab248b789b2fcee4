//! JSON from text: what is written is JSON, whatever the text is, but for a text that is said to be JSON
//! itself.

/// The largest number up to which each whole number is one of JSON's: beyond 2^53, readers round.
const EXACT_MAX: u64 = 1 << 53;

/// A string, escaped as PostgreSQL does it. What is not UTF-8 becomes U+FFFD.
pub(super) fn string(out: &mut String, text: &[u8]) {
    out.push('"');
    in_utf8(text, |valid| escaped(out, valid));
    out.push('"');
}

/// What the server says is JSON. Control characters stand only between its values: they become spaces, so
/// that a value has one line.
pub(super) fn json(out: &mut String, text: &[u8]) {
    in_utf8(text, |valid| {
        let mut pieces = valid.split(|c: char| c < ' ');
        out.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            out.push(' ');
            out.push_str(piece);
        }
    });
}

/// A number as the server writes it; a string, if it is none of JSON's, such as NaN.
pub(super) fn number(out: &mut String, text: &[u8]) {
    match std::str::from_utf8(text) {
        Ok(number) if is_number(text) => out.push_str(number),
        _ => string(out, text),
    }
}

/// A number if JSON's readers have it exactly, else a string.
pub(super) fn integer(out: &mut String, text: &[u8]) {
    // Every number of so few digits is exact.
    let is_small = text.len() <= 15;
    let value = || std::str::from_utf8(text).ok()?.parse::<i64>().ok();
    if is_small || value().is_some_and(is_exact) { number(out, text) } else { string(out, text) }
}

pub(super) fn is_exact(integer: i64) -> bool {
    integer.unsigned_abs() <= EXACT_MAX
}

/// By the grammar of RFC 8259, section 6.
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || whole > 1 && rest[0] == b'0' {
        return false;
    }
    let mut rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let length = digits(exponent);
        return length > 0 && length == exponent.len();
    }
    rest.is_empty()
}

/// Hands on pieces of text that are UTF-8, and U+FFFD in place of what is not.
fn in_utf8(text: &[u8], mut take: impl FnMut(&str)) {
    if let Ok(text) = std::str::from_utf8(text) {
        return take(text);
    }
    for chunk in text.utf8_chunks() {
        take(chunk.valid());
        if !chunk.invalid().is_empty() {
            take("\u{fffd}");
        }
    }
}

fn escaped(out: &mut String, mut text: &str) {
    use std::fmt::Write;
    while let Some(at) = first_to_escape(text.as_bytes()) {
        out.push_str(&text[..at]);
        match text.as_bytes()[at] {
            byte @ (b'"' | b'\\') => out.extend(['\\', char::from(byte)]),
            b'\x08' => out.push_str("\\b"),
            b'\x0c' => out.push_str("\\f"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            // Writing to a string cannot fail.
            control => _ = write!(out, "\\u{control:04x}"),
        }
        text = &text[at + 1..];
    }
    out.push_str(text);
}

fn first_to_escape(text: &[u8]) -> Option<usize> {
    // Of a chunk all bytes are looked at: without a branch, the processor does so with all of them at once.
    let needs_escape = |byte: &u8| (*byte < b' ') | (*byte == b'"') | (*byte == b'\\');
    let is_clean = |chunk: &[u8; 16]| !chunk.iter().fold(false, |found, byte| found | needs_escape(byte));
    let (chunks, _) = text.as_chunks();
    let clean = chunks.iter().take_while(|chunk| is_clean(chunk)).count() * 16;
    text[clean..].iter().position(needs_escape).map(|at| clean + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(write: fn(&mut String, &[u8]), text: &[u8]) -> String {
        let mut out = String::new();
        write(&mut out, text);
        out
    }

    #[test]
    fn a_string_is_escaped_and_always_utf8() {
        let text = b"say \"h\\i\"\x08\x0c\n\r\t\x01\x1f\x7f \xc3\xa9";
        assert_eq!(of(string, text), "\"say \\\"h\\\\i\\\"\\b\\f\\n\\r\\t\\u0001\\u001f\x7f é\"");
        assert_eq!(of(string, b"caf\xe9\"\xf0\x9f\x98"), "\"caf\u{fffd}\\\"\u{fffd}\"");
        assert_eq!(of(string, b""), "\"\"");
        for length in [0, 15, 16, 17, 40] {
            let plain = "x".repeat(length);
            assert_eq!(of(string, plain.as_bytes()), format!("\"{plain}\""));
            let (text, escaped) = (format!("{plain}\n{plain}\""), format!("\"{plain}\\n{plain}\\\"\""));
            assert_eq!(of(string, text.as_bytes()), escaped);
        }
    }

    #[test]
    fn json_is_one_line() {
        assert_eq!(of(json, b"{\"a\":\n\t[1,\r2]}"), "{\"a\":  [1, 2]}");
        assert_eq!(of(json, b"\"caf\xe9\""), "\"caf\u{fffd}\"");
    }

    #[test]
    fn what_is_no_number_of_json_becomes_a_string() {
        for good in ["0", "-0", "7", "-12", "0.5", "1e+20", "1.5e-07", "120E3", "-1.25"] {
            assert_eq!(of(number, good.as_bytes()), good);
        }
        for bad in
            ["", "-", "NaN", "-Infinity", "01", ".5", "1.", "1e", "1e+", "+1", "1 ", "0x1", "1,2", "1.5.2"]
        {
            assert_eq!(of(number, bad.as_bytes()), format!("\"{bad}\""));
        }
    }

    #[test]
    fn an_integer_beyond_2_to_53_becomes_a_string() {
        for exact in ["0", "999999999999999", "9007199254740992", "-9007199254740992"] {
            assert_eq!(of(integer, exact.as_bytes()), exact);
        }
        for other in ["9007199254740993", "-9223372036854775808", "99999999999999999999", "x"] {
            assert_eq!(of(integer, other.as_bytes()), format!("\"{other}\""));
        }
    }
}
