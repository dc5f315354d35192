//! The log writer is the one thread that commits: it takes whatever is queued, as one frame and one sync.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use crate::log::{Append, LogError, LogHealth, Offset};
use crate::log_store::LogStore;
use crate::message;

/// A write that failed is tried again after this, and after twice as long each time after that: each try makes the
/// database be opened anew, and a full disk stays full for a while.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// But never later than this: so long publishers wait for nothing once there is room.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The bounded queue between those who append and the thread that writes.
pub(crate) struct WriteQueue {
    state: Mutex<Queued>,
    work: Condvar,
    closing: Condvar,
    room: Notify,
}

struct Queued {
    appends: VecDeque<Waiting>,
    bytes: usize,
    next: u64,
    closed: bool,
    under_way: Option<UnderWay>,
}

struct Waiting {
    first: u64,
    records: Vec<Bytes>,
    bytes: usize,
    since: Instant,
    done: oneshot::Sender<Result<(), LogError>>,
}

/// What the writer holds and has not written yet.
struct UnderWay {
    bytes: usize,
    since: Instant,
}

impl WriteQueue {
    pub(crate) fn new(next: u64) -> Self {
        let state = Queued {
            appends: VecDeque::new(),
            bytes: 0,
            next,
            closed: false,
            under_way: None,
        };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            closing: Condvar::new(),
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
        store.check_owner()?;
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
            since: Instant::now(),
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

    /// What waits, and for how long. Whether it can be written at all is for the store to say.
    pub(crate) fn health(&self, durable: u64) -> LogHealth {
        let state = self.lock();
        let oldest = state.under_way.as_ref().map(|under_way| under_way.since);
        let oldest = oldest.or_else(|| state.appends.front().map(|waiting| waiting.since));
        let under_way = state.under_way.as_ref().map_or(0, |under_way| under_way.bytes);
        LogHealth {
            waiting_records: state.next.saturating_sub(durable),
            waiting_bytes: (state.bytes + under_way) as u64,
            waiting_for: oldest.map_or(Duration::ZERO, |since| since.elapsed()),
            ..LogHealth::default()
        }
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
        self.closing.notify_all();
        self.room.notify_waiters();
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits for so long, or until it is closed.
    fn pause(&self, pause: Duration) {
        let state = self.lock();
        let waited = self.closing.wait_timeout_while(state, pause, |state| !state.closed);
        drop(waited.expect("no holder of this lock panics"));
    }

    /// What is queued, up to about `group_bytes`; `None` once closed and empty.
    fn take_group(&self, group_bytes: usize) -> Option<Vec<Waiting>> {
        let mut state = self.lock();
        state.under_way = None;
        while state.appends.is_empty() {
            if state.closed {
                return None;
            }
            state = self.work.wait(state).expect("no holder of this lock panics");
        }
        let mut group = Vec::new();
        let mut bytes = 0;
        let since = state.appends.front().map(|waiting| waiting.since);
        while let Some(waiting) = state.appends.front() {
            if !group.is_empty() && bytes + waiting.bytes > group_bytes {
                break;
            }
            bytes += waiting.bytes;
            group.extend(state.appends.pop_front());
        }
        state.bytes -= bytes;
        state.under_way = since.map(|since| UnderWay { bytes, since });
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
        state.under_way = None;
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
    while let Some(mut group) = queue.take_group(store.options().group_bytes) {
        records.clear();
        let first = group.first().map_or(0, |waiting| waiting.first);
        for waiting in &mut group {
            records.append(&mut waiting.records);
        }
        let written = write(queue, store, first, &records);
        if let Err(error) = &written {
            // The queue before the callers: whoever hears of the failure and appends again gets the right offset.
            queue.fail_all(error, store.committed());
        }
        for waiting in group {
            // Whoever no longer waits does not need to know.
            let _ = waiting.done.send(written.clone());
        }
    }
    store.end_writing();
}

/// Writes one group, and tries again until the disk takes it: so the order of the log stays the order of the calls, and
/// publishers wait instead of being turned away. Gives up when there is a later owner, or the log is being closed.
fn write(queue: &WriteQueue, store: &LogStore, first: u64, records: &[Bytes]) -> Result<(), LogError> {
    let mut pause = RETRY_PAUSE;
    loop {
        let error = match store.commit(first, records, message::wall_clock_us()) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let is_over = matches!(error, LogError::Fenced { .. }) || queue.is_closed();
        store.note_failure(&error, message::wall_clock_us());
        if is_over {
            return Err(error);
        }
        queue.pause(pause);
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}
