//! A JSON object as a list of its members, an array as a list of its values: text flows in, names and the
//! places of the values flow out. What is not asked for is stepped over, not read.

use std::ops::Range;

/// The members of the object that a text holds. It ends early where the text is no JSON.
pub(super) struct Members<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Members<'a> {
    /// Of a text that is one object; nothing else has members.
    pub(super) fn of(text: &'a str) -> Self {
        let at = skip_space(text.as_bytes(), 0);
        let is_object = text.as_bytes().get(at) == Some(&b'{');
        Members { text, at: if is_object { at + 1 } else { text.len() } }
    }
}

impl<'a> Iterator for Members<'a> {
    /// The name as it is written, without its quotes, and where the value lies.
    type Item = (&'a str, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        let name_at = skip_space(bytes, self.at);
        let name_end = skip_string(bytes, name_at)?;
        let colon_at = skip_space(bytes, name_end);
        if bytes.get(colon_at) != Some(&b':') {
            return None;
        }
        let value_at = skip_space(bytes, colon_at + 1);
        let value_end = skip_value(bytes, value_at)?;
        let next_at = skip_space(bytes, value_end);
        self.at = match bytes.get(next_at)? {
            b',' => next_at + 1,
            b'}' => bytes.len(),
            _ => return None,
        };
        Some((self.text.get(name_at + 1..name_end - 1)?, value_at..value_end))
    }
}

/// The values of the array that a text holds. It ends early where the text is no JSON.
pub(super) fn elements(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let opened = skip_space(bytes, 0);
    let mut at = if bytes.get(opened) == Some(&b'[') { opened + 1 } else { bytes.len() };
    std::iter::from_fn(move || {
        let value_at = skip_space(bytes, at);
        let value_end = skip_value(bytes, value_at)?;
        let next_at = skip_space(bytes, value_end);
        at = match bytes.get(next_at)? {
            b',' => next_at + 1,
            b']' => bytes.len(),
            _ => return None,
        };
        text.get(value_at..value_end)
    })
}

/// Writes the text that a JSON string stands for; `false` when it is none. `json` has its quotes.
pub(super) fn unescape(json: &str, text: &mut String) -> bool {
    text.clear();
    let Some(inside) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let mut rest = inside;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let mut characters = rest[at + 1..].chars();
        match characters.next() {
            Some(c @ ('"' | '\\' | '/')) => text.push(c),
            Some('b') => text.push('\u{8}'),
            Some('f') => text.push('\u{c}'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('t') => text.push('\t'),
            Some('u') => {
                let Some((c, after)) = unicode(characters.as_str()) else { return false };
                text.push(c);
                rest = after;
                continue;
            }
            _ => return false,
        }
        rest = characters.as_str();
    }
    text.push_str(rest);
    true
}

/// What stands behind `\u`: four digits, or eight with another `\u` in between, and the rest.
fn unicode(digits: &str) -> Option<(char, &str)> {
    let unit = |text: &str| u32::from_str_radix(text.get(..4)?, 16).ok();
    let (high, rest) = (unit(digits)?, &digits[4..]);
    if !(0xd800..0xdc00).contains(&high) {
        return Some((char::from_u32(high)?, rest));
    }
    let rest = rest.strip_prefix("\\u")?;
    let low = unit(rest)?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    Some((char::from_u32(0x10000 + (high - 0xd800) * 0x400 + low)?, &rest[4..]))
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Behind the closing quote of the string that begins here.
fn skip_string(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Behind the value that begins here. Brackets are counted, not matched.
fn skip_value(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => skip_string(bytes, at),
        b'{' | b'[' => {
            let (mut at, mut depth) = (at + 1, 1u32);
            while depth > 0 {
                match bytes.get(at)? {
                    b'"' => at = skip_string(bytes, at)? - 1,
                    b'{' | b'[' => depth = depth.checked_add(1)?,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
            }
            Some(at)
        }
        _ => {
            let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            let length = bytes[at..].iter().position(is_end).unwrap_or(bytes.len() - at);
            (length > 0).then_some(at + length)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Vec<(&str, &str)> {
        Members::of(text).map(|(name, value)| (name, &text[value])).collect()
    }

    #[test]
    fn an_object_is_taken_apart_and_its_values_are_left_as_they_are() {
        let text = r#" { "a" : 1,"b":"x\",}" , "c":{"d":[1,{"e":"]}"}], "f":null},"g":true,"h":[] } "#;
        let expected = [
            ("a", "1"),
            ("b", r#""x\",}""#),
            ("c", r#"{"d":[1,{"e":"]}"}], "f":null}"#),
            ("g", "true"),
            ("h", "[]"),
        ];
        assert_eq!(members(text), expected);
        assert_eq!(members("{}"), []);
    }

    #[test]
    fn an_array_is_taken_apart() {
        let list = |text| elements(text).collect::<Vec<_>>();
        assert_eq!(list(r#"[1, {"a":[2]},"x,]" ]"#), ["1", r#"{"a":[2]}"#, r#""x,]""#]);
        assert_eq!(list("[]"), [""; 0]);
        assert_eq!(list("{}"), [""; 0]);
        assert_eq!(list("[1"), [""; 0]);
    }

    #[test]
    fn what_is_no_object_has_no_members_and_does_no_harm() {
        let whole = r#"{"a":{"b":["\"",1]},"c":"\u00e9"}"#;
        for end in 0..whole.len() {
            assert!(members(&whole[..end]).len() <= 1, "{end}");
        }
        for bad in ["", "[]", "null", "{\"a\"", "{\"a\":}", "{\"a\":1", "{:1}", "{\"a\\", "{\"a\":[", "{,}"] {
            assert_eq!(members(bad), [], "{bad}");
        }
    }

    #[test]
    fn a_string_is_read_as_it_was_meant() {
        let mut text = String::from("before");
        for (json, expected) in [
            (r#""plain""#, "plain"),
            (r#""""#, ""),
            (r#""a\"b\\c\/\b\f\n\r\t""#, "a\"b\\c/\u{8}\u{c}\n\r\t"),
            (r#""\u00e9\ud83d\ude00é""#, "é😀é"),
        ] {
            assert!(unescape(json, &mut text), "{json}");
            assert_eq!(text, expected);
        }
        for bad in ["", "\"", "x", r#""\"#, r#""\x""#, r#""\u12""#, r#""\ud800""#, r#""\ud800\u0041""#] {
            assert!(!unescape(bad, &mut text), "{bad}");
        }
    }

    /// Random cuts and splices of JSON: nothing but the absence of a panic is promised, and that what is
    /// given lies within the text.
    #[test]
    fn no_text_makes_it_panic() {
        let pieces =
            ["{", "}", "[", "]", "\"", "\\", ":", ",", "1", "null", " ", "\\u", "é", "\"a\":", "\u{1}"];
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut text = String::new();
        for _ in 0..200_000 {
            text.clear();
            text.push('{');
            for _ in 0..seed % 24 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(pieces[(seed >> 33) as usize % pieces.len()]);
            }
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut unescaped = String::new();
            for (_, value) in Members::of(&text) {
                elements(&text[value.clone()]).for_each(|_| {});
                unescape(&text[value], &mut unescaped);
            }
        }
    }
}
