//! A server that has the library of `ffi/extension`, built for it by its own `pg_config`.

use super::server::{PrivateServer, ServerOptions, find_programs};
use super::{Sql, say_loudly};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The server of this test binary, or nothing where the library cannot be built for it.
pub(crate) fn server() -> Option<&'static PrivateServer> {
    static SERVER: OnceLock<Option<PrivateServer>> = OnceLock::new();
    SERVER.get_or_init(start_server).as_ref()
}

/// A server of one's own, whose library may be taken away: `pgwake.so` in its directory.
pub(crate) fn start_server() -> Option<PrivateServer> {
    let programs = std::env::var_os("PGWAKE_TEST_BINDIR").map(PathBuf::from);
    let programs = programs.unwrap_or_else(|| find_programs().unwrap());
    let built = tempfile::tempdir().unwrap();
    if let Err(reason) = build(&programs, built.path()) {
        say_loudly(&format!("SKIPPED: the server's library: {reason}"));
        return None;
    }
    let settings = ["max_connections = 50", "max_prepared_transactions = 10", "wal_level = logical"];
    // What autovacuum does to one of two tables, the order of their rows tells.
    let paths =
        ["dynamic_library_path = '$DIRECTORY:$libdir'", "autovacuum = off", "log_min_messages = fatal"];
    let server = PrivateServer::start(&ServerOptions {
        settings: settings.iter().chain(&paths).map(ToString::to_string).collect(),
        programs: Some(programs),
        ..ServerOptions::default()
    })
    .unwrap_or_else(|error| panic!("{error}"));
    let library = server.directory().join("pgwake.so");
    std::fs::copy(built.path().join("pgwake.so"), &library).unwrap();
    std::fs::set_permissions(&library, PermissionsExt::from_mode(0o755)).unwrap();
    let version = Sql::connect(&server.conninfo()).value("SHOW server_version");
    say_loudly(&format!("tests of the library run on PostgreSQL {version}"));
    Some(server)
}

/// With the headers of these programs' own version.
fn build(programs: &Path, directory: &Path) -> Result<(), String> {
    let pg_config =
        std::env::var_os("PGWAKE_TEST_PG_CONFIG").map_or(programs.join("pg_config"), PathBuf::from);
    let said = |program: &Path, option: &str| {
        let output = Command::new(program).arg(option).output();
        output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string()).unwrap_or_default()
    };
    let major = |version: String| {
        let numbers: String = version.chars().skip_while(|c| !c.is_ascii_digit()).collect();
        numbers.split('.').next().unwrap_or_default().to_string()
    };
    let server = major(said(&programs.join("postgres"), "--version"));
    if major(said(&pg_config, "--version")) != server || !Path::new(&said(&pg_config, "--pgxs")).is_file() {
        return Err(format!(
            "no headers of PostgreSQL {server} (apt-get install postgresql-server-dev-{server})"
        ));
    }
    // A copy, since what is built would lie among the sources.
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("ffi/extension");
    for source in std::fs::read_dir(sources).unwrap().flatten() {
        let is_source = source.path().extension().is_none_or(|end| end == "c" || end == "h");
        if is_source && source.path().is_file() {
            std::fs::copy(source.path(), directory.join(source.file_name())).unwrap();
        }
    }
    let made = Command::new("make")
        .arg("-s")
        .arg(format!("PG_CONFIG={}", pg_config.display()))
        .current_dir(directory)
        .output()
        .map_err(|error| format!("make: {error}"))?;
    let complaints = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success() && complaints.is_empty(), "{complaints}");
    Ok(())
}

/// A database of its own, with the schema in it.
pub(crate) fn database(server: &PrivateServer) -> (String, Sql) {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let name = format!("library_{}", COUNTER.fetch_add(1, Ordering::Relaxed));
    Sql::connect(&server.conninfo()).run(&format!("CREATE DATABASE {name}"));
    let conninfo = server.conninfo().replace("dbname=postgres", &format!("dbname={name}"));
    let mut sql = Sql::connect(&conninfo);
    sql.run(&pgwake::install::install());
    (conninfo, sql)
}

/// Watches the tables `plain` and `quick`: one with the library, one without.
pub(crate) fn watch_both(sql: &mut Sql, options: &str) {
    sql.run("SELECT pgwake.use_library(true) WHERE NOT pgwake.uses_library()");
    sql.run(&format!("SET pgwake.library = off; SELECT pgwake.watch_table('plain'{options})"));
    sql.run(&format!("RESET pgwake.library; SELECT pgwake.watch_table('quick'{options})"));
}
