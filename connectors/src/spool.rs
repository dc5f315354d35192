//! A spool keeps numbered entries on disk until they are no longer wanted, and small marks beside them.
//!
//! It is a queue with several readers: an entry is written once and read by number, and who has come how far is
//! written as marks. What is written in one go is there whole or not at all, and never before what was written earlier.

use std::path::{Path, PathBuf};
use std::sync::RwLock;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::log_store::words;
use crate::purge;

/// The write-ahead journals together; the least that fjall allows.
const JOURNAL_BYTES: u64 = 64 << 20;
/// Entries are mostly read while they are in memory anyway.
const CACHE_BYTES: u64 = 4 << 20;
/// A memtable is flushed at this size, which bounds the memory that it takes.
const MEMTABLE_BYTES: u64 = 4 << 20;

/// Why a spool can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    /// Another process has it.
    #[error("the spool in {} is in use by another process", path.display())]
    InUse {
        /// Its folder.
        path: PathBuf,
    },
    /// The disk does not do what it should; trying again later is right.
    #[error("the spool in {}: {cause}", path.display())]
    Failed {
        /// Its folder.
        path: PathBuf,
        /// What the system says.
        cause: String,
    },
}

/// One change; see [`Spool::write`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Writes an entry, over one of the same number.
    Put(u64, Bytes),
    /// Drops an entry.
    Drop(u64),
    /// Sets a mark.
    Mark(String, Bytes),
    /// Drops a mark.
    Unmark(String),
}

/// Numbered entries and named marks in a folder.
pub struct Spool {
    path: PathBuf,
    /// `None` between a failure and the next try: fjall takes no write after a failed one, so it is opened anew.
    open: RwLock<Option<OpenSpool>>,
}

struct OpenSpool {
    database: Database,
    entries: Keyspace,
    marks: Keyspace,
}

impl Spool {
    /// Opens the spool in `dir`, creating the folder if need be. Blocks on the disk.
    ///
    /// # Errors
    /// [`SpoolError::InUse`], or [`SpoolError::Failed`] when it can't be opened.
    pub fn open(dir: &Path) -> Result<Self, SpoolError> {
        let open = OpenSpool::open(dir)?;
        Ok(Self {
            path: dir.to_owned(),
            open: RwLock::new(Some(open)),
        })
    }

    /// Writes changes, all or none, behind everything written before. They survive the end of the process; a loss of
    /// power only after [`Spool::sync`]. Blocks on the disk.
    ///
    /// # Errors
    /// [`SpoolError::Failed`]; writing the same again later is right, since numbers and names stay.
    pub fn write(&self, changes: &[Change]) -> Result<(), SpoolError> {
        self.with(|open| {
            let mut batch = open.database.batch().durability(Some(PersistMode::Buffer));
            for change in changes {
                match change {
                    Change::Put(number, bytes) => batch.insert(&open.entries, number.to_be_bytes(), &**bytes),
                    Change::Drop(number) => batch.remove(&open.entries, number.to_be_bytes()),
                    Change::Mark(name, bytes) => batch.insert(&open.marks, name.as_str(), &**bytes),
                    Change::Unmark(name) => batch.remove(&open.marks, name.as_str()),
                }
            }
            batch.commit()
        })
    }

    /// Makes all that was written durable. Blocks on the disk.
    ///
    /// # Errors
    /// [`SpoolError::Failed`]; then what was written since the last time may be lost, and is to be written again.
    pub fn sync(&self) -> Result<(), SpoolError> {
        self.with(|open| open.database.persist(PersistMode::SyncData))
    }

    /// Entries from `from` on by number, at most `max_entries`, and no more than `max_bytes` unless the first alone is
    /// larger. Blocks on the disk.
    ///
    /// # Errors
    /// [`SpoolError::Failed`].
    pub fn read(&self, from: u64, max_entries: usize, max_bytes: usize) -> Result<Vec<(u64, Bytes)>, SpoolError> {
        self.with(|open| {
            let mut found = Vec::new();
            let mut bytes = 0;
            for entry in open.entries.range(from.to_be_bytes()..).take(max_entries) {
                let (key, value) = entry.into_inner()?;
                bytes += value.len();
                if bytes > max_bytes && !found.is_empty() {
                    break;
                }
                found.push((number_of(&key), Bytes::copy_from_slice(&value)));
            }
            Ok(found)
        })
    }

    /// The entry of that number. Blocks on the disk.
    ///
    /// # Errors
    /// [`SpoolError::Failed`].
    pub fn get(&self, number: u64) -> Result<Option<Bytes>, SpoolError> {
        self.with(|open| {
            let found = open.entries.get(number.to_be_bytes())?;
            Ok(found.map(|value| Bytes::copy_from_slice(&value)))
        })
    }

    /// The numbers of the first and the last entry. Blocks on the disk.
    ///
    /// # Errors
    /// [`SpoolError::Failed`].
    pub fn span(&self) -> Result<Option<(u64, u64)>, SpoolError> {
        self.with(|open| {
            let first = open.entries.first_key_value().map(fjall::Guard::key).transpose()?;
            let last = open.entries.last_key_value().map(fjall::Guard::key).transpose()?;
            Ok(first
                .zip(last)
                .map(|(first, last)| (number_of(&first), number_of(&last))))
        })
    }

    /// The marks whose names begin with `prefix`, in the order of their names. Blocks on the disk.
    ///
    /// # Errors
    /// [`SpoolError::Failed`].
    pub fn marks(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, SpoolError> {
        self.with(|open| {
            let mut found = Vec::new();
            for entry in open.marks.prefix(prefix) {
                let (key, value) = entry.into_inner()?;
                found.push((
                    String::from_utf8_lossy(&key).into_owned(),
                    Bytes::copy_from_slice(&value),
                ));
            }
            Ok(found)
        })
    }

    /// What was written over or dropped is found nowhere on the disk any more when this returns. Whoever wants the spool waits
    /// while its journal is ended, and not while its tables are merged. Blocks on the disk.
    ///
    /// # Errors
    /// [`SpoolError::Failed`]; trying again later is right.
    pub fn purge(&self) -> Result<(), SpoolError> {
        let ended = {
            let mut guard = self.open.write().expect("no holder of this lock panics");
            *guard = None;
            let ended = purge::end_journals(&self.path).map_err(|error| self.failed(&fjall::Error::Io(error)))?;
            *guard = Some(OpenSpool::open(&self.path)?);
            ended
        };
        let held = self.with(|open| Ok((open.database.clone(), [open.entries.clone(), open.marks.clone()])));
        let (database, keyspaces) = held?;
        purge::merge(&database, &keyspaces, &keyspaces, &ended).map_err(|error| self.failed(&error))
    }

    /// Bytes on disk, the write-ahead journal left out.
    pub fn disk_bytes(&self) -> u64 {
        let guard = self.open.read().expect("no holder of this lock panics");
        guard
            .as_ref()
            .map_or(0, |open| open.entries.disk_space() + open.marks.disk_space())
    }

    /// Runs `work` on the open database. After an error it is opened anew at the next call.
    fn with<T>(&self, work: impl FnOnce(&OpenSpool) -> Result<T, fjall::Error>) -> Result<T, SpoolError> {
        if self.open.read().expect("no holder of this lock panics").is_none() {
            let mut guard = self.open.write().expect("no holder of this lock panics");
            if guard.is_none() {
                *guard = Some(OpenSpool::open(&self.path)?);
            }
        }
        let result = {
            let guard = self.open.read().expect("no holder of this lock panics");
            match guard.as_ref() {
                Some(open) => work(open),
                // Somebody else failed in between.
                None => Err(fjall::Error::Poisoned),
            }
        };
        result.map_err(|error| {
            *self.open.write().expect("no holder of this lock panics") = None;
            self.failed(&error)
        })
    }

    fn failed(&self, error: &fjall::Error) -> SpoolError {
        SpoolError::Failed {
            path: self.path.clone(),
            cause: words(error),
        }
    }
}

impl OpenSpool {
    fn open(dir: &Path) -> Result<Self, SpoolError> {
        let failed = |error: fjall::Error| match error {
            fjall::Error::Locked => SpoolError::InUse { path: dir.to_owned() },
            error => SpoolError::Failed {
                path: dir.to_owned(),
                cause: words(&error),
            },
        };
        let database = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(1)
            .open()
            .map_err(failed)?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let entries = database.keyspace("entries", options).map_err(failed)?;
        let marks = database.keyspace("marks", options).map_err(failed)?;
        Ok(Self {
            database,
            entries,
            marks,
        })
    }
}

fn number_of(key: &[u8]) -> u64 {
    u64::from_be_bytes(
        key.try_into()
            .expect("every key of an entry was written as eight bytes"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    fn put(number: u64, text: &str) -> Change {
        Change::Put(number, Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn entries_and_marks_are_there_after_a_restart_and_what_was_dropped_is_not() -> Outcome {
        let folder = tempfile::tempdir()?;
        let spool = Spool::open(folder.path())?;
        assert_eq!(spool.span()?, None);
        spool.write(&[
            put(7, "seven"),
            put(8, "eight"),
            Change::Mark("at/a".into(), "8".into()),
        ])?;
        spool.write(&[put(300, "later"), Change::Drop(7)])?;
        spool.write(&[
            Change::Mark("at/b".into(), "9".into()),
            Change::Mark("au".into(), "x".into()),
            Change::Unmark("at/a".into()),
        ])?;
        drop(spool);
        let spool = Spool::open(folder.path())?;
        assert_eq!(spool.span()?, Some((8, 300)));
        assert_eq!(spool.get(7)?, None);
        assert_eq!(spool.get(8)?, Some(Bytes::from("eight")));
        let read = spool.read(8, 10, usize::MAX)?;
        assert_eq!(read, [(8, Bytes::from("eight")), (300, Bytes::from("later"))]);
        assert_eq!(spool.read(8, 10, 6)?.len(), 1, "the second would be too many bytes");
        assert_eq!(spool.read(8, 10, 1)?.len(), 1, "the first comes whatever its size");
        assert_eq!(spool.marks("at/")?, [("at/b".to_owned(), Bytes::from("9"))]);
        Ok(())
    }

    /// Files below a folder that have a text in them.
    fn files_with(folder: &Path, text: &str) -> std::io::Result<usize> {
        let mut found = 0;
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                found += files_with(&path, text)?;
                continue;
            }
            let bytes = std::fs::read(path)?;
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let is_in = bytes[..end].windows(text.len()).any(|window| window == text.as_bytes());
            found += usize::from(is_in);
        }
        Ok(found)
    }

    #[test]
    fn what_was_written_over_or_dropped_is_in_no_file_after_a_purge() -> Outcome {
        let folder = tempfile::tempdir()?;
        let spool = Spool::open(folder.path())?;
        for round in 0..3 {
            spool.write(&[
                put(1, "SECRET one"),
                put(2, "two"),
                put(3, "SECRET three"),
                Change::Mark("letter".into(), "SECRET letter".into()),
            ])?;
            assert!(files_with(folder.path(), "SECRET")? > 0);
            spool.write(&[put(1, "one"), Change::Unmark("letter".into())])?;
            // That something was dropped is the last that was written.
            spool.write(&[Change::Drop(3)])?;
            spool.purge()?;
            assert_eq!(files_with(folder.path(), "SECRET")?, 0, "round {round}");
            let left = spool.read(0, 9, usize::MAX)?;
            assert_eq!(left, [(1, Bytes::from("one")), (2, Bytes::from("two"))]);
            assert_eq!(spool.marks("")?, []);
        }
        drop(spool);
        let spool = Spool::open(folder.path())?;
        assert_eq!(spool.span()?, Some((1, 2)));
        assert_eq!(files_with(folder.path(), "SECRET")?, 0);
        Ok(())
    }

    #[test]
    fn a_spool_in_use_is_said_so() -> Outcome {
        let folder = tempfile::tempdir()?;
        let _spool = Spool::open(folder.path())?;
        let second = Spool::open(folder.path()).err().ok_or("it was opened twice")?;
        assert!(matches!(second, SpoolError::InUse { .. }), "{second}");
        Ok(())
    }
}
