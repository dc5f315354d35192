//! The embedded log keeps its records in a folder, durable at every acknowledgement.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use crate::BoxFuture;
use crate::checkpoint::CheckpointStore;
use crate::log::{Append, Epoch, Log, LogError, LogHealth, Offset, Retained, Rewritten};
use crate::log_store::LogStore;
use crate::log_writer::{self, WriteQueue};
use crate::partition::Partition;

/// A partition of several is in a folder of this name with its number.
const PARTITION_PREFIX: &str = "partition-";

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

/// Opens the log of one partition and the checkpoints in `dir`, creating the folder if need be.
///
/// Blocks on the disk; what a crash left half-written at the end is dropped, for it was never acknowledged.
///
/// # Errors
/// [`LogError::InUse`] when another process has it, [`LogError::Unreadable`] when it cannot be opened,
/// [`LogError::OfNewerVersion`] when a later version has saved checkpoints there, [`LogError::Partitions`] when it has several.
pub fn open(dir: &Path, options: LogOptions) -> Result<(EmbeddedLog, CheckpointStore), LogError> {
    open_partition(dir, Partition::WHOLE, options)
}

/// Opens one partition of the log in `dir`, with its checkpoints. Each is in a folder of its own, so that several processes
/// can have some each; the only one there is lies in `dir` itself.
///
/// # Errors
/// As [`open`]; [`LogError::Partitions`] when the log has another number of partitions.
pub fn open_partition(
    dir: &Path,
    partition: Partition,
    options: LogOptions,
) -> Result<(EmbeddedLog, CheckpointStore), LogError> {
    check_partitions(dir, partition)?;
    let opened = open_folder(&folder_of(dir, partition), options)?;
    // Another process may have begun one with another number at the same moment.
    check_partitions(dir, partition)?;
    Ok(opened)
}

fn folder_of(dir: &Path, partition: Partition) -> PathBuf {
    if partition == Partition::WHOLE {
        dir.to_owned()
    } else {
        dir.join(format!("{PARTITION_PREFIX}{partition}"))
    }
}

/// Refuses a folder in which the log has another number of partitions.
fn check_partitions(dir: &Path, partition: Partition) -> Result<(), LogError> {
    let unreadable = |error: std::io::Error| LogError::Unreadable {
        path: dir.to_owned(),
        cause: error.to_string(),
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unreadable(error)),
    };
    let wanted = partition.of().get();
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name();
        let name = name.to_string_lossy();
        let found = match name.strip_prefix(PARTITION_PREFIX).and_then(Partition::parse) {
            Some(found) => found.of().get(),
            // What every database has in its folder.
            None if name == "version" => 1,
            None => continue,
        };
        if found != wanted {
            return Err(LogError::Partitions {
                path: dir.to_owned(),
                found,
                wanted,
            });
        }
    }
    Ok(())
}

fn open_folder(dir: &Path, options: LogOptions) -> Result<(EmbeddedLog, CheckpointStore), LogError> {
    // First, for it writes nothing: a folder of a newer version stays as it is.
    let checkpoints = CheckpointStore::open(&dir.join("checkpoints"))?;
    let store = Arc::new(LogStore::open(dir, options)?);
    let is_of_first_form = forget_first_form(&store, checkpoints.newest_format().is_some())?;
    let checkpoints = checkpoints.with_first_form(is_of_first_form);
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
    Ok((
        EmbeddedLog {
            store,
            queue,
            writer: Some(writer),
        },
        checkpoints,
    ))
}

/// Checkpoints of the first form lay in keyspaces of the log's database. Tells whether there are any, and drops them once
/// there are others.
fn forget_first_form(store: &LogStore, are_there_others: bool) -> Result<bool, LogError> {
    store.with(|open| {
        let names = open.database.list_keyspace_names();
        let old: Vec<_> = names.iter().filter(|name| name.starts_with("checkpoint-")).collect();
        for name in old.iter().filter(|_| are_there_others) {
            let keyspace = open
                .database
                .keyspace(name, fjall::KeyspaceCreateOptions::default)
                .map_err(|error| store.failure(&error))?;
            open.database
                .delete_keyspace(keyspace)
                .map_err(|error| store.failure(&error))?;
        }
        Ok(!old.is_empty())
    })
}

impl Log for EmbeddedLog {
    fn append(&self, records: Vec<Bytes>) -> Result<Append, LogError> {
        self.queue.push(records, &self.store)
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        let options = self.store.options();
        Box::pin(self.queue.room(options.queue_appends, options.queue_bytes))
    }

    fn tail(&self, from: Offset) -> BoxFuture<'_, Result<Offset, LogError>> {
        let end = self.store.wait_for(from.0);
        Box::pin(async move { end.await.map(Offset).ok_or(LogError::Closed) })
    }

    fn read(&self, from: Offset, max_records: usize, max_bytes: usize) -> Result<Vec<(Offset, Bytes)>, LogError> {
        self.store.read(from, max_records, max_bytes)
    }

    fn oldest(&self) -> Offset {
        Offset(self.store.last_oldest())
    }

    fn next(&self) -> Offset {
        Offset(self.queue.next())
    }

    fn durable(&self) -> Offset {
        Offset(self.store.last_committed())
    }

    fn retain(&self, keep_from: Offset, now_us: i64) -> Result<Retained, LogError> {
        self.store.retain(keep_from, now_us)
    }

    fn rewrite(
        &self,
        from: Offset,
        until: Offset,
        max_records: usize,
        replace: &mut dyn FnMut(Offset, &Bytes) -> Option<Bytes>,
    ) -> Result<Rewritten, LogError> {
        self.store.rewrite(from, until, max_records, replace)
    }

    fn purge(&self) -> Result<(), LogError> {
        self.store.purge()
    }

    fn claim(&self, epoch: Epoch) -> Result<(), LogError> {
        self.store.claim(epoch)
    }

    fn epoch(&self) -> Epoch {
        self.store.epoch()
    }

    fn health(&self) -> LogHealth {
        let (trouble, failures) = self.store.trouble();
        LogHealth {
            trouble,
            failures,
            ..self.queue.health(self.store.last_committed())
        }
    }

    fn close(&self) {
        self.queue.close();
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
