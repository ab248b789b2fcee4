//! A private PostgreSQL in a directory of its own, gone with the process that started it: for the demo, and
//! for the tests, which share this file.
//!
//! A shell stands between us and the server. It holds the read end of a pipe of ours: when that closes, for
//! whatever reason our process ended, it stops the server and removes the directory.

use std::fs;
use std::io::{self, Error, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long initdb and the start may take together.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Where distributions put the server's programs, when they are not in PATH.
const USUAL_DIRECTORIES: [&str; 4] =
    ["/usr/lib/postgresql", "/usr/pgsql", "/usr/local/pgsql", "/opt/homebrew/opt/postgresql"];

/// `$1`: the programs, `$2`: the directory. The server reads nothing from our pipe, and never sees its end.
/// Each line in it says how to restart.
const SUPERVISOR: &str = r#"
bin=$1 dir=$2
"$bin/initdb" -D "$dir/data" -U postgres -A trust --no-sync -E UTF8 --locale=C >"$dir/log" 2>&1 </dev/null &&
cat "$dir/settings" >>"$dir/data/postgresql.conf" &&
if [ -f "$dir/hba" ]; then cp "$dir/hba" "$dir/data/pg_hba.conf"; fi && {
  while :; do
    "$bin/postgres" -D "$dir/data" >>"$dir/log" 2>&1 </dev/null &
    server=$!
    order=''
    read -r order
    if [ "$order" = immediate ]; then signal=QUIT; else signal=INT; fi
    # A server that has only just been started does not listen to signals yet.
    while kill -$signal $server 2>/dev/null; do sleep 0.1; done &
    wait $server
    [ -n "$order" ] || break
  done
}
rm -rf "$dir"
"#;

/// How the server is set up.
#[derive(Debug, Default)]
pub(crate) struct ServerOptions {
    /// Lines for postgresql.conf.
    pub(crate) settings: Vec<String>,
    /// Lines that replace pg_hba.conf; none: everybody on this machine is trusted.
    pub(crate) hba: Vec<String>,
    /// Files that settings refer to by name, readable by the server only.
    pub(crate) files: Vec<(String, String)>,
    /// Also listens on 127.0.0.1.
    pub(crate) tcp: bool,
    /// For its environment.
    pub(crate) environment: Vec<(String, String)>,
    /// Where its programs are; none: they are looked for.
    pub(crate) programs: Option<PathBuf>,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct PrivateServer {
    directory: PathBuf,
    port: u16,
    /// The server's PID, as its own file has it.
    pid: String,
    supervisor: Child,
}

impl PrivateServer {
    /// Makes a cluster and starts it. Takes about two seconds.
    pub(crate) fn start(options: &ServerOptions) -> io::Result<Self> {
        let programs = options.programs.clone().map_or_else(find_programs, Ok)?;
        let owner = server_user()?;
        let directory = new_directory(owner)?;
        let port = if options.tcp { free_port()? } else { 5432 };
        let write = |name: &str, text: &str| -> io::Result<()> {
            let path = directory.join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
            owner.map_or(Ok(()), |(uid, gid)| chown(&path, Some(uid), Some(gid)))
        };
        let place = within_settings(&directory.display().to_string());
        let mut settings = format!(
            "unix_socket_directories = '{place}'\nport = {port}\nlisten_addresses = '{}'\n\
             fsync = off\nfull_page_writes = off\n",
            if options.tcp { "127.0.0.1" } else { "" }
        );
        for (name, text) in &options.files {
            write(name, text)?;
        }
        for line in &options.settings {
            settings.push_str(&line.replace("$DIRECTORY", &place));
            settings.push('\n');
        }
        write("settings", &settings)?;
        if !options.hba.is_empty() {
            write("hba", &(options.hba.join("\n") + "\n"))?;
        }
        let mut command = Command::new("sh");
        command.args(["-c", SUPERVISOR, "sh"]).arg(&programs).arg(&directory);
        // Outside of our process group, so that Ctrl-C reaches us first and the server is stopped in good
        // order.
        command.process_group(0).current_dir(&directory).envs(options.environment.iter().cloned());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some((uid, gid)) = owner {
            command.uid(uid).gid(gid);
        }
        let mut server = PrivateServer { directory, port, pid: String::new(), supervisor: command.spawn()? };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Waits for the file in which a server says who it is and that it is ready; for another one than before.
    fn wait_until_ready(&mut self) -> io::Result<()> {
        let started = Instant::now();
        let mut last_log = String::new();
        loop {
            let status = fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap_or_default();
            let line = |n| status.lines().nth(n).unwrap_or_default().trim();
            if line(7) == "ready" && line(0) != self.pid {
                self.pid = line(0).to_string();
                return Ok(());
            }
            last_log = fs::read_to_string(self.directory.join("log")).unwrap_or(last_log);
            if self.supervisor.try_wait()?.is_some() || started.elapsed() > START_TIMEOUT {
                let reason = last_log.lines().last().unwrap_or("no reason is known");
                return Err(Error::other(format!("the private server did not start: {reason}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops it as `pg_ctl stop -m MODE` does (`fast` or `immediate`), and starts it again.
    #[allow(dead_code, reason = "for the tests")]
    pub(crate) fn restart(&mut self, mode: &str) -> io::Result<()> {
        let pipe = self.supervisor.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(pipe, "{mode}")?;
        self.wait_until_ready()
    }

    /// A conninfo for its socket, as superuser. An address of the environment's does not lead away from it.
    pub(crate) fn conninfo(&self) -> String {
        let host = self.directory.display().to_string().replace('\\', "\\\\").replace('\'', "\\'");
        let (host, address) = match has_environment_address() {
            true => (on_socket_alone(&host), " hostaddr=','"),
            false => (host, ""),
        };
        format!("host='{host}'{address} port={} user=postgres dbname=postgres", self.port)
    }

    /// Where its files and its socket are.
    #[allow(dead_code, reason = "for the tests")]
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its port, on the socket and on 127.0.0.1.
    #[allow(dead_code, reason = "for the tests")]
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

/// The directory with `initdb` and `postgres`: from PATH, from `pg_config`, or where distributions put it.
pub(crate) fn find_programs() -> io::Result<PathBuf> {
    let is_complete =
        |directory: &PathBuf| ["initdb", "postgres"].iter().all(|name| directory.join(name).is_file());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let from_path = std::env::split_paths(&path).find(is_complete);
    // In PATH there may be no more than a link; the server looks for its files beside its own program.
    if let Some(initdb) = from_path.and_then(|directory| directory.join("initdb").canonicalize().ok())
        && let Some(directory) = initdb.parent()
    {
        return Ok(directory.to_path_buf());
    }
    let asked = Command::new("pg_config").arg("--bindir").output();
    let from_config = asked.ok().map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let usual = USUAL_DIRECTORIES.iter().flat_map(|directory| {
        let versions =
            fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
        let mut found: Vec<_> = versions.chain([PathBuf::from(directory).join("bin")]).collect();
        found.sort();
        found.into_iter().rev()
    });
    from_config.into_iter().chain(usual).find(is_complete).ok_or_else(|| {
        Error::other(
            "no PostgreSQL server was found: install one (apt-get install postgresql), or put initdb in PATH",
        )
    })
}

/// A server does not run as root: then it runs as `postgres` or `nobody`, given here by their numbers.
fn server_user() -> io::Result<Option<(u32, u32)>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let effective_uid =
        status.lines().find_map(|l| l.strip_prefix("Uid:")).and_then(|l| l.split_whitespace().nth(1));
    if effective_uid != Some("0") {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let ids = |name: &str| {
        let mut fields =
            users.lines().map(|l| l.split(':')).find(|fields| fields.clone().next() == Some(name))?;
        Some((fields.nth(2)?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let found = ids("postgres").or_else(|| ids("nobody"));
    found
        .map(Some)
        .ok_or_else(|| Error::other("a server cannot run as root, and there is no user postgres or nobody"))
}

/// The host of a conninfo that leads to the socket there, whatever address the environment or a service has.
/// Beside it stands a `hostaddr` of `,`: libpq takes an empty one for none, but not a list of empty ones.
pub(crate) fn on_socket_alone(directory: &str) -> String {
    format!("{directory},{directory}")
}

/// Whether the environment may have an address, which libpq prefers to a host.
pub(crate) fn has_environment_address() -> bool {
    ["PGHOSTADDR", "PGSERVICE"].iter().any(|variable| std::env::var_os(variable).is_some())
}

/// A path as it stands between the quotes of a setting.
fn within_settings(path: &str) -> String {
    path.replace('\\', "\\\\").replace('\'', "''")
}

/// A new directory that only its owner can enter. Its path is short: a socket's may have 107 bytes.
fn new_directory(owner: Option<(u32, u32)>) -> io::Result<PathBuf> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let mut random = [0u8; 4];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let name = format!(
        "pgwake-{}-{}-{:08x}",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed),
        u32::from_ne_bytes(random)
    );
    let parent = std::path::absolute(std::env::temp_dir())?;
    // With a comma libpq would read two hosts, and neither a setting nor a conninfo holds what is no text.
    if parent.to_str().is_none_or(|path| path.contains(|c: char| c == ',' || c == '"' || c.is_control())) {
        let place = parent.display();
        return Err(Error::other(format!("no server can be in {place}: set TMPDIR to a simpler path")));
    }
    let directory = parent.join(name);
    fs::DirBuilder::new().mode(0o700).create(&directory)?;
    if let Some((uid, gid)) = owner {
        chown(&directory, Some(uid), Some(gid))?;
    }
    Ok(directory)
}

/// A port that is free now. Another program may take it first; the server then says so, and does not start.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
