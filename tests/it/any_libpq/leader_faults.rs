//! Five processes with one leader key, and what happens to leaders: they are killed, frozen, their
//! backends are ended, their networks cut. No due time is run twice, and another takes over.
#![cfg(feature = "command")]

use crate::common::command::pgwake;
use crate::common::proxy::{Fault, Proxy, Upstream};
use crate::common::random::Random;
use crate::common::{PATIENCE, outbox, server, signal};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime};

const PROCESSES: usize = 5;
const HEARTBEAT: Duration = Duration::from_millis(1500);

/// It goes on for a while, so that whatever happens to a leader mostly happens while it has the lock.
const JOB: &str = "echo $PGWAKE_DUE; sleep 0.5";

/// One process, and its way to the server.
struct Member {
    proxy: Proxy,
    child: Child,
}

fn start(proxy: &Proxy, dbname: &str, number: usize, runs: &Sender<(usize, String)>) -> Child {
    let conninfo = proxy.conninfo("disable").replace("dbname=postgres", dbname);
    let heartbeat = format!("{}ms", HEARTBEAT.as_millis());
    let arguments = ["-d", &conninfo, "cron", "* * * * * *", "--leader", "k", "--heartbeat", &heartbeat];
    let mut command = pgwake(&[&arguments[..], &["--exec", "sh", "-c", JOB]].concat());
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let (lines, runs) = (BufReader::new(child.stdout.take().unwrap()), runs.clone());
    std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            if runs.send((number, line)).is_err() {
                return;
            }
        }
    });
    child
}

/// The runs so far: which process had which due time.
struct Runs {
    receiver: Receiver<(usize, String)>,
    seen: BTreeMap<String, usize>,
}

impl Runs {
    /// The next one: the process, and the due time. None is there twice.
    fn next(&mut self) -> (usize, SystemTime) {
        let (number, due) = self.receiver.recv_timeout(PATIENCE).expect("somebody runs");
        if let Some(other) = self.seen.insert(due.clone(), number) {
            panic!("{due} was run by {other} and by {number}");
        }
        (number, due.parse::<jiff::Timestamp>().unwrap().into())
    }

    /// Until another process runs. How long due times went by without one: the last that nobody ran was a
    /// second before the one that is run.
    fn next_but_of(&mut self, leader: usize, since: SystemTime) -> Duration {
        loop {
            let (number, due) = self.next();
            if number != leader && due > since {
                let missed = due - Duration::from_secs(1);
                return missed.duration_since(since).unwrap_or_default();
            }
        }
    }
}

/// `PGWAKE_TEST_LEADER_FAULTS` says how many; 50 is what is promised.
#[test]
fn no_due_time_is_run_twice_whatever_happens_to_leaders() {
    let faults = std::env::var("PGWAKE_TEST_LEADER_FAULTS").map_or(4, |n| n.parse::<usize>().unwrap());
    let mut random = Random::seeded();
    let (conninfo, mut sql) = outbox::database("");
    let dbname = conninfo.split(' ').find(|word| word.starts_with("dbname=")).unwrap().to_string();
    let (sender, receiver) = channel();
    let mut runs = Runs { receiver, seen: BTreeMap::new() };
    let mut members: Vec<Member> = (0..PROCESSES)
        .map(|number| {
            let proxy = Proxy::new(Upstream::Tcp(server().port()));
            let child = start(&proxy, &dbname, number, &sender);
            Member { proxy, child }
        })
        .collect();
    let mut took: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for n in 0..faults {
        let (leader, _) = runs.next();
        std::thread::sleep(random.duration_below(Duration::from_millis(400)));
        let (since, member) = (SystemTime::now(), &mut members[leader]);
        let pid = member.child.id() as i32;
        let name = ["killed", "frozen", "ended", "cut"][n % 4];
        match name {
            "killed" => signal(pid, Signal::KILL),
            "frozen" => signal(pid, Signal::STOP),
            "ended" => {
                sql.run("SELECT pg_terminate_backend(backend_pid) FROM pgwake.run ORDER BY due DESC LIMIT 1");
            }
            _ => member.proxy.set(Fault::BlackHole),
        }
        took.entry(name).or_default().push(runs.next_but_of(leader, since));
        let member = &mut members[leader];
        match name {
            "killed" => {
                member.child.wait().unwrap();
                member.child = start(&member.proxy, &dbname, leader, &sender);
            }
            "frozen" => signal(pid, Signal::CONT),
            "cut" => member.proxy.set(Fault::Nothing),
            _ => {}
        }
    }
    // Those that come back do no harm either.
    for _ in 0..5 {
        runs.next();
    }
    for member in &mut members {
        signal(member.child.id() as i32, Signal::TERM);
        member.child.wait().unwrap();
    }
    report(&took);
    let written = "SELECT count(*) FROM pgwake.run WHERE outcome <> 'missed'";
    let written: usize = sql.value(written).parse().unwrap();
    assert!(written >= runs.seen.len(), "{written} are written down, and {} were run", runs.seen.len());
    println!("{} due times were run", runs.seen.len());
}

/// How long due times went by without anybody who ran them, after what.
fn report(took: &BTreeMap<&str, Vec<Duration>>) {
    for (name, times) in took {
        let longest = times.iter().max().unwrap();
        println!("{name}: {} times, the last due time that was missed came {longest:.2?} later", times.len());
        // Two heartbeats, and what a busy machine takes.
        assert!(*longest < 2 * HEARTBEAT + Duration::from_secs(5), "{name}: {times:?}");
    }
}
