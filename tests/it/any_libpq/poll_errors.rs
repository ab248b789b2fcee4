//! What `pgwake poll` says when it cannot begin: each row of the table "Polling" in docs/errors.md is brought
//! about on a real server.
#![cfg(feature = "command")]

use crate::common::command::{Running, run as command};
use crate::common::error_table::hold;
use crate::common::outbox::database;
use crate::common::{Sql, fresh_channel, server};
use std::process::Output;

/// The rows of a transaction, 20 MB.
const LONG: &str = "SELECT log.*, repeat('x', 1000000) FROM log, generate_series(1, 20)";

fn poll(conninfo: &str, sql: &str, arguments: &[&str]) -> Output {
    // Without an error it would go on for ever.
    command(&[&["-d", conninfo, "poll", sql, "--name", "nothing", "--for", "3s"], arguments].concat())
}

#[test]
fn each_reason_not_to_begin_has_its_sentence() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE log (id bigserial, xid xid8 NOT NULL DEFAULT pg_current_xact_id())");
    let role = sql.value("SELECT 'polls_' || current_database()");
    sql.run(&format!(
        "CREATE ROLE {role} LOGIN; CREATE TABLE free (xid xid8); GRANT SELECT ON free TO PUBLIC"
    ));
    let plain = conninfo.replace("user=postgres", &format!("user={role}"));
    let of = |sql: &str| poll(&conninfo, sql, &[]);
    let cursor = |sql: &str| poll(&conninfo, sql, &["--cursor", "c"]);
    let log = "SELECT * FROM log";
    let mut reader = Running::start(&["-d", &conninfo, "poll", log, "--cursor", "reader", "--from-start"]);
    sql.run("INSERT INTO log DEFAULT VALUES");
    assert!(reader.line().contains("rows"));
    let in_use = poll(&conninfo, log, &["--cursor", "reader"]);
    reader.child.kill().unwrap();
    let situations = vec![
        ("the query is empty", of(" ")),
        ("the query has no statement", of("; -- nothing")),
        ("the query is COPY", of("COPY log TO STDOUT")),
        ("the query is BEGIN, behind a comment", of("/* first */ begin")),
        (
            "the longest interval is shorter than the first",
            poll(&conninfo, log, &["--every", "2s", "--adaptive", "1s"]),
        ),
        ("a cursor and batches at once", poll(&conninfo, log, &["--cursor", "c", "--batch-rows", "1"])),
        ("the table of the query does not exist", of("SELECT * FROM nowhere")),
        ("the query lacks a parameter", of("SELECT * FROM log WHERE id = $1")),
        ("the role may not read the table", poll(&plain, log, &[])),
        ("the rows have no column for the cursor", cursor("SELECT id FROM log")),
        ("that column is of another type", cursor("SELECT id AS xid FROM log")),
        (
            "a cursor without the schema (`--no-install`)",
            poll(&without_schema(), "SELECT '1'::xid8 AS xid", &["--cursor", "c", "--no-install"]),
        ),
        (
            "the role may not keep a cursor",
            poll(&plain, "SELECT * FROM free", &["--cursor", "c", "--no-install"]),
        ),
        (
            "a batch of what cannot be locked",
            poll(&conninfo, "SELECT count(*) FROM log", &["--batch-rows", "1"]),
        ),
        ("the query takes too long", poll(&conninfo, "SELECT pg_sleep(60)", &["--timeout", "100ms"])),
        ("another reads under the cursor's name", in_use),
        ("the query of a cursor has a LIMIT", cursor("SELECT * FROM log LIMIT 5")),
        (
            "a transaction has more rows than one event takes",
            poll(&conninfo, LONG, &["--cursor", "c", "--from-start", "--bytes-max", "16MB"]),
        ),
        ("a size that no event has", poll(&conninfo, log, &["--bytes-max", "5GB"])),
        (
            "what is done with a batch is refused",
            poll(&conninfo, log, &["--batch-rows", "2", "--count", "1", "--done", "DELETE FROM nowhere"]),
        ),
    ];
    hold("Polling", situations);
}

/// The second refusal is no news, and the end does not wait for it in vain.
#[test]
fn the_reason_why_the_last_rows_come_again_is_said_also_when_it_is_not_the_first_time() {
    let mut sql = Sql::connect(&server().conninfo());
    let table = fresh_channel();
    sql.run(&format!("CREATE TABLE {table} (id int); INSERT INTO {table} VALUES (1), (2)"));
    let select = format!("SELECT id FROM {table}");
    let options = ["--batch-rows", "2", "--count", "2", "--every", "10ms", "--done", "DELETE FROM nowhere"];
    let output = poll(&server().conninfo(), &select, &options);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("will come again: the poll \"nothing\": relation \"nowhere\" does not"), "{said}");
    assert!(output.status.code() == Some(1) && said.contains("(SQLSTATE 42P01)"), "{said}");
}

fn without_schema() -> String {
    Sql::connect(&server().conninfo()).run("CREATE DATABASE polled_without");
    server().conninfo().replace("dbname=postgres", "dbname=polled_without")
}
