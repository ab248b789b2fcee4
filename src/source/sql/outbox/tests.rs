//! The outbox's reader against answers that are made up: no server, no connection.

use super::*;
use crate::event::ChangeOp;
use crate::pq::rows;
use crate::source::sql::link::tests::link;
use std::time::Duration;

const INSERT: &str = r#"{"op":"insert","schema":"public","table":"t","id":256}"#;

fn error(code: &str) -> Result<Rows> {
    Err(Error::new(ErrorKind::Server, "no").with_sqlstate(SqlState::new(code)))
}

/// A reader on a connection that was just made, and has been asked to look.
fn looking(now: Instant) -> (Outbox, Link) {
    let mut link = link("", now);
    let mut outbox = Outbox::new(WatchOptions::new().table("t")).unwrap();
    assert!(!outbox.step(&mut link, now), "there is no connection");
    outbox.opened(&mut link, now);
    assert!(outbox.step(&mut link, now));
    (outbox, link)
}

/// The same, which has got so far that it reads.
fn reading(now: Instant) -> (Outbox, Link) {
    let (mut outbox, mut link) = looking(now);
    let looked = rows(&[[Some("16385"), Some("outbox"), None]]);
    assert!(outbox.answered(&mut link, OutboxRequest::Look, Ok(Some(looked)), now).is_continue());
    let opened = rows(&[[Some("reader 1"), Some("5:5:||")]]);
    assert!(outbox.answered(&mut link, OutboxRequest::Open, Ok(Some(opened)), now).is_continue());
    assert!(link.channels.is_wanted(&crate::event::Channel::of_name(WAKE_CHANNEL)));
    assert!(outbox.step(&mut link, now) && outbox.state == State::Reading);
    (outbox, link)
}

fn page(rest: &[[Option<&str>; 3]]) -> Result<Rows> {
    Ok(Some(rows(&[rest, &[[Some("end"), Some("0"), Some("9:9:||")]]].concat())))
}

fn codes(link: &mut Link) -> Vec<String> {
    let code = |report| match report {
        Report::CommandFailed { command: "watch", channel: None, error } => {
            error.sqlstate.unwrap().to_string()
        }
        other => panic!("{other:?}"),
    };
    link.reports.drain(..).map(code).collect()
}

#[test]
fn a_page_comes_row_by_row_also_when_the_connection_is_lost() {
    let now = Instant::now();
    let (mut outbox, mut link) = reading(now);
    let [change, gap] = [[Some("change"), Some("256"), Some(INSERT)], [Some("gap"), Some("512"), Some("7")]];
    let answer = page(&[change, gap, change]);
    assert!(outbox.answered(&mut link, OutboxRequest::Read, answer, now).is_continue());
    assert!(matches!(outbox.advance(&mut link, now), Next::Change));
    let told = outbox.change(link.id, "db").unwrap();
    assert_eq!((told.op, told.table, told.id), (ChangeOp::Insert, "t", Some(256)));
    outbox.lost();
    let gap = outbox.advance(&mut link, now);
    assert!(matches!(gap, Next::Report(Report::Overflow { dropped: 7, .. })), "{gap:?}");
    assert!(matches!(outbox.advance(&mut link, now), Next::Change));
    assert!(matches!(outbox.advance(&mut link, now), Next::Nothing) && !outbox.has_changes());
}

#[test]
fn others_have_their_turn_after_so_many_changes() {
    let now = Instant::now();
    let (mut outbox, mut link) = reading(now);
    let answer = page(&[[Some("change"), Some("256"), Some(INSERT)]; DELIVERED_MAX as usize + 1]);
    assert!(outbox.answered(&mut link, OutboxRequest::Read, answer, now).is_continue());
    for _ in 0..DELIVERED_MAX {
        assert!(matches!(outbox.advance(&mut link, now), Next::Change));
    }
    assert!(matches!(outbox.advance(&mut link, now), Next::Yield));
    assert!(matches!(outbox.advance(&mut link, now), Next::Change));
    assert!(matches!(outbox.advance(&mut link, now), Next::Nothing));
}

#[test]
fn tables_that_are_refused_for_good_end_it_and_others_are_tried_again() {
    let now = Instant::now();
    for (refusals, goes_on) in
        [(&["55P03"][..], true), (&["42P01"], false), (&["55P03", "42P01"], false), (&[], true)]
    {
        let (mut outbox, mut link) = looking(now);
        for code in refusals {
            assert!(outbox.answered(&mut link, OutboxRequest::Ensure, error(code), now).is_continue());
        }
        let looked = Ok(Some(rows(&[[None, None, None]])));
        let flow = outbox.answered(&mut link, OutboxRequest::Look, looked, now);
        assert_eq!((flow.is_continue(), codes(&mut link).len()), (goes_on, refusals.len().max(1)));
        if goes_on && !refusals.is_empty() {
            let again = outbox.deadline().unwrap();
            assert!(outbox.step(&mut link, again) && outbox.state == State::Looking);
        }
    }
}

#[test]
fn a_refusal_to_read_is_reported_once_and_a_consumer_that_is_gone_is_opened_anew() {
    let mut now = Instant::now();
    let (mut outbox, mut link) = reading(now);
    for expected in [&["57014"][..], &[]] {
        assert!(outbox.answered(&mut link, OutboxRequest::Read, error("57014"), now).is_continue());
        assert_eq!(
            (outbox.state, codes(&mut link)),
            (State::Open, expected.iter().map(|c| c.to_string()).collect())
        );
        now = outbox.deadline().unwrap();
        assert!(outbox.step(&mut link, now) && outbox.state == State::Reading);
    }
    assert!(outbox.answered(&mut link, OutboxRequest::Read, error("42704"), now).is_continue());
    assert_eq!((outbox.state, codes(&mut link)), (State::Closed, vec!["42704".into()]));
    assert!(outbox.deadline().is_some_and(|at| at <= now + Duration::from_secs(1)));
}

#[test]
fn what_answers_in_an_unknown_way_is_reported_and_tried_again() {
    let now = Instant::now();
    let (mut outbox, mut link) = reading(now);
    assert!(outbox.answered(&mut link, OutboxRequest::Read, Ok(None), now).is_continue());
    assert_eq!((outbox.has_changes(), codes(&mut link)), (false, vec!["08P01".into()]));
    assert!(outbox.deadline().is_some());
}
