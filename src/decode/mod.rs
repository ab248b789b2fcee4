//! Bytes to values: pure, without allocation once it is warm, and never trusting what came from outside.

pub(crate) mod ddl;
mod object;
// Nothing but tests reads the log yet.
#[allow(dead_code)]
pub(crate) mod pgoutput;
#[cfg(test)]
#[path = "../../tests/it/common/random.rs"]
#[allow(dead_code)]
mod random;
#[allow(dead_code)]
pub(crate) mod replication;
pub(crate) mod row_change;
#[allow(dead_code)]
pub(crate) mod value;
#[allow(dead_code)]
pub(crate) mod wire;
