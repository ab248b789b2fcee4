//! Servers that do not behave, and processes that fork: an error with a name, bounded memory, no harm to
//! others.

#[path = "it/common/mod.rs"]
mod common;

use common::{PATIENCE, Seen, Sql, fresh_channel, listening, next, server};
use pgwake::{ErrorKind, Event, EventLoop};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A message of the protocol: type, length, content.
fn message(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32 + 4).to_be_bytes();
    [&[kind], &length[..], content].concat()
}

/// What a server says until it is ready for the first command (manual, "Message Flow").
fn welcome() -> Vec<u8> {
    let parameters = ["server_version\x0015.0\0", "server_encoding\0UTF8\0", "client_encoding\0UTF8\0"];
    let mut said = message(b'R', &0u32.to_be_bytes());
    for parameter in
        parameters.into_iter().chain(["in_hot_standby\0off\0", "default_transaction_read_only\0off\0"])
    {
        said.extend(message(b'S', parameter.as_bytes()));
    }
    said.extend(message(b'K', &[0; 8]));
    said.extend(message(b'Z', b"I"));
    said
}

/// The client's first message: its length, and that much.
fn take_startup(client: &mut TcpStream) {
    let mut length = [0; 4];
    client.read_exact(&mut length).unwrap();
    client.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize - 4]).unwrap();
}

/// A server that welcomes its first client like this and then does as `script` says. Its conninfo.
fn scripted(welcome: Vec<u8>, script: impl FnOnce(&mut TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        take_startup(&mut client);
        client.write_all(&welcome).unwrap();
        script(&mut client);
    });
    format!("host=127.0.0.1 port={port} sslmode=disable gssencmode=disable user=u dbname=d")
}

fn first_loss(conninfo: &str) -> (String, String) {
    let mut events = EventLoop::new().unwrap();
    events.connect(conninfo).unwrap();
    match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Disconnected(lost)) => (lost.sqlstate.unwrap().to_string(), lost.message.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_without_end_is_cut_off_before_it_fills_the_memory() {
    let endless = |client: &mut TcpStream| {
        let mut endless = vec![b'A'];
        endless.extend(1_500_000_000u32.to_be_bytes());
        // As fast as the machine can, until the client hangs up.
        while client.write_all(&endless).is_ok() {
            endless = vec![0; 1 << 20];
        }
    };
    let authenticated = message(b'R', &0u32.to_be_bytes());
    // When all is well, and in the middle of the handshake.
    for welcome in [welcome(), authenticated] {
        let (sqlstate, message) = first_loss(&scripted(welcome, endless));
        assert_eq!(sqlstate, "08P01", "{message}");
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    let peak_kb: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("peak resident memory: {peak_kb} kB");
    assert!(peak_kb <= 128 * 1024, "{peak_kb} kB");
}

/// A connection that is being made waits within libpq for what it has to say.
#[test]
fn a_long_secret_is_sent_and_does_not_hold_up_the_loop() {
    let (tells, told) = std::sync::mpsc::channel();
    let conninfo = scripted(message(b'R', &3u32.to_be_bytes()), move |client| {
        let mut secret = vec![0; 5 + 100_000 + 1];
        client.read_exact(&mut secret).unwrap();
        tells.send(secret).unwrap();
    });
    let loss =
        std::thread::spawn(move || first_loss(&format!("{conninfo} password={}", "x".repeat(100_000))));
    assert!(told.recv_timeout(PATIENCE).unwrap().ends_with(b"xxx\0"));
    assert_eq!(loss.join().unwrap().0, "08001");
}

/// It waits for room for its answers, too.
#[test]
fn a_server_that_asks_again_and_again_does_not_hold_up_the_loop() {
    let asks = message(b'R', &[&5u32.to_be_bytes()[..], b"salt"].concat()).repeat(400);
    let (tells, told) = std::sync::mpsc::channel();
    let conninfo = scripted(asks, move |client| {
        let mut answers = vec![0; 400 * 41];
        tells.send(client.read_exact(&mut answers)).unwrap();
    });
    let loss = std::thread::spawn(move || first_loss(&format!("{conninfo} password=x")));
    told.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(loss.join().unwrap().0, "08001");
}

/// A pooler says so when it gives up waiting for a server, and a server when it ends.
#[test]
fn what_the_server_says_last_is_told_when_it_hangs_up() {
    let said = |severity: &str, code: &str| {
        let fields = format!("S{severity}\0V{severity}\0C{code}\0Mbecause of {code}\0\0");
        message(b'E', fields.as_bytes())
    };
    let parsed = message(b'1', b"");
    for (answer, code) in [
        (said("FATAL", "08P01"), "08P01"),
        (said("FATAL", "53300"), "53300"),
        ([parsed.clone(), said("FATAL", "25P03")].concat(), "25P03"),
        ([said("ERROR", "25006"), said("FATAL", "57P01")].concat(), "57P01"),
        (said("ERROR", "58000"), "58000"),
        (parsed, "08006"),
    ] {
        // It has read the whole question: or the end would be a reset, and what was said could be lost.
        let (sqlstate, message) = first_loss(&scripted(welcome(), move |client| {
            let mut asked = Vec::new();
            while !asked.ends_with(b"S\0\0\0\x04") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                asked.extend(byte);
            }
            client.write_all(&answer).unwrap();
        }));
        assert_eq!(sqlstate, code, "{message}");
        assert!(code == "08006" || message == format!("because of {code}"), "{code}: {message}");
    }
}

#[test]
fn nonsense_and_an_early_end_are_errors_with_a_code() {
    for nonsense in
        [message(b'A', &[0; 3]), b"~~~~~~~~~~~~~~~~".to_vec(), message(b'Q', b"x"), vec![b'Z', 0, 0, 0, 0]]
    {
        let shown = format!("{nonsense:?}");
        let (sqlstate, message) = first_loss(&scripted(welcome(), move |client| {
            client.write_all(&nonsense).unwrap();
            // What follows decides how it is told; the connection must not be left hanging.
            std::thread::sleep(Duration::from_millis(50));
        }));
        assert!(sqlstate.starts_with("08"), "{shown}: {sqlstate} {message}");
    }
}

#[test]
fn a_connection_cut_at_any_byte_of_the_welcome_is_told() {
    let whole = welcome();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let cuts = whole.len();
    std::thread::spawn(move || {
        for cut in 0..cuts {
            let (mut client, _) = listener.accept().unwrap();
            take_startup(&mut client);
            client.write_all(&whole[..cut]).unwrap();
        }
    });
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    for _ in 0..cuts {
        let conninfo =
            format!("host=127.0.0.1 port={port} sslmode=disable gssencmode=disable user=u dbname=d");
        let (sqlstate, message) = first_loss(&conninfo);
        assert!(sqlstate.starts_with("08"), "{sqlstate} {message}");
    }
    // Other tests of this process open and close some meanwhile; each cut losing one would be many more.
    assert!(descriptors() < before + cuts / 2, "descriptors are lost");
}

/// TLS 1.2 has to write in order to read on then, and libpq does not come back before it has; what is to be
/// sent meanwhile, TLS does not take.
#[test]
fn a_tls_that_negotiates_anew_in_the_middle_of_messages_is_followed() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = |name: &str| directory.path().join(name);
    let certificate = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    std::fs::write(path("crt"), certificate.cert.pem()).unwrap();
    std::fs::write(path("key"), certificate.signing_key.serialize_pem()).unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/c/renegotiates.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(path("relay")).args([source, "-lssl"]);
    assert!(compiler.status().unwrap().success());
    let mut relay = Command::new(path("relay"));
    relay.args([path("crt"), path("key")]).arg(server().port().to_string()).stdout(Stdio::piped());
    let mut relay = relay.spawn().unwrap();
    let mut port = String::new();
    let mut said = BufReader::new(relay.stdout.take().unwrap());
    said.read_line(&mut port).unwrap();
    let (negotiates, negotiating) = std::sync::mpsc::channel();
    std::thread::spawn(move || said.lines().map_while(Result::ok).all(|line| negotiates.send(line).is_ok()));

    // On a thread, for what is tested is that it does not stay within libpq.
    let (heard, hears) = std::sync::mpsc::channel();
    let channel = fresh_channel();
    let listens = channel.clone();
    let listener = std::thread::spawn(move || {
        let conninfo = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", port.trim());
        let (mut events, session) =
            listening(&format!("{conninfo} sslmode=require gssencmode=disable"), &[&listens]);
        heard.send(Seen::listening(&[&listens])).unwrap();
        let mut sent = 0;
        loop {
            if negotiating.try_recv().is_ok() {
                events.notify(session, "elsewhere", "").unwrap();
            }
            match events.next(Some(Duration::from_millis(1))).unwrap().map(Seen::of) {
                None => {}
                Some(Seen::Sent(count)) => sent += count,
                Some(Seen::Disconnected(_)) => return sent,
                Some(seen) => heard.send(seen).unwrap(),
            }
        }
    });
    assert_eq!(hears.recv_timeout(PATIENCE).unwrap(), Seen::listening(&[&channel]));
    let mut sql = Sql::connect(&server().conninfo());
    for i in 0..10 {
        sql.notify(&channel, &i.to_string());
        assert_eq!(hears.recv_timeout(PATIENCE).unwrap(), Seen::notification(&channel, &i.to_string()));
    }
    relay.kill().unwrap();
    relay.wait().unwrap();
    let sent = listener.join().unwrap();
    assert!(sent >= 10, "only {sent} were sent");
}

#[test]
fn a_forked_child_may_not_use_the_loop_and_does_not_harm_its_parent() {
    let channel = fresh_channel();
    let (mut events, _) = listening(&server().conninfo(), &[&channel]);
    // SAFETY: the child calls nothing but the loop and _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let is_refused = events.next(None).is_err_and(|error| error.kind == ErrorKind::Forked);
        drop(events);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(if is_refused { 7 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 7);
    Sql::connect(&server().conninfo()).notify(&channel, "still here");
    assert_eq!(next(&mut events), Seen::notification(&channel, "still here"));
}

/// A server that lets everybody in, and then never answers what is asked first.
#[test]
fn a_server_that_says_nothing_to_a_stream_is_given_up() {
    let conninfo = scripted(welcome(), |client| {
        let mut asked = Vec::new();
        client.read_to_end(&mut asked).unwrap();
    });
    let mut events = EventLoop::new().unwrap();
    let options = pgwake::StreamOptions::new().table("t").heartbeat(Duration::from_millis(300));
    events.stream(&conninfo, options).unwrap();
    match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Disconnected(lost)) => {
            assert!(lost.message.contains("did not answer"), "{lost:?}");
            assert_eq!(lost.sqlstate.unwrap().as_str(), "08006");
        }
        other => panic!("{other:?}"),
    }
}

/// It answers the first question as if it was the last.
#[test]
fn a_server_that_streams_before_it_is_asked_to_is_told() {
    let conninfo = scripted(welcome(), |client| {
        let mut asked = [0; 1024];
        assert!(client.read(&mut asked).unwrap() > 0);
        client.write_all(&message(b'W', &[0, 0, 0])).unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
    });
    let mut events = EventLoop::new().unwrap();
    events.stream(&conninfo, pgwake::StreamOptions::new().publication("p")).unwrap();
    match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Disconnected(lost)) => assert_eq!(lost.sqlstate.unwrap().as_str(), "08P01", "{lost:?}"),
        other => panic!("{other:?}"),
    }
}
