//! Where a stream stands: what a caller acknowledges late, a slot that somebody else moves, and what is
//! described while a transaction is held back.

use crate::common::log::{Stream, database};
use crate::common::{Sql, fresh_channel};
use pgwake::StreamOptions;

fn prepare(sql: &mut Sql) -> (String, StreamOptions) {
    sql.run("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t");
    let slot = fresh_channel();
    (slot.clone(), StreamOptions::new().publication("p").slot(&slot).create_slot(true))
}

#[test]
fn a_snapshot_leaves_no_slot_behind_but_the_one_that_lasts() {
    let (conninfo, mut sql) = database("");
    let (_, options) = prepare(&mut sql);
    sql.run("INSERT INTO t VALUES (1)");
    let mut stream = Stream::open(&conninfo, options.snapshot(true));
    assert_eq!(stream.change()["new"]["id"], 1);
    sql.run("INSERT INTO t VALUES (2)");
    assert_eq!(stream.change()["new"]["id"], 2);
    let count = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    assert_eq!(sql.value(count), "1");
}
