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

/// How long the supervisor takes to see that the server has ended, and to remove the directory.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// What the kernel takes as the path of a socket.
const SOCKET_BYTES_MAX: usize = 107;

/// Where distributions put the server's programs, when they are not in PATH.
const USUAL_DIRECTORIES: [&str; 4] =
    ["/usr/lib/postgresql", "/usr/pgsql", "/usr/local/pgsql", "/opt/homebrew/opt/postgresql"];

/// `$1`: the programs, `$2`: the directory. Each line in our pipe, which the server does not have, says how
/// to restart. When the server ends without that, its last words go to us before the directory is removed;
/// those of initdb in any case, for the disk may be full. A pipe holds 64 KB, so neither waits for us.
const SUPERVISOR: &str = r#"
bin=$1 dir=$2
exec 3<&0 </dev/null
"$bin/initdb" -D "$dir/data" -U postgres -A trust --no-sync -E UTF8 --locale=C 2>&1 3<&- &&
cat "$dir/settings" 2>&1 >>"$dir/data/postgresql.conf" &&
if [ -f "$dir/hba" ]; then cp "$dir/hba" "$dir/data/pg_hba.conf" 2>&1; fi && {
  while :; do
    "$bin/postgres" -D "$dir/data" >"$dir/log" 2>&1 3<&- &
    server=$!
    (
      read -r order <&3
      trap '' TERM
      if [ "$order" = immediate ]; then signal=QUIT; else signal=INT; fi
      # A server that has only just been started does not listen to signals yet.
      while kill -$signal $server 2>/dev/null; do sleep 0.1; done
      [ -n "$order" ]
    ) &
    orders=$!
    wait $server
    status=$?
    # Whoever still waits for an order shows that nobody gave one.
    kill $orders 2>/dev/null
    wait $orders
    asked=$?
    [ $asked = 0 ] || break
  done
}
if [ -f "$dir/log" ] && [ "$asked" != 1 ]; then
  tail -c 60000 "$dir/log"
  [ $status -le 128 ] || echo "it was killed by signal $((status - 128))"
fi
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
    /// Why it ended.
    end: Option<String>,
}

impl PrivateServer {
    /// Makes a cluster and starts it. Takes about two seconds.
    pub(crate) fn start(options: &ServerOptions) -> io::Result<Self> {
        let programs = options.programs.clone().map_or_else(find_programs, Ok)?;
        let owner = server_user()?;
        let directory = new_directory(owner)?;
        Self::start_in(&directory, &programs, owner, options).map_err(|error| {
            // The supervisor does it otherwise, if there is one.
            let _ = fs::remove_dir_all(&directory);
            let reason = error.to_string();
            Error::other(format!("the private server did not start: {reason}{}", remedy(&reason, &directory)))
        })
    }

    fn start_in(
        directory: &Path,
        programs: &Path,
        owner: Option<(u32, u32)>,
        options: &ServerOptions,
    ) -> io::Result<Self> {
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
        command.args(["-c", SUPERVISOR, "sh"]).arg(programs).arg(directory);
        // Outside of our process group, so that Ctrl-C reaches us first and the server is stopped in good
        // order. What initdb says is read here, so it is said in English.
        command.process_group(0).current_dir(directory).env("LC_ALL", "C");
        command.envs(options.environment.iter().cloned());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        if let Some((uid, gid)) = owner {
            command.uid(uid).gid(gid);
        }
        let (directory, pid, supervisor) = (directory.to_path_buf(), String::new(), command.spawn()?);
        let mut server = PrivateServer { directory, port, pid, supervisor, end: None };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Waits for the file in which a server says who it is and that it is ready; for another one than before.
    fn wait_until_ready(&mut self) -> io::Result<()> {
        let started = Instant::now();
        loop {
            let status = fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap_or_default();
            let line = |n| status.lines().nth(n).unwrap_or_default().trim();
            if line(7) == "ready" && line(0) != self.pid {
                self.pid = line(0).to_string();
                return Ok(());
            }
            if let Some(reason) = self.end()? {
                return Err(Error::other(reason));
            }
            if started.elapsed() > START_TIMEOUT {
                let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                let (reason, most) = (first_reason(&log), START_TIMEOUT.as_secs());
                return Err(Error::other(format!("{reason} (it was not ready within {most} s)")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Why it ended, if it did so although nobody asked it to.
    pub(crate) fn end(&mut self) -> io::Result<Option<String>> {
        if self.end.is_none() && self.supervisor.try_wait()?.is_some() {
            let mut words = Vec::new();
            self.supervisor.stdout.as_mut().map_or(Ok(0), |stdout| stdout.read_to_end(&mut words))?;
            let words = String::from_utf8_lossy(&words);
            // One that was ready may have logged many a fault of its clients.
            self.end = Some(if self.pid.is_empty() { first_reason(&words) } else { last_line(&words) });
        }
        Ok(self.end.clone())
    }

    /// Why work on it failed, for its user: that it has ended, if it has, and what can be done.
    #[allow(dead_code, reason = "for the command")]
    pub(crate) fn explain(&mut self, sentence: &str) -> String {
        let until = Instant::now() + FAREWELL_MAX;
        loop {
            match self.end() {
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                Ok(Some(reason)) => {
                    let sentence = format!("the private server has ended: {reason}");
                    return sentence + &remedy(&reason, &self.directory);
                }
                _ => return format!("{sentence}{}", remedy(sentence, &self.directory)),
            }
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
        let host = self.directory.display().to_string();
        let (host, address) = match has_environment_address() {
            true => (on_socket_alone(&host), " hostaddr=,"),
            false => (host, ""),
        };
        // Quotes only where they are needed: people paste it between quotes of a shell's.
        let needs_quotes = host.contains(|c: char| c.is_whitespace() || c == '\'' || c == '\\');
        let host = match needs_quotes {
            true => format!("'{}'", host.replace('\\', "\\\\").replace('\'', "\\'")),
            false => host,
        };
        format!("host={host}{address} port={} user=postgres dbname=postgres", self.port)
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

/// What went wrong first, in the words of initdb or of a server. All that follows in a log comes from that.
fn first_reason(log: &str) -> String {
    // Levels stand between a prefix, with the time in it, and the sentence.
    let message = |line: &str| {
        let (_, message) = line.split_once(":  ").or_else(|| line.split_once("initdb: error: "))?;
        Some(message.to_string())
    };
    let is_fault = |line: &&str| {
        let is_severe = ["FATAL:", "PANIC:", "ERROR:", "error:"].iter().any(|level| line.contains(level));
        // Before it gives up, a server logs at no more than its level LOG what it could not do.
        is_severe || line.contains("LOG:  could not ")
    };
    let fault = log.lines().find(is_fault).map(|line| message(line).unwrap_or_else(|| line.to_string()));
    fault.unwrap_or_else(|| last_line(log))
}

fn last_line(log: &str) -> String {
    let last = log.lines().rfind(|line| !line.trim().is_empty());
    last.unwrap_or("no reason is known").to_string()
}

/// What the user can do about it, as the end of a sentence.
fn remedy(reason: &str, directory: &Path) -> String {
    let parent = directory.parent().unwrap_or(directory).display();
    let has = |part: &str| reason.contains(part);
    match () {
        _ if has("set TMPDIR") => String::new(),
        _ if has("No space left") && has("shared memory") => "; make room in /dev/shm".into(),
        _ if has("No space left") || has("quota exceeded") || has("wrote only") => {
            format!("; there is no space left in {parent}: make room, or set TMPDIR to another directory")
        }
        _ if has("could not write") || has("could not extend") => {
            format!("; see whether there is space left in {parent}")
        }
        _ if has("Permission denied") => {
            format!("; set TMPDIR to a directory that every user may enter: {parent} is not one")
        }
        _ if has("Address already in use") || has("create any TCP/IP sockets") => {
            "; another program took its port: try again".into()
        }
        _ => String::new(),
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

/// A new directory that only its owner can enter, with a short path, because a socket is in it.
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
    let (socket, place) = (directory.join(".s.PGSQL.65535"), parent.display());
    if socket.as_os_str().len() > SOCKET_BYTES_MAX {
        let bytes = SOCKET_BYTES_MAX - (socket.as_os_str().len() - parent.as_os_str().len());
        return Err(Error::other(format!(
            "{place} is too long for the path of a server's socket: set TMPDIR to one of up to {bytes} bytes"
        )));
    }
    let unusable = |error: Error| {
        let reason = format!("no directory can be made in {place}: {error}; set TMPDIR to another one");
        Error::other(reason)
    };
    fs::DirBuilder::new().mode(0o700).create(&directory).map_err(unusable)?;
    if let Some((uid, gid)) = owner {
        chown(&directory, Some(uid), Some(gid))?;
    }
    Ok(directory)
}

/// A port that is free now. Another program may take it first; the server then says so, and does not start.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
