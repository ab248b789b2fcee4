//! The programs of a side-by-side measurement keep to its protocol, so that their figures can be compared.

use crate::common::{Sql, fresh_channel, server};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[test]
fn each_peer_says_ready_and_then_reports() {
    let Some(folder) = std::env::var_os("PGWAKE_PEERS") else {
        crate::common::say_loudly("SKIPPED: PGWAKE_PEERS names no folder of peers; `make test` sets it");
        return;
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let (path, channel) = (entry.unwrap().path(), fresh_channel());
        let mut peer = Command::new(&path)
            .args([&server().conninfo(), &channel, "100"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(peer.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "READY", "{}", path.display());
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now_ns = now.tv_sec * 1_000_000_000 + now.tv_nsec;
        let burst =
            format!("SELECT count(pg_notify('{channel}', '{now_ns} ' || i)) FROM generate_series(1, 100) i");
        Sql::connect(&server().conninfo()).run(&burst);
        let report: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(report["n"], 100);
        for figure in ["wall_s", "per_s", "cpu_ns_each", "p50_us", "p99_us", "p999_us", "max_us"] {
            assert!(report[figure].as_f64().is_some_and(|value| value >= 0.0), "{figure} of {report}");
        }
        assert!(report["max_us"].as_f64().unwrap() < 60e6, "the clocks are the same: {report}");
        assert!(peer.wait().unwrap().success());
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(names, ["c-libpq-epoll", "pgwake", "pgwake-c"]);
}
