//! Every error that can come before the first event, as `docs/errors.md` has it: each row there is brought
//! about here, and each one here has its row.
#![cfg(feature = "command")]

use crate::common::command::{Running, pgwake};
use crate::common::error_table::{hold, hold_but};
use crate::common::outbox::database;
use crate::common::relay::swallower;
use crate::common::{
    PASSWORD, PATIENCE, PrivateServer, ServerOptions, Sql, make_standby, say_loudly, server, start_server,
};
use pgwake::pq::{Connection, Conninfo};
use std::ffi::OsStr;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::process::Output;
use std::sync::OnceLock;
use std::time::Instant;

const LISTEN: [&str; 4] = ["listen", "jobs", "--for", "5s"];

fn run(conninfo: &str, arguments: &[&str]) -> Output {
    run_in(&[], conninfo, arguments)
}

fn listen(conninfo: &str) -> Output {
    run(conninfo, &LISTEN)
}

/// With variables in its environment, and none of whoever runs the tests.
fn run_in(environment: &[(&str, &str)], conninfo: &str, arguments: &[&str]) -> Output {
    let mut command = pgwake(&[&["-d", conninfo], arguments].concat());
    for variable in ["PGPASSWORD", "PGSSLMODE", "PGOPTIONS", "PGSERVICEFILE", "PGTARGETSESSIONATTRS"] {
        command.env_remove(variable);
    }
    if ["watch", "ddl"].contains(&arguments[0]) && !arguments.contains(&"--remove") {
        // Without an error they would go on for ever.
        command.args(["--for", "5s"]);
    }
    command.env("HOME", "/nonexistent").env("PGPASSFILE", "/nonexistent").envs(environment.iter().copied());
    command.output().unwrap()
}

#[test]
fn settings() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("services");
    std::fs::write(&file, "[other]\nhost=db\n").unwrap();
    let file = file.display().to_string();
    let service_file = [("PGSERVICEFILE", &*file)];
    let missing_file = [("PGSERVICEFILE", "/nonexistent/services")];
    hold(
        "Settings",
        vec![
            ("an option that libpq does not know", listen("hots=db")),
            ("a word without `=`", listen("host=db app")),
            ("a quote that is not closed", listen("host=db dbname='app")),
            ("a URI with an unknown parameter", listen("postgresql://db/app?ssl=on")),
            ("a port in a URI that is no number", listen("postgres://localhost:54x/app")),
            ("a bare `@` in the password of a URI", listen("postgres://ada:p@ss@db/app")),
            ("a port that is no number", listen("host=db port=54x")),
            ("`PGPORT` is out of range", run_in(&[("PGPORT", "99999")], "host=db", &LISTEN)),
            ("more ports than hosts", listen("host=a,b port=1,2,3")),
            ("a wrong `sslmode`", listen("sslmode=wrong")),
            ("a wrong `PGSSLMODE`", run_in(&[("PGSSLMODE", "on")], "host=db", &LISTEN)),
            ("a wrong `target_session_attrs`", listen("target_session_attrs=master")),
            ("a wrong `channel_binding`", listen("channel_binding=yes")),
            ("a wrong `connect_timeout`", listen("connect_timeout=5s")),
            ("a service that the file does not have", run_in(&service_file, "service=app", &LISTEN)),
            ("a file of services that is not there", run_in(&missing_file, "service=app", &LISTEN)),
            ("`-d` twice", pgwake(&["-d", "a", "-d", "b", "check"]).output().unwrap()),
            ("an option that the command does not have", listen_with("--chanel")),
            ("a duration without a unit", listen_with("--for=5")),
        ],
    );
}

fn listen_with(option: &str) -> Output {
    pgwake(&["listen", "jobs", option]).output().unwrap()
}

/// A server that answers a client's first message like this, and then hangs up; with nothing to say it is
/// silent for ever. Its conninfo.
fn scripted(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for client in listener.incoming() {
            let mut client = client.unwrap();
            if answer.is_empty() {
                kept.push(client);
                continue;
            }
            let mut length = [0; 4];
            let mut rest = |client: &mut std::net::TcpStream| {
                client.read_exact(&mut length)?;
                client.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize - 4])?;
                client.write_all(&answer)
            };
            // A client that has gone is its own affair.
            let _ = rest(&mut client);
        }
    });
    format!("host=127.0.0.1 port={port} user=ada dbname=app sslmode=disable gssencmode=disable")
}

/// A FATAL error, as a server and a pooler send it.
fn fatal(code: &str, message: &str) -> String {
    let fields = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
    scripted([b"E", &(fields.len() as u32 + 4).to_be_bytes()[..], fields.as_bytes()].concat())
}

/// The way to a server over TCP.
fn tcp(server: &PrivateServer) -> String {
    format!("host=127.0.0.1 port={} user=postgres dbname=postgres", server.port())
}

#[test]
fn the_way_to_the_server() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = format!("host=127.0.0.1 port={free} user=ada dbname=app");
    let long = format!("host=/{}", "x".repeat(120));
    let mut standby = start_server();
    make_standby(&mut standby);
    let standby = tcp(&standby);
    let no_tls = scripted(b"N".into()).replace("disable gss", "require gss");
    let mut situations = vec![
        ("nobody listens on the port", listen(&refused)),
        ("the host's name is unknown", listen("host=no-such-host.invalid")),
        ("the same, for `install` and `check`", run("host=no-such-host.invalid", &["install"])),
        ("the host is silent", listen(&(scripted(Vec::new()) + " connect_timeout=1"))),
        (
            "the same, for `install` and `check`, too",
            run(&(scripted(Vec::new()) + " connect_timeout=1"), &["check"]),
        ),
        ("no server has its socket in the directory", listen("host=/nonexistent")),
        ("the socket's path is too long", listen(&long)),
        ("another program answers there", listen(&scripted(b"HTTP/1.1 400 Bad Request\r\n\r\n".into()))),
        ("it hangs up at once", listen(&scripted(b"R".into()))),
        ("TLS is required, and the server has none", listen(&no_tls)),
        ("the server is a standby", listen(&standby)),
        (
            "a standby, where writes are asked for",
            listen(&format!("{standby} target_session_attrs=read-write")),
        ),
        (
            "a primary, where a standby is asked for",
            listen(&format!("{} target_session_attrs=standby", tcp(server()))),
        ),
        ("a standby that was asked for", listen(&format!("{standby} target_session_attrs=any"))),
        ("the server is starting", listen(&fatal("57P03", "the database system is starting up"))),
        ("the server is stopping", listen(&fatal("57P03", "the database system is shutting down"))),
        (
            "a pooler does not take a setting",
            listen(&(fatal("08P01", "unsupported startup parameter: options") + " options=-cgeqo=off")),
        ),
    ];
    situations.extend(certificates());
    let of_libpq_16 = "`require_auth` is not met (libpq 16)";
    let mut skipped = Vec::new();
    if Conninfo::is_known("require_auth") {
        situations.push((of_libpq_16, listen(&format!("{} require_auth=scram-sha-256", tcp(server())))));
    } else {
        say_loudly("SKIPPED: an error of require_auth: this libpq does not know it");
        skipped.push(of_libpq_16);
    }
    hold_but("The way to the server", situations, &skipped);
}

/// Certificates of the server that are not accepted.
fn certificates() -> [(&'static str, Output); 5] {
    let other = rcgen::generate_simple_self_signed(["elsewhere".into()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let authority = directory.path().join("other.crt");
    std::fs::write(&authority, other.cert.pem()).unwrap();
    let verify = |mode: &str, file: &std::path::Path| {
        let file = file.display();
        listen(&format!(
            "host=other.example hostaddr=127.0.0.1 port={} user=postgres dbname=postgres \
            sslmode={mode} sslrootcert={file}",
            server().port()
        ))
    };
    let own = server().directory().join("server.crt");
    let key = directory.path().join("other.key");
    std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let with_key = format!("{} sslcert={} sslkey={}", tcp(server()), authority.display(), key.display());
    [
        ("the authority's certificate is not there", verify("verify-ca", "/nonexistent".as_ref())),
        ("others may read the private key", listen(&(with_key + " sslmode=require"))),
        ("channel binding is required in vain", listen(&(tcp(server()) + " channel_binding=require"))),
        ("another authority signed the certificate", verify("verify-ca", &authority)),
        ("the certificate has another name", verify("verify-full", &own)),
    ]
}

/// A server that lets in or not: by its rules, by its limits.
fn gate() -> &'static PrivateServer {
    static GATE: OnceLock<PrivateServer> = OnceLock::new();
    GATE.get_or_init(|| {
        let certificate = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let settings = ["ssl = on", "ssl_cert_file = '$DIRECTORY/crt'", "ssl_key_file = '$DIRECTORY/key'"];
        let more = ["ssl_ca_file = '$DIRECTORY/crt'", "max_connections = 12", "max_wal_senders = 0"];
        let rules = [
            "local all locked scram-sha-256",
            "local all shunned reject",
            "local all peer peer",
            "local all all trust",
            "hostssl all encrypted 127.0.0.1/32 trust",
            "hostssl all certified 127.0.0.1/32 cert",
            "host all postgres 127.0.0.1/32 trust",
        ];
        let gate = PrivateServer::start(&ServerOptions {
            settings: settings.iter().chain(&more).map(|line| line.to_string()).collect(),
            hba: rules.map(String::from).into(),
            files: vec![
                ("crt".into(), certificate.cert.pem()),
                ("key".into(), certificate.signing_key.serialize_pem()),
            ],
            tcp: true,
            programs: std::env::var_os("PGWAKE_TEST_BINDIR").map(Into::into),
            ..ServerOptions::default()
        })
        .unwrap_or_else(|error| panic!("{error}"));
        let mut sql = Sql::connect(&gate.conninfo());
        sql.run(&format!("CREATE ROLE locked LOGIN PASSWORD '{PASSWORD}'"));
        for role in ["shunned", "peer", "encrypted", "certified", "plain", "busy CONNECTION LIMIT 0"] {
            sql.run(&format!("CREATE ROLE {role}"));
            sql.run(&format!("ALTER ROLE {} LOGIN", role.split(' ').next().unwrap_or_default()));
        }
        sql.run("CREATE ROLE group_of_roles");
        sql.run("CREATE DATABASE closed ALLOW_CONNECTIONS false");
        sql.run("CREATE DATABASE full_one CONNECTION LIMIT 0");
        sql.run("CREATE DATABASE private");
        sql.run("REVOKE CONNECT ON DATABASE private FROM PUBLIC");
        gate
    })
}

#[test]
fn being_let_in() {
    let of = |role: &str, database: &str| {
        gate().conninfo().replace("user=postgres dbname=postgres", &format!("user={role} dbname={database}"))
    };
    let over_tcp = |role: &str| tcp(gate()).replace("user=postgres", &format!("user={role}"));
    let as_role = |role: &str| listen(&of(role, "postgres"));
    let directory = tempfile::tempdir().unwrap();
    let passfile = directory.path().join("pgpass");
    std::fs::write(&passfile, format!("*:*:*:*:{PASSWORD}\n")).unwrap();
    std::fs::set_permissions(&passfile, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let passfile = format!("{} passfile={}", of("locked", "postgres"), passfile.display());
    let situations = vec![
        ("the server asks for a password", as_role("locked")),
        ("the password is wrong", listen(&(of("locked", "postgres") + " password=wrong"))),
        ("others may read the password file", listen(&passfile)),
        ("the role does not exist", as_role("nobody_here")),
        ("the same, for `install` and `check`", run(&of("nobody_here", "postgres"), &["check"])),
        ("the role may not log in", as_role("group_of_roles")),
        ("pg_hba.conf rejects the role", as_role("shunned")),
        ("pg_hba.conf has no line for it", listen(&(over_tcp("plain") + " sslmode=require"))),
        ("pg_hba.conf has one with TLS alone", listen(&(over_tcp("encrypted") + " sslmode=disable"))),
        ("pg_hba.conf asks for a certificate", listen(&(over_tcp("certified") + " sslmode=require"))),
        ("the role is not the user of the system", as_role("peer")),
        ("the database does not exist", listen(&of("plain", "nowhere"))),
        ("`-d nowhere` is a database", run_in(&environment(), "nowhere", &LISTEN)),
        ("the database takes no connections", listen(&of("plain", "closed"))),
        ("the role may not CONNECT", listen(&of("plain", "private"))),
        ("the role has too many connections", as_role("busy")),
        ("the database has too many connections", listen(&of("plain", "full_one"))),
        ("the server has too many connections", crowded(&of("plain", "postgres"))),
        ("a setting that the server does not know", listen(&(of("plain", "postgres") + " options=-cnone=1"))),
        ("a value that the server does not take", listen(&(of("plain", "postgres") + " options=-cgeqo=x"))),
        ("an unknown `client_encoding`", listen(&(of("plain", "postgres") + " client_encoding=utf9"))),
    ];
    hold("Being let in", situations);
}

/// The way to the gate, for a conninfo that does not name it.
fn environment() -> [(&'static str, &'static str); 3] {
    let directory = gate().directory().to_str().unwrap();
    let port = gate().port().to_string();
    [("PGHOST", directory), ("PGPORT", port.leak()), ("PGUSER", "plain")]
}

/// What a role hears when its like have taken every place that it may have.
fn crowded(conninfo: &str) -> Output {
    let conninfo_of_others = Conninfo::parse(conninfo).unwrap();
    let others: Vec<_> = std::iter::from_fn(|| Connection::connect(&conninfo_of_others).ok()).collect();
    assert!(!others.is_empty());
    listen(conninfo)
}

#[test]
fn listening_and_notifying() {
    let conninfo = server().conninfo();
    let pooler = format!(
        "host=127.0.0.1 port={} user=postgres dbname=postgres sslmode=disable \
        gssencmode=disable",
        swallower(server().port())
    );
    let tested = ["listen", "jobs", "--self-test", "--heartbeat", "1s"];
    hold(
        "Listening and notifying",
        vec![
            ("the channel's name is empty", run(&conninfo, &["listen", ""])),
            ("the channel's name is too long", run(&conninfo, &["listen", &"x".repeat(64)])),
            ("the channel's name is not in the database's encoding", {
                pgwake(&["-d", &conninfo, "listen"]).arg(OsStr::from_bytes(b"\xe9")).output().unwrap()
            }),
            ("the payload is too long", run(&conninfo, &["notify", "jobs", &"x".repeat(8000)])),
            ("the payload holds a NUL byte", piped(&conninfo, b"a\0b")),
            ("no notification arrives (`--self-test`)", run(&pooler, &tested)),
        ],
    );
}

/// What is on its stdin is to be notified.
fn piped(conninfo: &str, payload: &[u8]) -> Output {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(payload).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    pgwake(&["-d", conninfo, "notify", "jobs", "-"]).stdin(file).output().unwrap()
}

/// A database with the schema in it, owned by the superuser, and a role that may do what everybody may.
fn with_plain_role() -> (String, String, Sql) {
    let (conninfo, mut sql) = database("");
    let role = sql.value("SELECT 'plain_' || current_database()");
    sql.run(&format!("CREATE ROLE {role} LOGIN"));
    (conninfo.clone(), conninfo.replace("user=postgres", &format!("user={role}")), sql)
}

#[test]
fn the_schema() {
    let (conninfo, plain, mut sql) = with_plain_role();
    let refused_to_plain = run(&plain, &["uninstall"]);
    sql.run("CREATE TABLE t (id int PRIMARY KEY); CREATE VIEW of_ours AS SELECT pgwake.version()");
    let in_use = run(&conninfo, &["uninstall"]);
    sql.run("DROP VIEW of_ours");
    sql.run("CREATE OR REPLACE FUNCTION pgwake.version() RETURNS int LANGUAGE sql AS 'SELECT 99'");
    let newer = run(&conninfo, &["watch", "t"]);
    sql.run("COMMENT ON SCHEMA pgwake IS 'pgwake, version 4'");
    let older = run(&conninfo, &["install"]);
    sql.run("COMMENT ON SCHEMA pgwake IS 'pgwake, version 6'");
    sql.run(&pgwake::install::uninstall());
    let may_not = run(&plain, &["install"]);
    let not_there = run(&plain, &["watch", "t", "--no-install"]);
    let no_right = run(&plain, &["watch", "t"]);
    sql.run("CREATE SCHEMA pgwake");
    let foreign = run(&conninfo, &["install"]);
    let mut standby = start_server();
    make_standby(&mut standby);
    hold(
        "The schema",
        vec![
            ("the role may not install it", may_not),
            ("the role may not uninstall it", refused_to_plain),
            ("something else uses it", in_use),
            ("it is of a later version", newer),
            ("it is of an earlier version", older),
            ("the schema is somebody else's", foreign),
            ("it is not installed (`--no-install`)", not_there),
            ("it is not installed, and the role may not", no_right),
            ("`install` on a standby", run(&standby.conninfo(), &["install"])),
        ],
    );
}

#[test]
fn watching() {
    let (conninfo, plain, mut sql) = with_plain_role();
    sql.run("CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE unwatched (v int)");
    sql.run("CREATE TABLE keyed (id int PRIMARY KEY)");
    sql.run("CREATE VIEW v AS SELECT * FROM t; CREATE MATERIALIZED VIEW m AS SELECT * FROM t");
    sql.run("SELECT pgwake.watch_table('t', payload => 'row')");
    let watch = |table: &str| run(&conninfo, &["watch", table]);
    let only_reading = format!("{conninfo} options='-c default_transaction_read_only=on'");
    let with = |options: &[&str]| run(&conninfo, &[&["watch", "t"], options].concat());
    let of_log =
        |options: &[&str]| run(&conninfo, &[&["watch", "keyed", "--transport", "wal"], options].concat());
    let mut reader = Running::start(&["-d", &conninfo, "watch", "t", "--name", "reader"]);
    assert!(reader.line().contains("listening"));
    let in_use = with(&["--name", "reader"]);
    reader.child.kill().unwrap();
    let role = sql.value("SELECT 'plain_' || current_database()");
    let refused = run(&plain, &["watch", "t"]);
    sql.run(&format!("GRANT USAGE ON SCHEMA pgwake TO {role}; GRANT SELECT ON t TO {role}"));
    sql.run(&format!("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgwake TO {role}"));
    sql.run("ALTER TABLE t ENABLE ROW LEVEL SECURITY");
    let hidden = run(&plain, &["watch", "t"]);
    let situations = vec![
        ("row-level security hides rows from the role", hidden),
        ("no superuser has made the event triggers", ddl_without_superuser()),
        ("the table does not exist", watch("nowhere")),
        ("the schema of the table does not exist", watch("nowhere.t")),
        ("the table's name is malformed", watch("a b")),
        ("it is a view", watch("v")),
        ("it is a materialized view", watch("m")),
        ("it is a table of the system", watch("pg_class")),
        ("the role has no right to the table", refused),
        ("it is watched in another way", with(&["--payload", "key"])),
        ("a column does not exist", run(&conninfo, &["watch", "unwatched", "--columns", "w"])),
        ("it is not watched (`--no-install`)", run(&conninfo, &["watch", "unwatched", "--no-install"])),
        ("another reads under this name", in_use),
        ("the consumer's name is empty", with(&["--name", ""])),
        ("an unknown payload", with(&["--payload", "all"])),
        ("the transport `wal`, of a server whose log cannot be read", of_log(&[])),
        ("the transport `wal`, and only keys are wanted", of_log(&["--payload", "key"])),
        ("`unwatch` of a table that does not exist", run(&conninfo, &["unwatch", "nowhere"])),
        ("`unwatch` without a right", run(&plain, &["unwatch", "t"])),
        ("`unwatch` where transactions only read", run(&only_reading, &["unwatch", "t"])),
        ("`ddl` where transactions only read", run(&only_reading, &["ddl"])),
        ("`ddl` without a right", run(&plain, &["ddl"])),
        ("`ddl --remove` without a right", run(&plain, &["ddl", "--remove"])),
        ("`ddl --remove` of what nobody asked for", run(&conninfo, &["ddl", "--remove"])),
    ];
    hold("Watching", situations);
}

/// In a database whose owner is no superuser, and has installed the schema.
fn ddl_without_superuser() -> Output {
    let mut sql = Sql::connect(&server().conninfo());
    sql.run("CREATE ROLE owner_of_all LOGIN");
    sql.run("CREATE DATABASE owned OWNER owner_of_all");
    let owned = "user=owner_of_all dbname=owned";
    run(&server().conninfo().replace("user=postgres dbname=postgres", owned), &["ddl"])
}

#[test]
fn check_says_when_it_could_not_look() {
    let (_, plain, mut sql) = with_plain_role();
    let may_not = run(&plain, &["check"]);
    let role = sql.value("SELECT 'plain_' || current_database()");
    sql.run(&format!("ALTER ROLE {role} CONNECTION LIMIT 1"));
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'");
    let started = Instant::now();
    while sql.value(&sessions) != "0" {
        assert!(started.elapsed() < PATIENCE, "the sessions of {role} stay");
    }
    let alone = run(&plain, &["check"]);
    let pooler = format!(
        "host=127.0.0.1 port={} user=postgres dbname=postgres sslmode=disable \
        gssencmode=disable",
        swallower(server().port())
    );
    let mut standby = start_server();
    make_standby(&mut standby);
    hold(
        "check",
        vec![
            ("the schema is not installed", run(&server().conninfo(), &["check"])),
            ("the role may not look at the schema", may_not),
            ("the role may not listen beside", alone),
            ("a pooler in transaction mode", run(&pooler, &["check"])),
            ("the server is a standby", run(&standby.conninfo(), &["check"])),
        ],
    );
}
