//! The log store is the fjall database behind the embedded log: a keyspace a segment, a value a commit.
//!
//! A segment is a keyspace of its own because dropping one gives its disk space back at once, where removing
//! keys would leave tombstones until some later compaction.

mod rewriting;

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use fjall::{Database, PersistMode};
use tokio::sync::watch;
use tracing::{debug, error, info};

use crate::batch_frame::{self, BatchFrame};
use crate::crash_point::CrashPoint;
use crate::embedded_log::LogOptions;
use crate::log::{Epoch, LogError, Offset, Retained, Trouble};
use crate::segment::{self, Segment, micros, offset_of};
use crate::{journal, owner};

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
    /// Up to where all is durable, and from where on it is kept, for while the database is closed or being opened.
    last_committed: AtomicU64,
    last_oldest: AtomicU64,
    /// Counts openings: what was written but not synced before the last one may be gone.
    generation: AtomicU64,
    /// The epoch under which this process appends, and the latest one claimed by anybody.
    own_epoch: AtomicU64,
    newest_epoch: AtomicU64,
    /// Up to where there is something to read, for those who follow.
    end: watch::Sender<End>,
    trouble: Mutex<Option<Trouble>>,
    failures: AtomicU64,
    /// Lets a test have so many of the next commits fail as a full disk would.
    #[cfg(test)]
    pub(crate) faults: AtomicU64,
}

/// The end of what can be read.
#[derive(Debug, Clone, Copy)]
struct End {
    durable: u64,
    /// Nothing more will come.
    is_last: bool,
}

pub(crate) struct OpenStore {
    pub(crate) database: Database,
    segments: Vec<Segment>,
    /// Everything before this offset is durable.
    committed: AtomicU64,
    /// The latest epoch claimed, when it was opened.
    epoch: Epoch,
}

impl LogStore {
    pub(crate) fn open(path: &Path, options: LogOptions) -> Result<Self, LogError> {
        let open = OpenStore::open(path)?;
        let durable = open.committed.load(Ordering::Acquire);
        let newest_epoch = AtomicU64::new(open.epoch.0);
        let open_oldest = open.oldest();
        Ok(Self {
            path: path.to_owned(),
            options,
            open: RwLock::new(Some(open)),
            failed: AtomicBool::new(false),
            last_committed: AtomicU64::new(durable),
            last_oldest: AtomicU64::new(open_oldest),
            generation: AtomicU64::new(0),
            own_epoch: AtomicU64::new(0),
            newest_epoch,
            end: watch::Sender::new(End {
                durable,
                is_last: false,
            }),
            trouble: Mutex::new(None),
            failures: AtomicU64::new(0),
            #[cfg(test)]
            faults: AtomicU64::new(0),
        })
    }

    pub(crate) fn options(&self) -> &LogOptions {
        &self.options
    }

    #[cfg(test)]
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
        let full = self.with(|open| Ok(open.active().is_full(&self.options, now_us)));
        // A segment is not ended while its last frame may have to be written once more.
        if full? && self.committed() == first {
            self.with_exclusive(|open| open.roll())?;
        }
        self.with(|open| {
            self.check_owner()?;
            let active = open.active();
            let committed = open.committed.load(Ordering::Acquire);
            let end = first + records.len() as u64;
            // A write that failed may be found when the database is opened anew. It is written once more, for nobody
            // knows whether what was read came from the disk: the same key with the same value is the same frame.
            let found = (committed == end)
                .then(|| self.frame_at(active, first))
                .transpose()?
                .flatten()
                .filter(|found| found.records == records);
            if committed != first && found.is_none() {
                return Err(self.unwritable(&format!(
                    "its end was offset {first} and is now offset {committed}, as if its folder had been changed or replaced; restore the folder, or start anew with another"
                )));
            }
            let bytes_before = found.as_ref().map_or_else(|| active.bytes(), |found| found.bytes_before);
            let frame = batch_frame::encode(now_us, bytes_before, records.iter());
            let framed = frame.len() as u64;
            #[cfg(test)]
            if self.takes_fault() {
                return Err(self.failure(&fjall::Error::Io(io::Error::from(io::ErrorKind::StorageFull))));
            }
            let mut batch = open.database.batch().durability(Some(PersistMode::SyncData));
            batch.insert(&active.keyspace, first.to_be_bytes(), frame);
            batch.commit().map_err(|error| self.failure(&error))?;
            if found.is_none() {
                active.grew(framed, now_us);
            }
            open.committed.store(end, Ordering::Release);
            self.last_committed.store(end, Ordering::Release);
            CrashPoint::Synced.pass();
            self.note_success(end);
            Ok(())
        })
    }

    /// The frame that begins at an offset, if there is a whole one.
    fn frame_at(&self, segment: &Segment, first: u64) -> Result<Option<BatchFrame>, LogError> {
        let value = segment.keyspace.get(first.to_be_bytes());
        let value = value.map_err(|error| self.unreadable(&error))?;
        Ok(value.and_then(|value| batch_frame::decode(Bytes::copy_from_slice(&value)).ok()))
    }

    #[cfg(test)]
    fn takes_fault(&self) -> bool {
        let less = |faults: u64| faults.checked_sub(1);
        self.faults
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
            .is_ok()
    }

    /// Notes that nothing can be written, since when and why. Said once, not at each try.
    pub(crate) fn note_failure(&self, error: &LogError, now_us: i64) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut trouble = self.trouble.lock().expect("no holder of this lock panics");
        if trouble.is_none() {
            error!(%error, "the log can't be written");
        }
        let since_us = trouble.as_ref().map_or(now_us, |before| before.since_us);
        *trouble = Some(Trouble {
            since_us,
            reason: error.to_string(),
        });
    }

    fn note_success(&self, durable: u64) {
        let was = self.trouble.lock().expect("no holder of this lock panics").take();
        if let Some(was) = was {
            info!(path = %self.path.display(), was = was.reason, "the log can be written again");
        }
        self.end.send_modify(|end| end.durable = durable);
    }

    /// What keeps it from being written, and how often that was tried in vain.
    pub(crate) fn trouble(&self) -> (Option<Trouble>, u64) {
        let trouble = self.trouble.lock().expect("no holder of this lock panics").clone();
        (trouble, self.failures.load(Ordering::Relaxed))
    }

    /// Waits until something at `from` or after it can be read; none when it never will.
    pub(crate) fn wait_for(&self, from: u64) -> impl Future<Output = Option<u64>> + Send + use<> {
        let mut ends = self.end.subscribe();
        async move {
            let end = *ends.wait_for(|end| end.durable > from || end.is_last).await.ok()?;
            (end.durable > from).then_some(end.durable)
        }
    }

    /// Says that nothing more will be written.
    pub(crate) fn end_writing(&self) {
        self.end.send_modify(|end| end.is_last = true);
    }

    /// Refuses to write when somebody claimed a later epoch than this process has.
    pub(crate) fn check_owner(&self) -> Result<(), LogError> {
        let (own, newest) = (self.epoch(), Epoch(self.newest_epoch.load(Ordering::Acquire)));
        if own < newest {
            return Err(self.fenced(own, newest));
        }
        Ok(())
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.own_epoch.load(Ordering::Acquire))
    }

    pub(crate) fn claim(&self, epoch: Epoch) -> Result<(), LogError> {
        self.with(|open| {
            let newest = Epoch(self.newest_epoch.load(Ordering::Acquire));
            if epoch < newest {
                return Err(self.fenced(epoch, newest));
            }
            if epoch > newest {
                owner::write(&open.database, epoch).map_err(|error| self.failure(&error))?;
                self.newest_epoch.store(epoch.0, Ordering::Release);
            }
            self.own_epoch.store(epoch.0, Ordering::Release);
            Ok(())
        })
    }

    fn fenced(&self, own: Epoch, newest: Epoch) -> LogError {
        LogError::Fenced {
            path: self.path.clone(),
            own,
            newest,
        }
    }

    pub(crate) fn committed(&self) -> u64 {
        self.read_lock().as_ref().map_or_else(
            || self.last_committed.load(Ordering::Acquire),
            |open| open.committed.load(Ordering::Acquire),
        )
    }

    /// What was committed, without waiting for a database that is being opened.
    pub(crate) fn last_committed(&self) -> u64 {
        self.last_committed.load(Ordering::Acquire)
    }

    /// The first offset kept, likewise.
    pub(crate) fn last_oldest(&self) -> u64 {
        self.last_oldest.load(Ordering::Acquire)
    }

    pub(crate) fn read(
        &self,
        from: Offset,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<(Offset, Bytes)>, LogError> {
        self.view(|open| {
            let oldest = open.oldest();
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
            for (at, segment) in open.segments.iter().enumerate().skip(start) {
                let end = open.segments.get(at + 1).map_or(reading.end, |next| next.first);
                match self.read_segment(segment, end, &mut reading) {
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

    fn read_segment(&self, segment: &Segment, end: u64, reading: &mut Reading) -> Result<ControlFlow<()>, LogError> {
        if reading.is_done() {
            return Ok(ControlFlow::Break(()));
        }
        // The frame that holds `next` begins at the last key not after it.
        let start = match segment.keyspace.range(..=reading.next.to_be_bytes()).next_back() {
            Some(entry) => match entry.key() {
                Ok(key) => offset_of(&key),
                Err(error) => return Err(self.broken(segment, end, reading, &error)),
            },
            None => reading.next,
        };
        for entry in segment.keyspace.range(start.to_be_bytes()..) {
            if reading.is_done() {
                return Ok(ControlFlow::Break(()));
            }
            let (key, value) = match entry.into_inner() {
                Ok(entry) => entry,
                Err(error) => return Err(self.broken(segment, end, reading, &error)),
            };
            let first = offset_of(&key);
            if first > reading.next {
                return Err(reading.damaged(first, format!("offsets up to {} are missing", first - 1)));
            }
            let frame = match batch_frame::decode(Bytes::copy_from_slice(&value)) {
                Ok(frame) => frame,
                Err(reason) => {
                    let resume = segment.first_readable(first + 1, end);
                    return Err(reading.damaged(resume, reason));
                }
            };
            if first + (frame.records.len() as u64) <= reading.next {
                // It ends before the offset asked for, so that what follows it is missing, unless this is the end.
                continue;
            }
            reading.take(first, frame.records);
        }
        if !reading.is_done() && reading.next < end {
            return Err(reading.damaged(end, format!("offsets up to {} are missing", end - 1)));
        }
        Ok(if reading.is_done() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    }

    /// What a part of a segment is that the disk gives back otherwise than it was written, or not at all.
    fn broken(&self, segment: &Segment, end: u64, reading: &Reading, error: &fjall::Error) -> LogError {
        if segment::is_damage(error) {
            let resume = segment.first_readable(reading.next + 1, end);
            reading.damaged(resume, words(error))
        } else {
            self.unreadable(error)
        }
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
            retained.oldest = Offset(open.oldest());
            self.last_oldest.store(open.oldest(), Ordering::Release);
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
        let guard = self.write_lock();
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.open_again(guard, |_| Ok(()))?;
        debug!(path = %self.path.display(), "log opened again after a failure");
        Ok(())
    }

    /// Closes the database, does something in its folder, and opens it again; whoever wants it waits meanwhile.
    fn open_anew(&self, between: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), LogError> {
        let guard = self.write_lock();
        // Where it can't be opened again, the next one who wants it tries.
        self.failed.store(true, Ordering::Release);
        self.open_again(guard, between)
    }

    fn open_again(
        &self,
        mut guard: RwLockWriteGuard<'_, Option<OpenStore>>,
        between: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), LogError> {
        *guard = None;
        between(&self.path).map_err(|error| self.unwritable(&error.to_string()))?;
        *guard = Some(OpenStore::open(&self.path).map_err(|error| match error {
            LogError::Unreadable { cause, .. } => self.unwritable(&cause),
            other => other,
        })?);
        if let Some(open) = guard.as_ref() {
            self.newest_epoch.fetch_max(open.epoch.0, Ordering::AcqRel);
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.failed.store(false, Ordering::Release);
        Ok(())
    }

    /// Notes that the database takes no more writes until it is opened anew, and says why.
    pub(crate) fn failure(&self, error: &fjall::Error) -> LogError {
        self.failed.store(true, Ordering::Release);
        self.unwritable(&words(error))
    }

    fn unreadable(&self, error: &fjall::Error) -> LogError {
        LogError::Unreadable {
            path: self.path.clone(),
            cause: words(error),
        }
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
        journal::mend(path)?;
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .open()
            .map_err(unreadable)?;
        // A frame whose writer was killed before it was synced is there to be read, and counts as durable from here on.
        database.persist(PersistMode::SyncData).map_err(unreadable)?;
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
        for (at, &first) in firsts.iter().enumerate() {
            let keyspace = database
                .keyspace(&segment::name_of(first), segment::options)
                .map_err(unreadable)?;
            let (segment, end) = Segment::recover(keyspace, first, firsts.get(at + 1).copied()).map_err(unreadable)?;
            segments.push(segment);
            committed = end;
        }
        let epoch = owner::read(&database).map_err(unreadable)?;
        Ok(Self {
            database,
            segments,
            committed: AtomicU64::new(committed),
            epoch,
        })
    }

    fn oldest(&self) -> u64 {
        self.segments.first().map_or(0, |segment| segment.first)
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
