//! pgwake beside the bare C loop, in alternation on one private server: `make bench`.
//!
//! Each program of the folder given is called with `CONNINFO CHANNEL COUNT` (see `peer.rs`). What counts are
//! the ratios of one round; the table shows their medians over the rounds. `-- FOLDER [ROUNDS]`.

#[path = "../src/cli/server.rs"]
mod server;

use pgwake::pq::{Connection, Conninfo, ResultStatus};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use server::{PrivateServer, ServerOptions};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What everything is compared with.
const YARDSTICK: &str = "c-libpq-epoll";
const FIGURES: [&str; 4] = ["per_s", "cpu_ns_each", "p50_us", "p99_us"];
const FLOOD_COUNT: usize = 500_000;
const PACED_COUNT: usize = 2_000;
const PACE: Duration = Duration::from_millis(1);
const PAYLOAD_BYTES: usize = 64;

/// A program with its arguments, by the name it has in the table.
type Peers = BTreeMap<String, Vec<String>>;
/// The figures of one run by name.
type Run = BTreeMap<&'static str, f64>;

#[derive(Clone, Copy)]
enum Load {
    Flood,
    Paced,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let Some(folder) = arguments.first() else {
        eprintln!("usage: side_by_side FOLDER [ROUNDS], as `make bench` does it");
        return;
    };
    let rounds = arguments.get(1).map_or(5, |rounds| rounds.parse().expect("ROUNDS is a number"));
    let peers = peers(folder);
    let settings = ["synchronous_commit = off", "autovacuum = off"].map(String::from).into();
    let server =
        PrivateServer::start(&ServerOptions { settings, ..ServerOptions::default() }).expect("a server");
    println!("flood: {FLOOD_COUNT} notifications of {PAYLOAD_BYTES} bytes, committed at once");
    compare(&server, &peers, Load::Flood, FLOOD_COUNT, rounds);
    println!("paced: {PACED_COUNT} notifications, one per ms");
    compare(&server, &peers, Load::Paced, PACED_COUNT, rounds);
}

fn peers(folder: &str) -> Peers {
    let mut peers = Peers::new();
    for entry in std::fs::read_dir(folder).expect("the folder that `make peers` fills") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        peers.insert(name, vec![path.to_string_lossy().into_owned()]);
    }
    let spinning = ["--spin".to_string(), "2000".to_string()];
    let spinning = peers.get("pgwake").expect("pgwake is there").iter().cloned().chain(spinning).collect();
    peers.insert("pgwake --spin 2ms".into(), spinning);
    peers
}

fn compare(server: &PrivateServer, peers: &Peers, load: Load, count: usize, rounds: usize) {
    let mut runs: BTreeMap<&str, Vec<Run>> = BTreeMap::new();
    for _ in 0..rounds {
        for (name, command) in peers {
            runs.entry(name).or_default().push(measure(server, command, load, count));
        }
    }
    println!(
        "{:20}{:>12}{:>12}{:>10}{:>10}   ratio: rate   cpu   p50   p99",
        "", "per s", "cpu ns", "p50 µs", "p99 µs"
    );
    for (name, own) in &runs {
        let medians = FIGURES.map(|figure| median(own.iter().map(|run| run[figure])));
        let ratios = FIGURES
            .map(|figure| median(own.iter().zip(&runs[YARDSTICK]).map(|(a, b)| a[figure] / b[figure])));
        let [rate, cpu, p50, p99] = medians;
        print!("{name:20}{rate:12.0}{cpu:12.0}");
        match load {
            Load::Paced => println!(
                "{p50:10.1}{p99:10.1}{:14.2}{:6.2}{:6.2}{:6.2}",
                ratios[0], ratios[1], ratios[2], ratios[3]
            ),
            // The payloads of a flood hold no time.
            Load::Flood => println!("{:>10}{:>10}{:14.2}{:6.2}", "", "", ratios[0], ratios[1]),
        }
    }
}

fn measure(server: &PrivateServer, command: &[String], load: Load, count: usize) -> Run {
    let conninfo = server.conninfo();
    let mut peer = Command::new(&command[0])
        .args(&command[1..])
        .args([&conninfo, "bench", &count.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the peer starts");
    let mut lines = BufReader::new(peer.stdout.take().expect("its output")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "READY");
    std::thread::sleep(Duration::from_millis(200));
    send(&conninfo, load, count);
    let report: Value = serde_json::from_str(&lines.next().expect("a report").expect("text")).expect("JSON");
    assert!(peer.wait().expect("it ends").success());
    FIGURES.map(|figure| (figure, report[figure].as_f64().expect("a number"))).into_iter().collect()
}

fn send(conninfo: &str, load: Load, count: usize) {
    let conninfo = Conninfo::parse(conninfo).expect("a conninfo");
    let mut connection = Connection::connect(&conninfo).expect("a connection");
    match load {
        Load::Flood => execute(
            &mut connection,
            &format!(
                "SELECT count(pg_notify('bench', rpad(i || ' ', {PAYLOAD_BYTES}, 'x'))) \
                 FROM generate_series(1, {count}) i"
            ),
        ),
        Load::Paced => {
            for _ in 0..count {
                std::thread::sleep(PACE);
                let now = clock_gettime(ClockId::Monotonic);
                let now_ns = now.tv_sec * 1_000_000_000 + now.tv_nsec;
                let padding = "x".repeat(PAYLOAD_BYTES - now_ns.to_string().len() - 1);
                execute(&mut connection, &format!("NOTIFY bench, '{now_ns} {padding}'"));
            }
        }
    }
}

fn execute(connection: &mut Connection, sql: &str) {
    connection.send_query(sql).expect("sent");
    while let Some(result) = connection.result() {
        assert_ne!(result.status(), ResultStatus::Failed, "{}", result.error());
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
