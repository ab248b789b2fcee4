//! No outage is silent: what was still there is delivered, the loss is told, and exactly one gap follows.

use crate::common::{
    PASSWORD, PATIENCE, Seen, Sql, assert_silent, fresh_channel, listening, next, server, signal,
    start_server,
};
use pgwake::{Event, EventLoop, Overflow, SessionOptions};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// The PID of the server process behind the session, from its first event.
fn connect(events: &mut EventLoop, channel: &str, heartbeat: Duration) -> i32 {
    let options = SessionOptions::new().heartbeat(heartbeat);
    let session = events.connect_with(&server().conninfo(), options).unwrap();
    events.listen(session, channel).unwrap();
    match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Listening(listening)) => listening.backend_pid,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_killed_backend_is_told_as_one_gap() {
    let channel = fresh_channel();
    let mut events = EventLoop::new().unwrap();
    let pid = connect(&mut events, &channel, Duration::ZERO);
    let mut sql = Sql::connect(&server().conninfo());
    sql.run(&format!("SELECT pg_terminate_backend({pid})"));
    assert_eq!(next(&mut events), Seen::Disconnected("57P01".into()));
    assert_eq!(next(&mut events), Seen::Gap { channels: vec![channel.clone()], sqlstate: "57P01".into() });
    sql.notify(&channel, "after");
    assert_eq!(next(&mut events), Seen::notification(&channel, "after"));
    assert_silent(&mut events, Duration::from_millis(100));
}

#[test]
fn what_was_there_before_the_loss_is_delivered_first() {
    let channel = fresh_channel();
    let mut events = EventLoop::new().unwrap();
    let pid = connect(&mut events, &channel, Duration::ZERO);
    let mut sql = Sql::connect(&server().conninfo());
    sql.run(&format!("SELECT count(pg_notify('{channel}', i::text)) FROM generate_series(1, 1000) i"));
    assert_eq!(next(&mut events), Seen::notification(&channel, "1"));
    // A process that has sent the first waits for its client again when it has sent them all. Before the
    // first it waits as well, and ended then, it would not look at the queue any more.
    let idle = format!("SELECT state FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'ClientRead'");
    while sql.value(&idle) != "idle" {}
    sql.run(&format!("SELECT pg_terminate_backend({pid})"));
    for i in 2..=1000 {
        assert_eq!(next(&mut events), Seen::notification(&channel, &i.to_string()));
    }
    assert_eq!(next(&mut events), Seen::Disconnected("57P01".into()));
    assert!(matches!(next(&mut events), Seen::Gap { .. }));
}

#[test]
fn a_frozen_backend_is_noticed_within_two_heartbeats() {
    let channel = fresh_channel();
    let mut events = EventLoop::new().unwrap();
    let heartbeat = Duration::from_millis(500);
    let pid = connect(&mut events, &channel, heartbeat);
    // Several heartbeats pass first, and the server answers them.
    assert_silent(&mut events, Duration::from_millis(1600));
    let frozen = Instant::now();
    signal(pid, Signal::STOP);
    let told = next(&mut events);
    let noticed = frozen.elapsed();
    signal(pid, Signal::CONT);
    assert_eq!(told, Seen::Disconnected("08006".into()));
    assert!(noticed < 2 * heartbeat + heartbeat / 2, "noticed after {noticed:?}");
    assert!(matches!(next(&mut events), Seen::Gap { .. }));
}

#[test]
fn a_caller_that_was_away_does_not_take_its_own_absence_for_an_outage() {
    let channel = fresh_channel();
    let mut events = EventLoop::new().unwrap();
    connect(&mut events, &channel, Duration::from_millis(200));
    for _ in 0..3 {
        assert_silent(&mut events, Duration::from_millis(250));
        std::thread::sleep(Duration::from_millis(700));
    }
    Sql::connect(&server().conninfo()).notify(&channel, "still here");
    assert_eq!(next(&mut events), Seen::notification(&channel, "still here"));
}

#[test]
fn a_permanent_error_ends_in_one_failure_after_two_attempts() {
    let conninfo = format!("host=127.0.0.1 port={}", server().port());
    for (rest, sqlstate) in [
        ("dbname=postgres user=locked password=wr0ng-one", "28P01"),
        ("dbname=does_not_exist user=postgres", "3D000"),
    ] {
        let mut events = EventLoop::new().unwrap();
        events.connect(&format!("{conninfo} {rest}")).unwrap();
        let Some(Event::Disconnected(lost)) = events.next(Some(PATIENCE)).unwrap() else { panic!() };
        assert_eq!(lost.sqlstate.unwrap().as_str(), sqlstate);
        assert!(!lost.message.contains("wr0ng") && !lost.message.contains('\n'), "{}", lost.message);
        assert_eq!(next(&mut events), Seen::Failed(sqlstate.into()));
        // Nothing is left to wait for, so an unlimited wait ends at once.
        assert!(events.next(None).unwrap().is_none());
    }
    let (mut events, _) =
        listening(&format!("{conninfo} dbname=postgres user=locked password={PASSWORD}"), &["c"]);
    assert_silent(&mut events, Duration::from_millis(50));
}

#[test]
fn an_unreachable_server_is_tried_again_until_it_is_there() {
    let server = start_server();
    let conninfo = server.conninfo();
    let (mut events, _) = listening(&conninfo, &["c"]);
    drop(server);
    assert_eq!(next(&mut events), Seen::Disconnected("57P01".into()));
    for _ in 0..3 {
        assert_eq!(next(&mut events), Seen::Disconnected("08001".into()));
    }
}

#[test]
fn a_notification_whose_outcome_is_unknown_is_told() {
    let mut events = EventLoop::new().unwrap();
    let options = SessionOptions::new().heartbeat(Duration::from_millis(300));
    let session = events.connect_with(&server().conninfo(), options).unwrap();
    let pid = match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Listening(listening)) => listening.backend_pid,
        other => panic!("{other:?}"),
    };
    signal(pid, Signal::STOP);
    events.notify(session, "somewhere", "").unwrap();
    let unknown = Seen::CommandFailed {
        command: "notify".into(),
        channel: "somewhere".into(),
        sqlstate: "08007".into(),
    };
    assert_eq!(next(&mut events), unknown);
    assert_eq!(next(&mut events), Seen::Disconnected("08006".into()));
    signal(pid, Signal::CONT);
}

#[test]
fn a_notification_queued_on_a_session_that_fails_is_told() {
    let mut events = EventLoop::new().unwrap();
    let conninfo = format!("host=127.0.0.1 port={} dbname=does_not_exist user=postgres", server().port());
    let session = events.connect(&conninfo).unwrap();
    events.notify(session, "c", "never sent").unwrap();
    assert_eq!(next(&mut events), Seen::Disconnected("3D000".into()));
    let unsent =
        Seen::CommandFailed { command: "notify".into(), channel: "c".into(), sqlstate: "3D000".into() };
    assert_eq!(next(&mut events), unsent);
    assert_eq!(next(&mut events), Seen::Failed("3D000".into()));
    assert_eq!(events.notify(session, "c", "").unwrap_err().kind, pgwake::ErrorKind::Connection);
}

#[test]
fn ninety_sessions_come_back_after_each_restart() {
    let mut server = start_server();
    let mut events = EventLoop::new().unwrap();
    for _ in 0..90 {
        let session = events.connect(&server.conninfo()).unwrap();
        events.listen(session, "c").unwrap();
    }
    for _ in 0..90 {
        assert_eq!(next(&mut events), Seen::listening(&["c"]));
    }
    for mode in ["fast", "immediate"] {
        server.restart(mode).unwrap();
        let mut back = std::collections::BTreeSet::new();
        while back.len() < 90 {
            match events.next(Some(PATIENCE)).unwrap() {
                Some(Event::Gap(gap)) => assert!(back.insert(gap.session), "a second gap for one outage"),
                Some(Event::Disconnected(lost)) => {
                    assert!(!back.contains(&lost.session), "lost again: {lost:?}")
                }
                other => panic!("{mode}, {} are back: {other:?}", back.len()),
            }
        }
        Sql::connect(&server.conninfo()).notify("c", mode);
        for _ in 0..90 {
            assert_eq!(next(&mut events), Seen::notification("c", mode));
        }
    }
}

#[test]
fn a_session_that_fails_delivers_what_it_had_read_before() {
    let mut sql = Sql::connect(&server().conninfo());
    sql.run("CREATE ROLE shut_out LOGIN");
    let conninfo = server().conninfo().replace("user=postgres", "user=shut_out");
    let channel = fresh_channel();
    let mut events = EventLoop::new().unwrap();
    let options = SessionOptions::new().overflow(Overflow::DropOldest(usize::MAX));
    let session = events.connect_with(&conninfo, options).unwrap();
    events.listen(session, &channel).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[&channel]));
    sql.run(&format!("SELECT count(pg_notify('{channel}', i::text)) FROM generate_series(1, 3000) i"));
    assert_eq!(next(&mut events), Seen::notification(&channel, "1"));
    sql.run("ALTER ROLE shut_out NOLOGIN");
    sql.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shut_out'");
    // A caller that is slow: the session fails while most is still there.
    let mut taken = 1;
    while events.listen(session, &channel).is_ok() {
        taken += 1;
        assert_eq!(next(&mut events), Seen::notification(&channel, &taken.to_string()));
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut last = Seen::Other(String::new());
    while let Some(event) = events.next(None).unwrap() {
        last = Seen::of(event);
        taken += u32::from(matches!(last, Seen::Notification { .. }));
    }
    assert_eq!((taken, last), (3000, Seen::Failed("28000".into())));
}
