//! The command as its users meet it: output, exit status, one sentence for each mistake, and no secret
//! anywhere.
#![cfg(feature = "command")]

use crate::common::command::{Running, complaint, pgwake, run, succeed};
use crate::common::outbox::database;
use crate::common::pgbouncer::PgBouncer;
use crate::common::{PASSWORD, Sql, fresh_channel, server, signal};
use rustix::process::Signal;
use serde_json::Value;
use std::io::{BufRead, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

#[test]
fn listen_prints_json_lines_until_the_count_is_reached() {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let mut listen = Running::start(&["-d", &dsn, "-f", "json", "listen", &channel, "--count", "2"]);
    let listening = listen.json();
    assert_eq!((&listening["event"], &listening["db"]), (&"listening".into(), &"postgres".into()));
    assert_eq!(listening["channels"], serde_json::json!([channel]));
    let mut sql = Sql::connect(&dsn);
    sql.notify(&channel, "line\nbreak \u{202e}\u{1b}[31m");
    let first = listen.line();
    assert!(!first.trim_end().chars().any(|c| c.is_control() || c == '\u{202e}'), "{first:?}");
    let first: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(first["payload"], "line\nbreak \u{202e}\u{1b}[31m");
    assert_eq!((&first["channel"], &first["pid"]), (&channel.as_str().into(), &sql.pid().into()));
    let at = first["at"].as_str().unwrap();
    assert!(at.len() == "2026-11-21T01:02:03.000004Z".len() && at.ends_with('Z'), "{at}");
    sql.notify(&channel, "");
    assert_eq!(listen.json()["payload"], "");
    assert_eq!(listen.status(), 0);
}

#[test]
fn text_has_one_line_an_event() {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let mut listen = Running::start(&["-d", &dsn, "listen", &channel, "--count", "1"]);
    assert!(listen.line().contains("listening"));
    Sql::connect(&dsn).notify(&channel, "a\nb\t\u{7}é");
    let line = listen.line();
    assert!(line.ends_with("  a\\x0ab\\x09\\x07é\n"), "{line:?}");
    assert_eq!(listen.status(), 0);
}

#[test]
fn listen_ends_in_good_order_by_signals_and_by_time() {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    for asked in [Signal::INT, Signal::TERM] {
        let mut listen = Running::start(&["-d", &dsn, "listen", &channel]);
        listen.line();
        signal(listen.child.id() as i32, asked);
        assert_eq!(listen.status(), 0, "{asked:?}");
    }
    succeed(&["-d", &dsn, "listen", &channel, "--for", "1s"]);
}

#[test]
fn a_time_in_which_no_connection_is_made_is_a_failure() {
    // It takes connections and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dsn = format!("host=127.0.0.1 port={} user=u", silent.local_addr().unwrap().port());
    let (sentence, status) = complaint(&["-d", &dsn, "listen", "c", "--for", "300ms"]);
    assert!(status == 1 && sentence.contains("within the time of --for (SQLSTATE 08001); "), "{sentence}");
}

#[test]
fn listen_goes_on_after_an_outage_and_says_what_was_missed() {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let mut listen = Running::start(&["-d", &dsn, "-f", "json", "listen", &channel, "--count", "1"]);
    let pid = listen.json()["backend_pid"].as_i64().unwrap();
    let mut sql = Sql::connect(&dsn);
    sql.run(&format!("SELECT pg_terminate_backend({pid})"));
    let lost = listen.json();
    assert_eq!((&lost["event"], &lost["sqlstate"]), (&"disconnected".into(), &"57P01".into()));
    let gap = listen.json();
    assert_eq!(
        (&gap["event"], &gap["reason"], &gap["attempts"]),
        (&"gap".into(), &"outage".into(), &1.into())
    );
    sql.notify(&channel, "back");
    assert_eq!(listen.json()["payload"], "back");
    assert_eq!(listen.status(), 0);
}

#[test]
fn own_is_known_and_a_closed_pipe_is_no_failure() {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let mut listen = Running::start(&["-d", &dsn, "listen", &channel, "--skip-own", "--spin", "1ms"]);
    listen.line();
    drop(listen.lines);
    let mut sql = Sql::connect(&dsn);
    let status = loop {
        sql.notify(&channel, "nobody reads this");
        if let Some(status) = listen.child.try_wait().unwrap() {
            break status;
        }
    };
    assert_eq!(status.code(), Some(0));
}

#[test]
fn it_ends_with_its_reader_and_waits_for_no_further_line() {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let mut listen = Running::start(&["-d", &dsn, "listen", &channel]);
    listen.line();
    drop(listen.lines);
    assert_eq!(listen.child.wait().unwrap().code(), Some(0));
    // What is run for each notification has stdout, and who reads it is its own affair.
    let mut runs = Running::start(&["-d", &dsn, "listen", &channel, "--count", "2", "--exec", "cat"]);
    runs.stderr_line();
    let mut sql = Sql::connect(&dsn);
    sql.notify(&channel, "read\n");
    assert_eq!(runs.line(), "read\n");
    drop(runs.lines);
    sql.notify(&channel, "unread");
    assert_eq!(runs.child.wait().unwrap().code(), Some(0));
}

#[test]
fn where_no_host_is_named_both_usual_directories_are_tried() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("services");
    std::fs::write(&file, "[app]\nport=1\n").unwrap();
    for (dsn, host) in [("service=app", None), ("port=1", Some("")), ("port=1", None)] {
        let mut command = pgwake(&["-d", dsn, "listen", "jobs"]);
        command.env("PGSERVICEFILE", &file).envs(host.map(|host| ("PGHOST", host)));
        let sentence = String::from_utf8(command.output().unwrap().stderr).unwrap();
        for socket in ["/var/run/postgresql/.s.PGSQL.1", "/tmp/.s.PGSQL.1"] {
            assert!(sentence.contains(socket), "{dsn} {host:?}: {sentence}");
        }
    }
}

#[test]
fn who_looks_through_a_pooler_leaves_nothing_on_its_connection() {
    let settings = "pool_mode = transaction\ndefault_pool_size = 1";
    let Some(pooler) = PgBouncer::start(server().port(), settings) else { return };
    let (dsn, mut sql) = (pooler.conninfo("postgres"), Sql::connect(&pooler.conninfo("postgres")));
    let left = "SELECT current_setting('search_path') || (SELECT count(*) FROM pg_listening_channels())";
    let before = sql.value(left);
    for looks in ["status", "check"] {
        let output = run(&["-d", &dsn, looks]);
        assert!(!output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(sql.value(left), before, "after {looks}");
    }
}

#[test]
fn a_full_disk_is_named_by_the_file_that_does_not_fit() {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    for arguments in [&["version"][..], &["install", "--dry-run"], &["-d", &dsn, "listen", &channel]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = pgwake(arguments).stdout(full).output().unwrap();
        let sentence = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{sentence}");
        assert!(sentence.contains("standard output, /dev/full: No space left"), "{sentence}");
    }
}

#[test]
fn an_input_that_cannot_be_read_is_named() {
    for input in ["-", "--lines"] {
        let mut command = pgwake(&["-d", &server().conninfo(), "notify", "jobs", input]);
        let output = command.stdin(std::fs::File::open("/").unwrap()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{input}");
        let sentence = String::from_utf8(output.stderr).unwrap();
        assert!(sentence.starts_with("pgwake: standard input: Is a directory"), "{input}: {sentence}");
    }
}

#[test]
fn notify_sends_an_argument_or_stdin_or_its_lines() {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let mut listen = Running::start(&["-d", &dsn, "-f", "json", "listen", &channel, "--count", "10005"]);
    listen.line();
    let send = |arguments: &[&str], input: &[u8]| {
        let mut command = pgwake(&[&["-d", &dsn, "notify", &channel], arguments].concat());
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
    };
    send(&["hello world"], b"");
    assert_eq!(listen.json()["payload"], "hello world");
    send(&[], b"");
    assert_eq!(listen.json()["payload"], "");
    send(&["-"], b"all of it\nto the end\n");
    assert_eq!(listen.json()["payload"], "all of it\nto the end\n");
    send(&["--lines"], b"same\nsame");
    assert_eq!([listen.json()["payload"].clone(), listen.json()["payload"].clone()], ["same", "same"]);
    let many: String = (0..10_000).map(|i| format!("{i}\n")).collect();
    send(&["--lines"], many.as_bytes());
    for i in 0..10_000 {
        assert_eq!(listen.json()["payload"], i.to_string());
    }
    assert_eq!(listen.status(), 0);
}

#[test]
fn a_line_that_cannot_be_sent_is_named_and_those_before_it_are_sent() {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let mut listen = Running::start(&["-d", &dsn, "-f", "json", "listen", &channel, "--count", "4"]);
    listen.line();
    let complaint = |input: &[u8]| {
        let mut command = pgwake(&["-d", &dsn, "notify", &channel, "--lines"]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, sentence) = complaint(b"1\n2\nNUL\0\n3\n");
    assert!(status == Some(1) && sentence.starts_with("pgwake: line 3 of stdin: "), "{sentence}");
    assert!(sentence.contains("2 of 2 notifications are known to be sent, and none from"), "{sentence}");
    // What only the server refuses comes to light when the others are on their way.
    let (status, sentence) = complaint(b"3\ncaf\xe9\n4\n");
    assert!(
        status == Some(1) && sentence.contains("2 of 3 notifications are known to be sent, and 1 failed: "),
        "{sentence}"
    );
    assert_eq!(complaint(b"NUL\0\n1\n").0, Some(2));
    for i in 1..=4 {
        assert_eq!(listen.json()["payload"], i.to_string());
    }
    assert_eq!(listen.status(), 0);
}

#[test]
fn a_channel_and_a_payload_are_any_bytes() {
    let (dsn, _sql) = database("ENCODING 'LATIN1' TEMPLATE template0");
    let latin1 = std::ffi::OsStr::from_bytes(b"caf\xe9");
    let mut listen = Running::of(pgwake(&["-d", &dsn, "-f", "json", "listen", "--count", "1"]).arg(latin1));
    listen.line();
    let output = pgwake(&["-d", &dsn, "notify"]).args([latin1, latin1]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let heard = listen.json();
    assert_eq!(
        (&heard["channel_base64"], &heard["payload_base64"]),
        (&"Y2Fm6Q==".into(), &"Y2Fm6Q==".into())
    );
}

#[test]
fn a_channel_that_the_server_refuses_ends_the_command() {
    let dsn = server().conninfo();
    let no_utf8 = std::ffi::OsStr::from_bytes(b"caf\xe9");
    for arguments in [&["-d", &dsn, "listen", "jobs"][..], &["-d", &dsn, "-f", "json", "listen"]] {
        let output = pgwake(arguments).arg(no_utf8).output().unwrap();
        let sentence = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{sentence}");
        assert!(sentence.starts_with("pgwake: the server refused to listen on caf\\xe9: "), "{sentence}");
        assert!(sentence.contains("22021"), "{sentence}");
    }
}

#[test]
fn what_a_signal_drops_of_the_lines_that_were_read_is_told() {
    // It takes a connection, and answers nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dsn = format!("host=127.0.0.1 port={}", silent.local_addr().unwrap().port());
    let mut child = pgwake(&["-d", &dsn, "notify", "c", "--lines"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // More than is queued, and less than is read ahead of that; but for what is in the pipe, all is read.
    let (line, lines, in_pipe) = ("x".repeat(7999) + "\n", 4000, 16);
    stdin.write_all(line.repeat(lines).as_bytes()).unwrap();
    signal(child.id() as i32, Signal::TERM);
    let output = child.wait_with_output().unwrap();
    let sentence = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{sentence}");
    let numbers = sentence.split(' ').filter_map(|word| word.parse().ok()).collect::<Vec<usize>>();
    let [0, queued, dropped] = numbers[..] else { panic!("{sentence}") };
    assert!((lines - in_pipe..=lines).contains(&(queued + dropped)), "{sentence}");
}

#[test]
fn a_mistake_is_one_sentence_and_status_2_and_nothing_is_sent() {
    let dsn = server().conninfo();
    let (long_name, long_payload) = ("x".repeat(64), "p".repeat(8000));
    for (arguments, expected) in [
        (vec!["-d", &dsn, "listen", ""], "empty"),
        (vec!["-d", &dsn, "listen", &long_name], "63"),
        (vec!["-d", &dsn, "notify", &long_name, "x"], "63"),
        (vec!["-d", &dsn, "notify", "c", &long_payload], "7999"),
        (
            vec!["-d", &dsn, "watch", "t", "--transport", "wal", "--before"],
            "with --transport wal a change comes as it was made: leave --before out",
        ),
        (vec!["-d", "postgresql://u:hunter2@[bad/db", "listen", "c"], "malformed"),
        (vec!["-d", "host=x password=hunter2 junk", "notify", "c"], "malformed"),
        (vec!["-d", &dsn, "demo"], "leave -d out"),
    ] {
        let (sentence, status) = complaint(&arguments);
        assert_eq!((status, sentence.lines().count()), (2, 1), "{sentence}");
        assert!(sentence.starts_with("pgwake: ") && sentence.contains(expected), "{sentence}");
        assert!(!sentence.contains("hunter2"), "{sentence}");
    }
    for arguments in [vec!["listen"], vec![], vec!["listen", "c", "--for", "5"], vec!["nonsense"]] {
        assert_eq!(complaint(&arguments).1, 2, "{arguments:?}");
    }
}

#[test]
fn a_server_that_cannot_be_had_is_one_sentence_and_status_1() {
    let (port, wrong) = (server().port(), "wr0ng-one");
    let locked = format!("host=127.0.0.1 port={port} dbname=postgres user=locked");
    let wrong_password = format!("{locked} password={wrong}");
    let unknown = format!("host=127.0.0.1 port={port} dbname=does_not_exist user=postgres");
    for (dsn, expected) in [
        ("host=/nonexistent", "08001"),
        ("host=127.0.0.1 port=1", "08001"),
        ("host=no-such-host.invalid", "08001"),
        (&unknown, "3D000"),
        (&wrong_password, "28P01"),
        (&locked, "password"),
    ] {
        for command in [["listen", "c"], ["notify", "c"]] {
            let (sentence, status) = complaint(&[&["-d", dsn, "-vvv"], &command[..]].concat());
            let sentence = sentence.lines().last().unwrap();
            assert_eq!(status, 1, "{dsn}: {sentence}");
            assert!(sentence.starts_with("pgwake: ") && sentence.contains(expected), "{dsn}: {sentence}");
        }
    }
}

#[test]
fn no_secret_is_in_any_output() {
    let port = server().port();
    for password in [PASSWORD, "wr0ng-one"] {
        let uri = format!("postgresql://locked:{password}@127.0.0.1:{port}/postgres");
        let output = run(&["-vvv", "-d", &uri, "listen", "c", "--for", "300ms"]);
        let all = [output.stdout, output.stderr].concat();
        let all = String::from_utf8_lossy(&all);
        assert!(all.contains("password=***"), "the log shows what was connected to: {all}");
        assert!(!all.contains(password), "{all}");
    }
}

#[test]
fn a_million_notifications_at_once_come_all_in_order_in_little_memory() {
    const COUNT: u64 = 1_000_000;
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let count = (COUNT + 1).to_string();
    let mut listen = Running::start(&["-d", &dsn, "listen", &channel, "--count", &count]);
    listen.line();
    let sender = std::thread::spawn({
        let (dsn, channel) = (dsn.clone(), channel.clone());
        move || {
            let flood =
                format!("SELECT count(pg_notify('{channel}', i::text)) FROM generate_series(1, {COUNT}) i");
            Sql::connect(&dsn).run(&flood);
        }
    });
    let mut line = Vec::new();
    for i in 1..=COUNT {
        line.clear();
        listen.lines.read_until(b'\n', &mut line).unwrap();
        let payload = line.rsplit(|b| *b == b' ').next().unwrap();
        assert_eq!(payload, format!("{i}\n").as_bytes());
    }
    sender.join().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", listen.child.id())).unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    let peak_kb: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("peak resident memory: {peak_kb} kB");
    assert!(peak_kb <= 20 * 1024, "{peak_kb} kB");
    Sql::connect(&dsn).notify(&channel, "last");
    assert!(listen.line().ends_with("last\n"));
    assert_eq!(listen.status(), 0);
}

#[test]
fn the_demo_shows_events_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir_in("/tmp").unwrap();
    let opened = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(temporary.path(), opened).unwrap();
    let output = pgwake(&["demo", "-f", "json"]).env("TMPDIR", temporary.path()).output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let events: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let operations = ["insert", "insert", "update", "delete", "by hand"];
    assert_eq!(events[0]["event"], "listening");
    for (event, operation) in events[1..].iter().zip(operations) {
        let payload: Value = serde_json::from_str(event["payload"].as_str().unwrap()).unwrap();
        assert_eq!(payload["op"], operation);
    }
    assert_eq!(events.len(), 1 + operations.len());
    assert!(stderr.contains("median"), "{stderr}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "something was left behind");
}
