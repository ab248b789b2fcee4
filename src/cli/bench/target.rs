//! The server that is measured: the one of the conninfo, or a throw-away one; and the ways to it.

use super::super::server::{
    PrivateServer, ServerOptions, find_programs, has_environment_address, on_socket_alone,
};
use super::super::stop::Stop;
use super::super::{Failure, not_connected, query};
use super::arguments::{self, Common, TransportName};
use super::slow_commit::{self, SlowCommit};
use pgwake::Error;
use pgwake::pq::{Connection, Conninfo};
use std::process::Command;
use std::time::{Duration, Instant};

/// One way to the server.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    pub(super) name: TransportName,
    /// Names the same server for pgwake and for the C loop, whatever the environment of libpq says.
    pub(super) conninfo: String,
}

/// A server that can be measured.
pub(super) struct Target {
    /// For what is asked of the server beside the measurement.
    control: Connection,
    pub(super) transports: Vec<Transport>,
    /// Ways that were asked for and do not lead there, with the reason.
    pub(super) unreachable: Vec<String>,
    pub(super) is_private: bool,
    private_server: Option<PrivateServer>,
}

/// Settings of a throw-away server: room for the largest step of `bench scale`, a log that can be read, and
/// nothing at work but what is measured.
const PRIVATE_SETTINGS: [&str; 7] = [
    "max_connections = 1100",
    "wal_level = logical",
    "autovacuum = off",
    "log_min_messages = fatal",
    "shared_buffers = 256MB",
    "max_wal_size = 8GB",
    "checkpoint_timeout = 1h",
];

/// Connections that are left to others: the sender's, and one to look what is going on.
const SPARE_CONNECTIONS: i64 = 2;

/// The tightest limit: how many more sessions it allows, and what it is. Only the first binds a superuser.
/// One setting of the first came with version 16.
const ROOM: &str = "SELECT free, name FROM ( \
    SELECT current_setting('max_connections')::int \
      - current_setting('superuser_reserved_connections')::int \
      - coalesce(current_setting('reserved_connections', true)::int, 0) \
      - (SELECT sum(numbackends) FROM pg_stat_database) AS free, \
      'max_connections is ' || current_setting('max_connections') AS name \
    UNION ALL SELECT rolconnlimit - (SELECT count(*) FROM pg_stat_activity \
        WHERE usename = session_user AND backend_type = 'client backend'), \
      format('the CONNECTION LIMIT of the role %s is %s', rolname, rolconnlimit) \
      FROM pg_roles WHERE rolname = session_user AND rolconnlimit >= 0 AND NOT rolsuper \
    UNION ALL SELECT datconnlimit - numbackends, \
      format('the CONNECTION LIMIT of the database %s is %s', datname, datconnlimit) \
      FROM pg_database JOIN pg_stat_database USING (datname) \
      WHERE datname = current_database() AND datconnlimit >= 0 \
        AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = session_user)) l \
  ORDER BY free LIMIT 1";

/// What a role, a database or a configuration may have set, and what would end or change the work of a
/// session of ours. Not each version knows each.
const PINNED: &str = "SELECT set_config(name, value, false) FROM (VALUES ('lock_timeout', '0'), \
    ('idle_session_timeout', '0'), ('idle_in_transaction_session_timeout', '0'), \
    ('transaction_timeout', '0'), ('default_transaction_isolation', 'read committed')) pinned (name, value) \
    JOIN pg_settings USING (name)";

/// How long sessions that are over may take to be gone from the server.
const FAREWELL_MAX: Duration = Duration::from_secs(20);

const TLS_SETTINGS: [&str; 3] =
    ["ssl = on", "ssl_cert_file = '$DIRECTORY/server.crt'", "ssl_key_file = '$DIRECTORY/server.key'"];

impl Target {
    /// Connects by the conninfo, or starts a server, and finds the ways that were asked for.
    pub(super) fn open(
        dsn: &str,
        common: &Common,
        slow_commit: Option<&SlowCommit>,
    ) -> Result<Self, Failure> {
        let mut server =
            if common.private { Some(start_private(&common.transport, slow_commit)?) } else { None };
        let dsn = server.as_ref().map_or_else(|| dsn.to_string(), PrivateServer::conninfo);
        let control = own_session(&dsn).map_err(|failure| match (failure, &mut server) {
            (failure, Some(server)) => failure.explained_by(server),
            (Failure::Running(sentence), None) => {
                Failure::Running(format!("{sentence}; --private measures a throw-away server instead"))
            }
            (other, None) => other,
        })?;
        let mut target = Target {
            control,
            transports: Vec::new(),
            unreachable: Vec::new(),
            is_private: server.is_some(),
            private_server: server,
        };
        if target.value("SELECT pg_is_in_recovery()")? == "t" {
            return Err(not_connected(
                "it is a standby, which cannot LISTEN",
                pgwake::SqlState::new("25006"),
            ));
        }
        target.find_transports(&dsn, &common.transport)?;
        Ok(target)
    }

    /// Why work on it failed.
    pub(super) fn explain(&mut self, failure: Failure) -> Failure {
        match &mut self.private_server {
            Some(server) => failure.explained_by(server),
            None => failure,
        }
    }

    /// Runs one command; the first value of its answer, nothing for NULL.
    pub(super) fn value(&mut self, sql: &str) -> Result<String, Error> {
        query::value(&mut self.control, sql)
    }

    /// Connections that the server has left for us, and the limit that keeps us from more.
    pub(super) fn room(&mut self) -> Result<(usize, String), Failure> {
        let rows = query::rows(&mut self.control, ROOM, &[])?;
        let row = rows.first().ok_or_else(|| Failure::Running("the server did not say its limits".into()))?;
        let free = row[0].parse::<i64>().map_or(0, |free| (free - SPARE_CONNECTIONS).max(0));
        Ok((free as usize, row[1].clone()))
    }

    /// Waits until sessions that are over are gone, and there is room for so many.
    pub(super) fn wait_for_room(&mut self, sessions: usize, stop: &Stop) -> Result<(), Failure> {
        let until = Instant::now() + FAREWELL_MAX;
        loop {
            let (free, limit) = self.room()?;
            if free >= sessions {
                return Ok(());
            }
            if Instant::now() >= until || stop.is_asked_for() {
                return Err(Failure::Running(format!(
                    "the server has room for {free} sessions and not for {sessions} ({limit}): close others, \
                     or ask for fewer"
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn find_transports(&mut self, dsn: &str, asked: &[TransportName]) -> Result<(), Failure> {
        let (host, (address, port)) = (self.control.host(), self.control.address());
        let own = way_of(&self.control);
        let given = Conninfo::parse(dsn)?;
        // What is added to it is UTF-8.
        given.unredacted()?;
        let at = |host: &str, address: &str, rest: &[(&str, &str)]| {
            let mut conninfo = given.clone();
            // Without an address here that of the environment would count, and an empty one is none.
            let place = [("host", host), ("hostaddr", address), ("port", port.as_str())];
            place.iter().chain(rest).for_each(|(keyword, value)| conninfo.set(keyword, value));
            conninfo.unredacted().unwrap_or_default()
        };
        let has_other_address = has_environment_address() || given.get("service").is_some();
        let on_socket = |host: &str| match has_other_address {
            true => at(&on_socket_alone(host), ",", &[]),
            false => at(host, "", &[]),
        };
        // The name of a host is what its certificate has, and may stand beside the address.
        let (network_host, network_address) = match own {
            TransportName::Unix => ("127.0.0.1", "127.0.0.1"),
            _ if is_directory(&host) => (address.as_str(), address.as_str()),
            _ => (host.as_str(), address.as_str()),
        };
        // Not every role may know where the server's sockets are; then the usual places are tried.
        let directories = self.value("SHOW unix_socket_directories");
        let directories = directories.unwrap_or_else(|_| "/var/run/postgresql, /tmp".into());
        let own_alone = [own];
        for &name in if asked.is_empty() { &own_alone[..] } else { asked } {
            let ways = match name {
                TransportName::Unix if own == name => vec![on_socket(&host)],
                TransportName::Unix => {
                    let names = directories.split(',').map(|name| name.trim().trim_matches('"'));
                    names.map(on_socket).collect()
                }
                _ if own == name => vec![at(network_host, network_address, &[])],
                TransportName::Tcp => {
                    let plain = [("sslmode", "disable"), ("gssencmode", "disable")];
                    vec![at(network_host, network_address, &plain)]
                }
                TransportName::Tls => vec![at(network_host, network_address, &[("sslmode", "require")])],
            };
            match self.first_that_leads_here(name, &ways) {
                Ok(conninfo) => self.transports.push(Transport { name, conninfo }),
                Err(reason) => self.unreachable.push(format!("{}: {reason}", arguments::name(name))),
            }
        }
        match (self.transports.is_empty(), self.unreachable.first()) {
            (true, Some(reason)) => {
                Err(Failure::Running(format!("no way that was asked for works: {reason}")))
            }
            _ => Ok(()),
        }
    }

    /// The first of these that leads to the same server in that way, or why the last does not.
    fn first_that_leads_here(&mut self, name: TransportName, ways: &[String]) -> Result<String, String> {
        const WHO: &str = "SELECT pg_postmaster_start_time()::text || current_setting('port')";
        let own = self.value(WHO).map_err(|error| error.to_string())?;
        let mut reason = String::new();
        for way in ways {
            let connected = Conninfo::parse(way).and_then(|conninfo| Connection::connect(&conninfo));
            let told = connected.and_then(|mut connection| {
                let other = query::value(&mut connection, WHO)?;
                Ok((way_of(&connection), other))
            });
            match told {
                Ok((taken, _)) if taken != name => {
                    reason = format!("the way there turned out to be {}", arguments::name(taken))
                }
                Ok((_, other)) if other == own => return Ok(way.clone()),
                Ok(_) => reason = "another server answers there".into(),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(reason)
    }
}

/// The way that a connection went, which its host alone does not tell.
fn way_of(connection: &Connection) -> TransportName {
    match () {
        _ if is_directory(&connection.address().0) => TransportName::Unix,
        _ if connection.is_encrypted() => TransportName::Tls,
        _ => TransportName::Tcp,
    }
}

/// Of a socket; `@` begins the name of an abstract one.
fn is_directory(host: &str) -> bool {
    host.starts_with(['/', '@'])
}

/// A session that no timeout of the user's ends, and whose transactions are as those of most.
pub(super) fn own_session(conninfo: &str) -> Result<Connection, Failure> {
    let mut connection = query::connect(conninfo)?;
    // By itself: all that takes longer could already be too long.
    query::script(&mut connection, "SET statement_timeout = 0")?;
    query::script(&mut connection, PINNED)?;
    Ok(connection)
}

fn start_private(
    asked: &[TransportName],
    slow_commit: Option<&SlowCommit>,
) -> Result<PrivateServer, Failure> {
    let has_tls = asked.contains(&TransportName::Tls);
    let of_tls = if has_tls { &TLS_SETTINGS[..] } else { &[] };
    let of_disk = if slow_commit.is_some() { &slow_commit::SETTINGS[..] } else { &[] };
    let settings = PRIVATE_SETTINGS.iter().chain(of_tls).chain(of_disk);
    Ok(PrivateServer::start(&ServerOptions {
        settings: settings.map(ToString::to_string).collect(),
        files: if has_tls { certificate()? } else { Vec::new() },
        environment: slow_commit.map_or_else(Vec::new, SlowCommit::environment),
        tcp: asked.iter().any(|name| *name != TransportName::Unix),
        programs: Some(find_programs()?),
        ..ServerOptions::default()
    })?)
}

/// A key and a certificate that nobody need trust, made by the program `openssl`.
fn certificate() -> Result<Vec<(String, String)>, Failure> {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=localhost", "-keyout", "-", "-out", "-"])
        .output();
    let text = made.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    // The two come one after the other, and each reader takes its own.
    match text.contains("PRIVATE KEY") && text.contains("BEGIN CERTIFICATE") {
        true => Ok(["server.crt", "server.key"].map(|name| (name.to_string(), text.clone())).into()),
        false => Err(Failure::Running(
            "a throw-away server with TLS needs the program openssl: install it, or leave tls out".into(),
        )),
    }
}
