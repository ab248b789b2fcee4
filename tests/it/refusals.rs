//! Servers that will not have us: the same answer twice is the end of a session, it is told with its reason,
//! and once the cause is mended, `connect` revives what was meant.

use crate::common::{PATIENCE, Seen, Sql, fresh_channel, make_standby, next, server, start_server};
use pgwake::{Event, EventLoop};
use std::time::{Duration, Instant};

/// One attempt is told as lost, the second is the end; both for this reason. The words of the end.
fn assert_refused(events: &mut EventLoop, sqlstate: &str) -> String {
    match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Disconnected(lost)) => assert_eq!(lost.sqlstate.unwrap().as_str(), sqlstate, "{lost:?}"),
        other => panic!("{other:?}"),
    }
    let message = match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Failed(failed)) => {
            assert_eq!(failed.sqlstate.unwrap().as_str(), sqlstate, "{failed:?}");
            failed.message.to_string()
        }
        other => panic!("{other:?}"),
    };
    // Longer than the wait between the two.
    assert!(events.next(Some(Duration::from_millis(1500))).unwrap().is_none(), "a third attempt was made");
    message
}

#[test]
fn a_standby_that_was_asked_for_refuses_to_listen() {
    let mut standby = start_server();
    make_standby(&mut standby);
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&format!("{} target_session_attrs=any", standby.conninfo())).unwrap();
    events.listen(session, "c").unwrap();
    let message = assert_refused(&mut events, "25006");
    assert!(message.contains("LISTEN"), "{message}");
}

#[test]
fn a_refusal_to_listen_ends_no_outage_when_all_answers_come_at_once() {
    let mut server = start_server();
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&format!("{} target_session_attrs=any", server.conninfo())).unwrap();
    events.listen(session, "c").unwrap();
    assert_eq!(next(&mut events), Seen::listening(&["c"]));
    make_standby(&mut server);
    let (started, mut seen) = (Instant::now(), Vec::new());
    while seen.last() != Some(&Seen::Failed("25006".into())) && started.elapsed() < PATIENCE {
        seen.extend(events.next(Some(Duration::ZERO)).unwrap().map(Seen::of));
        // A caller that comes seldom finds the refusal and the end of all answers in one read.
        std::thread::sleep(Duration::from_millis(50));
    }
    let (end, before) = seen.split_last().unwrap();
    assert_eq!(*end, Seen::Failed("25006".into()), "{before:?}");
    assert!(before.iter().all(|event| matches!(event, Seen::Disconnected(_))), "it never listened: {seen:?}");
}

#[test]
fn a_session_that_failed_is_revived_by_connecting_again() {
    let channel = fresh_channel();
    let database = format!("made_later_{channel}");
    let conninfo = format!("{} dbname={database}", server().conninfo());
    let mut events = EventLoop::new().unwrap();
    let failed = events.connect(&conninfo).unwrap();
    events.listen(failed, &channel).unwrap();
    assert_refused(&mut events, "3D000");
    Sql::connect(&server().conninfo()).run(&format!("CREATE DATABASE {database}"));
    events.disconnect(failed).unwrap();
    let revived = events.connect(&conninfo).unwrap();
    assert_ne!(revived, failed, "a later session has another name");
    events.listen(revived, &channel).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[&channel]));
    Sql::connect(&conninfo).notify(&channel, "alive");
    assert_eq!(next(&mut events), Seen::notification(&channel, "alive"));
}

#[test]
fn a_role_that_does_not_exist_is_the_end_however_many_places_there_are() {
    let (directory, port) = (server().directory().display(), server().port());
    let gone = tempfile::tempdir().unwrap();
    for hosts in [
        format!("host={directory}"),
        format!("host={directory},{directory}"),
        format!("host={},{directory}", gone.path().display()),
        "host=localhost".into(),
        "host=127.0.0.1,127.0.0.1".into(),
    ] {
        let mut events = EventLoop::new().unwrap();
        events.connect(&format!("{hosts} port={port} user=nobody_here dbname=postgres")).unwrap();
        let message = assert_refused(&mut events, "28000");
        assert!(message.ends_with("FATAL: role \"nobody_here\" does not exist"), "{hosts}: {message}");
        assert_eq!(message.matches("failed:").count(), 1, "{hosts}: {message}");
    }
}

#[test]
fn a_password_that_is_missing_is_the_end_however_many_places_there_are() {
    let (directory, port) = (server().directory().display(), server().port());
    let gone = tempfile::tempdir().unwrap();
    let conninfo = format!(
        "host={},{directory} port={port} user=locked dbname=postgres passfile={}/none",
        gone.path().display(),
        gone.path().display()
    );
    let mut events = EventLoop::new().unwrap();
    events.connect(&conninfo).unwrap();
    let message = assert_refused(&mut events, "28P01");
    assert!(message.contains("no password supplied"), "{message}");
}

#[test]
fn a_certificate_of_another_name_is_the_end() {
    let certificate = server().directory().join("server.crt");
    let conninfo = format!(
        "host=other.example hostaddr=127.0.0.1 port={} user=postgres dbname=postgres sslmode=verify-full \
         sslrootcert={}",
        server().port(),
        certificate.display()
    );
    let mut events = EventLoop::new().unwrap();
    events.connect(&conninfo).unwrap();
    let message = assert_refused(&mut events, "28000");
    assert!(message.contains("other.example"), "{message}");
}

#[test]
fn a_certificate_of_another_authority_is_the_end() {
    let other = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let authority = directory.path().join("other.crt");
    std::fs::write(&authority, other.cert.pem()).unwrap();
    let conninfo = format!(
        "host=127.0.0.1 port={} user=postgres dbname=postgres sslmode=verify-ca sslrootcert={}",
        server().port(),
        authority.display()
    );
    let mut events = EventLoop::new().unwrap();
    events.connect(&conninfo).unwrap();
    let message = assert_refused(&mut events, "28000");
    assert!(message.contains("certificate"), "{message}");
}
