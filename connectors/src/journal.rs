//! A journal is the file that the storage engine writes first; it is gone through here before the engine opens it.
//!
//! The engine cuts a journal at the first thing it can't make out, or refuses the whole database. The one would drop in
//! silence what lies behind a damaged spot, the other would keep a machine down that lost its power. Here the two are told
//! apart: an end that was half written is cut, for it was never acknowledged; a damaged spot with whole batches behind it
//! is taken out and kept beside, the rest stays, and whoever reads the log meets a gap in its offsets and is told.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{error, warn};
use xxhash_rust::xxh3::Xxh3;

use crate::log::LogError;

/// Ends each batch.
const TRAILER: [u8; 4] = [b'F', b'J', b'L', 3];
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// Tag, number of items, sequence number.
const START_BYTES: usize = 1 + 4 + 8;
/// What follows an item's tag: kind, compression, keyspace, lengths of key, value, and value as it lies here.
const ITEM_HEAD_BYTES: usize = 1 + 1 + 8 + 2 + 4 + 4;
/// Read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// How often, and how long apart, a lock is tried that a closing database may still hold.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Goes through the journals of a database that is not open, and makes each one that its engine reads to the end.
///
/// # Errors
/// [`LogError::InUse`] when another process has it open, [`LogError::Unreadable`] when the disk refuses.
pub(crate) fn mend(dir: &Path) -> Result<(), LogError> {
    let unreadable = |path: &Path, error: io::Error| LogError::Unreadable {
        path: dir.to_owned(),
        cause: format!("{}: {error}", path.display()),
    };
    let lock_path = dir.join("lock");
    if !lock_path.exists() {
        return Ok(());
    }
    // Whoever has it open writes there at this very moment.
    let lock = OpenOptions::new().read(true).write(true).open(&lock_path);
    let lock = lock.map_err(|error| unreadable(&lock_path, error))?;
    take(&lock, dir).map_err(|error| error.unwrap_or_else(|cause| unreadable(&lock_path, cause)))?;
    let journals = journals(dir).map_err(|error| unreadable(dir, error))?;
    for journal in journals {
        mend_one(&journal).map_err(|error| unreadable(&journal, error))?;
    }
    // Closing the file gives the lock back.
    drop(lock);
    Ok(())
}

fn take(lock: &File, dir: &Path) -> Result<(), Result<LogError, io::Error>> {
    for tried in 1.. {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(Err(error)),
            Err(TryLockError::WouldBlock) if tried == LOCK_TRIES => {
                return Err(Ok(LogError::InUse { path: dir.to_owned() }));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
        }
    }
    Ok(())
}

fn journals(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("jnl")) {
            journals.push(path);
        }
    }
    journals.sort();
    Ok(journals)
}

fn mend_one(path: &Path) -> io::Result<()> {
    let (mut whole, mut sequence) = (0, 0);
    loop {
        (whole, sequence) = skip_whole(path, whole, sequence)?;
        let rest = rest(path, whole)?;
        if rest.is_empty() {
            return Ok(());
        }
        let Some(lost) = next_whole(&rest, sequence) else {
            warn!(
                journal = %path.display(), at = whole, bytes = rest.len(),
                "the end of the log's journal was half written; it was never acknowledged, and is cut"
            );
            let journal = OpenOptions::new().write(true).open(path)?;
            journal.set_len(whole)?;
            return journal.sync_all();
        };
        let kept = beside(path, &format!("{whole}.damaged"));
        error!(
            journal = %path.display(), at = whole, bytes = lost, kept = %kept.display(),
            "the log's journal is damaged with whole batches behind; the damaged bytes are put aside, and the log has a gap there"
        );
        write_new(&kept, &[&rest[..lost]], None)?;
        let mended = beside(path, "mended");
        write_new(&mended, &[&rest[lost..]], Some((path, whole)))?;
        std::fs::rename(&mended, path)?;
        if let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
    }
}

/// A file beside the journal that its engine does not take for one.
fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(what);
    path.with_file_name(name)
}

/// Writes a file anew: so many bytes of another, then these.
fn write_new(path: &Path, then: &[&[u8]], first: Option<(&Path, u64)>) -> io::Result<()> {
    let mut file = File::create(path)?;
    if let Some((from, bytes)) = first {
        io::copy(&mut File::open(from)?.take(bytes), &mut file)?;
    }
    for bytes in then {
        file.write_all(bytes)?;
    }
    file.sync_all()
}

/// Where the batches that are whole end, from `at` on, and the sequence number of the last.
fn skip_whole(path: &Path, at: u64, sequence: u64) -> io::Result<(u64, u64)> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(at))?;
    let mut input = BufReader::with_capacity(CHUNK_BYTES, file);
    let (mut at, mut sequence) = (at, sequence);
    while let Some(batch) = read_batch(&mut input, length - at)? {
        at += batch.bytes;
        sequence = batch.sequence;
    }
    Ok((at, sequence))
}

/// What lies from `at` on, without the zeros that the engine reserves; empty when all of it is zeros.
fn rest(path: &Path, at: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(at))?;
    let (mut rest, mut zeros) = (Vec::new(), 0_usize);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(rest);
        }
        match chunk[..read].iter().rposition(|&byte| byte != 0) {
            // Reserved space is large, and no reason to take memory.
            None => zeros += read,
            Some(last) => {
                rest.resize(rest.len() + std::mem::take(&mut zeros), 0);
                rest.extend_from_slice(&chunk[..=last]);
                zeros = read - last - 1;
            }
        }
    }
}

/// Where in `rest` the next whole batch begins, behind what is broken. Its sequence number has to follow: so bytes that
/// only look like a batch, because somebody sent them, are not taken for one.
fn next_whole(rest: &[u8], sequence: u64) -> Option<usize> {
    (1..rest.len()).filter(|&at| rest[at] == START).find(|&at| {
        match read_batch(&mut &rest[at..], (rest.len() - at) as u64) {
            Ok(Some(batch)) => batch.sequence > sequence,
            Ok(None) | Err(_) => false,
        }
    })
}

/// A batch that is whole.
struct Batch {
    bytes: u64,
    sequence: u64,
}

/// Reads a batch of at most `room` bytes; none when there is no whole one.
fn read_batch(input: &mut impl Read, room: u64) -> io::Result<Option<Batch>> {
    match try_batch(input, room) {
        Ok(batch) => Ok(batch),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn try_batch(input: &mut impl Read, room: u64) -> io::Result<Option<Batch>> {
    let start: [u8; START_BYTES] = array(input)?;
    if start[0] != START {
        return Ok(None);
    }
    let items = u32::from_le_bytes(part(&start, 1));
    let sequence = u64::from_le_bytes(part(&start, 5));
    let mut bytes = START_BYTES as u64;
    let mut checksum = Xxh3::new();
    for _ in 0..items {
        let [tag] = array(input)?;
        checksum.update(&[tag]);
        bytes += 1;
        let length = match tag {
            ITEM => {
                let head: [u8; ITEM_HEAD_BYTES] = array(input)?;
                checksum.update(&head);
                bytes += ITEM_HEAD_BYTES as u64;
                u64::from(u16::from_le_bytes(part(&head, 10))) + u64::from(u32::from_le_bytes(part(&head, 16)))
            }
            CLEAR => 8,
            _ => return Ok(None),
        };
        if bytes + length > room {
            return Ok(None);
        }
        digest(input, length, &mut checksum)?;
        bytes += length;
    }
    let [tag] = array(input)?;
    let written = u64::from_le_bytes(array(input)?);
    let trailer: [u8; 4] = array(input)?;
    let is_whole = tag == END && trailer == TRAILER && written == checksum.digest();
    bytes += 1 + 8 + 4;
    Ok(is_whole.then_some(Batch { bytes, sequence }))
}

fn digest(input: &mut impl Read, length: u64, checksum: &mut Xxh3) -> io::Result<()> {
    let mut chunk = [0; 4096];
    let mut left = length;
    while left > 0 {
        let size = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        input.read_exact(&mut chunk[..size])?;
        checksum.update(&chunk[..size]);
        left -= size as u64;
    }
    Ok(())
}

fn array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice was cut to this length")
}

#[cfg(test)]
mod tests {
    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    fn batch(sequence: u64, value: &[u8]) -> Vec<u8> {
        let mut item = vec![ITEM, 0, 0];
        item.extend_from_slice(&7_u64.to_le_bytes());
        item.extend_from_slice(&3_u16.to_le_bytes());
        let length = u32::try_from(value.len()).expect("short").to_le_bytes();
        item.extend_from_slice(&length);
        item.extend_from_slice(&length);
        item.extend_from_slice(b"key");
        item.extend_from_slice(value);
        let mut batch = vec![START];
        batch.extend_from_slice(&1_u32.to_le_bytes());
        batch.extend_from_slice(&sequence.to_le_bytes());
        batch.extend_from_slice(&item);
        batch.push(END);
        let mut checksum = Xxh3::new();
        checksum.update(&item);
        batch.extend_from_slice(&checksum.digest().to_le_bytes());
        batch.extend_from_slice(&TRAILER);
        batch
    }

    /// What becomes of a journal of these bytes, with what the engine reserves behind them.
    fn mended(bytes: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("3.jnl");
        std::fs::write(&path, bytes)?;
        let reserved = bytes.len() as u64 + 3 * CHUNK_BYTES as u64;
        OpenOptions::new().write(true).open(&path)?.set_len(reserved)?;
        mend_one(&path)?;
        let mut left = std::fs::read(&path)?;
        let end = left.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        left.truncate(end);
        Ok(left)
    }

    #[test]
    fn a_journal_cut_or_flipped_anywhere_keeps_every_whole_batch_and_nothing_else() -> TestResult {
        let batches = [batch(5, b"one"), batch(6, &[9; 70]), batch(7, b"three")];
        let whole = batches.concat();
        assert_eq!(mended(&whole)?, whole);
        let ends = [0, batches[0].len(), batches[0].len() + batches[1].len(), whole.len()];
        for at in 0..whole.len() {
            let hit = ends.partition_point(|&end| end <= at) - 1;
            assert_eq!(mended(&whole[..at])?, batches[..hit].concat(), "cut to {at} bytes");
            let mut flipped = whole.clone();
            flipped[at] ^= 0x20;
            let mut expected = batches.to_vec();
            // The number of a batch is in no checksum, and nothing of the log depends on it alone.
            if (5..START_BYTES).contains(&(at - ends[hit])) {
                expected[hit][at - ends[hit]] ^= 0x20;
            } else {
                expected.remove(hit);
            }
            assert_eq!(mended(&flipped)?, expected.concat(), "flipped in byte {at}");
        }
        Ok(())
    }

    #[test]
    fn bytes_that_only_look_like_a_batch_are_not_taken_for_one() -> TestResult {
        let forged = batch(3, b"let me in");
        let outer = batch(6, &forged);
        let before = batch(5, b"one");
        let torn = [&before[..], &outer[..outer.len() - 2]].concat();
        assert_eq!(mended(&torn)?, before);
        Ok(())
    }
}
