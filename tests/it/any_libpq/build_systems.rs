//! CMake and Meson find the installed C library by pkg-config; and one compiler line links it, with all of it
//! static, too. Each program that comes out hears a notification.

use crate::common::c;
use crate::common::{Sql, fresh_channel, server};
use c::{Running, Under};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A project of one source file, the plain example, with its build file.
fn project(build_file: &str) -> tempfile::TempDir {
    let directory = c::directory();
    fs::copy(format!("{}/ffi/examples/plain.c", c::ROOT), directory.path().join("app.c")).unwrap();
    if !build_file.is_empty() {
        fs::copy(format!("{}/tests/c/{build_file}", c::ROOT), directory.path().join(build_file)).unwrap();
    }
    directory
}

/// A command in a project, which finds the installed tree by pkg-config.
fn within(project: &Path, tree: &Path, command: &[&str]) -> Command {
    let mut typed = Command::new(command[0]);
    typed.args(&command[1..]).current_dir(project).env("PKG_CONFIG_PATH", tree.join("lib/pkgconfig"));
    typed
}

fn hears(project: &Path, tree: &Path, program: &str) {
    let channel = fresh_channel();
    let mut command = c::limited(Under::Nothing, project.join(program));
    command.args([&server().conninfo(), &channel, "1"]).env("LD_LIBRARY_PATH", tree.join("lib"));
    let mut program = Running::start(&mut command);
    assert_eq!(program.line().as_deref(), Some("listening in postgres"));
    Sql::connect(&server().conninfo()).notify(&channel, "hello");
    assert_eq!(program.line(), Some(format!("{channel}: hello")));
    program.ends_well();
}

/// The shared libraries that a program names.
fn needed(program: &Path) -> String {
    let dynamic = c::run(Command::new("readelf").arg("-d").arg(program));
    dynamic.lines().filter(|line| line.contains("(NEEDED)")).collect()
}

fn both_ways_work(project: &Path, tree: &Path) {
    assert!(needed(&project.join("build/shared")).contains("libpgwake.so.0"));
    assert!(!needed(&project.join("build/static")).contains("libpgwake"));
    hears(project, tree, "build/shared");
    hears(project, tree, "build/static");
}

#[test]
fn cmake_finds_it() {
    let Some(tree) = c::installed().filter(|_| c::has("cmake")) else { return };
    let project = project("CMakeLists.txt");
    c::run(&mut within(project.path(), &tree, &["cmake", "-B", "build", "."]));
    c::run(&mut within(project.path(), &tree, &["cmake", "--build", "build"]));
    both_ways_work(project.path(), &tree);
}

#[test]
fn meson_finds_it() {
    let Some(tree) = c::installed().filter(|_| c::has("meson")) else { return };
    let project = project("meson.build");
    c::run(&mut within(project.path(), &tree, &["meson", "setup", "build"]));
    c::run(&mut within(project.path(), &tree, &["meson", "compile", "-C", "build"]));
    both_ways_work(project.path(), &tree);
}

/// As the header says it: shared, all static, and with what a compiler otherwise takes by itself named.
#[test]
fn one_line_links_it() {
    let Some(tree) = c::installed() else { return };
    let lines = [
        ("shared", "", "cc app.c FLAGS"),
        ("static_libgcc", "--static", "cc -static-libgcc app.c FLAGS"),
        ("static_pie", "--static", "cc -static-pie app.c FLAGS"),
        ("by_name", "--static", "cc -nodefaultlibs app.c FLAGS -lgcc_s -lc"),
        (
            "static_by_name",
            "--static",
            "cc -static-pie -nodefaultlibs app.c FLAGS -Wl,--start-group -lgcc_eh -lgcc -lc",
        ),
    ];
    let project = project("");
    for (name, which, line) in lines {
        let is_static = line.contains("-static-pie");
        if is_static && !has_static_openssl() {
            crate::common::say_loudly(&format!("SKIPPED: {name} needs OpenSSL's archives"));
            continue;
        }
        let line = line.replace("FLAGS", &format!("-o {name} $(pkg-config $STATIC --cflags --libs pgwake)"));
        let mut command = within(project.path(), &tree, &["sh", "-c", &line]);
        c::run(command.env("STATIC", which));
        assert_eq!(needed(&project.path().join(name)).is_empty(), is_static, "{line}");
        hears(project.path(), &tree, name);
    }
}

fn has_static_openssl() -> bool {
    let place = c::run(Command::new("cc").arg("-print-file-name=libssl.a"));
    place.trim_end().contains('/')
}
