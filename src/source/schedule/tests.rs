//! What comes of due times, on clocks that the tests put where they like.

use super::agenda::{Agenda, Due, Schedule};
use super::clock::Now;
use super::rule::Rule;
use crate::event::TaskId;
use crate::options::Missed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const S: Duration = Duration::from_secs(1);
const TASK: TaskId = TaskId(1);

/// 1 June 2025, noon, UTC.
const NOON_S: u32 = 1_748_779_200;

/// Both clocks, so many seconds after noon; the wall clock is off by so many.
struct Clocks {
    instant: Instant,
    wall: SystemTime,
}

impl Clocks {
    fn new() -> Self {
        Clocks { instant: Instant::now(), wall: UNIX_EPOCH + NOON_S * S }
    }

    fn at(&self, seconds: f64, set_by: i64) -> Now {
        let passed = Duration::from_secs_f64(seconds);
        let wall = if set_by < 0 { self.wall - (-set_by) as u32 * S } else { self.wall + set_by as u32 * S };
        Now { instant: self.instant + passed, wall: wall + passed }
    }

    fn noon_and(&self, seconds: u64) -> SystemTime {
        self.wall + seconds as u32 * S
    }
}

fn schedule(rule: Rule, missed: Missed) -> Schedule {
    Schedule { name: "a".into(), rule, missed, jitter: Duration::ZERO, manual_finish: false }
}

fn every(seconds: i128, missed: Missed) -> Schedule {
    schedule(Rule::Every(seconds * 1_000_000_000), missed)
}

/// Everything that is due, as seconds since noon, how many were missed, and how late it is.
fn take(agenda: &mut Agenda, clocks: &Clocks, now: Now) -> Vec<(u64, u64, u64)> {
    std::iter::from_fn(|| agenda.take_due(now))
        .map(|Due { due, missed, late, .. }| {
            (due.duration_since(clocks.wall).unwrap().as_secs(), missed, late.as_secs())
        })
        .collect()
}

#[test]
fn an_interval_is_due_when_it_is_over_and_not_before() {
    let clocks = Clocks::new();
    let mut agenda = Agenda::new(clocks.at(0.0, 0));
    agenda.add(TASK, every(10, Missed::Skip), clocks.at(5.0, 0));
    assert_eq!(agenda.deadline(), Some(clocks.at(15.0, 0).instant));
    assert_eq!(take(&mut agenda, &clocks, clocks.at(14.9, 0)), []);
    assert_eq!(take(&mut agenda, &clocks, clocks.at(15.0, 0)), [(15, 0, 0)]);
    // The next one counts from the due time, not from when it was looked at.
    assert_eq!(take(&mut agenda, &clocks, clocks.at(26.5, 0)), [(25, 0, 1)]);
    assert_eq!(agenda.deadline(), Some(clocks.at(35.0, 0).instant));
    assert!(agenda.cancel(TASK) && !agenda.cancel(TASK));
    assert_eq!((agenda.deadline(), agenda.is_over()), (None, true));
}

#[test]
fn due_times_that_have_passed_are_skipped_or_come_once_or_all() {
    let clocks = Clocks::new();
    for (missed, expected) in [
        // The last is no more than a minute late, and comes.
        (Missed::Skip, vec![(600, 5, 30)]),
        (Missed::Once, vec![(600, 5, 30)]),
        (
            Missed::All,
            vec![(100, 0, 530), (200, 0, 430), (300, 0, 330), (400, 0, 230), (500, 0, 130), (600, 0, 30)],
        ),
    ] {
        let mut agenda = Agenda::new(clocks.at(0.0, 0));
        agenda.add(TASK, every(100, missed), clocks.at(0.0, 0));
        assert_eq!(take(&mut agenda, &clocks, clocks.at(630.0, 0)), expected, "{missed:?}");
        assert_eq!(take(&mut agenda, &clocks, clocks.at(700.0, 0)), [(700, 0, 0)], "{missed:?}");
    }
    // When the last is more than a minute late as well, it is skipped, and the next tick says so.
    for (missed, expected) in [(Missed::Skip, vec![]), (Missed::Once, vec![(600, 5, 61)])] {
        let mut agenda = Agenda::new(clocks.at(0.0, 0));
        agenda.add(TASK, every(100, missed), clocks.at(0.0, 0));
        assert_eq!(take(&mut agenda, &clocks, clocks.at(661.0, 0)), expected, "{missed:?}");
        let skipped = if missed == Missed::Skip { 6 } else { 0 };
        assert_eq!(take(&mut agenda, &clocks, clocks.at(700.0, 0)), [(700, skipped, 0)], "{missed:?}");
    }
}

#[test]
fn no_tick_comes_before_the_work_of_the_last_has_ended() {
    let clocks = Clocks::new();
    let mut agenda = Agenda::new(clocks.at(0.0, 0));
    agenda.add(TASK, Schedule { manual_finish: true, ..every(10, Missed::Skip) }, clocks.at(0.0, 0));
    assert_eq!(take(&mut agenda, &clocks, clocks.at(10.0, 0)), [(10, 0, 0)]);
    assert_eq!(agenda.deadline(), None, "nothing is waited for meanwhile");
    assert!(!agenda.is_over());
    assert_eq!(take(&mut agenda, &clocks, clocks.at(45.0, 0)), []);
    assert!(agenda.finish(TASK) && agenda.finish(TASK) && !agenda.finish(TaskId(2)));
    assert_eq!(take(&mut agenda, &clocks, clocks.at(45.0, 0)), [(40, 2, 5)]);
}

#[test]
fn jitter_comes_on_top_of_a_due_time_and_ends_before_the_next() {
    let clocks = Clocks::new();
    let mut agenda = Agenda::new(clocks.at(0.0, 0));
    agenda.add(TASK, Schedule { jitter: 3600 * S, ..every(10, Missed::Skip) }, clocks.at(0.0, 0));
    let mut offsets = std::collections::BTreeSet::new();
    for n in 1..100 {
        let (due, next) = (clocks.at(f64::from(n * 10), 0), clocks.at(f64::from(n * 10 + 10), 0));
        let at = agenda.deadline().unwrap();
        assert!(at >= due.instant && at < next.instant);
        offsets.insert((at - due.instant).as_secs());
        let wall = due.wall + (at - due.instant);
        let tick = agenda.take_due(Now { instant: at, wall }).unwrap();
        assert_eq!((tick.missed, tick.late), (0, at - due.instant));
    }
    assert!(offsets.len() > 5, "it is random: {offsets:?}");
}

#[cfg(feature = "schedules")]
mod by_the_wall_clock {
    use super::super::civil::Cron;
    use super::*;

    fn agenda(clocks: &Clocks, expression: &str, missed: Missed) -> Agenda {
        let mut agenda = Agenda::new(clocks.at(0.0, 0));
        let cron = Cron::new(expression, Some("UTC")).unwrap();
        agenda.add(TASK, schedule(Rule::Cron(Box::new(cron)), missed), clocks.at(0.0, 0));
        agenda
    }

    #[test]
    fn a_start_is_no_due_time() {
        let clocks = Clocks::new();
        let mut agenda = agenda(&clocks, "* * * * *", Missed::All);
        assert_eq!(take(&mut agenda, &clocks, clocks.at(0.0, 0)), []);
        assert_eq!(agenda.deadline(), Some(clocks.at(60.0, 0).instant));
        assert_eq!(take(&mut agenda, &clocks, clocks.at(60.0, 0)), [(60, 0, 0)]);
    }

    #[test]
    fn a_clock_that_is_set_forward_makes_due_times_missed() {
        for (missed, expected) in [
            (Missed::Skip, vec![(3600 + 600, 6, 10)]),
            (Missed::Once, vec![(3600 + 600, 6, 10)]),
            (Missed::All, (1..=7).map(|n| (n * 600, 0, 4210 - n * 600)).collect()),
        ] {
            let clocks = Clocks::new();
            let mut agenda = agenda(&clocks, "*/10 * * * *", missed);
            let now = clocks.at(610.0, 3600);
            assert_eq!(take(&mut agenda, &clocks, now), expected, "{missed:?}");
            assert_eq!(agenda.deadline(), Some(now.instant + 590 * S));
        }
    }

    #[test]
    fn a_clock_that_is_set_back_gives_no_due_time_twice() {
        let clocks = Clocks::new();
        let mut agenda = agenda(&clocks, "*/10 * * * *", Missed::All);
        assert_eq!(take(&mut agenda, &clocks, clocks.at(600.0, 0)), [(600, 0, 0)]);
        // It shows 11:10 again, and nothing comes until it shows 12:20.
        let now = clocks.at(601.0, -3600);
        assert_eq!(take(&mut agenda, &clocks, now), []);
        assert_eq!(agenda.deadline(), Some(now.instant + (3600 + 599) * S));
        assert_eq!(take(&mut agenda, &clocks, clocks.at(601.0 + 4000.0, -3600)), []);
        assert_eq!(take(&mut agenda, &clocks, clocks.at(600.0 + 4200.0, -3600)), [(1200, 0, 0)]);
    }

    #[test]
    fn a_clock_that_was_wrong_by_more_than_a_day_is_forgotten() {
        let clocks = Clocks::new();
        let mut agenda = agenda(&clocks, "*/10 * * * *", Missed::Skip);
        let day = 24 * 3600;
        assert_eq!(agenda.take_due(clocks.at(10.0, -10 * day)), None);
        let due = agenda.take_due(clocks.at(600.0, -10 * day)).unwrap();
        assert_eq!(due.due, clocks.noon_and(600) - 10 * day as u32 * S);
    }

    #[test]
    fn an_interval_does_not_care_for_the_wall_clock() {
        let clocks = Clocks::new();
        let mut agenda = Agenda::new(clocks.at(0.0, 0));
        agenda.add(TASK, every(10, Missed::All), clocks.at(0.0, 0));
        assert_eq!(agenda.take_due(clocks.at(9.0, 3600)), None);
        let due = agenda.take_due(clocks.at(10.0, -3600 * 50)).unwrap();
        assert_eq!((due.late, due.due), (Duration::ZERO, clocks.noon_and(10) - 3600 * 50 * S));
    }

    #[test]
    fn more_missed_than_anybody_counts_do_not_keep_the_loop() {
        let clocks = Clocks::new();
        let mut agenda = agenda(&clocks, "* * * * * *", Missed::Once);
        let due = agenda.take_due(clocks.at(40.0 * 86_400.0, 0)).unwrap();
        assert_eq!((due.missed, due.late, due.due), (10_000, Duration::ZERO, clocks.noon_and(40 * 86_400)));
    }
}
