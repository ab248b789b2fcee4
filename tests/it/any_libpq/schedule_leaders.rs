//! Schedules that need a session: SQL at times, and due times of which one of many processes has each.

use crate::common::pgbouncer::PgBouncer;
use crate::common::{PATIENCE, outbox, server};
use pgwake::{ErrorKind, Event, EventLoop, Missed, ScheduleOptions, SessionId, SessionOptions, TaskId};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn session(events: &mut EventLoop, conninfo: &str) -> SessionId {
    let options = SessionOptions::new().self_test(true).heartbeat(500 * MS);
    events.connect_with(conninfo, options).unwrap()
}

/// The next tick, whatever comes before it but for trouble.
fn tick(events: &mut EventLoop) -> (TaskId, SystemTime, u64) {
    loop {
        match events.next(Some(PATIENCE)).unwrap().expect("a tick") {
            Event::Tick(tick) => return (tick.task, tick.due, tick.missed),
            Event::Listening(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn one_of_many_loops_has_each_due_time_and_it_is_written_down() {
    let (conninfo, mut sql) = outbox::database("");
    let mut loops: Vec<EventLoop> = (0..3).map(|_| EventLoop::new().unwrap()).collect();
    for events in &mut loops {
        let session = session(events, &conninfo);
        let options = ScheduleOptions::new().leader(session, "job").missed(Missed::All);
        events.cron("* * * * * *", options).unwrap();
    }
    let until = Instant::now() + 4 * S;
    let mut due = Vec::new();
    while Instant::now() < until {
        for events in &mut loops {
            if let Some(Event::Tick(tick)) = events.next(Some(10 * MS)).unwrap() {
                due.push(tick.due);
            }
        }
    }
    let taken = due.len();
    due.dedup();
    assert!(due.len() == taken && (2..=4).contains(&taken), "each comes once: {due:?}");
    assert!(due.windows(2).all(|pair| pair[1] == pair[0] + S), "and none is left out: {due:?}");
    let counts = sql.value(
        "SELECT count(*) || ' ' || count(*) FILTER (WHERE outcome IN ('done', 'running') AND \
         started >= due AND (ended > started OR outcome = 'running')) FROM pgwake.run WHERE key = 'job'",
    );
    assert_eq!(counts, format!("{taken} {taken}"));
}

#[test]
fn what_was_missed_while_nobody_ran_is_missed_by_the_policy_and_a_start_is_no_due_time() {
    let (conninfo, mut sql) = outbox::database("");
    let start = |missed: Missed, expression: &str| {
        let mut events = EventLoop::new().unwrap();
        let session = session(&mut events, &conninfo);
        let options = ScheduleOptions::new().time_zone("UTC").leader(session, "k").missed(missed);
        events.cron(expression, options).unwrap();
        events
    };
    let yearly = "0 0 1 1 *";
    let is_silent = |events: &mut EventLoop| {
        let until = Instant::now() + S;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            match events.next(Some(left)).unwrap() {
                None | Some(Event::Listening(_)) => {}
                Some(other) => panic!("{other:?}"),
            }
        }
    };
    is_silent(&mut start(Missed::All, yearly));
    // As if nobody had run for three years.
    sql.run("UPDATE pgwake.schedule SET last_due = date_trunc('year', last_due) - interval '2 years'");
    is_silent(&mut start(Missed::Skip, yearly));
    let (_, due, missed) = tick(&mut start(Missed::Once, yearly));
    assert_eq!(missed, 1);
    let new_year = sql.value("SELECT pgwake.us_of(date_trunc('year', now(), 'UTC'))").parse::<u64>().unwrap();
    assert_eq!(due, UNIX_EPOCH + Duration::from_micros(new_year));
    let runs = "SELECT string_agg(outcome || coalesce(ended::text, ''), ',' ORDER BY due) FROM pgwake.run";
    assert_eq!(sql.value(runs), "missed,running");
    is_silent(&mut start(Missed::All, yearly));
    // Another expression under the same key begins anew.
    sql.run("UPDATE pgwake.schedule SET last_due = last_due - interval '5 years'");
    is_silent(&mut start(Missed::All, "0 0 2 1 *"));
    sql.run("UPDATE pgwake.schedule SET last_due = date_trunc('year', last_due) - interval '1 year'");
    let mut events = start(Missed::All, "0 0 2 1 *");
    let first = tick(&mut events);
    let second = tick(&mut events);
    assert!(first.1 < second.1 && (first.2, second.2) == (0, 0));
}

#[test]
fn sql_is_run_when_it_is_due_and_its_failure_is_reported_and_kept() {
    let (conninfo, mut sql) = outbox::database("");
    sql.run("CREATE TABLE done (n int)");
    let mut events = EventLoop::new().unwrap();
    let session = session(&mut events, &conninfo);
    let every = |sql: &str| ScheduleOptions::new().sql(session, sql);
    let led =
        events.every_with(40 * MS, every("INSERT INTO done VALUES (1)").leader(session, "good")).unwrap();
    let alone = events.every_with(40 * MS, every("INSERT INTO done VALUES (2)")).unwrap();
    let mut ticks = Vec::new();
    while !ticks.contains(&led) || !ticks.contains(&alone) || ticks.len() < 6 {
        ticks.push(tick(&mut events).0);
    }
    events.cancel(led).unwrap();
    events.cancel(alone).unwrap();
    events.every_with(40 * MS, every("SELECT 1 / 0").leader(session, "bad")).unwrap();
    let failed = loop {
        if let Some(Event::CommandFailed(failed)) = events.next(Some(PATIENCE)).unwrap() {
            break (failed.command, failed.sqlstate.unwrap().to_string());
        }
    };
    assert_eq!(failed, ("sql", "22012".into()));
    while sql.value("SELECT count(*) FROM pgwake.run WHERE outcome = 'failed'") == "0" {
        events.next(Some(10 * MS)).unwrap();
    }
    let message = sql.value("SELECT min(message) FROM pgwake.run WHERE outcome = 'failed'");
    assert!(message.contains("division by zero"), "{message}");
    let counts = sql.value("SELECT count(DISTINCT n) FROM done");
    assert_eq!(counts, "2");
}

/// They end the connection each time, which is no fault of the server.
#[test]
fn sql_that_gives_too_many_rows_is_told_so() {
    let (conninfo, _) = outbox::database("");
    let mut events = EventLoop::new().unwrap();
    let session = session(&mut events, &conninfo);
    let rows = "SELECT repeat('x', 1000) FROM generate_series(1, 20000)";
    events.every_with(40 * MS, ScheduleOptions::new().sql(session, rows)).unwrap();
    let (code, message) = loop {
        if let Some(Event::Disconnected(lost)) = events.next(Some(PATIENCE)).unwrap() {
            break (lost.sqlstate.unwrap().to_string(), lost.message.to_string());
        }
    };
    assert_eq!(code, "54000");
    assert!(message.contains("the rows of one answer have more than 16 MB"), "{message}");
}

#[test]
fn no_other_loop_has_the_lock_before_the_work_has_ended() {
    let (conninfo, mut sql) = outbox::database("");
    let mut loops: Vec<EventLoop> = (0..2).map(|_| EventLoop::new().unwrap()).collect();
    for events in &mut loops {
        let session = session(events, &conninfo);
        let options = ScheduleOptions::new().leader(session, "job").manual_finish(true);
        events.cron("* * * * * *", options).unwrap();
    }
    let mut all = |until: Instant| {
        let mut ticks = Vec::new();
        while Instant::now() < until {
            for (n, events) in loops.iter_mut().enumerate() {
                if let Some(Event::Tick(tick)) = events.next(Some(10 * MS)).unwrap() {
                    ticks.push((n, tick.task));
                }
            }
        }
        ticks
    };
    let first = all(Instant::now() + 3 * S);
    let [(n, task)] = first[..] else { panic!("one, and its work goes on: {first:?}") };
    loops[n].finish(task, Some("for a reason")).unwrap();
    let mut all = |until: Instant| {
        let mut ticks = Vec::new();
        while Instant::now() < until {
            for events in &mut loops {
                if let Some(Event::Tick(tick)) = events.next(Some(10 * MS)).unwrap() {
                    ticks.push(tick.due);
                }
            }
        }
        ticks
    };
    assert_eq!(all(Instant::now() + 2 * S).len(), 1);
    let runs = sql.value(
        "SELECT string_agg(outcome || coalesce(':' || message, ''), ',' ORDER BY due) \
        FROM pgwake.run WHERE outcome <> 'missed'",
    );
    assert_eq!(runs, "failed:for a reason,running");
}

/// What it takes is done with for all, who would wait until they are there, too.
#[test]
fn a_machine_whose_clock_is_wrong_by_days_stops_no_other() {
    let (conninfo, mut sql) = outbox::database("");
    let mut events = EventLoop::new().unwrap();
    let session = session(&mut events, &conninfo);
    events.cron("* * * * * *", ScheduleOptions::new().leader(session, "k")).unwrap();
    tick(&mut events);
    let ahead = "SELECT pgwake.begin_run('k', pgwake.us_of(now() + interval '25 hours'), '{}')";
    let error = sql.try_run(ahead).unwrap_err();
    assert_eq!(error.sqlstate.map(|code| code.to_string()), Some("55000".into()), "{error}");
    assert!(error.message.contains("ahead of the server"), "{error}");
    tick(&mut events);
}

#[test]
fn a_leader_is_refused_where_its_lock_might_be_somebody_elses() {
    let mut events = EventLoop::new().unwrap();
    let plain = events.connect("host=/nowhere").unwrap();
    let options = ScheduleOptions::new().leader(plain, "k");
    let error = events.every_with(S, options).unwrap_err();
    assert!(error.kind == ErrorKind::InvalidArgument && error.message.contains("self-test"), "{error}");
    let deaf = SessionOptions::new().self_test(true).heartbeat(Duration::ZERO);
    let deaf = events.connect_with("host=/nowhere", deaf).unwrap();
    let error = events.every_with(S, ScheduleOptions::new().leader(deaf, "k")).unwrap_err();
    assert!(error.message.contains("heartbeat"), "{error}");
    let session = session(&mut events, "host=/nowhere");
    events.every_with(S, ScheduleOptions::new().leader(session, "k")).unwrap();
    let error = events.every_with(S, ScheduleOptions::new().leader(session, "k")).unwrap_err();
    assert!(error.message.contains("another key"), "{error}");
}

#[test]
fn a_leader_behind_a_pooler_in_transaction_mode_is_refused() {
    let (conninfo, _) = outbox::database("");
    let dbname = conninfo.split("dbname=").nth(1).unwrap();
    let settings = "pool_mode = transaction\nignore_startup_parameters = extra_float_digits";
    let Some(pooler) = PgBouncer::start(server().port(), settings) else { return };
    let mut events = EventLoop::new().unwrap();
    let options = SessionOptions::new().self_test(true).heartbeat(2 * S);
    let session = events.connect_with(&pooler.conninfo(dbname), options).unwrap();
    events.cron("* * * * * *", ScheduleOptions::new().leader(session, "job")).unwrap();
    // It tries again once.
    let (sqlstate, message) = match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Disconnected(lost)) => (lost.sqlstate, lost.message.to_string()),
        other => panic!("{other:?}"),
    };
    assert_eq!(sqlstate.map(|code| code.to_string()), Some("0A000".into()));
    assert!(message.contains("a pooler in transaction mode"), "{message}");
    match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Failed(failed)) => assert_eq!((failed.sqlstate, failed.message), (sqlstate, &*message)),
        other => panic!("{other:?}"),
    }
}
