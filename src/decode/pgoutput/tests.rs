//! Every message, byte by byte as the manual describes it, and written back from what was read of it.

use super::*;

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
    let of = |is_in_stream, tag: &str, hex: &str| {
        let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
        let bytes = digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8);
        (is_in_stream, tag.bytes().chain(bytes).collect())
    };
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
    let mut tags = std::collections::BTreeSet::new();
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
