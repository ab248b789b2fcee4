//! The throw-away server of `demo` and of `bench --private`: when it does not start, or ends, that is noticed
//! at once, with the first reason and what can be done; and kept, it is there for its user until Ctrl-C.
#![cfg(feature = "command")]

use crate::common::command::{Running, pgwake};
use crate::common::{PATIENCE, say_loudly, signal};
use pgwake::pq::{Connection, Conninfo};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A directory that a server's user may use.
fn open_directory(name: &str) -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix(name).tempdir_in("/tmp").unwrap();
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
    directory
}

/// The sentence of a command that ends because it has no server, with a variable of its environment.
fn complaint(arguments: &[&str], variable: (&str, &str)) -> String {
    let output = pgwake(arguments).env(variable.0, variable.1).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let sentence = stderr.lines().last().unwrap();
    assert!(sentence.starts_with("pgwake: "), "{stderr}");
    sentence.to_string()
}

#[test]
fn a_tmpdir_that_no_server_can_be_in_is_named_with_what_to_do() {
    let directory = open_directory("tmpdir");
    let long = directory.path().join("d".repeat(90)).display().to_string();
    fs::create_dir(&long).unwrap();
    for (tmpdir, reason) in [("/nonexistent", "No such file or directory"), (&long, "too long")] {
        let slow = ["bench", "writers", "--private", "--commit-delay", "1ms"];
        for command in [&["demo"][..], &["bench", "latency", "--private"], &slow] {
            let sentence = complaint(command, ("TMPDIR", tmpdir));
            for part in [tmpdir, reason, "set TMPDIR"] {
                assert!(sentence.contains(part), "{sentence}");
            }
        }
    }
}

#[test]
fn a_tmpdir_that_the_servers_user_may_not_enter_is_named() {
    let directory = open_directory("closed");
    let (closed, mode) = (directory.path().join("in"), if is_root() { 0o700 } else { 0o500 });
    fs::create_dir_all(closed.join("tmp")).unwrap();
    for path in [&closed.join("tmp"), &closed] {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    let tmpdir = closed.join("tmp").display().to_string();
    let sentence = complaint(&["demo"], ("TMPDIR", &tmpdir));
    for part in [tmpdir.as_str(), "Permission denied", "set TMPDIR"] {
        assert!(sentence.contains(part), "{sentence}");
    }
    fs::set_permissions(closed, PermissionsExt::from_mode(0o700)).unwrap();
}

#[test]
fn a_full_disk_is_named_wherever_it_fills_up() {
    let disk = open_directory("disk");
    // With no room at all, none for the server's files, and not quite enough for them.
    for size in ["4k", "200k", "20m", "36m"] {
        let options = format!("mode=1777,size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(disk.path()).status();
        if !is_root() || !mounted.is_ok_and(|status| status.success()) {
            return say_loudly("SKIPPED: a full disk: only root may mount a small one");
        }
        let tmpdir = disk.path().display().to_string();
        let sentence = std::panic::catch_unwind(|| complaint(&["demo"], ("TMPDIR", &tmpdir)));
        let left = fs::read_dir(disk.path()).unwrap().count();
        assert!(Command::new("umount").arg(disk.path()).status().unwrap().success());
        let sentence = sentence.unwrap();
        let expected = format!("space left in {tmpdir}");
        assert!(sentence.contains(&expected), "with {size}: {sentence}");
        assert_eq!(left, 0, "with {size} something was left behind");
    }
}

/// Programs that say what a server's would say, in a folder for PATH.
fn programs(initdb: &str, postgres: &str) -> tempfile::TempDir {
    let directory = open_directory("programs");
    for (name, script) in [("initdb", initdb), ("postgres", postgres)] {
        let path = directory.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    directory
}

#[test]
fn the_first_reason_is_told_and_not_what_came_of_it() {
    const DONE: &str = r#"mkdir "$2""#;
    let initdb = r#"
        echo 'running bootstrap script ... 2026-11-30 00:00:00.000 UTC [7] FATAL:  there are no turnips'
        echo '2026-11-30 00:00:00.000 UTC [7] PANIC:  no soup'
        echo 'child process exited with exit code 1'
        echo 'initdb: removing data directory'; exit 1"#;
    let of_initdb = "echo 'initdb: error: no turnips'; echo 'initdb: hint: sow'; exit 1";
    let in_use = r#"
        echo 'LOG:  starting'
        echo 'LOG:  could not bind IPv4 address "127.0.0.1": Address already in use'
        echo 'HINT:  Is another postmaster running?'
        echo 'FATAL:  could not create any TCP/IP sockets'
        echo 'LOG:  database system is shut down'; exit 1"#;
    let memory = r#"
        echo 'FATAL:  could not resize shared memory segment "/P.1" to 1 bytes: No space left on device'
        exit 1"#;
    for (initdb, postgres, told) in [
        (initdb, "", "did not start: there are no turnips"),
        (of_initdb, "", "did not start: no turnips"),
        (DONE, in_use, "Address already in use; another program took its port: try again"),
        (DONE, memory, "No space left on device; make room in /dev/shm"),
        (DONE, "echo 'bad luck'; exit 1", "did not start: bad luck"),
        (DONE, "kill -9 $$", "did not start: it was killed by signal 9"),
        (DONE, "exit 1", "did not start: no reason is known"),
    ] {
        let directory = programs(initdb, postgres);
        let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
        let sentence = complaint(&["demo"], ("PATH", &path));
        assert!(sentence.ends_with(told), "expected: {told}\ncame: {sentence}");
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A kept server in a directory of its own, its conninfo, and what is proposed to be typed.
fn keep(tmpdir: &Path) -> (Running, String, Vec<String>) {
    let mut command = pgwake(&["demo", "--keep"]);
    let mut kept = Running::of(command.env("TMPDIR", tmpdir));
    let conninfo = kept.line().trim_end().to_string();
    let mut proposed = Vec::new();
    while proposed.last().is_none_or(|line: &String| !line.contains("psql")) {
        proposed.push(kept.stderr_line());
    }
    let proposed = proposed.iter().filter_map(|line| line.strip_prefix("  ")).map(str::to_string).collect();
    (kept, conninfo, proposed)
}

#[test]
fn a_kept_server_is_there_until_it_is_asked_to_end() {
    // What a shell and libpq would take for something else.
    let directory = open_directory("it's $HOME");
    for asked in [Signal::INT, Signal::TERM] {
        let (kept, conninfo, proposed) = keep(directory.path());
        let [listen, watch, insert] = proposed.as_slice() else { panic!("{proposed:?}") };
        let mut heard = Running::start(&["-d", &conninfo, "listen", "orders", "--count", "1"]);
        assert!(heard.line().contains("listening"), "{conninfo}");
        // Each as it stands.
        let shell = |line: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", line]).stdout(std::process::Stdio::piped());
            Running::of(command.stderr(std::process::Stdio::piped()))
        };
        let mut listening = shell(&format!("{listen} --count 1"));
        assert!(listening.line().contains("listening"), "{listen}");
        let mut watching = shell(&format!("{watch} --count 1"));
        assert!(watching.line().contains("listening"), "{watch}");
        if shell("psql --version").status() == 0 {
            assert_eq!(shell(insert).status(), 0, "{insert}");
        } else {
            say_loudly("SKIPPED: the line with psql, which is not installed");
            crate::common::Sql::connect(&conninfo).run("INSERT INTO orders (item) VALUES ('tea')");
        }
        for lines in [&mut heard, &mut listening] {
            let line = lines.line();
            assert!(line.contains("notification") && line.contains("tea"), "{line}");
        }
        assert!(watching.line().contains("insert"));
        signal(kept.child.id() as i32, asked);
        assert_eq!(kept.status(), 0, "{asked:?}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "{asked:?}");
    }
}

/// Ends the one server there, as a machine without memory would.
fn kill_server(tmpdir: &Path) {
    let data = fs::read_dir(tmpdir).unwrap().next().unwrap().unwrap().path().join("data");
    let pid = fs::read_to_string(data.join("postmaster.pid")).unwrap();
    signal(pid.lines().next().unwrap().parse().unwrap(), Signal::KILL);
}

const KILLED: &str = "pgwake: the private server has ended: it was killed by signal 9";

#[test]
fn a_kept_server_that_ends_is_noticed() {
    let directory = open_directory("ends");
    let (mut kept, _, _) = keep(directory.path());
    kill_server(directory.path());
    assert_eq!(kept.stderr_line(), KILLED);
    assert_eq!(kept.status(), 1);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn a_bench_whose_server_ends_says_so() {
    let directory = open_directory("bench");
    let mut bench = pgwake(&["bench", "latency", "--private", "--count", "1000000"]);
    let mut bench = Running::of(bench.env("TMPDIR", directory.path()));
    let started = std::time::Instant::now();
    // It measures when somebody listens.
    let is_listening = || {
        let server = fs::read_dir(directory.path()).unwrap().next()?.unwrap().path();
        let conninfo = format!("host={} user=postgres dbname=postgres", server.display());
        let mut sql = crate::common::Sql(Connection::connect(&Conninfo::parse(&conninfo).unwrap()).ok()?);
        let asked =
            sql.try_run("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND state = 'idle'");
        asked.ok().flatten()
    };
    while is_listening().is_none() {
        assert!(started.elapsed() < PATIENCE, "nothing is measured");
    }
    kill_server(directory.path());
    let mut sentence = bench.stderr_line();
    // Before it stands how far it was.
    while !sentence.starts_with("pgwake: ") && !sentence.is_empty() {
        sentence = bench.stderr_line();
    }
    assert_eq!(sentence, KILLED);
    assert_eq!(bench.status(), 1);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "something was left behind");
}
