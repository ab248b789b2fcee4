//! What the command says of itself: its version, its help, and what makes a shell complete its words. None of
//! it is coloured, on a terminal neither.
#![cfg(feature = "command")]

use crate::common::command::run;
use crate::common::say_loudly;
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
    let bench = ["bench", "writers", "-h"];
    for command in [
        &["--help"][..],
        &["listen", "--help"],
        &["watch", "--help"],
        &["stream", "--help"],
        &["poll", "--help"],
        &bench,
    ] {
        let help = stdout(command);
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
        assert!(help.contains("Options of every command"), "{help}");
    }
    let (watch, words) = (stdout(&["watch", "--help"]), "[possible values: outbox, notify, wal]\n");
    assert!(watch.contains(words), "{watch}");
    let refused = run(&["watch", "t", "--transport", "log"]);
    let refused = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.contains(words), "{refused}");
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

/// What a shell is to read, in a file.
fn completions(shell: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), stdout(&["completions", shell])).unwrap();
    file
}

/// What bash proposes behind these words, by the function that the script has registered.
fn bash_completes(line: &[&str]) -> Vec<String> {
    const COMPLETE: &str = r#"
        source "$0"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        function=$(complete -p pgwake | sed 's/.* -F \([^ ]*\) .*/\1/')
        "$function" pgwake "${!#}" "${COMP_WORDS[$#-2]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let script = completions("bash");
    let mut bash = Command::new("bash");
    let output = bash.args(["--norc", "-c", COMPLETE]).arg(script.path()).args(line).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(String::from).collect()
}

#[test]
fn bash_completes_commands_options_and_their_values() {
    if !has("bash") {
        return say_loudly("SKIPPED: completions in bash, which is not installed");
    }
    assert_eq!(bash_completes(&["pgwake", "li"]), ["listen"]);
    assert_eq!(bash_completes(&["pgwake", "bench", "co"]), ["compare"]);
    // Not what only we start ourselves.
    let benches = ["latency", "throughput", "scale", "writers", "stream", "compare"];
    let offered = bash_completes(&["pgwake", "bench", ""]);
    assert!(
        offered.iter().all(|word| word.starts_with('-') || benches.contains(&word.as_str())),
        "{offered:?}"
    );
    assert_eq!(bash_completes(&["pgwake", "demo", "--ke"]), ["--keep"]);
    assert_eq!(bash_completes(&["pgwake", "watch", "--format", ""]), ["text", "json"]);
}

#[test]
fn each_shell_reads_its_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let script = completions(shell);
        if !has(shell) {
            say_loudly(&format!("SKIPPED: whether {shell} reads its completions: it is not installed"));
            continue;
        }
        let read = Command::new(shell).arg("-n").arg(script.path()).output().unwrap();
        assert!(read.status.success() && read.stderr.is_empty(), "{shell}: {read:?}");
    }
}
