//! The header says what the exports are: names, signatures, numbers, layouts. And what panics stays inside.

use super::event::{self, Delivered, FlatEvent};
use super::handle::{self, Handle};
use super::options::{self, CLoopOptions, CSessionOptions};
use super::poll::CPollOptions;
use super::schedule::CScheduleOptions;
use super::*;
use crate::{
    Change, ChangeOp, ChangePayload, DdlOptions, DdlPhase, Lsn, Position, Schema, TableColumn, Transaction,
    Transport, WatchOptions,
};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::mem::offset_of;
use std::process::Command;

const HEADER: &str = include_str!("../../ffi/include/pgwake.h");
const EXPORTS: &str =
    concat!(include_str!("../capi.rs"), include_str!("poll.rs"), include_str!("schedule.rs"));

/// The header without its comments, as the compiler sees it.
fn header_code() -> String {
    let mut code = String::new();
    for part in HEADER.split("*/") {
        code.push_str(part.split("/*").next().unwrap());
    }
    code.replace("\\\n", "")
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `name(arguments) -> result` of each function, in Rust's words.
fn declared() -> Vec<String> {
    let code = header_code();
    let code: Vec<&str> = code.lines().filter(|line| !line.starts_with('#')).collect();
    let code = code.join("\n");
    let functions = code.split(';').map(squeezed).filter(|item| {
        let opened = item.find('(').unwrap_or(0);
        item[..opened].contains("pgwake_") && !item.contains("typedef")
    });
    let mut declared: Vec<String> = functions
        .map(|item| {
            let (head, arguments) = item.split_once('(').unwrap();
            let at = head.rfind("pgwake_").unwrap();
            let arguments: Vec<&str> = arguments
                .trim_end_matches(')')
                .split(',')
                .filter(|argument| *argument != "void")
                .map(|argument| {
                    rust_type(argument.trim_end_matches(|c: char| c.is_alphanumeric() || c == '_'))
                })
                .collect();
            format!("{}({}) -> {}", &head[at..], arguments.join(", "), rust_type(&head[..at]))
        })
        .collect();
    declared.sort();
    declared
}

fn rust_type(c: &str) -> &'static str {
    match c.trim() {
        "pgwake *" => "*mut Handle",
        "const pgwake *" => "*const Handle",
        "const pgwake_options *" => "*const CLoopOptions",
        "const pgwake_session_options *" => "*const CSessionOptions",
        "const pgwake_watch_options *" => "*const CWatchOptions",
        "const pgwake_ddl_options *" => "*const CDdlOptions",
        "const pgwake_stream_options *" => "*const CStreamOptions",
        "const pgwake_schedule_options *" => "*const CScheduleOptions",
        "const pgwake_poll_options *" => "*const CPollOptions",
        "pgwake_metrics *" => "*mut FlatMetrics",
        "const pgwake_event **" => "*mut *const FlatEvent",
        "const char **" => "*mut *const c_char",
        "size_t *" => "*mut usize",
        "const char *" => "*const c_char",
        "const char *const *" => "*const *const c_char",
        "const void *" => "*const c_void",
        "void *" => "*mut c_void",
        "pgwake_log_fn" => "Option<LogFn>",
        "int" => "c_int",
        "size_t" => "usize",
        "int64_t" => "i64",
        "uint32_t" => "u32",
        "uint64_t" => "u64",
        "void" => "()",
        other => panic!("the header uses a type that this test does not know: {other:?}"),
    }
}

#[test]
fn the_header_declares_every_export_with_its_signature() {
    let mut exported: Vec<String> = EXPORTS
        .split("extern \"C\" fn ")
        .skip(1)
        .map(|text| {
            let signature = squeezed(text.split('{').next().unwrap());
            let (name, rest) = signature.split_once('(').unwrap();
            let (arguments, result) = rest.rsplit_once(')').unwrap();
            let arguments: Vec<&str> = arguments
                .split(", ")
                .filter_map(|a| Some(a.split_once(": ")?.1.trim_end_matches(',')))
                .collect();
            let result = result.trim().strip_prefix("-> ").unwrap_or("()");
            format!("{name}({}) -> {result}", arguments.join(", "))
        })
        .collect();
    exported.sort();
    assert_eq!(declared(), exported);
}

const NUMBERS_OF_OTHERS: [(&str, i32); 8] = [
    ("STREAMING_OFF", stream::STREAMING_OFF),
    ("STREAMING_ON", stream::STREAMING_ON),
    ("STREAMING_EARLY", stream::STREAMING_EARLY),
    ("ORIGIN_ANY", stream::ORIGIN_ANY),
    ("ORIGIN_NONE", stream::ORIGIN_NONE),
    ("MISSED_SKIP", schedule::MISSED_SKIP),
    ("MISSED_ONCE", schedule::MISSED_ONCE),
    ("MISSED_ALL", schedule::MISSED_ALL),
];

#[test]
fn the_header_has_every_number_and_no_other() {
    let mut numbers: BTreeMap<String, i64> =
        status::NAMES.iter().map(|(n, name)| (name.to_str().unwrap().into(), i64::from(*n))).collect();
    let others = [
        ("ABI_VERSION", ABI_VERSION as i32),
        ("EVENT_LISTENING", event::LISTENING),
        ("EVENT_NOTIFICATION", event::NOTIFICATION),
        ("EVENT_GAP", event::GAP),
        ("EVENT_DISCONNECTED", event::DISCONNECTED),
        ("EVENT_FAILED", event::FAILED),
        ("EVENT_COMMAND_FAILED", event::COMMAND_FAILED),
        ("EVENT_SENT", event::SENT),
        ("EVENT_CHANGE", event::CHANGE),
        ("EVENT_DDL", event::DDL),
        ("EVENT_ACKNOWLEDGED", event::ACKNOWLEDGED),
        ("EVENT_SCHEMA", event::SCHEMA),
        ("EVENT_BEGIN", event::BEGIN),
        ("EVENT_COMMIT", event::COMMIT),
        ("EVENT_PREPARE", event::PREPARE),
        ("EVENT_ROLLBACK", event::ROLLBACK),
        ("EVENT_MESSAGE", event::MESSAGE),
        ("EVENT_TICK", event::TICK),
        ("EVENT_ROWS", event::ROWS),
        ("GAP_OUTAGE", event::GAP_OUTAGE),
        ("GAP_OVERFLOW", event::GAP_OVERFLOW),
        ("GAP_REPLACED", event::GAP_REPLACED),
        ("PHASE_BEFORE", watch::PHASE_BEFORE),
        ("PHASE_AFTER", watch::PHASE_AFTER),
        ("OP_INSERT", watch::OP_INSERT as i32),
        ("OP_UPDATE", watch::OP_UPDATE as i32),
        ("OP_DELETE", watch::OP_DELETE as i32),
        ("OP_TRUNCATE", watch::OP_TRUNCATE as i32),
        ("PAYLOAD_KEY", watch::PAYLOAD_KEY),
        ("PAYLOAD_WAKE", watch::PAYLOAD_WAKE),
        ("PAYLOAD_CHANGED", watch::PAYLOAD_CHANGED),
        ("PAYLOAD_ROW", watch::PAYLOAD_ROW),
        ("TRANSPORT_OUTBOX", watch::TRANSPORT_OUTBOX),
        ("TRANSPORT_NOTIFY", watch::TRANSPORT_NOTIFY),
        ("TRANSPORT_WAL", watch::TRANSPORT_WAL),
        ("OVERFLOW_BLOCK", options::OVERFLOW_BLOCK),
        ("OVERFLOW_COALESCE", options::OVERFLOW_COALESCE),
        ("OVERFLOW_DROP_OLDEST", options::OVERFLOW_DROP_OLDEST),
        ("LOG_OFF", 0),
        ("LOG_ERROR", ::log::Level::Error as i32),
        ("LOG_WARN", ::log::Level::Warn as i32),
        ("LOG_INFO", ::log::Level::Info as i32),
        ("LOG_DEBUG", ::log::Level::Debug as i32),
        ("LOG_TRACE", ::log::Level::Trace as i32),
    ];
    let others = others.into_iter().chain(NUMBERS_OF_OTHERS);
    numbers.extend(others.map(|(name, n)| (format!("PGWAKE_{name}"), i64::from(n))));
    let code = header_code();
    let defined = code.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("#define ")?.split_once(' ')?;
        Some((name.to_string(), value.trim().trim_matches(['(', ')']).parse::<i64>().ok()?))
    });
    assert_eq!(defined.collect::<BTreeMap<_, _>>(), numbers);
    assert!(HEADER.contains(&format!("#define PGWAKE_VERSION \"{}\"", env!("CARGO_PKG_VERSION"))));
}

/// Name, offset and size of each field, in the order of the struct.
type Layout = Vec<(String, usize, usize)>;

macro_rules! layout {
    ($type:ty: $($field:ident)*) => {
        vec![
            $((
                stringify!($field).trim_start_matches("r#").to_string(),
                offset_of!($type, $field),
                size_of_field(|value: &$type| &value.$field),
            ),)*
            ("sizeof".to_string(), 0, size_of::<$type>()),
        ]
    };
}

fn size_of_field<T, F>(_: impl Fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// What the C compiler says of a struct of the header.
fn compiled_layout(name: &str, directory: &std::path::Path) -> Layout {
    let code = header_code();
    let body = code.split(&format!("typedef struct {name} {{")).nth(1).unwrap().split('}').next().unwrap();
    let mut program = "#include <pgwake.h>\n#include <stdio.h>\nint main(void) {\n".to_string();
    for declaration in body.split(';').map(str::trim).filter(|declaration| !declaration.is_empty()) {
        let field = declaration.split('[').next().unwrap().rsplit([' ', '*']).next().unwrap();
        program += &format!(
            "printf(\"{field} %zu %zu\\n\", offsetof({name}, {field}), sizeof((({name} *)0)->{field}));\n"
        );
    }
    program += &format!("printf(\"sizeof 0 %zu\\n\", sizeof({name}));\nreturn 0;\n}}\n");
    let (source, binary) = (directory.join(format!("{name}.c")), directory.join(name));
    std::fs::write(&source, program).unwrap();
    let include = concat!("-I", env!("CARGO_MANIFEST_DIR"), "/ffi/include");
    let built = Command::new("cc").arg(include).arg(&source).arg("-o").arg(&binary).status().unwrap();
    assert!(built.success());
    let output = Command::new(binary).output().unwrap().stdout;
    let lines = String::from_utf8(output).unwrap();
    let entry = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        (words[0].to_string(), words[1].parse().unwrap(), words[2].parse().unwrap())
    };
    lines.lines().map(entry).collect()
}

#[test]
fn the_header_lays_out_every_struct_as_the_library_does() {
    let directory = tempfile::tempdir().unwrap();
    let event = layout!(FlatEvent: struct_size r#type session pid channel channel_len payload payload_len
        folded own backend_pid db db_len host host_len server_version server_version_len channels channels_len
        message message_len command command_len sqlstate reason attempts dropped lost_at_us retry_in_ms
        count op transport id xid schema schema_len table table_len partition partition_len key key_len
        old_row old_row_len new_row new_row_len changed changed_len phase depth temp reserved
        user user_len app app_len lsn commit_lsn end_lsn ordinal committed_at_us snapshot transactional
        gid gid_len unchanged_toast unchanged_toast_len position position_len columns column_types
        column_is_key columns_len task reserved_2 schedule schedule_len due_us missed late_us
        poll poll_len column_type_oids rows_len);
    assert_eq!(compiled_layout("pgwake_event", directory.path()), event);
    let options = layout!(CLoopOptions: struct_size spin_us stall_warning_ms spin_adaptive_permille
        reserved);
    assert_eq!(compiled_layout("pgwake_options", directory.path()), options);
    let options =
        layout!(CSessionOptions: struct_size overflow overflow_max skip_own heartbeat_ms self_test reserved);
    assert_eq!(compiled_layout("pgwake_session_options", directory.path()), options);
    let options = layout!(CWatchOptions: struct_size ops payload transport consumer columns from_start
        only_watched manual_ack reserved fallback_poll_ms before reserved_2);
    assert_eq!(compiled_layout("pgwake_watch_options", directory.path()), options);
    let options = layout!(CDdlOptions: struct_size temp nested reserved tags before phases);
    assert_eq!(compiled_layout("pgwake_ddl_options", directory.path()), options);
    let options = layout!(CStreamOptions: struct_size create_slot slot publications tables reserved_2
        temporary failover partition_names snapshot messages transactions streaming two_phase binary origin
        manual_ack reserved memory_max_bytes heartbeat_ms);
    assert_eq!(compiled_layout("pgwake_stream_options", directory.path()), options);
    let options = layout!(CScheduleOptions: struct_size missed time_zone name leader sql session manual_finish
        jitter_ms);
    assert_eq!(compiled_layout("pgwake_schedule_options", directory.path()), options);
    let options = layout!(CPollOptions: struct_size binary every_ms adaptive_ms statement_timeout_ms bytes_max
        from_start manual_ack page_rows batch_rows parameters_len reserved parameters wake_on name cursor
        xid_column order_by done reserved_2);
    assert_eq!(compiled_layout("pgwake_poll_options", directory.path()), options);
    let metrics = layout!(FlatMetrics: struct_size notifications bytes folded dropped gaps reconnects
        last_probe_us probe_round_trip_ns turns longest_turn_ns delivery_count delivery_p50_ns delivery_p99_ns
        delivery_max_ns stalls longest_stall_ns changes received_lsn acknowledged_lsn unknown_messages
        held_back_bytes polls);
    assert_eq!(compiled_layout("pgwake_metrics", directory.path()), metrics);
}

/// The text of the last failure, as C reads it.
fn error_of(handle: *const Handle) -> String {
    // SAFETY: the handle is NULL or from `pgwake_new`, and the text ends with a NUL.
    unsafe { CStr::from_ptr(pgwake_error(handle)) }.to_str().unwrap().to_string()
}

/// Where the event points to, as C reads it.
fn text_at(text: *const c_char) -> String {
    // SAFETY: it ends with a NUL, and the event has not been forgotten.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_string()
}

#[test]
fn what_the_log_tells_reaches_c() {
    let (mut delivered, session, db) = (Delivered::new(), crate::SessionId(3), "app");
    let column = |name: &str, is_key| TableColumn { name: name.into(), type_name: name.repeat(2), is_key };
    let columns = [column("a", false), column("b", true), column("c", true)];
    delivered.deliver(&Event::Schema(Schema { session, db, schema: "s", table: "t", columns: &columns }));
    // SAFETY: the event lives in `delivered`.
    let seen = |delivered: &Delivered| unsafe { delivered.flat().read() };
    let flat = seen(&delivered);
    assert_eq!((flat.r#type, flat.session, flat.columns_len), (event::SCHEMA, 3, 3));
    for (i, column) in columns.iter().enumerate() {
        // SAFETY: the lists have three places, and two of them a NULL behind these.
        let (name, kind, is_key) = unsafe {
            assert!((*flat.columns.add(3)).is_null() && (*flat.column_types.add(3)).is_null());
            (*flat.columns.add(i), *flat.column_types.add(i), *flat.column_is_key.add(i))
        };
        assert_eq!((text_at(name), text_at(kind)), (column.name.clone(), column.type_name.clone()));
        assert_eq!(is_key, i32::from(column.is_key));
    }

    let at = std::time::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001);
    let mut change = Change::of(session, db, ChangeOp::Update, "s", "t");
    (change.commit_lsn, change.ordinal, change.lsn) = (Some(Lsn(0x1_0000_0002)), Some(7), Some(Lsn(5)));
    (change.committed_at, change.snapshot, change.unchanged_toast) = (Some(at), true, Some("[\"a\"]"));
    change.transport = Transport::Wal;
    delivered.deliver(&Event::Change(change));
    let flat = seen(&delivered);
    assert_eq!((flat.lsn, flat.commit_lsn, flat.ordinal), (5, 0x1_0000_0002, 7));
    assert_eq!((flat.committed_at_us, flat.snapshot), (1_700_000_000_000_001, 1));
    assert_eq!((text_at(flat.position), text_at(flat.unchanged_toast)), ("1/2/7".into(), "[\"a\"]".into()));
    assert!(flat.columns.is_null() && flat.payload.is_null(), "what the event has not, is not there");

    let of = Transaction {
        session,
        db,
        xid: 9,
        lsn: Some(Lsn(5)),
        end_lsn: Some(Lsn(6)),
        committed_at: Some(at),
        gid: Some("g"),
        position: Some(Position::Log(Lsn(5), 8)),
    };
    for (event, kind) in [
        (Event::Begin(of), event::BEGIN),
        (Event::Commit(of), event::COMMIT),
        (Event::Prepare(of), event::PREPARE),
        (Event::Rollback(of), event::ROLLBACK),
    ] {
        delivered.deliver(&event);
        let flat = seen(&delivered);
        assert_eq!((flat.r#type, flat.xid, flat.lsn, flat.end_lsn), (kind, 9, 5, 6));
        assert_eq!((text_at(flat.gid), text_at(flat.position)), ("g".into(), "0/5/8".into()));
    }
}

#[test]
fn every_choice_of_a_watch_reaches_it() {
    let chosen = |tables: &[*const c_char], asked: &CWatchOptions| {
        // SAFETY: the list ends with NULL, and so do those in the asked.
        format!("{:?}", unsafe { watch::tables(tables.as_ptr(), asked) }.unwrap())
    };
    let (orders, end) = (c"orders".as_ptr(), std::ptr::null());
    // SAFETY: zeroes are a valid value: every default.
    let none = unsafe { std::mem::zeroed::<CWatchOptions>() };
    let none = CWatchOptions { struct_size: size_of::<CWatchOptions>() as u32, ..none };
    let own = WatchOptions::new().table("orders");
    assert_eq!(chosen(&[orders, end], &none), format!("{own:?}"));
    let columns = [c"a".as_ptr(), c"b".as_ptr(), end];
    let asked = CWatchOptions {
        ops: 1 | 4,
        payload: 3,
        transport: 1,
        consumer: c"billing".as_ptr(),
        columns: columns.as_ptr(),
        from_start: 1,
        only_watched: 2,
        manual_ack: 3,
        fallback_poll_ms: 4,
        before: 5,
        ..none
    };
    let own = own.table("b").payload(ChangePayload::Row).transport(Transport::Notify).columns(["a", "b"]);
    let own = own.ops([ChangeOp::Insert, ChangeOp::Delete]).consumer("billing").from_start(true);
    let own = own.only_watched(true).manual_ack(true).fallback_poll(Duration::from_millis(4)).before(true);
    assert_eq!(chosen(&[orders, c"b".as_ptr(), end], &asked), format!("{own:?}"));
    let never = CWatchOptions { fallback_poll_ms: -1, ..none };
    let own = WatchOptions::new().fallback_poll(Duration::ZERO);
    assert_eq!(chosen(&[end], &never), format!("{own:?}"));

    // SAFETY: zeroes are a valid value: every default.
    let none = unsafe { std::mem::zeroed::<CDdlOptions>() };
    let none = CDdlOptions { struct_size: size_of::<CDdlOptions>() as u32, ..none };
    // SAFETY: the list ends with NULL.
    let chosen = |asked: &CDdlOptions| format!("{:?}", unsafe { watch::ddl(asked) }.unwrap());
    assert_eq!(chosen(&none), format!("{:?}", DdlOptions::new()));
    let asked = CDdlOptions { tags: columns.as_ptr(), temp: 1, nested: 1, before: 1, ..none };
    let both = DdlOptions::new().phase(DdlPhase::Before).phase(DdlPhase::After);
    assert_eq!(chosen(&asked), format!("{:?}", both.tags(["a", "b"]).temp(true).nested(true)));
    let phases = |phases: i32| CDdlOptions { phases, ..none };
    let before = DdlOptions::new().phase(DdlPhase::Before);
    assert_eq!(chosen(&phases(1)), format!("{before:?}"));
    assert_eq!(chosen(&phases(3)), format!("{:?}", before.phase(DdlPhase::After)));
    let refused = [phases(4), CDdlOptions { before: 1, ..phases(1) }];
    // SAFETY: there is no list.
    assert!(refused.iter().all(|asked| unsafe { watch::ddl(asked) }.is_err()));
}

#[test]
fn a_panic_becomes_a_status_and_a_dead_handle() {
    // SAFETY: one thread uses the handle, and all pointers are good or NULL.
    unsafe {
        let handle = pgwake_new(std::ptr::null());
        assert_eq!(error_of(handle), "");
        assert_eq!(handle::enter(handle, |_| panic!("as if there were a bug")), status::PANIC);
        let text = error_of(handle);
        assert!(text.contains("a bug in pgwake"), "{text}");
        let mut event = std::ptr::null();
        let answers = [
            pgwake_fd(handle),
            pgwake_timeout_ms(handle),
            pgwake_next(handle, 0, &mut event),
            pgwake_wake(handle),
            pgwake_connect(handle, c"".as_ptr(), std::ptr::null()),
            pgwake_disconnect(handle, 0),
            pgwake_listen(handle, 0, c"a".as_ptr()),
            pgwake_unlisten(handle, 0, c"a".as_ptr()),
            pgwake_notify(handle, 0, c"a".as_ptr(), std::ptr::null(), 0),
            pgwake_watch(handle, 0, std::ptr::null(), std::ptr::null()),
            pgwake_watch_ddl(handle, 0, std::ptr::null()),
            pgwake_stream(handle, c"".as_ptr(), std::ptr::null()),
            pgwake_ack(handle, 0, 0),
            pgwake_metrics_get(handle, 0, std::ptr::null_mut()),
        ];
        assert_eq!(answers, [status::PANIC; 14]);
        assert_eq!(error_of(handle), text);
        pgwake_close(handle);
        assert_eq!(pgwake_wake(handle), status::INVALID);
    }
}

#[test]
fn a_call_from_within_a_call_is_refused() {
    // SAFETY: one thread uses the handle.
    unsafe {
        let handle = pgwake_new(std::ptr::null());
        let outer = handle::enter(handle, |_| {
            pgwake_close(handle);
            Ok(pgwake_fd(handle))
        });
        assert_eq!(outer, status::INVALID);
        assert!(error_of(handle).contains("in use"));
        assert!(pgwake_fd(handle) >= 0, "it goes on");
        pgwake_close(handle);
    }
}

#[test]
fn a_long_text_is_cut_between_characters() {
    // SAFETY: one thread uses the handle.
    unsafe {
        let handle = pgwake_new(std::ptr::null());
        for text in ["é".repeat(511), "é".repeat(512), "x".repeat(1023), "x".repeat(5000)] {
            assert_eq!(handle::enter(handle, |_| Err(invalid(&text))), status::INVALID);
            let kept = error_of(handle);
            assert!(text.starts_with(&kept) && (1022..=1023).contains(&kept.len()), "{}", kept.len());
        }
        pgwake_close(handle);
    }
}
