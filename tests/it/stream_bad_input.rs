//! Servers that send what they should not, in the middle of a stream: one error that names what came, and the
//! stream goes on from what was acknowledged.

use crate::common::log::{Stream, database, log_server, major, until_free};
use crate::common::random::Random;
use crate::common::{Sql, fresh_channel};
use pgwake::StreamOptions;
use serde_json::Value;
use std::io::{Read, Result, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const HEARTBEAT: Duration = Duration::from_millis(100);

/// What becomes of the bytes that come from the server on the connection of this number, from its first
/// message of COPY on. It may write others, and says whether anything more is passed on.
type Tamper = dyn Fn(u32, &mut Vec<u8>) -> bool + Send + Sync;

/// Stands before the server of these tests. Its port.
fn tampering(tamper: Arc<Tamper>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (number, client) in (0..).zip(listener.incoming()) {
            let (client, tamper) = (client.unwrap(), tamper.clone());
            let server = TcpStream::connect(("127.0.0.1", log_server().port())).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let copied = std::io::copy(&mut from, &mut to);
                to.shutdown(Shutdown::Both).and(copied)
            });
            std::thread::spawn(move || {
                let passed = pass_on(number, server, &client, &*tamper);
                client.shutdown(Shutdown::Both).and(passed)
            });
        }
    });
    port
}

fn pass_on(number: u32, mut server: TcpStream, mut client: &TcpStream, tamper: &Tamper) -> Result<()> {
    let mut is_silent = false;
    loop {
        let mut head = [0; 5];
        server.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4;
        let mut message = head.to_vec();
        message.resize(5 + length, 0);
        server.read_exact(&mut message[5..])?;
        if head[0] == b'd' && !is_silent {
            is_silent = !tamper(number, &mut message);
            client.write_all(&message)?;
        } else if !is_silent {
            client.write_all(&message)?;
        }
    }
}

/// A stream through such a one, of a table `t`, with a slot of its own.
struct Setup {
    sql: Sql,
    through: String,
    slot: String,
    options: StreamOptions,
}

fn setup(tamper: Arc<Tamper>) -> Setup {
    let (_, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION p FOR TABLE t");
    let (name, slot) = (sql.value("SELECT current_database()"), fresh_channel());
    sql.run(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    let through = format!(
        "host=127.0.0.1 port={} user=postgres dbname={name} sslmode=disable gssencmode=disable",
        tampering(tamper)
    );
    let options = StreamOptions::new().publication("p").slot(&slot).heartbeat(HEARTBEAT);
    Setup { sql, through, slot, options }
}

/// A busy machine may be taken for a frozen server, with so short a heartbeat.
fn open(through: &str, options: StreamOptions) -> Stream {
    let mut stream = Stream::start(through, options);
    stream.until(|event| event["event"] == "listening");
    stream
}

/// A message of the protocol.
fn message(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind], &(content.len() as u32 + 4).to_be_bytes()[..], content].concat()
}

/// A message of the output plugin.
fn of_plugin(content: &[u8]) -> Vec<u8> {
    message(b'd', &[&b"w"[..], &[0; 24], content].concat())
}

fn begin() -> Vec<u8> {
    of_plugin(&[&b"B"[..], &[0, 0, 0, 0, 0, 0, 0, 9], &[0; 8], &[0, 0, 0, 7]].concat())
}

/// The description of table 99, which has one column.
fn relation() -> Vec<u8> {
    of_plugin(b"R\0\0\0\x63public\0x\0d\0\x01\x01id\0\0\0\0\x17\xff\xff\xff\xff")
}

fn refusal(code: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0VERROR\0C{code}\0Mbecause of {code}\0\0").as_bytes())
}

/// What is sent in place of the begin of a transaction, and how that is reported: a code and a word.
fn nonsense() -> Vec<(Vec<u8>, &'static str, &'static str)> {
    let insert =
        |relation: u8, tuple: &[u8]| of_plugin(&[&[b'I', 0, 0, 0, relation, b'N'][..], tuple].concat());
    let of_2_gb = [begin(), relation(), insert(99, b"\0\x01t\x7f\xff\xff\xffab")].concat();
    let of_another_kind = [begin(), relation(), insert(99, b"\0\x01?\0\0\0\x02ab")].concat();
    let ready = [message(b'c', b""), message(b'C', b"COPY 0\0"), message(b'Z', b"I")].concat();
    let refused = [refusal("58030"), message(b'Z', b"I")].concat();
    vec![
        (b"~~~~~~~~~~~~~~~~".to_vec(), "08P01", "lost synchronization"),
        (b"d\x7f\xff\xff\xff".to_vec(), "08006", "memory"),
        (b"d\0\0\x10\0w\0\0".to_vec(), "08006", "did not answer"),
        (of_2_gb, "08P01", "cannot be read"),
        (of_another_kind, "08P01", "cannot be read"),
        ([begin(), insert(98, b"\0\x01t\0\0\0\x02ab")].concat(), "08P01", "table 98"),
        ([begin(), of_plugin(b"T\0\0\0\x01\0\0\0\0\x62")].concat(), "08P01", "table 98"),
        ([begin(), of_plugin(&[&b"C\0"[..], &[1; 24]].concat())].concat(), "08P01", "commit"),
        (of_plugin(b"B\0"), "08P01", "cannot be read"),
        (of_plugin(b""), "08P01", "cannot be read"),
        (message(b'd', b""), "08006", "did not answer"),
        (message(b'd', b"k\0\0"), "08P01", "cannot be read"),
        (message(b'd', b"w\0\0"), "08P01", "cannot be read"),
        (message(b'c', b""), "08006", "did not answer"),
        (ready, "08006", "ended the stream"),
        (refusal("58030"), "58030", "because of 58030"),
        (refused, "58030", "because of 58030"),
        (message(b'A', &[0; 3]), "08006", "did not answer"),
    ]
}

#[test]
fn nonsense_is_told_once_and_the_stream_goes_on_from_what_was_acknowledged() {
    let next = Arc::new(Mutex::new(None));
    let tamper = {
        let next = next.clone();
        move |_, message: &mut Vec<u8>| {
            // The commit of the transaction before may still be on its way.
            let is_begin = message.get(5) == Some(&b'w') && message.get(30) == Some(&b'B');
            let nonsense = if is_begin { next.lock().unwrap().take() } else { None };
            if let Some(nonsense) = &nonsense {
                message.clone_from(nonsense);
            }
            nonsense.is_none()
        }
    };
    let Setup { mut sql, through, options, .. } = setup(Arc::new(tamper));
    let mut stream = open(&through, options.manual_ack(true));
    for (number, (bytes, sqlstate, word)) in nonsense().into_iter().enumerate() {
        println!("{}", bytes.escape_ascii());
        *next.lock().unwrap() = Some(bytes);
        sql.run(&format!("INSERT INTO t VALUES ({number})"));
        let started = Instant::now();
        let mut lost = stream.next();
        while ["change", "schema"].contains(&lost["event"].as_str().unwrap()) {
            lost = stream.next();
        }
        let message = lost["message"].as_str().unwrap_or_default();
        assert_eq!((&lost["event"], &lost["sqlstate"]), (&"disconnected".into(), &sqlstate.into()), "{lost}");
        assert!(message.contains(word), "{word}: {message}");
        println!("    after {:.1?}: {message}", started.elapsed());
        let back = stream.next();
        assert_eq!(back["event"], "listening", "{back}");
        let change = stream.change();
        assert_eq!(change["new"]["id"], number, "those before were acknowledged, and this one was not");
        let commit_lsn: pgwake::Lsn = change["commit_lsn"].as_str().unwrap().parse().unwrap();
        stream.events.ack(stream.id, commit_lsn.0).unwrap();
    }
}

/// One byte is flipped at this place of what comes from the first message of COPY on.
fn flips(at: Arc<AtomicU32>, bit: Arc<AtomicU32>) -> Arc<Tamper> {
    Arc::new(move |_, message| {
        let place = at.fetch_sub(message.len() as u32, Ordering::SeqCst);
        if (place as usize) < message.len() {
            message[place as usize] ^= 1 << bit.load(Ordering::SeqCst);
            // Far away from now on.
            at.store(1 << 31, Ordering::SeqCst);
        } else if place > 1 << 30 {
            at.store(1 << 31, Ordering::SeqCst);
        }
        true
    })
}

/// What is written while a byte is flipped, and how many changes that are.
fn write(sql: &mut Sql) -> u64 {
    sql.run("TRUNCATE t");
    sql.run("INSERT INTO t VALUES (1, 'one'), (2, NULL)");
    sql.run("UPDATE t SET id = 3, v = 'three' WHERE id = 2; DELETE FROM t WHERE id = 1");
    // One of them may become a message that is passed over.
    sql.run("INSERT INTO t VALUES (1000000, repeat('z', 100))");
    sql.run("INSERT INTO t VALUES (1000001, 'the end')");
    7
}

#[test]
fn a_flipped_byte_is_an_error_or_leaves_the_rows_and_never_holds_up_the_stream() {
    let step: u32 = std::env::var("PGWAKE_TEST_FLIP_STEP").map_or(31, |step| step.parse().unwrap());
    let mut random = Random::seeded();
    let (at, bit) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    at.store(1 << 31, Ordering::SeqCst);
    let Setup { mut sql, through, slot, options } = setup(flips(at.clone(), bit.clone()));
    let (mut place, mut outcomes, mut longest) =
        (random.below(u64::from(step)) as u32, [0; 3], Duration::ZERO);
    while place < 1200 {
        let bit_now = random.below(8) as u32;
        bit.store(bit_now, Ordering::SeqCst);
        let mut stream = open(&through, options.clone());
        at.store(place, Ordering::SeqCst);
        let expected = write(&mut sql);
        let (mut changes, mut outcome, mut quiet_since) = (0, 0, Instant::now());
        while changes < expected {
            // A heartbeat until it is asked for a sign of life, twelve for that, and a reconnect; and a busy
            // machine takes longer.
            let event = stream.within(200 * HEARTBEAT);
            let event: Value = event.unwrap_or_else(|| panic!("byte {place}, bit {bit_now}: nothing comes"));
            longest = longest.max(quiet_since.elapsed());
            quiet_since = Instant::now();
            match event["event"].as_str().unwrap() {
                "change" if event["new"]["id"].as_i64() >= Some(1_000_000) => changes = expected,
                "change" => changes += 1,
                "disconnected" => (outcome, changes) = (1, 0),
                "failed" => (outcome, changes) = (2, expected),
                _ => {}
            }
        }
        outcomes[outcome] += 1;
        drop(stream);
        renew(&mut sql, &slot);
        place += step;
    }
    let [right, lost, failed] = outcomes;
    println!(
        "version {}: {right} flips were told as values or not at all, {lost} ended the connection, {failed} \
         the stream; at most {longest:.1?} without an event",
        major()
    );
}

/// A place in the log that was flipped may have been acknowledged.
fn renew(sql: &mut Sql, slot: &str) {
    until_free(sql, slot);
    sql.run(&format!("SELECT pg_drop_replication_slot('{slot}')"));
    sql.run(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
}
