//! Values that are not arrays: their text or binary form flows in, JSON flows out. The forms in binary are
//! those of the server's send functions (`src/backend/utils/adt`).

use super::{bytes, float, json, network, numeric, time};
use crate::decode::wire::{Malformed, Reader};
use std::fmt::Write;

/// What is known of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Json,
    Jsonb,
    /// Its binary form is its text: `text`, `varchar`, `name`, `xml`, an enum and the like.
    Text,
    /// `"char"`, a single byte.
    Char,
    Bytea,
    Numeric,
    /// `oid`, `xid` and `cid`.
    Unsigned4,
    /// `xid8`.
    Unsigned8,
    Lsn,
    Uuid,
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Interval,
    /// `inet` and `cidr`.
    Network,
    /// `macaddr` and `macaddr8`.
    Mac,
    /// `bit` and `varbit`.
    Bits,
    /// Text; arrays of it have another delimiter than the rest.
    Box,
    /// Text; its binary form is not known here.
    Other,
}

impl Scalar {
    /// By a type's OID, which is the same on every server for those that are built in (`pg_type.dat`), and by
    /// its category, if that is known.
    pub(super) fn of(type_oid: u32, category: u8) -> Self {
        match type_oid {
            16 => Scalar::Bool,
            17 => Scalar::Bytea,
            18 => Scalar::Char,
            20 => Scalar::Int8,
            21 => Scalar::Int2,
            23 => Scalar::Int4,
            // name, text, xml, unknown, bpchar, varchar, refcursor
            19 | 25 | 142 | 705 | 1042 | 1043 | 1790 => Scalar::Text,
            26 | 28 | 29 => Scalar::Unsigned4,
            114 => Scalar::Json,
            603 => Scalar::Box,
            700 => Scalar::Float4,
            701 => Scalar::Float8,
            650 | 869 => Scalar::Network,
            774 | 829 => Scalar::Mac,
            1082 => Scalar::Date,
            1083 => Scalar::Time,
            1114 => Scalar::Timestamp,
            1184 => Scalar::TimestampTz,
            1186 => Scalar::Interval,
            1266 => Scalar::TimeTz,
            1560 | 1562 => Scalar::Bits,
            1700 => Scalar::Numeric,
            2950 => Scalar::Uuid,
            3220 => Scalar::Lsn,
            3802 => Scalar::Jsonb,
            5069 => Scalar::Unsigned8,
            _ if category == b'E' => Scalar::Text,
            _ => Scalar::Other,
        }
    }

    /// What stands between the elements of an array in text.
    pub(super) fn delimiter(self) -> u8 {
        if self == Scalar::Box { b';' } else { b',' }
    }

    pub(super) fn write(self, out: &mut String, text: &[u8]) {
        match (self, text) {
            (Scalar::Bool, b"t") => out.push_str("true"),
            (Scalar::Bool, b"f") => out.push_str("false"),
            (Scalar::Int2 | Scalar::Int4 | Scalar::Float4 | Scalar::Float8, _) => json::number(out, text),
            (Scalar::Int8, _) => json::integer(out, text),
            (Scalar::Json | Scalar::Jsonb, _) => json::json(out, text),
            _ => json::string(out, text),
        }
    }

    pub(super) fn write_binary(self, out: &mut String, bytes: &[u8]) -> Result<(), Malformed> {
        let mut fields = Reader::new(bytes);
        match self {
            Scalar::Text | Scalar::Json => {
                self.write(out, bytes);
                return Ok(());
            }
            Scalar::Jsonb => {
                let before = fields;
                if fields.u8()? != 1 {
                    return Err(before.malformed("a jsonb is of another version than 1"));
                }
                json::json(out, fields.rest());
                return Ok(());
            }
            Scalar::Char => bytes::char(out, fields.u8()?),
            Scalar::Bool => out.push_str(if fields.u8()? == 0 { "false" } else { "true" }),
            Scalar::Int2 => shown(out, fields.i16()?),
            Scalar::Int4 => shown(out, fields.i32()?),
            Scalar::Int8 => {
                let integer = fields.i64()?;
                quoted_unless(json::is_exact(integer), out, |out| shown(out, integer));
            }
            Scalar::Float4 => {
                let number = f32::from_bits(fields.u32()?);
                quoted_unless(number.is_finite(), out, |out| float::write_4(out, number));
            }
            Scalar::Float8 => {
                let number = f64::from_bits(fields.u64()?);
                quoted_unless(number.is_finite(), out, |out| float::write_8(out, number));
            }
            _ => {
                out.push('"');
                self.write_inside(out, &mut fields)?;
                out.push('"');
            }
        }
        fields.finish()
    }

    /// Appends the text of a value that is a string in JSON. None of its characters needs an escape but the
    /// backslash.
    fn write_inside(self, out: &mut String, fields: &mut Reader<'_>) -> Result<(), Malformed> {
        match self {
            Scalar::Numeric => numeric::write(out, fields)?,
            Scalar::Unsigned4 => shown(out, fields.u32()?),
            Scalar::Unsigned8 => shown(out, fields.u64()?),
            Scalar::Lsn => shown(out, fields.lsn()?),
            Scalar::Uuid => bytes::uuid(out, fields)?,
            Scalar::Date => time::date(out, fields)?,
            Scalar::Time => time::time(out, fields)?,
            Scalar::TimeTz => time::time_tz(out, fields)?,
            Scalar::Timestamp => time::timestamp(out, fields, "")?,
            Scalar::TimestampTz => time::timestamp(out, fields, "+00")?,
            Scalar::Interval => time::interval(out, fields)?,
            Scalar::Network => network::address(out, fields)?,
            Scalar::Mac => network::mac(out, fields)?,
            Scalar::Bits => bytes::bit_string(out, fields)?,
            _ => bytes::bytea(out, fields),
        }
        Ok(())
    }
}

fn quoted_unless(is_number: bool, out: &mut String, write: impl FnOnce(&mut String)) {
    let quote = if is_number { "" } else { "\"" };
    out.push_str(quote);
    write(out);
    out.push_str(quote);
}

fn shown(out: &mut String, value: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    _ = write!(out, "{value}");
}
