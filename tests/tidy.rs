//! The house rules as tests: each lists the places of the source tree that break a rule, with what to do.
//!
//! The checks are plain functions from a path and a text to findings, so that two tests can show them
//! samples: a check that cannot fail is worth nothing. They read text as rustfmt leaves it, not a syntax
//! tree, which is good enough here and needs no dependency.

use std::fs;
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const FILE_LINES_MAX: usize = 500;
const LINE_CHARS_MAX: usize = 110;
const FUNCTION_LINES_MAX: usize = 60;

/// How far above unsafe code its reason may end: the code may stand inside a statement of a few lines.
const REASON_DISTANCE_LINES_MAX: usize = 3;

/// Names that say nothing about what is inside.
const VAGUE_NAMES: [&str; 4] = ["utils", "helpers", "types", "common"];

/// Words that only these places of `src` may use. Tests and benchmarks call what any host may call.
const HOMES: [(&str, &[&str]); 4] = [
    ("unsafe", &["src/pq/", "src/sys.rs", "src/text.rs", "src/capi", "src/cli/bench/c_loop.rs"]),
    ("pq_sys", &["src/pq/"]),
    ("mio", &["src/reactor.rs"]),
    ("serde_json", &["src/json.rs", "src/cli/bench/"]),
];

/// From the bottom up: a module names modules of its own layer and of those below.
const LAYERS: [&[&str]; 6] = [
    &["error", "event", "metrics", "options", "random", "text"],
    &["pq", "sys", "decode", "install", "json"],
    &["reactor", "session"],
    &["source"],
    &["event_loop"],
    &["capi", "main", "cli"],
];

/// What marks unfinished work. In pieces, as all that follows, so that this file does not find itself.
const UNDONE: [&str; 4] =
    [concat!("to", "do!"), concat!("unimpl", "emented!"), concat!("db", "g!"), concat!("#[", "ignore")];

/// A superuser's directory, and the usual name of a private mirror of packages.
const PRIVATE_PLACES: [&str; 2] = [concat!("/ro", "ot/"), concat!("arti", "factory")];

/// The directory of the others: private when a name follows it, harmless when a variable does.
const USERS_HOME: &str = concat!("/ho", "me/");

/// What breaks a rule: the line, and what to do about it.
type Findings = Vec<(usize, String)>;

/// Takes a file's path below the crate's root, and its text.
type Check = fn(&str, &str) -> Findings;

#[test]
fn every_source_file_opens_with_its_purpose() {
    hold(purposeless, sources());
}

#[test]
fn no_file_is_too_long_to_read_at_once() {
    hold(long_files, sources());
}

#[test]
fn every_line_fits_the_width() {
    hold(long_lines, sources());
}

#[test]
fn every_function_fits_a_screen() {
    hold(long_functions, sources());
}

#[test]
fn every_module_is_named_after_what_it_holds() {
    hold(vague_names, sources());
}

#[test]
fn unsafe_code_gives_its_reason() {
    hold(unreasoned_unsafe, sources());
}

#[test]
fn unsafe_code_and_wrapped_dependencies_stay_at_home() {
    hold(strays, sources());
}

#[test]
fn imports_point_downwards() {
    hold(upward_imports, sources());
}

#[test]
fn neither_the_library_nor_the_command_unwraps() {
    hold(unwraps, sources());
}

#[test]
fn nothing_is_left_unfinished() {
    hold(unfinished, sources());
}

#[test]
fn no_file_names_a_private_machine_or_registry() {
    hold(private_places, tracked_files());
}

#[test]
fn every_check_finds_a_bad_sample() {
    let long_file = "\n".repeat(FILE_LINES_MAX + 1);
    let long_line = "é".repeat(LINE_CHARS_MAX + 1);
    let long_function = format!("    fn f() {{\n{}    }}\n", "        g();\n".repeat(FUNCTION_LINES_MAX - 1));
    let samples: [(Check, &str, &str); 30] = [
        (purposeless, "tests/a.rs", "use std::fs;\n//! Too late.\n"),
        (long_files, "src/a.rs", &long_file),
        (long_lines, "src/a.rs", &long_line),
        (long_functions, "src/a.rs", &long_function),
        (vague_names, "src/pq/utils.rs", ""),
        (vague_names, "src/a.rs", "pub(crate) mod helpers {"),
        (strays, "src/event.rs", "let a = unsafe { b() };"),
        (strays, "src/event.rs", "let a = (r#\"\"\"#, '\"', '\\'', unsafe { b() });"),
        (unreasoned_unsafe, "src/sys.rs", "// SAFETY: too far.\n\n\n\nlet a = unsafe { b() };"),
        (unreasoned_unsafe, "src/sys.rs", "/// # Safety\nunsafe impl Send for A {}"),
        (unreasoned_unsafe, "src/sys.rs", "/// Safe enough.\npub unsafe extern \"C\" fn a() {}"),
        (strays, "src/sys.rs", "use mio::Poll;"),
        (strays, "src/event.rs", "/* … */ type A = serde_json::Value;"),
        (strays, "src/session/mod.rs", "let a = pq_sys::PQlibVersion();"),
        (upward_imports, "src/pq/notify.rs", "use crate::session::Session;"),
        (upward_imports, "src/source/mod.rs", "use crate::{\n    error::{Error, Result},\n    capi,\n};"),
        (upward_imports, "src/sys.rs", "fn a() -> crate::event_loop::EventLoop {}"),
        (upward_imports, "src/session/backoff.rs", "use super::super::source::Pull;"),
        (upward_imports, "src/event.rs", "use super::sys;"),
        (upward_imports, "src/event.rs", "use crate::EventLoop;"),
        (upward_imports, "src/event.rs", "use crate::*;"),
        (upward_imports, "src/homeless.rs", ""),
        (unwraps, "src/a.rs", "#[cfg(test)]\nmod tests;\n\nfn a() {\n    b.unwrap();\n}"),
        (unwraps, "src/a.rs", "a\n    .expect(\"b\")"),
        (unfinished, "tests/a.rs", concat!("to", "do!()")),
        (unfinished, "src/a.rs", concat!("db", "g!(a);")),
        (unfinished, "benches/a.rs", concat!("#[ig", "nore = \"slow\"]")),
        (private_places, "README.md", concat!("see /ro", "ot/notes")),
        (private_places, "Makefile", concat!("PATH=/ho", "me/a/bin")),
        (private_places, "Cargo.lock", concat!("https://Arti", "factory.example.org")),
    ];
    for (check, path, sample) in samples {
        assert!(!check(path, sample).is_empty(), "nothing found in {path}: {sample}");
    }
}

#[test]
fn no_check_blames_a_good_sample() {
    let full_line = "é".repeat(LINE_CHARS_MAX);
    let full_function = format!("fn f(\n) {{\n{}}}\nfn g();\n", "    h();\n".repeat(FUNCTION_LINES_MAX - 3));
    let samples: [(Check, &str, &str); 15] = [
        (long_lines, "src/a.rs", &full_line),
        (long_functions, "src/a.rs", &full_function),
        (vague_names, "tests/it/common/mod.rs", ""),
        (strays, "src/a.rs", "// unsafe\n/* unsafe */ let a = \"\\\"unsafe\"; #![allow(unsafe_code)]"),
        (unreasoned_unsafe, "src/sys.rs", "// SAFETY: a,\n// b,\n// c,\n// d.\nlet a =\n    unsafe { b() };"),
        (unreasoned_unsafe, "src/sys.rs", "/// # Safety\n///\n/// A.\n#[inline]\nunsafe fn a() {}"),
        (unreasoned_unsafe, "src/sys.rs", "type A = unsafe extern \"C\" fn(c_int);"),
        (unreasoned_unsafe, "src/sys.rs", "impl A for B {\n    unsafe fn a() {}\n\n    unsafe fn b() {}\n}"),
        (upward_imports, "src/session/mod.rs", "use crate::reactor::WaitFor;\nuse super::error::Error;"),
        (upward_imports, "src/pq/mod.rs", "/// [`Event`](crate::Event)\npub use notify::Notify;"),
        (upward_imports, "src/capi.rs", "use crate::{EventLoop, error::Error};"),
        (unwraps, "src/a.rs", "#[cfg(test)]\nmod tests {\n    fn a() {\n        b.unwrap();\n    }\n}"),
        (unwraps, "tests/a.rs", "a.expect(\"b\")"),
        (unwraps, "src/a/tests.rs", "a.unwrap()"),
        (private_places, "README.md", concat!("/ho", "me/$USER")),
    ];
    for (check, path, sample) in samples {
        assert_eq!(check(path, sample), [], "in {path}: {sample}");
    }
}

fn purposeless(_: &str, text: &str) -> Findings {
    match text.lines().next().and_then(|line| line.strip_prefix("//! ")) {
        Some(_) => Vec::new(),
        None => vec![(1, "no purpose: let the first line be a `//!` sentence that says it".to_string())],
    }
}

fn long_files(_: &str, text: &str) -> Findings {
    match text.lines().count() {
        ..=FILE_LINES_MAX => Vec::new(),
        lines => vec![(lines, format!("{lines} lines, {FILE_LINES_MAX} at most: split the file"))],
    }
}

fn long_lines(_: &str, text: &str) -> Findings {
    judge_lines(text, |line| {
        let chars = line.chars().count();
        let what = || format!("{chars} characters, {LINE_CHARS_MAX} at most: break the line");
        (chars > LINE_CHARS_MAX).then(what)
    })
}

/// A line that names a function starts it; [`item_lines`] says where it ends.
fn long_functions(_: &str, text: &str) -> Findings {
    let code = code_of(text);
    let lines: Vec<&str> = code.lines().collect();
    let judge = |start: usize| {
        names_after(lines[start], "fn").next()?;
        let length = item_lines(&lines[start..]);
        let what = || format!("a function of {length} lines, {FUNCTION_LINES_MAX} at most: split it");
        (length > FUNCTION_LINES_MAX).then(|| (start + 1, what()))
    };
    (0..lines.len()).filter_map(judge).collect()
}

fn vague_names(path: &str, text: &str) -> Findings {
    let Some(inside) = path.strip_prefix("src/") else { return Vec::new() };
    let what = |name: &str| format!("`{name}` says nothing: name it after what it holds");
    let is_vague = |name: &&str| VAGUE_NAMES.contains(name);
    let mut findings = judge_lines(&code_of(text), |line| names_after(line, "mod").find(is_vague).map(what));
    let parts = inside.trim_end_matches(".rs").split('/').filter(is_vague);
    findings.extend(parts.map(|part| (1, what(part))));
    findings
}

/// A block and an implementation say why they are sound, a function what its caller owes. The type of a
/// pointer to a function has no name, and nothing is owed; what is owed for a trait's method, the trait says.
fn unreasoned_unsafe(_: &str, text: &str) -> Findings {
    let lines: Vec<&str> = text.lines().collect();
    let code = code_of(text);
    let code: Vec<&str> = code.lines().collect();
    let judge = |(index, at): (usize, usize)| {
        let rest = code[index][at + "unsafe".len()..].trim_start();
        let reason = match rest.trim_start_matches("extern").trim_start() {
            _ if rest.starts_with('{') || rest.starts_with("impl") => "// SAFETY:",
            function if function.starts_with("fn ") && !is_of_trait(&code[..=index]) => "/// # Safety",
            _ => return None,
        };
        let what = || format!("`unsafe` without its reason: put `{reason}` above it");
        (!has_reason(&lines[..index], reason)).then(|| (index + 1, what()))
    };
    let places = (0..code.len()).flat_map(|index| words(code[index], "unsafe").map(move |at| (index, at)));
    places.filter_map(judge).collect()
}

/// Whether the last of these lines lies in the implementation of a trait.
fn is_of_trait(code: &[&str]) -> bool {
    let block = code.iter().rev().find(|line| line.starts_with(char::is_alphabetic));
    block.is_some_and(|line| words(line, "impl").next().is_some() && words(line, "for").next().is_some())
}

/// Whether a comment with the reason, of as many lines as it needs, ends close to the end of these lines.
fn has_reason(above: &[&str], reason: &str) -> bool {
    let nearest = above.len().saturating_sub(REASON_DISTANCE_LINES_MAX)..above.len();
    nearest.into_iter().any(|last| {
        let comment = above[..=last].iter().rev().map(|line| line.trim_start());
        comment.take_while(|line| line.starts_with("//")).any(|line| line.starts_with(reason))
    })
}

fn strays(path: &str, text: &str) -> Findings {
    let is_abroad =
        |homes: &[&str]| path.starts_with("src/") && !homes.iter().any(|home| path.starts_with(home));
    judge_lines(&code_of(text), |line| {
        let mut found = HOMES.iter().filter(|(word, _)| words(line, word).next().is_some());
        let (word, homes) = found.find(|(_, homes)| is_abroad(homes))?;
        Some(format!("`{word}` is for {} alone: move this there", homes.join(", ")))
    })
}

fn upward_imports(path: &str, text: &str) -> Findings {
    let Some(inside) = path.strip_prefix("src/").filter(|inside| *inside != "lib.rs") else {
        return Vec::new();
    };
    let parts: Vec<&str> = inside.trim_end_matches(".rs").split('/').filter(|part| *part != "mod").collect();
    let Some(own) = layer(parts[0]) else {
        return vec![(1, format!("`{}` has no layer: give it its place in tests/tidy.rs", parts[0]))];
    };
    let judge = |name: &str| match layer(name) {
        Some(other) if other <= own => None,
        Some(_) => Some(format!("`{name}` lies above `{}`: turn the dependency round", parts[0])),
        // The top layer is a client of the public names, which stand at the root.
        None if own == LAYERS.len() - 1 => None,
        None => Some(format!("`crate::{name}` hides its layer: name the module that defines it")),
    };
    let code = code_of(text);
    let names = root_names(&code, parts.len()).into_iter();
    names.filter_map(|(line, name)| Some((line, judge(name)?))).collect()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// What the code of a module at this depth names at the crate's root, by `crate::` or enough `super::`, and
/// where. A module inside a file lies deeper than the file, so after `super::` only known modules count.
fn root_names(code: &str, depth: usize) -> Vec<(usize, &str)> {
    let line_of = |at: usize| code[..at].matches('\n').count() + 1;
    let mut names = Vec::new();
    for at in words(code, "crate").filter(|at| code[*at..].starts_with("crate::")) {
        names
            .extend(leading_names(&code[at + "crate::".len()..]).into_iter().map(|name| (line_of(at), name)));
    }
    for at in words(code, "super").filter(|at| !code[..*at].ends_with("::")) {
        let tail = code[at..].trim_start_matches("super::");
        let is_root = code.len() - at - tail.len() >= depth * "super::".len();
        let known = leading_names(tail).into_iter().filter(|name| is_root && layer(name).is_some());
        names.extend(known.map(|name| (line_of(at), name)));
    }
    names
}

/// The first name of a path, or of each path in a group.
fn leading_names(tail: &str) -> Vec<&str> {
    let mut names = vec![name_of(tail)];
    let mut depth = 0;
    for (at, letter) in tail.char_indices() {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        match letter {
            _ if depth == 0 => break,
            '{' | ',' if depth == 1 => names.push(name_of(&tail[at + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn unwraps(path: &str, text: &str) -> Findings {
    if !path.starts_with("src/") || path.ends_with("/tests.rs") {
        return Vec::new();
    }
    judge_lines(&without_tests(&code_of(text)), |line| {
        let found = [".unwrap()", ".expect("].into_iter().find(|needle| line.contains(needle))?;
        Some(format!("`{found}` can end the host's process: return an error, or make the case impossible"))
    })
}

fn unfinished(_: &str, text: &str) -> Findings {
    judge_lines(text, |line| {
        let found = UNDONE.into_iter().find(|needle| line.contains(needle))?;
        Some(format!("`{found}`: finish it or take it out"))
    })
}

fn private_places(_: &str, text: &str) -> Findings {
    judge_lines(text, |line| {
        let line = line.to_lowercase();
        let mut users = line.match_indices(USERS_HOME).map(|(at, home)| &line[at + home.len()..]);
        let is_private = PRIVATE_PLACES.iter().any(|place| line.contains(place))
            || users.any(|user| user.starts_with(char::is_alphabetic));
        is_private.then(|| "a private path or host: make it relative, public, or an argument".to_string())
    })
}

fn judge_lines(text: &str, judge: impl Fn(&str) -> Option<String>) -> Findings {
    text.lines().enumerate().filter_map(|(index, line)| Some((index + 1, judge(line)?))).collect()
}

/// Where a whole word stands in a text.
fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    let found = text.match_indices(word).map(|(at, _)| at);
    found.filter(move |at| !text[..*at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

/// The names that follow a keyword.
fn names_after<'a>(line: &'a str, keyword: &'a str) -> impl Iterator<Item = &'a str> + 'a {
    let tails = words(line, keyword).filter_map(|at| line[at + keyword.len()..].strip_prefix(' '));
    tails.map(name_of).filter(|name| !name.is_empty())
}

/// The name, or the star, that a text starts with.
fn name_of(text: &str) -> &str {
    let text = text.trim_start();
    let is_other = |letter: char| !letter.is_alphanumeric() && !matches!(letter, '_' | '*');
    &text[..text.find(is_other).unwrap_or(text.len())]
}

/// How many lines the item that opens on the first of these has. It ends with the first line of its own
/// indentation that closes a brace or a declaration: rustfmt puts the end there, so no parser is needed.
fn item_lines(lines: &[&str]) -> usize {
    let indentation = &lines[0][..lines[0].len() - lines[0].trim_start().len()];
    let is_end = |line: &&str| {
        let rest = line.strip_prefix(indentation).unwrap_or_default().trim_end();
        !rest.starts_with(' ') && rest.ends_with(['}', ';'])
    };
    lines.iter().position(is_end).map_or(lines.len(), |last| last + 1)
}

/// The code with the items that only tests compile blanked, line for line.
fn without_tests(code: &str) -> String {
    let mut lines: Vec<&str> = code.lines().collect();
    for start in 0..lines.len() {
        let line = lines[start].trim_start();
        if line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test,") {
            let length = item_lines(&lines[start..]);
            lines[start..start + length].fill("");
        }
    }
    lines.join("\n")
}

/// The text with its comments, strings and characters blanked, line for line.
fn code_of(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < letters.len() {
        let end = (at + prose_length(&letters[at..])).min(letters.len());
        code.extend(letters[at..end].iter().map(|letter| if *letter == '\n' { '\n' } else { ' ' }));
        code.extend((end == at).then_some(letters[at]));
        at = end.max(at + 1);
    }
    code
}

/// How many letters the comment or literal that starts here has; none if code goes on.
fn prose_length(letters: &[char]) -> usize {
    let hashes = letters.iter().skip(1).take_while(|letter| **letter == '#').count();
    match letters {
        ['/', '/', ..] => letters.iter().position(|letter| *letter == '\n').unwrap_or(letters.len()),
        ['/', '*', ..] => length_to("*/", 2, letters),
        // Where a single quote opens no character, it is a lifetime's or a label's.
        ['"', ..] | ['\'', '\\', ..] | ['\'', _, '\'', ..] => quoted_length(letters),
        // No name ends in `r` right before a quote or a hash: the language reserves that.
        ['r', ..] if letters.get(1 + hashes) == Some(&'"') => {
            length_to(&format!("\"{}", "#".repeat(hashes)), 2 + hashes, letters)
        }
        _ => 0,
    }
}

fn length_to(end: &str, from: usize, letters: &[char]) -> usize {
    let end: Vec<char> = end.chars().collect();
    let found = letters[from..].windows(end.len()).position(|window| window == end);
    found.map_or(letters.len(), |at| from + at + end.len())
}

fn quoted_length(letters: &[char]) -> usize {
    let mut at = 1;
    while at < letters.len() && letters[at] != letters[0] {
        at += if letters[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// Fails with everything that breaks the rule, not only with the first.
fn hold(check: Check, files: Vec<(String, String)>) {
    assert!(!files.is_empty(), "no file was found, so nothing was checked");
    let mut findings = Vec::new();
    for (path, text) in &files {
        findings.extend(check(path, text).into_iter().map(|(line, what)| format!("{path}:{line}: {what}")));
    }
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// Every Rust file of the crate, whether it is under version control yet or not.
fn sources() -> Vec<(String, String)> {
    let mut paths = Vec::new();
    ["src", "tests", "benches"].into_iter().for_each(|directory| walk(directory, &mut paths));
    paths.retain(|path| path.ends_with(".rs"));
    paths.sort();
    with_texts(paths)
}

/// Every text file under version control; in an unpacked release, where there is none, every text file.
fn tracked_files() -> Vec<(String, String)> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(ROOT).output();
    let names = output.map(|output| output.stdout).unwrap_or_default();
    let names = String::from_utf8_lossy(&names);
    let mut paths: Vec<String> = names.split_terminator('\0').map(str::to_string).collect();
    if paths.is_empty() {
        walk("", &mut paths);
    }
    with_texts(paths)
}

/// Leaves out what is not text, and what is listed but was taken away.
fn with_texts(paths: Vec<String>) -> Vec<(String, String)> {
    let text_of = |path: &String| {
        let bytes = fs::read(Path::new(ROOT).join(path)).ok().filter(|bytes| !bytes.contains(&0))?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    paths.into_iter().filter_map(|path| text_of(&path).map(|text| (path, text))).collect()
}

/// Collects the files below a directory, but for hidden ones and what a build leaves.
fn walk(directory: &str, paths: &mut Vec<String>) {
    for entry in fs::read_dir(Path::new(ROOT).join(directory)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{directory}/{name}").trim_start_matches('/').to_string();
        match entry.path().is_dir() {
            _ if name.starts_with('.') || name == "target" => {}
            true => walk(&path, paths),
            false => paths.push(path),
        }
    }
}
