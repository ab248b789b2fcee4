//! What streamed transactions wrote, held back until their commit: raw messages come in as the server sends
//! them, and go out one after the other once their transaction is taken.
//!
//! What a transaction wrote is one string of bytes, each message behind its length and its place in the log.
//! It is held in memory, in blocks. When all transactions together have as many blocks as the memory cap
//! allows and need one more, the transaction that has the most moves its first block to the end of a file of
//! its own: its string then begins in the file and goes on in memory. An abort cuts the string, wherever the
//! cut falls.
//!
//! Besides the blocks, each subtransaction that wrote takes some 40 bytes until its transaction ends: far
//! less than the server needs for it at the same time.

#[cfg(test)]
mod tests;

use crate::event::Lsn;
use crate::sys::{random, spawn_without_signals};
use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions, remove_file};
use std::io;
use std::mem;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// As much as is written to a file, or read from it, at once: enough for a disk to be fast, and little enough
/// for the loop, which waits for it.
const BLOCK_BYTES_MAX: usize = 256 * 1024;

/// The cap has room for this many blocks at least, so that a few transactions can share it.
const BLOCKS_MIN: usize = 16;

/// Closing a file that has no name costs 80 ms for each GB in it, measured on ext4. A larger one than this is
/// closed while the loop goes on.
const CLOSED_AT_ONCE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// A message is no longer than 1 GB, which is the most that libpq takes.
type Length = u32;

/// What stands before a message: its length, and its place in the log.
const HEADER_BYTES: usize = size_of::<Length>() + size_of::<u64>();

/// The transactions that are open on the server, by the number of the whole transaction.
#[derive(Debug)]
pub(crate) struct HeldBack {
    transactions: HashMap<u32, Transaction>,
    block_bytes: usize,
    blocks_max: usize,
    directory: PathBuf,
}

impl HeldBack {
    /// `memory_cap`: how many bytes of all transactions together are in memory. The files for what is above
    /// it are made in `directory`. They have no name there, and vanish when they are closed.
    pub(crate) fn new(memory_cap: usize, directory: PathBuf) -> Self {
        let block_bytes = (memory_cap / BLOCKS_MIN).clamp(1, BLOCK_BYTES_MAX);
        let blocks_max = (memory_cap / block_bytes).max(1);
        HeldBack { transactions: HashMap::new(), block_bytes, blocks_max, directory }
    }

    /// Adds a message of the transaction `xid`, written by its subtransaction `subxid`, or by itself if the
    /// two are equal. After an error, such as a full disk, all is as it was before, and the call can be
    /// repeated.
    pub(crate) fn append(&mut self, xid: u32, subxid: u32, lsn: Lsn, message: &[u8]) -> io::Result<()> {
        let length = Length::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut header = [0; HEADER_BYTES];
        header[..size_of::<Length>()].copy_from_slice(&length.to_ne_bytes());
        header[size_of::<Length>()..].copy_from_slice(&lsn.0.to_ne_bytes());
        let transaction = self.transactions.entry(xid).or_default();
        let start = transaction.bytes;
        if transaction.has_room(HEADER_BYTES + message.len(), self.block_bytes) {
            transaction.fill_block(&header, self.block_bytes);
            transaction.fill_block(message, self.block_bytes);
            transaction.note_writer(xid, subxid, start);
            return Ok(());
        }
        let written = self.write(xid, &header).and_then(|()| self.write(xid, message));
        let transaction = self.transactions.entry(xid).or_default();
        match written {
            Ok(()) => transaction.note_writer(xid, subxid, start),
            Err(_) => transaction.cut(start),
        }
        written
    }

    /// Drops what the subtransaction `subxid` wrote and those nested in it, and nothing else; or the whole
    /// transaction, if the two are equal. What is not held back is ignored: it wrote nothing.
    ///
    /// From its first message to its abort, nobody but it and those nested in it writes in its transaction.
    /// When it outlives one that is nested in it, and aborts, that one's abort comes first (`DecodeAbort` in
    /// PostgreSQL's decode.c). So everything from its first message on goes, as in `stream_abort_internal` of
    /// PostgreSQL's worker.c. It does no harm that descriptions of tables go, too: the server sends them anew
    /// after each abort (`pgoutput_stream_abort` in pgoutput.c).
    pub(crate) fn abort(&mut self, xid: u32, subxid: u32) {
        if subxid == xid {
            self.transactions.remove(&xid);
        } else if let Some(transaction) = self.transactions.get_mut(&xid) {
            transaction.abort(subxid);
        }
    }

    /// Hands out what the transaction wrote, at its commit or when it is prepared; nothing, if that was
    /// nothing. It is not counted any longer: what is appended before all of it is handed out takes memory
    /// besides.
    pub(crate) fn take(&mut self, xid: u32) -> Replay {
        Replay {
            transaction: self.transactions.remove(&xid).unwrap_or_default(),
            file_bytes_read: 0,
            block: Vec::new(),
            block_bytes_given: 0,
            block_bytes: self.block_bytes,
            message: Vec::new(),
            directory: self.directory.clone(),
        }
    }

    /// Drops everything: after a lost connection the server streams what is open again from its beginning.
    pub(crate) fn clear(&mut self) {
        self.transactions.clear();
    }

    /// How many transactions are held back.
    #[cfg(test)]
    pub(crate) fn transactions(&self) -> usize {
        self.transactions.len()
    }

    /// How much memory the messages take. Blocks that are not full yet count as full.
    pub(crate) fn bytes_in_memory(&self) -> usize {
        self.blocks() * self.block_bytes
    }

    pub(crate) fn bytes_in_files(&self) -> u64 {
        self.transactions.values().map(|transaction| transaction.file_bytes).sum()
    }

    fn blocks(&self) -> usize {
        self.transactions.values().map(|transaction| transaction.blocks.len()).sum()
    }

    fn write(&mut self, xid: u32, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            bytes = self.transactions.entry(xid).or_default().fill_block(bytes, self.block_bytes);
            if bytes.is_empty() {
                return Ok(());
            }
            self.make_room().map_err(|error| with_directory(error, &self.directory))?;
            let blocks = &mut self.transactions.entry(xid).or_default().blocks;
            blocks.push_back(Vec::with_capacity(self.block_bytes));
        }
    }

    /// Makes room in memory for one more block.
    fn make_room(&mut self) -> io::Result<()> {
        while self.blocks() >= self.blocks_max {
            let largest = self.transactions.values_mut().max_by_key(|transaction| transaction.blocks.len());
            let Some(largest) = largest else { break };
            largest.write_first_block(&self.directory)?;
        }
        Ok(())
    }
}

/// What one transaction wrote so far.
#[derive(Debug, Default)]
struct Transaction {
    /// The length of the whole string, of its beginning in the file, and what follows in memory. All blocks
    /// but the last are full; none is empty.
    bytes: u64,
    file_bytes: u64,
    blocks: VecDeque<Vec<u8>>,
    /// Made when the first block has to leave memory.
    file: Option<File>,
    /// The subtransactions that wrote, in the order in which they began to, and where in the string that was.
    writers: Vec<u32>,
    starts: HashMap<u32, u64>,
}

impl Transaction {
    /// Whether the last block takes so much more.
    fn has_room(&self, bytes: usize, block_bytes: usize) -> bool {
        self.blocks.back().is_some_and(|block| block.len() + bytes <= block_bytes)
    }

    /// Fills the last block; gives back what it had no room for.
    fn fill_block<'a>(&mut self, bytes: &'a [u8], block_bytes: usize) -> &'a [u8] {
        let Some(block) = self.blocks.back_mut() else { return bytes };
        let (fits, rest) = bytes.split_at(bytes.len().min(block_bytes - block.len()));
        block.extend_from_slice(fits);
        self.bytes += fits.len() as u64;
        rest
    }

    /// The place in the file is always given, so what a failed attempt left there is written over.
    fn write_first_block(&mut self, directory: &Path) -> io::Result<()> {
        let Some(block) = self.blocks.front() else { return Ok(()) };
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open_unlinked(directory)?),
        };
        file.write_all_at(block, self.file_bytes)?;
        self.file_bytes += block.len() as u64;
        self.blocks.pop_front();
        Ok(())
    }

    fn note_writer(&mut self, xid: u32, subxid: u32, start: u64) {
        if subxid != xid && !self.starts.contains_key(&subxid) {
            self.starts.insert(subxid, start);
            self.writers.push(subxid);
        }
    }

    fn abort(&mut self, subxid: u32) {
        let Some(&start) = self.starts.get(&subxid) else { return };
        while let Some(writer) = self.writers.pop() {
            self.starts.remove(&writer);
            if writer == subxid {
                break;
            }
        }
        self.cut(start);
    }

    /// Drops all of the string but its first `bytes`.
    fn cut(&mut self, bytes: u64) {
        while self.bytes > bytes.max(self.file_bytes)
            && let Some(block) = self.blocks.back_mut()
        {
            let kept = (block.len() as u64).saturating_sub(self.bytes - bytes) as usize;
            self.bytes -= (block.len() - kept) as u64;
            block.truncate(kept);
            if kept == 0 {
                self.blocks.pop_back();
            }
        }
        if let Some(file) = self.file.as_ref().filter(|_| self.file_bytes > bytes) {
            // Only to give the room back: what would stay there is written over.
            let _ = file.set_len(bytes);
            self.file_bytes = bytes;
            self.bytes = bytes;
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(file) = self.file.take()
            && self.file_bytes > CLOSED_AT_ONCE_BYTES_MAX
        {
            // Where no thread can be started, the file is closed here.
            let _ = spawn_without_signals("pgwake-close", move || drop(file));
        }
    }
}

/// A transaction that is handed out. What it takes in memory goes with it, block by block; its file when it
/// is dropped.
#[derive(Debug)]
pub(crate) struct Replay {
    transaction: Transaction,
    file_bytes_read: u64,
    block: Vec<u8>,
    block_bytes_given: usize,
    block_bytes: usize,
    /// As large as the largest message so far that lay in more than one block, up to 1 GB.
    message: Vec<u8>,
    directory: PathBuf,
}

impl Replay {
    /// The next message and its place in the log, in the order in which they came. After an error the rest
    /// cannot be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<(Lsn, &[u8])>> {
        if !self.has_more()? {
            return Ok(None);
        }
        let header = self.read(HEADER_BYTES)?;
        let (mut length, mut lsn) = ([0; size_of::<Length>()], [0; size_of::<u64>()]);
        length.copy_from_slice(&header[..size_of::<Length>()]);
        lsn.copy_from_slice(&header[size_of::<Length>()..]);
        let message = self.read(Length::from_ne_bytes(length) as usize)?;
        Ok(Some((Lsn(u64::from_ne_bytes(lsn)), message)))
    }

    /// The next bytes, as many as are asked for: where they lie, or put together in `message` if they do not
    /// lie in one block.
    fn read(&mut self, bytes: usize) -> io::Result<&[u8]> {
        let end = self.block_bytes_given + bytes;
        if end <= self.block.len() {
            let start = mem::replace(&mut self.block_bytes_given, end);
            return Ok(&self.block[start..end]);
        }
        self.message.clear();
        self.message.reserve(bytes);
        while self.message.len() < bytes {
            if !self.has_more()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let rest = &self.block[self.block_bytes_given..];
            let part = &rest[..rest.len().min(bytes - self.message.len())];
            self.message.extend_from_slice(part);
            self.block_bytes_given += part.len();
        }
        Ok(&self.message)
    }

    /// Whether any byte is left. Goes on to the next block, of the file and then of memory, when all of the
    /// last one is given.
    fn has_more(&mut self) -> io::Result<bool> {
        if self.block_bytes_given < self.block.len() {
            return Ok(true);
        }
        let unread = self.transaction.file_bytes - self.file_bytes_read;
        self.block_bytes_given = 0;
        match &self.transaction.file {
            Some(file) if unread > 0 => {
                self.block.resize(unread.min(self.block_bytes as u64) as usize, 0);
                if let Err(error) = file.read_exact_at(&mut self.block, self.file_bytes_read) {
                    self.block.clear();
                    return Err(with_directory(error, &self.directory));
                }
                self.file_bytes_read += self.block.len() as u64;
            }
            _ => self.block = self.transaction.blocks.pop_front().unwrap_or_default(),
        }
        Ok(!self.block.is_empty())
    }
}

/// A file without a name, which only its owner can read.
fn open_unlinked(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let unnamed = options.clone().custom_flags(libc::O_TMPFILE).open(directory);
    // Not every file system has `O_TMPFILE` (open(2)).
    unnamed.or_else(|_| create_and_unlink(options, directory))
}

fn create_and_unlink(mut options: OpenOptions, directory: &Path) -> io::Result<File> {
    let path = directory.join(format!("pgwake-{:016x}", random()));
    let file = options.create_new(true).open(&path)?;
    remove_file(&path)?;
    Ok(file)
}

fn with_directory(error: io::Error, directory: &Path) -> io::Error {
    if error.raw_os_error() == Some(libc::EMFILE) {
        // No other directory would help.
        return error;
    }
    let message = format!(
        "the directory {} for what open transactions wrote does not serve: {error}; TMPDIR names another",
        directory.display()
    );
    io::Error::new(error.kind(), message)
}
