//! What the tests of the C library share: the tree that `make install` left, compilers, and programs that end
//! in time.
#![allow(dead_code, reason = "each test program uses its part")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What the README tells a user to link with the archive.
pub(crate) const ARCHIVE_NEEDS: [&str; 3] = ["-lssl", "-lcrypto", "-lm"];

/// No program here takes that long, not even under valgrind.
const SECONDS_MAX: &str = "600";

/// The tree of `make install`, from PGWAKE_INSTALLED. `None` says loudly that a test was skipped.
pub(crate) fn installed() -> Option<PathBuf> {
    let tree = std::env::var_os("PGWAKE_INSTALLED");
    if tree.is_none() {
        crate::common::say_loudly(
            "SKIPPED: PGWAKE_INSTALLED names no tree; `make test` installs one and sets it",
        );
    }
    tree.map(PathBuf::from)
}

pub(crate) fn archive(tree: &Path) -> String {
    tree.join("lib/libpgwake.a").display().to_string()
}

/// Whether a program can be started. If not, says loudly that a test was skipped.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        crate::common::say_loudly(&format!("SKIPPED: {program} is missing; `./setup.sh --test` installs it"));
    }
    found
}

/// A place for what is built.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Runs a command that must succeed; its output.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out
}

/// Compiles a C driver of `tests/c` with more arguments behind it, against the installed headers.
pub(crate) fn build_driver(tree: &Path, name: &str, into: &Path, more: &[&str]) -> PathBuf {
    let binary = into.join(name);
    let mut compiler = Command::new("cc");
    compiler.args(["-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-I"]);
    compiler.arg(tree.join("include")).arg(format!("{ROOT}/tests/c/{name}.c"));
    run(compiler.args(more).arg("-o").arg(&binary));
    binary
}

/// The same with the packed archive.
pub(crate) fn build_with_archive(tree: &Path, name: &str, into: &Path) -> PathBuf {
    let archive = archive(tree);
    let more: Vec<&str> = [archive.as_str()].into_iter().chain(ARCHIVE_NEEDS).collect();
    build_driver(tree, name, into, &more)
}

/// How a program is started: as it is, or under a checker that turns what it finds into a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Under {
    Nothing,
    Valgrind,
}

/// A command that is ended when it takes too long.
pub(crate) fn limited(under: Under, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.arg(SECONDS_MAX);
    if under == Under::Valgrind {
        command.args(["valgrind", "-q", "--error-exitcode=99", "--leak-check=full"]);
        command.args(["--errors-for-leak-kinds=definite", "--show-leak-kinds=definite"]);
    }
    command.arg(program);
    command
}

/// A program whose lines are read as they come.
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running { child, lines }
    }

    /// The next line; `None` when the program has ended.
    pub(crate) fn line(&mut self) -> Option<String> {
        self.lines.next().map(|line| line.unwrap())
    }

    pub(crate) fn ends_well(mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}
