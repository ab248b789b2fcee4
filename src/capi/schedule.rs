//! When a C host wants to be woken: the exports for it. A struct that begins with its size flows in; the
//! crate's own options flow out.

use super::given::{invalid, session_id, utf8};
use super::handle::{self, Handle};
use super::options::{self, Versioned};
use super::status;
use crate::{EventLoop, Missed, Result, ScheduleOptions, TaskId};
use std::ffi::{c_char, c_int};
use std::time::Duration;

pub(super) const MISSED_SKIP: i32 = 0;
pub(super) const MISSED_ONCE: i32 = 1;
pub(super) const MISSED_ALL: i32 = 2;

/// Adds an interval and gives its number.
///
/// # Safety
///
/// As for [`pgwake_close`](super::pgwake_close).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_every(handle: *mut Handle, interval_ms: i64) -> c_int {
    let every = |inside: &mut handle::Inside| every(inside.events()?, interval_ms).map(task_number);
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, every) }
}

/// Adds a cron expression and gives its number.
///
/// # Safety
///
/// As for [`pgwake_close`](super::pgwake_close); `expression` is NULL or a C string; `options` is NULL or
/// points to as many bytes as its first field says, and the texts in it are NULL or C strings.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_cron(
    handle: *mut Handle,
    expression: *const c_char,
    options: *const CScheduleOptions,
) -> c_int {
    let cron = |inside: &mut handle::Inside| {
        // SAFETY: as the caller promises.
        unsafe { cron(inside.events()?, expression, options) }.map(task_number)
    };
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, cron) }
}

/// Ends a schedule.
///
/// # Safety
///
/// As for [`pgwake_close`](super::pgwake_close).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_cancel(handle: *mut Handle, id: c_int) -> c_int {
    let cancel = |inside: &mut handle::Inside| inside.events()?.cancel(task_id(id)).map(|()| status::OK);
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, cancel) }
}

/// Whether something of a schedule goes on at the server.
///
/// # Safety
///
/// As for [`pgwake_close`](super::pgwake_close).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_is_under_way(handle: *mut Handle, id: c_int) -> c_int {
    let look = |inside: &mut handle::Inside| Ok(inside.events()?.is_under_way(task_id(id)).into());
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, look) }
}

/// Says that the work of a schedule has ended.
///
/// # Safety
///
/// As for [`pgwake_close`](super::pgwake_close); `failure` is NULL or a C string.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_finish(
    handle: *mut Handle,
    id: c_int,
    failure: *const c_char,
) -> c_int {
    let finish = |inside: &mut handle::Inside| {
        // SAFETY: as the caller promises.
        let failure = unsafe { given(failure, "failure") }?;
        inside.events()?.finish(task_id(id), failure).map(|()| status::OK)
    };
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, finish) }
}

/// `pgwake_schedule_options`: zero means the default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct CScheduleOptions {
    pub(super) struct_size: u32,
    pub(super) missed: i32,
    pub(super) time_zone: *const c_char,
    pub(super) name: *const c_char,
    pub(super) leader: *const c_char,
    pub(super) sql: *const c_char,
    pub(super) session: i32,
    pub(super) manual_finish: i32,
    pub(super) jitter_ms: i64,
}

// SAFETY: two integers of four bytes, four pointers, two integers of four bytes, and one of eight, which lies
// at a multiple of eight whether pointers have four bytes or eight.
unsafe impl Versioned for CScheduleOptions {
    const NAME: &'static str = "pgwake_schedule_options";
}

/// A task as a number that is positive.
fn task_number(task: TaskId) -> c_int {
    task.0 as c_int
}

/// Whatever a host gives as a task: a number that names none is found out by the loop.
pub(super) fn task_id(task: c_int) -> TaskId {
    TaskId(task as u32)
}

pub(super) fn every(events: &mut EventLoop, interval_ms: i64) -> Result<TaskId> {
    let interval = u64::try_from(interval_ms).map_err(|_| invalid("an interval is not negative"))?;
    events.every(Duration::from_millis(interval))
}

/// # Safety
///
/// `expression` is NULL or a C string; `asked` is NULL or points to as many bytes as its first field says,
/// and the texts in it are NULL or C strings.
pub(super) unsafe fn cron(
    events: &mut EventLoop,
    expression: *const c_char,
    asked: *const CScheduleOptions,
) -> Result<TaskId> {
    // SAFETY: as the caller promises.
    let (expression, options) = unsafe { (utf8(expression, "expression")?, schedule(asked)?) };
    cron_of(events, expression, options)
}

#[cfg(feature = "schedules")]
fn cron_of(events: &mut EventLoop, expression: &str, options: ScheduleOptions) -> Result<TaskId> {
    events.cron(expression, options)
}

#[cfg(not(feature = "schedules"))]
fn cron_of(_: &mut EventLoop, _: &str, _: ScheduleOptions) -> Result<TaskId> {
    Err(invalid(
        "this library was built without cron expressions: use pgwake_every, or build it with \
         `make lib LIB_FEATURES=schedules`",
    ))
}

/// # Safety
///
/// As for [`cron`].
unsafe fn schedule(asked: *const CScheduleOptions) -> Result<ScheduleOptions> {
    // SAFETY: as the caller promises.
    let asked = unsafe { options::read(asked) }?;
    let missed = match asked.missed {
        MISSED_SKIP => Missed::Skip,
        MISSED_ONCE => Missed::Once,
        MISSED_ALL => Missed::All,
        other => return Err(invalid(&format!("missed is {other}: take a PGWAKE_MISSED_*"))),
    };
    let jitter = u64::try_from(asked.jitter_ms).map_err(|_| invalid("a jitter is not negative"))?;
    let mut own = ScheduleOptions::new()
        .missed(missed)
        .jitter(Duration::from_millis(jitter))
        .manual_finish(asked.manual_finish != 0);
    let session = session_id(asked.session);
    // SAFETY: as the caller promises.
    let texts = unsafe {
        [
            given(asked.time_zone, "time_zone")?,
            given(asked.name, "name")?,
            given(asked.leader, "leader")?,
            given(asked.sql, "sql")?,
        ]
    };
    let [time_zone, name, leader, sql] = texts;
    own = time_zone.into_iter().fold(own, ScheduleOptions::time_zone);
    own = name.into_iter().fold(own, ScheduleOptions::name);
    own = leader.into_iter().fold(own, |own, key| own.leader(session, key));
    own = sql.into_iter().fold(own, |own, sql| own.sql(session, sql));
    Ok(own)
}

/// A text that need not be there.
///
/// # Safety
///
/// `text` is NULL or a C string that stays as it is during `'a`.
pub(super) unsafe fn given<'a>(text: *const c_char, name: &str) -> Result<Option<&'a str>> {
    match text.is_null() {
        true => Ok(None),
        // SAFETY: as the caller promises.
        false => unsafe { utf8(text, name) }.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_of_a_schedule_reaches_it() {
        // SAFETY: the struct is whole, and its texts are C strings or NULL.
        let chosen = |asked: &CScheduleOptions| format!("{:?}", unsafe { schedule(asked) }.unwrap());
        // SAFETY: zeroes are a valid value: every default.
        let none = unsafe { std::mem::zeroed::<CScheduleOptions>() };
        let none = CScheduleOptions { struct_size: size_of::<CScheduleOptions>() as u32, ..none };
        assert_eq!(chosen(&none), format!("{:?}", ScheduleOptions::new()));
        let asked = CScheduleOptions {
            missed: MISSED_ALL,
            time_zone: c"UTC".as_ptr(),
            name: c"n".as_ptr(),
            leader: c"k".as_ptr(),
            sql: c"SELECT 1".as_ptr(),
            session: 7,
            manual_finish: 1,
            jitter_ms: 5,
            ..none
        };
        let session = session_id(7);
        let own = ScheduleOptions::new().missed(Missed::All).time_zone("UTC").name("n").leader(session, "k");
        let own = own.sql(session, "SELECT 1").manual_finish(true).jitter(Duration::from_millis(5));
        assert_eq!(chosen(&asked), format!("{own:?}"));
        for (missed, jitter_ms) in [(3, 0), (0, -1)] {
            // SAFETY: as above.
            assert!(unsafe { schedule(&CScheduleOptions { missed, jitter_ms, ..none }) }.is_err());
        }
    }

    #[test]
    fn a_library_without_cron_says_so_and_has_intervals() {
        let mut events = EventLoop::new().unwrap();
        assert!(task_number(every(&mut events, 10).unwrap()) > 0 && every(&mut events, -1).is_err());
        // SAFETY: a C string, and no options.
        let cron = unsafe { cron(&mut events, c"@daily".as_ptr(), std::ptr::null()) };
        assert_eq!(cron.is_ok(), cfg!(feature = "schedules"));
        if let Err(error) = cron {
            assert!(error.message.contains("LIB_FEATURES=schedules"), "{error}");
        }
    }
}
