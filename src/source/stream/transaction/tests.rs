//! What is held back against a model, against disks that do not take it, and against the cap on memory.

use super::*;
use crate::random::Random;
use std::collections::HashSet;
use std::time::Instant;
use tempfile::{TempDir, tempdir};

/// A transaction on the server, whose messages are kept until those who wrote them abort.
struct Model {
    xid: u32,
    /// The subtransactions that are open, each inside the one before; with those that ended inside of them.
    open: Vec<(u32, Vec<u32>)>,
    messages: Vec<(u32, Vec<u8>)>,
}

impl Model {
    fn new(xid: u32) -> Self {
        Model { xid, open: vec![(xid, Vec::new())], messages: Vec::new() }
    }

    fn is_nested(&self) -> bool {
        self.open.len() > 1
    }

    fn writer(&self) -> u32 {
        self.open.last().unwrap().0
    }

    fn write(&mut self, held: &mut HeldBack, message: Vec<u8>) {
        held.append(self.xid, self.writer(), Lsn(0), &message).unwrap();
        self.messages.push((self.writer(), message));
    }

    /// The innermost subtransaction becomes part of the one around it.
    fn release(&mut self) {
        let (subxid, mut ended) = self.open.pop().unwrap();
        ended.push(subxid);
        self.open.last_mut().unwrap().1.extend(ended);
    }

    /// The innermost subtransaction aborts. The server tells those that ended inside of it before, by number.
    fn roll_back(&mut self, held: &mut HeldBack) {
        let (subxid, mut aborted) = self.open.pop().unwrap();
        aborted.sort_unstable();
        aborted.push(subxid);
        aborted.iter().for_each(|&subxid| held.abort(self.xid, subxid));
        let aborted: HashSet<u32> = aborted.into_iter().collect();
        self.messages.retain(|(writer, _)| !aborted.contains(writer));
    }
}

fn message(random: &mut Random) -> Vec<u8> {
    let bytes = match random.below(50) {
        0 => random.below(5000),
        1 => 0,
        _ => random.below(200),
    };
    (0..bytes).map(|_| random.below(256) as u8).collect()
}

fn all(mut replay: Replay) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some((_, message)) = replay.next().unwrap() {
        messages.push(message.to_vec());
    }
    assert_eq!(replay.next().unwrap(), None);
    messages
}

fn is_empty(directory: &TempDir) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn what_is_held_back_is_what_was_not_aborted() {
    let mut random = Random::seeded();
    let (mut cuts_in_files, mut ended) = (0, 0);
    for memory_cap in [16, 100, 1000, 5000, 50_000, usize::MAX].repeat(2) {
        let directory = tempdir().unwrap();
        let mut held = HeldBack::new(memory_cap, directory.path().into());
        let (mut models, mut last_xid) = (Vec::new(), 0);
        for _ in 0..3000 {
            if models.len() < 4 {
                last_xid += 1;
                models.push(Model::new(last_xid));
            }
            let chosen = random.below(models.len() as u64) as usize;
            let model = &mut models[chosen];
            let in_files_before = held.bytes_in_files();
            match random.below(100) {
                0..12 => {
                    last_xid += 1;
                    model.open.push((last_xid, Vec::new()));
                }
                12..18 if model.is_nested() => model.release(),
                18..24 if model.is_nested() => {
                    model.roll_back(&mut held);
                    cuts_in_files += usize::from(held.bytes_in_files() < in_files_before);
                }
                24 => {
                    let model = models.swap_remove(chosen);
                    let written: Vec<_> = model.messages.into_iter().map(|(_, message)| message).collect();
                    assert!(all(held.take(model.xid)) == written, "transaction {}", model.xid);
                    ended += 1;
                }
                25 => {
                    let xid = models.swap_remove(chosen).xid;
                    held.abort(xid, xid);
                    assert!(all(held.take(xid)).is_empty());
                }
                26 => held.abort(model.xid, last_xid + 1),
                27 => held.abort(last_xid + 1, model.xid),
                28 if random.below(20) == 0 => {
                    held.clear();
                    models.clear();
                    assert_eq!(held.transactions(), 0);
                }
                _ => model.write(&mut held, message(&mut random)),
            }
            assert!(held.bytes_in_memory() <= memory_cap);
            assert!(is_empty(&directory), "a file has a name");
        }
        held.clear();
        assert_eq!((held.bytes_in_memory(), held.bytes_in_files()), (0, 0));
    }
    assert!(cuts_in_files > 20 && ended > 100, "{cuts_in_files} cuts in files, {ended} transactions ended");
}

#[test]
fn a_subtransaction_that_writes_after_one_inside_of_it_aborts_with_it() {
    let mut held = HeldBack::new(1 << 20, std::env::temp_dir());
    for (subxid, message) in [(1, "a"), (3, "b"), (2, "c"), (3, "d"), (2, "e")] {
        held.append(1, subxid, Lsn(0), message.as_bytes()).unwrap();
    }
    // 3 was released inside of 2, which aborts now.
    held.abort(1, 3);
    held.abort(1, 2);
    held.append(1, 2, Lsn(0), b"f").unwrap();
    held.append(1, 1, Lsn(0), b"g").unwrap();
    held.abort(1, 2);
    held.append(1, 1, Lsn(0), b"h").unwrap();
    assert_eq!(all(held.take(1)), [b"a", b"h"]);
}

#[test]
fn the_largest_transaction_goes_to_a_file_and_the_others_stay() {
    let directory = tempdir().unwrap();
    let mut held = HeldBack::new(16_000, directory.path().into());
    for xid in 1..=4 {
        held.append(xid, xid, Lsn(0), &[xid as u8; 1000]).unwrap();
    }
    assert_eq!((held.transactions(), held.bytes_in_files()), (4, 0));
    for _ in 0..100 {
        held.append(4, 4, Lsn(0), &[4; 1000]).unwrap();
    }
    assert!(held.bytes_in_files() > 80_000, "{}", held.bytes_in_files());
    let with_files: Vec<_> = held.transactions.iter().filter(|(_, t)| t.file.is_some()).collect();
    assert!(matches!(with_files[..], [(4, _)]));
    // Truncated, not only forgotten.
    held.append(4, 5, Lsn(0), b"").unwrap();
    held.append(4, 6, Lsn(0), &[6; 100_000]).unwrap();
    let room = |held: &HeldBack| held.transactions[&4].file.as_ref().unwrap().metadata().unwrap().len();
    assert!(room(&held) > 150_000);
    held.abort(4, 5);
    assert!(room(&held) < 110_000);
    assert_eq!(all(held.take(4)).len(), 101);
    assert_eq!((held.transactions(), held.bytes_in_files()), (3, 0));
}

#[test]
fn a_file_has_no_name_and_is_its_owners_on_every_file_system() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempdir().unwrap();
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let named = create_and_unlink(options, directory.path()).unwrap();
    for file in [open_unlinked(directory.path()).unwrap(), named] {
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.nlink(), metadata.mode() & 0o7777, metadata.len()), (0, 0o600, 0));
        assert!(is_empty(&directory));
        file.write_all_at(b"written", 3).unwrap();
        let mut read = [0; 7];
        file.read_exact_at(&mut read, 3).unwrap();
        assert_eq!(&read, b"written");
    }
}

#[test]
fn a_full_disk_is_an_error_after_which_the_same_message_can_come_again() {
    let directory = tempdir().unwrap();
    let mut held = HeldBack::new(1600, directory.path().into());
    held.append(1, 1, Lsn(0), b"first").unwrap();
    let full = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    held.transactions.get_mut(&1).unwrap().file = Some(full);
    for times in 0..3 {
        let error = held.append(1, 2, Lsn(0), &[7; 5000]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
        assert!(error.to_string().contains(directory.path().to_str().unwrap()), "{error}");
        assert!(held.bytes_in_memory() <= 1600, "the {times}th time");
    }
    held.transactions.get_mut(&1).unwrap().file = None;
    held.append(1, 2, Lsn(0), &[7; 5000]).unwrap();
    held.append(1, 1, Lsn(0), b"last").unwrap();
    assert_eq!(all(held.take(1)), [b"first".to_vec(), vec![7; 5000], b"last".to_vec()]);
}

#[test]
fn a_directory_where_no_file_can_be_made_is_an_error_that_names_it() {
    for directory in ["/proc/self", "/nowhere at all"] {
        let mut held = HeldBack::new(160, directory.into());
        held.append(1, 1, Lsn(0), &[1; 100]).unwrap();
        let error = held.append(1, 1, Lsn(0), &[1; 100]).unwrap_err();
        assert!(error.to_string().contains(directory), "{error}");
        assert_eq!(all(held.take(1)), [[1; 100]]);
    }
}

#[test]
fn where_descriptors_have_run_out_no_other_directory_is_advised() {
    let error = with_directory(io::Error::from_raw_os_error(libc::EMFILE), Path::new("/tmp"));
    assert!(crate::error::Error::from(error).message.contains("ulimit -n"));
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let directory = tempdir().unwrap();
    let mut held = HeldBack::new(160, directory.path().into());
    for _ in 0..10 {
        held.append(1, 1, Lsn(0), &[1; 100]).unwrap();
    }
    held.transactions[&1].file.as_ref().unwrap().set_len(500).unwrap();
    let mut replay = held.take(1);
    let error = loop {
        match replay.next() {
            Ok(Some((_, message))) => assert_eq!(message, [1; 100]),
            Ok(None) => panic!("what was lost was not missed"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
    assert!(replay.next().is_err());
    assert!(error.to_string().contains(directory.path().to_str().unwrap()), "{error}");
}

const BIG: &str = "PGWAKE_TEST_BIG_TRANSACTION";

/// In a process of its own, because the memory of a process is that of all its tests. With a number in
/// `PGWAKE_TEST_BIG_TRANSACTION` the test runs here and with that many messages: 5000000 for the full size.
#[test]
fn a_big_transaction_takes_no_more_memory_than_the_cap() {
    let name = "source::stream::transaction::tests::a_big_transaction_takes_no_more_memory_than_the_cap";
    let Some(messages) = std::env::var(BIG).ok().map(|messages| messages.parse::<u64>().unwrap()) else {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let output = again.args(["--exact", name]).env(BIG, "1000000").output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && out.contains("1 passed"), "{out}");
        return;
    };
    let memory_cap = if messages < 5_000_000 { 16 << 20 } else { 64 << 20 };
    let directory = tempdir().unwrap();
    let mut held = HeldBack::new(memory_cap, directory.path().into());
    let before = peak_bytes();
    let message = |number: u64| {
        let mut message = [number as u8; 60];
        message[..8].copy_from_slice(&number.to_ne_bytes());
        message
    };
    let (begun, mut longest) = (Instant::now(), std::time::Duration::ZERO);
    for number in 0..messages {
        let at = Instant::now();
        held.append(1, 1, Lsn(number), &message(number)).unwrap();
        longest = longest.max(at.elapsed());
    }
    println!("written in {:?}, the longest append {longest:?}", begun.elapsed());
    let in_memory = held.bytes_in_memory() as u64;
    assert!(in_memory <= memory_cap as u64 && held.bytes_in_files() >= messages * 64 - in_memory);
    let (begun, mut replay) = (Instant::now(), held.take(1));
    for number in 0..messages {
        assert_eq!(replay.next().unwrap(), Some((Lsn(number), &message(number)[..])));
    }
    assert_eq!(replay.next().unwrap(), None);
    println!("read in {:?}", begun.elapsed());
    let (begun, is_open) = (Instant::now(), || has_open_file_in(&directory));
    assert!(is_open());
    drop(replay);
    println!("dropped in {:?}", begun.elapsed());
    // Elsewhere, because it is large.
    while is_open() {
        std::thread::yield_now();
    }
    let grown = peak_bytes() - before;
    println!("closed in {:?}, resident memory grew by {grown} bytes", begun.elapsed());
    assert!(grown <= memory_cap + (4 << 20), "resident memory grew by {grown} bytes");
}

fn has_open_file_in(directory: &TempDir) -> bool {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let mut targets = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    targets.any(|target| target.starts_with(directory.path()))
}

/// The most memory that this process had at once, ever (proc_pid_status(5)).
fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<usize>().unwrap() * 1024
}
