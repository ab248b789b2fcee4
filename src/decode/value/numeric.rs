//! `numeric`: its binary form flows in, PostgreSQL's text flows out.

use crate::decode::wire::{Malformed, Reader};
use std::fmt::Write;

/// Groups of four digits, the first of them times 10000 to the power of the weight, and how many digits of
/// the fraction are shown.
pub(super) fn write(out: &mut String, fields: &mut Reader<'_>) -> Result<(), Malformed> {
    let (count, weight) = (usize::from(fields.count()?), i32::from(fields.i16()?));
    let before = *fields;
    match fields.u16()? {
        0 => {}
        0x4000 => out.push('-'),
        special => {
            out.push_str(match special {
                0xc000 => "NaN",
                0xd000 => "Infinity",
                0xf000 => "-Infinity",
                _ => return Err(before.malformed("a numeric has an unknown sign")),
            });
            fields.u16()?;
            fields.take(count * 2)?;
            return Ok(());
        }
    }
    let before = *fields;
    let scale = fields.u16()?;
    let (groups, _) = fields.take(count * 2)?.as_chunks();
    let group = |index: i32| {
        let group = usize::try_from(index).ok().and_then(|index| groups.get(index));
        group.map_or(0, |group| u16::from_be_bytes(*group))
    };
    if (0..count as i32).any(|index| group(index) > 9999) {
        return Err(before.malformed("a group has more than four digits"));
    }
    // Writing to a string cannot fail.
    _ = write!(out, "{}", if weight < 0 { 0 } else { group(0) });
    for index in 1..=weight {
        _ = write!(out, "{:04}", group(index));
    }
    if scale > 0 {
        out.push('.');
        let end = out.len() + usize::from(scale);
        let mut index = weight + 1;
        while out.len() < end {
            _ = write!(out, "{:04}", group(index));
            index += 1;
        }
        out.truncate(end);
    }
    Ok(())
}
