//! One value of a row: PostgreSQL's text or binary form flows in, JSON flows out, appended to a string.
//!
//! Both forms give the same JSON, which is that of the outbox (`install/sql/02_convert.sql`), but for arrays,
//! which are arrays here. The forms are those of the server under the settings that the session makes:
//! DateStyle ISO, IntervalStyle postgres, TimeZone UTC, bytea_output hex, extra_float_digits 1 or more.

mod array;
mod bytes;
mod float;
mod json;
mod network;
mod numeric;
mod scalar;
#[cfg(test)]
mod tests;
mod time;

use super::wire::Malformed;
use scalar::Scalar;

/// How the values of a type become JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A value of its own.
    One(Scalar),
    /// An array, whose lower bounds are not told.
    Array(Scalar),
    /// `int2vector` and `oidvector`, which are arrays to the server: their text is numbers with spaces
    /// between.
    Vector,
}

impl Kind {
    /// Of a type by its OID, by its category in `pg_type`, and by the OID of its elements, which is 0 where
    /// it has none. Where only the OID is known, the category is 0, too: then the values of a type that is
    /// not built in are text. A domain is of the kind of the type below it.
    pub(crate) fn of(type_oid: u32, category: u8, element_oid: u32) -> Self {
        const INT2VECTOR: u32 = 22;
        const OIDVECTOR: u32 = 30;
        match type_oid {
            INT2VECTOR | OIDVECTOR => Kind::Vector,
            _ if category == b'A' && element_oid != 0 => Kind::Array(Scalar::of(element_oid, 0)),
            _ => Kind::One(Scalar::of(type_oid, category)),
        }
    }
}

/// Appends text as a JSON string.
pub(crate) fn write_text(out: &mut String, text: &[u8]) {
    json::string(out, text);
}

/// Appends a value that came as text. What is not the text of such a value becomes a string.
pub(crate) fn write(out: &mut String, kind: Kind, text: &[u8]) {
    match kind {
        Kind::One(scalar) => scalar.write(out, text),
        Kind::Array(element) => array::write(out, element, text),
        Kind::Vector => json::string(out, text),
    }
}

/// Appends a value that came in binary; nothing, if it is malformed. One of a type whose binary form is not
/// known here becomes a string like `\x0a1b`, as `bytea` does.
pub(crate) fn write_binary(out: &mut String, kind: Kind, bytes: &[u8]) -> Result<(), Malformed> {
    let start = out.len();
    let written = match kind {
        Kind::One(scalar) => scalar.write_binary(out, bytes),
        Kind::Array(element) => array::write_binary(out, element, bytes),
        Kind::Vector => array::write_vector(out, bytes),
    };
    if written.is_err() {
        out.truncate(start);
    }
    written
}
