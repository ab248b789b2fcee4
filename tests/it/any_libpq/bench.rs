//! `pgwake bench` as its users meet it: plausible figures, reports as documented, a page that stands alone,
//! and good order when it cannot go on.
#![cfg(feature = "command")]

use crate::common::bench::{bench, check_page, complaint, complaints, median, of_series, report, run};
use crate::common::{PATIENCE, Sql, make_standby, server, signal, start_server};
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

#[test]
fn latency_is_told_for_each_way_and_program_and_compares_with_itself() {
    let directory = tempfile::tempdir().unwrap();
    let [json, html, worse] = ["a.json", "a.html", "b.json"].map(|name| directory.path().join(name));
    let files = ["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let arguments = ["latency", "--count", "40", "--rounds", "5", "--transport", "unix,tcp,tls"];
    let table = run(&crate::common::transports(server())[1].1, &[&arguments, &files[..]].concat());
    assert!(table.contains("over tls"), "{table}");
    let report = report(&json);
    assert_eq!((&report["scenario"], &report["complete"]), (&"latency".into(), &true.into()));
    assert_eq!(report["measurements"].as_array().unwrap().len(), 6);
    for measurement in report["measurements"].as_array().unwrap() {
        assert_eq!(
            measurement["figures"]["notifications"]["rounds"],
            serde_json::json!([40., 40., 40., 40., 40.])
        );
        assert!(median(measurement, "cpu_ns_each") > 0.0);
    }
    let page = check_page(&html);
    assert!(page.contains("prefers-color-scheme: dark") && page.matches("<svg").count() > 6);

    let [a, b] = [&json, &worse].map(|path| path.to_str().unwrap());
    let same = run("", &["compare", a, a]);
    assert!(
        same.contains("within the noise") && !same.contains("worse") && !same.contains("better"),
        "{same}"
    );
    let mut slower = report.clone();
    let figure = &mut slower["measurements"][0]["figures"]["p50_us"];
    for round in figure["rounds"].as_array_mut().unwrap() {
        *round = (round.as_f64().unwrap() * 1e6).into();
    }
    std::fs::write(&worse, slower.to_string()).unwrap();
    for (arguments, verdict) in [(["compare", a, b], "worse"), (["compare", b, a], "better")] {
        let compared = run("", &arguments);
        assert_eq!(compared.lines().filter(|line| line.ends_with(verdict)).count(), 1, "{compared}");
    }
}

#[test]
fn throughput_counts_every_notification_of_every_sender() {
    let directory = tempfile::tempdir().unwrap();
    let [json, html] = ["a.json", "a.html"].map(|name| directory.path().join(name));
    let files = ["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let arguments =
        ["throughput", "--payloads", "0,5,7999", "--senders", "2", "--count", "500", "--for", "250ms"];
    run(&server().conninfo(), &[&arguments[..], &["--rounds", "1"], &files[..]].concat());
    let report = report(&json);
    let once: Vec<_> = of_series(&report, "one transaction").collect();
    assert_eq!(once.len(), 4, "empty payloads would fold, which is noted");
    assert!(report["notes"].to_string().contains("empty payloads"), "{}", report["notes"]);
    assert!(once.iter().all(|measurement| median(measurement, "notifications") == 1000.0), "{once:?}");
    assert_eq!(of_series(&report, "many transactions").count(), 6);
    assert!(of_series(&report, "many transactions").all(|m| median(m, "per_s") > 0.0));
    assert!(check_page(&html).contains("Throughput by payload"));
}

#[test]
fn scale_goes_to_the_limit_of_the_server_and_names_it() {
    let (server, directory) = (start_server(), tempfile::tempdir().unwrap());
    let json = directory.path().join("a.json");
    let arguments = ["scale", "--of", "sessions", "--steps", "1,1000", "--count", "20", "--rounds", "1"];
    run(&server.conninfo(), &[&arguments[..], &["--json", json.to_str().unwrap()]].concat());
    let report = report(&json);
    assert!(report["notes"].to_string().contains("max_connections is 100"), "{}", report["notes"]);
    let steps: Vec<_> = of_series(&report, "sessions").filter_map(|m| m["step"].as_u64()).collect();
    assert!(steps.len() == 4 && (50..100).contains(&steps[3]), "{steps:?}");
    for measurement in of_series(&report, "sessions").skip(2) {
        assert!((1.0..200.0).contains(&median(measurement, "memory_kb_each")), "{measurement}");
    }
}

#[test]
fn scale_tells_what_listeners_and_channels_cost() {
    let directory = tempfile::tempdir().unwrap();
    let [json, html] = ["a.json", "a.html"].map(|name| directory.path().join(name));
    let files = ["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let arguments =
        ["scale", "--of", "listeners,channels", "--steps", "1,3", "--count", "20", "--rounds", "1"];
    run(&server().conninfo(), &[&arguments[..], &files[..]].concat());
    let report = report(&json);
    let heard: Vec<_> = of_series(&report, "listeners").map(|m| median(m, "notifications")).collect();
    assert_eq!(heard, [20.0, 20.0, 60.0, 60.0]);
    let again: Vec<_> = of_series(&report, "channels").map(|m| median(m, "listen_again_ms")).collect();
    assert!(again.len() == 4 && again.iter().all(|ms| (0.0..10_000.0).contains(ms)), "{again:?}");
    assert!(check_page(&html).contains("After a reconnect"));
}

#[test]
fn in_a_pipe_each_run_is_a_plain_line() {
    let dsn = &crate::common::transports(server())[0].1;
    let output = bench(dsn, &["latency", "--count", "5", "--rounds", "2"]).output().unwrap();
    let lines = ["1 of 2, C loop", "1 of 2, pgwake", "2 of 2, pgwake", "2 of 2, C loop"]
        .map(|run| format!("latency: round {run} over unix\n"));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), lines.concat());
    assert!(!String::from_utf8(output.stdout).unwrap().contains('\u{1b}'));
}

/// What a measurement of writers may leave behind.
fn remains(sql: &mut Sql) -> String {
    sql.value("SELECT string_agg(nspname, ', ') FROM pg_namespace WHERE nspname LIKE 'pgwake%'")
}

#[test]
fn writers_are_measured_by_variant_and_nothing_remains() {
    let (server, directory) = (start_server(), tempfile::tempdir().unwrap());
    let mut sql = Sql::connect(&server.conninfo());
    let [json, html] = ["a.json", "a.html"].map(|name| directory.path().join(name));
    let files = ["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let arguments =
        ["writers", "--clients", "1,2,500", "--rows", "1,100", "--seconds", "0.1", "--rounds", "2"];
    let table = run(&server.conninfo(), &[&arguments[..], &files[..]].concat());
    assert!(table.contains("ratio to no trigger") && table.contains("left out: 500 clients"), "{table}");
    let report = report(&json);
    assert_eq!((&report["scenario"], &report["complete"]), (&"writers".into(), &true.into()));
    for series in ["rows 1", "rows 100"] {
        let measured: Vec<_> = of_series(&report, series).collect();
        let names: Vec<_> = measured.iter().map(|m| m["contender"].as_str().unwrap()).collect();
        assert_eq!(names, ["none", "naive", "outbox", "notify", "publish"].repeat(2));
        assert!(measured.iter().all(|m| median(m, "per_s") > 0.0), "{measured:?}");
        let ratios =
            measured.iter().filter(|m| m["figures"]["per_s"]["ratio_rounds"].as_array().unwrap().len() == 2);
        assert_eq!(ratios.count(), 8);
    }
    assert!(check_page(&html).contains("Writes by clients"));
    assert_eq!(remains(&mut sql), "");
    let path = json.to_str().unwrap();
    let compared = run("", &["compare", path, path]);
    assert!(compared.contains("rows 100, 2 clients") && compared.contains("ratio to none"), "{compared}");
}

#[test]
fn what_writers_need_is_taken_away_after_a_signal_and_after_an_error_but_not_what_was_there() {
    let server = start_server();
    let mut sql = Sql::connect(&server.conninfo());
    let mut watched = |what: &str| {
        let until = Instant::now() + PATIENCE;
        while sql.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'EXECUTE change%'") == "0" {
            assert!(Instant::now() < until, "nobody writes");
            std::thread::sleep(Duration::from_millis(5));
        }
        sql.run(what);
    };
    let arguments = ["writers", "--clients", "2", "--seconds", "3000", "--only", "outbox", "--rounds", "1"];
    let stopped = bench(&server.conninfo(), &arguments).spawn().unwrap();
    watched("");
    signal(stopped.id() as i32, Signal::TERM);
    let output = stopped.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*complaints(&output)), (Some(0), ""));
    assert_eq!(remains(&mut Sql::connect(&server.conninfo())), "");

    let short = ["writers", "--clients", "2", "--seconds", "2", "--only", "outbox", "--rounds", "1"];
    let failing = bench(&server.conninfo(), &short).spawn().unwrap();
    watched("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'EXECUTE change%'");
    assert_eq!(failing.wait_with_output().unwrap().status.code(), Some(1));
    assert_eq!(remains(&mut Sql::connect(&server.conninfo())), "");

    sql.run(&pgwake::install::install());
    let installed = remains(&mut sql);
    run(
        &server.conninfo(),
        &["writers", "--clients", "1", "--seconds", "0.1", "--only", "notify", "--rounds", "1"],
    );
    assert!(installed.starts_with("pgwake"), "{installed}");
    assert_eq!(remains(&mut sql), installed);
    assert_eq!(sql.value("SELECT count(*) FROM pgwake.watched WHERE NOT ended"), "0");
}

#[test]
fn slow_commits_bound_the_writers_of_a_private_server() {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("a.json");
    let arguments = ["bench", "writers", "--private", "--clients", "1", "--seconds", "0.5", "--rounds", "1"];
    let output = Command::new(env!("CARGO_BIN_EXE_pgwake"))
        .args(arguments)
        .args(["--only", "none", "--commit-delay", "50ms", "--json", json.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report = report(&json);
    let per_s = median(&report["measurements"][0], "per_s");
    assert!(per_s > 0.0 && per_s <= 22.0, "no commit takes less than 50 ms: {report}");
    let (sentence, status) =
        complaint(&bench(&server().conninfo(), &["writers", "--commit-delay", "1ms"]).output().unwrap());
    assert!(status == Some(2) && sentence.contains("--private"), "{sentence}");
}

/// A measurement that has begun to send. Its sessions have that name.
fn start(name: &str, conninfo: &str, arguments: &[&str], sql: &mut Sql) -> Child {
    let child = bench(&format!("{conninfo} application_name={name}"), arguments).spawn().unwrap();
    let until = Instant::now() + PATIENCE;
    while sender_pid(name, sql).is_empty() {
        assert!(Instant::now() < until, "it sends nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// The PID of the server's process for who sends, if somebody does.
fn sender_pid(name: &str, sql: &mut Sql) -> String {
    let sent = "query LIKE 'NOTIFY%xx_'";
    sql.value(&format!("SELECT pid FROM pg_stat_activity WHERE application_name = '{name}' AND {sent}"))
}

#[test]
fn a_stall_of_the_server_counts_for_all_that_was_due_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    // One that is frozen within its commit keeps all others of its server from theirs.
    let server = start_server();
    let (json, mut sql) = (directory.path().join("a.json"), Sql::connect(&server.conninfo()));
    let arguments = ["latency", "--interval", "5ms", "--count", "120", "--rounds", "1", "--spin", "1ms"];
    let arguments = [&arguments[..], &["--spin-adaptive", "0.1"]].concat();
    let arguments = [&arguments[..], &["--json", json.to_str().unwrap()]].concat();
    let mut child = start("stalled", &server.conninfo(), &arguments, &mut sql);
    let pid = sender_pid("stalled", &mut sql).parse().unwrap();
    signal(pid, Signal::STOP);
    // What is measured is a time: 60 of 120 notifications are due meanwhile.
    std::thread::sleep(Duration::from_millis(300));
    signal(pid, Signal::CONT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let report = report(&json);
    let measurements = report["measurements"].as_array().unwrap();
    assert_eq!(measurements.len(), 4);
    let stalled = measurements.iter().find(|measurement| median(measurement, "max_us") > 250e3);
    let stalled = stalled.unwrap_or_else(|| panic!("the stall is not to be seen: {report}"));
    assert!(median(stalled, "p90_us") > 100e3, "only what was sent before counts: {stalled}");
}

#[test]
fn a_signal_ends_it_with_a_report_that_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let [json, html] = ["a.json", "a.html"].map(|name| directory.path().join(name));
    let mut sql = Sql::connect(&server().conninfo());
    let files = ["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let arguments = [&["latency", "--count", "100000", "--rounds", "3"], &files[..]].concat();
    let child = start("stopped", &server().conninfo(), &arguments, &mut sql);
    signal(child.id() as i32, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*complaints(&output)), (Some(0), ""));
    let report = report(&json);
    assert_eq!(report["complete"], false);
    assert!(report["notes"].to_string().contains("signal"), "{}", report["notes"]);
    let measurements = report["measurements"].as_array().unwrap();
    assert!(measurements.len() == 1 && (1.0..100_000.0).contains(&median(&measurements[0], "notifications")));
    assert!(check_page(&html).contains("Not complete"));
    let until = Instant::now() + PATIENCE;
    while sql.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stopped'") != "0" {
        assert!(Instant::now() < until, "a session is left");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_pace_that_no_server_keeps_comes_to_an_end_and_is_told() {
    let arguments = ["latency", "--rounds", "1", "--interval", "10us", "--count", "50000"];
    let table = run(&server().conninfo(), &arguments);
    assert!(table.contains("one per 10µs was more than the server takes"), "{table}");
    let arguments = ["throughput", "--rounds", "1", "--transactions", "one", "--payloads", "1"];
    let table = run(&server().conninfo(), &arguments);
    assert!(table.contains("one transaction, 1 bytes: 9 notifications"), "{table}");
}

#[test]
fn a_signal_is_heard_although_the_server_says_nothing() {
    // As above.
    let server = start_server();
    let mut sql = Sql::connect(&server.conninfo());
    let arguments = ["latency", "--rounds", "1", "--interval", "100us", "--count", "200000"];
    let child = start("silent", &server.conninfo(), &arguments, &mut sql);
    let pid = sender_pid("silent", &mut sql).parse().unwrap();
    signal(pid, Signal::STOP);
    signal(child.id() as i32, Signal::INT);
    let (sentence, status) = complaint(&child.wait_with_output().unwrap());
    signal(pid, Signal::CONT);
    assert!(status == Some(1) && sentence.contains("signal"), "{sentence}");

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dsn = format!("host=127.0.0.1 port={}", listener.local_addr().unwrap().port());
    let mut child = bench(&dsn, &["latency"]).spawn().unwrap();
    let _client = listener.accept().unwrap();
    // That of Ctrl-C is ignored in the background.
    signal(child.id() as i32, Signal::TERM);
    assert_eq!(child.wait().unwrap().signal(), Some(15));
}

#[test]
fn what_cannot_be_measured_is_one_sentence() {
    let fails = |dsn: &str, arguments: &[&str]| complaint(&bench(dsn, arguments).output().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let (json, dsn) = (directory.path().join("a.json"), server().conninfo());
    let nowhere = "host=127.0.0.1 port=1 password=hunter2";
    for scenario in ["latency", "throughput", "scale"] {
        let (sentence, status) = fails(nowhere, &[scenario, "--json", json.to_str().unwrap()]);
        assert!(
            status == Some(1) && sentence.contains("--private") && !sentence.contains("hunter2"),
            "{sentence}"
        );
        assert!(!json.exists());
    }
    let (sentence, status) = fails(&dsn, &["latency", "--json", "/nowhere/a.json"]);
    assert!(status == Some(1) && sentence.contains("cannot write /nowhere/a.json"), "{sentence}");
    assert_eq!(fails(&dsn, &["latency", "--private"]).1, Some(2));
    for wrong in [["--payload", "8000"], ["--payload", "5"], ["--interval", "0s"], ["--transport", "pigeon"]]
    {
        let output = bench(&dsn, &[&["latency"], &wrong[..]].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
    let (sentence, status) = fails("", &["compare", "/nowhere/a.json", "/nowhere/b.json"]);
    assert!(status == Some(1) && sentence.contains("cannot read /nowhere/a.json"), "{sentence}");
    std::fs::write(&json, "{}").unwrap();
    let path = json.to_str().unwrap();
    assert!(fails("", &["compare", path, path]).0.contains("it is no report"));
}

#[test]
fn a_role_without_the_right_and_a_standby_are_told_what_to_do() {
    let fails = |dsn: &str, arguments: &[&str]| complaint(&bench(dsn, arguments).output().unwrap());
    let mut server = start_server();
    let dsn = server.conninfo();
    Sql::connect(&dsn).run("REVOKE EXECUTE ON FUNCTION pg_notify FROM PUBLIC; CREATE ROLE modest LOGIN");
    let modest = format!("{dsn} user=modest");
    let arguments = ["throughput", "--rounds", "1", "--for", "20ms", "--payloads", "64"];
    let (sentence, status) = fails(&modest, &arguments);
    assert!(status == Some(1) && sentence.contains("grant EXECUTE"), "{sentence}");
    run(&modest, &[&arguments[..], &["--transactions", "many"]].concat());
    let (sentence, status) = fails(&modest, &["writers", "--seconds", "0.1"]);
    assert!(status == Some(1) && sentence.contains("may CREATE in this database"), "{sentence}");
    let (sentence, status) = fails(&modest, &["writers", "--seconds", "0.1", "--only", "naive"]);
    assert!(status == Some(1) && sentence.contains("42501"), "{sentence}");
    assert_eq!(remains(&mut Sql::connect(&dsn)), "");
    make_standby(&mut server);
    let (sentence, status) = fails(&dsn, &arguments);
    assert!(status == Some(1) && sentence.contains("25006") && sentence.contains("primary"), "{sentence}");
}
