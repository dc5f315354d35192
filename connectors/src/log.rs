//! A log keeps records in the order in which they were appended, each at an offset.

use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::BoxFuture;

/// The place of a record in the log. Offsets are consecutive, starting at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Offset(pub u64);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where records are kept, and replayed from.
///
/// The contract, and who sees to it:
/// - Offsets are given at once, consecutive, in the order of the calls (checked by the contract suite).
/// - An append whose `durable` resolved with `Ok` survives a crash (checked by restarts, trusted of the disk).
/// - What is read is exactly what was appended, in order; anything else is [`LogError::Damaged`] (checked).
/// - After a failed append its offsets are given again to later ones; what failed may nevertheless be found
///   after a restart, so a record sent again must be recognisable as the same (trusted).
/// - `retain` takes nothing at or after `keep_from` (checked).
/// - A checkpoint names only offsets that are durable (trusted; see [`Log::durable`]).
pub trait Log: Send + Sync + 'static {
    /// Enqueues records; they lie together. Never waits.
    ///
    /// # Errors
    /// [`LogError::Busy`] when the bounded queue is full: wait for [`Log::room`] and try again.
    fn append(&self, records: Vec<Bytes>) -> Result<Append, LogError>;

    /// Resolves when the queue has room, or the log is closed.
    fn room(&self) -> BoxFuture<'_, ()>;

    /// Reads durable records from `from` on: at most `max_records`, and no more than `max_bytes` unless the
    /// first alone is larger. Empty when there is nothing yet. Blocks on the disk. A replay asks for thousands of
    /// records at a time, since what was committed together is decoded together.
    ///
    /// # Errors
    /// [`LogError::Expired`] when `from` is no longer kept, [`LogError::Damaged`] when what lies there is broken.
    fn read(&self, from: Offset, max_records: usize, max_bytes: usize) -> Result<Vec<(Offset, Bytes)>, LogError>;

    /// The first offset that is kept.
    fn oldest(&self) -> Offset;

    /// The offset the next append gets.
    fn next(&self) -> Offset;

    /// Everything before this offset is durable.
    fn durable(&self) -> Offset;

    /// Drops what is older or more than configured, oldest first, and nothing at or after `keep_from`.
    /// `now_us` is microseconds since 1970. Blocks on the disk.
    ///
    /// # Errors
    /// [`LogError::Unwritable`]; trying again later is right.
    fn retain(&self, keep_from: Offset, now_us: i64) -> Result<Retained, LogError>;
}

/// An append under way: its place is known, its durability awaited.
#[derive(Debug)]
pub struct Append {
    /// Offset of its first record.
    pub first: Offset,
    /// Number of its records.
    pub count: u64,
    done: oneshot::Receiver<Result<(), LogError>>,
}

impl Append {
    /// An append, and the end that says how it went.
    pub fn pending(first: Offset, count: u64) -> (Append, oneshot::Sender<Result<(), LogError>>) {
        let (sender, done) = oneshot::channel();
        (Append { first, count, done }, sender)
    }

    /// The offset after its last record.
    pub fn next(&self) -> Offset {
        Offset(self.first.0 + self.count)
    }

    /// Waits until it is durable. Dropping this future does not undo the append.
    ///
    /// # Errors
    /// [`LogError::Unwritable`] when it could not be written; nothing may be acknowledged then.
    pub async fn durable(self) -> Result<(), LogError> {
        self.done.await.unwrap_or(Err(LogError::Closed))
    }

    /// As [`Append::durable`], for a thread that may block. Not to be called inside the async runtime.
    ///
    /// # Errors
    /// As [`Append::durable`].
    pub fn wait_durable(self) -> Result<(), LogError> {
        self.done.blocking_recv().unwrap_or(Err(LogError::Closed))
    }
}

/// What a retention run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retained {
    /// Records dropped.
    pub dropped_records: u64,
    /// Bytes dropped, before compression.
    pub dropped_bytes: u64,
    /// The first offset kept now.
    pub oldest: Offset,
}

/// What can go wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The queue to the disk is full; wait for room.
    #[error("the log's queue is full; wait for the disk and append again")]
    Busy,
    /// The records asked for are gone.
    #[error("that offset is no longer kept; the oldest kept is {0}")]
    Expired(Offset),
    /// What lies at an offset is not what was written there.
    #[error("the log is damaged at offset {offset}: {reason}; records continue at offset {resume}")]
    Damaged {
        /// First offset that cannot be read.
        offset: Offset,
        /// Where reading can go on.
        resume: Offset,
        /// What is wrong.
        reason: String,
    },
    /// The disk does not take it. Nothing was acknowledged; later appends try again.
    #[error("cannot write the log in {path}: {cause}; nothing is acknowledged until this works again")]
    Unwritable {
        /// The log's folder.
        path: PathBuf,
        /// What the disk said.
        cause: String,
    },
    /// The disk does not give it back.
    #[error("cannot read the log in {path}: {cause}")]
    Unreadable {
        /// The log's folder.
        path: PathBuf,
        /// What the disk said.
        cause: String,
    },
    /// Another process has it open.
    #[error("the log in {path} is open in another process; stop that one, or choose another folder")]
    InUse {
        /// The log's folder.
        path: PathBuf,
    },
    /// The records are more than one append may hold.
    #[error("{bytes} bytes in one append are more than the {max} allowed; split them")]
    TooLarge {
        /// Bytes of the records together.
        bytes: usize,
        /// The most one append may hold.
        max: usize,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}
