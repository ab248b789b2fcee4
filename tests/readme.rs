//! The README as a newcomer meets it: its blocks run as they stand, in their order, pasted at once, on a server of
//! their own; and the links of all pages lead somewhere.
//!
//! Shell blocks become one script. A block in another language is saved before it goes on, under the name that the
//! line above the block gives in backquotes. Blocks of `text` are what a program prints.
#![cfg(feature = "command")]

#[path = "common/c.rs"]
mod c;
mod common;

use common::{Sql, server, server_programs};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

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

/// What the lines that build say must be there to be built: everything else runs, so that much was built already.
fn is_known_to_make(block: &str) -> bool {
    let mut targets = Vec::new();
    for line in block.lines() {
        let words = line.split('#').next().unwrap_or_default();
        let Some(words) = words.strip_prefix("sudo ").unwrap_or(words).strip_prefix("make") else { return false };
        targets.push(words.trim().to_string());
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

/// All blocks as one script.
fn script(blocks: &[Block], has_library: bool) -> String {
    let mut script = String::new();
    for block in blocks {
        let (text, is_of_library) = (&block.text, block.text.contains("pgwake) -o app"));
        match block.language.as_str() {
            "text" => {}
            "sh" if is_known_to_make(text) || is_of_library && !has_library => {}
            "sh" => script.push_str(text),
            "rust" | "c" | "python" | "toml" => {
                let name = file_named_in(&block.above);
                let _ = writeln!(script, "cat >{name} <<'END OF BLOCK'\n{text}END OF BLOCK");
            }
            other => panic!("nobody knows how to run a block of {other:?} below: {}", block.above),
        }
    }
    script
}

/// Pastes a script into a shell in which the command, the library and a server are there. What it prints.
fn paste(script: &str, tree: Option<&Path>) -> String {
    let directory = c::directory();
    let mut sql = Sql::connect(&server().conninfo());
    sql.run("CREATE DATABASE app");
    let programs = [Path::new(env!("CARGO_BIN_EXE_pgwake")), Path::new(env!("CARGO"))];
    let programs = programs.map(|program| program.parent().unwrap().to_path_buf()).into_iter();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = programs.chain(std::env::split_paths(&path)).chain([server_programs()]);
    let mut shell = c::limited(c::Under::Nothing, "bash");
    shell.arg("-e").current_dir(c::ROOT).env("PATH", std::env::join_paths(path).unwrap());
    shell.env("TMPDIR", directory.path());
    shell.env("PGHOST", server().directory()).env("PGPORT", server().port().to_string());
    shell.env("PGUSER", "postgres").env_remove("PGDATABASE").env_remove("PGSERVICE");
    // What a nested build needs is here already: it was built for this test.
    shell.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap());
    shell.env("CARGO_NET_OFFLINE", "true").env_remove("RUSTFLAGS").env_remove("RUSTC_BOOTSTRAP");
    if let Some(tree) = tree {
        shell.env("PKG_CONFIG_PATH", tree.join("lib/pkgconfig")).env("LD_LIBRARY_PATH", tree.join("lib"));
    }
    fs::write(directory.path().join("script"), script).unwrap();
    shell.stdin(fs::File::open(directory.path().join("script")).unwrap());
    c::run(&mut shell)
}

#[test]
fn every_block_of_the_readme_runs_as_it_stands() {
    let tree = c::installed();
    let blocks = blocks(&page("README.md"));
    let printed = paste(&script(&blocks, tree.is_some()), tree.as_deref());
    let mut lines = printed.lines();
    let mut expect = |words: &[&str]| {
        let found = lines.any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "no line with {words:?} behind the others in\n{printed}");
    };
    expect(&["  listening  ", "jobs"]);
    for payload in ["hello", "tea", "milk"] {
        expect(&["  notification  ", "jobs", payload]);
    }
    for _ in [Some("Rust"), tree.as_ref().map(|_| "C")].into_iter().flatten() {
        expect(&["listening"]);
        expect(&["orders: hello"]);
    }
    expect(&["  insert  ", "public.parcels", r#"new {"id":1,"grams":500}"#]);
    expect(&["  update  ", "public.parcels", r#"new {"id":1,"grams":600}"#]);
}
