//! A log keeps records in the order in which they were appended, each at an offset.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

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

/// Which assignment of a partition an owner writes under. A later assignment has a larger one; 0 is for a log that was
/// never assigned to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the records of one partition are kept, and replayed from.
///
/// A log of several partitions is several of these; [`crate::partition::partition_of`] says which one a site's records
/// belong to. One owner appends to a partition at a time, under the epoch of its assignment.
///
/// The contract, and who sees to it:
/// - Offsets are promised at once, consecutive, in the order of the calls (checked by the contract suite). A log whose
///   server gives the offsets promises those behind the last one it knows, and fails an append that got another.
/// - An append whose `durable` resolved with `Ok` survives a crash (checked by restarts, trusted of the disk).
/// - What can't be written now is tried again until it can, in the order of the calls; [`Log::health`] says since when and
///   why. Meanwhile nothing resolves, the queue fills up, and whoever appends waits (checked on a full disk).
/// - An append fails for good only when the log was closed before it could be written, or an owner with a later epoch
///   came. It may nevertheless be found after a restart, so a record sent again must be recognisable as the same (trusted).
/// - What is read is exactly what was appended, in order; anything else is [`LogError::Damaged`] (checked).
/// - Once a later epoch has been claimed, appends under an earlier one are refused (checked).
/// - `retain` takes nothing at or after `keep_from` (checked).
/// - Where records can be replaced, nothing but what `replace` gives changes, and after `purge` what was replaced is found on no
///   disk (checked where the log lies in a folder).
/// - A checkpoint names only offsets that are durable (trusted; see [`Log::durable`]).
pub trait Log: Send + Sync + 'static {
    /// Enqueues records; they lie together. Never waits.
    ///
    /// # Errors
    /// [`LogError::Busy`] when the bounded queue is full: wait for [`Log::room`] and try again. [`LogError::Fenced`] when
    /// the log has a later owner.
    fn append(&self, records: Vec<Bytes>) -> Result<Append, LogError>;

    /// Resolves when the queue has room, or the log is closed.
    fn room(&self) -> BoxFuture<'_, ()>;

    /// Waits until a record at `from`, or one after it, can be read, and gives the offset up to which there is something
    /// to read. So a reader follows the log: read until nothing comes, wait here, read on.
    ///
    /// # Errors
    /// [`LogError::Closed`] when none will come any more.
    fn tail(&self, from: Offset) -> BoxFuture<'_, Result<Offset, LogError>>;

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

    /// Gives durable records from `from` to `until`, about `max_records` of them, to `replace`, and writes what that gives in
    /// their place, at the same offsets; `None` leaves a record. Nobody who appends or reads waits for it. To be called again
    /// from [`Rewritten::next`] on until that is `until`. Blocks on the disk.
    ///
    /// # Errors
    /// [`LogError::Immutable`] where records can't be replaced, [`LogError::Unwritable`]; the same again later is right.
    fn rewrite(
        &self,
        _from: Offset,
        _until: Offset,
        _max_records: usize,
        _replace: &mut dyn FnMut(Offset, &Bytes) -> Option<Bytes>,
    ) -> Result<Rewritten, LogError> {
        Err(LogError::Immutable)
    }

    /// What records were before they were replaced is found nowhere on the disk any more when this returns. Who appends waits
    /// for a moment. Blocks on the disk for long.
    ///
    /// # Errors
    /// As [`Log::rewrite`].
    fn purge(&self) -> Result<(), LogError> {
        Err(LogError::Immutable)
    }

    /// Makes this handle the owner under `epoch`: durable when it returns, and refused ever after to an earlier one. An
    /// owner that comes back claims the epoch it had. Blocks on the disk.
    ///
    /// # Errors
    /// [`LogError::Fenced`] when a later epoch was claimed before, [`LogError::Unwritable`] when it can't be kept.
    fn claim(&self, epoch: Epoch) -> Result<(), LogError>;

    /// The epoch under which this handle appends; 0 when it claimed none.
    fn epoch(&self) -> Epoch;

    /// How writing goes. Cheap, and never waits for the disk.
    fn health(&self) -> LogHealth;

    /// Takes no more appends. What is queued is still written; what the disk refuses now is given up, unacknowledged.
    fn close(&self);
}

/// How a log is, for those who have to say whether the engine is fit to serve.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogHealth {
    /// Why nothing can be written, and since when; none while it can.
    pub trouble: Option<Trouble>,
    /// Records that are not durable yet.
    pub waiting_records: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// How long the oldest of them has waited.
    pub waiting_for: Duration,
    /// Attempts to write that failed since it was opened.
    pub failures: u64,
}

/// What keeps a log from being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Since when, microseconds since 1970.
    pub since_us: i64,
    /// What is wrong, in words.
    pub reason: String,
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
    /// When it was not and will not be written; nothing may be acknowledged then.
    pub async fn durable(self) -> Result<(), LogError> {
        self.done.await.unwrap_or(Err(LogError::Closed))
    }

    /// As [`Append::durable`], for whoever may have to wait for something else meanwhile: dropping the future loses
    /// nothing. Not to be called again once it has resolved.
    ///
    /// # Errors
    /// As [`Append::durable`].
    pub async fn wait(&mut self) -> Result<(), LogError> {
        (&mut self.done).await.unwrap_or(Err(LogError::Closed))
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

/// What a turn of rewriting did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rewritten {
    /// Where the next turn goes on.
    pub next: Offset,
    /// Records that were replaced.
    pub replaced: u64,
    /// Records that can't be read and so were not looked at.
    pub damaged: u64,
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
    /// The disk does not take it. Nothing was acknowledged.
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
    /// Somebody else owns it now.
    #[error(
        "the log in {path} has been taken over under epoch {newest}, so nothing is appended under epoch {own} any more; stop this one, or give it a new assignment"
    )]
    Fenced {
        /// The log's folder, or its topic.
        path: PathBuf,
        /// Under which epoch it was tried.
        own: Epoch,
        /// The latest one claimed.
        newest: Epoch,
    },
    /// It has another number of partitions.
    #[error(
        "the log in {path} has {found} partitions and not {wanted}; the number can't change, for it decides where each site's records are: open it with {found}, or choose another folder"
    )]
    Partitions {
        /// The log's folder.
        path: PathBuf,
        /// How many it has.
        found: u32,
        /// How many were asked for.
        wanted: u32,
    },
    /// Another process has it open.
    #[error("the log in {path} is open in another process; stop that one, or choose another folder")]
    InUse {
        /// The log's folder.
        path: PathBuf,
    },
    /// A later version of Usher has written it. Nothing was changed.
    #[error("{path} was written by a newer Usher: {cause}; run that version again, or choose another folder")]
    OfNewerVersion {
        /// What is too new.
        path: PathBuf,
        /// In which way.
        cause: String,
    },
    /// The records are more than one append may hold.
    #[error("{bytes} bytes in one append are more than the {max} allowed; split them")]
    TooLarge {
        /// Bytes of the records together.
        bytes: usize,
        /// The most one append may hold.
        max: usize,
    },
    /// Its records stay as they were written.
    #[error("records of this log can't be replaced; they go when its retention drops them")]
    Immutable,
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}
