//! The log store is the fjall database behind the embedded log: a keyspace a segment, a value a commit.
//!
//! A segment is a keyspace of its own because dropping one gives its disk space back at once, where removing
//! keys would leave tombstones until some later compaction.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use fjall::{Database, PersistMode};
use tracing::info;

use crate::batch_frame;
use crate::embedded_log::LogOptions;
use crate::log::{LogError, Offset, Retained};
use crate::segment::{self, Segment, micros, offset_of};

/// The write-ahead journals together; beyond it fjall flushes.
const JOURNAL_BYTES: u64 = 128 << 20;
/// Reads are sequential, so a large cache would hold what nobody asks for again.
const CACHE_BYTES: u64 = 16 << 20;

/// The database, shared by the log, its writer and the checkpoints.
pub(crate) struct LogStore {
    path: PathBuf,
    options: LogOptions,
    /// `None` between a failure and the next try: fjall takes no write after a failed one, so it is opened anew.
    open: RwLock<Option<OpenStore>>,
    failed: AtomicBool,
    /// What `OpenStore::committed` said last, for while there is none.
    last_committed: AtomicU64,
    /// Counts openings: what was written but not synced before the last one may be gone.
    generation: AtomicU64,
    /// Lets a test have the next commit fail as a full disk would.
    #[cfg(test)]
    pub(crate) fault: AtomicBool,
}

pub(crate) struct OpenStore {
    pub(crate) database: Database,
    segments: Vec<Segment>,
    /// Everything before this offset is durable.
    committed: AtomicU64,
}

impl LogStore {
    pub(crate) fn open(path: &Path, options: LogOptions) -> Result<Self, LogError> {
        let open = OpenStore::open(path)?;
        let last_committed = AtomicU64::new(open.committed.load(Ordering::Acquire));
        Ok(Self {
            path: path.to_owned(),
            options,
            open: RwLock::new(Some(open)),
            failed: AtomicBool::new(false),
            last_committed,
            generation: AtomicU64::new(0),
            #[cfg(test)]
            fault: AtomicBool::new(false),
        })
    }

    pub(crate) fn options(&self) -> &LogOptions {
        &self.options
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Runs `work` on the open database; opens it anew first when the last write failed.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&OpenStore) -> Result<T, LogError>) -> Result<T, LogError> {
        if self.failed.load(Ordering::Acquire) {
            self.reopen()?;
        }
        let guard = self.read_lock();
        let open = guard
            .as_ref()
            .ok_or_else(|| self.unwritable("it could not be opened again after a failure"))?;
        work(open)
    }

    /// As [`LogStore::with`], for reading: a database that takes no more writes can still be read.
    fn view<T>(&self, work: impl FnOnce(&OpenStore) -> Result<T, LogError>) -> Result<T, LogError> {
        let guard = self.read_lock();
        if let Some(open) = guard.as_ref() {
            return work(open);
        }
        drop(guard);
        self.with(work)
    }

    /// Appends one frame durably. Its first record was promised the offset `first`, and gets it or none.
    pub(crate) fn commit(&self, first: u64, records: &[Bytes], now_us: i64) -> Result<(), LogError> {
        let full = self.with(|open| {
            Ok(open
                .segments
                .last()
                .is_some_and(|active| active.is_full(&self.options, now_us)))
        });
        if full? {
            self.with_exclusive(|open| open.roll())?;
        }
        self.with(|open| {
            let active = open.active();
            if open.committed.load(Ordering::Acquire) != first {
                // A write that failed was found on the disk after all, when the database was opened anew.
                return Err(self.unwritable("an earlier failure moved its end"));
            }
            let frame = batch_frame::encode(now_us, active.bytes(), records.iter());
            let framed = frame.len() as u64;
            #[cfg(test)]
            if self.fault.swap(false, Ordering::AcqRel) {
                return Err(self.failure(&fjall::Error::Io(std::io::Error::from(std::io::ErrorKind::StorageFull))));
            }
            let mut batch = open.database.batch().durability(Some(PersistMode::SyncData));
            batch.insert(&active.keyspace, first.to_be_bytes(), frame);
            batch.commit().map_err(|error| self.failure(&error))?;
            active.grew(framed, now_us);
            let end = first + records.len() as u64;
            open.committed.store(end, Ordering::Release);
            self.last_committed.store(end, Ordering::Release);
            Ok(())
        })
    }

    pub(crate) fn committed(&self) -> u64 {
        self.read_lock().as_ref().map_or_else(
            || self.last_committed.load(Ordering::Acquire),
            |open| open.committed.load(Ordering::Acquire),
        )
    }

    pub(crate) fn oldest(&self) -> u64 {
        self.read_lock()
            .as_ref()
            .and_then(|open| open.segments.first().map(|segment| segment.first))
            .unwrap_or(0)
    }

    pub(crate) fn read(
        &self,
        from: Offset,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<(Offset, Bytes)>, LogError> {
        self.view(|open| {
            let oldest = open.segments.first().map_or(0, |segment| segment.first);
            if from.0 < oldest {
                return Err(LogError::Expired(Offset(oldest)));
            }
            let mut reading = Reading {
                next: from.0,
                end: open.committed.load(Ordering::Acquire),
                room_records: max_records,
                room_bytes: max_bytes,
                records: Vec::new(),
            };
            let start = open
                .segments
                .partition_point(|segment| segment.first <= from.0)
                .saturating_sub(1);
            for segment in &open.segments[start..] {
                match self.read_segment(segment, &mut reading) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => break,
                    // What came before the damage is handed over first; the next read meets the damage itself.
                    Err(_) if !reading.records.is_empty() => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(reading.records)
        })
    }

    fn read_segment(&self, segment: &Segment, reading: &mut Reading) -> Result<ControlFlow<()>, LogError> {
        if reading.is_done() {
            return Ok(ControlFlow::Break(()));
        }
        let unreadable = |error: fjall::Error| LogError::Unreadable {
            path: self.path.clone(),
            cause: words(&error),
        };
        // The frame that holds `next` begins at the last key not after it.
        let start = match segment.keyspace.range(..=reading.next.to_be_bytes()).next_back() {
            Some(entry) => offset_of(&entry.key().map_err(unreadable)?),
            None => reading.next,
        };
        for entry in segment.keyspace.range(start.to_be_bytes()..) {
            if reading.is_done() {
                return Ok(ControlFlow::Break(()));
            }
            let (key, value) = entry.into_inner().map_err(unreadable)?;
            let first = offset_of(&key);
            if first > reading.next {
                return Err(reading.damaged(first, format!("offsets up to {} are missing", first - 1)));
            }
            let frame = match batch_frame::decode(Bytes::copy_from_slice(&value)) {
                Ok(frame) => frame,
                Err(reason) => {
                    let resume = segment.keyspace.range((first + 1).to_be_bytes()..).next();
                    let resume = match resume {
                        Some(entry) => offset_of(&entry.key().map_err(unreadable)?),
                        None => reading.end,
                    };
                    return Err(reading.damaged(resume, reason));
                }
            };
            if first + (frame.records.len() as u64) < reading.next {
                return Err(reading.damaged(reading.end, format!("the batch at {first} is shorter than it was")));
            }
            reading.take(first, frame.records);
        }
        Ok(if reading.is_done() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    }

    pub(crate) fn retain(&self, keep_from: Offset, now_us: i64) -> Result<Retained, LogError> {
        let oldest_us = self.options.retention_age.map(|age| now_us.saturating_sub(micros(age)));
        self.with_exclusive(|open| {
            let committed = open.committed.load(Ordering::Acquire);
            // A quiet site never fills its segment; an old one is closed so that it can go.
            let active = open.active();
            if oldest_us.is_some_and(|oldest_us| active.is_older_than(oldest_us)) && committed <= keep_from.0 {
                open.roll()?;
            }
            let mut retained = Retained::default();
            let mut bytes: u64 = open.segments.iter().map(|segment| segment.bytes()).sum();
            while let [oldest, next, ..] = open.segments.as_slice() {
                let too_old = oldest_us.is_some_and(|oldest_us| oldest.is_older_than(oldest_us));
                let too_much = self.options.retention_bytes.is_some_and(|max| bytes > max);
                if next.first > keep_from.0 || !(too_old || too_much) {
                    break;
                }
                let segment_bytes = oldest.bytes();
                retained.dropped_records += next.first - oldest.first;
                retained.dropped_bytes += segment_bytes;
                bytes -= segment_bytes;
                open.database.delete_keyspace(oldest.keyspace.clone())?;
                open.segments.remove(0);
            }
            retained.oldest = Offset(open.segments.first().map_or(0, |segment| segment.first));
            Ok(retained)
        })
    }

    /// Runs `work` alone, opening the database anew first when the last write failed.
    fn with_exclusive<T>(&self, work: impl FnOnce(&mut OpenStore) -> Result<T, fjall::Error>) -> Result<T, LogError> {
        if self.failed.load(Ordering::Acquire) {
            self.reopen()?;
        }
        let mut guard = self.write_lock();
        let open = guard
            .as_mut()
            .ok_or_else(|| self.unwritable("it could not be opened again after a failure"))?;
        work(open).map_err(|error| self.failure(&error))
    }

    /// Opens the database anew if the last write failed.
    pub(crate) fn reopen(&self) -> Result<(), LogError> {
        let mut guard = self.write_lock();
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        *guard = None;
        *guard = Some(OpenStore::open(&self.path).map_err(|error| match error {
            LogError::Unreadable { cause, .. } => self.unwritable(&cause),
            other => other,
        })?);
        if let Some(open) = guard.as_ref() {
            self.last_committed
                .store(open.committed.load(Ordering::Acquire), Ordering::Release);
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.failed.store(false, Ordering::Release);
        info!(path = %self.path.display(), "log opened again after a failure");
        Ok(())
    }

    /// Notes that the database takes no more writes until it is opened anew, and says why.
    pub(crate) fn failure(&self, error: &fjall::Error) -> LogError {
        self.failed.store(true, Ordering::Release);
        self.unwritable(&words(error))
    }

    fn unwritable(&self, cause: &str) -> LogError {
        LogError::Unwritable {
            path: self.path.clone(),
            cause: cause.to_owned(),
        }
    }

    fn read_lock(&self) -> RwLockReadGuard<'_, Option<OpenStore>> {
        self.open.read().expect("no holder of this lock panics")
    }

    fn write_lock(&self) -> RwLockWriteGuard<'_, Option<OpenStore>> {
        self.open.write().expect("no holder of this lock panics")
    }
}

impl OpenStore {
    fn open(path: &Path) -> Result<Self, LogError> {
        let unreadable = |error: fjall::Error| match error {
            fjall::Error::Locked => LogError::InUse { path: path.to_owned() },
            error => LogError::Unreadable {
                path: path.to_owned(),
                cause: words(&error),
            },
        };
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .open()
            .map_err(unreadable)?;
        let mut firsts: Vec<u64> = database
            .list_keyspace_names()
            .iter()
            .filter_map(|name| segment::first_of(name))
            .collect();
        firsts.sort_unstable();
        if firsts.is_empty() {
            firsts.push(0);
        }
        let mut segments = Vec::with_capacity(firsts.len());
        let mut committed = 0;
        for first in firsts {
            let keyspace = database
                .keyspace(&segment::name_of(first), segment::options)
                .map_err(unreadable)?;
            let (segment, end) = Segment::recover(keyspace, first).map_err(unreadable)?;
            segments.push(segment);
            committed = end;
        }
        Ok(Self {
            database,
            segments,
            committed: AtomicU64::new(committed),
        })
    }

    fn active(&self) -> &Segment {
        self.segments.last().expect("a store always has a segment to write to")
    }

    /// Closes the active segment and begins the next one, unless the active one is still empty.
    fn roll(&mut self) -> Result<(), fjall::Error> {
        let committed = self.committed.load(Ordering::Acquire);
        if self.active().first == committed {
            return Ok(());
        }
        let keyspace = self.database.keyspace(&segment::name_of(committed), segment::options)?;
        // Nothing more is written there: flushing now lets the journals shrink.
        self.active().keyspace.rotate_memtable()?;
        self.segments.push(Segment::new(keyspace, committed));
        Ok(())
    }
}

/// A read under way.
struct Reading {
    next: u64,
    end: u64,
    room_records: usize,
    room_bytes: usize,
    records: Vec<(Offset, Bytes)>,
}

impl Reading {
    fn is_done(&self) -> bool {
        self.next >= self.end || self.room_records == 0
    }

    fn take(&mut self, first: u64, records: Vec<Bytes>) {
        let skip = usize::try_from(self.next - first).expect("a batch's length fits in memory");
        for record in records.into_iter().skip(skip) {
            let too_large = record.len() > self.room_bytes && !self.records.is_empty();
            if self.is_done() || too_large {
                self.room_records = 0;
                return;
            }
            self.room_records -= 1;
            self.room_bytes = self.room_bytes.saturating_sub(record.len());
            self.records.push((Offset(self.next), record));
            self.next += 1;
        }
    }

    fn damaged(&self, resume: u64, reason: String) -> LogError {
        LogError::Damaged {
            offset: Offset(self.next),
            resume: Offset(resume),
            reason,
        }
    }
}

/// A fjall error as one would say it.
pub(crate) fn words(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Io(cause) => cause.to_string(),
        fjall::Error::Storage(cause) => format!("the storage engine says {cause}"),
        fjall::Error::Poisoned => "an earlier write failed, so it takes no more until it is opened again".to_owned(),
        fjall::Error::Locked => "it is open in another process".to_owned(),
        other => format!("the storage engine says {other:?}"),
    }
}

#[cfg(test)]
mod tests;
