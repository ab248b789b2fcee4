//! Every message, byte by byte as the manual describes it, and written back from what was read of it.

use super::*;
use crate::decode::replication::{Frame, status, time};
use crate::decode::tests::{Sql, start_server, unhex};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// A session in which every message comes: whether it comes within a block of a streamed transaction, and its
/// bytes. What follows the letter is written as the manual lists it.
pub(crate) fn recorded() -> Vec<(bool, Vec<u8>)> {
    let row = "0003 74 00000002 3432 6e 62 00000004 0000002a";
    let old_row = "0003 75 74 00000000 6e";
    let lsns = "0000000100000002 0000000300000004";
    let end = "0002a3b4c5d6e7f8 000002d1 676900";
    let streamed = [
        ("R", "000002d2 00004001 7300 7400 66 0001 01 696400 00000017 ffffffff".to_string()),
        ("Y", "000002d2 00004010 7300 6d6f6f6400".to_string()),
        ("I", format!("000002d2 00004001 4e {row}")),
        ("U", format!("000002d2 00004001 4e {row}")),
        ("D", format!("000002d2 00004001 4f {old_row}")),
        ("T", "000002d2 00000001 00 00004001".to_string()),
        ("M", "000002d2 01 0000000100000002 7000 00000002 6869".to_string()),
        ("O", "0000000100000002 6f00".to_string()),
    ];
    let plain = [
        ("B", format!("0000000100000002 {end}").replace(" 676900", "")),
        ("O", "0000000100000002 6f726900".to_string()),
        ("R", "00004001 00 7400 64 0002 01 696400 00000017 ffffffff 00 7400 00000413 00000024".to_string()),
        ("Y", "00004010 00 696e743400".to_string()),
        ("I", format!("00004001 4e {row}")),
        ("U", format!("00004001 4e {row}")),
        ("U", format!("00004001 4b {old_row} 4e {row}")),
        ("U", format!("00004001 4f {old_row} 4e {row}")),
        ("D", format!("00004001 4b {old_row}")),
        ("T", "00000002 03 00004001 00004002".to_string()),
        ("M", "00 0000000100000002 00 00000000".to_string()),
        ("C", format!("00 {lsns} 0002a3b4c5d6e7f8")),
        ("S", "000002d1 01".to_string()),
        ("E", String::new()),
        ("A", "000002d1 000002d2".to_string()),
        ("A", "000002d1 000002d2 0000000100000002 0002a3b4c5d6e7f8".to_string()),
        ("c", format!("000002d1 00 {lsns} 0002a3b4c5d6e7f8")),
        ("b", format!("{lsns} {end}")),
        ("P", format!("00 {lsns} {end}")),
        ("K", format!("00 {lsns} {end}")),
        ("r", format!("00 {lsns} 0002a3b4c5d6e7f7 {end}")),
        ("p", format!("00 {lsns} {end}")),
    ];
    let of = |is_in_stream, tag: &str, hex: &str| (is_in_stream, tag.bytes().chain(unhex(hex)).collect());
    let plain = plain.iter().map(|(tag, hex)| of(false, tag, hex));
    plain.chain(streamed.iter().map(|(tag, hex)| of(true, tag, hex))).collect()
}

/// Writes a message back, with the names of the manual.
pub(crate) fn written(xid: Option<u32>, message: &Message<'_>) -> Vec<u8> {
    let mut out = vec![0];
    out.extend(xid.map(u32::to_be_bytes).into_iter().flatten());
    out[0] = match *message {
        Message::Begin { commit_lsn, committed_at_us, xid } => {
            numbers(&mut out, [commit_lsn.0, committed_at_us as u64]);
            out.extend(xid.to_be_bytes());
            b'B'
        }
        Message::Commit(commit) => commit_fields(&mut out, commit, b'C'),
        Message::Origin { commit_lsn, name } => {
            numbers(&mut out, [commit_lsn.0]);
            string(&mut out, name);
            b'O'
        }
        Message::Relation(relation) => relation_fields(&mut out, &relation),
        Message::Type { oid, namespace, name } => {
            out.extend(oid.to_be_bytes());
            names(&mut out, namespace, name);
            b'Y'
        }
        Message::Insert { .. } | Message::Update { .. } | Message::Delete { .. } => rows(&mut out, message),
        Message::Truncate { relations, cascade, restart_identity } => {
            out.extend((relations.iter().len() as u32).to_be_bytes());
            out.push(u8::from(cascade) | u8::from(restart_identity) << 1);
            out.extend(relations.iter().flat_map(u32::to_be_bytes));
            b'T'
        }
        Message::Logical { lsn, is_transactional, prefix, content } => {
            out.push(u8::from(is_transactional));
            numbers(&mut out, [lsn.0]);
            string(&mut out, prefix);
            out.extend((content.len() as u32).to_be_bytes());
            out.extend(content);
            b'M'
        }
        Message::Unknown(tag) => tag,
        _ => later_fields(&mut out, message),
    };
    out
}

fn numbers<const N: usize>(out: &mut Vec<u8>, numbers: [u64; N]) {
    out.extend(numbers.into_iter().flat_map(u64::to_be_bytes));
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(text);
    out.push(0);
}

fn names(out: &mut Vec<u8>, namespace: &[u8], name: &[u8]) {
    // Of its own schema, the server sends no name.
    string(out, if namespace == b"pg_catalog" { b"" } else { namespace });
    string(out, name);
}

fn commit_fields(out: &mut Vec<u8>, commit: Commit, tag: u8) -> u8 {
    out.push(0);
    numbers(out, [commit.commit_lsn.0, commit.end_lsn.0, commit.committed_at_us as u64]);
    tag
}

fn relation_fields(out: &mut Vec<u8>, relation: &Relation<'_>) -> u8 {
    out.extend(relation.id.to_be_bytes());
    names(out, relation.namespace, relation.name);
    out.push(match relation.identity {
        ReplicaIdentity::Default => b'd',
        ReplicaIdentity::Nothing => b'n',
        ReplicaIdentity::Full => b'f',
        ReplicaIdentity::Index => b'i',
    });
    out.extend((relation.columns().len() as u16).to_be_bytes());
    for column in relation.columns() {
        out.push(u8::from(column.is_key));
        string(out, column.name);
        out.extend(column.type_oid.to_be_bytes());
        out.extend(column.modifier.to_be_bytes());
    }
    b'R'
}

fn rows(out: &mut Vec<u8>, message: &Message<'_>) -> u8 {
    let (tag, relation, old, new) = match *message {
        Message::Insert { relation, new } => (b'I', relation, None, Some(new)),
        Message::Update { relation, old, new } => (b'U', relation, old, Some(new)),
        Message::Delete { relation, old } => (b'D', relation, Some(old), None),
        _ => unreachable!("{message:?} has no row"),
    };
    out.extend(relation.to_be_bytes());
    match old {
        Some(Old::Key(tuple)) => row(out, b'K', tuple),
        Some(Old::Full(tuple)) => row(out, b'O', tuple),
        None => {}
    }
    if let Some(new) = new {
        row(out, b'N', new);
    }
    tag
}

fn row(out: &mut Vec<u8>, tag: u8, tuple: Tuple<'_>) {
    out.push(tag);
    out.extend((tuple.columns().len() as u16).to_be_bytes());
    for column in tuple.columns() {
        match column {
            Column::Null => out.push(b'n'),
            Column::Unchanged => out.push(b'u'),
            Column::Text(value) | Column::Binary(value) => {
                out.push(if matches!(column, Column::Text(_)) { b't' } else { b'b' });
                out.extend((value.len() as u32).to_be_bytes());
                out.extend(value);
            }
        }
    }
}

/// Of the messages of versions 2 and 3.
fn later_fields(out: &mut Vec<u8>, message: &Message<'_>) -> u8 {
    let mut prepared = |tag, flags: &[u8], prepared: Prepared<'_>| {
        out.extend(flags);
        numbers(out, [prepared.prepare_lsn.0, prepared.end_lsn.0, prepared.prepared_at_us as u64]);
        out.extend(prepared.xid.to_be_bytes());
        string(out, prepared.gid);
        tag
    };
    match *message {
        Message::BeginPrepare(fields) => return prepared(b'b', &[], fields),
        Message::Prepare(fields) => return prepared(b'P', &[0], fields),
        Message::StreamPrepare(fields) => return prepared(b'p', &[0], fields),
        _ => {}
    }
    match *message {
        Message::StreamStart { xid, is_first } => {
            out.extend(xid.to_be_bytes());
            out.push(u8::from(is_first));
            b'S'
        }
        Message::StreamStop => b'E',
        Message::StreamCommit { xid, commit } => {
            out.extend(xid.to_be_bytes());
            commit_fields(out, commit, b'c')
        }
        Message::StreamAbort { xid, subxid, aborted } => {
            out.extend([xid, subxid].into_iter().flat_map(u32::to_be_bytes));
            if let Some((lsn, at_us)) = aborted {
                numbers(out, [lsn.0, at_us as u64]);
            }
            b'A'
        }
        Message::CommitPrepared { commit, xid, gid } => {
            commit_fields(out, commit, b'K');
            out.extend(xid.to_be_bytes());
            string(out, gid);
            b'K'
        }
        Message::RollbackPrepared(fields) => {
            out.push(0);
            numbers(out, [fields.prepare_end_lsn.0, fields.end_lsn.0]);
            numbers(out, [fields.prepared_at_us as u64, fields.rolled_back_at_us as u64]);
            out.extend(fields.xid.to_be_bytes());
            string(out, fields.gid);
            b'r'
        }
        _ => unreachable!("{message:?} is written elsewhere"),
    }
}

#[test]
fn every_message_is_read_and_no_byte_of_it_is_lost() {
    let mut tags = BTreeSet::new();
    for (is_in_stream, bytes) in recorded() {
        let (xid, message) = read(&bytes, is_in_stream).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(written(xid, &message), bytes, "{message:?}");
        assert_eq!(xid.is_some(), is_in_stream && bytes[0] != b'O', "{message:?}");
        tags.insert(bytes[0]);
    }
    assert_eq!(tags, b"RYIUDTMOBCSEAcbPKrp".iter().copied().collect());
    assert_eq!(read(b"?any", true), Ok((None, Message::Unknown(b'?'))));
}

#[test]
fn the_fields_of_a_message_are_where_the_manual_has_them() {
    let begin = b"B\0\0\0\x01\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xfd\0\0\x02\xd1";
    let expected = Message::Begin { commit_lsn: Lsn(0x1_0000_0002), committed_at_us: -3, xid: 721 };
    assert_eq!(read(begin, false), Ok((None, expected)));
    let commit = b"C\0\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\0\0\0\0\x05";
    let (commit_lsn, end_lsn) = (Lsn(0x1_0000_0002), Lsn(0x3_0000_0004));
    let expected = Message::Commit(Commit { commit_lsn, end_lsn, committed_at_us: 5 });
    assert_eq!(read(commit, false), Ok((None, expected)));
    let abort = b"A\0\0\0\x01\0\0\0\x02";
    let expected = Message::StreamAbort { xid: 1, subxid: 2, aborted: None };
    assert_eq!(read(abort, false), Ok((None, expected)));
    let message = b"M\0\0\0\x07\x01\0\0\0\0\0\0\0\x09orders\0\0\0\0\x02hi";
    let (prefix, content) = (&b"orders"[..], &b"hi"[..]);
    let expected = Message::Logical { lsn: Lsn(9), is_transactional: true, prefix, content };
    assert_eq!(read(message, true), Ok((Some(7), expected)));
}

#[test]
fn a_relation_and_its_rows_are_walked_over() {
    let bytes =
        b"R\0\0\x40\x01\0orders\0i\0\x02\x01id\0\0\0\0\x17\xff\xff\xff\xff\0note\0\0\0\x04\x13\0\0\0\x24";
    let Ok((None, Message::Relation(relation))) = read(bytes, false) else { panic!() };
    assert_eq!(
        (relation.id, relation.namespace, relation.name),
        (0x4001, &b"pg_catalog"[..], &b"orders"[..])
    );
    let columns: Vec<_> = relation.columns().collect();
    let expected = [
        RelationColumn { name: b"id", type_oid: 23, modifier: -1, is_key: true },
        RelationColumn { name: b"note", type_oid: 1043, modifier: 36, is_key: false },
    ];
    assert_eq!((relation.identity, &columns[..]), (ReplicaIdentity::Index, &expected[..]));
    let bytes = b"U\0\0\x40\x01K\0\x01nN\0\x04t\0\0\0\x0242nub\0\0\0\0";
    let Ok((None, Message::Update { relation: 0x4001, old: Some(Old::Key(old)), new })) = read(bytes, false)
    else {
        panic!()
    };
    assert_eq!(old.columns().collect::<Vec<_>>(), [Column::Null]);
    let expected = [Column::Text(b"42"), Column::Null, Column::Unchanged, Column::Binary(b"")];
    assert_eq!(new.columns().collect::<Vec<_>>(), expected);
}

#[test]
fn what_is_not_as_it_should_be_is_told_with_its_place() {
    let cases: [(&[u8], usize, &str); 12] = [
        (b"", 0, "it is empty"),
        (b"B", 1, "it ends too early"),
        (b"E1", 1, "more follows where it should end"),
        (b"O12345678origin", 9, "a string has no end"),
        (b"T\xff\xff\xff\xff\0", 1, "a length is negative"),
        (b"T\x7f\xff\xff\xff\0", 6, "it ends too early"),
        (b"I\0\0\0\x01K\0\0", 5, "a new row does not begin with N"),
        (b"D\0\0\0\x01N\0\0", 5, "an old row is neither K nor O"),
        (b"I\0\0\0\x01N\xff\xff", 6, "it counts a negative number of fields"),
        (b"I\0\0\0\x01N\0\x01x", 8, "a column comes in an unknown form"),
        (b"I\0\0\0\x01N\0\x01t\x7f\xff\xff\xffabc", 13, "it ends too early"),
        (b"R\0\0\0\x01s\0t\0q\0\0", 9, "a replica identity is none of d, n, f and i"),
    ];
    for (bytes, at, what) in cases {
        assert_eq!(read(bytes, false), Err(Malformed { what, tag: bytes.first().copied(), at }));
    }
}

/// Nothing here takes that long, not even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection over which a server streams, without libpq: this reads no more than the frames need (manual,
/// "Message Formats").
struct Walsender {
    socket: UnixStream,
    tags: BTreeSet<u8>,
    aborts: BTreeSet<usize>,
    is_in_stream: bool,
}

impl Walsender {
    fn start(directory: &Path, options: &str) -> Self {
        let socket = UnixStream::connect(directory.join(".s.PGSQL.5432")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let (tags, aborts) = (BTreeSet::new(), BTreeSet::new());
        let mut walsender = Walsender { socket, tags, aborts, is_in_stream: false };
        let startup = b"\0\x03\0\0user\0postgres\0database\0postgres\0replication\0database\0\0";
        walsender.send(b"", startup);
        while walsender.receive().0 != b'Z' {}
        let command = format!("START_REPLICATION SLOT s LOGICAL 0/0 ({options})\0");
        walsender.send(b"Q", command.as_bytes());
        assert_eq!(walsender.receive().0, b'W');
        walsender
    }

    fn send(&mut self, tag: &[u8], content: &[u8]) {
        let length = content.len() as u32 + 4;
        self.socket.write_all(&[tag, &length.to_be_bytes()[..], content].concat()).unwrap();
    }

    fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 5];
        self.socket.read_exact(&mut head).unwrap();
        let mut content = vec![0; u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4];
        self.socket.read_exact(&mut content).unwrap();
        assert!(head[0] != b'E', "{}", String::from_utf8_lossy(&content));
        (head[0], content)
    }

    /// Reads until the message comes that is now written with a commit of its own, acknowledges that, and
    /// waits for an answer.
    fn advance(&mut self, sql: &mut Sql) {
        sql.run("SELECT pg_logical_emit_message(true, 'here', '')");
        let (mut is_here, mut acknowledged) = (false, None);
        loop {
            let (tag, content) = self.receive();
            assert_eq!(tag, b'd');
            match Frame::read(&content).unwrap() {
                Frame::Data { sent_at_us, message, .. } => {
                    let age = SystemTime::now().duration_since(time(sent_at_us)).unwrap_or_default();
                    assert!(age < Duration::from_secs(3600), "{sent_at_us}");
                    match self.message(message) {
                        Message::Logical { prefix: b"here", .. } => is_here = true,
                        Message::Commit(commit) if is_here => {
                            acknowledged = Some(commit.end_lsn);
                            self.send(b"d", &status(commit.end_lsn, commit.end_lsn, 0, true));
                        }
                        _ => {}
                    }
                }
                Frame::Keepalive { end, .. } if acknowledged.is_some_and(|lsn| lsn <= end) => break,
                Frame::Keepalive { .. } => {}
                Frame::Unknown(tag) => panic!("{tag}"),
            }
        }
        let (confirmed, started) = ("SELECT confirmed_flush_lsn FROM pg_replication_slots", Instant::now());
        while sql.rows::<1>(confirmed)[0][0].parse().ok() != acknowledged {
            assert!(started.elapsed() < PATIENCE, "{acknowledged:?} is not confirmed");
        }
    }

    fn message<'a>(&mut self, bytes: &'a [u8]) -> Message<'a> {
        let (xid, message) = read(bytes, self.is_in_stream).unwrap_or_else(|e| panic!("{e}: {bytes:?}"));
        assert_eq!(written(xid, &message), bytes, "{message:?}");
        match message {
            Message::StreamStart { .. } => self.is_in_stream = true,
            Message::StreamStop => self.is_in_stream = false,
            Message::StreamAbort { .. } => _ = self.aborts.insert(bytes.len()),
            _ => {}
        }
        self.tags.insert(bytes[0]);
        message
    }
}

const TABLES: &str = "CREATE TYPE mood AS ENUM ('fine');
    CREATE TABLE a (id int PRIMARY KEY, m mood, t text, j jsonb);
    ALTER TABLE a ALTER t SET STORAGE EXTERNAL;
    CREATE TABLE b (LIKE a);
    ALTER TABLE b REPLICA IDENTITY FULL;
    CREATE PUBLICATION p FOR TABLE a, b;
    SELECT pg_replication_origin_create('o')";

const CHANGES: [&str; 5] = [
    "INSERT INTO a VALUES (1, 'fine', repeat('x', 9000), '{}'), (2, NULL, '', NULL)",
    "UPDATE a SET j = '[1]' WHERE id = 1; UPDATE a SET id = 3 WHERE id = 2; DELETE FROM a WHERE id = 3",
    "INSERT INTO b SELECT * FROM a; UPDATE b SET id = 4; DELETE FROM b; TRUNCATE a, b CASCADE",
    "SELECT pg_logical_emit_message(true, 'p', 'm'), pg_logical_emit_message(false, '', '')",
    "SELECT pg_replication_origin_session_setup('o'); INSERT INTO a VALUES (5)",
];

/// More than the server keeps in memory.
const MANY: &str = "INSERT INTO a SELECT n, 'fine', repeat('x', 90) FROM generate_series(1000, 5000) n";
const MORE: &str = "INSERT INTO a SELECT n, 'fine', repeat('x', 90) FROM generate_series(6000, 9999) n";

#[test]
fn every_message_of_a_real_server_is_read() {
    let settings =
        ["wal_level = logical", "logical_decoding_work_mem = 64kB", "max_prepared_transactions = 9"];
    let server = start_server(&settings);
    let (mut sql, mut other) = (Sql::connect(&server), Sql::connect(&server));
    let version = sql.rows::<1>("SHOW server_version_num")[0][0].parse::<u32>().unwrap() / 10000;
    let (two_phase, options) = match version {
        14 => ("", "proto_version '2', streaming 'on'"),
        15 => (", false, true", "proto_version '3', streaming 'on'"),
        _ => (", false, true", "proto_version '4', streaming 'parallel', binary 'on'"),
    };
    sql.run(TABLES);
    sql.run(&format!("SELECT pg_create_logical_replication_slot('s', 'pgoutput'{two_phase})"));
    let options = format!("{options}, publication_names 'p', messages 'on'");
    let mut walsender = Walsender::start(server.directory(), &options);
    CHANGES.iter().for_each(|change| other.run(change));
    other.run("SELECT pg_replication_origin_session_reset()");
    walsender.advance(&mut sql);
    for change in ["BEGIN", MANY, "SAVEPOINT s", MORE, "SELECT pg_logical_emit_message(true, 'p', 'm')"] {
        other.run(change);
    }
    walsender.advance(&mut sql);
    other.run("ROLLBACK TO s");
    walsender.advance(&mut sql);
    other.run("TRUNCATE a; COMMIT");
    walsender.advance(&mut sql);
    let mut expected: BTreeSet<u8> = b"RYIUDTMOBCSEAc".iter().copied().collect();
    if version > 14 {
        expected.extend(b"bPKrp");
        for (name, change, end) in
            [("x", CHANGES[0], "COMMIT"), ("y", MANY, "ROLLBACK"), ("z", MORE, "COMMIT")]
        {
            other.run("BEGIN");
            other.run(change);
            walsender.advance(&mut sql);
            other.run(&format!("PREPARE TRANSACTION '{name}'"));
            walsender.advance(&mut sql);
            other.run(&format!("{end} PREPARED '{name}'"));
            walsender.advance(&mut sql);
        }
    }
    assert_eq!(walsender.tags, expected);
    assert_eq!(walsender.aborts, BTreeSet::from([if version > 15 { 25 } else { 9 }]));
}
