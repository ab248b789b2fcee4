//! `make install` as root types it after `make`: in a copy of what it needs, without Rust, it copies what is
//! built, to where it is told, and `make uninstall` takes away all of it. And what comes in with the crate.

use crate::common::c;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

/// A source tree in which nothing but what `make install` needs is built, or what is missing, loudly.
fn built_tree() -> Option<tempfile::TempDir> {
    c::installed()?;
    let tree = bare_tree();
    let completions = ["completions/bash", "completions/fish", "completions/zsh"];
    for name in ["release/pgwake", "lib/libpgwake.a", "lib/libpgwake.so.0"].iter().chain(&completions) {
        let to = tree.path().join("target").join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(format!("{}/target/{name}", c::ROOT), to).unwrap();
    }
    Some(tree)
}

fn bare_tree() -> tempfile::TempDir {
    let tree = c::directory();
    let root = Path::new(c::ROOT);
    c::run(
        Command::new("cp")
            .arg("-r")
            .args(["Makefile", "Cargo.toml", "setup.sh", "ffi"].map(|it| root.join(it)))
            .arg(tree.path()),
    );
    tree
}

/// What root has: no Rust, and none of the variables of the `make` that these tests run in.
fn make(tree: &Path, arguments: &[&str]) -> Output {
    let mut make = Command::new("make");
    make.args(arguments).current_dir(tree).env_clear();
    make.env("HOME", "/nonexistent")
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    make.output().unwrap()
}

fn makes(tree: &Path, arguments: &[&str]) {
    let output = make(tree, arguments);
    assert!(output.status.success(), "make {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Each file and directory below one, with what changes when somebody touches it.
fn listing(directory: &Path) -> Vec<(String, i64, i64)> {
    let names = c::run(Command::new("find").arg(directory));
    let mut entries: Vec<_> = names
        .lines()
        .map(|name| {
            fs::symlink_metadata(name).map(|it| (name.to_string(), it.ctime(), it.ctime_nsec())).unwrap()
        })
        .collect();
    entries.sort();
    entries
}

/// The files below a directory, by their names from there.
fn files(directory: &Path) -> Vec<String> {
    let names = c::run(Command::new("find").arg(directory).args(["!", "-type", "d", "-printf", "%P\n"]));
    let mut names: Vec<String> = names.lines().map(String::from).collect();
    names.sort();
    names
}

#[test]
fn install_copies_what_is_built_and_leaves_the_sources_alone() {
    let Some(tree) = built_tree() else { return };
    let to = c::directory();
    let before = listing(tree.path());
    makes(tree.path(), &["install", &format!("DESTDIR={}", to.path().display())]);
    assert_eq!(listing(tree.path()), before);
    let expected =
        ["bin/pgwake", "include/pgwake.h", "include/pgwake/epoll.h", "include/pgwake/libev.h"].into_iter();
    let expected = expected.chain([
        "include/pgwake/libuv.h",
        "lib/libpgwake.a",
        "lib/libpgwake.so",
        "lib/libpgwake.so.0",
    ]);
    let expected = expected.chain([
        "lib/pkgconfig/pgwake.pc",
        "share/bash-completion/completions/pgwake",
        "share/fish/vendor_completions.d/pgwake.fish",
        "share/man/man1/pgwake.1",
        "share/man/man3/pgwake.3",
        "share/zsh/site-functions/_pgwake",
    ]);
    assert_eq!(files(&to.path().join("usr/local")), expected.collect::<Vec<_>>());
}

#[test]
fn the_installed_command_is_stripped_and_runs() {
    let Some(tree) = c::installed() else { return };
    let command = tree.join("bin/pgwake");
    let sections = c::run(Command::new("readelf").arg("-SW").arg(&command));
    assert!(sections.contains(" .text ") && !sections.contains(" .symtab "), "{sections}");
    assert!(c::run(Command::new(command).arg("version")).starts_with("pgwake "));
}

#[test]
fn completions_go_where_the_shells_look() {
    let Some(tree) = built_tree() else { return };
    let to = c::directory();
    for shell in ["bash", "zsh", "fish"] {
        fs::write(tree.path().join("target/completions").join(shell), shell).unwrap();
    }
    let prefix = format!("PREFIX={}", to.path().display());
    makes(tree.path(), &["install", &prefix]);
    let places = ["bash-completion/completions/pgwake", "zsh/site-functions/_pgwake"];
    for (place, shell) in
        places.into_iter().chain(["fish/vendor_completions.d/pgwake.fish"]).zip(["bash", "zsh", "fish"])
    {
        assert_eq!(fs::read_to_string(to.path().join("share").join(place)).unwrap(), shell);
    }
    makes(tree.path(), &["uninstall", &prefix]);
    assert!(!to.path().exists());
}

#[test]
fn directories_are_honoured_in_upper_and_lower_case() {
    let Some(tree) = built_tree() else { return };
    for names in [["LIBDIR", "BINDIR", "INCLUDEDIR", "MANDIR"], ["libdir", "bindir", "includedir", "mandir"]]
    {
        let to = c::directory();
        let mut arguments = vec!["install".to_string(), format!("DESTDIR={}", to.path().display())];
        let values = ["/usr/lib/here", "/opt/x/bin", "/opt/x/include", "/opt/x/man"];
        arguments.push("PREFIX=/usr".into());
        arguments.extend(names.iter().zip(values).map(|(name, value)| format!("{name}={value}")));
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        makes(tree.path(), &arguments);
        let at = |name: &str| to.path().join(name);
        for name in [
            "usr/lib/here/libpgwake.so.0",
            "opt/x/bin/pgwake",
            "opt/x/include/pgwake.h",
            "opt/x/man/man1/pgwake.1",
        ] {
            assert!(at(name).is_file(), "{name}: {:?}", files(to.path()));
        }
        let asked = |what: &str| {
            let mut pkg_config = Command::new("pkg-config");
            pkg_config.env("PKG_CONFIG_PATH", at("usr/lib/here/pkgconfig"));
            c::run(pkg_config.arg(what).arg("pgwake")).trim().to_string()
        };
        assert_eq!(asked("--variable=libdir"), "/usr/lib/here");
        assert_eq!(asked("--cflags"), "-I/opt/x/include");
        arguments[0] = "uninstall";
        makes(tree.path(), &arguments);
        assert!(!to.path().exists(), "left: {:?}", listing(to.path()));
    }
}

#[test]
fn uninstall_leaves_nothing_of_ours_and_all_that_is_not() {
    let Some(tree) = built_tree() else { return };
    let home = c::directory();
    let prefix = format!("PREFIX={}", home.path().join("x").display());
    makes(tree.path(), &["install", &prefix]);
    makes(tree.path(), &["uninstall", &prefix]);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "{:?}", listing(home.path()));
    // What somebody else has put there stays, with the directories around it.
    makes(tree.path(), &["install", &prefix]);
    let other = home.path().join("x/lib/pkgconfig/other.pc");
    fs::write(&other, "").unwrap();
    makes(tree.path(), &["uninstall", &prefix]);
    assert_eq!(files(home.path()), ["x/lib/pkgconfig/other.pc"]);
    assert_eq!(c::run(Command::new("find").arg(home.path()).args(["-type", "d", "-empty"])), "");
}

#[test]
fn what_is_not_built_is_named_in_one_line() {
    let tree = bare_tree();
    let to = c::directory();
    let output = make(tree.path(), &["install", &format!("DESTDIR={}", to.path().display())]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    // The last line is make's own.
    assert_eq!(text.lines().filter(|line| line.starts_with("pgwake: ")).count(), 1, "{text}");
    assert!(text.lines().count() <= 2 && text.contains("`make`"), "{text}");
    assert!(!output.status.success() && files(to.path()).is_empty());
}

/// Those of a program that depends on the crate and asks for what is in the brackets.
fn dependencies(features: &str) -> Vec<String> {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--offline", "--locked", "-e", "normal", "--prefix", "none", "--format", "{lib}"]);
    tree.args(["--no-default-features", "--features", features]).current_dir(c::ROOT);
    let mut names: Vec<String> = c::run(&mut tree).split_whitespace().map(String::from).collect();
    names.sort();
    names.dedup();
    names.retain(|name| name != "pgwake" && name != "(*)");
    names
}

#[test]
fn the_library_alone_needs_little() {
    assert_eq!(dependencies(""), ["libc", "log", "mio", "pq_sys"]);
    assert_eq!(dependencies("bundled"), ["libc", "log", "mio", "openssl_sys", "pq_src", "pq_sys"]);
}
