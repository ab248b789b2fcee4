//! What `pgwake bench` does with reports and their files: compares them, keeps them apart, and leaves alone
//! what is not its own.
#![cfg(feature = "command")]

use crate::common::bench::{bench, complaint};
use crate::common::server;
use serde_json::{Value, json};
use std::path::Path;

/// What a comparison prints.
fn compared(before: &Path, after: &Path, format: &str) -> String {
    let [a, b] = [before, after].map(|path| path.to_str().unwrap());
    let output = bench("", &["compare", a, b, "-f", format]).output().unwrap();
    assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(0), ""));
    String::from_utf8(output.stdout).unwrap()
}

/// Five rounds of one program.
fn measurement(contender: &str, p50_us: f64) -> Value {
    let rounds: Vec<f64> = (0..5).map(|round| p50_us + f64::from(round)).collect();
    let figure = json!({"median": p50_us + 2.0, "rounds": rounds, "ratio": null, "ratio_rounds": []});
    json!({
        "contender": contender, "transport": "unix", "series": "", "step": 0, "figures": {"p50_us": figure},
    })
}

/// A report that nobody measured.
fn made_up(measurements: &[Value]) -> Value {
    json!({
        "pgwake_bench": 1, "scenario": "latency", "complete": true, "started_at": "2026-01-01T00:00:00Z",
        "seconds": 1.0, "parameters": {"rounds": 5, "interval_us": 1000.0}, "notes": [],
        "environment": {
            "pgwake": "0.1.0", "libpq": "16", "tls": null, "server": "16", "server_settings": {"fsync": "on"},
            "is_private_server": false, "kernel": "6", "cpu": "a", "cpus": 2, "command_line": "pgwake",
        },
        "measurements": measurements,
    })
}

#[test]
fn a_comparison_says_what_was_not_alike_and_what_only_one_has() {
    let directory = tempfile::tempdir().unwrap();
    let [a, b] = ["a.json", "b.json"].map(|name| directory.path().join(name));
    let before = made_up(&[measurement("C loop", 100.0), measurement("gone", 100.0)]);
    let mut after = made_up(&[measurement("C loop", 200.0), measurement("new", 100.0)]);
    after["parameters"] = json!({"rounds": 9, "interval_us": 10.0, "payload_bytes": 64});
    after["environment"]["is_private_server"] = true.into();
    after["environment"]["server_settings"]["fsync"] = "off".into();
    after["measurements"][0]["figures"]["max_us"] = after["measurements"][0]["figures"]["p50_us"].clone();
    std::fs::write(&a, before.to_string()).unwrap();
    std::fs::write(&b, after.to_string()).unwrap();
    let text = compared(&a, &b, "text");
    for said in [
        "interval_us: 1000.0 in A, 10.0 in B",
        "payload_bytes: null in A, 64 in B",
        "is_private_server: false in A, true in B",
        "fsync: \"on\" in A, \"off\" in B",
        "only in A: gone over unix",
        "only in B: new over unix",
        "only in B: C loop over unix: max_us",
        "worse",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!text.contains("rounds: "), "{text}");
    let lines: Vec<Value> =
        compared(&a, &b, "json").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let with = |name: &str| lines.iter().filter(|line| line.get(name).is_some()).count();
    assert_eq!((with("condition"), with("only_in"), with("verdict"), lines.len()), (4, 3, 1, 8));
    let alike = compared(&a, &a, "text");
    assert!(!alike.contains("alike") && !alike.contains("only in"), "{alike}");
}

#[test]
fn what_a_report_says_does_not_reach_the_terminal_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    let mut report = made_up(&[measurement("\u{1b}[31mred", 100.0)]);
    report["environment"]["server"] = "16\u{1b}]0;title\u{7}".into();
    std::fs::write(&path, report.to_string()).unwrap();
    let text = compared(&path, &path, "text");
    assert!(text.contains("\\x1b[31mred") && !text.contains(['\u{1b}', '\u{7}']), "{text}");
}

#[test]
fn a_file_without_an_end_is_no_report() {
    let (sentence, status) = complaint(&bench("", &["compare", "/dev/zero", "/dev/zero"]).output().unwrap());
    assert!(status == Some(1) && sentence.contains("more than 64 MB"), "{sentence}");
}

/// Where no server is.
const NOWHERE: &str = "host=127.0.0.1 port=1";

#[test]
fn after_a_failure_no_file_is_gone_that_was_there_and_none_is_left_that_was_not() {
    let directory = tempfile::tempdir().unwrap();
    let [own, link, new] = ["own.json", "link.html", "new.html"].map(|name| directory.path().join(name));
    std::fs::write(&own, "").unwrap();
    let target = directory.path().join("target");
    std::fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    for html in [&link, &new] {
        let files = ["--json", own.to_str().unwrap(), "--html", html.to_str().unwrap()];
        let output = bench(NOWHERE, &[&["latency"], &files[..]].concat()).output().unwrap();
        assert_eq!(complaint(&output).1, Some(1));
    }
    assert!(own.exists() && link.is_symlink() && target.exists() && !new.exists());
}

#[test]
fn no_empty_file_is_there_while_nothing_is_measured() {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("a.json");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dsn = format!("host=127.0.0.1 port={}", listener.local_addr().unwrap().port());
    let mut child = bench(&dsn, &["latency", "--json", json.to_str().unwrap()]).spawn().unwrap();
    let _client = listener.accept().unwrap();
    assert!(!json.exists());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn each_report_needs_a_file_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let [file, link] = ["a", "b"].map(|name| directory.path().join(name));
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let files = ["latency", "--json", file.to_str().unwrap(), "--html", link.to_str().unwrap()];
    let (sentence, status) = complaint(&bench(NOWHERE, &files).output().unwrap());
    assert!(status == Some(2) && sentence.contains("the same file"), "{sentence}");
    assert!(!file.exists() && link.is_symlink());
    for option in ["--json", "--html"] {
        let mut command = bench(NOWHERE, &["latency", option, "/dev/stdout"]);
        let (sentence, status) = complaint(&command.output().unwrap());
        assert!(status == Some(2) && sentence.contains("stdout"), "{sentence}");
        std::fs::write(&file, "kept").unwrap();
        let stdout = std::fs::File::options().append(true).open(&file).unwrap();
        let output = bench(NOWHERE, &["latency", option, file.to_str().unwrap()]).stdout(stdout).output();
        assert_eq!(complaint(&output.unwrap()).1, Some(2));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    }
}

#[test]
fn what_is_asked_for_twice_is_measured_once() {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("a.json");
    let arguments = ["latency", "--count", "20", "--rounds", "2", "--spin", "0s", "--spin-adaptive", "0"];
    let arguments =
        [&arguments[..], &["--transport", "unix,unix", "--json", json.to_str().unwrap()]].concat();
    let output = bench(&crate::common::transports(server())[0].1, &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let measurements = report["measurements"].as_array().unwrap();
    assert_eq!(measurements.len(), 2);
    for measurement in measurements {
        assert_eq!(measurement["figures"]["p50_us"]["rounds"].as_array().unwrap().len(), 2, "{measurement}");
    }
    let arguments = ["throughput", "--payloads", "64,5,64", "--transactions", "one,one", "--rounds", "1"];
    let output = bench(&server().conninfo(), &[&arguments[..], &["-f", "json"]].concat()).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let steps = report["measurements"].as_array().unwrap().iter().map(|measurement| &measurement["step"]);
    assert_eq!(steps.collect::<Vec<_>>(), [64, 64, 5, 5]);
}

#[test]
fn nothing_measured_is_no_report() {
    for (count, payload) in [("1", "64"), ("100", "0")] {
        let arguments = ["throughput", "--count", count, "--transactions", "one", "--payloads", payload];
        let (sentence, status) = complaint(&bench(&server().conninfo(), &arguments).output().unwrap());
        assert!(status == Some(2) && sentence.contains("raise --count"), "{sentence}");
    }
}
