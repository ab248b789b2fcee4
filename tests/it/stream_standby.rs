//! Streams from a standby, which sends its log from PostgreSQL 16 on, and becomes the primary.

use crate::common::log::{SETTINGS, Stream, has};
use crate::common::{PATIENCE, PrivateServer, Sql, say_loudly, server_programs, signal, start_with_settings};
use pgwake::StreamOptions;
use pgwake::pq::{Connection, Conninfo};
use rustix::process::Signal;
use serde_json::Value;
use std::fs::{OpenOptions, create_dir, metadata, read_dir, remove_dir_all, remove_file, write};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A standby of a server, in a directory of that server's. It goes with this, before the server does.
struct Standby {
    process: Child,
    directory: PathBuf,
    conninfo: String,
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

impl Standby {
    fn of(primary: &PrivateServer, sql: &mut Sql) -> Self {
        let (from, to) = (primary.directory().join("data"), primary.directory().join("standby"));
        append(&from.join("pg_hba.conf"), "\nhost replication all 127.0.0.1/32 trust\n");
        sql.run("SELECT pg_reload_conf()");
        sql.run("SELECT pg_backup_start('standby', true)");
        // Files may go while it is copied, which is no fault.
        Command::new("cp").arg("-a").args([&from, &to]).stderr(Stdio::null()).status().unwrap();
        let label = sql.value("SELECT labelfile FROM pg_backup_stop()");
        let _ = remove_file(to.join("postmaster.pid"));
        for slot in read_dir(to.join("pg_replslot")).unwrap().flatten() {
            remove_dir_all(slot.path()).unwrap();
        }
        let owner = metadata(primary.directory()).unwrap();
        for (name, text) in [("backup_label", &*label), ("standby.signal", "")] {
            write(to.join(name), text).unwrap();
            chown(to.join(name), Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let socket = primary.directory().join("socket");
        create_dir(&socket).unwrap();
        chown(&socket, Some(owner.uid()), Some(owner.gid())).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        append(
            &to.join("postgresql.conf"),
            &format!(
                "\nport = {port}\nunix_socket_directories = '{0}'\nhot_standby_feedback = on\n\
                 primary_conninfo = 'host=127.0.0.1 port={1} user=postgres'\n",
                socket.display(),
                primary.port()
            ),
        );
        let conninfo = format!("host={} port={port} user=postgres dbname=postgres", socket.display());
        Standby { process: run(&to, &conninfo), directory: to, conninfo }
    }

    /// Everything that it had not written to its disk is gone, as after a loss of power.
    fn crash_and_restart(&mut self, settings: &str) {
        signal(self.process.id() as i32, Signal::QUIT);
        self.process.wait().unwrap();
        self.set(settings);
        self.process = run(&self.directory, &self.conninfo);
    }

    fn set(&self, settings: &str) {
        append(&self.directory.join("postgresql.conf"), settings);
    }
}

/// Starts a server, and waits until it can be asked.
fn run(directory: &Path, conninfo: &str) -> Child {
    let mut command = Command::new(server_programs().join("postgres"));
    command.arg("-D").arg(directory).current_dir(directory).stdout(Stdio::null()).stderr(Stdio::null());
    if metadata("/proc/self").unwrap().uid() == 0 {
        let owner = metadata(directory).unwrap();
        command.uid(owner.uid()).gid(owner.gid());
    }
    let (process, started) = (command.spawn().unwrap(), Instant::now());
    let conninfo = Conninfo::parse(conninfo).unwrap();
    while Connection::connect(&conninfo).is_err() {
        assert!(started.elapsed() < PATIENCE, "the standby does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    process
}

/// Opens a stream from a standby. A slot is made as soon as the primary tells which transactions run, which
/// it does from time to time.
fn open(primary: &PrivateServer, standby: &Standby, options: StreamOptions) -> Stream {
    std::thread::scope(|scope| {
        let (waits, waiting) = channel::<()>();
        let mut primary = Sql::connect(&primary.conninfo());
        scope.spawn(move || {
            while waiting.recv_timeout(Duration::from_millis(100)) != Err(RecvTimeoutError::Disconnected) {
                primary.run("SELECT pg_log_standby_snapshot()");
            }
        });
        let stream = Stream::open(&standby.conninfo, options);
        drop(waits);
        stream
    })
}

impl Drop for Standby {
    fn drop(&mut self) {
        let _ = self.process.kill().and_then(|()| self.process.wait());
    }
}

/// A server with a table that is published, and its standby, where the version has what is tested.
fn primary_and_standby() -> Option<(PrivateServer, Sql, Standby)> {
    let primary = start_with_settings(&SETTINGS);
    let mut sql = Sql::connect(&primary.conninfo());
    if sql.value("SHOW server_version_num").parse::<u32>().unwrap() < 160_000 {
        say_loudly("SKIPPED: a standby sends its log from PostgreSQL 16 on");
        return None;
    }
    sql.run("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t");
    let standby = Standby::of(&primary, &mut sql);
    Some((primary, sql, standby))
}

#[test]
fn a_standby_sends_what_the_primary_wrote() {
    let Some((primary, mut sql, standby)) = primary_and_standby() else { return };
    let options = StreamOptions::new().publication("p").slot("s").create_slot(true);
    let mut stream = open(&primary, &standby, options.clone());
    sql.run("INSERT INTO t VALUES (1)");
    assert_eq!(stream.change()["new"]["id"], 1);
    drop(stream);
    if has(17, "slots that standbys keep") {
        let failed = Stream::start(&standby.conninfo, options.clone().failover(true)).next();
        assert_eq!(failed["sqlstate"], "0A000", "{failed}");
        assert!(failed["message"].as_str().unwrap().contains("without failover"), "{failed}");
    }
    sql.run("INSERT INTO t VALUES (2)");
    let mut stream = Stream::open(&standby.conninfo, options);
    let mut change = stream.change();
    if change["new"]["id"] == 1 {
        // It was not acknowledged.
        change = stream.change();
    }
    assert_eq!(change["new"]["id"], 2);
    // It becomes the primary while it is read: the same process goes on.
    let mut promoted = Sql::connect(&standby.conninfo);
    let promotes = std::thread::spawn(move || {
        promoted.value("SELECT pg_promote()");
        promoted.run("INSERT INTO t VALUES (3)");
        promoted
    });
    assert_eq!(stream.change()["new"]["id"], 3);
    // What was read lies on another timeline than that on which the connection began.
    let mut promoted = promotes.join().unwrap();
    promoted.run("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 's'");
    promoted.run("INSERT INTO t VALUES (4)");
    let all = stream.until(|event| event["new"]["id"] == 4);
    assert!(all.iter().all(|event| event["event"] != "failed"), "{all:?}");
}

#[test]
fn a_standby_that_has_to_come_back_to_where_it_was_read_is_waited_for() {
    let Some((primary, mut sql, mut standby)) = primary_and_standby() else { return };
    let options = StreamOptions::new().publication("p").slot("s").create_slot(true);
    let mut stream = open(&primary, &standby, options);
    sql.run("INSERT INTO t VALUES (1)");
    assert_eq!(stream.change()["new"]["id"], 1);
    // It replays what it has, but for the last commits.
    standby.crash_and_restart("\nrecovery_min_apply_delay = '1h'\n");
    let lags =
        |event: &Value| event["message"].as_str().is_some_and(|text| text.contains("has yet to replay"));
    let told = stream.until(|event| event["event"] == "failed" || lags(event));
    assert_eq!(told.last().unwrap()["event"], "disconnected", "{told:?}");
    standby.set("\nrecovery_min_apply_delay = 0\n");
    Sql::connect(&standby.conninfo).run("SELECT pg_reload_conf()");
    sql.run("INSERT INTO t VALUES (2)");
    stream.until(|event| {
        assert_ne!(event["event"], "failed", "{event}");
        event["event"] == "change" && event["new"]["id"] == 2
    });
}
