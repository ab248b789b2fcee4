//! The server that is measured: the one of the conninfo, or a throw-away one; and the ways to it.

use super::super::server::{PrivateServer, ServerOptions, find_programs};
use super::super::{Failure, not_connected, query};
use super::Scenario;
use super::arguments::{Common, TransportName};
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
    _private_server: Option<PrivateServer>,
}

/// Settings of a throw-away server: room for the largest step of `bench scale`.
const PRIVATE_SETTINGS: [&str; 3] =
    ["max_connections = 1100", "autovacuum = off", "log_min_messages = fatal"];

/// Connections that are left to others: the sender's, and one to look what is going on.
const SPARE_CONNECTIONS: i64 = 2;

/// How long sessions that are over may take to be gone from the server.
const FAREWELL_MAX: Duration = Duration::from_secs(20);

/// What a database or a role may have set for its sessions, and would end ours or measure something else.
const PINNED: &str = "SELECT set_config(name, value, false) FROM (VALUES \
    ('statement_timeout', '0'), ('lock_timeout', '0'), ('idle_session_timeout', '0'), \
    ('transaction_timeout', '0'), ('idle_in_transaction_session_timeout', '0'), \
    ('default_transaction_isolation', 'read committed')) pinned (name, value) \
    JOIN pg_catalog.pg_settings USING (name)";

const TLS_SETTINGS: [&str; 3] =
    ["ssl = on", "ssl_cert_file = '$DIRECTORY/server.crt'", "ssl_key_file = '$DIRECTORY/server.key'"];

impl Target {
    /// Connects by the conninfo, or starts a server, and finds the ways that were asked for.
    pub(super) fn open(dsn: &str, common: &Common, scenario: &Scenario) -> Result<Self, Failure> {
        let server = if common.private { Some(start_private(&common.transport, scenario)?) } else { None };
        let dsn = server.as_ref().map_or_else(|| dsn.to_string(), PrivateServer::conninfo);
        let control = connect(&dsn).map_err(|failure| match failure {
            Failure::Running(sentence) => {
                Failure::Running(format!("{sentence}; --private measures a throw-away server instead"))
            }
            other => other,
        })?;
        let mut target = Target {
            control,
            transports: Vec::new(),
            unreachable: Vec::new(),
            is_private: server.is_some(),
            _private_server: server,
        };
        if target.value("SELECT pg_is_in_recovery()")? == "t" {
            return Err(not_connected("the server is a standby", pgwake::SqlState::new("25006")));
        }
        target.find_transports(&dsn, &common.transport)?;
        Ok(target)
    }

    /// Runs one command; the first value of its answer, nothing for NULL.
    pub(super) fn value(&mut self, sql: &str) -> Result<String, Error> {
        value(&mut self.control, sql)
    }

    /// Connections that the server has left for us.
    pub(super) fn free_connections(&mut self) -> Result<usize, Failure> {
        // The second setting came with version 16.
        const FREE: &str = "SELECT current_setting('max_connections')::int \
            - current_setting('superuser_reserved_connections')::int \
            - coalesce(current_setting('reserved_connections', true)::int, 0) \
            - (SELECT sum(numbackends) FROM pg_stat_database)";
        let free = self.value(FREE)?.parse::<i64>();
        Ok(free.map_or(0, |free| (free - SPARE_CONNECTIONS).max(0)) as usize)
    }

    /// Waits until sessions that are over are gone, and there is room for so many.
    pub(super) fn wait_for_room(&mut self, sessions: usize) -> Result<(), Failure> {
        let until = Instant::now() + FAREWELL_MAX;
        while self.free_connections()? < sessions && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn find_transports(&mut self, dsn: &str, asked: &[TransportName]) -> Result<(), Failure> {
        let (host, port) = (self.control.host(), self.control.address().1);
        let own = match () {
            _ if host.starts_with(['/', '@']) => TransportName::Unix,
            _ if self.control.is_encrypted() => TransportName::Tls,
            _ => TransportName::Tcp,
        };
        let has_address = Conninfo::parse(dsn)?.get("hostaddr").is_some_and(|address| !address.is_empty());
        // An address in the environment would lead elsewhere, whatever the host.
        let at = |host: &str, rest: &[(&str, &str)]| {
            let place = [("host", host), ("hostaddr", ""), ("port", port.as_str())];
            with_keywords(dsn, &[&place[..], rest].concat())
        };
        let network_host = if own == TransportName::Unix { "127.0.0.1" } else { host.as_str() };
        // Not every role may know where the server's sockets are; then the usual places are tried.
        let directories = self.value("SHOW unix_socket_directories");
        let directories = directories.unwrap_or_else(|_| "/var/run/postgresql, /tmp".into());
        let own_alone = [own];
        for &name in if asked.is_empty() { &own_alone[..] } else { asked } {
            let ways = match name {
                _ if name == own && has_address => vec![dsn.to_string()],
                _ if name == own => vec![at(&host, &[])],
                TransportName::Unix => directories.split(", ").map(|host| at(host, &[])).collect(),
                TransportName::Tcp => {
                    vec![at(network_host, &[("sslmode", "disable"), ("gssencmode", "disable")])]
                }
                TransportName::Tls => vec![at(network_host, &[("sslmode", "require")])],
            };
            match self.first_that_leads_here(&ways) {
                Ok(conninfo) => self.transports.push(Transport { name, conninfo }),
                Err(reason) => self.unreachable.push(format!("{name}: {reason}")),
            }
        }
        match (self.transports.is_empty(), self.unreachable.first()) {
            (true, Some(reason)) => {
                Err(Failure::Running(format!("no way that was asked for works: {reason}")))
            }
            _ => Ok(()),
        }
    }

    /// The first of these that leads to the same server, or why the last does not.
    fn first_that_leads_here(&mut self, ways: &[String]) -> Result<String, String> {
        const WHO: &str = "SELECT pg_postmaster_start_time()::text || current_setting('port')";
        let own = self.value(WHO).map_err(|error| error.to_string())?;
        let mut reason = String::new();
        for way in ways {
            let connected = Conninfo::parse(way).and_then(|conninfo| Connection::connect(&conninfo));
            match connected.and_then(|mut connection| value(&mut connection, WHO)) {
                Ok(other) if other == own => return Ok(way.clone()),
                Ok(_) => reason = "another server answers there".into(),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(reason)
    }
}

/// A session in which nothing but us decides how long it lasts.
pub(super) fn connect(conninfo: &str) -> Result<Connection, Failure> {
    let mut connection = query::connect(conninfo)?;
    query::rows(&mut connection, PINNED, &[])?;
    Ok(connection)
}

fn value(connection: &mut Connection, sql: &str) -> Result<String, Error> {
    let rows = query::rows(connection, sql, &[])?;
    Ok(rows.into_iter().flatten().next().unwrap_or_default())
}

fn start_private(asked: &[TransportName], scenario: &Scenario) -> Result<PrivateServer, Failure> {
    let has_tls = asked.contains(&TransportName::Tls);
    let settings = PRIVATE_SETTINGS.iter().chain(if has_tls { &TLS_SETTINGS[..] } else { &[] });
    let settings = settings.map(ToString::to_string).chain(scenario.settings.iter().cloned());
    Ok(PrivateServer::start(&ServerOptions {
        settings: settings.collect(),
        files: if has_tls { certificate()? } else { Vec::new() },
        environment: scenario.environment.clone(),
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

/// A conninfo in either form, in which these keywords have these values.
fn with_keywords(dsn: &str, keywords: &[(&str, &str)]) -> String {
    if dsn.starts_with("postgres://") || dsn.starts_with("postgresql://") {
        let mut conninfo = dsn.to_string();
        for (keyword, value) in keywords {
            let escaped: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            conninfo.push(if conninfo.contains('?') { '&' } else { '?' });
            conninfo.push_str(&format!("{keyword}={escaped}"));
        }
        return conninfo;
    }
    let pairs: String = keywords
        .iter()
        .map(|(keyword, value)| format!(" {keyword}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'")))
        .collect();
    // What ends in `password=` takes the next word for its value.
    let ended = format!("{dsn}''{pairs}");
    let is_right = |conninfo: &Conninfo| keywords.iter().all(|(k, v)| conninfo.get(k) == Some(*v));
    let appended = format!("{dsn}{pairs}");
    if Conninfo::parse(&appended).is_ok_and(|conninfo| is_right(&conninfo)) { appended } else { ended }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_a_conninfo_counts() {
        let keywords = [("host", "/a b'c"), ("port", "7")];
        for dsn in [
            "",
            "host=x port=1 dbname=d",
            "port=1 password=",
            "password=abc=",
            "postgresql://x:1/d",
            "postgresql://x/d?port=1",
        ] {
            let conninfo = Conninfo::parse(&with_keywords(dsn, &keywords)).unwrap();
            assert_eq!((conninfo.get("host"), conninfo.get("port")), (Some("/a b'c"), Some("7")), "{dsn}");
        }
    }
}
