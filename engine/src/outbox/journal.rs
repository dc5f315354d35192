//! The journal is the sequence of all steps: told once, kept on disk until every receiver has them.
//!
//! Whoever tells a step never waits for the disk: a thread of its own writes what was told and what was confirmed, in
//! that order. What it has not written yet goes into the checkpoint, so that the two together miss nothing.

mod writing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use usher_connectors::spool::{Spool, SpoolError};

use super::known::Known;
use super::lane::Settled;
use super::news::{News, OpenMessages};
use super::orders::Order;
use super::shelf::Shelf;
use super::step::{StepId, Told};

/// Steps kept at least, though every receiver has them: by them a step is known when the log is gone through again, and
/// pages that were away catch up.
pub(crate) const KEPT: u64 = 10_000;
/// Steps dropped at once, so that the disk has a little to do now and then instead of a little always.
const TRIM: u64 = 512;
/// Bytes read at once.
const READ_BYTES: usize = 4 << 20;

/// Marks in the spool: where a receiver stands, what it has ahead of that, its dead letters, up to which offset of the
/// log everything is told, and from which step on what is told may come again.
const CURSOR: &str = "cursor/";
const AHEAD: &str = "ahead/";
const LETTER: &str = "letter/";
const TOLD_UNTIL: &str = "told-until";
const MAY_REPEAT: &str = "may-repeat";

struct State {
    /// The number that the next step gets.
    next: u64,
    /// The first that is kept.
    oldest: u64,
    /// The newest steps, without a gap; all that is not durable is among them.
    recent: VecDeque<Arc<Told>>,
    /// By which a step told again is known.
    known: Known,
    /// The next number when it was noted last up to which offset all is told.
    noted: u64,
    /// The same of the time before. A restart goes through the log from a checkpoint that is no older, so what was told
    /// from there on may come again.
    may_repeat: u64,
    orders: Vec<Order>,
    /// What was written and not made durable yet, the oldest first.
    unsynced: Vec<Order>,
    /// Everything before it is with the system.
    written: u64,
    /// Everything before it is on disk.
    durable: u64,
    /// Where each receiver stands.
    cursors: BTreeMap<String, u64>,
    is_closing: bool,
}

/// All steps, in their order.
pub(crate) struct Journal {
    spool: Arc<dyn Shelf>,
    state: Mutex<State>,
    work: Condvar,
    /// Steps that are kept at most, whoever still waits for them.
    keep_max: u64,
    /// Steps that may wait for the disk; beyond it whoever tells should wait.
    unwritten_max: u64,
    next: watch::Sender<u64>,
    written: Notify,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// How many wait for the disk to read.
    reading: AtomicUsize,
    /// Messages that may still go out.
    pub(super) messages: OpenMessages,
}

/// Where a receiver stood when the process before this one ended.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) cursor: u64,
    pub(super) ahead: BTreeSet<u64>,
    /// By number, as they were written.
    pub(super) letters: Vec<(u64, Bytes)>,
}

impl Journal {
    /// Opens the journal in `dir`; it keeps `keep_max` steps at most, of which `unwritten_max` may wait for the disk. Blocks on
    /// the disk.
    pub(super) fn open(dir: &Path, keep_max: u64, unwritten_max: usize) -> Result<Arc<Self>, SpoolError> {
        let journal = Self::over(Arc::new(Spool::open(dir)?), keep_max, unwritten_max)?;
        journal.begin_writing().map_err(|error| SpoolError::Failed {
            path: dir.to_owned(),
            cause: format!("no thread for it: {error}"),
        })?;
        Ok(journal)
    }

    /// A journal on this shelf that nobody writes yet.
    pub(crate) fn over(spool: Arc<dyn Shelf>, keep_max: u64, unwritten_max: usize) -> Result<Arc<Self>, SpoolError> {
        // What a process that was killed had written may be with the system only, and would count as durable.
        spool.sync()?;
        let span = spool.span()?;
        // Cursors may be further: what all have may be gone.
        let mut cursors = BTreeMap::new();
        for (name, bytes) in spool.marks(CURSOR)? {
            cursors.insert(name[CURSOR.len()..].to_owned(), number_in(&bytes));
        }
        let next = cursors
            .values()
            .copied()
            .fold(span.map_or(0, |(_, last)| last + 1), u64::max);
        let oldest = span.map_or(next, |(first, _)| first);
        // Folders of earlier releases do not have it.
        let may_repeat = spool.marks(MAY_REPEAT)?.first().map(|(_, bytes)| number_in(bytes));
        let may_repeat = may_repeat.unwrap_or(next);
        let mut known = Known::default();
        let mut at = next.saturating_sub(KEPT).min(may_repeat).max(oldest);
        loop {
            let read = spool.read(at, 1_024, READ_BYTES)?;
            let Some((last, _)) = read.last() else { break };
            at = last + 1;
            for (number, bytes) in &read {
                if let Some(id) = Told::id_in(bytes) {
                    known.insert(*number, id);
                }
            }
        }
        let journal = Arc::new(Self {
            spool,
            state: Mutex::new(State {
                next,
                oldest,
                recent: VecDeque::new(),
                known,
                noted: may_repeat,
                may_repeat,
                orders: Vec::new(),
                unsynced: Vec::new(),
                written: next,
                durable: next,
                cursors,
                is_closing: false,
            }),
            work: Condvar::new(),
            keep_max,
            unwritten_max: u64::try_from(unwritten_max).unwrap_or(u64::MAX),
            next: watch::Sender::new(next),
            written: Notify::new(),
            writer: Mutex::new(None),
            reading: AtomicUsize::new(0),
            messages: OpenMessages::default(),
        });
        Ok(journal)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Tells a step, unless it is known.
    pub(super) fn tell(&self, id: StepId, news: News, told_us: i64, received: Option<Instant>) {
        let mut state = self.lock();
        let number = state.next;
        if !state.known.insert(number, id) {
            return;
        }
        // Beyond what is kept on disk no more would be known after a restart.
        let kept_from = number.saturating_sub(self.keep_max.max(KEPT));
        let forgotten = state.repeated_from().max(kept_from);
        state.known.forget_before(forgotten);
        let step = Arc::new(Told::new(number, id, news, told_us, received));
        state.push(step);
        self.next.send_replace(state.next);
        drop(state);
        self.work.notify_one();
    }

    /// Takes up where a checkpoint stood: steps that it knew and that are not here, and the number after them.
    pub(super) fn take_up(&self, next: u64, steps: Vec<Told>) {
        let mut state = self.lock();
        for step in steps {
            if step.number < state.next {
                continue;
            }
            if step.number > state.next {
                state.skip_to(step.number);
            }
            state.known.insert(step.number, step.id);
            state.push(Arc::new(step));
        }
        if next > state.next {
            state.skip_to(next);
        }
        self.next.send_replace(state.next);
        drop(state);
        self.work.notify_one();
    }

    /// For a checkpoint: the next number, and the steps that a loss of power would take.
    pub(super) fn not_durable(&self) -> (u64, Vec<Arc<Told>>) {
        let state = self.lock();
        let from = state.durable;
        let steps = state.recent.iter().filter(|step| step.number >= from);
        (state.next, steps.cloned().collect())
    }

    /// Waits while too much waits for the disk.
    pub(super) async fn room(&self) {
        loop {
            let written = self.written.notified();
            if self.has_room() {
                return;
            }
            written.await;
        }
    }

    /// Whether [`Journal::room`] would not wait.
    pub(super) fn has_room(&self) -> bool {
        let state = self.lock();
        state.next - state.written <= self.unwritten_max || state.is_closing
    }

    /// Whoever waits for new steps.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    /// The number that the next step gets.
    pub(crate) fn next(&self) -> u64 {
        self.lock().next
    }

    /// The first number that is kept.
    pub(super) fn oldest(&self) -> u64 {
        self.lock().oldest
    }

    /// Steps from `from` on, if all there are from there lie in memory.
    pub(crate) fn recent(&self, from: u64, max: usize) -> Option<Vec<Arc<Told>>> {
        let state = self.lock();
        let first = state.recent.front().map_or(state.next, |step| step.number);
        let skip = usize::try_from(from.checked_sub(first)?).ok()?;
        Some(state.recent.iter().skip(skip).take(max).cloned().collect())
    }

    /// Steps from `from` on, at most `max` at once, and the number to go on at: what lies before it and is not among
    /// them is not here or can't be read.
    pub(super) async fn read(self: &Arc<Self>, from: u64, max: usize) -> Result<(Vec<Arc<Told>>, u64), SpoolError> {
        if let Some(recent) = self.recent(from, max) {
            let next = recent.last().map_or(from, |step| step.number + 1);
            return Ok((recent, next));
        }
        let in_memory = {
            let state = self.lock();
            state.recent.front().map_or(state.next, |step| step.number)
        };
        let read = self.on_disk(move |spool| spool.read(from, max, READ_BYTES)).await?;
        let next = read.last().map_or(in_memory, |(number, _)| number + 1);
        let mut steps = Vec::with_capacity(read.len());
        for (number, bytes) in read {
            match Told::from_bytes(number, &bytes) {
                Ok(step) => steps.push(Arc::new(step)),
                Err(reason) => tracing::error!(reason, "a step that waits to go out can't be read; it is left out"),
            }
        }
        Ok((steps, next))
    }

    /// The step of that number, if it is kept.
    pub(super) async fn load(self: &Arc<Self>, number: u64) -> Result<Option<Arc<Told>>, SpoolError> {
        if let Some(step) = self.recent(number, 1) {
            return Ok(step.into_iter().next().filter(|step| step.number == number));
        }
        let Some(bytes) = self.on_disk(move |spool| spool.get(number)).await? else {
            return Ok(None);
        };
        let step = Told::from_bytes(number, &bytes).map_err(|reason| self.broken(&reason))?;
        Ok(Some(Arc::new(step)))
    }

    /// Runs `work`, which waits for the disk, where it keeps nobody else waiting.
    async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&dyn Shelf) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        if !self.spool.keeps_waiting() {
            return work(self.spool.as_ref());
        }
        let journal = Arc::clone(self);
        self.reading.fetch_add(1, Ordering::Relaxed);
        let done = tokio::task::spawn_blocking(move || work(journal.spool.as_ref())).await;
        self.reading.fetch_sub(1, Ordering::Relaxed);
        done.map_err(|error| self.broken(&error))?
    }

    /// Whether somebody waits for the disk.
    #[cfg(test)]
    pub(super) fn is_reading(&self) -> bool {
        self.reading.load(Ordering::Relaxed) > 0
    }

    pub(super) fn broken(&self, cause: &dyn std::fmt::Display) -> SpoolError {
        SpoolError::Failed {
            path: "outbox".into(),
            cause: cause.to_string(),
        }
    }

    /// Empties those of the newest steps that name somebody; gives their numbers.
    pub(super) fn erase_recent(&self, is_named: &dyn Fn(&str) -> bool) -> BTreeSet<u64> {
        let mut state = self.lock();
        let named = state.recent.iter().filter(|step| step.names(is_named));
        let erased: Vec<Arc<Told>> = named.map(|step| Arc::new(step.erased(is_named))).collect();
        for step in &erased {
            state.put_in_place(Arc::clone(step));
        }
        drop(state);
        self.work.notify_one();
        erased.iter().map(|step| step.number).collect()
    }

    /// Puts steps in the place of those of their numbers, as far as these are kept.
    pub(super) fn replace(&self, steps: Vec<Arc<Told>>) {
        let mut state = self.lock();
        for step in steps {
            if step.number >= state.oldest {
                state.put_in_place(step);
            }
        }
        drop(state);
        self.work.notify_one();
    }

    /// Steps on disk from `from` on. Blocks on it.
    pub(super) fn read_disk(&self, from: u64, max: usize) -> Result<Vec<(u64, Bytes)>, SpoolError> {
        self.spool.read(from, max, READ_BYTES)
    }

    /// What was written over is found nowhere on the disk any more. Blocks on it.
    pub(super) fn purge(&self) -> Result<(), SpoolError> {
        self.spool.purge()
    }

    /// Where a receiver stood; one that was never here begins with what comes next. Blocks on the disk.
    pub(super) fn join(&self, receiver: &str) -> Result<Standing, SpoolError> {
        let mut standing = Standing::default();
        let of = |prefix: &str| format!("{prefix}{receiver}/");
        for (name, _) in self.spool.marks(&of(AHEAD))? {
            standing
                .ahead
                .extend(name.rsplit('/').next().and_then(|number| number.parse::<u64>().ok()));
        }
        for (name, bytes) in self.spool.marks(&of(LETTER))? {
            if let Some(number) = name.rsplit('/').next().and_then(|number| number.parse().ok()) {
                standing.letters.push((number, bytes));
            }
        }
        let mut state = self.lock();
        let known = state.cursors.get(receiver).copied();
        standing.cursor = known.unwrap_or(state.next);
        if known.is_none() {
            state.set_cursor(receiver, standing.cursor);
            drop(state);
            self.work.notify_one();
        }
        Ok(standing)
    }

    /// Forgets receivers that are not among these; gives their names and how many steps waited for each. Blocks on the
    /// disk.
    pub(super) fn forget_others(&self, receivers: &[&str]) -> Result<Vec<(String, u64)>, SpoolError> {
        let mut state = self.lock();
        let gone: Vec<(String, u64)> = state
            .cursors
            .iter()
            .filter(|(name, _)| !receivers.contains(&name.as_str()))
            .map(|(name, cursor)| (name.clone(), state.next.saturating_sub(*cursor)))
            .collect();
        for (name, _) in &gone {
            state.cursors.remove(name);
            state.orders.push(Order::Unmark(format!("{CURSOR}{name}")));
            for prefix in [AHEAD, LETTER] {
                for (mark, _) in self.spool.marks(&format!("{prefix}{name}/"))? {
                    state.orders.push(Order::Unmark(mark));
                }
            }
        }
        drop(state);
        self.work.notify_one();
        Ok(gone)
    }

    /// Writes down what a receiver has, and with it what becomes of its dead letters: `Some` keeps one, `None` drops it.
    pub(super) fn settle(&self, receiver: &str, settled: &Settled, letter: Option<(u64, Option<Bytes>)>) {
        let mut state = self.lock();
        if let Some((number, letter)) = letter {
            let name = format!("{LETTER}{receiver}/{number:020}");
            state.orders.push(match letter {
                Some(bytes) => Order::Mark(name, bytes),
                None => Order::Unmark(name),
            });
        }
        let ahead = |number: u64| format!("{AHEAD}{receiver}/{number:020}");
        if let Some(number) = settled.ahead {
            state.orders.push(Order::Mark(ahead(number), Bytes::new()));
        }
        if let Some(cursor) = settled.cursor {
            state.set_cursor(receiver, cursor);
        }
        for number in &settled.caught_up {
            state.orders.push(Order::Unmark(ahead(*number)));
        }
        state.trim(self.keep_max);
        drop(state);
        self.work.notify_one();
    }

    /// Notes that every step of the log before this offset has been told.
    pub(super) fn mark_told_until(&self, offset: u64) {
        let mark =
            |name: &str, number: u64| Order::Mark(name.to_owned(), Bytes::copy_from_slice(&number.to_be_bytes()));
        let mut state = self.lock();
        let next = state.next;
        // The checkpoint that is taken now may never be there, and the one before it is gone through from.
        let may_repeat = std::mem::replace(&mut state.noted, next);
        state.may_repeat = may_repeat;
        state.orders.push(mark(TOLD_UNTIL, offset));
        state.orders.push(mark(MAY_REPEAT, may_repeat));
        drop(state);
        self.work.notify_one();
    }

    /// The offset of the log before which every step has been told, if it was ever noted. Blocks on the disk.
    pub(super) fn told_until(&self) -> Result<Option<u64>, SpoolError> {
        let marks = self.spool.marks(TOLD_UNTIL)?;
        Ok(marks.first().map(|(_, bytes)| number_in(bytes)))
    }

    /// Bytes on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.spool.disk_bytes()
    }

    /// Steps that are known.
    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.lock().known.len()
    }

    /// Steps in memory.
    #[cfg(test)]
    pub(super) fn in_memory(&self) -> usize {
        self.lock().recent.len()
    }
}

impl State {
    fn push(&mut self, step: Arc<Told>) {
        self.next = step.number + 1;
        self.recent.push_back(Arc::clone(&step));
        self.orders.push(Order::Step(step));
    }

    /// A step stands where another of its number stood, also among what is still to be written.
    fn put_in_place(&mut self, step: Arc<Told>) {
        if let Some(recent) = self.recent.iter_mut().find(|recent| recent.number == step.number) {
            *recent = Arc::clone(&step);
        }
        let is_it = |order: &&mut Order| matches!(order, Order::Step(waiting) if waiting.number == step.number);
        // What is to be written again may be among them twice, of which the last counts.
        match self.orders.iter_mut().rev().find(is_it) {
            Some(order) => *order = Order::Step(step),
            None => self.orders.push(Order::Step(step)),
        }
    }

    /// Goes on at a later number: what lay between is not here.
    fn skip_to(&mut self, number: u64) {
        self.next = number;
        self.recent.clear();
        self.written = self.written.max(number);
        self.durable = self.durable.max(number);
        self.oldest = self.oldest.max(number);
    }

    fn set_cursor(&mut self, receiver: &str, cursor: u64) {
        self.cursors.insert(receiver.to_owned(), cursor);
        let value = Bytes::copy_from_slice(&cursor.to_be_bytes());
        self.orders.push(Order::Mark(format!("{CURSOR}{receiver}"), value));
    }

    /// The first step that is to be known when it comes again.
    fn repeated_from(&self) -> u64 {
        self.next.saturating_sub(KEPT).min(self.may_repeat)
    }

    fn trim(&mut self, keep_max: u64) {
        let all_have = self.cursors.values().min().copied().unwrap_or(self.next);
        let wanted = all_have.min(self.repeated_from());
        let wanted = wanted.max(self.next.saturating_sub(keep_max));
        if wanted >= self.oldest + TRIM {
            self.orders.push(Order::Trim(self.oldest, wanted));
            self.oldest = wanted;
        }
    }
}

fn number_in(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}
