//! Types that are plain bytes or bits: their binary form flows in, the inside of a JSON string flows out.

use super::json;
use crate::decode::wire::{Malformed, Reader};
use std::fmt::Write;

/// All that is left, as `bytea` is written with bytea_output hex.
pub(super) fn bytea(out: &mut String, fields: &mut Reader<'_>) {
    out.push_str("\\\\x");
    // There is always room for what is left.
    let all = fields.rest();
    _ = fields.take(all.len());
    out.reserve(all.len() * 2);
    hex(out, all);
}

pub(super) fn uuid(out: &mut String, fields: &mut Reader<'_>) -> Result<(), Malformed> {
    for (length, separator) in [(4, "-"), (2, "-"), (2, "-"), (2, "-"), (6, "")] {
        hex(out, fields.take(length)?);
        out.push_str(separator);
    }
    Ok(())
}

/// `bit` and `varbit`: how many bits there are, and then these, the last byte filled up.
pub(super) fn bit_string(out: &mut String, fields: &mut Reader<'_>) -> Result<(), Malformed> {
    let count = fields.length()?;
    let bytes = fields.take(count.div_ceil(8))?;
    let bit = |index: usize| bytes[index / 8] >> (7 - index % 8) & 1;
    out.extend((0..count).map(|index| char::from(b'0' + bit(index))));
    Ok(())
}

/// `"char"` as a JSON string: 0 is written as nothing, and what is not ASCII in octal, as since PostgreSQL
/// 16.
pub(super) fn char(out: &mut String, byte: u8) {
    match byte {
        0 => json::string(out, b""),
        1..0x80 => json::string(out, &[byte]),
        // Writing to a string cannot fail.
        _ => _ = write!(out, "\"\\\\{byte:03o}\""),
    }
}

pub(super) fn hex(out: &mut String, bytes: &[u8]) {
    let digit = |digit: u8| char::from(b"0123456789abcdef"[usize::from(digit)]);
    out.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
}
