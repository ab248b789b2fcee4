//! What `pgwake stream` says when it cannot begin: each row of the table "Streaming" in docs/errors.md is
//! brought about on a real server.
#![cfg(feature = "command")]

use crate::common::command::{Running, run as command};
use crate::common::error_table::hold;
use crate::common::log::{SETTINGS, until_free};
use crate::common::{PrivateServer, Sql, server, start_with_settings};
use std::process::Output;

/// To its end, and that of its walsender, of which there are few.
fn run(conninfo: &str, arguments: &[&str]) -> Output {
    let mut sql = Sql::connect(&format!("{conninfo} user=postgres"));
    let mut walsenders = || sql.value("SELECT count(*) FROM pg_stat_replication").parse::<u32>().unwrap();
    let before = walsenders();
    let output = command(&[&["-d", conninfo], arguments].concat());
    while walsenders() > before {}
    output
}

/// A server with room for two slots and two readers, which keeps little log for them.
fn small_server() -> PrivateServer {
    let mut settings: Vec<&str> = SETTINGS.iter().copied().filter(|line| !line.contains("max_")).collect();
    settings.extend(["max_wal_senders = 2", "max_replication_slots = 2", "max_slot_wal_keep_size = '1MB'"]);
    start_with_settings(&settings)
}

/// A stream from a slot that has begun.
fn streaming(conninfo: &str, slot: &str) -> Running {
    let mut stream = Running::start(&["-d", conninfo, "stream", "--publication", "p", "--slot", slot]);
    assert!(stream.line().contains("listening"));
    stream
}

/// Of a role that sees its own rows alone, and of a slot whose publication has lost a table.
fn of_changed_tables(sql: &mut Sql, conninfo: &str, reader: &str) -> [(&'static str, Output); 2] {
    sql.run("CREATE TABLE hers (id int PRIMARY KEY, who text); ALTER TABLE hers ENABLE ROW LEVEL SECURITY");
    sql.run("CREATE POLICY own ON hers USING (who = current_user); GRANT SELECT ON hers TO reader");
    sql.run("CREATE PUBLICATION q FOR TABLE hers; CREATE TABLE u (id int PRIMARY KEY)");
    let hidden = run(reader, &["stream", "--publication", "q", "--snapshot"]);
    let arguments = ["stream", "--table", "t", "u", "--slot", "lacks"];
    let mut stream = Running::start(&[&["-d", conninfo], &arguments[..]].concat());
    assert!(stream.line().contains("listening"));
    stream.child.kill().unwrap();
    stream.child.wait().unwrap();
    until_free(sql, "lacks");
    sql.run("DROP TABLE u; CREATE TABLE u (id int PRIMARY KEY)");
    let lacking = run(conninfo, &arguments);
    sql.run("SELECT pg_drop_replication_slot('lacks')");
    [
        ("row-level security hides rows of a snapshot from the role", hidden),
        ("one of the tables was dropped and made anew since", lacking),
    ]
}

#[test]
fn each_reason_not_to_begin_has_its_sentence() {
    let small = small_server();
    let conninfo = small.conninfo();
    let mut sql = Sql::connect(&conninfo);
    sql.run("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE bare (id int); CREATE VIEW v AS SELECT 1");
    sql.run("CREATE PUBLICATION p FOR TABLE t; CREATE ROLE plain LOGIN");
    sql.run("CREATE ROLE reader LOGIN REPLICATION");
    let of = |role: &str| conninfo.replace("user=postgres", &format!("user={role}"));
    let stream = |arguments: &[&str]| run(&conninfo, &[&["stream"], arguments].concat());
    let of_reader = |arguments: &[&str]| run(&of("reader"), &[&["stream"], arguments].concat());
    let of_p = |slot: &str| stream(&["--publication", "p", "--slot", slot]);
    let mut situations = vec![
        ("neither a table nor a publication is named", stream(&[])),
        ("the role has no REPLICATION", run(&of("plain"), &["stream", "--publication", "p"])),
        ("the role does not own the table", of_reader(&["--table", "t"])),
        ("the role may not read the rows of a snapshot", of_reader(&["--publication", "p", "--snapshot"])),
        ("the publication does not exist", stream(&["--publication", "nowhere"])),
        ("the table does not exist", stream(&["--table", "nowhere"])),
        ("the table has no replica identity", stream(&["--table", "bare"])),
        ("a view is to be published", stream(&["--table", "v"])),
        ("the slot's name cannot be one", of_p("Big")),
        ("`--drop-slot` of one that is not there", stream(&["--slot", "nowhere", "--drop-slot"])),
        (
            "`watch --transport wal` with a name that no slot can have",
            run(&conninfo, &["watch", "t", "--transport", "wal", "--name", "Big"]),
        ),
    ];
    situations.extend(of_changed_tables(&mut sql, &conninfo, &of("reader")));
    let replica = server().conninfo();
    Sql::connect(&replica).run("CREATE TABLE for_the_log (id int PRIMARY KEY)");
    situations.push(("the log cannot be read", run(&replica, &["stream", "--table", "for_the_log"])));

    sql.run("SELECT pg_create_logical_replication_slot('other', 'test_decoding')");
    situations.push(("the slot is of another plugin", of_p("other")));
    sql.run("SELECT pg_drop_replication_slot('other')");

    let mut first = streaming(&conninfo, "one");
    situations.push(("another one reads from the slot, for more than 10 s", of_p("one")));
    situations.push(("the slot was read for other tables", stream(&["--table", "t", "--slot", "one"])));
    situations.push(("`--drop-slot` of one that is read", stream(&["--slot", "one", "--drop-slot"])));
    let rows_first = ["--publication", "p", "--slot", "two", "--snapshot"];
    situations.push(("one slot is left for a snapshot", stream(&rows_first)));
    let mut second = streaming(&conninfo, "two");
    situations.push(("no walsender is left", of_p("three")));
    second.child.kill().unwrap();
    second.child.wait().unwrap();
    while sql.value("SELECT count(*) FROM pg_stat_replication") != "1" {}
    situations.push(("no slot is left", of_p("three")));

    first.child.kill().unwrap();
    first.child.wait().unwrap();
    while sql.value("SELECT count(*) FROM pg_stat_replication") != "0" {}
    for _ in 0..4 {
        sql.run("SELECT pg_logical_emit_message(true, 'a', 'b')");
        sql.run("SELECT pg_switch_wal()");
    }
    sql.run("CHECKPOINT");
    situations.push(("the slot is lost", of_p("one")));
    hold("Streaming", situations);
}
