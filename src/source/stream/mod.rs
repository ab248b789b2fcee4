//! Row changes from the log: what a replication session streams, turned into events.

#[allow(dead_code, reason = "the stream that holds transactions back is not written yet")]
mod transaction;
