//! The state of a log in Fluvio: what waits to be sent, what was sent and not seen again yet, and what the partition says.

mod places;

use std::collections::VecDeque;
use std::mem;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot, watch};
use tracing::{error, info, warn};

pub(super) use self::places::Known;
use self::places::{STEP, last_of};
use super::fold::{Fold, Folded};
use super::frame::{Frame, Owner};
use super::reader::Physical;
use crate::embedded_log::LogOptions;
use crate::log::{Append, Epoch, LogError, LogHealth, Offset, Trouble};

/// Bytes on their way to the cluster, at most. More would only wait there.
const UNDER_WAY_BYTES: usize = 8 << 20;
/// Records after which an owner says again that it is the owner: a reader of what retention has left must know it.
pub(super) const CLAIM_EVERY: u64 = 4_096;

/// A place in the partition, and what had been read before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) place: i64,
    pub(super) fold: Fold,
}

pub(super) struct Shared {
    pub(super) name: PathBuf,
    pub(super) options: LogOptions,
    /// Where it is noted how far the partition was read.
    pub(super) file: Option<PathBuf>,
    /// Drawn at random.
    pub(super) writer: u64,
    state: Mutex<State>,
    pub(super) work: Notify,
    room: Notify,
    end: watch::Sender<End>,
    /// Whether all there was has been read once.
    pub(super) caught_up: watch::Sender<bool>,
}

#[derive(Debug, Clone, Copy)]
struct End {
    durable: u64,
    is_last: bool,
}

struct Waiting {
    first: u64,
    records: Vec<Bytes>,
    bytes: usize,
    since: Instant,
    sent: Option<Instant>,
    done: oneshot::Sender<Result<(), LogError>>,
}

type Claimed = std::sync::mpsc::Sender<Result<(), LogError>>;

struct State {
    /// Those at the front were sent in this session.
    appends: VecDeque<Waiting>,
    sent: usize,
    bytes_waiting: usize,
    bytes_sent: usize,
    promised: u64,
    /// What the partition says up to `place`.
    fold: Fold,
    place: i64,
    /// The checksum of the record before it, and the place that was noted in a file last.
    last: Option<u32>,
    kept: i64,
    /// What was read from a file is not, until the partition is found to be the same.
    is_proven: bool,
    /// Records that were read before it was open.
    read: u64,
    /// What the last claim said of the next offset, where no record was read yet.
    told: u64,
    oldest: u64,
    /// Places to begin reading at.
    marks: Vec<(u64, Mark)>,
    step: u64,
    /// The epoch under which this process has claimed.
    own: Option<u64>,
    claiming: Option<(u64, bool, Claimed)>,
    since_claim: u64,
    closed: bool,
    trouble: Option<Trouble>,
    failures: u64,
}

/// What is to be sent next.
pub(super) struct Group {
    pub(super) owner: Owner,
    /// A claim goes before the records.
    pub(super) claim: Option<u64>,
    pub(super) records: Vec<(u64, Bytes)>,
}

impl Shared {
    pub(super) fn new(name: PathBuf, options: LogOptions, file: Option<PathBuf>) -> Self {
        Self {
            name,
            options,
            file,
            writer: fastrand::u64(1..),
            state: Mutex::new(State {
                appends: VecDeque::new(),
                sent: 0,
                bytes_waiting: 0,
                bytes_sent: 0,
                promised: 0,
                fold: Fold::whole(),
                place: 0,
                last: None,
                kept: 0,
                is_proven: true,
                read: 0,
                told: 0,
                oldest: 0,
                marks: Vec::new(),
                step: STEP,
                own: None,
                claiming: None,
                since_claim: 0,
                closed: false,
                trouble: None,
                failures: 0,
            }),
            work: Notify::new(),
            room: Notify::new(),
            end: watch::Sender::new(End {
                durable: 0,
                is_last: false,
            }),
            caught_up: watch::Sender::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    pub(super) fn fenced(&self, own: u64, newest: u64) -> LogError {
        LogError::Fenced {
            path: self.name.clone(),
            own: Epoch(own),
            newest: Epoch(newest),
        }
    }

    pub(super) fn unwritable(&self, cause: impl std::fmt::Display) -> LogError {
        LogError::Unwritable {
            path: self.name.clone(),
            cause: cause.to_string(),
        }
    }

    pub(super) fn push(&self, records: Vec<Bytes>, record_bytes_max: usize) -> Result<Append, LogError> {
        let bytes: usize = records.iter().map(Bytes::len).sum();
        let max = self.options.append_bytes_max;
        if bytes > max {
            return Err(LogError::TooLarge { bytes, max });
        }
        if let Some(large) = records.iter().find(|record| record.len() > record_bytes_max) {
            return Err(LogError::TooLarge {
                bytes: large.len(),
                max: record_bytes_max,
            });
        }
        let mut state = self.lock();
        if let Some(error) = self.fence(&state) {
            return Err(error);
        }
        if state.closed {
            return Err(LogError::Closed);
        }
        let first = state.next();
        let (append, done) = Append::pending(Offset(first), records.len() as u64);
        if records.is_empty() {
            let _ = done.send(Ok(()));
            return Ok(append);
        }
        if !state.has_room(bytes, self.options.queue_appends, self.options.queue_bytes) {
            return Err(LogError::Busy);
        }
        state.promised = append.next().0;
        state.bytes_waiting += bytes;
        state.appends.push_back(Waiting {
            first,
            records,
            bytes,
            since: Instant::now(),
            sent: None,
            done,
        });
        drop(state);
        self.work.notify_one();
        Ok(append)
    }

    /// The error of whoever is the owner no longer, or never was while somebody is.
    fn fence(&self, state: &State) -> Option<LogError> {
        let newest = state.fold.epoch();
        match state.own {
            None if newest > 0 => Some(self.fenced(0, newest)),
            Some(epoch) if state.fold.owner.is_some_and(|owner| owner.writer != self.writer) => {
                Some(self.fenced(epoch, newest))
            }
            _ => None,
        }
    }

    pub(super) async fn room(&self) {
        let (appends, bytes) = (
            self.options.queue_appends.div_ceil(2),
            self.options.queue_bytes.div_ceil(2),
        );
        loop {
            let mut notified = std::pin::pin!(self.room.notified());
            notified.as_mut().enable();
            {
                let state = self.lock();
                if state.closed || state.has_room(0, appends, bytes) {
                    return;
                }
            }
            notified.await;
        }
    }

    pub(super) fn wait_for(&self, from: u64) -> impl Future<Output = Option<u64>> + Send + use<> {
        let mut ends = self.end.subscribe();
        async move {
            let end = *ends.wait_for(|end| end.durable > from || end.is_last).await.ok()?;
            (end.durable > from).then_some(end.durable)
        }
    }

    /// Asks to be the owner; what comes of it is told once the partition says so.
    pub(super) fn ask_to_own(&self, epoch: u64, answer: Claimed) {
        let mut state = self.lock();
        let newest = state.fold.epoch();
        if epoch < newest {
            let _ = answer.send(Err(self.fenced(epoch, newest)));
            return;
        }
        if state.closed {
            let _ = answer.send(Err(LogError::Closed));
            return;
        }
        state.claiming = Some((epoch, false, answer));
        drop(state);
        self.work.notify_one();
    }

    /// Nobody waits for a claim any more.
    pub(super) fn forget_claim(&self) {
        self.lock().claiming = None;
    }

    pub(super) fn next(&self) -> u64 {
        self.lock().next()
    }

    pub(super) fn durable(&self) -> u64 {
        self.lock().durable()
    }

    pub(super) fn oldest(&self) -> u64 {
        self.lock().oldest
    }

    pub(super) fn own_epoch(&self) -> u64 {
        self.lock().own.unwrap_or(0)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Closed, and nothing waits.
    pub(super) fn is_done(&self) -> bool {
        let state = self.lock();
        state.closed && (state.appends.is_empty() || self.fence(&state).is_some())
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
        self.room.notify_waiters();
    }

    pub(super) fn health(&self) -> LogHealth {
        let state = self.lock();
        LogHealth {
            trouble: state.trouble.clone(),
            waiting_records: state.next().saturating_sub(state.durable()),
            waiting_bytes: (state.bytes_waiting + state.bytes_sent) as u64,
            waiting_for: state
                .appends
                .front()
                .map_or(Duration::ZERO, |append| append.since.elapsed()),
            failures: state.failures,
        }
    }

    pub(super) fn note_trouble(&self, reason: &str, now_us: i64) {
        let mut state = self.lock();
        state.failures += 1;
        if state.trouble.is_none() {
            warn!(log = %self.name.display(), reason, "Fluvio can't be used; it is tried again");
        }
        let since_us = state.trouble.as_ref().map_or(now_us, |before| before.since_us);
        state.trouble = Some(Trouble {
            since_us,
            reason: reason.to_owned(),
        });
    }

    /// All there was has been read: who waits for that goes on, and what was sent before and is not there is sent again.
    /// `read` is how many records that took.
    pub(super) fn note_caught_up(&self, read: i64) {
        let mut state = self.lock();
        if let Some(was) = state.trouble.take() {
            info!(log = %self.name.display(), was = was.reason, "Fluvio can be used again");
        }
        if !self.caught_up.send_replace(true) {
            state.read = read.unsigned_abs();
        }
    }

    /// How many records were read before it was open.
    pub(super) fn read_to_open(&self) -> u64 {
        self.lock().read
    }

    /// A session begins: what was sent in the last one counts as waiting.
    pub(super) fn begin_session(&self) -> Mark {
        let mut state = self.lock();
        state.sent = 0;
        state.bytes_waiting += state.bytes_sent;
        state.bytes_sent = 0;
        for append in &mut state.appends {
            append.sent = None;
        }
        if let Some((_, is_sent, _)) = &mut state.claiming {
            *is_sent = false;
        }
        Mark {
            place: state.place,
            fold: state.fold,
        }
    }

    /// What to send next; none while nothing waits, enough is under way, or the partition is somebody else's.
    pub(super) fn take_group(&self) -> Option<Group> {
        let mut state = self.lock();
        if self.fence(&state).is_some() && state.claiming.is_none() {
            return None;
        }
        let next = state.durable();
        let from = state
            .appends
            .get(state.sent)
            .map_or_else(|| state.next(), |append| append.first.max(next));
        if let Some((epoch, is_sent, _)) = &mut state.claiming {
            let epoch = *epoch;
            if !mem::replace(is_sent, true) {
                state.since_claim = 0;
                return Some(Group {
                    owner: self.owner(epoch),
                    claim: Some(from),
                    records: Vec::new(),
                });
            }
            // Records go under the new epoch, once it holds.
            return None;
        }
        if state.sent >= state.appends.len() || state.bytes_sent >= UNDER_WAY_BYTES {
            return None;
        }
        let is_unclaimed = state.own.is_none();
        let owner = self.owner(state.own.unwrap_or(0));
        let (mut records, mut bytes) = (Vec::new(), 0);
        while let Some(at) = Some(state.sent).filter(|at| *at < state.appends.len()) {
            let append = &mut state.appends[at];
            if !records.is_empty() && bytes + append.bytes > self.options.group_bytes {
                break;
            }
            bytes += append.bytes;
            append.sent = Some(Instant::now());
            // Some of it may have counted before a connection was lost.
            let all = (append.first..).zip(append.records.iter().cloned());
            records.extend(all.filter(|(sequence, _)| *sequence >= next));
            let append_bytes = append.bytes;
            state.sent += 1;
            state.bytes_waiting -= append_bytes;
            state.bytes_sent += append_bytes;
        }
        state.since_claim += records.len() as u64;
        let is_due = state.since_claim >= CLAIM_EVERY;
        if is_due || is_unclaimed {
            state.since_claim = 0;
        }
        drop(state);
        self.room.notify_waiters();
        Some(Group {
            owner,
            claim: (is_due || is_unclaimed).then_some(from),
            records,
        })
    }

    fn owner(&self, epoch: u64) -> Owner {
        Owner {
            epoch,
            writer: self.writer,
        }
    }

    /// When the oldest that was sent in this session was, so that waiting for it has an end.
    pub(super) fn sent_since(&self) -> Option<Instant> {
        self.lock().appends.front().and_then(|append| append.sent)
    }

    /// Takes what the partition says next.
    ///
    /// # Errors
    /// In words, when records of ours stand behind a gap: they have to be sent again.
    pub(super) fn take(&self, records: Vec<Physical>) -> Result<(), String> {
        let mut gap = None;
        let mut state = self.lock();
        let before = state.durable();
        state.last = last_of(&records).or(state.last);
        for (place, value) in records {
            state.place = place + 1;
            let Some(frame) = Frame::decode(value) else {
                error!(log = %self.name.display(), place, "a record that is none of Usher's is left out");
                continue;
            };
            let is_first = state.fold.next.is_none();
            let mark = Mark {
                place,
                fold: state.fold,
            };
            match state.fold.take(&frame) {
                Folded::Accepted(offset) => {
                    if is_first {
                        state.oldest = offset;
                    }
                    if is_first || offset % state.step == 0 {
                        state.remember(offset, mark);
                    }
                }
                Folded::Claimed => {
                    state.told = frame.sequence;
                    self.note_claimed(&mut state, frame.owner);
                }
                Folded::Dropped if frame.record.is_none() && frame.owner.writer == self.writer => {
                    // Somebody with a later epoch came first.
                    if let Some((epoch, _, answer)) = state.claiming.take() {
                        let _ = answer.send(Err(self.fenced(epoch, state.fold.epoch())));
                    }
                }
                Folded::Ahead if frame.owner.writer == self.writer => gap = Some(frame.sequence),
                Folded::Dropped | Folded::Ahead => {}
            }
        }
        let durable = state.durable();
        state.complete(durable);
        drop(state);
        if durable > before {
            self.end.send_modify(|end| end.durable = durable);
            self.work.notify_one();
            self.room.notify_waiters();
        }
        gap.map_or(Ok(()), |sequence| {
            Err(format!("record {sequence} came before one that was sent earlier"))
        })
    }

    fn note_claimed(&self, state: &mut State, owner: Owner) {
        if owner.writer == self.writer {
            state.own = Some(owner.epoch);
            if let Some((_, _, answer)) = state.claiming.take_if(|(epoch, ..)| *epoch == owner.epoch) {
                let _ = answer.send(Ok(()));
            }
            self.work.notify_one();
            return;
        }
        if let Some(error) = self.fence(state) {
            if state.own.is_some() {
                error!(%error, "the partition has a later owner");
            }
            state.fail_all(&error);
            self.room.notify_waiters();
        }
    }

    /// Gives up what waits, for good.
    pub(super) fn fail_all(&self, error: &LogError) {
        let mut state = self.lock();
        state.fail_all(error);
        if let Some((_, _, answer)) = state.claiming.take() {
            let _ = answer.send(Err(error.clone()));
        }
        drop(state);
        self.room.notify_waiters();
    }

    pub(super) fn end_writing(&self) {
        self.end.send_modify(|end| end.is_last = true);
        let _ = self.caught_up.send_replace(true);
    }
}

impl State {
    fn durable(&self) -> u64 {
        self.fold.next.unwrap_or(self.told)
    }

    fn next(&self) -> u64 {
        match self.appends.is_empty() {
            true => self.durable(),
            false => self.promised,
        }
    }

    fn has_room(&self, bytes: usize, queue_appends: usize, queue_bytes: usize) -> bool {
        let waiting = self.appends.len() - self.sent;
        waiting == 0 || (waiting < queue_appends && self.bytes_waiting + bytes <= queue_bytes)
    }

    /// Tells those whose records all count.
    fn complete(&mut self, durable: u64) {
        while let Some(front) = self.appends.front()
            && front.first + front.records.len() as u64 <= durable
        {
            let Some(front) = self.appends.pop_front() else { return };
            match front.sent {
                Some(_) => {
                    self.sent -= 1;
                    self.bytes_sent -= front.bytes;
                }
                // It had been sent before a connection was lost, and counts all the same.
                None => self.bytes_waiting -= front.bytes,
            }
            let _ = front.done.send(Ok(()));
        }
    }

    fn fail_all(&mut self, error: &LogError) {
        for append in mem::take(&mut self.appends) {
            let _ = append.done.send(Err(error.clone()));
        }
        (self.sent, self.bytes_waiting, self.bytes_sent) = (0, 0, 0);
    }
}
