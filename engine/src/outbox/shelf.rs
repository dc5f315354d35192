//! A shelf is where the journal lies: a spool on disk, or a disk that a simulation invents.

use bytes::Bytes;
use usher_connectors::spool::{Change, Spool, SpoolError};

/// Numbered entries and named marks; what each call means stands at [`Spool`].
pub(crate) trait Shelf: Send + Sync + 'static {
    /// Writes changes, all or none.
    fn write(&self, changes: &[Change]) -> Result<(), SpoolError>;

    /// Makes what was written survive a loss of power.
    fn sync(&self) -> Result<(), SpoolError>;

    /// Entries from `from` on.
    fn read(&self, from: u64, max_entries: usize, max_bytes: usize) -> Result<Vec<(u64, Bytes)>, SpoolError>;

    /// One entry.
    fn get(&self, number: u64) -> Result<Option<Bytes>, SpoolError>;

    /// The numbers of the first and the last.
    fn span(&self) -> Result<Option<(u64, u64)>, SpoolError>;

    /// The marks whose names begin so.
    fn marks(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, SpoolError>;

    /// What was written over or dropped is found nowhere on the disk any more.
    fn purge(&self) -> Result<(), SpoolError>;

    /// Bytes on disk.
    fn disk_bytes(&self) -> u64;

    /// Whether a call may take so long that it needs a thread of its own.
    fn keeps_waiting(&self) -> bool {
        true
    }
}

impl Shelf for Spool {
    fn write(&self, changes: &[Change]) -> Result<(), SpoolError> {
        Spool::write(self, changes)
    }

    fn sync(&self) -> Result<(), SpoolError> {
        Spool::sync(self)
    }

    fn read(&self, from: u64, max_entries: usize, max_bytes: usize) -> Result<Vec<(u64, Bytes)>, SpoolError> {
        Spool::read(self, from, max_entries, max_bytes)
    }

    fn get(&self, number: u64) -> Result<Option<Bytes>, SpoolError> {
        Spool::get(self, number)
    }

    fn span(&self) -> Result<Option<(u64, u64)>, SpoolError> {
        Spool::span(self)
    }

    fn marks(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, SpoolError> {
        Spool::marks(self, prefix)
    }

    fn purge(&self) -> Result<(), SpoolError> {
        Spool::purge(self)
    }

    fn disk_bytes(&self) -> u64 {
        Spool::disk_bytes(self)
    }
}
