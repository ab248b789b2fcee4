//! What the command says of itself: its version and its help. None of it is coloured, on a terminal neither.
#![cfg(feature = "command")]

mod common;

use common::command::run;
use common::say_loudly;
use std::process::{Command, Stdio};

fn stdout(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn has(program: &str) -> bool {
    let mut asked = Command::new(program);
    let asked = asked.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

#[test]
fn the_version_is_what_every_program_prints_and_more() {
    let version = env!("CARGO_PKG_VERSION");
    for option in ["-V", "--version"] {
        assert_eq!(stdout(&[option]), format!("pgwake {version}\n"));
    }
    let more = stdout(&["version"]);
    assert!([version, "libpq", "OpenSSL"].iter().all(|part| more.contains(part)), "{more}");
}

#[test]
fn help_fits_a_terminal_and_offers_what_there_is() {
    for command in [&["--help"][..], &["listen", "--help"], &["watch", "--help"], &["bench", "writers", "-h"]]
    {
        let help = stdout(command);
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
        assert!(help.contains("Options of every command"), "{help}");
    }
    let watch = stdout(&["watch", "--help"]);
    assert!(watch.contains("outbox") && watch.contains("notify") && !watch.contains("wal"), "{watch}");
    let refused = run(&["watch", "t", "--transport", "log"]);
    let refused = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.contains("take one of outbox, notify\n"), "{refused}");
}

#[test]
fn nothing_is_coloured_on_a_terminal() {
    if !has("script") {
        return say_loudly("SKIPPED: colours on a terminal: the program `script` is not installed");
    }
    let pgwake = env!("CARGO_BIN_EXE_pgwake");
    for arguments in ["--help", "listen --help", "nonsense", "-vvv -d host=/nonexistent listen c", "version"]
    {
        let mut terminal = Command::new("script");
        terminal.args(["-qc", &format!("{pgwake} {arguments}"), "/dev/null"]).stdin(Stdio::null());
        let output = terminal.env("TERM", "xterm-256color").env_remove("NO_COLOR").output().unwrap();
        let seen = String::from_utf8(output.stdout).unwrap();
        assert!(seen.contains("pgwake") && !seen.contains('\u{1b}'), "{arguments}: {seen:?}");
    }
}
