//! The README as a newcomer meets it: its blocks run as they stand, in their order, pasted at once, on a
//! server of their own. So do those of other pages that a machine can run.
//!
//! Shell blocks become one script. A block in another language is saved before it goes on, under the name
//! that the line above the block gives in backquotes. Blocks of `text` are what a program prints.
#![cfg(feature = "command")]

use crate::common::c;
use crate::common::{Sql, server_programs, start_with_settings};
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A newcomer reads no more.
const README_LINES_MAX: usize = 200;

/// A block between two fences.
struct Block {
    language: String,
    /// The line above it that is not empty.
    above: String,
    text: String,
}

fn page(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", c::ROOT)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn blocks(page: &str) -> Vec<Block> {
    let (mut blocks, mut above, mut lines) = (Vec::new(), "", page.lines());
    while let Some(line) = lines.next() {
        if let Some(fence) = line.strip_prefix("```") {
            let language = fence.split(',').next().unwrap_or_default().to_string();
            let text = lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n"));
            blocks.push(Block { language, above: above.into(), text: text.collect() });
        } else if !line.is_empty() {
            above = line;
        }
    }
    blocks
}

/// Whether a block builds, and no more. Then `make` must know how: what it builds was built before this test.
fn is_known_to_make(block: &str) -> bool {
    let mut targets = Vec::new();
    for line in block.lines() {
        let words = line.split('#').next().unwrap_or_default();
        let words = words.strip_prefix("sudo ").unwrap_or(words);
        let Some(target) = words.strip_prefix("make") else { return false };
        targets.push(target.trim());
    }
    for target in targets {
        let mut make = Command::new("make");
        make.arg("-n").args(target.split_whitespace()).current_dir(c::ROOT);
        c::run(make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL"));
    }
    true
}

/// The name in backquotes at the end of a line.
fn file_named_in(line: &str) -> &str {
    let name = line.strip_suffix("`:").and_then(|line| line.rsplit('`').next());
    name.unwrap_or_else(|| panic!("a block is saved under a name, and none ends this line: {line}"))
}

/// All blocks as one script. Without the library, which makes itself heard, those that need it are left out.
fn script(page: &str, has_library: bool) -> String {
    let mut script = String::new();
    for Block { language, above, text } in blocks(page) {
        match language.as_str() {
            "text" => {}
            "sh" if is_known_to_make(&text) => {}
            "sh" if text.contains("cc app.c") && !has_library => {}
            "sh" => script.push_str(&text),
            "rust" | "c" | "python" | "toml" | "sql" => {
                let name = file_named_in(&above);
                let _ = writeln!(script, "cat >{name} <<'END OF BLOCK'\n{text}END OF BLOCK");
            }
            other => panic!("nobody knows how to run a block of {other:?} below: {above}"),
        }
    }
    script
}

/// Pastes a script into a shell that finds the command, the library and a server with a database `app`. What
/// it prints.
fn paste(script: &str, tree: Option<&Path>) -> String {
    let server = start_with_settings(&["max_connections = 100", "wal_level = logical"]);
    let directory = tempfile::tempdir().unwrap();
    // Another server that the script starts is here, too, and belongs to somebody else.
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    Sql::connect(&server.conninfo()).run("CREATE DATABASE app");
    // What a script that fails has left running would hold its output open.
    let script = format!("trap 'kill $! 2>/dev/null || :' EXIT\n{script}");
    fs::write(directory.path().join("script"), script).unwrap();
    let programs = [env!("CARGO_BIN_EXE_pgwake"), env!("CARGO")].map(|it| Path::new(it).parent().unwrap());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = programs.into_iter().map(Path::to_path_buf).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(path.chain([server_programs()])).unwrap();

    let mut shell = c::limited(c::Under::Nothing, "bash");
    shell.arg("-e").current_dir(c::ROOT).env("PATH", path).env("TMPDIR", directory.path());
    shell.stdin(fs::File::open(directory.path().join("script")).unwrap());
    shell
        .env("PGHOST", server.directory())
        .env("PGPORT", server.port().to_string())
        .env("PGUSER", "postgres");
    for variable in ["PGDATABASE", "PGSERVICE", "RUSTFLAGS", "RUSTC_BOOTSTRAP", "RUST_LOG"] {
        shell.env_remove(variable);
    }
    // What a build within the test needs was built for the test itself.
    shell.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap());
    shell.env("CARGO_NET_OFFLINE", "true");
    if let Some(tree) = tree {
        shell.env("PKG_CONFIG_PATH", tree.join("lib/pkgconfig")).env("LD_LIBRARY_PATH", tree.join("lib"));
    }
    c::run(&mut shell)
}

/// Each list has the words of a line, and the lines come in this order.
fn assert_printed(printed: &str, expected: &[&[&str]]) {
    let mut lines = printed.lines();
    for words in expected {
        let found = lines.any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "no line with {words:?} behind the others in\n{printed}");
    }
}

#[test]
fn every_block_of_the_readme_runs_as_it_stands() {
    let tree = c::installed();
    let mut script = script(&page("README.md"), tree.is_some());
    if !c::run(&mut crate::common::command::pgwake(&["demo", "--help"])).contains("--keep") {
        crate::common::say_loudly(
            "SKIPPED: demo has no --keep yet: the README's programs run on a server of the tests",
        );
        script = script
            .replace("pgwake demo --keep >conninfo & read -r db <conninfo", "sleep 99 & db='dbname=app'");
    }
    let printed = paste(&script, tree.as_deref());
    let command: [&[&str]; 4] = [
        &["  listening  ", "jobs"],
        &["  notification  ", "jobs", "hello"],
        &["  notification  ", "jobs", "tea"],
        &["  notification  ", "jobs", "milk"],
    ];
    let program: [&[&str]; 2] = [&["listening"], &["orders: hello"]];
    let changes: [&[&str]; 3] = [
        &["  listening  ", "pgwake"],
        &["  insert  ", "public.parcels", r#"new {"id":1,"grams":500}"#],
        &["  update  ", "public.parcels", r#"new {"id":1,"grams":600}"#],
    ];
    let programs = if tree.is_some() { [program, program].concat() } else { program.to_vec() };
    assert_printed(&printed, &[&command[..], &programs, &changes].concat());
}

#[test]
fn the_readme_is_short() {
    let lines = page("README.md").lines().count();
    assert!(lines <= README_LINES_MAX, "{lines} lines, {README_LINES_MAX} at most: docs/ has room");
}

#[test]
fn every_block_about_the_command_runs_as_it_stands() {
    if !c::has("jq") {
        return;
    }
    let printed = paste(&script(&page("docs/command.md"), false), None);
    assert_printed(
        &printed,
        &[
            &["is heard"],
            &["1"],
            &["2"],
            &["\"snapshot\":true"],
            &["delete", "\"id\":1"],
            &["message", "comes at once"],
            &["message", "waits for its reader"],
            &["server"],
            &["nothing would go wrong"],
        ],
    );
}

/// On a server that has the extension, and where nobody may install one.
#[test]
fn every_block_about_before_drop_runs_in_each_mode() {
    let script = format!("cd \"$(mktemp -d)\"\n{}", script(&page("docs/before-drop.md"), false));
    let install = "pgwake -d dbname=app install\n";
    assert_eq!(script.matches(install).count(), 1);
    let mode = "psql -d app -Atc 'SELECT pgwake.mode()'\n";
    let without = "psql -d app -qc 'DROP EXTENSION IF EXISTS pgwake_ddl CASCADE'\n";
    for more in ["", without] {
        let printed = paste(&script.replace(install, &format!("{install}{more}{mode}")), None);
        if more.is_empty() && !printed.contains("extension") {
            crate::common::say_loudly("SKIPPED: the mode extension: this server does not have pgwake_ddl");
        }
        assert_printed(
            &printed,
            &[
                &["tiles.clean_up(pgwake.ddl_target)", "--schemas 'survey'"],
                &["(0 rows)"],
                &["alps"],
                &["dunes"],
                &["(0 rows)"],
                &["  ddl  ", "before DROP TABLE", "public.parcels"],
                &["  ddl  ", "  DROP TABLE", "public.parcels"],
            ],
        );
    }
}

#[test]
fn every_block_about_polls_runs_as_it_stands() {
    // The Rust program is saved there, and not among our sources.
    let script = format!("cd \"$(mktemp -d)\"\n{}", script(&page("docs/polls.md"), false));
    let printed = paste(&script, None);
    assert_printed(
        &printed,
        &[
            &["rows", "[1,\"wash\"] [2,\"dry\"]"],
            &["rows", "[1,\"first\",", "[2,\"second\","],
            &["rows", "[1,\"wash\"]"],
            &["dry"],
        ],
    );
}

/// The ways to link a C program, each tried on that of the README.
#[test]
fn every_way_to_link_the_library_works() {
    let Some(tree) = c::installed() else { return };
    let mut script = String::from("cd \"$(mktemp -d)\"\n");
    let program = blocks(&page("README.md")).into_iter().find(|block| block.language == "c").unwrap();
    let _ = writeln!(script, "cat >app.c <<'END OF BLOCK'\n{}END OF BLOCK", program.text);
    let hosts = blocks(&page("docs/c-hosts.md"));
    let ways: Vec<_> = hosts.iter().filter(|block| block.text.starts_with("cc ")).collect();
    assert_eq!(ways.len(), 3);
    // Debian has OpenSSL's archives beside its headers; others have them in a package of their own.
    let has_archives = c::run(Command::new("cc").arg("-print-file-name=libssl.a")).starts_with('/');
    if !has_archives {
        crate::common::say_loudly(
            "SKIPPED: a static program needs libssl.a and libcrypto.a, which are missing",
        );
    }
    let is_possible = |way: &&Block| has_archives || !way.text.contains("-static");
    let ways: Vec<_> = ways.into_iter().filter(is_possible).collect();
    for way in &ways {
        let _ = writeln!(script, "{}./app nonsense 2>&1 || echo $?", way.text);
    }
    let expected: [&[&str]; 2] = [&["the connection string is malformed"], &["1"]];
    assert_printed(&paste(&script, Some(&tree)), &expected.repeat(ways.len()));
}

/// The picture is made from a report of the bench's by a script.
#[test]
fn the_picture_can_be_made_again() {
    if !c::has("python3") {
        return;
    }
    let directory = c::directory();
    let report = directory.path().join("latency.json");
    let mut bench = crate::common::command::pgwake(&["bench", "latency", "--private", "--rounds", "1"]);
    c::run(bench.args(["--count", "100", "--json"]).arg(&report));
    let mut script = Command::new("python3");
    let picture = c::run(script.arg(format!("{}/docs/picture.py", c::ROOT)).arg(&report));
    for picture in [picture, page("docs/latency.svg")] {
        let has = |text: &str| picture.matches(text).count();
        assert!(picture.starts_with("<svg xmlns=") && picture.ends_with("</svg>\n"), "{picture}");
        assert_eq!(has("prefers-color-scheme: dark"), 1, "{picture}");
        for line in ["s0", "s1"] {
            // In the legend and in the plot.
            assert_eq!(has(&format!("<path class=\"line {line}\"")), 2, "{picture}");
        }
        for text in [">C loop</text>", ">pgwake</text>", ">99 %</text>"] {
            assert_eq!(has(text), 1, "{text}: {picture}");
        }
        assert!(!picture.contains("nan") && !picture.contains("inf"), "{picture}");
    }
}
