//! PgBouncer in front of a server, as people put it there. It goes with the test.

use super::{PATIENCE, say_loudly};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct PgBouncer {
    process: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl PgBouncer {
    /// Before the server at this port, with such lines among its settings. `None`, and a loud word, where it
    /// is not installed.
    pub(crate) fn start(server_port: u16, settings: &str) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let usual = ["/usr/sbin".into(), "/usr/local/sbin".into()];
        let mut programs = std::env::split_paths(&path).chain(usual).map(|folder| folder.join("pgbouncer"));
        let Some(program) = programs.find(|program| program.is_file()) else {
            say_loudly("SKIPPED: PgBouncer itself: it is not installed");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = directory.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={server_port} user=postgres\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n{settings}\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(program);
        command.arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        if rustix::process::geteuid().is_root() {
            // Like a server, it does not run as root, and must be able to read its settings: 65534 is nobody.
            std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
            command.uid(65534).gid(65534);
        }
        let process = command.spawn().unwrap();
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < PATIENCE, "PgBouncer does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(PgBouncer { process, port, _directory: directory })
    }

    pub(crate) fn conninfo(&self, dbname: &str) -> String {
        let port = self.port;
        format!("host=127.0.0.1 port={port} user=postgres dbname={dbname} sslmode=disable gssencmode=disable")
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill().and_then(|()| self.process.wait());
    }
}
