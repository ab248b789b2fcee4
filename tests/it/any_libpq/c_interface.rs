//! The C library as a host meets it: what it exports, what it refuses, forks, panics, threads, and other
//! libraries in the same program. The programs are in `tests/c`.

use crate::common::c;
use crate::common::outbox::database;
use crate::common::{fresh_channel, server, transports};
use c::{Running, Under};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ARCHIVE_BYTES_MAX: u64 = 2_400_000;
const EXAMPLE_BYTES_MAX: u64 = 1_700_000;

fn header() -> String {
    fs::read_to_string(format!("{}/ffi/include/pgwake.h", c::ROOT)).unwrap()
}

/// The functions that the header declares, sorted.
fn declared() -> Vec<String> {
    let code = c::run(Command::new("cc").args(["-E", "-P"]).arg(format!("{}/ffi/include/pgwake.h", c::ROOT)));
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    let heads = code.split('(').map(|head| head.rsplit(|letter| !is_part(letter)).next().unwrap_or_default());
    let mut names: Vec<String> = heads.filter(|name| name.starts_with("pgwake_")).map(String::from).collect();
    names.sort();
    assert!(names.len() >= 17, "{names:?}");
    names
}

#[test]
fn the_headers_compile_as_c99_c11_and_cplusplus11() {
    let Some(tree) = c::installed() else { return };
    let include = format!("-I{}", tree.join("include").display());
    for (compiler, standard) in [("cc", "-std=c99"), ("cc", "-std=c11"), ("c++", "-std=c++11")] {
        for name in ["pgwake.h", "pgwake/epoll.h", "pgwake/libuv.h", "pgwake/libev.h"] {
            // libuv's own header needs more than plain C99.
            let source =
                ["#ifndef _GNU_SOURCE\n#define _GNU_SOURCE\n#endif\n", "int main(void) { return 0; }\n"]
                    .join(&format!("#include <{name}>\n#include <{name}>\n"));
            let directory = c::directory();
            let file = directory.path().join("a.c");
            fs::write(&file, source).unwrap();
            let mut command = Command::new(compiler);
            let language = if compiler == "cc" { "c" } else { "c++" };
            command.args([
                standard,
                "-Wall",
                "-Wextra",
                "-pedantic",
                "-Werror",
                "-fsyntax-only",
                "-x",
                language,
            ]);
            c::run(command.arg(&include).arg(file));
        }
    }
}

#[test]
fn the_libraries_show_the_functions_of_the_header_and_nothing_else() {
    let Some(tree) = c::installed() else { return };
    let shown = |arguments: &[&str], file: &str| {
        let listing = c::run(Command::new("nm").args(arguments).arg(tree.join("lib").join(file)));
        let names = listing.lines().filter_map(|line| line.split(' ').nth(2).map(String::from));
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    assert_eq!(shown(&["-g", "--defined-only"], "libpgwake.a"), declared());
    assert_eq!(shown(&["-D", "--defined-only"], "libpgwake.so"), declared());
    let dynamic = c::run(Command::new("readelf").arg("-d").arg(tree.join("lib/libpgwake.so")));
    assert!(dynamic.contains("soname: [libpgwake.so.0]"), "{dynamic}");
    assert!(!dynamic.contains("libpq"), "libpq is inside: {dynamic}");
}

#[test]
fn the_archive_and_a_stripped_program_stay_small() {
    let Some(tree) = c::installed() else { return };
    let directory = c::directory();
    let program = directory.path().join("plain");
    let mut command = Command::new("cc");
    command.arg("-I").arg(tree.join("include")).arg(format!("{}/ffi/examples/plain.c", c::ROOT));
    c::run(command.arg(c::archive(&tree)).args(c::ARCHIVE_NEEDS).arg("-o").arg(&program));
    c::run(Command::new("strip").arg(&program));
    let bytes = |path: &Path| fs::metadata(path).unwrap().len();
    let (archive, example) = (bytes(Path::new(&c::archive(&tree))), bytes(&program));
    println!("the archive has {archive} bytes, a stripped example {example}");
    assert!(archive <= ARCHIVE_BYTES_MAX && example <= EXAMPLE_BYTES_MAX, "{archive} and {example} bytes");
}

/// Runs a driver that prints `ok`.
fn is_ok(command: &mut Command) {
    assert_eq!(c::run(command), "ok\n");
}

#[test]
fn bad_input_is_answered_with_a_status() {
    let Some(tree) = c::installed() else { return };
    let directory = c::directory();
    let program = c::build_with_archive(&tree, "bad_input", directory.path());
    is_ok(&mut c::limited(Under::Nothing, &program));
    if c::has("valgrind") {
        is_ok(&mut c::limited(Under::Valgrind, &program));
    }
}

#[test]
fn a_forked_child_is_refused_and_its_parent_goes_on() {
    let Some(tree) = c::installed() else { return };
    let directory = c::directory();
    let program = c::build_with_archive(&tree, "forked", directory.path());
    for (_, conninfo) in transports(server()) {
        is_ok(c::limited(Under::Nothing, &program).args([&conninfo, &fresh_channel()]));
    }
}

#[test]
fn a_panic_becomes_a_status_in_the_packed_archive() {
    let Some(tree) = c::installed() else { return };
    let directory = c::directory();
    let archive = format!("{}/target/lib-test/libpgwake.a", c::ROOT);
    let libraries = c::run(Command::new("pkg-config").args(["--libs", "libpq"]));
    let mut more: Vec<&str> = vec![&archive];
    more.extend(libraries.split_whitespace().chain(["-lm"]));
    let program = c::build_driver(&tree, "panic", directory.path(), &more);
    let mut command = c::limited(Under::Nothing, &program);
    let output = command.env("RUST_BACKTRACE", "1").args([&server().conninfo(), &fresh_channel()]).output();
    let output = output.unwrap();
    let quiet = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && quiet.is_empty(), "{}: {quiet}", output.status);
}

#[test]
fn no_wake_is_lost() {
    let Some(tree) = c::installed() else { return };
    let directory = c::directory();
    let program = c::build_with_archive(&tree, "wakes", directory.path());
    is_ok(c::limited(Under::Nothing, program).args([&server().conninfo(), "200000"]));
}

#[test]
fn a_loop_of_the_hosts_that_is_attached_late_misses_nothing() {
    let Some(tree) = c::installed() else { return };
    let directory = c::directory();
    let program = c::build_with_archive(&tree, "attached_late", directory.path());
    is_ok(c::limited(Under::Nothing, program).args([&server().conninfo(), &fresh_channel()]));
}

/// Runs the driver of every function, and the statements that it asks for.
fn every_function_works(command: &mut Command) {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE orders (id int PRIMARY KEY, note text); CREATE TABLE woken (id int)");
    sql.run("CREATE TABLE earlier (id int PRIMARY KEY)");
    sql.run("CREATE TABLE notified (LIKE orders INCLUDING INDEXES)");
    let (log, mut log_sql) = crate::common::log::database("");
    log_sql.run("CREATE TABLE orders (id int PRIMARY KEY, note text); INSERT INTO orders VALUES (1, 'tea')");
    let mut program = Running::start(command.args([&conninfo, &fresh_channel(), &log]));
    let mut line = program.line().unwrap_or_default();
    while let Some((place, statement)) = line.split_once(' ') {
        if place == "log" {
            log_sql.run(statement)
        } else {
            sql.run(statement)
        }
        line = program.line().unwrap_or_default();
    }
    assert_eq!(line, "ok");
    program.ends_well();
}

#[test]
fn every_function_works_under_checkers() {
    let Some(tree) = c::installed() else { return };
    let directory = c::directory();
    let program = c::build_with_archive(&tree, "every_function", directory.path());
    every_function_works(&mut c::limited(Under::Nothing, &program));
    if c::has("valgrind") {
        every_function_works(&mut c::limited(Under::Valgrind, &program));
    }
    let archive = c::archive(&tree);
    for driver in ["every_function", "bad_input"] {
        let mut more = vec!["-fsanitize=address,undefined", "-fno-sanitize-recover=all", &archive];
        more.extend(c::ARCHIVE_NEEDS);
        let program = c::build_driver(&tree, driver, directory.path(), &more);
        match driver {
            "bad_input" => is_ok(&mut c::limited(Under::Nothing, &program)),
            _ => every_function_works(&mut c::limited(Under::Nothing, &program)),
        }
    }
}

/// `make sanitize-c` builds all of it with the sanitizer, Rust and libpq included, and names the archive.
#[test]
fn every_function_works_when_all_is_sanitized() {
    let Some(archive) = std::env::var_os("PGWAKE_ASAN_ARCHIVE") else {
        crate::common::say_loudly("SKIPPED: PGWAKE_ASAN_ARCHIVE names no archive; see `make sanitize-c`");
        return;
    };
    let (directory, tree) = (c::directory(), PathBuf::from(format!("{}/ffi", c::ROOT)));
    let archive = archive.into_string().unwrap();
    let more = ["-fsanitize=address", &archive, "-lssl", "-lcrypto", "-lm", "-ldl", "-lrt"];
    let program = c::build_driver(&tree, "every_function", directory.path(), &more);
    every_function_works(&mut c::limited(Under::Nothing, &program));
    let program = c::build_driver(&tree, "bad_input", directory.path(), &more);
    is_ok(&mut c::limited(Under::Nothing, &program));
    let program = c::build_driver(&tree, "forked", directory.path(), &more);
    let mut command = c::limited(Under::Nothing, &program);
    // What libpq remembers of the parent's connection cannot be freed in the child.
    command.env("ASAN_OPTIONS", "detect_leaks=0");
    is_ok(command.args([&server().conninfo(), &fresh_channel()]));
}

/// All orders of some things.
fn orders<T: Clone>(things: &[T]) -> Vec<Vec<T>> {
    if things.is_empty() {
        return vec![Vec::new()];
    }
    let first = |i: usize| {
        let mut rest = things.to_vec();
        let thing = rest.remove(i);
        orders(&rest).into_iter().map(move |order| [vec![thing.clone()], order].concat())
    };
    (0..things.len()).flat_map(first).collect()
}

/// A Rust archive as any other project may have one: not packed, with a standard library of its own.
const SECOND_RUST: &str = r#"
#[unsafe(no_mangle)]
pub extern "C" fn second_rust_library(number: i32) -> i32 {
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = std::panic::catch_unwind(|| {
        if number < 0 { panic!("as it must") } else { vec![number; 3][2] + 1 }
    });
    outcome.unwrap_or(-1)
}
"#;

#[test]
fn it_stands_beside_any_other_library_in_every_order() {
    let Some(tree) = c::installed() else { return };
    let directory = c::directory();
    let place = |name: &str| directory.path().join(name).display().to_string();
    let flags = c::run(Command::new("pkg-config").args(["--cflags", "--libs", "libpq"]));
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let mut shared = Command::new("cc");
    shared.args(["-shared", "-fPIC", "-o", &place("libshared_library.so")]);
    c::run(shared.arg(format!("{}/tests/c/shared_library.c", c::ROOT)).args(&flags));
    fs::write(place("second.rs"), SECOND_RUST).unwrap();
    let rustc = Path::new(env!("CARGO")).with_file_name("rustc");
    let mut second = Command::new(rustc);
    second.args(["--edition=2024", "--crate-type=staticlib", "-Cpanic=unwind", "-o", &place("libsecond.a")]);
    c::run(second.arg(place("second.rs")));

    let (archive, shared, second) = (c::archive(&tree), place("libshared_library.so"), place("libsecond.a"));
    let rpath = format!("-Wl,-rpath,{}", directory.path().display());
    for second in [None, Some(second.as_str())] {
        let things: Vec<&str> = [archive.as_str(), "-lpq", &shared].into_iter().chain(second).collect();
        for order in orders(&things) {
            let mut more = flags.clone();
            more.retain(|flag| !flag.starts_with("-l"));
            more.extend(second.map(|_| "-DSECOND_RUST"));
            more.extend(&order);
            more.extend(c::ARCHIVE_NEEDS.into_iter().chain([rpath.as_str()]));
            let program = c::build_driver(&tree, "beside_libpq", directory.path(), &more);
            let mut command = c::limited(Under::Nothing, program);
            let versions = c::run(command.args([&server().conninfo(), &fresh_channel()]));
            println!("{} with {} things to link", versions.trim(), order.len());
        }
    }
}

/// Between the lines that open and close a block of this language, behind this heading.
fn readme_block(heading: &str, language: &str) -> String {
    let readme = fs::read_to_string(format!("{}/README.md", c::ROOT)).unwrap();
    let section = readme.split_once(heading).unwrap().1;
    let block = section.split_once(&format!("```{language}\n")).unwrap().1;
    block.split_once("```").unwrap().0.to_string()
}

#[test]
fn the_headers_example_is_the_readmes_program() {
    let example = header();
    let example = example.lines().skip_while(|line| !line.contains("#include <pgwake.h>"));
    let example = example.take_while(|line| line.starts_with(" *  ") || *line == " *");
    let example: String = example.map(|line| format!("{}\n", line.get(7..).unwrap_or_default())).collect();
    assert_eq!(example.trim_end(), readme_block("### C\n", "c").trim_end());
    assert!(example.lines().count() <= 25);
}

#[test]
fn the_manual_page_names_all_functions() {
    let page = fs::read_to_string(format!("{}/ffi/man/pgwake.3", c::ROOT)).unwrap();
    for name in declared() {
        assert!(page.contains(&format!(".Fn {name} ")), "{name} is missing in pgwake.3");
    }
}
