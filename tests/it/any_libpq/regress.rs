//! PostgreSQL's own regression files give the same results with our DDL triggers on as without.
//!
//! `make regress PGSRC=DIRECTORY` runs it, with the sources of the server's version in that directory: with
//! apt-get source, for one. What psql said is left in target/tmp/regress.

use crate::common::{PrivateServer, Sql, listening, say_loudly, start_server};
use pgwake::{Event, EventLoop};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How the database is set up before the files run.
const SETUPS: [(&str, &str); 3] = [
    ("without", ""),
    ("watched", "SELECT pgwake.watch_ddl('ddl')"),
    ("watched with all options", "SELECT pgwake.watch_ddl('ddl', NULL, true, true, '{before,after}')"),
];

/// These judge every function and column in the catalogs, ours too, by the standards of built-in ones.
const JUDGES: [&str; 2] = ["opr_sanity", "type_sanity"];

/// The settings of PostgreSQL's own driver.
const SETTINGS: [&str; 6] = [
    "lc_messages = 'C'",
    "lc_monetary = 'C'",
    "lc_numeric = 'C'",
    "lc_time = 'C'",
    "bytea_output = 'hex'",
    "timezone_abbreviations = 'Default'",
];

/// More commands than this are in the files, in any version.
const DDL_MIN: usize = 3000;

#[test]
fn postgresql_s_own_regression_files_give_the_same_results() {
    let Some(sources) = std::env::var_os("PGWAKE_PGSRC").map(PathBuf::from) else {
        say_loudly("SKIPPED: PostgreSQL's regression files: make regress PGSRC=DIRECTORY runs them");
        return;
    };
    let regress = sources.join("src/test/regress");
    let files = schedule(&regress);
    let mut setups = SETUPS.iter().map(|(name, setup)| run(&regress, &files, name, setup));
    let plain = setups.next().unwrap();
    let is_expected = |(file, result): &(&String, &String)| {
        fs::read_to_string(regress.join(format!("expected/{file}.out"))).is_ok_and(|e| e == **result)
    };
    let expected = files.iter().zip(&plain).filter(is_expected).count();
    say_loudly(&format!("{expected} of {} files give what PostgreSQL's sources expect", files.len()));
    assert!(expected * 10 > files.len() * 8, "this server does not run these files as they are meant");
    for (results, (name, _)) in setups.zip(&SETUPS[1..]) {
        for (file, (before, after)) in files.iter().zip(plain.iter().zip(&results)) {
            let is_same = JUDGES.contains(&file.as_str()) || without_ours(before) == without_ours(after);
            assert!(is_same, "{file} differs when {name}: compare the two in {}", kept(name).display());
        }
    }
}

/// Where the results stay.
fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("regress").join(name)
}

/// Some list all event triggers or all locks: without the lines about ours, their number, and the width that
/// our names have given to the columns.
fn without_ours(output: &str) -> Vec<String> {
    let is_ours = |line: &&str| {
        let line = line.trim_start();
        ["pgwake_", "!pgwake_", "ddl_watch ", "drop_handler ", "watched "]
            .iter()
            .any(|name| line.starts_with(name))
            || (line.starts_with('(') && (line.ends_with(" rows)") || line.ends_with(" row)")))
    };
    let squeeze = |line: &str| line.replace("--", "").split_whitespace().collect::<Vec<_>>().join(" ");
    output.lines().filter(|line| !is_ours(line)).map(|line| squeeze(line).replace("-+", "+")).collect()
}

/// The names of the files, in the order in which they are meant to run.
fn schedule(regress: &Path) -> Vec<String> {
    let text = fs::read_to_string(regress.join("parallel_schedule"))
        .unwrap_or_else(|error| panic!("no sources of PostgreSQL in {}: {error}", regress.display()));
    let lines = text.lines().filter_map(|line| line.strip_prefix("test: "));
    lines.flat_map(str::split_whitespace).map(String::from).collect()
}

/// What psql says for each file, on a server of its own, while somebody listens.
fn run(regress: &Path, files: &[String], name: &str, setup: &str) -> Vec<String> {
    let server = start_server();
    let results = server.directory().join("results");
    fs::create_dir(&results).unwrap();
    let owner = fs::metadata(server.directory()).unwrap();
    chown(&results, Some(owner.uid()), Some(owner.gid())).unwrap();
    compile_libraries(regress, server.directory());
    let mut sql = Sql::connect(&server.conninfo());
    sql.run("CREATE DATABASE regression TEMPLATE template0");
    for setting in SETTINGS {
        sql.run(&format!("ALTER DATABASE regression SET {setting}"));
    }
    // Where our functions say what they could not do.
    sql.run("ALTER SYSTEM SET log_min_messages = 'log'");
    sql.run("SELECT pg_reload_conf()");
    let conninfo = server.conninfo().replace("dbname=postgres", "dbname=regression");
    let mut sql = Sql::connect(&conninfo);
    if !setup.is_empty() {
        sql.run(&pgwake::install::install());
        sql.run(setup);
    }
    fs::create_dir_all(kept(name)).unwrap();
    let (mut events, _session) = listening(&conninfo, &["ddl"]);
    let mut heard = 0;
    let mut outputs = Vec::new();
    for file in files {
        outputs.push(psql(regress, &server, file, &kept(name)));
        heard += drain(&mut events);
    }
    say_loudly(&format!("ran {} files {name}: {heard} events", files.len()));
    let log = fs::read_to_string(server.directory().join("log")).unwrap();
    let lost: Vec<&str> = log.lines().filter(|line| line.contains("pgwake: ")).collect();
    assert!(lost.is_empty(), "{} complaints of ours: {:#?}", lost.len(), &lost[..lost.len().min(10)]);
    assert!(setup.is_empty() || heard > DDL_MIN, "only {heard} events");
    outputs
}

/// How many events there are by now.
fn drain(events: &mut EventLoop) -> usize {
    let mut heard = 0;
    while let Some(event) = events.next(Some(Duration::ZERO)).unwrap() {
        heard += usize::from(matches!(event, Event::Notification(_)));
    }
    heard
}

/// What the files load: functions in C. Those that cannot be compiled here are missing in every run.
fn compile_libraries(regress: &Path, directory: &Path) {
    let include = Command::new("pg_config").arg("--includedir-server").output().unwrap().stdout;
    let include = format!("-I{}", String::from_utf8(include).unwrap().trim());
    for (library, source) in [
        ("regress", "regress.c"),
        ("refint", "../../../contrib/spi/refint.c"),
        ("autoinc", "../../../contrib/spi/autoinc.c"),
    ] {
        let output = directory.join(format!("{library}.so"));
        let compiled = Command::new("cc")
            .args(["-w", "-DREFINT_VERBOSE", "-fPIC", "-shared", &include, "-o"])
            .arg(output)
            .arg(regress.join(source))
            .stderr(Stdio::null())
            .status()
            .unwrap();
        if !compiled.success() {
            say_loudly(&format!("{source} could not be compiled: its functions are missing in every run"));
        }
    }
}

/// One file, as PostgreSQL's own driver runs it.
fn psql(regress: &Path, server: &PrivateServer, file: &str, kept: &Path) -> String {
    let output = kept.join(format!("{file}.out"));
    let both = fs::File::create(&output).unwrap();
    let conninfo = server.conninfo().replace("dbname=postgres", "dbname=regression");
    Command::new("psql")
        .args(["-X", "-a", "-q", "-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on", "-d", &conninfo])
        .env("PGAPPNAME", format!("pg_regress/{file}"))
        .env("PGTZ", "America/Los_Angeles")
        .env("PGDATESTYLE", "Postgres, MDY")
        .env("PGOPTIONS", "-c intervalstyle=postgres_verbose")
        .env("PG_ABS_SRCDIR", regress)
        .env("PG_ABS_BUILDDIR", server.directory())
        .env("PG_LIBDIR", server.directory())
        .env("PG_DLSUFFIX", ".so")
        .current_dir(server.directory())
        .stdin(fs::File::open(regress.join(format!("sql/{file}.sql"))).unwrap())
        .stdout(both.try_clone().unwrap())
        .stderr(both)
        .status()
        .unwrap();
    // Where a file of its own is missing, it stands in a complaint.
    let directory = server.directory().display().to_string();
    String::from_utf8_lossy(&fs::read(output).unwrap()).replace(&directory, "DIRECTORY")
}
