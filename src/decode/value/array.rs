//! Arrays in both of PostgreSQL's forms (manual, "Array Input and Output Syntax"): an array's bytes flow in,
//! a JSON array flows out, of arrays where it has more than one dimension.

use super::json;
use super::scalar::Scalar;
use crate::decode::wire::{Malformed, Reader};
use std::borrow::Cow;
use std::fmt::Write;

/// PostgreSQL's MAXDIM.
const DIMENSIONS_MAX: usize = 6;

/// Appends an array that came as text; as a string, if it is none.
pub(super) fn write(out: &mut String, element: Scalar, text: &[u8]) {
    let start = out.len();
    if write_text(out, element, text).is_none() {
        out.truncate(start);
        json::string(out, text);
    }
}

/// What stands before the place at hand.
#[derive(PartialEq)]
enum Before {
    Opening,
    Element,
    Delimiter,
}

fn write_text(out: &mut String, element: Scalar, text: &[u8]) -> Option<()> {
    let delimiter = element.delimiter();
    // Lower bounds that are not 1 stand before it.
    let bounds = if text.starts_with(b"[") { text.iter().position(|byte| *byte == b'=')? + 1 } else { 0 };
    let (mut rest, mut depth, mut before) = (&text[bounds..], 0, Before::Opening);
    loop {
        let first = *rest.first()?;
        match first {
            b'{' if before != Before::Element && depth < DIMENSIONS_MAX => {
                out.push('[');
                (depth, before) = (depth + 1, Before::Opening);
            }
            b'}' if before != Before::Delimiter && depth > 0 => {
                out.push(']');
                (depth, before) = (depth - 1, Before::Element);
                if depth == 0 {
                    return (rest.len() == 1).then_some(());
                }
            }
            _ if first == delimiter && before == Before::Element => {
                out.push(',');
                before = Before::Delimiter;
            }
            _ if before != Before::Element && depth > 0 => {
                rest = write_element(out, element, delimiter, rest)?;
                before = Before::Element;
                continue;
            }
            _ => return None,
        }
        rest = &rest[1..];
    }
}

/// Appends the element that begins here; what follows it.
fn write_element<'a>(out: &mut String, element: Scalar, delimiter: u8, text: &'a [u8]) -> Option<&'a [u8]> {
    if let Some(quoted) = text.strip_prefix(b"\"") {
        let (value, rest) = unquoted(quoted)?;
        element.write(out, &value);
        return Some(rest);
    }
    let end = text.iter().position(|byte| *byte == delimiter || *byte == b'}')?;
    match &text[..end] {
        b"" => return None,
        b"NULL" => out.push_str("null"),
        value => element.write(out, value),
    }
    Some(&text[end..])
}

/// What stands before a closing quote, and what follows that.
fn unquoted(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let end = text.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    if text[end] == b'"' {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let (mut value, mut rest) = (text[..end].to_vec(), &text[end..]);
    loop {
        match rest {
            [b'"', rest @ ..] => return Some((Cow::Owned(value), rest)),
            [b'\\', byte, after @ ..] | [byte, after @ ..] if rest != b"\\" => {
                value.push(*byte);
                rest = after;
            }
            _ => return None,
        }
    }
}

/// Appends an array that came in binary: its dimensions, then its elements, as PostgreSQL's array_send has
/// them.
pub(super) fn write_binary(out: &mut String, element: Scalar, bytes: &[u8]) -> Result<(), Malformed> {
    let mut fields = Reader::new(bytes);
    let (lengths, count) = dimensions(&mut fields)?;
    if count == 0 {
        out.push_str("[]");
    } else {
        write_dimension(out, element, &lengths[..count], &mut fields)?;
    }
    fields.finish()
}

/// How many elements each dimension has, and how many dimensions there are.
fn dimensions(fields: &mut Reader<'_>) -> Result<([usize; DIMENSIONS_MAX], usize), Malformed> {
    let before = *fields;
    let count = fields.length()?;
    // Whether there is a NULL, and the type of the elements.
    fields.take(8)?;
    let mut lengths = [0; DIMENSIONS_MAX];
    let used =
        lengths.get_mut(..count).ok_or_else(|| before.malformed("an array has too many dimensions"))?;
    for length in used {
        let before = *fields;
        *length = fields.length()?;
        // The lower bound.
        fields.u32()?;
        if *length == 0 {
            return Err(before.malformed("an array has a dimension without elements"));
        }
    }
    Ok((lengths, count))
}

fn write_dimension(
    out: &mut String,
    element: Scalar,
    lengths: &[usize],
    fields: &mut Reader<'_>,
) -> Result<(), Malformed> {
    let Some((length, inner)) = lengths.split_first() else {
        return match next_element(fields)? {
            Some(bytes) => element.write_binary(out, bytes),
            None => {
                out.push_str("null");
                Ok(())
            }
        };
    };
    let mut separator = '[';
    for _ in 0..*length {
        out.push(separator);
        write_dimension(out, element, inner, fields)?;
        separator = ',';
    }
    out.push(']');
    Ok(())
}

/// The bytes of an element; none for NULL.
fn next_element<'a>(fields: &mut Reader<'a>) -> Result<Option<&'a [u8]>, Malformed> {
    if fields.rest().starts_with(&(-1i32).to_be_bytes()) {
        fields.u32()?;
        return Ok(None);
    }
    let length = fields.length()?;
    fields.take(length).map(Some)
}

/// Appends an `int2vector` or `oidvector` that came in binary, which is an array.
pub(super) fn write_vector(out: &mut String, bytes: &[u8]) -> Result<(), Malformed> {
    let mut fields = Reader::new(bytes);
    let (lengths, _) = dimensions(&mut fields)?;
    out.push('"');
    for index in 0..lengths[0] {
        if index > 0 {
            out.push(' ');
        }
        let before = fields;
        // Writing to a string cannot fail.
        _ = match next_element(&mut fields)? {
            Some(&[high, low]) => write!(out, "{}", i16::from_be_bytes([high, low])),
            Some(&[a, b, c, d]) => write!(out, "{}", u32::from_be_bytes([a, b, c, d])),
            _ => return Err(before.malformed("an element is none of a vector")),
        };
    }
    out.push('"');
    fields.finish()
}
