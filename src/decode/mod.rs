//! Bytes to values: pure, without allocation once it is warm, and never trusting what came from outside.

pub(crate) mod ddl;
mod object;
// Nothing but tests reads the log yet.
#[allow(dead_code)]
pub(crate) mod pgoutput;
#[allow(dead_code)]
pub(crate) mod replication;
pub(crate) mod row_change;
#[cfg(test)]
mod tests;
#[allow(dead_code)]
pub(crate) mod value;
#[allow(dead_code)]
pub(crate) mod wire;
