//! `pgwake cron`: what it prints, what it runs, and what it says of expressions.
#![cfg(feature = "command")]

use crate::common::command::{Running, complaint, pgwake, run};
use crate::common::error_table::hold;
use crate::common::{Sql, outbox, signal};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Output;
use std::time::{Duration, Instant};

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn it_says_when_an_expression_is_due_and_what_it_means() {
    let cron = ["cron", "0 0 1 1 *", "--tz", "Asia/Kolkata", "--next", "2"];
    let lines = text(&run(&cron));
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].ends_with("-01-01T00:00:00+05:30[Asia/Kolkata]  0 0 1 1 *"), "{lines:?}");
    let json = text(&run(&[&cron[..], &["--explain", "-f", "json"]].concat()));
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = lines.iter().map(|line| (&line["event"], line["at"].is_string())).collect();
    assert_eq!(events, [(&"explanation".into(), true), (&"due".into(), true), (&"due".into(), true)]);
    assert_eq!(lines[0]["explanation"], "at 00:00, on day 1 of the month, in January");
    assert!(lines[1]["due"].as_str().unwrap().ends_with("-12-31T18:30:00.000000Z"), "{json}");
    let words = text(&run(&["cron", "*/30 * * * *", "--tz", "UTC", "--explain"]));
    assert_eq!(words, "*/30 * * * *  minutes 0 and 30 of every hour, every day (UTC; by the clock)\n");
}

#[test]
fn the_zone_in_use_is_said_whether_it_has_a_name_or_not() {
    let explain = ["cron", "0 0 1 7 *", "--explain", "--next", "1"];
    for (variable, zone, offset) in [
        ("EST5EDT,M3.2.0,M11.1.0", "EST5EDT,M3.2.0,M11.1.0", "-04:00[-04:00]"),
        ("Asia/Kolkata", "Asia/Kolkata", "+05:30[Asia/Kolkata]"),
        ("", "UTC", "+00:00[UTC]"),
    ] {
        let lines = text(&pgwake(&explain).env("TZ", variable).output().unwrap());
        let (words, due) = lines.split_once('\n').unwrap();
        assert!(words.ends_with(&format!(" ({zone}; once a day also when clocks change)")), "{lines}");
        assert!(due.contains(&format!("-07-01T00:00:00{offset}  ")), "{lines}");
    }
    let output = pgwake(&explain).env("TZ", "Etc/Unknown").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the system's time zone is not known (it is Etc/Unknown)"), "{said}");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn due_times_are_printed_as_they_are_found() {
    // More than anybody could keep until the last is found.
    let mut running = Running::start(&["cron", "* * * * * *", "--next", "4000000000"]);
    assert!(running.line().ends_with("  * * * * * *\n"));
    running.child.kill().unwrap();
    running.child.wait().unwrap();
}

#[test]
fn ticks_are_printed_as_they_come_without_any_server() {
    let output = text(&run(&["cron", "@every 20ms", "* * * * * *", "--count", "80", "-f", "json"]));
    let lines: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let schedules: BTreeSet<&str> = lines.iter().map(|line| line["schedule"].as_str().unwrap()).collect();
    assert_eq!(schedules.into_iter().collect::<Vec<_>>(), ["* * * * * *", "@every 20ms"]);
    assert_eq!(lines.len(), 80);
    assert!(lines.iter().all(|line| line["event"] == "tick" && line.get("db").is_none()));
    assert!(lines.iter().all(|line| line["missed"].is_u64() && line["late_ms"].is_u64()));
    let line = text(&run(&["cron", "@every 20ms", "--count", "1"]));
    assert!(line.contains("  tick          @every 20ms  due 2") && line.ends_with(" ms late\n"), "{line}");
}

#[test]
fn a_wrong_line_is_told_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tab");
    let file = file.to_str().unwrap();
    let lines = "0 0 30 2 * never\n61 * * * * x\nCRON_TZ=Mars/Base\n* * * * * *\nCRON_TZ=UTC\n\
        @every 10ms echo 'one  word'\n, * * * * x\nCRON_TZ=Mars/Base @every 1ms echo x\n";
    std::fs::write(file, lines).unwrap();
    let output = run(&["cron", "--file", file, "--count", "3"]);
    assert_eq!(text(&output), "one  word\none  word\none  word\n");
    let errors = String::from_utf8(output.stderr).unwrap();
    let errors: Vec<&str> = errors.lines().collect();
    assert_eq!(errors.len(), 5, "{errors:?}");
    for (n, words) in [
        (1, "is never due"),
        (2, "(Number out of bounds)"),
        (4, "\"Mars/Base\" is no time zone"),
        (7, "in \",\" a value is missing"),
        (8, "\"Mars/Base\" is no time zone"),
    ] {
        let error = errors.iter().find(|error| error.contains(&format!("tab:{n}: "))).unwrap();
        assert!(error.contains(words) && error.ends_with("; the others go on"), "{error}");
    }
}

#[test]
fn two_equal_lines_have_one_key_and_the_second_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tab");
    std::fs::write(&file, "@daily tidy\n@daily  tidy\n").unwrap();
    let file = file.to_str().unwrap();
    for (line, arguments) in [("tab:2: ", &["--file", file][..]), ("pgwake: ", &["@daily", "@daily"])] {
        let next = ["cron", "--leader", "k", "--next", "1"];
        let output = run(&[&next[..], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(line) && said.contains("is there twice: with --leader"), "{said}");
        assert_eq!((text(&output).lines().count(), said.lines().count()), (1, 1));
        // Without a leader there is no key.
        assert_eq!(text(&run(&[&["cron", "--next", "1"][..], arguments].concat())).lines().count(), 2);
    }
}

#[test]
fn a_command_that_fails_is_named_by_its_line_its_schedule_and_its_due_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tab");
    let lines = "@every 1h true\nCRON_TZ=UTC * * * * * * sh -c 'exit 2'\n";
    std::fs::write(&file, lines).unwrap();
    let output = run(&["cron", "--file", file.to_str().unwrap(), "--count", "1"]);
    let said = String::from_utf8_lossy(&output.stderr);
    let (_, of_the_line) =
        said.split_once("tab:2: CRON_TZ=UTC * * * * * * sh -c exit 2, due 2").expect(&said);
    assert!(of_the_line.ends_with("Z: sh: exit status: 2\n"), "{said}");
    let output = run(&["cron", "@every 10ms", "--count", "1", "--exec", "/nowhere/at-all"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(" @every 10ms /nowhere/at-all, due 2"), "{said}");
}

#[test]
fn a_command_is_run_for_each_and_never_twice_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join("lock");
    let script = format!(
        "mkdir {lock} || echo twice; echo $PGWAKE_EVENT $PGWAKE_SCHEDULE $PGWAKE_MISSED; sleep 0.25; \
         rmdir {lock}",
        lock = lock.display()
    );
    let output = run(&["cron", "@every 100ms", "--count", "4", "--exec", "sh", "-c", &script]);
    let lines = text(&output);
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines.iter().all(|line| line.starts_with("tick @every 100ms ")), "{lines:?}");
    // Two or three of a tenth of a second each passed during the last run.
    assert!(lines[1..].iter().all(|line| !line.ends_with(" 0")), "{lines:?}");
    let output = run(&["cron", "@every 10ms", "--count", "2", "--exec", "/nowhere/at-all"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.matches("cannot be started").count() == 2, "{errors}");
}

/// `PGWAKE_TEST_FREEZE_S` says for how long; 60 is what is promised.
#[test]
fn a_process_that_was_frozen_has_each_due_time_once_or_not_at_all() {
    let seconds = std::env::var("PGWAKE_TEST_FREEZE_S").map_or(4, |s| s.parse::<u64>().unwrap());
    for missed in ["skip", "once", "all"] {
        let mut running = Running::start(&["cron", "* * * * * *", "-f", "json", "--missed", missed]);
        let due = |line: &Value| {
            let due = line["due"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
            (due.as_second(), line["missed"].as_u64().unwrap() as i64)
        };
        let (before, _) = due(&running.json());
        let pid = running.child.id() as i32;
        signal(pid, Signal::STOP);
        // The time that passes is what is tested.
        std::thread::sleep(Duration::from_secs(seconds));
        signal(pid, Signal::CONT);
        let after = jiff::Timestamp::now().as_second();
        let mut last = before;
        let mut taken = 0;
        while last < after + 1 {
            let (at, missed) = due(&running.json());
            assert_eq!(at, last + 1 + missed, "none twice, none left out in silence");
            (last, taken) = (at, taken + 1);
        }
        let passed = after - before;
        assert!(passed >= seconds as i64 - 1);
        match missed {
            "all" => assert_eq!(taken, last - before, "each comes"),
            _ => assert!(taken <= 3, "{missed}: {taken} of {passed}"),
        }
        signal(pid, Signal::TERM);
        assert_eq!(running.status(), 0);
    }
}

/// Where Debian's package `libfaketime` has the library; `PGWAKE_TEST_FAKETIME` names another.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Of the process's clocks only the wall clock is another one: as when somebody sets it. Nobody tells the
/// process, so it looks at its next due time.
#[test]
fn a_clock_that_is_set_by_an_hour_gives_each_due_time_once_or_not_at_all() {
    let library = std::env::var("PGWAKE_TEST_FAKETIME").unwrap_or_else(|_| FAKETIME.into());
    if !std::path::Path::new(&library).exists() {
        crate::common::say_loudly("SKIPPED: there is no libfaketime; see PGWAKE_TEST_FAKETIME");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let offset = folder.path().join("offset");
    for missed in ["skip", "once", "all"] {
        std::fs::write(&offset, "+0\n").unwrap();
        let mut command =
            pgwake(&["cron", "*/2 * * * * *", "@every 500ms", "--missed", missed, "-f", "json"]);
        let command = command
            .env("LD_PRELOAD", &library)
            .env("FAKETIME_TIMESTAMP_FILE", &offset)
            .env("FAKETIME_NO_CACHE", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
        let mut running = Running::of(command);
        // The next tick of the expression, and how many of the interval came before it.
        let mut next = |intervals_max: u32| -> Option<(i64, i64)> {
            let mut intervals = 0;
            while intervals < intervals_max {
                let line = running.json();
                if line["schedule"] == "*/2 * * * * *" {
                    let due = line["due"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
                    return Some((due.as_second(), line["missed"].as_i64().unwrap()));
                }
                intervals += 1;
            }
            None
        };
        let (mut last, _) = next(20).unwrap();
        std::fs::write(&offset, "+3600\n").unwrap();
        let mut taken = 0;
        let hour_later = last + 3600;
        while last < hour_later {
            let (due, missed) = next(20).unwrap();
            assert_eq!(due, last + 2 * (1 + missed), "none twice, none left out in silence");
            (last, taken) = (due, taken + 1);
        }
        match missed {
            "all" => assert!(taken >= 1800, "each comes: {taken}"),
            _ => assert!(taken <= 3, "{missed}: {taken}"),
        }
        std::fs::write(&offset, "+0\n").unwrap();
        // One may be under way. Then nothing comes that has come already; the interval goes on.
        while let Some((due, _)) = next(12) {
            assert!(due > last, "{due} came twice");
            last = due;
        }
        signal(running.child.id() as i32, Signal::TERM);
        let said = running.rest_of_stderr();
        assert_eq!(said.matches("the clock was set back by").count(), 1, "why nothing comes: {said}");
        assert_eq!(running.status(), 0);
    }
}

#[test]
fn sql_is_run_by_one_of_two_and_what_fails_is_shown() {
    let (dsn, mut sql) = outbox::database("");
    sql.run("CREATE TABLE done (at timestamptz DEFAULT clock_timestamp())");
    let led = |job: &str, key: &str| {
        Running::start(&["-d", &dsn, "cron", "* * * * * *", "--leader", key, "--for", "4s", "--sql", job])
    };
    let insert = "INSERT INTO done DEFAULT VALUES";
    let two = [led(insert, "a"), led(insert, "a")];
    let mut bad = led("SELECT 1 / 0", "b");
    let line = bad.line();
    assert!(line.contains("sql failed") && line.contains("division by zero"), "{line}");
    assert!(two.into_iter().chain([bad]).all(|running| running.status() == 0));
    let runs = sql.value("SELECT count(*) FROM pgwake.run WHERE key = 'a' AND outcome = 'done'");
    assert_eq!(sql.value("SELECT count(*) FROM done"), runs);
    assert!(["2", "3", "4"].contains(&&*runs), "{runs}");
}

#[test]
fn what_was_begun_ends_before_the_command_does_and_is_written_down() {
    let (dsn, mut sql) = outbox::database("");
    let cron = |more: &[&str]| run(&[&["-d", &dsn, "cron", "@every 300ms", "--count", "1"], more].concat());
    let outcome =
        "SELECT string_agg(DISTINCT outcome, ',') FROM pgwake.run WHERE outcome <> 'missed' AND key = ";
    let wrong = cron(&["--sql", "selekt"]);
    let said = String::from_utf8_lossy(&wrong.stdout).into_owned();
    assert!(said.contains("syntax error"), "{wrong:?}");
    let slow = cron(&["--leader", "slow", "--sql", "SELECT pg_sleep(0.7)"]);
    assert!(slow.status.success(), "{slow:?}");
    assert_eq!(sql.value(&format!("{outcome}'slow'")), "done");
    let printed = cron(&["--leader", "printed"]);
    assert!(printed.status.success(), "{printed:?}");
    assert_eq!(sql.value(&format!("{outcome}'printed'")), "done");
    let endless = cron(&["--leader", "endless", "--grace", "200ms", "--sql", "SELECT pg_sleep(3)"]);
    let said = String::from_utf8_lossy(&endless.stderr).into_owned();
    assert!(endless.status.code() == Some(1) && said.contains("nobody here will know"), "{said}");
}

#[test]
fn what_a_command_has_started_ends_with_it_after_its_time_of_grace() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let job = format!("(trap '' TERM; exec sleep 1000) & echo $! >{}; wait", file.display());
    let cron = ["cron", "@every 100ms", "--for", "300ms", "--grace", "200ms", "--exec", "sh", "-c", &job];
    assert!(run(&cron).status.success());
    let pid = std::fs::read_to_string(&file).unwrap();
    let started = Instant::now();
    while std::path::Path::new(&format!("/proc/{}/cwd", pid.trim())).read_link().is_ok() {
        assert!(started.elapsed() < crate::common::PATIENCE, "{pid} goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn due_times_that_pass_while_sql_runs_are_said_and_so_is_sql_whose_end_nobody_knows() {
    let (dsn, mut sql) = outbox::database("");
    let job = "SELECT pg_sleep(1.5) /* slow */";
    let mut running = Running::start(&["-d", &dsn, "cron", "@every 400ms", "--for", "5s", "--sql", job]);
    let line = running.stderr_line();
    assert!(line.contains("due times were missed"), "{line}");
    sql.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE query LIKE '%/* slow%' AND pid <> pg_backend_pid()",
    );
    let mut said = String::new();
    while !said.contains("it may have been done or not") {
        let line = running.line();
        assert!(!line.is_empty(), "it ended: {said}");
        said += &line;
    }
    running.status();
}

#[test]
fn a_leaders_command_is_written_down_with_what_became_of_it() {
    let (dsn, mut sql) = outbox::database("");
    let arguments =
        ["-d", &dsn, "cron", "@every 100ms", "--leader", "k", "--count", "2", "--exec", "sh", "-c", "exit 3"];
    let output = run(&arguments);
    assert!(output.status.success(), "{output:?}");
    let runs = sql.value(
        "SELECT string_agg(DISTINCT outcome || ': ' || message, ',') FROM pgwake.run \
        WHERE outcome <> 'missed'",
    );
    assert_eq!(runs, "failed: sh: exit status: 3");
    let started = Instant::now();
    while sql.value(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid \
        FROM pg_database WHERE datname = current_database())",
    ) != "0"
    {
        assert!(started.elapsed() < crate::common::PATIENCE, "the lock is not given back");
    }
}

#[test]
fn what_cannot_be_a_schedule_is_refused_as_the_page_says() {
    let (bare, _) = bare();
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "# nothing\n").unwrap();
    let empty = empty.to_str().unwrap();
    let both = folder.path().join("tab");
    std::fs::write(&both, "@daily tidy\n").unwrap();
    let both = both.to_str().unwrap();
    let cron = |more: &[&str]| run(&[&["cron"], more].concat());
    hold(
        "Schedules",
        vec![
            ("an expression with four fields", cron(&["0 0 * *"])),
            ("a field that is out of range", cron(&["61 * * * *"])),
            ("a list with a gap", cron(&["1,, * * * *", "--next", "1"])),
            ("an `L` alone as the day of the week", cron(&["0 0 * * L"])),
            ("an expression that is never due", cron(&["0 0 30 2 *"])),
            ("a zone that does not exist", cron(&["@daily", "--tz", "Mars/Base"])),
            ("an interval in such a zone", cron(&["@every 1s", "--count", "1", "--tz", "Mars/Base"])),
            ("an interval that is none", cron(&["@every soon"])),
            ("an interval of nothing", cron(&["@every 0s"])),
            ("a file without schedules", cron(&["--file", empty])),
            ("a line with a command, and `--sql`", cron(&["--file", both, "--sql", "SELECT 1"])),
            ("a file that is not there", cron(&["--file", "/nowhere/tab"])),
            ("`--sql` of which nothing is to be run", cron(&["@daily", "--sql", "/* SELECT 1 */"])),
            ("`--sql` that begins a transaction", cron(&["@daily", "--sql", "/* a */ begin"])),
            (
                "`--leader` without the schema `pgwake`",
                run(&["-d", &bare, "cron", "@daily", "--leader", "k"]),
            ),
            (
                "`--leader` without heartbeats",
                run(&["-d", &bare, "cron", "@daily", "--leader", "k", "--heartbeat", "0s"]),
            ),
        ],
    );
    let (sentence, status) = complaint(&["cron"]);
    assert!(status == 2 && sentence.contains("<EXPR>"), "{sentence}");
}

/// A database without the schema.
fn bare() -> (String, Sql) {
    let server = crate::common::server();
    let mut sql = Sql::connect(&server.conninfo());
    let name = crate::common::fresh_channel();
    sql.run(&format!("CREATE DATABASE {name}"));
    (server.conninfo().replace("dbname=postgres", &format!("dbname={name}")), sql)
}
