//! Bytes to values: pure, without allocation once it is warm, and never trusting what came from outside.

pub(crate) mod ddl;
mod object;
pub(crate) mod pgoutput;
pub(crate) mod replication;
pub(crate) mod row_change;
#[cfg(test)]
mod tests;
pub(crate) mod value;
pub(crate) mod wire;
