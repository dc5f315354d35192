//! The embedded log keeps its records in a folder, durable at every acknowledgement.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use crate::BoxFuture;
use crate::checkpoint::CheckpointStore;
use crate::log::{Append, Log, LogError, Offset, Retained};
use crate::log_store::LogStore;
use crate::log_writer::{self, WriteQueue};

/// How much a log keeps, and how much may be under way.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Records older than this are dropped by [`Log::retain`]; what is kept exceeds it by at most an eighth.
    pub retention_age: Option<Duration>,
    /// Bytes, before compression, beyond which the oldest records are dropped; exceeded by at most an eighth.
    pub retention_bytes: Option<u64>,
    /// A segment is closed at this many bytes. Retention drops whole segments.
    pub segment_bytes: u64,
    /// Appends that may wait for the disk.
    pub queue_appends: usize,
    /// Bytes that may wait for the disk.
    pub queue_bytes: usize,
    /// Bytes gathered into one commit, at most; an append that is larger alone is a commit of its own. A read
    /// decodes whole commits, so larger ones make small reads dearer.
    pub group_bytes: usize,
    /// Bytes one append may hold.
    pub append_bytes_max: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            retention_age: Some(Duration::from_secs(7 * 24 * 3600)),
            retention_bytes: Some(10 << 30),
            segment_bytes: 64 << 20,
            // About a tenth of a second of a flood; beyond it publishers wait, which they can bear.
            queue_appends: 8192,
            queue_bytes: 32 << 20,
            group_bytes: 1 << 20,
            append_bytes_max: 64 << 20,
        }
    }
}

/// A log in a folder. Dropping it writes what is queued and closes it.
pub struct EmbeddedLog {
    store: Arc<LogStore>,
    queue: Arc<WriteQueue>,
    writer: Option<JoinHandle<()>>,
}

/// Opens the log and the checkpoints in `dir`, creating the folder if need be.
///
/// Blocks on the disk; what a crash left half-written at the end is dropped, for it was never acknowledged.
///
/// # Errors
/// [`LogError::InUse`] when another process has it, [`LogError::Unreadable`] when it cannot be opened.
pub fn open(dir: &Path, options: LogOptions) -> Result<(EmbeddedLog, CheckpointStore), LogError> {
    let store = Arc::new(LogStore::open(dir, options)?);
    let queue = Arc::new(WriteQueue::new(store.committed()));
    let writer = std::thread::Builder::new()
        .name("log-writer".to_owned())
        .spawn({
            let (queue, store) = (Arc::clone(&queue), Arc::clone(&store));
            move || log_writer::run(&queue, &store)
        })
        .map_err(|error| LogError::Unwritable {
            path: dir.to_owned(),
            cause: format!("no thread for it: {error}"),
        })?;
    let checkpoints = CheckpointStore::new(Arc::clone(&store))?;
    Ok((
        EmbeddedLog {
            store,
            queue,
            writer: Some(writer),
        },
        checkpoints,
    ))
}

impl Log for EmbeddedLog {
    fn append(&self, records: Vec<Bytes>) -> Result<Append, LogError> {
        self.queue.push(records, &self.store)
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        let options = self.store.options();
        Box::pin(self.queue.room(options.queue_appends, options.queue_bytes))
    }

    fn read(&self, from: Offset, max_records: usize, max_bytes: usize) -> Result<Vec<(Offset, Bytes)>, LogError> {
        self.store.read(from, max_records, max_bytes)
    }

    fn oldest(&self) -> Offset {
        Offset(self.store.oldest())
    }

    fn next(&self) -> Offset {
        Offset(self.queue.next())
    }

    fn durable(&self) -> Offset {
        Offset(self.store.committed())
    }

    fn retain(&self, keep_from: Offset, now_us: i64) -> Result<Retained, LogError> {
        self.store.retain(keep_from, now_us)
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has said so already; what it held was never acknowledged.
            let _ = writer.join();
        }
    }
}
