//! Each bridge of `ffi/examples/bridges`, with the real server that it is for: what was committed is there,
//! once, in its order, also when bridge and broker are killed meanwhile.
#![cfg(feature = "command")]

use crate::common::command::pgwake;
use crate::common::log::database;
use crate::common::random::Random;
use crate::common::{PATIENCE, Sql, say_loudly, signal};
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Rows that are written, some to a transaction.
const ROWS: u64 = 600;

fn bridge(name: &str) -> String {
    format!("{}/ffi/examples/bridges/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Whether these programs are here; says so, if they are not.
fn has(what: &str, programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<_> = std::env::split_paths(&path).chain(["/usr/sbin".into()]).collect();
    let is_here = |program: &&&str| directories.iter().any(|directory| directory.join(program).exists());
    let missing: Vec<_> = programs.iter().filter(|program| !is_here(program)).collect();
    if !missing.is_empty() {
        say_loudly(&format!("SKIPPED: the bridge to {what}: {missing:?} are not installed"));
    }
    missing.is_empty()
}

/// A port of this machine that nobody uses now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A broker that is started again on the same port with what it has kept.
struct Broker {
    command: Vec<String>,
    port: u16,
    child: Child,
}

impl Broker {
    fn start(command: &[&str], port: u16) -> Self {
        let command: Vec<_> = command.iter().map(|word| word.to_string()).collect();
        let mut broker = Broker { child: Self::spawn(&command), command, port };
        broker.wait();
        broker
    }

    fn spawn(command: &[String]) -> Child {
        let mut broker = Command::new(&command[0]);
        broker.args(&command[1..]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "{:?} does not listen", self.command);
            assert!(self.child.try_wait().unwrap().is_none(), "{:?} has ended", self.command);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::spawn(&self.command);
        self.wait();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes rows while pgwake hands them over, and kills pgwake, and what `kill` kills, some times meanwhile.
/// Afterwards `stored` has every row once and in order.
fn carry(to: &[&str], mut kill: impl FnMut(), stored: impl Fn() -> Vec<u64>) {
    let kills: u64 = std::env::var("PGWAKE_TEST_DELIVERY_KILLS").map_or(4, |kills| kills.parse().unwrap());
    let (mut random, (dsn, mut sql)) = (Random::seeded(), database(""));
    sql.run("CREATE TABLE orders (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE orders");
    let slot = sql.value("SELECT 'bridge_' || current_database()");
    sql.run(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    let arguments = ["-d", &dsn, "stream", "--publication", "p", "--slot", &slot];
    let start = || {
        let mut command = pgwake(&[&arguments[..], to].concat());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut running = start();
    let (rounds, mut next) = (kills + 1, 1);
    for round in 0..rounds {
        let last = ROWS * (round + 1) / rounds;
        while next <= last {
            let end = last.min(next + random.below(5));
            sql.run(&format!("INSERT INTO orders SELECT generate_series({next}, {end})"));
            next = end + 1;
        }
        std::thread::sleep(random.duration_below(Duration::from_millis(300)));
        if round == kills {
            break;
        } else if random.below(2) == 0 {
            kill();
        } else {
            running.kill().unwrap();
            running.wait().unwrap();
            running = start();
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while stored().len() < ROWS as usize {
        assert!(Instant::now() < deadline, "{} of {ROWS} are stored", stored().len());
        std::thread::sleep(Duration::from_millis(50));
    }
    signal(running.id() as i32, Signal::TERM);
    assert!(running.wait().unwrap().success());
    assert_eq!(stored(), (1..=ROWS).collect::<Vec<_>>(), "each once, in its order");
    drop_slot(&mut sql, &slot);
}

fn drop_slot(sql: &mut Sql, slot: &str) {
    let deadline = Instant::now() + PATIENCE;
    while sql.try_run(&format!("SELECT pg_drop_replication_slot('{slot}')")).is_err() {
        assert!(Instant::now() < deadline, "the slot is in use");
    }
}

/// The ids of the rows in lines that hold events.
fn ids(text: &str) -> Vec<u64> {
    let id = |line: &str| {
        let event = &line[line.find('{')?..];
        let event: serde_json::Value = serde_json::from_str(event).ok()?;
        event["key"]["id"].as_u64()
    };
    text.lines().filter_map(id).collect()
}

#[test]
fn a_stream_of_nats_has_each_change_once_whoever_is_killed() {
    if !has("NATS", &["nats-server", "python3"]) {
        return;
    }
    let (directory, port) = (tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(), free_port());
    let (number, place) = (port.to_string(), directory.path().display().to_string());
    let command = ["nats-server", "-a", "127.0.0.1", "-p", &number, "-js", "-sd", &place];
    let mut broker = Broker::start(&command, port);
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/any_libpq/read_nats.py");
    let stored = || {
        let mut read = Command::new("python3");
        let output = read.arg(&reader).args(["127.0.0.1", &number, "orders_1"]).output().unwrap();
        ids(&String::from_utf8(output.stdout).unwrap())
    };
    carry(&["--to", &bridge("nats.py"), "127.0.0.1", &number, "orders_1"], || broker.kill(), stored);
}

#[test]
fn a_stream_of_redis_has_each_change_once_whoever_is_killed() {
    if !has("Redis", &["redis-server", "redis-cli", "python3"]) {
        return;
    }
    let (directory, port) = (tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(), free_port());
    let (number, place) = (port.to_string(), directory.path().display().to_string());
    let durable = ["--appendonly", "yes", "--appendfsync", "always"];
    let command = ["redis-server", "--bind", "127.0.0.1", "--port", &number, "--dir", &place, "--save", ""];
    let mut broker = Broker::start(&[&command[..], &durable].concat(), port);
    let stored = || {
        let read = Command::new("redis-cli").args(["-p", &number, "XRANGE", "orders_1", "-", "+"]).output();
        ids(&String::from_utf8(read.unwrap().stdout).unwrap())
    };
    let full = |bytes: &str| {
        let set = ["-p", &number, "CONFIG", "SET", "maxmemory", bytes];
        assert!(Command::new("redis-cli").args(set).output().unwrap().status.success());
    };
    // Its memory is full for a while, and then it is killed.
    let trouble = || {
        full("1");
        std::thread::sleep(Duration::from_millis(200));
        full("0");
        broker.kill();
    };
    carry(&["--to", &bridge("redis.py"), "127.0.0.1", &number, "orders_1"], trouble, stored);
}

#[test]
fn a_topic_of_kafka_has_each_change_under_its_position() {
    if !has("Kafka", &["kcat", "jq", "python3"]) {
        return;
    }
    say_loudly(
        "the bridge to Kafka is tested with the mock broker of librdkafka: no other one is to be had here",
    );
    let broker = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/any_libpq/mock_kafka.py");
    let mut broker =
        Command::new("python3").arg(broker).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut address = String::new();
    BufReader::new(broker.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let address = address.trim();
    let (dsn, mut sql) = database("");
    sql.run("CREATE TABLE orders (id int PRIMARY KEY, count json DEFAULT '12345678901234567890')");
    sql.run("CREATE PUBLICATION p FOR TABLE orders");
    let arguments = ["-d", &dsn, "stream", "--publication", "p", "--count", "30", "--batch", "10,100ms"];
    let mut running =
        pgwake(&[&arguments[..], &[&bridge("kafka.sh"), address, "orders_1"]].concat()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(running.stderr.take().unwrap()).read_line(&mut line).unwrap();
    sql.run("INSERT INTO orders SELECT generate_series(1, 30)");
    assert!(running.wait().unwrap().success());
    let read = ["-C", "-e", "-q", "-b", address, "-t", "orders_1", "-f", "%k %s\n"];
    let read = Command::new("kcat").args(read).output().unwrap();
    let text = String::from_utf8(read.stdout).unwrap();
    let mut found = ids(&text);
    found.sort_unstable();
    assert_eq!(found, (1..=30).collect::<Vec<_>>());
    for line in text.lines() {
        let (key, event) = line.split_once(' ').unwrap();
        assert!(event.contains("\"count\":12345678901234567890"), "{event}");
        let event: serde_json::Value = serde_json::from_str(event).unwrap();
        assert_eq!(event["position"], key);
    }
    broker.kill().unwrap();
    broker.wait().unwrap();
}
