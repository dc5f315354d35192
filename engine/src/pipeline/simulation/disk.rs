//! The disk of a simulation: what is synced stays, what is not may be lost or torn, and now and then it is full.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use usher_connectors::BoxFuture;
use usher_connectors::log::{Append, Epoch, Log, LogError, LogHealth, Offset, Retained, Trouble};
use usher_connectors::spool::{Change, SpoolError};

use super::random::Random;
use crate::outbox::shelf::Shelf;

/// Appends that may wait for the disk.
pub(super) const QUEUE_APPENDS: usize = 6;

/// The log on that disk.
#[derive(Default)]
pub(super) struct LogDisk {
    state: Mutex<LogState>,
    room: Notify,
}

/// An append that waits for the disk, and who hears of it.
type Waiting = (Vec<Bytes>, oneshot::Sender<Result<(), LogError>>);

#[derive(Default)]
struct LogState {
    synced: Vec<Bytes>,
    queue: VecDeque<Waiting>,
    is_full: bool,
    /// Whether an append is on disk at once, as it soon is when an engine starts.
    is_instant: bool,
    queued_most: usize,
}

impl LogDisk {
    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().expect("no holder of this lock panics")
    }

    pub(super) fn set_full(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    pub(super) fn set_instant(&self, is_instant: bool) {
        self.lock().is_instant = is_instant;
    }

    /// Makes so many appends durable, unless it is full.
    pub(super) fn sync(&self, appends: usize) {
        let mut state = self.lock();
        for _ in 0..appends {
            if state.is_full {
                break;
            }
            let Some((records, done)) = state.queue.pop_front() else {
                break;
            };
            state.synced.extend(records);
            let _ = done.send(Ok(()));
        }
        drop(state);
        self.room.notify_waiters();
    }

    /// The process or the machine ends. Of what waits for the disk the first appends may be on it, the next one torn;
    /// opening a log cuts that. Gives how many records are gone.
    pub(super) fn crash(&self, random: &mut Random) -> usize {
        let mut state = self.lock();
        let survive = random.index(state.queue.len() + 1);
        for (records, _) in state.queue.drain(..survive).collect::<Vec<_>>() {
            state.synced.extend(records);
        }
        let gone = state.queue.iter().map(|(records, _)| records.len()).sum();
        state.queue.clear();
        state.is_full = false;
        gone
    }

    /// The process ends, and all that waits for the disk is lost.
    pub(super) fn lose_all(&self) {
        let mut state = self.lock();
        state.queue.clear();
        state.is_full = false;
    }

    /// What is durable from there on.
    pub(super) fn synced_from(&self, from: usize) -> Vec<Bytes> {
        self.lock().synced[from..].to_vec()
    }

    /// How many records are durable.
    pub(super) fn synced(&self) -> usize {
        self.lock().synced.len()
    }

    /// The most appends that ever waited.
    pub(super) fn queued_most(&self) -> usize {
        self.lock().queued_most
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lock().queue.is_empty()
    }
}

/// A handle of that log, for one life of the engine.
pub(super) struct SimLog(pub(super) Arc<LogDisk>);

impl Log for SimLog {
    fn append(&self, records: Vec<Bytes>) -> Result<Append, LogError> {
        let next = self.next();
        let mut state = self.0.lock();
        if state.queue.len() >= QUEUE_APPENDS {
            return Err(LogError::Busy);
        }
        let (append, done) = Append::pending(next, records.len() as u64);
        if state.is_instant {
            state.synced.extend(records);
            let _ = done.send(Ok(()));
        } else {
            state.queue.push_back((records, done));
            state.queued_most = state.queued_most.max(state.queue.len());
        }
        Ok(append)
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            loop {
                let room = self.0.room.notified();
                if self.0.lock().queue.len() < QUEUE_APPENDS {
                    return;
                }
                room.await;
            }
        })
    }

    fn tail(&self, _: Offset) -> BoxFuture<'_, Result<Offset, LogError>> {
        Box::pin(std::future::ready(Err(LogError::Closed)))
    }

    fn read(&self, from: Offset, max_records: usize, max_bytes: usize) -> Result<Vec<(Offset, Bytes)>, LogError> {
        let state = self.0.lock();
        let mut bytes = 0;
        let rows = (0..).map(Offset).zip(state.synced.iter().cloned());
        let rows = rows.skip_while(|(offset, _)| *offset < from).take(max_records);
        let rows = rows.take_while(|(_, record)| {
            bytes += record.len();
            bytes == record.len() || bytes <= max_bytes
        });
        Ok(rows.collect())
    }

    fn oldest(&self) -> Offset {
        Offset(0)
    }

    fn next(&self) -> Offset {
        let state = self.0.lock();
        let queued: usize = state.queue.iter().map(|(records, _)| records.len()).sum();
        Offset((state.synced.len() + queued) as u64)
    }

    fn durable(&self) -> Offset {
        Offset(self.0.lock().synced.len() as u64)
    }

    fn retain(&self, _: Offset, _: i64) -> Result<Retained, LogError> {
        Ok(Retained::default())
    }

    fn claim(&self, _: Epoch) -> Result<(), LogError> {
        Ok(())
    }

    fn epoch(&self) -> Epoch {
        Epoch(0)
    }

    fn health(&self) -> LogHealth {
        let state = self.0.lock();
        let trouble = state.is_full.then(|| Trouble {
            since_us: 0,
            reason: "no space left on device".to_owned(),
        });
        LogHealth {
            trouble,
            ..LogHealth::default()
        }
    }

    fn close(&self) {}
}

/// The outbox's part of that disk.
#[derive(Default)]
pub(crate) struct ShelfDisk(Mutex<ShelfState>);

#[derive(Default, Clone)]
struct Contents {
    entries: BTreeMap<u64, Bytes>,
    marks: BTreeMap<String, Bytes>,
}

/// What the outbox's part of the disk refuses.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refuses {
    /// It does what it should.
    #[default]
    Nothing,
    /// It is full.
    Writes,
    /// What was written is gone when it is to be made durable, as far as it was not before.
    Syncs,
}

#[derive(Default)]
struct ShelfState {
    synced: Contents,
    /// Written since, in this order.
    written: Vec<Vec<Change>>,
    now: Contents,
    refuses: Refuses,
    failed_syncs: usize,
}

impl Contents {
    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(number, bytes) => {
                    self.entries.insert(*number, bytes.clone());
                }
                Change::Drop(number) => {
                    self.entries.remove(number);
                }
                Change::Mark(name, bytes) => {
                    self.marks.insert(name.clone(), bytes.clone());
                }
                Change::Unmark(name) => {
                    self.marks.remove(name);
                }
            }
        }
    }
}

impl ShelfDisk {
    fn lock(&self) -> MutexGuard<'_, ShelfState> {
        self.0.lock().expect("no holder of this lock panics")
    }

    pub(crate) fn refuse(&self, refuses: Refuses) {
        self.lock().refuses = refuses;
    }

    /// Whether all that was written is durable.
    pub(crate) fn is_durable(&self) -> bool {
        self.lock().written.is_empty()
    }

    /// How often what was written was not made durable.
    pub(crate) fn failed_syncs(&self) -> usize {
        self.lock().failed_syncs
    }

    /// The power goes: of what was written and not synced the first writes may be there. Gives how many are gone.
    pub(super) fn lose_power(&self, random: &mut Random) -> usize {
        let mut state = self.lock();
        let survive = random.index(state.written.len() + 1);
        let gone = state.written.len() - survive;
        let mut contents = state.synced.clone();
        state.written[..survive]
            .iter()
            .for_each(|changes| contents.apply(changes));
        state.synced = contents.clone();
        state.now = contents;
        state.written.clear();
        gone
    }

    fn failed(cause: &str) -> SpoolError {
        SpoolError::Failed {
            path: "outbox".into(),
            cause: cause.to_owned(),
        }
    }
}

/// A handle of it.
pub(crate) struct SimShelf(pub(crate) Arc<ShelfDisk>);

impl Shelf for SimShelf {
    fn write(&self, changes: &[Change]) -> Result<(), SpoolError> {
        let mut state = self.0.lock();
        if state.refuses == Refuses::Writes {
            return Err(ShelfDisk::failed("no space left on device"));
        }
        state.now.apply(changes);
        state.written.push(changes.to_vec());
        Ok(())
    }

    fn sync(&self) -> Result<(), SpoolError> {
        let mut state = self.0.lock();
        if state.refuses != Refuses::Nothing {
            state.failed_syncs += 1;
            state.now = state.synced.clone();
            state.written.clear();
            return Err(ShelfDisk::failed("input/output error"));
        }
        state.synced = state.now.clone();
        state.written.clear();
        Ok(())
    }

    fn read(&self, from: u64, max_entries: usize, _: usize) -> Result<Vec<(u64, Bytes)>, SpoolError> {
        let state = self.0.lock();
        let found = state.now.entries.range(from..).take(max_entries);
        Ok(found.map(|(number, bytes)| (*number, bytes.clone())).collect())
    }

    fn get(&self, number: u64) -> Result<Option<Bytes>, SpoolError> {
        Ok(self.0.lock().now.entries.get(&number).cloned())
    }

    fn span(&self) -> Result<Option<(u64, u64)>, SpoolError> {
        let state = self.0.lock();
        let (first, last) = (state.now.entries.keys().next(), state.now.entries.keys().next_back());
        Ok(first.copied().zip(last.copied()))
    }

    fn marks(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, SpoolError> {
        let state = self.0.lock();
        let found = state.now.marks.iter().filter(|(name, _)| name.starts_with(prefix));
        Ok(found.map(|(name, bytes)| (name.clone(), bytes.clone())).collect())
    }

    fn purge(&self) -> Result<(), SpoolError> {
        // What is written over is gone here.
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }

    fn keeps_waiting(&self) -> bool {
        false
    }
}
