//! A receiver is told every step it wants, once and in order for a subject, for as long as it takes.
//!
//! Each has a place of its own in the sequence of steps, its own breaker and its own dead letters, so that one that is
//! slow or away holds up no other.

mod letters;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use usher_connectors::BoxFuture;
use usher_connectors::crash_point::CrashPoint;
use usher_connectors::spool::SpoolError;
use usher_queries::rows::time_to_text;

use super::breaker::{Breaker, Lets};
use super::dead_letters::DeadLetters;
use super::journal::Journal;
use super::lane::{Lane, Settled};
use super::news::News;
use super::step::Told;
use super::view::ReceiverView;
use crate::clock::Clock;

/// Numbers that a receiver usually keeps in memory; a few megabytes.
const IN_MEMORY: usize = 50_000;
/// Steps taken in at once.
const TAKE_IN: usize = 256;
/// The first wait before another try is up to so long; it doubles with each.
const WAIT_FIRST: Duration = Duration::from_millis(500);
/// The longest.
const WAIT_MAX: Duration = Duration::from_secs(5 * 60);
/// How long to wait before steps that can't be read are tried again.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(1);
/// A step is given up only after so many tries while others are taken, however long it took.
const TRIES_MIN: u32 = 8;

/// How sending a step went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The receiver has it.
    Done,
    /// It may have it or not; sending it again is right, and not sooner than after that time.
    Later {
        /// What happened, in words.
        reason: String,
        /// The receiver asked for so much peace.
        peace: Option<Duration>,
    },
    /// It will never take it.
    Refused(String),
    /// Nobody is to have it any more: a message that no longer stands.
    Withdrawn,
}

/// The way to a receiver.
pub(crate) trait Sender: Send + Sync + 'static {
    /// `mqtt`, `webhook` or `fluvio`.
    fn kind(&self) -> &'static str;

    /// Where it is, without passwords.
    fn address(&self) -> String;

    /// Whether it wants to be told of such a step.
    fn wants(&self, news: &News) -> bool;

    /// Sends a step.
    fn send(&self, step: Arc<Told>) -> BoxFuture<'_, Sent>;
}

/// How a receiver is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiverOptions {
    /// Steps on their way at a time.
    pub max_in_flight: usize,
    /// A step that fails for so long while others are taken becomes a dead letter.
    pub give_up_after: Duration,
    /// Dead letters kept. When there are so many, no more steps are given up.
    pub dead_letters_max: usize,
    /// Numbers of steps kept in memory, waiting or settled out of turn. The rest waits on disk.
    pub in_memory_max: usize,
}

struct Inner {
    lane: Lane,
    /// When the steps in the lane were told, by number, the oldest first.
    told_us: VecDeque<(u64, i64)>,
    breaker: Breaker,
    letters: DeadLetters,
    /// Since when steps are taken, while the breaker is closed and no peace was asked for.
    taking_since: Option<Instant>,
    is_unreadable: bool,
    sent: u64,
    failed: u64,
    lost: u64,
    last_error: Option<String>,
}

/// A receiver, and where it stands.
pub(super) struct Receiver {
    name: String,
    sender: Box<dyn Sender>,
    options: ReceiverOptions,
    journal: Arc<Journal>,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    wake: Notify,
}

impl ReceiverOptions {
    /// A receiver that is sent so much at a time, and otherwise as usual.
    pub fn new(max_in_flight: usize, dead_letters_max: usize) -> Self {
        Self {
            max_in_flight,
            give_up_after: Duration::MAX,
            dead_letters_max,
            in_memory_max: IN_MEMORY,
        }
    }
}

impl Receiver {
    /// Goes on where the receiver of this name stood. Blocks on the disk.
    pub(super) fn join(
        name: &str,
        sender: Box<dyn Sender>,
        options: ReceiverOptions,
        journal: &Arc<Journal>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SpoolError> {
        let standing = journal.join(name)?;
        let letters = DeadLetters::restore(&standing.letters, options.dead_letters_max);
        let mut lane = Lane::at(standing.cursor, standing.ahead);
        for letter in letters.resent() {
            lane.queue(letter.step.number, letter.step.subject);
        }
        Ok(Self {
            name: name.to_owned(),
            sender,
            options,
            journal: Arc::clone(journal),
            clock,
            inner: Mutex::new(Inner {
                lane,
                told_us: VecDeque::new(),
                breaker: Breaker::new(),
                letters,
                taking_since: None,
                is_unreadable: false,
                sent: 0,
                failed: 0,
                lost: 0,
                last_error: None,
            }),
            wake: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Sends until `stop`. What is on its way then counts as not sent, and comes again after the next start.
    pub(super) async fn run(&self, stop: CancellationToken) {
        // It may have failed before, with steps in its hands.
        {
            let mut inner = self.lock();
            inner.lane.give_back();
            inner.breaker.give_back(self.clock.now());
        }
        let mut told = self.journal.watch();
        let mut under_way = FuturesUnordered::new();
        loop {
            told.borrow_and_update();
            let is_more = self.take_in().await;
            let pause_until = loop {
                if under_way.len() >= self.options.max_in_flight {
                    break None;
                }
                match self.next() {
                    Next::Send(number) => under_way.push(async move { (number, self.send(number).await) }),
                    Next::At(until) => break until,
                }
            };
            let pause = async {
                match pause_until {
                    Some(until) => self.clock.sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // In this order, so that the same things happening give the same.
                biased;
                () = stop.cancelled() => return,
                Some((number, (step, sent))) = under_way.next(), if !under_way.is_empty() => {
                    self.settle(number, step, sent);
                    CrashPoint::Confirmed.pass();
                }
                changed = told.changed() => if changed.is_err() { return },
                () = self.wake.notified() => {}
                () = pause => {}
                () = tokio::task::yield_now(), if is_more => {}
            }
        }
    }

    /// Takes in what was told, as far as memory allows; true when there is more to be taken in at once.
    async fn take_in(&self) -> bool {
        let oldest = self.journal.oldest();
        let (from, has_room) = {
            let mut inner = self.lock();
            let lost = inner.lane.lose_before(oldest);
            if lost > 0 {
                inner.lost += lost;
                tracing::error!(
                    receiver = self.name,
                    lost,
                    "too many steps waited; the oldest were dropped"
                );
                metrics::counter!("usher_receiver_lost_total", "receiver" => self.name.clone()).increment(lost);
                // Dead letters have their steps with them, however old these are.
                let Inner { lane, letters, .. } = &mut *inner;
                for letter in letters.resent() {
                    lane.queue(letter.step.number, letter.step.subject);
                }
            }
            inner.forget_settled();
            (inner.lane.next(), inner.lane.kept() < self.options.in_memory_max)
        };
        if !has_room || from >= self.journal.next() {
            return false;
        }
        let (steps, upto) = match self.journal.read(from, TAKE_IN).await {
            Ok(read) => read,
            Err(error) => return self.unreadable(&error).await,
        };
        let mut inner = self.lock();
        inner.is_unreadable = false;
        for step in &steps {
            self.pass_missing(&mut inner, step.number);
            if self.sender.wants(&step.news) {
                inner.lane.add(step.number, step.subject);
                inner.told_us.push_back((step.number, step.told_us));
            } else {
                let mut settled = inner.lane.pass_over(step.number);
                // What it does not want is looked at again after a restart, and need not be written down.
                settled.ahead = None;
                if settled != Settled::default() {
                    self.journal.settle(&self.name, &settled, None);
                }
            }
        }
        self.pass_missing(&mut inner, upto);
        upto > from
    }

    /// Goes on at `upto`: what is missing before it was lost to the disk, which was said; nobody waits for it.
    fn pass_missing(&self, inner: &mut Inner, upto: u64) {
        let mut lost = 0;
        while inner.lane.next() < upto {
            let missing = inner.lane.next();
            lost += u64::from(!inner.lane.is_settled(missing));
            let settled = Settled {
                ahead: None,
                ..inner.lane.pass_over(missing)
            };
            if settled != Settled::default() {
                self.journal.settle(&self.name, &settled, None);
            }
        }
        if lost > 0 {
            inner.lost += lost;
            tracing::error!(
                receiver = self.name,
                lost,
                "steps that waited are not to be read; they are left out"
            );
            metrics::counter!("usher_receiver_lost_total", "receiver" => self.name.clone()).increment(lost);
        }
    }

    /// Steps can't be read: says so once, and lets a moment pass before the next try.
    async fn unreadable(&self, error: &SpoolError) -> bool {
        {
            let mut inner = self.lock();
            if !std::mem::replace(&mut inner.is_unreadable, true) {
                tracing::error!(receiver = self.name, %error, "steps that wait can't be read; it is tried again");
            }
            inner.last_error = Some(error.to_string());
        }
        self.clock.sleep_until(self.clock.now() + UNREADABLE_PAUSE).await;
        true
    }

    fn next(&self) -> Next {
        let now = self.clock.now();
        let mut inner = self.lock();
        let under_way = inner.lane.under_way();
        match inner.breaker.lets(now, under_way) {
            Lets::All => {}
            Lets::Probe => {
                return match inner.lane.take(now) {
                    Some(number) => {
                        inner.breaker.probe();
                        Next::Send(number)
                    }
                    None => Next::At(inner.lane.next_due()),
                };
            }
            Lets::NothingUntil(until) => return Next::At(Some(until)),
            Lets::Nothing => return Next::At(None),
        }
        match inner.lane.take(now) {
            Some(number) => Next::Send(number),
            None => Next::At(inner.lane.next_due()),
        }
    }

    async fn send(&self, number: u64) -> (Option<Arc<Told>>, Sent) {
        let letter = self.lock().letters.get(number).map(|letter| Arc::clone(&letter.step));
        let step = match letter {
            Some(step) => step,
            None => match self.journal.load(number).await {
                Ok(Some(step)) => step,
                Ok(None) => return (None, Sent::Refused("it is no longer kept".to_owned())),
                Err(error) => {
                    let reason = error.to_string();
                    return (None, Sent::Later { reason, peace: None });
                }
            },
        };
        if !self.journal.messages.has(&step.news) {
            return (Some(step), Sent::Withdrawn);
        }
        let sent = self.sender.send(Arc::clone(&step)).await;
        CrashPoint::Sent.pass();
        (Some(step), sent)
    }

    fn settle(&self, number: u64, step: Option<Arc<Told>>, sent: Sent) {
        let now = self.clock.now();
        let mut inner = self.lock();
        let inner = &mut *inner;
        match sent {
            Sent::Done => {
                inner.sent += 1;
                inner.taking_since.get_or_insert(now);
                self.answered(inner);
                let settled = inner.lane.done(number);
                let letter = inner.letters.remove(number).map(|_| (number, None));
                self.journal.settle(&self.name, &settled, letter);
            }
            Sent::Withdrawn => {
                metrics::counter!("usher_person_messages_withdrawn_total", "receiver" => self.name.clone())
                    .increment(1);
                inner.breaker.give_back(now);
                let settled = inner.lane.done(number);
                let letter = inner.letters.remove(number).map(|_| (number, None));
                self.journal.settle(&self.name, &settled, letter);
            }
            Sent::Refused(reason) => {
                inner.failed += 1;
                match step {
                    Some(step) => {
                        self.answered(inner);
                        inner.lane.fail(number, now, inner.taking_since);
                        self.bury(inner, step, reason, now);
                    }
                    None => {
                        // Nobody was asked.
                        inner.breaker.give_back(now);
                        inner.lost += 1;
                        let settled = inner.lane.done(number);
                        self.journal.settle(&self.name, &settled, None);
                    }
                }
            }
            Sent::Later { reason, peace } => {
                inner.failed += 1;
                let was_closed = inner.breaker.is_closed();
                let failures = inner.lane.fail(number, now, inner.taking_since);
                // While nothing gets through it is the receiver that fails and not the step. So that time does not count.
                let is_given_up = inner.taking_since.is_some()
                    && failures.time_alone >= self.options.give_up_after
                    && failures.tries_alone >= TRIES_MIN;
                // One that asks for no peace at all has failed like any other.
                match peace.filter(|peace| !peace.is_zero()) {
                    Some(peace) => {
                        inner.breaker.hold(now + peace);
                        inner.taking_since = None;
                    }
                    None => inner.breaker.failed(now, self.clock.spread()),
                }
                if !inner.breaker.is_closed() {
                    inner.taking_since = None;
                }
                if was_closed && !inner.breaker.is_closed() {
                    tracing::warn!(
                        receiver = self.name,
                        reason,
                        "it is left alone for a while; steps for it are kept"
                    );
                }
                match step {
                    Some(step) if is_given_up && inner.letters.has_room() => {
                        let reason = format!("given up after {} tries: {reason}", failures.tries);
                        self.bury(inner, step, reason.clone(), now);
                        inner.last_error = Some(reason);
                    }
                    _ => {
                        inner
                            .lane
                            .wait(number, now + wait_after(failures.tries, self.clock.spread()));
                        inner.last_error = Some(reason);
                    }
                }
            }
        }
    }

    /// The receiver is there. What failed with all others need not wait any longer.
    fn answered(&self, inner: &mut Inner) {
        if !inner.breaker.is_closed() {
            tracing::info!(receiver = self.name, "it takes steps again");
            inner.lane.hasten(TRIES_MIN);
        }
        inner.breaker.answered();
    }

    /// Whether it has every step before that number, or made a dead letter of it.
    pub(super) fn has_all_before(&self, number: u64) -> bool {
        self.lock().lane.cursor() >= number
    }

    /// How many steps it does not have yet.
    pub(super) fn waiting(&self) -> u64 {
        let inner = self.lock();
        inner.lane.waiting() as u64 + self.journal.next().saturating_sub(inner.lane.next())
    }

    /// Numbers in memory.
    #[cfg(test)]
    pub(super) fn in_memory(&self) -> usize {
        self.lock().lane.kept()
    }

    /// Whether it is sent to as things come.
    pub(super) fn is_open_to(&self) -> bool {
        self.lock().breaker.is_closed()
    }

    fn told_us(&self, number: u64) -> Option<i64> {
        let steps = self.journal.recent(number, 1)?;
        steps.first().map(|step| step.told_us)
    }

    /// Where it stands.
    pub(super) fn view(&self) -> ReceiverView {
        let (next, now) = (self.journal.next(), self.clock.now());
        let inner = self.lock();
        let since = inner
            .lane
            .oldest()
            .or_else(|| (inner.lane.next() < next).then(|| inner.lane.next()));
        let since = since.and_then(|number| inner.told_us(number).or_else(|| self.told_us(number)));
        ReceiverView {
            name: self.name.clone(),
            kind: self.sender.kind(),
            address: self.sender.address(),
            state: inner.breaker.state(),
            words: inner.breaker.words(now, inner.lane.next_free(now)),
            waiting: inner.lane.waiting() as u64 + next.saturating_sub(inner.lane.next()),
            under_way: inner.lane.under_way(),
            waiting_since: since.map(time_to_text),
            sent: inner.sent,
            failed: inner.failed,
            dead: inner.letters.len(),
            lost: inner.lost,
            last_error: inner.last_error.clone(),
        }
    }
}

impl Inner {
    /// When a step in the lane was told, or one that is sent again.
    fn told_us(&self, number: u64) -> Option<i64> {
        if let Some(letter) = self.letters.get(number) {
            return Some(letter.step.told_us);
        }
        let at = self.told_us.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.told_us.get(at).map(|(_, told_us)| *told_us)
    }

    fn forget_settled(&mut self) {
        while self
            .told_us
            .front()
            .is_some_and(|(number, _)| *number < self.lane.cursor())
        {
            self.told_us.pop_front();
        }
    }
}

enum Next {
    Send(u64),
    /// Nothing before then; `None` for as long as nothing happens.
    At(Option<Instant>),
}

/// Full jitter: anything up to a step that doubles with each try.
fn wait_after(tries: u32, spread: f64) -> Duration {
    let step = WAIT_FIRST
        .saturating_mul(1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX))
        .min(WAIT_MAX);
    step.mul_f64(spread)
}
