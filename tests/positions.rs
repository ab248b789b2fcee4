//! Positions of readers: where from on a reader looks, and that nothing unread lies before that.

mod common;

use common::outbox::{Reader, database};
use common::random::Random;
use common::{Sql, start_server};

const WRITERS: usize = 6;
const STEPS: usize = 600;

/// All rows of the outbox.
const OUTBOX: &str =
    "(TABLE pgwake.outbox_0 UNION ALL TABLE pgwake.outbox_1 UNION ALL TABLE pgwake.outbox_2) o";

/// A position's floor.
fn floor(sql: &mut Sql, position: &str) -> u64 {
    sql.value(&format!("SELECT pgwake.floor_of('{position}')")).parse().unwrap()
}

#[test]
fn nothing_unread_lies_below_the_floor_of_any_position() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')");
    let mut random = Random::seeded();
    let mut reader = Reader::open(&conninfo, "a");
    let mut writers: Vec<_> = (0..WRITERS).map(|_| (Sql::connect(&conninfo), false)).collect();
    let (mut positions, mut told) = (vec![reader.position().to_string()], Vec::new());
    for id in 0..STEPS {
        let (writer, is_open) = &mut writers[random.below(WRITERS as u64) as usize];
        match random.below(8) {
            0..=2 => {
                writer.run(if *is_open { "SELECT 1" } else { "BEGIN" });
                writer.run(&format!("INSERT INTO t VALUES ({id})"));
                *is_open = true;
            }
            3 if *is_open => {
                writer.run(&format!("SAVEPOINT s; INSERT INTO t VALUES ({id}); ROLLBACK TO s"));
            }
            4 => {
                writer.run(if *is_open && random.below(3) == 0 { "ROLLBACK" } else { "COMMIT" });
                *is_open = false;
            }
            5 => sql.run(&format!("INSERT INTO t VALUES ({id})")),
            // The position is what the database keeps: a reader that comes again goes on from it.
            6 if random.below(4) == 0 => {
                drop(reader);
                reader = Reader::open(&conninfo, "a");
            }
            _ => told.extend(reader.page(1 + random.below(5) as usize)),
        }
        positions.push(reader.position().to_string());
    }
    for (writer, _) in &mut writers {
        writer.run("COMMIT");
    }
    told.extend(reader.all_raw());
    let told: Vec<String> = told.iter().map(|change| change["key"]["id"].to_string()).collect();
    let mut once = told.clone();
    once.sort_by_key(|id| id.parse::<u32>().unwrap());
    assert_eq!(once.join(","), sql.value("SELECT string_agg(id::text, ',' ORDER BY id) FROM t"));
    for position in positions {
        let before = position.split(['|', ';']).next().unwrap();
        let unread = format!(
            "SELECT count(*) FROM {OUTBOX} WHERE NOT pg_visible_in_snapshot(xid, '{before}')
               AND id <= pgwake.floor_of('{position}')"
        );
        assert_eq!(sql.value(&unread), "0", "{position}");
    }
}

#[test]
fn a_long_transaction_holds_up_no_floor_but_its_own() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')");
    let mut reader = Reader::open(&conninfo, "a");
    let (mut long, mut writer) = (Sql::connect(&conninfo), Sql::connect(&conninfo));
    long.run("BEGIN; INSERT INTO t VALUES (0)");
    for id in 1..=1000 {
        writer.run(&format!("BEGIN; INSERT INTO t VALUES ({id})"));
        reader.page(1000);
        writer.run("COMMIT");
        assert_eq!(reader.page(1000).len(), 1);
    }
    let rows: u64 = sql.value(&format!("SELECT max(id) FROM {OUTBOX}")).parse().unwrap();
    let position = reader.position().to_string();
    let of_others = format!("SELECT pgwake.floor_of('{position}', pg_current_snapshot())");
    let of_others: u64 = sql.value(&of_others).parse().unwrap();
    assert!(of_others + 200 > rows, "a reader would look at many old rows again: {of_others} of {rows}");
    assert!(floor(&mut sql, &position) < rows - 1000, "what the long one wrote is still unread");
    assert!((2..12).contains(&position.split(';').nth(1).unwrap().split(',').count()), "{position}");
    long.run("COMMIT");
    assert_eq!(reader.page(1000).len(), 1);
    reader.all_raw();
    let position = reader.position().to_string();
    assert_eq!((floor(&mut sql, &position), reader.state), (rows, 0), "nothing is left: {position}");
}

#[test]
fn a_writer_has_its_number_before_it_draws_an_id() {
    let (_, mut sql) = database("");
    sql.run(
        "CREATE FUNCTION spy() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
           IF pg_current_xact_id_if_assigned() IS NULL THEN RAISE 'it has none'; END IF;
           RETURN nextval('pgwake.outbox_id'); END $$;
         ALTER TABLE pgwake.outbox_0 ALTER id SET DEFAULT spy();
         CREATE TABLE t (id int PRIMARY KEY);
         CREATE TABLE early (id int PRIMARY KEY);
         CREATE VIEW v AS SELECT id FROM t;
         CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER nothing INSTEAD OF INSERT OR UPDATE ON v FOR EACH ROW EXECUTE FUNCTION nothing();
         SELECT pgwake.watch_table('t'), pgwake.watch_table('v', '{insert,update}'),
           pgwake.watch_table('early', timing => 'before')",
    );
    for statement in [
        "INSERT INTO v VALUES (1)",
        "INSERT INTO early VALUES (1)",
        "UPDATE early SET id = 2",
        "DELETE FROM early",
        "TRUNCATE early",
        "INSERT INTO t SELECT generate_series(1, 1000)",
        "UPDATE v SET id = 2 WHERE id = 1",
        "TRUNCATE t",
    ] {
        sql.run(statement);
        let count = "WITH d AS (DELETE FROM pgwake.outbox_0 RETURNING 1) SELECT count(*) > 0 FROM d";
        assert_eq!(sql.value(count), "t", "{statement}");
    }
}

#[test]
fn whoever_looks_at_sequences_is_no_writer_and_an_old_snapshot_no_reader() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')");
    let mut reader = Reader::open(&conninfo, "a");
    let mut other = Sql::connect(&conninfo);
    other.run("BEGIN; SELECT pg_sequence_last_value('pgwake.state')");
    assert_eq!((reader.page(1000).len(), reader.state), (0, 0), "it has written nothing");
    other.run("INSERT INTO t VALUES (1)");
    assert_eq!((reader.page(1000).len(), reader.state), (0, 2), "now it has");
    other.run("COMMIT");
    assert_eq!(reader.all_raw().len(), 1);
    // What ends between such a snapshot and a look at the locks would be missed for good.
    sql.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    let refused = sql.try_run("SELECT pgwake.open_consumer('b')").unwrap_err();
    assert!(refused.message.contains("READ COMMITTED"), "{refused}");
    sql.run("ROLLBACK; BEGIN ISOLATION LEVEL SERIALIZABLE");
    let refused = sql.try_run(&format!("SELECT pgwake.read('a', '{}')", reader.position())).unwrap_err();
    assert!(refused.message.contains("READ COMMITTED"), "{refused}");
    sql.run("ROLLBACK; ALTER SEQUENCE pgwake.outbox_id CACHE 20");
    let remedy = sql.value("SELECT remedy FROM pgwake.check() WHERE object = 'pgwake.outbox_id'");
    sql.run(&remedy);
    assert_eq!(sql.value("SELECT count(*) FROM pgwake.check() WHERE object = 'pgwake.outbox_id'"), "0");
}

#[test]
fn a_sequence_that_was_set_back_hides_no_change() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')");
    let mut reader = Reader::open(&conninfo, "a");
    sql.run("INSERT INTO t SELECT generate_series(1, 3); UPDATE t SET id = id + 10; DELETE FROM t");
    assert_eq!(reader.all_raw().len(), 9);
    assert_eq!((reader.page(1000).len(), reader.state), (0, 0));
    sql.run("SELECT setval('pgwake.outbox_id', 1); INSERT INTO t VALUES (4)");
    assert_eq!(reader.all_raw().len(), 1);
    sql.run("SELECT setval('pgwake.outbox_id', 1)");
    let remedy = sql.value("SELECT remedy FROM pgwake.check() WHERE object = 'pgwake.outbox_id'");
    sql.run(&remedy);
    assert_eq!(sql.value("SELECT count(*) FROM pgwake.check() WHERE object = 'pgwake.outbox_id'"), "0");
    assert_eq!((reader.page(1000).len(), reader.state), (0, 0));
}

#[test]
fn a_mark_is_of_a_number_that_is_still_to_come() {
    // A server of its own: each transaction counts.
    let server = start_server();
    let mut sql = Sql::connect(&server.conninfo());
    sql.run(&pgwake::install::install());
    let next = "SELECT split_part(pgwake.mark_now(), ';', 1)::xid8";
    let mark: u64 = sql.value(next).parse().unwrap();
    assert_eq!(sql.value("SELECT pg_current_xact_id()").parse(), Ok(mark));
    // In a transaction that has a number, or has been told of an earlier one, there is none.
    sql.run("BEGIN; SELECT pg_current_xact_id()");
    assert_eq!(sql.value("SELECT pgwake.mark_now()"), "");
    sql.run("COMMIT; BEGIN; SELECT age('3'::xid)");
    Sql::connect(&server.conninfo()).run("SELECT pg_current_xact_id()");
    assert_eq!(sql.value("SELECT pgwake.mark_now()"), "");
    sql.run("COMMIT");
}
