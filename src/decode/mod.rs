//! Bytes to values: pure, without allocation once it is warm, and never trusting what came from outside.

pub(crate) mod ddl;
mod object;
pub(crate) mod row_change;
