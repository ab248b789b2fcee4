//! What a C host polls: the exports for it. A struct that begins with its size flows in, the crate's own
//! options flow out; values of rows are looked for where the loop has them.

use super::given::{self, invalid, session_id, utf8};
use super::handle::{self, Handle};
use super::options::{self, Versioned, refuse_reserved};
use crate::{Event, EventLoop, PollOptions, Result, Rows};
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null;

/// Adds a poll to a session; its number, which is positive.
///
/// # Safety
///
/// As for [`pgwake_close`](super::pgwake_close); `sql` is NULL or a C string, `options` NULL or as long as
/// its first field says, the texts in it are NULL or C strings, and so are as many in its list of
/// parameters as it says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_poll(
    handle: *mut Handle,
    session: c_int,
    sql: *const c_char,
    options: *const CPollOptions,
) -> c_int {
    let add = |inside: &mut handle::Inside| {
        // SAFETY: as the caller promises.
        let (sql, options) = unsafe { (utf8(sql, "sql")?, poll(options)?) };
        Ok(inside.events()?.poll(session_id(session), sql, options)?.0 as c_int)
    };
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, add) }
}

/// A value of the rows that were given last: 1 with one, 0 for NULL.
///
/// # Safety
///
/// As for [`pgwake_close`](super::pgwake_close); `value` points to a pointer, `len` is NULL or points to a
/// number.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_value(
    handle: *const Handle,
    row: usize,
    column: usize,
    value: *mut *const c_char,
    len: *mut usize,
) -> c_int {
    let look = |inside: &mut handle::Inside| {
        if value.is_null() {
            return Err(invalid("pgwake_value has no place for the value: its fourth argument is NULL"));
        }
        let found = value_at(inside.events()?, row, column)?;
        let (text, length) = found.unwrap_or(NO_VALUE);
        // SAFETY: as the caller promises.
        unsafe {
            value.write(text);
            if !len.is_null() {
                len.write(length);
            }
        }
        Ok(c_int::from(found.is_some()))
    };
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, look) }
}

/// Where a column stands in the rows that were given last, by its name.
///
/// # Safety
///
/// As for [`pgwake_close`](super::pgwake_close); `name` is NULL or a C string.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pgwake_column(handle: *const Handle, name: *const c_char) -> c_int {
    let look = |inside: &mut handle::Inside| {
        // SAFETY: as the caller promises.
        let name = unsafe { utf8(name, "name") }?;
        Ok(place_of(inside.events()?, name)? as c_int)
    };
    // SAFETY: as the caller promises.
    unsafe { handle::enter(handle, look) }
}

/// `pgwake_poll_options`: zero means the default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct CPollOptions {
    pub(super) struct_size: u32,
    pub(super) binary: i32,
    pub(super) every_ms: i64,
    pub(super) adaptive_ms: i64,
    pub(super) statement_timeout_ms: i64,
    pub(super) bytes_max: u64,
    pub(super) from_start: i32,
    pub(super) manual_ack: i32,
    pub(super) page_rows: u32,
    pub(super) batch_rows: u32,
    pub(super) parameters_len: u32,
    pub(super) reserved: i32,
    pub(super) parameters: *const *const c_char,
    pub(super) wake_on: *const c_char,
    pub(super) name: *const c_char,
    pub(super) cursor: *const c_char,
    pub(super) xid_column: *const c_char,
    pub(super) order_by: *const c_char,
    pub(super) done: *const c_char,
    pub(super) reserved_2: *const c_void,
}

// SAFETY: two integers of four bytes, four of eight, which lie at multiples of eight, six of four, and eight
// pointers, which fill multiples of eight whether they have four bytes or eight.
unsafe impl Versioned for CPollOptions {
    const NAME: &'static str = "pgwake_poll_options";
}

/// How to poll.
///
/// # Safety
///
/// `asked` is NULL or points to as many bytes as its first field says; the texts in it are NULL or C strings,
/// and so are as many in `parameters` as it says.
unsafe fn poll(asked: *const CPollOptions) -> Result<PollOptions> {
    // SAFETY: as the caller promises.
    let asked = unsafe { options::read(asked) }?;
    refuse_reserved(asked.reserved | i32::from(!asked.reserved_2.is_null()), CPollOptions::NAME)?;
    let text = |given: *const c_char, name| match given.is_null() {
        true => Ok(None),
        // SAFETY: as the caller promises.
        false => unsafe { utf8(given, name) }.map(Some),
    };
    let mut own = PollOptions::new()
        .binary(asked.binary != 0)
        .from_start(asked.from_start != 0)
        .manual_ack(asked.manual_ack != 0);
    own = options::given(asked.every_ms).into_iter().fold(own, PollOptions::every);
    own = options::given(asked.adaptive_ms).into_iter().fold(own, PollOptions::adaptive);
    own = options::given(asked.statement_timeout_ms).into_iter().fold(own, PollOptions::statement_timeout);
    if asked.bytes_max != 0 {
        own = own.bytes_max(usize::try_from(asked.bytes_max).unwrap_or(usize::MAX));
    }
    if asked.page_rows != 0 {
        own = own.page_rows(asked.page_rows);
    }
    if asked.batch_rows != 0 {
        own = own.batch_rows(asked.batch_rows);
    }
    if !asked.wake_on.is_null() {
        // A channel: any bytes.
        // SAFETY: as the caller promises.
        own = own.wake_on(unsafe { given::text(asked.wake_on, "wake_on") }?);
    }
    own = text(asked.name, "name")?.into_iter().fold(own, PollOptions::name);
    own = text(asked.cursor, "cursor")?.into_iter().fold(own, PollOptions::cursor);
    own = text(asked.xid_column, "xid_column")?.into_iter().fold(own, PollOptions::xid_column);
    own = text(asked.order_by, "order_by")?.into_iter().fold(own, PollOptions::order_by);
    own = text(asked.done, "done")?.into_iter().fold(own, PollOptions::done);
    if asked.parameters.is_null() && asked.parameters_len != 0 {
        return Err(invalid("parameters is NULL, and parameters_len is not 0"));
    }
    for place in 0..asked.parameters_len as usize {
        // SAFETY: as the caller promises.
        own = match text(unsafe { asked.parameters.add(place).read_unaligned() }, "parameters")? {
            Some(value) => own.parameter(value),
            None => own.null_parameter(),
        };
    }
    Ok(own)
}

/// The rows that were given last.
fn rows(events: &EventLoop) -> Result<Rows<'_>> {
    match events.event_at_hand() {
        Some(Event::Rows(rows)) => Ok(rows),
        _ => Err(invalid("the event that was given last is no PGWAKE_EVENT_ROWS, or it is gone")),
    }
}

/// Where a value lies, and its length; `None` for NULL. Behind it is a NUL, as libpq has it.
fn value_at(events: &EventLoop, row: usize, column: usize) -> Result<Option<(*const c_char, usize)>> {
    let rows = rows(events)?;
    let Some(values) = rows.row(row).filter(|_| column < rows.columns().len()) else {
        let (rows_len, columns_len) = (rows.len(), rows.columns().len());
        return Err(invalid(&format!(
            "there is no value in row {row}, column {column}: of {rows_len} rows and {columns_len} columns \
             the first is 0"
        )));
    };
    Ok(values.get(column).map(|value| (value.as_ptr().cast(), value.len())))
}

/// Where the column of this name stands.
fn place_of(events: &EventLoop, name: &str) -> Result<usize> {
    let place = rows(events)?.columns().iter().position(|column| column == name);
    place.ok_or_else(|| invalid(&format!("the rows have no column {name:?}")))
}

/// What a value is where there is none.
const NO_VALUE: (*const c_char, usize) = (null(), 0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capi::status;
    use std::time::Duration;

    #[test]
    fn every_choice_of_a_poll_reaches_it() {
        // SAFETY: the texts are C strings, and there are as many parameters as is said.
        let chosen = |asked: &CPollOptions| format!("{:?}", unsafe { poll(asked) }.unwrap());
        // SAFETY: zeroes are a valid value: every default.
        let none = unsafe { std::mem::zeroed::<CPollOptions>() };
        let none = CPollOptions { struct_size: size_of::<CPollOptions>() as u32, ..none };
        assert_eq!(chosen(&none), format!("{:?}", PollOptions::new()));
        let parameters = [c"1".as_ptr(), null(), c"".as_ptr()];
        let asked = CPollOptions {
            every_ms: 2,
            adaptive_ms: 3,
            statement_timeout_ms: -1,
            bytes_max: 5000,
            page_rows: 6,
            batch_rows: 7,
            parameters: parameters.as_ptr(),
            parameters_len: 3,
            wake_on: c"w\xe9".as_ptr(),
            name: c"n".as_ptr(),
            cursor: c"c".as_ptr(),
            xid_column: c"x".as_ptr(),
            order_by: c"o".as_ptr(),
            done: c"d".as_ptr(),
            ..none
        };
        let ms = Duration::from_millis;
        let own = PollOptions::new().every(ms(2)).adaptive(ms(3)).statement_timeout(Duration::ZERO);
        let own =
            own.bytes_max(5000).page_rows(6).batch_rows(7).wake_on(b"w\xe9").name("n").cursor("c").done("d");
        let own = own.xid_column("x").order_by("o").parameter("1").null_parameter().parameter("");
        assert_eq!(chosen(&asked), format!("{own:?}"));
        // One at a time, so that none stands for another.
        type Flag = (fn(&mut CPollOptions) -> &mut i32, fn(PollOptions) -> PollOptions);
        let flags: [Flag; 3] = [
            (|c| &mut c.binary, |own| own.binary(true)),
            (|c| &mut c.from_start, |own| own.from_start(true)),
            (|c| &mut c.manual_ack, |own| own.manual_ack(true)),
        ];
        for (flag, own) in flags {
            let mut asked = none;
            *flag(&mut asked) = 7;
            assert_eq!(chosen(&asked), format!("{:?}", own(PollOptions::new())));
        }
        for wrong in [
            CPollOptions { reserved: 1, ..none },
            CPollOptions { reserved_2: c"".as_ptr().cast(), ..none },
            CPollOptions { parameters_len: 1, ..none },
            CPollOptions { cursor: c"\xff".as_ptr(), ..none },
        ] {
            // SAFETY: as above.
            assert_eq!(status::of(&unsafe { poll(&wrong) }.unwrap_err()), status::INVALID, "{wrong:?}");
        }
    }
}
