//! The log writer is the one thread that commits: it takes whatever is queued, as one frame and one sync.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tracing::warn;

use crate::log::{Append, LogError, Offset};
use crate::log_store::LogStore;
use crate::message;

/// Failed writes are at least this far apart: each makes the database be opened anew, and a full disk stays full
/// for a while. Appends that come meanwhile wait, and fail with it.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The bounded queue between those who append and the thread that writes.
pub(crate) struct WriteQueue {
    state: Mutex<Queued>,
    work: Condvar,
    room: Notify,
}

struct Queued {
    appends: VecDeque<Waiting>,
    bytes: usize,
    next: u64,
    closed: bool,
}

struct Waiting {
    first: u64,
    records: Vec<Bytes>,
    bytes: usize,
    done: oneshot::Sender<Result<(), LogError>>,
}

impl WriteQueue {
    pub(crate) fn new(next: u64) -> Self {
        let state = Queued {
            appends: VecDeque::new(),
            bytes: 0,
            next,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            room: Notify::new(),
        }
    }

    pub(crate) fn push(&self, records: Vec<Bytes>, store: &LogStore) -> Result<Append, LogError> {
        let options = store.options();
        let bytes: usize = records.iter().map(Bytes::len).sum();
        if bytes > options.append_bytes_max {
            return Err(LogError::TooLarge {
                bytes,
                max: options.append_bytes_max,
            });
        }
        let mut state = self.lock();
        if state.closed {
            return Err(LogError::Closed);
        }
        if records.is_empty() {
            let (append, done) = Append::pending(Offset(state.next), 0);
            let _ = done.send(Ok(()));
            return Ok(append);
        }
        if !state.has_room(bytes, options.queue_appends, options.queue_bytes) {
            return Err(LogError::Busy);
        }
        let count = records.len() as u64;
        let first = state.next;
        let (append, done) = Append::pending(Offset(first), count);
        state.next += count;
        state.bytes += bytes;
        state.appends.push_back(Waiting {
            first,
            records,
            bytes,
            done,
        });
        drop(state);
        self.work.notify_one();
        Ok(append)
    }

    /// Waits until the queue is at most half full, so that room is worth having.
    pub(crate) async fn room(&self, queue_appends: usize, queue_bytes: usize) {
        loop {
            let mut notified = std::pin::pin!(self.room.notified());
            notified.as_mut().enable();
            {
                let state = self.lock();
                if state.closed || state.has_room(0, queue_appends.div_ceil(2), queue_bytes.div_ceil(2)) {
                    return;
                }
            }
            notified.await;
        }
    }

    pub(crate) fn next(&self) -> u64 {
        self.lock().next
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
        self.room.notify_waiters();
    }

    /// What is queued, up to about `group_bytes`; `None` once closed and empty.
    fn take_group(&self, group_bytes: usize) -> Option<Vec<Waiting>> {
        let mut state = self.lock();
        while state.appends.is_empty() {
            if state.closed {
                return None;
            }
            state = self.work.wait(state).expect("no holder of this lock panics");
        }
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(waiting) = state.appends.front() {
            if !group.is_empty() && bytes + waiting.bytes > group_bytes {
                break;
            }
            bytes += waiting.bytes;
            group.extend(state.appends.pop_front());
        }
        state.bytes -= bytes;
        drop(state);
        self.room.notify_waiters();
        Some(group)
    }

    /// Fails everything that waits: its offsets follow those that were not written, and are given again.
    fn fail_all(&self, error: &LogError, committed: u64) {
        let mut state = self.lock();
        let waiting = mem::take(&mut state.appends);
        state.bytes = 0;
        state.next = committed;
        drop(state);
        for waiting in waiting {
            let _ = waiting.done.send(Err(error.clone()));
        }
        self.room.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Queued> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl Queued {
    fn has_room(&self, bytes: usize, queue_appends: usize, queue_bytes: usize) -> bool {
        // An append that is larger than the queue is let into an empty one.
        self.appends.is_empty() || (self.appends.len() < queue_appends && self.bytes + bytes <= queue_bytes)
    }
}

/// Runs on its own thread until the queue is closed and empty.
pub(crate) fn run(queue: &Arc<WriteQueue>, store: &LogStore) {
    let mut records = Vec::new();
    let mut last_failure: Option<Instant> = None;
    while let Some(mut group) = queue.take_group(store.options().group_bytes) {
        records.clear();
        let first = group.first().map_or(0, |waiting| waiting.first);
        for waiting in &mut group {
            records.append(&mut waiting.records);
        }
        let written = store.commit(first, &records, message::wall_clock_us());
        if let Err(error) = &written {
            warn!(%error, appends = group.len(), "log append failed");
            if let Some(at) = last_failure.replace(Instant::now()) {
                std::thread::sleep(RETRY_PAUSE.saturating_sub(at.elapsed()));
            }
            // Opened anew first, because only then is it known where the log ends; if that fails too, the next
            // append tries again.
            let _ = store.reopen();
            // And the queue before the callers: whoever hears of the failure and appends again gets the right offset.
            queue.fail_all(error, store.committed());
        }
        for waiting in group {
            // Whoever no longer waits does not need to know.
            let _ = waiting.done.send(written.clone());
        }
    }
}
