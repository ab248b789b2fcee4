//! Each example of `ffi/examples`, built against the installed tree, takes a burst whole, over a unix socket
//! and over TLS, and under valgrind; those that follow a table miss no change between two runs.

use crate::common::c;
use crate::common::outbox::database;
use crate::common::{Sql, fresh_channel, server, start_with_settings, transports};
use c::{Running, Under};
use std::path::Path;
use std::process::Command;

const BURST: usize = 300;

/// Builds an example as it says at its top, but with warnings denied; or says that it was skipped.
fn build(tree: &Path, name: &str, into: &Path) -> Option<String> {
    let binary = into.join(name).display().to_string();
    let (compiler, source) = match name {
        "cplusplus" => ("c++", "cplusplus.cpp".to_string()),
        _ => ("cc", format!("{name}.c")),
    };
    let probe = match name {
        "libuv" => "#include <uv.h>",
        "libev" => "#include <ev.h>",
        _ => "",
    };
    let probe = format!("echo '{probe}' | cc -E - >/dev/null 2>&1");
    if !c::has(compiler) || !Command::new("sh").args(["-c", &probe]).status().unwrap().success() {
        crate::common::say_loudly(&format!(
            "SKIPPED: the example {name} lacks a library; see `./setup.sh --test`"
        ));
        return None;
    }
    let examples = Path::new(c::ROOT).join("ffi/examples");
    let text = std::fs::read_to_string(examples.join(&source)).unwrap();
    let typed = text.lines().take(8).find_map(|line| line.split_once(&format!("    {compiler} {source} ")));
    let (_, rest) = typed.unwrap_or_else(|| panic!("{source} does not say how it is built"));
    let rest = rest.strip_suffix(&format!("-o {name}")).unwrap();
    let strict = "-g -O1 -Wall -Wextra -pedantic -Werror";
    let place = tree.join("lib").display().to_string();
    let line = format!("{compiler} {strict} {source} {rest} -o '{binary}' '-Wl,-rpath,{place}'");
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).current_dir(examples);
    c::run(shell.env("PKG_CONFIG_PATH", tree.join("lib/pkgconfig")));
    Some(binary)
}

/// Starts a program with CONNINFO CHANNEL COUNT, waits until it listens, sends the burst, reads it back.
fn takes_a_burst_whole(transport: &str, conninfo: &str, command: &mut Command) {
    let channel = fresh_channel();
    let mut program = Running::start(command.args([conninfo, &channel, &BURST.to_string()]));
    let greeting = program.line().unwrap_or_default();
    assert!(greeting.starts_with("listening"), "over {transport}: {greeting}");
    Sql::connect(&server().conninfo()).run(&format!(
        "SELECT pg_notify('{channel}', rpad(i || ' ', 4000, 'x')) FROM generate_series(0, {BURST} - 1) i"
    ));
    for i in 0..BURST {
        let line = program.line().unwrap_or_else(|| panic!("over {transport}: only {i} of {BURST}"));
        let payload = line.strip_prefix(&format!("{channel}: {i} ")).unwrap_or_else(|| panic!("{i}: {line}"));
        assert_eq!(payload.len() + i.to_string().len() + 1, 4000);
    }
    assert_eq!(program.line(), None);
    program.ends_well();
}

/// Over a unix socket and over TLS.
fn on_two_transports(program: &mut dyn FnMut() -> Command) {
    for (transport, conninfo) in transports(server()) {
        if transport != "tcp" {
            takes_a_burst_whole(transport, &conninfo, &mut program());
        }
    }
}

fn works(name: &str, under: Under) {
    let Some(tree) = c::installed().filter(|_| under == Under::Nothing || c::has("valgrind")) else { return };
    let directory = c::directory();
    let Some(program) = build(&tree, name, directory.path()) else { return };
    on_two_transports(&mut || c::limited(under, &program));
}

#[test]
fn plain_takes_a_burst_whole() {
    works("plain", Under::Nothing);
}

#[test]
fn epoll_takes_a_burst_whole() {
    works("epoll", Under::Nothing);
}

#[test]
fn libuv_takes_a_burst_whole() {
    works("libuv", Under::Nothing);
}

#[test]
fn libev_takes_a_burst_whole() {
    works("libev", Under::Nothing);
}

#[test]
fn cplusplus_takes_a_burst_whole() {
    works("cplusplus", Under::Nothing);
}

#[test]
fn plain_has_no_error_under_valgrind() {
    works("plain", Under::Valgrind);
}

#[test]
fn epoll_has_no_error_under_valgrind() {
    works("epoll", Under::Valgrind);
}

#[test]
fn libuv_has_no_error_under_valgrind() {
    works("libuv", Under::Valgrind);
}

#[test]
fn libev_has_no_error_under_valgrind() {
    works("libev", Under::Valgrind);
}

#[test]
fn cplusplus_has_no_error_under_valgrind() {
    works("cplusplus", Under::Valgrind);
}

/// Two runs, of which the second goes on where the first ended.
fn watch_works(under: Under) {
    let Some(tree) = c::installed().filter(|_| under == Under::Nothing || c::has("valgrind")) else { return };
    let directory = c::directory();
    let Some(program) = build(&tree, "watch", directory.path()) else { return };
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE orders (id int PRIMARY KEY, note text)");
    let mut run = |statement: &str, changes: &[&str]| {
        let mut command = c::limited(under, &program);
        let mut watch = Running::start(command.args([&conninfo, "orders", &changes.len().to_string()]));
        let greeting = watch.line().unwrap_or_default();
        assert!(greeting.starts_with("watching in outbox_"), "{greeting}");
        sql.run(statement);
        for change in changes {
            assert_eq!(watch.line().as_deref(), Some(*change));
        }
        assert_eq!(watch.line(), None);
        watch.ends_well();
    };
    run(
        "INSERT INTO orders VALUES (1, 'tea'), (2, NULL); UPDATE orders SET note = 'milk' WHERE id = 2",
        &[r#"insert {"id":1} {"id":1,"note":"tea"}"#, r#"insert {"id":2} {"id":2,"note":null}"#],
    );
    run(
        "DELETE FROM orders WHERE id = 1; TRUNCATE orders",
        &[r#"update {"id":2} {"id":2,"note":"milk"}"#, r#"delete {"id":1} -"#, "truncate - -"],
    );
}

#[test]
fn watch_goes_on_where_it_ended() {
    watch_works(Under::Nothing);
}

#[test]
fn watch_has_no_error_under_valgrind() {
    watch_works(Under::Valgrind);
}

/// The same from the log, by whole transactions.
fn stream_works(under: Under) {
    let Some(tree) = c::installed().filter(|_| under == Under::Nothing || c::has("valgrind")) else { return };
    let directory = c::directory();
    let Some(program) = build(&tree, "stream", directory.path()) else { return };
    // Of one's own, because the slot of an example has one name.
    let server = start_with_settings(&["wal_level = logical"]);
    let (conninfo, mut sql) = (server.conninfo(), Sql::connect(&server.conninfo()));
    sql.run("CREATE TABLE orders (id int PRIMARY KEY, note text)");
    let mut run = |statement: &str, changes: &[&str]| {
        let mut command = c::limited(under, &program);
        let mut stream = Running::start(command.args([&conninfo, "orders", &changes.len().to_string()]));
        assert_eq!(stream.line().as_deref(), Some("streaming from postgres"));
        sql.run(statement);
        for change in changes {
            assert_eq!(stream.line().as_deref(), Some(*change));
        }
        assert_eq!(stream.line(), None);
        stream.ends_well();
    };
    run(
        "INSERT INTO orders VALUES (1, 'tea'), (2, NULL)",
        &[r#"insert {"id":1} {"id":1,"note":"tea"}"#, r#"insert {"id":2} {"id":2,"note":null}"#],
    );
    run(
        "BEGIN; DELETE FROM orders WHERE id = 1; TRUNCATE orders; COMMIT",
        &[r#"delete {"id":1} -"#, "truncate - -"],
    );
}

#[test]
fn stream_goes_on_where_it_ended() {
    stream_works(Under::Nothing);
}

#[test]
fn stream_has_no_error_under_valgrind() {
    stream_works(Under::Valgrind);
}

fn python(tree: &Path, name: &str) -> Command {
    let mut command = c::limited(Under::Nothing, "python3");
    command.arg("-B").arg(format!("{}/ffi/examples/{name}.py", c::ROOT));
    command.env("PGWAKE_LIBRARY", tree.join("lib/libpgwake.so.0"));
    command
}

fn python_works(name: &str) {
    let Some(tree) = c::installed().filter(|_| c::has("python3")) else { return };
    on_two_transports(&mut || python(&tree, name));
}

#[test]
fn python_takes_a_burst_whole() {
    python_works("ctypes_plain");
}

#[test]
fn python_with_asyncio_takes_a_burst_whole() {
    python_works("ctypes_asyncio");
}

#[test]
fn python_takes_a_payload_with_a_nul_whole() {
    let Some(tree) = c::installed().filter(|_| c::has("python3")) else { return };
    let (conninfo, channel) = (crate::common::log::database("").0, fresh_channel());
    let script = format!(
        "import ctypes, pgwake\n\
         events = pgwake.Events()\n\
         call, handle = pgwake._lib, ctypes.c_void_p(events._handle)\n\
         channels = (ctypes.c_char_p * 2)(b'{channel}', None)\n\
         call.pgwake_subscribe(handle, b'{conninfo}', channels, None)\n\
         db = events.connect('{conninfo}')\n\
         for event in events.waiting():\n\
         \x20   if event.type == pgwake.LISTENING and event.session != db:\n\
         \x20       call.pgwake_publish(handle, db, b'{channel}', b'a\\0\\xff', ctypes.c_size_t(3))\n\
         \x20   if event.type == pgwake.MESSAGE:\n\
         \x20       print(event.payload_bytes)\n\
         \x20       break\n"
    );
    let mut command = c::limited(Under::Nothing, "python3");
    command.args(["-B", "-c", &script]).env("PYTHONPATH", format!("{}/ffi/examples", c::ROOT));
    command.env("PGWAKE_LIBRARY", tree.join("lib/libpgwake.so.0"));
    assert_eq!(c::run(&mut command), "b'a\\x00\\xff'\n");
}

/// Each example, ready to be started.
fn every_example(tree: &Path, into: &Path) -> Vec<(&'static str, Command)> {
    let compiled = ["plain", "watch", "stream", "epoll", "libuv", "libev", "cplusplus"].into_iter();
    let compiled =
        compiled.filter_map(|name| Some((name, c::limited(Under::Nothing, build(tree, name, into)?))));
    let scripts = ["ctypes_plain", "ctypes_asyncio"].into_iter().filter(|_| c::has("python3"));
    compiled.chain(scripts.map(|name| (name, python(tree, name)))).collect()
}

/// An example that cannot work says why in one line and ends with 1.
#[test]
fn an_example_that_cannot_listen_says_why() {
    let Some(tree) = c::installed() else { return };
    let directory = c::directory();
    for (name, mut example) in every_example(&tree, directory.path()) {
        let output = example.args(["nonsense", "a", "1"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = text.lines().last().unwrap_or_default();
        // Python says where it was.
        let lines_max = if name.starts_with("ctypes") { usize::MAX } else { 1 };
        assert!(output.status.code() == Some(1) && text.lines().count() <= lines_max, "{name}: {text}");
        assert!(last.contains("nonsense") || last.contains("connection string"), "{name}: {text}");
    }
}

/// So does one whose session fails later, in the loop.
#[test]
fn an_example_whose_session_fails_says_why() {
    let Some(tree) = c::installed() else { return };
    let directory = c::directory();
    let conninfo = format!("{} dbname=nowhere", server().conninfo());
    for (name, mut example) in every_example(&tree, directory.path()) {
        let output = example.args([&conninfo, "a", "1"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = text.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(1), "{name}: {text}");
        assert!(last.contains("nowhere"), "{name}: {text}");
    }
}
