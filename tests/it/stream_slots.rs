//! What keeps a stream from streaming: each state of slots, rights and servers is one event, with its
//! SQLSTATE and a sentence that says what to do.

use crate::common::log::{SETTINGS, Stream, database, has, log_server, major};
use crate::common::pgbouncer::PgBouncer;
use crate::common::proxy::{Fault, Proxy, Upstream};
use crate::common::relay::relay;
use crate::common::{
    PrivateServer, Sql, fresh_channel, make_standby, say_loudly, server, start_with_settings,
};
use pgwake::{Lsn, Origin, StreamOptions};
use serde_json::Value;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

/// Nothing comes within that time.
const QUIET: Duration = Duration::from_millis(300);

/// A table `t`, a publication `p` of it.
fn published(sql: &mut Sql) {
    sql.run("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t");
}

fn publication() -> StreamOptions {
    StreamOptions::new().publication("p")
}

/// A slot of that name is made when it is missing.
fn kept(slot: &str) -> StreamOptions {
    publication().slot(slot).create_slot(true)
}

fn told(event: &Value) -> (String, String, String) {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_string();
    (text("event"), text("sqlstate"), text("message"))
}

/// It fails for good, which is the one thing it says, with this code and these words.
fn fails(stream: &mut Stream, sqlstate: &str, words: &[&str]) {
    let failed = stream.next();
    let (event, code, message) = told(&failed);
    assert_eq!((&*event, &*code), ("failed", sqlstate), "{failed}");
    assert!(words.iter().all(|word| message.contains(word)), "{words:?} are not all in: {message}");
    println!("{sqlstate}: {message}");
    assert_eq!(stream.within(QUIET), None, "it is said once");
}

/// The connection is lost or refused, with this code and these words.
fn is_lost(stream: &mut Stream, sqlstate: &str, words: &[&str]) {
    let lost = stream.next();
    let (event, code, message) = told(&lost);
    assert_eq!((&*event, &*code), ("disconnected", sqlstate), "{lost}");
    assert!(words.iter().all(|word| message.contains(word)), "{words:?} are not all in: {message}");
}

fn is_refused(conninfo: &str, options: StreamOptions, sqlstate: &str, words: &[&str]) {
    fails(&mut Stream::start(conninfo, options), sqlstate, words);
}

fn active_pid(sql: &mut Sql, slot: &str) -> String {
    sql.value(&format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}'"))
}

/// Ends the process that reads a slot, and waits for its end.
fn end_reader(sql: &mut Sql, slot: &str) {
    let pid = active_pid(sql, slot);
    assert_eq!(sql.value(&format!("SELECT pg_terminate_backend({pid}, 20000)")), "t");
}

#[test]
fn a_slot_that_is_missing_is_made_only_where_that_is_asked_for() {
    let (conninfo, mut sql) = database("");
    published(&mut sql);
    let slot = fresh_channel();
    is_refused(&conninfo, publication().slot(&slot), "42704", &["no replication slot", &slot, "create_slot"]);
    drop(Stream::open(&conninfo, kept(&slot)));
    drop(Stream::open(&conninfo, publication().slot(&slot)));
}

#[test]
fn a_slot_that_lasts_is_not_read_as_a_temporary_one() {
    let (conninfo, mut sql) = database("");
    published(&mut sql);
    let slot = fresh_channel();
    let temporary = publication().slot(&slot).temporary(true);
    let mut stream = Stream::open(&conninfo, temporary.clone());
    end_reader(&mut sql, &slot);
    is_lost(&mut stream, "57P01", &[]);
    assert_eq!(stream.next()["event"], "gap", "its own is made anew");
    drop(stream);
    let mut lasting = Stream::start(&conninfo, kept(&slot));
    assert_eq!(lasting.next()["event"], "listening");
    drop(lasting);
    is_refused(&conninfo, temporary, "42710", &[&slot, "not a temporary one", "leave out temporary"]);
}

#[test]
fn a_slot_that_was_dropped_while_we_were_away_is_not_made_anew() {
    let (conninfo, mut sql) = database("");
    published(&mut sql);
    let slot = fresh_channel();
    let mut stream = Stream::open(&conninfo, kept(&slot));
    end_reader(&mut sql, &slot);
    sql.run(&format!("SELECT pg_drop_replication_slot('{slot}')"));
    is_lost(&mut stream, "57P01", &[]);
    fails(&mut stream, "42704", &[&slot, "is gone", "somebody dropped it"]);
    let count = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}'");
    assert_eq!(sql.value(&count), "0");
}

#[test]
fn a_slot_that_another_one_makes_while_the_rows_come_is_told() {
    let (conninfo, mut sql) = database("");
    published(&mut sql);
    sql.run("INSERT INTO t VALUES (1)");
    let slot = fresh_channel();
    let mut stream = Stream::open(&conninfo, kept(&slot).snapshot(true).manual_ack(true));
    let row = stream.change();
    sql.run(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    let lsn: Lsn = row["commit_lsn"].as_str().unwrap().parse().unwrap();
    stream.events.ack(stream.id, lsn.0).unwrap();
    fails(&mut stream, "42710", &[&slot, "another one made it while the rows came"]);
    sql.run(&format!("SELECT pg_drop_replication_slot('{slot}')"));
}

#[test]
fn standbys_keep_a_slot_from_when_that_is_asked_for() {
    if !has(17, "slots that standbys keep") {
        return;
    }
    let (conninfo, mut sql) = database("");
    published(&mut sql);
    let (slot, options) = (fresh_channel(), |slot: &str| kept(slot).failover(true));
    let is_kept = format!("SELECT failover FROM pg_replication_slots WHERE slot_name = '{slot}'");
    drop(Stream::open(&conninfo, kept(&slot)));
    assert_eq!(sql.value(&is_kept), "f");
    let mut stream = Stream::open(&conninfo, options(&slot));
    assert_eq!(sql.value(&is_kept), "t");
    sql.run("INSERT INTO t VALUES (1)");
    assert_eq!(stream.change()["new"]["id"], 1);
}

#[test]
fn a_slot_that_is_lost_is_told_once_and_never_made_anew() {
    let server = start_with_settings(&[&SETTINGS[..], &["max_slot_wal_keep_size = 1MB"]].concat());
    let (conninfo, mut sql) = (server.conninfo(), Sql::connect(&server.conninfo()));
    published(&mut sql);
    sql.run("CREATE TABLE other (id int)");
    let mut stream = Stream::open(&conninfo, kept("lost"));
    let status = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'lost'";
    while sql.value(status) != "lost" {
        sql.run("INSERT INTO other VALUES (1); SELECT pg_switch_wal()");
        sql.run("CHECKPOINT");
    }
    is_lost(&mut stream, "57P01", &[]);
    let words = ["is lost", "max_slot_wal_keep_size", "begin anew"];
    fails(&mut stream, "55000", &words);
    is_refused(&conninfo, kept("lost"), "55000", &words);
    assert_eq!(sql.value(status), "lost");
}

#[test]
fn a_slot_that_somebody_else_reads_is_waited_for_and_then_told_with_the_process() {
    let (conninfo, mut sql) = database("");
    published(&mut sql);
    let slot = fresh_channel();
    let first = Stream::open(&conninfo, kept(&slot));
    let pid = active_pid(&mut sql, &slot);
    is_refused(&conninfo, kept(&slot), "55006", &[&slot, &format!("process {pid}")]);
    assert_eq!(active_pid(&mut sql, &slot), pid, "nobody ends what is not his");
    let mut second = Stream::start(&conninfo, kept(&slot));
    assert_eq!(second.within(Duration::from_secs(1)), None, "it waits");
    drop(first);
    assert_eq!(second.next()["event"], "listening");
}

/// The server does not notice that its client is gone, as behind a firewall that forgets: its process would
/// read the slot for ever.
#[test]
fn our_own_process_of_before_gives_way_when_the_way_to_it_is_cut() {
    let (conninfo, mut sql) = database("");
    published(&mut sql);
    let proxy = Proxy::new(Upstream::Tcp(log_server().port()));
    let name = sql.value("SELECT current_database()");
    let through = proxy.conninfo("disable").replace("dbname=postgres", &format!("dbname={name}"));
    let slot = fresh_channel();
    let mut stream = Stream::open(&through, kept(&slot).heartbeat(Duration::from_secs(1)));
    let pid = active_pid(&mut sql, &slot);
    proxy.set(Fault::BlackHole);
    is_lost(&mut stream, "08006", &["did not answer"]);
    proxy.set(Fault::Nothing);
    while stream.next()["event"] != "listening" {}
    assert_ne!(active_pid(&mut sql, &slot), pid);
    sql.run("INSERT INTO t VALUES (1)");
    assert_eq!(stream.change()["new"]["id"], 1);
    drop(conninfo);
}

#[test]
fn a_server_without_a_slot_left_says_so_and_is_asked_again() {
    let settings: Vec<_> =
        SETTINGS.iter().filter(|line| !line.starts_with("max_replication")).copied().collect();
    let server = start_with_settings(&[&settings[..], &["max_replication_slots = 1"]].concat());
    let conninfo = server.conninfo();
    published(&mut Sql::connect(&conninfo));
    let first = Stream::open(&conninfo, publication());
    let mut second = Stream::start(&conninfo, publication());
    is_lost(&mut second, "53400", &["in use", "max_replication_slots"]);
    drop(first);
    while second.next()["event"] != "listening" {}
    drop(second);
    let mut third = Stream::start(&conninfo, publication().slot("s").create_slot(true).snapshot(true));
    is_lost(&mut third, "53400", &["two replication slots", "1 is left", "max_replication_slots"]);
}

#[test]
fn who_may_not_replicate_is_told_what_to_ask_for() {
    let (conninfo, mut sql) = database("");
    published(&mut sql);
    sql.run("CREATE ROLE may_not_replicate LOGIN");
    let mut stream =
        Stream::start(&conninfo.replace("user=postgres", "user=may_not_replicate"), publication());
    is_lost(&mut stream, "42501", &["ALTER ROLE"]);
    fails(&mut stream, "42501", &["ALTER ROLE", "REPLICATION"]);
    // Another table's owner may not make a publication of it either.
    sql.run("CREATE ROLE may_replicate LOGIN REPLICATION");
    let conninfo = conninfo.replace("user=postgres", "user=may_replicate");
    is_refused(&conninfo, StreamOptions::new().table("t"), "42501", &["owner", "publication"]);
    drop(Stream::open(&conninfo, publication()));
}

#[test]
fn a_server_that_does_not_log_what_is_needed_is_told() {
    let table = fresh_channel();
    let mut sql = Sql::connect(&server().conninfo());
    sql.run(&format!("CREATE TABLE {table} (id int PRIMARY KEY)"));
    let options = StreamOptions::new().table(&table);
    is_refused(&server().conninfo(), options, "55000", &["wal_level is replica", "ALTER SYSTEM"]);
    sql.run(&format!("DROP TABLE {table}"));
}

#[test]
fn a_publication_that_is_missing_is_named() {
    let (conninfo, mut sql) = database("");
    published(&mut sql);
    is_refused(
        &conninfo,
        publication().publication("nil"),
        "42704",
        &["publication nil", "CREATE PUBLICATION"],
    );
    is_refused(&conninfo, StreamOptions::new().table("Nil"), "42P01", &["nil", "as SQL does"]);
}

#[test]
fn a_table_without_a_replica_identity_is_refused_before_its_writers_fail() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE bare (id int); INSERT INTO bare VALUES (1)");
    sql.run(
        "CREATE TABLE parts (id int) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF parts DEFAULT",
    );
    // A key that may be violated meanwhile names no row, and children have none of their parent's.
    sql.run("CREATE TABLE late (id int PRIMARY KEY DEFERRABLE); CREATE TABLE parent (id int PRIMARY KEY)");
    sql.run("CREATE TABLE child () INHERITS (parent); CREATE TABLE bare_child (id int) INHERITS (child)");
    let named = [("bare", "bare"), ("parts", "part"), ("late", "late"), ("parent", "bare_child")];
    for (table, named) in named {
        let named = &format!("table {named} ");
        let words = [named, "no replica identity", "REPLICA IDENTITY FULL"];
        is_refused(&conninfo, StreamOptions::new().table(table), "55000", &words);
    }
    sql.run("UPDATE bare SET id = 2; DELETE FROM bare; DELETE FROM late; DELETE FROM parent");
    assert_eq!(sql.value("SELECT count(*) FROM pg_publication"), "0");
}

/// One that is a child only later is not published, and what is published is not made worse by reading it.
#[test]
fn a_slot_is_read_on_whatever_became_of_replica_identities() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE loose (id int PRIMARY KEY)");
    let slot = fresh_channel();
    let options = || StreamOptions::new().table("parent").table("loose").slot(&slot).create_slot(true);
    drop(Stream::open(&conninfo, options()));
    sql.run("CREATE TABLE child () INHERITS (parent); ALTER TABLE loose DROP CONSTRAINT loose_pkey");
    sql.run("INSERT INTO child VALUES (1); UPDATE child SET id = 2; INSERT INTO loose VALUES (3)");
    let mut stream = Stream::open(&conninfo, options());
    assert_eq!(stream.change()["new"]["id"], 3);
}

#[test]
fn a_slot_of_another_plugin_or_database_is_not_read() {
    let (conninfo, mut sql) = database("");
    published(&mut sql);
    let (elsewhere, other) = (fresh_channel(), fresh_channel());
    Sql::connect(&log_server().conninfo())
        .run(&format!("SELECT pg_create_logical_replication_slot('{elsewhere}', 'pgoutput')"));
    is_refused(&conninfo, kept(&elsewhere), "55000", &[&elsewhere, "not one of pgoutput in this database"]);
    sql.run(&format!("SELECT pg_create_physical_replication_slot('{other}')"));
    is_refused(&conninfo, kept(&other), "55000", &[&other, "not one of pgoutput in this database"]);
    sql.run(&format!(
        "SELECT pg_drop_replication_slot(name) FROM (VALUES ('{elsewhere}'), ('{other}')) AS s (name)"
    ));
}

/// Leads every new connection to the port that stands there then.
fn switch(port: Arc<AtomicU16>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own_port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let Ok(server) = TcpStream::connect(("127.0.0.1", port.load(Ordering::SeqCst))) else { continue };
            let ends = [(&client, &server), (&server, &client)]
                .map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()));
            for (mut from, mut to) in ends {
                std::thread::spawn(move || {
                    let copied = std::io::copy(&mut from, &mut to);
                    to.shutdown(Shutdown::Both).and(copied)
                });
            }
        }
    });
    own_port
}

fn at_port(port: u16) -> String {
    format!("host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable gssencmode=disable")
}

#[test]
fn another_server_at_the_same_address_is_not_taken_for_the_one_that_was_read() {
    let servers: [PrivateServer; 2] = std::array::from_fn(|_| start_with_settings(&SETTINGS));
    let mut sql = [0, 1].map(|n: usize| Sql::connect(&servers[n].conninfo()));
    sql.iter_mut().for_each(published);
    let port = Arc::new(AtomicU16::new(servers[0].port()));
    let conninfo = at_port(switch(port.clone()));
    let mut stream = Stream::open(&conninfo, kept("swapped"));
    let mut temporary = Stream::open(&conninfo, publication());
    port.store(servers[1].port(), Ordering::SeqCst);
    sql[0].run("SELECT pg_terminate_backend(active_pid, 20000) FROM pg_replication_slots");
    is_lost(&mut stream, "57P01", &[]);
    fails(&mut stream, "55000", &["another server", "system identifier"]);
    assert_eq!(sql[1].value("SELECT count(*) FROM pg_replication_slots"), "0", "none is made there");
    // What is not kept begins anew in any case, with a gap.
    is_lost(&mut temporary, "57P01", &[]);
    assert_eq!(temporary.next()["event"], "gap");
}

/// From now on the relay has the server say that its log is at its beginning.
static IS_RESTORED: AtomicBool = AtomicBool::new(false);

fn restored(kind: u8, content: &mut [u8]) -> bool {
    // The answer to IDENTIFY_SYSTEM: the identifier, the timeline, the place in the log, the database.
    if kind == b'D' && content.starts_with(&[0, 4]) && IS_RESTORED.load(Ordering::SeqCst) {
        let slash = content.iter().position(|byte| *byte == b'/').unwrap();
        let hexadecimal = content[slash + 1..].iter_mut().take_while(|byte| byte.is_ascii_hexdigit());
        hexadecimal.for_each(|digit| *digit = b'0');
    }
    true
}

#[test]
fn a_server_whose_log_went_back_is_not_read_on() {
    let (conninfo, mut sql) = database("");
    published(&mut sql);
    let (slot, name) = (fresh_channel(), sql.value("SELECT current_database()"));
    let port = relay(log_server().port(), restored);
    let through = at_port(port).replace("dbname=postgres", &format!("dbname={name}"));
    let mut stream = Stream::open(&through, kept(&slot));
    sql.run("INSERT INTO t VALUES (1)");
    stream.change();
    IS_RESTORED.store(true, Ordering::SeqCst);
    end_reader(&mut sql, &slot);
    is_lost(&mut stream, "57P01", &[]);
    fails(&mut stream, "55000", &["the server's log is at 0/0", "restored from a backup"]);
    drop(conninfo);
}

/// From now on the relay has a server say that it branched off at the beginning of its log.
static HAS_LAGGED: AtomicBool = AtomicBool::new(false);

fn lagged(kind: u8, content: &mut [u8]) -> bool {
    // The answer to TIMELINE_HISTORY: the name of a file, and what is in it.
    let place = content.windows(3).position(|bytes| bytes == b"\t0/");
    if let Some(place) = place.filter(|_| kind == b'D' && HAS_LAGGED.load(Ordering::SeqCst)) {
        let hexadecimal = content[place + 3..].iter_mut().take_while(|byte| byte.is_ascii_hexdigit());
        hexadecimal.for_each(|digit| *digit = b'0');
    }
    true
}

#[test]
fn a_server_that_was_promoted_is_read_on_where_it_has_what_was_read() {
    let mut server = start_with_settings(&SETTINGS);
    let mut sql = Sql::connect(&server.conninfo());
    published(&mut sql);
    let mut stream = Stream::open(&at_port(relay(server.port(), lagged)), kept("promoted"));
    for (id, has_lagged) in [(1, false), (2, true)] {
        sql.run(&format!("INSERT INTO t VALUES ({id})"));
        assert_eq!(stream.change()["new"]["id"], id);
        end_reader(&mut sql, "promoted");
        drop(sql);
        make_standby(&mut server);
        sql = Sql::connect(&server.conninfo());
        assert_eq!(sql.value("SELECT pg_promote()"), "t");
        HAS_LAGGED.store(has_lagged, Ordering::SeqCst);
        is_lost(&mut stream, "57P01", &[]);
        if !has_lagged {
            assert_eq!(stream.next()["event"], "listening");
        }
    }
    fails(&mut stream, "55000", &["the server's log is at 0/0", "failed over to a standby that lagged"]);
}

#[test]
fn what_a_version_does_not_have_is_refused_by_name() {
    let (conninfo, mut sql) = database("");
    published(&mut sql);
    let options =
        publication().two_phase(true).origin(Origin::None).slot("f").create_slot(true).failover(true);
    match major() {
        14 => is_refused(&conninfo, options, "0A000", &["two_phase needs PostgreSQL 15", "this is 14"]),
        15 => is_refused(&conninfo, options, "0A000", &["origin needs PostgreSQL 16", "this is 15"]),
        16 => is_refused(&conninfo, options, "0A000", &["failover needs PostgreSQL 17", "this is 16"]),
        _ => drop(Stream::open(&conninfo, options)),
    }
}

#[test]
fn a_standby_that_cannot_send_its_log_is_told_from_which_version_on_it_can() {
    if major() > 15 {
        return say_loudly("SKIPPED: a standby of this version can send its log");
    }
    let mut server = start_with_settings(&SETTINGS);
    published(&mut Sql::connect(&server.conninfo()));
    make_standby(&mut server);
    let mut stream = Stream::start(&server.conninfo(), publication());
    fails(&mut stream, "0A000", &["standby", "PostgreSQL 16", "the primary"]);
    is_refused(&server.conninfo(), StreamOptions::new().table("t"), "25006", &["make it on the primary"]);
}

#[test]
fn a_pooler_in_between_is_told_as_one() {
    // One that refuses what it does not know, and one that does not pass it on.
    for (settings, sqlstate, words) in [
        ("", "08P01", ["replication", "connect to the server itself"]),
        ("ignore_startup_parameters = replication", "42601", ["syntax error", "needs the server itself"]),
    ] {
        let Some(pooler) = PgBouncer::start(log_server().port(), settings) else { return };
        let mut stream = Stream::start(&pooler.conninfo("postgres"), publication());
        let (event, code, message) = told(&stream.next());
        let is_told = ["disconnected", "failed"].contains(&&*event) && code == sqlstate;
        assert!(is_told && words.iter().all(|word| message.contains(word)), "{event} {code}: {message}");
        println!("{code}: {message}");
    }
}

#[test]
fn who_cannot_connect_is_told_as_in_other_sessions() {
    let (conninfo, mut sql) = database("");
    published(&mut sql);
    for (from, to, sqlstate) in [
        ("user=postgres", "user=locked password=wrong", "28P01"),
        ("user=postgres", "user=nobody_is_called_that", "28000"),
        ("dbname=log_", "dbname=nothing_is_called_", "3D000"),
    ] {
        let mut stream = Stream::start(&conninfo.replace(from, to), publication());
        is_lost(&mut stream, sqlstate, &[]);
        fails(&mut stream, sqlstate, &[]);
    }
}

#[test]
fn a_stream_says_what_it_cannot_do_before_it_connects() {
    let error = pgwake::EventLoop::new().unwrap().stream("", StreamOptions::new()).unwrap_err();
    assert!(error.message.contains("a publication, a table or a channel"), "{error}");
}
