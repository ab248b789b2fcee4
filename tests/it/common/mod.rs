//! What the tests share: a private server for each test program, SQL over a plain connection, and waiting for
//! an event instead of for a time.
#![allow(dead_code, reason = "each test program uses its part")]

#[cfg(feature = "command")]
pub(crate) mod bench;
pub(crate) mod c;
#[cfg(feature = "command")]
pub(crate) mod command;
pub(crate) mod drops;
#[cfg(feature = "command")]
pub(crate) mod error_table;
#[cfg(feature = "json")]
pub(crate) mod log;
pub(crate) mod outbox;
pub(crate) mod pgbouncer;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod relay;
#[path = "../../../src/cli/server.rs"]
mod server;
#[cfg(feature = "json")]
pub(crate) mod shadow;
#[cfg(feature = "command")]
pub(crate) mod sink;
#[cfg(feature = "json")]
pub(crate) mod workload;

use pgwake::pq::{Connection, Conninfo, ResultStatus};
use pgwake::{Event, EventLoop};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
pub(crate) use server::PrivateServer;
pub(crate) use server::ServerOptions;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Nothing here takes that long, not even on a busy machine: a test that waits longer has lost a wake-up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The role `locked` needs this password, everywhere.
pub(crate) const PASSWORD: &str = "s3cret-0f-locked";

/// Says what the harness must not keep to itself, as it does with what a passing test prints.
pub(crate) fn say_loudly(sentence: &str) {
    use std::io::Write;
    // There is nobody left to tell when stderr is closed.
    let _ = writeln!(std::io::stderr(), "{sentence}");
}

/// The server of this test program: unix socket, TCP and TLS. It goes with the process.
pub(crate) fn server() -> &'static PrivateServer {
    static SERVER: OnceLock<PrivateServer> = OnceLock::new();
    SERVER.get_or_init(|| start_with("max_connections = 300"))
}

/// A server of one's own, for tests that stop or burden it.
pub(crate) fn start_server() -> PrivateServer {
    start_with("max_connections = 100")
}

fn start_with(setting: &str) -> PrivateServer {
    start_with_settings(&[setting])
}

/// A server of one's own with these settings.
pub(crate) fn start_with_settings(settings: &[&str]) -> PrivateServer {
    let certificate = rcgen::generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()]).unwrap();
    let server = PrivateServer::start(&ServerOptions {
        settings: [
            "ssl = on",
            "ssl_cert_file = '$DIRECTORY/server.crt'",
            "ssl_key_file = '$DIRECTORY/server.key'",
            "log_min_messages = fatal",
        ]
        .iter()
        .chain(settings)
        .map(|setting| setting.to_string())
        .collect(),
        hba: ["local all locked scram-sha-256", "host all locked 127.0.0.1/32 scram-sha-256"]
            .into_iter()
            .chain(["local all all trust", "host all all 127.0.0.1/32 trust"])
            .map(String::from)
            .collect(),
        files: vec![
            ("server.crt".into(), certificate.cert.pem()),
            ("server.key".into(), certificate.signing_key.serialize_pem()),
        ],
        tcp: true,
        programs: std::env::var_os("PGWAKE_TEST_BINDIR").map(Into::into),
        ..ServerOptions::default()
    })
    .unwrap_or_else(|error| panic!("{error}"));
    let mut sql = Sql::connect(&server.conninfo());
    sql.run(&format!("CREATE ROLE locked LOGIN PASSWORD '{PASSWORD}'"));
    say_loudly(&format!("tests run on PostgreSQL {}", sql.value("SHOW server_version")));
    server
}

/// Where the programs of that server are, `psql` among them.
pub(crate) fn server_programs() -> std::path::PathBuf {
    let given = std::env::var_os("PGWAKE_TEST_BINDIR").map(Into::into);
    given.unwrap_or_else(|| server::find_programs().unwrap_or_else(|error| panic!("{error}")))
}

/// Makes a server a hot standby, of nobody: it replays what there is, and can be promoted.
pub(crate) fn make_standby(server: &mut PrivateServer) {
    let signal = server.directory().join("data/standby.signal");
    std::fs::write(&signal, "").unwrap();
    // The server itself removes it when it is promoted.
    let owner = std::fs::metadata(server.directory()).unwrap();
    std::os::unix::fs::chown(&signal, Some(owner.uid()), Some(owner.gid())).unwrap();
    server.restart("fast").unwrap();
}

/// The three ways to the server.
pub(crate) fn transports(server: &PrivateServer) -> [(&'static str, String); 3] {
    let tcp = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", server.port());
    [
        ("unix", server.conninfo()),
        ("tcp", format!("{tcp} sslmode=disable")),
        ("tls", format!("{tcp} sslmode=require")),
    ]
}

/// Whether `repeat_with_old_libpq` started this.
pub(crate) fn is_libpq_old() -> bool {
    std::env::var_os(OLD_LIBPQ).is_some()
}

const OLD_LIBPQ: &str = "PGWAKE_TEST_OLD_LIBPQ";

/// Runs tests of this binary again, for which libpq says that it is an old one: then pgwake looks after what
/// it may leave in TLS.
pub(crate) fn repeat_with_old_libpq(tests: &[&str]) {
    if cfg!(feature = "bundled") {
        return say_loudly(
            "SKIPPED: the libpq that is built in cannot say that it is old; `make test` runs both",
        );
    }
    if is_libpq_old() {
        return;
    }
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (source, old) = (directory.path().join("old.c"), directory.path().join("old.so"));
    std::fs::write(&source, "int PQlibVersion(void); int PQlibVersion(void) { return 150004; }").unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&old, &source]).status().unwrap();
    assert!(built.success());
    let mut again = Command::new(std::env::current_exe().unwrap());
    let output = again.args(tests).env("LD_PRELOAD", &old).env(OLD_LIBPQ, "1").output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && tests.iter().all(|test| out.contains(test)), "{out}");
}

/// A channel that no other test uses.
pub(crate) fn fresh_channel() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!("channel_{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// SQL over a connection that blocks.
pub(crate) struct Sql(pub(crate) Connection);

impl Sql {
    pub(crate) fn connect(conninfo: &str) -> Self {
        let conninfo = Conninfo::parse(conninfo).unwrap();
        Sql(Connection::connect(&conninfo).unwrap_or_else(|error| panic!("{conninfo}: {error}")))
    }

    /// Runs commands; the first value of the last row, if there is one.
    pub(crate) fn try_run(&mut self, sql: &str) -> Result<Option<String>, pgwake::Error> {
        self.0.send_query(sql)?;
        let mut outcome = Ok(None);
        while let Some(result) = self.0.result() {
            if result.status() == ResultStatus::Failed {
                outcome = Err(result.error());
            } else if let Some(value) = result.value(0, 0) {
                outcome = outcome.map(|_| Some(String::from_utf8_lossy(value).into_owned()));
            }
        }
        outcome
    }

    pub(crate) fn run(&mut self, sql: &str) {
        self.try_run(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub(crate) fn value(&mut self, sql: &str) -> String {
        self.try_run(sql).unwrap_or_else(|error| panic!("{sql}: {error}")).unwrap_or_default()
    }

    pub(crate) fn notify(&mut self, channel: &str, payload: &str) {
        let quote = |text: &str| text.replace('\'', "''");
        self.run(&format!("SELECT pg_notify('{}', '{}')", quote(channel), quote(payload)));
    }

    /// Ends all other sessions of the database.
    pub(crate) fn end_others(&mut self) {
        self.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.backend_pid()
    }
}

/// An event that owns its data, for comparing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Listening(Vec<String>),
    Notification { channel: String, payload: String, own: bool },
    Gap { channels: Vec<String>, sqlstate: String },
    Disconnected(String),
    Failed(String),
    CommandFailed { command: String, channel: String, sqlstate: String },
    Sent(u64),
    Other(String),
}

impl Seen {
    pub(crate) fn notification(channel: &str, payload: &str) -> Self {
        Seen::Notification { channel: channel.into(), payload: payload.into(), own: false }
    }

    pub(crate) fn listening(channels: &[&str]) -> Self {
        Seen::Listening(channels.iter().map(|c| c.to_string()).collect())
    }

    pub(crate) fn of(event: Event<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let names = |channels: &[pgwake::Channel]| channels.iter().map(|c| c.to_string()).collect();
        let code = |sqlstate: Option<pgwake::SqlState>| sqlstate.map_or(String::new(), |s| s.to_string());
        match event {
            Event::Listening(l) => Seen::Listening(names(l.channels)),
            Event::Notification(n) => {
                Seen::Notification { channel: text(&n.channel), payload: text(&n.payload), own: n.own }
            }
            Event::Gap(g) => Seen::Gap { channels: names(g.channels), sqlstate: code(g.sqlstate) },
            Event::Disconnected(d) => Seen::Disconnected(code(d.sqlstate)),
            Event::Failed(f) => Seen::Failed(code(f.sqlstate)),
            Event::CommandFailed(c) => Seen::CommandFailed {
                command: c.command.into(),
                channel: c.channel.map(ToString::to_string).unwrap_or_default(),
                sqlstate: code(c.sqlstate),
            },
            Event::Sent(s) => Seen::Sent(s.count),
            other => Seen::Other(format!("{other:?}")),
        }
    }
}

/// The next event, which must come.
pub(crate) fn next(events: &mut EventLoop) -> Seen {
    Seen::of(events.next(Some(PATIENCE)).unwrap().expect("an event was expected, and none came"))
}

/// The code and the sentence of the refusal of a command that must come.
pub(crate) fn refusal(events: &mut EventLoop, command: &str) -> (String, String) {
    match events.next(Some(PATIENCE)).unwrap().expect("a refusal was expected, and nothing came") {
        Event::CommandFailed(failed) => {
            assert_eq!(failed.command, command);
            (failed.sqlstate.unwrap().to_string(), failed.message.into())
        }
        other => panic!("{other:?}"),
    }
}

/// Works on until nothing is left to do, and nothing must come.
pub(crate) fn assert_silent(events: &mut EventLoop, time: Duration) {
    if let Some(event) = events.next(Some(time)).unwrap() {
        panic!("nothing should come, but this did: {event:?}");
    }
}

/// Waits as a host does that watches the descriptor.
pub(crate) fn wait_readable(events: &EventLoop) {
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let found = poll(&mut [PollFd::new(events, PollFlags::IN)], Some(&patience)).unwrap();
    assert_eq!(found, 1, "the descriptor told of nothing");
}

/// A loop with one session that listens on `channels` already. It has no heartbeat, which could cover up a
/// wake-up that was lost.
pub(crate) fn listening(conninfo: &str, channels: &[&str]) -> (EventLoop, pgwake::SessionId) {
    let mut events = EventLoop::new().unwrap();
    let options = pgwake::SessionOptions::new().heartbeat(Duration::ZERO);
    let session = events.connect_with(conninfo, options).unwrap();
    for channel in channels {
        events.listen(session, channel).unwrap();
    }
    assert!(matches!(next(&mut events), Seen::Listening(_)));
    (events, session)
}

/// How much of a processor this thread has had.
pub(crate) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Sends a signal to a process of ours, or to one of our server's.
pub(crate) fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a PID");
    rustix::process::kill_process(pid, signal).unwrap();
}
