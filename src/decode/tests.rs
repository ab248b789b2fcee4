//! Whatever the server sends, it is read or refused: messages made at random, whole, damaged and cut, their
//! values as JSON, and every byte of a session changed.
//!
//! The suite takes 200,000 of them, or as many as `PGWAKE_FUZZ_EXECUTIONS` says.

#[path = "../cli/server.rs"]
#[allow(dead_code)]
mod server;

use super::pgoutput::{self, Column, Message, tests::recorded, tests::written};
use super::replication::{self, Frame};
use super::value::{self, Kind};
use crate::pq::{Connection, Conninfo, ResultStatus};
use crate::random::Random;
use server::{PrivateServer, ServerOptions};
use std::sync::OnceLock;

/// A real server, for the tests of this directory, with these settings.
pub(super) fn start_server(settings: &[&str]) -> PrivateServer {
    let settings = settings.iter().map(|setting| setting.to_string()).collect();
    let programs = std::env::var_os("PGWAKE_TEST_BINDIR").map(Into::into);
    let options = ServerOptions { settings, programs, ..ServerOptions::default() };
    PrivateServer::start(&options).unwrap_or_else(|error| panic!("{error}"))
}

/// A session of that server.
pub(super) struct Sql(Connection);

impl Sql {
    pub(super) fn connect(server: &PrivateServer) -> Self {
        let conninfo = Conninfo::parse(&server.conninfo()).unwrap();
        Sql(Connection::connect(&conninfo).unwrap())
    }

    /// The rows of all results, as text.
    pub(super) fn rows<const N: usize>(&mut self, sql: &str) -> Vec<[String; N]> {
        self.0.send_query(sql).unwrap();
        let mut rows = Vec::new();
        while let Some(result) = self.0.result() {
            assert!(result.status() != ResultStatus::Failed, "{sql}: {}", result.error());
            let value = |row, column| {
                let bytes = result.value(row, column).unwrap_or(b"null");
                String::from_utf8(bytes.into()).unwrap()
            };
            rows.extend((0..result.rows()).map(|row| std::array::from_fn(|column| value(row, column))));
        }
        rows
    }

    pub(super) fn run(&mut self, sql: &str) {
        self.rows::<0>(sql);
    }
}

/// The bytes that hexadecimal digits stand for; spaces are passed over.
pub(super) fn unhex(digits: &str) -> Vec<u8> {
    let digits: Vec<u32> = digits.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

#[test]
fn no_message_does_harm_and_each_whole_one_is_read() {
    let executions = executions();
    let mut random = Random::seeded();
    let (mut read, mut refused) = (0u64, 0u64);
    for _ in 0..executions {
        let is_in_stream = random.below(3) == 0;
        let mut bytes = message(&mut random, is_in_stream);
        let whole = pgoutput::read(&bytes, is_in_stream).unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
        assert_eq!(written(whole.0, &whole.1), bytes);
        walk(&mut random, &whole.1);
        for _ in 0..=random.below(3) {
            damage(&mut random, &mut bytes);
        }
        match pgoutput::read(&bytes, is_in_stream) {
            Ok((_, Message::Unknown(tag))) => assert_eq!(tag, bytes[0]),
            Ok((xid, message)) => {
                read += 1;
                assert_eq!(written(xid, &message).len(), bytes.len(), "{bytes:?}");
                walk(&mut random, &message);
            }
            Err(error) => {
                refused += 1;
                assert!(error.at <= bytes.len() && !error.to_string().is_empty(), "{error}: {bytes:?}");
            }
        }
        frame(&bytes);
    }
    println!("of {executions} damaged messages, {read} were read and {refused} refused");
    assert!(read > 0 && refused > 0);
}

#[test]
fn no_value_does_harm() {
    let executions = executions();
    let mut random = Random::seeded();
    let (mut read, mut refused) = (0u64, 0u64);
    for _ in 0..executions {
        let (kind, mut bytes) = known_value(&mut random);
        assert!(binary(kind, &bytes), "{kind:?} {bytes:?}");
        for _ in 0..=random.below(3) {
            damage(&mut random, &mut bytes);
        }
        *if binary(kind, &bytes) { &mut read } else { &mut refused } += 1;
        let mut text = known_text(&mut random);
        for _ in 0..random.below(4) {
            damage(&mut random, &mut text);
        }
        as_text(some_kind(&mut random), &text);
    }
    println!("of {executions} damaged values, {read} were read and {refused} refused");
    assert!(read > 0 && refused > 0);
}

#[test]
fn each_byte_of_a_session_may_be_any_other() {
    let mut random = Random::seeded();
    let (mut read, mut refused) = (0u64, 0u64);
    for (is_in_stream, message) in recorded() {
        let mut bytes =
            [&b"w\0\0\0\x01\0\0\0\x02\0\0\0\x01\0\0\0\x02\0\x02\xa3\xb4\xc5\xd6\xe7\xf8"[..], &message]
                .concat();
        for at in 0..bytes.len() {
            for difference in 1..=255 {
                bytes[at] ^= difference;
                match Frame::read(&bytes) {
                    Ok(Frame::Data { message, .. }) => match pgoutput::read(message, is_in_stream) {
                        Ok((_, message)) => {
                            read += 1;
                            walk(&mut random, &message);
                        }
                        Err(_) => refused += 1,
                    },
                    Ok(_) => read += 1,
                    Err(_) => refused += 1,
                }
                bytes[at] ^= difference;
            }
        }
    }
    println!("of {} changed messages, {read} were read and {refused} refused", read + refused);
    assert!(read > 0 && refused > 0);
}

fn executions() -> u64 {
    std::env::var("PGWAKE_FUZZ_EXECUTIONS").map_or(200_000, |count| count.parse().unwrap())
}

/// A message of any kind.
fn message(random: &mut Random, is_in_stream: bool) -> Vec<u8> {
    let tags = b"RYIUDTMOBCSEAcbPKrp";
    let tag = tags[random.below(tags.len() as u64) as usize];
    let mut out = vec![tag];
    if is_in_stream && b"RYIUDTM".contains(&tag) {
        some_bytes(random, &mut out, 4);
    }
    match tag {
        b'R' => {
            some_bytes(random, &mut out, 4);
            (0..2).for_each(|_| name(random, &mut out));
            out.push(b"dnfi"[random.below(4) as usize]);
            let count = random.below(5);
            out.extend((count as u16).to_be_bytes());
            for _ in 0..count {
                out.push(random.below(2) as u8);
                name(random, &mut out);
                some_bytes(random, &mut out, 8);
            }
        }
        b'I' | b'U' | b'D' => {
            some_bytes(random, &mut out, 4);
            if tag == b'D' || tag == b'U' && random.below(2) == 0 {
                let form = b"KO"[random.below(2) as usize];
                row(random, &mut out, form);
            }
            if tag != b'D' {
                row(random, &mut out, b'N');
            }
        }
        b'T' => {
            let count = random.below(5);
            out.extend((count as u32).to_be_bytes());
            out.push(random.below(4) as u8);
            some_bytes(random, &mut out, 4 * count);
        }
        b'M' => {
            out.push(random.below(2) as u8);
            some_bytes(random, &mut out, 8);
            name(random, &mut out);
            let length = random.below(40);
            out.extend((length as u32).to_be_bytes());
            some_bytes(random, &mut out, length);
        }
        _ => fixed_fields(random, &mut out, tag),
    }
    out
}

/// Numbers of a fixed length, and a string behind some.
fn fixed_fields(random: &mut Random, out: &mut Vec<u8>, tag: u8) {
    // How many bytes stand before the flag, which is 0 or 1, and behind it, and how many strings follow.
    let (before, flag_below, behind, strings) = match tag {
        b'Y' => (4, 0, 0, 2),
        b'O' => (8, 0, 0, 1),
        b'B' => (20, 0, 0, 0),
        b'C' => (0, 1, 24, 0),
        b'S' => (4, 2, 0, 0),
        b'A' => (8 + 16 * random.below(2), 0, 0, 0),
        b'c' => (4, 1, 24, 0),
        b'b' => (28, 0, 0, 1),
        b'r' => (0, 1, 36, 1),
        b'P' | b'K' | b'p' => (0, 1, 28, 1),
        _ => (0, 0, 0, 0),
    };
    some_bytes(random, out, before);
    if flag_below > 0 {
        out.push(random.below(flag_below) as u8);
    }
    some_bytes(random, out, behind);
    (0..strings).for_each(|_| name(random, out));
}

fn some_bytes(random: &mut Random, out: &mut Vec<u8>, count: u64) {
    out.extend((0..count).map(|_| random.below(256) as u8));
}

fn name(random: &mut Random, out: &mut Vec<u8>) {
    out.extend((0..1 + random.below(12)).map(|_| 1 + random.below(255) as u8));
    out.push(0);
}

fn row(random: &mut Random, out: &mut Vec<u8>, tag: u8) {
    out.push(tag);
    let count = random.below(6);
    out.extend((count as u16).to_be_bytes());
    for _ in 0..count {
        let form = b"nutb"[random.below(4) as usize];
        out.push(form);
        let value = match form {
            b't' => known_text(random),
            b'b' => known_value(random).1,
            _ => continue,
        };
        out.extend((value.len() as u32).to_be_bytes());
        out.extend(value);
    }
}

/// The text of a value, of many types.
fn known_text(random: &mut Random) -> Vec<u8> {
    let texts = [
        "t",
        "-12",
        "9007199254740993",
        "1.5e-07",
        "NaN",
        "2024-02-29 12:30:00+00",
        "\\x00ff",
        "{1,2,NULL}",
        "[2:3]={\"a\\\"b\",\"c,d\"}",
        "{{1,2},{3,4}}",
        "say \"hi\"\n\t\\",
        "日本 😀",
        "{\"a\": [1,\n2]}",
        "",
        "{\"{\\\"a\\\":1}\"}",
        "1 2 3",
    ];
    texts[random.below(texts.len() as u64) as usize].into()
}

/// The binary form of a value, and of what kind it is.
fn known_value(random: &mut Random) -> (Kind, Vec<u8>) {
    static VALUES: OnceLock<Vec<(Kind, Vec<u8>)>> = OnceLock::new();
    let values = VALUES.get_or_init(known_values);
    values[random.below(values.len() as u64) as usize].clone()
}

fn known_values() -> Vec<(Kind, Vec<u8>)> {
    let array = |element: &str| {
        format!("00000002 00000001 00000000 00000002 00000001 00000001 00000005 {element} ffffffff")
    };
    let values = [
        (16, 0, "01".to_string()),
        (17, 0, "00ff22".to_string()),
        (18, 0, "c3".to_string()),
        (20, 0, "0020000000000001".to_string()),
        (23, 0, "ffffffff".to_string()),
        (25, 0, "7361792022686922 0a e697a5".to_string()),
        (26, 0, "ffffffff".to_string()),
        (114, 0, "7b2261223a310a7d".to_string()),
        (700, 0, "cc4321e6".to_string()),
        (701, 0, "44b52d02c7e14af6".to_string()),
        (869, 0, "03 40 01 10 20010db8000000000000000000000001".to_string()),
        (829, 0, "0123456789ab".to_string()),
        (1082, 0, "ffffff00".to_string()),
        (1083, 0, "000000141dd75fff".to_string()),
        (1114, 0, "fffcb94d7a4a8000".to_string()),
        (1184, 0, "0002a3b4c5d6e7f8".to_string()),
        (1186, 0, "ffffffffffff0000 00000003 fffffff1".to_string()),
        (1266, 0, "0000000a0eebb000 00001c20".to_string()),
        (1562, 0, "0000000b ffe0".to_string()),
        (1700, 0, "0003 0001 4000 0006 000c 0d80 1388".to_string()),
        (2950, 0, "00112233445566778899aabbccddeeff".to_string()),
        (3220, 0, "00000016b374d848".to_string()),
        (3802, 0, "01 7b2261223a317d".to_string()),
        (30, 26, "00000001 00000000 0000001a 00000001 00000000 00000004 ffffffff".to_string()),
        (1007, 23, array("00000004 0000002a")),
        (1009, 25, array("00000002 2c22")),
        (1016, 20, array("00000008 7fffffffffffffff")),
        (1231, 1700, array("0000000a 0001 0000 0000 0000 0001")),
        (600, 0, "0a1b".to_string()),
    ];
    let of = |(oid, element, hex): (u32, u32, String)| {
        (Kind::of(oid, if element == 0 { b'X' } else { b'A' }, element), unhex(&hex))
    };
    values.into_iter().map(of).collect()
}

fn some_kind(random: &mut Random) -> Kind {
    known_value(random).0
}

/// Changes, takes, adds, or makes a count of four bytes that cannot be.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    let at = random.below(bytes.len() as u64 + 1) as usize;
    match random.below(7) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, random.below(256) as u8),
        2 => (0..random.below(20)).for_each(|_| bytes.push(random.below(256) as u8)),
        3 if at < bytes.len() => _ = bytes.remove(at),
        4 if at + 4 <= bytes.len() => {
            let counts = [0, 1, 7, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x4000_0000u32];
            let count = counts[random.below(counts.len() as u64) as usize];
            bytes[at..at + 4].copy_from_slice(&count.to_be_bytes());
        }
        5 if at < bytes.len() => bytes[at] = random.below(256) as u8,
        _ if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        _ => {}
    }
}

/// Looks at everything that a message holds.
fn walk(random: &mut Random, message: &Message<'_>) {
    let (old, new) = match message {
        Message::Insert { new, .. } => (None, Some(new)),
        Message::Update { old, new, .. } => (old.as_ref(), Some(new)),
        Message::Delete { old, .. } => (Some(old), None),
        _ => return,
    };
    let old = old.map(|old| match old {
        pgoutput::Old::Key(tuple) | pgoutput::Old::Full(tuple) => tuple,
    });
    for tuple in old.into_iter().chain(new) {
        let mut count = 0;
        for column in tuple.columns() {
            count += 1;
            match column {
                Column::Text(text) => as_text(some_kind(random), text),
                Column::Binary(bytes) => _ = binary(some_kind(random), bytes),
                Column::Null | Column::Unchanged => {}
            }
        }
        assert_eq!(count, tuple.columns().len());
    }
}

fn frame(bytes: &[u8]) {
    match Frame::read(bytes) {
        Ok(Frame::Data { sent_at_us, .. } | Frame::Keepalive { sent_at_us, .. }) => {
            assert_eq!(replication::microseconds(replication::time(sent_at_us)), sent_at_us);
        }
        Ok(Frame::Unknown(tag)) => assert_eq!(tag, bytes[0]),
        Err(_) => {}
    }
}

fn as_text(kind: Kind, text: &[u8]) {
    let mut out = String::from("before");
    value::write(&mut out, kind, text);
    judge(kind, out.strip_prefix("before").unwrap());
}

/// Whether the value could be read.
fn binary(kind: Kind, bytes: &[u8]) -> bool {
    let mut out = String::from("before");
    let is_read = value::write_binary(&mut out, kind, bytes).is_ok();
    let json = out.strip_prefix("before").unwrap();
    if is_read {
        judge(kind, json)
    } else {
        assert_eq!(json, "")
    }
    is_read
}

fn judge(kind: Kind, json: &str) {
    assert!(!json.chars().any(|c| c < ' '), "{kind:?}: {json}");
    // That JSON of the server's is JSON is left to the server.
    let is_trusted = [Kind::of(114, 0, 0), Kind::of(3802, 0, 0)].contains(&kind);
    assert!(is_trusted || is_json(json), "{kind:?}: {json}");
}

#[cfg(feature = "json")]
fn is_json(text: &str) -> bool {
    use crate::event::{Notification, SessionId};
    let payload = std::ffi::CString::new(text).unwrap();
    let (channel, payload) = (c"".into(), payload.as_c_str().into());
    let (session, db) = (SessionId(0), "");
    let whole = Notification { session, db, channel, payload, pid: 0, own: false, folded: 0 };
    whole.json::<serde::de::IgnoredAny>().is_ok()
}

/// Without the feature there is nothing to judge it by, so its ends have to do.
#[cfg(not(feature = "json"))]
fn is_json(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || "-\"[tfn".contains(c)) && text.trim() == text
}
