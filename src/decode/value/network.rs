//! Addresses of networks: their binary form flows in, PostgreSQL's text flows out.

use super::bytes::hex;
use crate::decode::wire::{Malformed, Reader};
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

/// `inet` and `cidr`. The number of bits is written where it is not all of them, and for `cidr` always.
pub(super) fn address(out: &mut String, fields: &mut Reader<'_>) -> Result<(), Malformed> {
    // The family is told by the length, too.
    fields.u8()?;
    let (bits, is_cidr) = (fields.u8()?, fields.u8()? != 0);
    let before = *fields;
    let length = fields.u8()?;
    let address = fields.take(length.into())?;
    // Writing to a string cannot fail.
    if let Ok(octets) = <[u8; 4]>::try_from(address) {
        _ = write!(out, "{}", Ipv4Addr::from(octets));
    } else if let Ok(octets) = <[u8; 16]>::try_from(address) {
        version_6(out, octets);
    } else {
        return Err(before.malformed("an address has neither 4 nor 16 bytes"));
    }
    if is_cidr || u32::from(bits) != u32::from(length) * 8 {
        _ = write!(out, "/{bits}");
    }
    Ok(())
}

/// PostgreSQL writes the last 32 bits of an address as it does those of version 4 where all before them are
/// 0, too (`src/port/inet_net_ntop.c`), Rust only where they are mapped.
fn version_6(out: &mut String, octets: [u8; 16]) {
    // Writing to a string cannot fail.
    _ = match octets {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] if (a, b) != (0, 0) => {
            write!(out, "::{}", Ipv4Addr::new(a, b, c, d))
        }
        _ => write!(out, "{}", Ipv6Addr::from(octets)),
    };
}

/// `macaddr` and `macaddr8`: all that is left.
pub(super) fn mac(out: &mut String, fields: &mut Reader<'_>) -> Result<(), Malformed> {
    if !matches!(fields.rest().len(), 6 | 8) {
        return Err(fields.malformed("a MAC address has neither 6 nor 8 bytes"));
    }
    while !fields.rest().is_empty() {
        hex(out, fields.take(1)?);
        if !fields.rest().is_empty() {
            out.push(':');
        }
    }
    Ok(())
}
