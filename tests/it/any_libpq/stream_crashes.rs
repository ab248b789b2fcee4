//! Row changes from the log while everything crashes: the reader, its backend, the whole server. Every change
//! that was committed is seen, in the order of the commits, and one that comes again has the same position.

use crate::common::log::{SETTINGS, database};
use crate::common::random::Random;
use crate::common::{PATIENCE, Sql, start_with_settings};
use pgwake::json::JsonValue;
use pgwake::pq::{Connection, Conninfo};
use pgwake::{Event, EventLoop, StreamOptions};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, read_to_string};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const WRITERS: u64 = 16;

/// No more than this lies between two crashes.
const PAUSE_MAX: Duration = Duration::from_millis(300);

/// How often it crashes: so often, unless the environment says otherwise.
fn times(variable: &str, otherwise: u32) -> u32 {
    std::env::var(variable).map_or(otherwise, |times| times.parse().expect("a whole number"))
}

/// Threads that write: each its own numbers, some to a transaction, again and again.
struct Writers {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(conninfo: &str, random: &mut Random) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let threads = (0..WRITERS).map(|writer| {
            let (conninfo, is_over, mut random) = (conninfo.to_string(), is_over.clone(), random.branch());
            std::thread::spawn(move || {
                let (mut sql, mut next) = (None, 0);
                while !is_over.load(Ordering::SeqCst) {
                    let count = 1 + random.below(4);
                    let rows =
                        format!("SELECT {writer}, n FROM generate_series({next}, {}) AS n", next + count);
                    next += count + 1;
                    let open = || {
                        let connection = Connection::connect(&Conninfo::parse(&conninfo).unwrap());
                        connection.ok().map(Sql)
                    };
                    // Whether it was committed, the table tells in the end.
                    match sql.take().or_else(open) {
                        Some(mut open) => {
                            if open.try_run(&format!("INSERT INTO t {rows}")).is_ok() {
                                sql = Some(open);
                            }
                        }
                        None => std::thread::sleep(Duration::from_millis(20)),
                    }
                    std::thread::sleep(random.duration_below(Duration::from_millis(4)));
                }
            })
        });
        Writers { threads: threads.collect(), is_over }
    }

    fn stop(self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// A table, a publication of it, and a slot.
fn prepare(sql: &mut Sql) {
    sql.run("CREATE TABLE t (writer int, n int, PRIMARY KEY (writer, n)); CREATE PUBLICATION p FOR TABLE t");
    sql.run("SELECT pg_create_logical_replication_slot(current_database() || '_slot', 'pgoutput')");
}

fn options(sql: &mut Sql) -> StreamOptions {
    let slot = sql.value("SELECT current_database() || '_slot'");
    StreamOptions::new().publication("p").slot(&slot).manual_ack(true).heartbeat(Duration::from_secs(1))
}

/// What was written last says that all is written.
fn write_last(sql: &mut Sql) {
    sql.run(&format!("INSERT INTO t VALUES ({WRITERS}, 0)"));
}

/// One change as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    position: (u64, u64),
    row: (u64, u64),
}

impl Seen {
    fn of(change: &pgwake::Change<'_>) -> Self {
        let new = change.new_as::<JsonValue>().unwrap();
        let number = |name: &str| new[name].as_u64().unwrap();
        let position = (change.commit_lsn.unwrap().0, change.ordinal.unwrap());
        Seen { position, row: (number("writer"), number("n")) }
    }

    fn is_last(self) -> bool {
        self.row.0 == WRITERS
    }
}

/// All that was seen, in the order in which it came, against the table.
fn check(seen: &[Seen], sql: &mut Sql) -> String {
    let (mut rows, mut by_row, mut newest) = (BTreeMap::new(), BTreeMap::new(), (0, 0));
    for one in seen {
        let known = rows.insert(one.position, one.row);
        assert!(known.is_none_or(|known| known == one.row), "{one:?} was {known:?} before");
        let at = by_row.insert(one.row, one.position);
        assert!(at.is_none_or(|at| at == one.position), "{one:?} was at {at:?} before");
        assert_eq!(known.is_none(), one.position > newest, "{one:?} comes out of order, behind {newest:?}");
        newest = newest.max(one.position);
    }
    let mut of_writer = BTreeMap::new();
    for (writer, n) in rows.values() {
        let before = of_writer.insert(*writer, *n);
        assert!(before.is_none_or(|before| before < *n), "{n} of writer {writer} comes after {before:?}");
    }
    let written = sql.value("SELECT string_agg(writer || ':' || n, ' ' ORDER BY writer, n) FROM t");
    let came: Vec<_> = by_row.keys().map(|(writer, n)| format!("{writer}:{n}")).collect();
    assert_eq!(came.join(" "), written, "what was committed is what came");
    format!("{} changes, {} of them again", rows.len(), seen.len() - rows.len())
}

/// Reads until the last change has come. Each is acknowledged once it is dealt with.
fn read(conninfo: &str, options: StreamOptions, mut deal_with: impl FnMut(Seen)) {
    let mut events = EventLoop::new().unwrap();
    let stream = events.stream(conninfo, options).unwrap();
    loop {
        match events.next(Some(PATIENCE)).unwrap().expect("an event was expected, and none came") {
            Event::Change(change) => {
                let one = Seen::of(&change);
                deal_with(one);
                events.ack(stream, one.position.0).unwrap();
                if one.is_last() {
                    return;
                }
            }
            Event::Failed(failed) => panic!("{failed:?}"),
            _ => {}
        }
    }
}

const READER: &str = "PGWAKE_TEST_READER";
const READER_FILE: &str = "PGWAKE_TEST_READER_FILE";

/// This test again, as a process that reads.
fn reader(conninfo: &str, file: &Path) -> Child {
    let mut reader = Command::new(std::env::current_exe().unwrap());
    reader.args(["--exact", "any_libpq::stream_crashes::a_reader_that_is_killed_loses_nothing"]);
    reader.env(READER, conninfo).env(READER_FILE, file).stdout(Stdio::null()).spawn().unwrap()
}

fn as_reader(conninfo: &str) {
    let file = std::env::var_os(READER_FILE).unwrap();
    let mut file = OpenOptions::new().append(true).open(file).unwrap();
    let options = options(&mut Sql::connect(conninfo));
    read(conninfo, options, |one| {
        let ((lsn, ordinal), (writer, n)) = (one.position, one.row);
        file.write_all(format!("{lsn} {ordinal} {writer} {n}\n").as_bytes()).unwrap();
    });
}

#[test]
fn a_reader_that_is_killed_loses_nothing() {
    if let Ok(conninfo) = std::env::var(READER) {
        return as_reader(&conninfo);
    }
    let kills = times("PGWAKE_TEST_READER_KILLS", 5);
    let (mut random, (conninfo, mut sql)) = (Random::seeded(), database(""));
    prepare(&mut sql);
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("seen");
    File::create(&path).unwrap();
    let writers = Writers::start(&conninfo, &mut random);
    for _ in 0..kills {
        let before = std::fs::metadata(&path).unwrap().len();
        let mut reader = reader(&conninfo, &path);
        // Some are killed on their way to the stream, most while they read.
        let deadline = Instant::now() + PATIENCE;
        while random.below(10) > 0 && std::fs::metadata(&path).unwrap().len() == before {
            assert!(Instant::now() < deadline, "the reader reads nothing");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(random.duration_below(PAUSE_MAX));
        reader.kill().unwrap();
        reader.wait().unwrap();
    }
    writers.stop();
    write_last(&mut sql);
    assert!(reader(&conninfo, &path).wait().unwrap().success());
    let text = read_to_string(&path).unwrap();
    let seen: Vec<_> = text
        .lines()
        .map(|line| {
            let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
            let [lsn, ordinal, writer, n] = numbers[..] else { panic!("{line}") };
            Seen { position: (lsn, ordinal), row: (writer, n) }
        })
        .collect();
    println!("the reader was killed {kills} times: {}", check(&seen, &mut sql));
}

#[test]
fn a_backend_that_is_ended_loses_nothing() {
    let kills = times("PGWAKE_TEST_BACKEND_KILLS", 10);
    let (mut random, (conninfo, mut sql)) = (Random::seeded(), database(""));
    prepare(&mut sql);
    let (options, mut seen) = (options(&mut sql), Vec::new());
    std::thread::scope(|scope| {
        let reads = scope.spawn(|| {
            read(&conninfo, options, |one| seen.push(one));
        });
        let writers = Writers::start(&conninfo, &mut random);
        let mut killed = 0;
        let deadline = Instant::now() + PATIENCE * (1 + kills / 10);
        while killed < kills {
            assert!(Instant::now() < deadline, "{killed} of {kills}");
            std::thread::sleep(random.duration_below(PAUSE_MAX));
            let end = "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots
                       WHERE database = current_database()";
            killed += sql.value(end).parse::<u32>().unwrap();
        }
        writers.stop();
        write_last(&mut sql);
        reads.join().unwrap();
    });
    println!("the backend was ended {kills} times: {}", check(&seen, &mut sql));
}

#[test]
fn a_server_that_is_stopped_immediately_loses_nothing() {
    let stops = times("PGWAKE_TEST_SERVER_STOPS", 3);
    let mut random = Random::seeded();
    let mut server = start_with_settings(&SETTINGS);
    let conninfo = server.conninfo();
    let mut sql = Sql::connect(&conninfo);
    prepare(&mut sql);
    let (options, mut seen) = (options(&mut sql), Vec::new());
    std::thread::scope(|scope| {
        let reads = scope.spawn(|| {
            read(&conninfo, options, |one| seen.push(one));
        });
        let writers = Writers::start(&conninfo, &mut random);
        for _ in 0..stops {
            std::thread::sleep(Duration::from_secs(1) + random.duration_below(PAUSE_MAX));
            server.restart("immediate").unwrap();
        }
        std::thread::sleep(PAUSE_MAX);
        writers.stop();
        sql = Sql::connect(&conninfo);
        write_last(&mut sql);
        reads.join().unwrap();
    });
    println!("the server was stopped {stops} times: {}", check(&seen, &mut sql));
}
