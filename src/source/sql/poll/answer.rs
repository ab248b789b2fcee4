//! The rows of one answer, as the caller has them: nothing of them is copied.

use crate::decode::value::{self, Kind};
use crate::event::Cells;
use crate::pq::QueryResult;
use std::fmt;

pub(super) struct Answer {
    result: QueryResult,
    is_binary: bool,
    /// Of the columns that are for the caller; ours stand behind them.
    names: Vec<String>,
    kinds: Vec<Kind>,
}

/// Values never reach a log.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows of {:?}", self.result.rows(), self.names)
    }
}

impl Answer {
    /// `own` columns at the end are not for the caller.
    pub(super) fn new(result: QueryResult, own: usize, is_binary: bool) -> Self {
        let columns = result.columns().saturating_sub(own);
        let name = |column| String::from_utf8_lossy(result.column_name(column).unwrap_or_default()).into();
        let names = (0..columns).map(name).collect();
        let kinds = (0..columns).map(|column| Kind::of_built_in(result.column_type(column))).collect();
        Answer { result, is_binary, names, kinds }
    }

    /// The values of the first column as PostgreSQL writes arrays, if they came as text.
    pub(super) fn first_column(&self) -> Vec<u8> {
        let mut array = vec![b'{'];
        for row in 0..self.result.rows() {
            array.extend_from_slice(if row == 0 { b"" } else { b"," });
            let Some(value) = self.result.value(row, 0) else {
                array.extend_from_slice(b"NULL");
                continue;
            };
            array.push(b'"');
            for byte in value {
                array.extend_from_slice(if matches!(byte, b'"' | b'\\') { b"\\" } else { b"" });
                array.push(*byte);
            }
            array.push(b'"');
        }
        array.push(b'}');
        array
    }
}

impl Cells for Answer {
    fn rows(&self) -> usize {
        self.result.rows()
    }

    fn columns(&self) -> &[String] {
        &self.names
    }

    fn type_oid(&self, column: usize) -> u32 {
        if column < self.names.len() { self.result.column_type(column) } else { 0 }
    }

    fn value(&self, row: usize, column: usize) -> Option<&[u8]> {
        (column < self.names.len()).then(|| self.result.value(row, column)).flatten()
    }

    fn write_json(&self, row: usize, column: usize, out: &mut String) {
        match self.value(row, column).zip(self.kinds.get(column)) {
            None => out.push_str("null"),
            Some((value, kind)) if !self.is_binary => value::write(out, *kind, value),
            // A server does not send what is malformed.
            Some((value, kind)) => {
                if value::write_binary(out, *kind, value).is_err() {
                    out.push_str("null");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pq::rows;

    #[test]
    fn our_own_columns_are_not_for_the_caller() {
        let answer = Answer::new(rows(&[[Some("a\"b"), None, Some("x")]]), 1, false);
        assert_eq!((answer.rows(), answer.columns().len()), (1, 2));
        assert_eq!(
            (answer.value(0, 0), answer.value(0, 1), answer.value(0, 2)),
            (Some(&b"a\"b"[..]), None, None)
        );
        let mut json = String::new();
        (0..3).for_each(|column| answer.write_json(0, column, &mut json));
        assert_eq!(json, r#""a\"b"nullnull"#);
        assert_eq!(format!("{answer:?}"), r#"1 rows of ["column", "column"]"#);
    }

    #[test]
    fn the_first_column_is_an_array_of_postgresql() {
        let array = |rows| Answer::new(rows, 0, false).first_column();
        assert_eq!(array(rows(&[[Some("1")], [Some("a\"\\,}")], [None]])), br#"{"1","a\"\\,}",NULL}"#);
    }
}
