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

    /// Of a type of which only the OID is known. Arrays of types that are not built in are text then.
    pub(crate) fn of_built_in(type_oid: u32) -> Self {
        match ARRAYS.binary_search_by_key(&type_oid, |(array, _)| *array) {
            Ok(place) => Kind::of(type_oid, b'A', ARRAYS[place].1),
            Err(_) => Kind::of(type_oid, 0, 0),
        }
    }
}

/// The types of arrays that every server has, and the types of their elements (`pg_type.dat`).
#[rustfmt::skip]
const ARRAYS: [(u32, u32); 65] = [
    (143, 142), (199, 114), (271, 5069), (629, 628), (651, 650), (719, 718), (775, 774), (791, 790),
    (1000, 16), (1001, 17), (1002, 18), (1003, 19), (1005, 21), (1006, 22), (1007, 23), (1008, 24),
    (1009, 25), (1010, 27), (1011, 28), (1012, 29), (1013, 30), (1014, 1042), (1015, 1043), (1016, 20),
    (1017, 600), (1018, 601), (1019, 602), (1020, 603), (1021, 700), (1022, 701), (1027, 604), (1028, 26),
    (1034, 1033), (1040, 829), (1041, 869), (1115, 1114), (1182, 1082), (1183, 1083), (1185, 1184),
    (1187, 1186), (1231, 1700), (1263, 2275), (1270, 1266), (1561, 1560), (1563, 1562), (2201, 1790),
    (2207, 2202), (2208, 2203), (2209, 2204), (2210, 2205), (2211, 2206), (2949, 2970), (2951, 2950),
    (3221, 3220), (3643, 3614), (3644, 3642), (3645, 3615), (3735, 3734), (3770, 3769), (3807, 3802),
    (4073, 4072), (4090, 4089), (4097, 4096), (4192, 4191), (5039, 5038),
];

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
