//! The pipeline is the walk of an event: bytes in, understood, logged, asked about, judged, told.
//!
//! One task runs it, so that everything happens in the order of the log. It waits for nothing but messages: the disk
//! is waited for by the settler, the broker by the outbox, pages by the bus.

mod counts;
mod erasing;
mod listening;
mod read_ahead;
mod recovering;
mod repairing;
mod saving;
#[cfg(test)]
pub(crate) mod simulation;
mod stopped_queries;
mod telling;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use usher_connectors::crash_point::CrashPoint;
use usher_connectors::delivery::{Ack, Delivery};
use usher_connectors::log::{Append, Log, LogError};

pub use self::counts::Counts;
pub use self::erasing::Alone;
use self::listening::Listening;
use self::repairing::Repairing;
use self::saving::Saving;
use self::telling::{Durable, Untold};
use crate::alert::Trace;
use crate::bus::Bus;
use crate::clock::{Clock, SystemClock};
use crate::decode::{DecodeOptions, Decoder};
use crate::event::{Event, dedup_key};
use crate::intake::{Intake, Slowest};
use crate::latency::Latencies;
use crate::outbox::Outbox;
use crate::perception::Perception;
use crate::public::Board;
use crate::recent_ids::RecentIds;
use crate::record::Record;
use crate::recovery::Recovery;
use crate::refused::RefusedList;
use crate::settler::{Settlement, Settler};
use crate::shed::ShedReason;
use crate::supervisor::words_of;
use crate::workers::Assignment;

/// How often time moves on without events.
const TICK: Duration = Duration::from_millis(50);
/// How often counts that changed are told: often enough to look live, seldom enough for a thousand events a second.
const TELL_COUNTS: Duration = Duration::from_millis(100);
/// Questions of the API that may wait; a page asks one at a time.
const ASKS_MAX: usize = 64;
/// Up to so many events, people who wait for an alert come before publishers who wait for the disk: waking the log's
/// thread costs more than evaluating a few events. Beyond it the disk works while the rest is evaluated.
const ALERTS_FIRST_MAX: usize = 16;
/// Records handed to the log in one go, bytes; a batch of large payloads is handed over in several.
const APPEND_BYTES: usize = 1 << 20;
/// How long something that needs much room waits before it is tried again.
const LARGER_ROOM: Duration = Duration::from_millis(5);
/// How long windows may be said while events wait.
const TURN: Duration = Duration::from_micros(300);
/// Unreadable payloads kept for people to look at.
const REFUSED_MAX: usize = 1_000;

/// A question or an order to the pipeline, run between two batches.
type Ask = Box<dyn FnOnce(&mut Pipeline) + Send>;

/// The walk, with all that stands beside it.
pub struct Pipeline {
    /// All that has been understood.
    pub perception: Perception,
    /// What could not be.
    pub refused: RefusedList,
    /// What was counted.
    pub counts: Counts,
    decoder: Decoder,
    assignment: Assignment,
    ids: RecentIds,
    /// What the log's queue had no room for; no more messages are taken until it has.
    held: VecDeque<Held>,
    /// Steps that wait to be told.
    untold: Untold,
    listening: Listening,
    intake: Arc<Intake>,
    slowest: Slowest,
    log: Arc<dyn Log>,
    settler: Settler,
    outbox: Arc<Outbox>,
    bus: Arc<Bus>,
    board: Arc<Board>,
    latencies: Arc<Latencies>,
    clock: Arc<dyn Clock>,
    batch: usize,
    saving: Saving,
    repairing: Repairing,
    /// How the state came to be at the start.
    pub recovery: Recovery,
    counts_told: Instant,
    now_us: i64,
    /// Whether a look at the clock has moved time on and the log does not know it.
    is_ahead: bool,
    /// When it was noted last that messages were shed, by our clock, microseconds, by reason.
    shed_us: [i64; ShedReason::ALL.len()],
}

/// What a pipeline is made of.
pub struct Parts {
    /// Fresh, with its queries.
    pub perception: Perception,
    /// How payloads are read.
    pub decode: DecodeOptions,
    /// Whose sites these are.
    pub assignment: Assignment,
    /// Event ids remembered.
    pub recent_ids: usize,
    /// Messages taken at once.
    pub batch: usize,
    /// Where it is seen how long they wait.
    pub intake: Arc<Intake>,
    /// How often state is saved.
    pub checkpoint_every: Duration,
    /// The log.
    pub log: Arc<dyn Log>,
    /// Who waits for the disk.
    pub settler: Settler,
    /// Who waits for the broker.
    pub outbox: Arc<Outbox>,
    /// Who tells pages.
    pub bus: Arc<Bus>,
    /// Where public answers are put up.
    pub board: Arc<Board>,
    /// Where stages are measured.
    pub latencies: Arc<Latencies>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

/// Asks the pipeline from elsewhere.
#[derive(Clone)]
pub struct Asker(mpsc::Sender<Ask>);

/// The pipeline is gone; the process is about to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the engine is stopping")]
pub struct Stopping;

impl Asker {
    /// Runs `question` between two batches and gives its answer. It should be short: events wait for it.
    ///
    /// # Errors
    /// [`Stopping`] when there is nobody left to ask.
    pub async fn ask<T, F>(&self, question: F) -> Result<T, Stopping>
    where
        T: Send + 'static,
        F: FnOnce(&mut Pipeline) -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let ask: Ask = Box::new(move |pipeline| {
            // Whoever asked may have gone; that is theirs to decide.
            let _ = sender.send(question(pipeline));
        });
        self.0.send(ask).await.map_err(|_| Stopping)?;
        receiver.await.map_err(|_| Stopping)
    }

    /// As [`Asker::ask`] without an answer, for whoever must not wait.
    pub(crate) fn tell(&self, order: impl FnOnce(&mut Pipeline) + Send + 'static) {
        let _ = self.0.try_send(Box::new(order));
    }
}

/// The end of an [`Asker`] that the pipeline listens to.
pub struct Asks(mpsc::Receiver<Ask>);

/// A way to ask a pipeline.
pub fn asking() -> (Asker, Asks) {
    let (sender, receiver) = mpsc::channel(ASKS_MAX);
    (Asker(sender), Asks(receiver))
}

/// What one batch of messages came to.
struct Understood {
    events: Vec<Event>,
    /// When the message of each event came in.
    received: Vec<Instant>,
    /// What could not be read, each with how many events came before it.
    refused: Vec<(usize, Bytes)>,
    acks: Vec<Ack>,
    first_received: Option<Instant>,
}

impl Understood {
    /// All of it as records of the log, in its order.
    fn records(&mut self) -> Vec<Bytes> {
        let mut records: Vec<Bytes> = Vec::with_capacity(self.events.len() + self.refused.len());
        let mut refused = std::mem::take(&mut self.refused).into_iter().peekable();
        for (index, event) in self.events.iter().enumerate() {
            while let Some((_, record)) = refused.next_if(|(before, _)| *before <= index) {
                records.push(record);
            }
            records.push(Record::event_to_bytes(event).into());
        }
        records.extend(refused.map(|(_, record)| record));
        records
    }
}

/// Records on their way to the log, and the publishers that wait for them.
#[derive(Default)]
struct Held {
    records: Vec<Bytes>,
    bytes: usize,
    acks: Vec<Ack>,
    received: Option<Instant>,
}

impl Pipeline {
    /// Puts a pipeline together; [`Pipeline::recover`] it before it runs.
    pub fn new(parts: Parts) -> Self {
        Self {
            decoder: Decoder::new(parts.decode),
            assignment: parts.assignment,
            ids: RecentIds::with_capacity(parts.recent_ids),
            refused: RefusedList::with_capacity(REFUSED_MAX),
            counts: Counts::default(),
            held: VecDeque::new(),
            untold: Untold::default(),
            listening: Listening::default(),
            intake: parts.intake,
            slowest: Slowest::default(),
            perception: parts.perception,
            log: parts.log,
            settler: parts.settler,
            outbox: parts.outbox,
            bus: parts.bus,
            board: parts.board,
            latencies: parts.latencies,
            batch: parts.batch.max(1),
            saving: Saving::every(parts.checkpoint_every, parts.clock.now()),
            repairing: Repairing::default(),
            recovery: Recovery::default(),
            counts_told: parts.clock.now(),
            clock: parts.clock,
            now_us: 0,
            is_ahead: false,
            shed_us: [i64::MIN; ShedReason::ALL.len()],
        }
    }

    /// The whole walk of the messages that are there.
    async fn walk(&mut self, deliveries: &mut Vec<Delivery>) -> Result<(), LogError> {
        self.log_deafness();
        // bytes → events: what can't be read and what had come before is counted and goes no further.
        self.note_time(deliveries);
        let mut understood = self.understand(deliveries);
        self.is_ahead &= understood.events.is_empty();
        CrashPoint::Decoded.pass();
        let decoded_at = self.clock.now();
        if let Some(first) = understood.first_received {
            self.latencies
                .decoded
                .record(decoded_at.saturating_duration_since(first));
        }
        let (ack, durable) = Ack::pair();
        understood.acks.push(ack);
        // Who may not be told apart is named by nothing that is kept. Where the messages themselves say who that is, or whose a name
        // is, it is known of each of them only when those before it are taken in.
        let may_turn = self.perception.may_turn(&understood.events);
        if !may_turn {
            self.perception.screen(&mut understood.events);
        }
        if understood.events.len() > ALERTS_FIRST_MAX && !may_turn {
            self.log(&mut understood).await?;
            self.perceive(&mut understood, decoded_at, durable);
            return Ok(());
        }
        // Either way an alert may go out before its event is on disk. After a crash in between, the publisher, who was
        // not acknowledged, sends it again; with an id or a time of its own it is the same event and the same alert.
        if self.perceive(&mut understood, decoded_at, durable) {
            // What was told goes out first.
            tokio::task::yield_now().await;
        }
        self.log(&mut understood).await
    }

    /// Logs that time has moved on where these messages came in before that, having waited, or the clock having gone back:
    /// they meet a watermark that a replay would not know of. Later ones bring their time themselves, where an event is
    /// among them that is not known yet.
    fn note_time(&mut self, deliveries: &[Delivery]) {
        let at_us = self.perception.now_us();
        if self.is_ahead && deliveries.iter().any(|delivery| delivery.message.received_us < at_us) {
            // It has moved on by then but where an engine has just gone on from a checkpoint.
            let steps = self.perception.tick(at_us);
            self.log_time(steps);
        }
    }

    /// events → log: the publisher is acknowledged once they are durable, which nobody here waits for.
    async fn log(&mut self, understood: &mut Understood) -> Result<(), LogError> {
        let mut last = Held::default();
        for record in understood.records() {
            if last.bytes + record.len() > APPEND_BYTES && !last.records.is_empty() {
                self.held.push_back(std::mem::take(&mut last));
            }
            last.bytes += record.len();
            last.records.push(record);
        }
        // The publishers wait for the last of it, and so for all.
        last.acks = std::mem::take(&mut understood.acks);
        last.received = understood.first_received;
        self.held.push_back(last);
        self.hand_over().await
    }

    /// Hands to the log what is held for it. Without room there it stays held: then no more messages are taken, so that
    /// their publishers wait, while questions are answered and time goes on.
    async fn hand_over(&mut self) -> Result<(), LogError> {
        while self.settler.has_room()
            && let Some(held) = self.held.pop_front()
        {
            let append = match self.append(&held.records) {
                Err(LogError::Busy) => {
                    self.held.push_front(held);
                    break;
                }
                appended => appended?,
            };
            CrashPoint::Appended.pass();
            let settlement = Settlement::Batch {
                append,
                acks: held.acks,
                received: held.received,
            };
            self.settler.send(settlement).await;
        }
        Ok(())
    }

    /// events → queries → engagement → alerts → outbox, page; `durable` is when the events are. True when there was
    /// something to tell of alerts.
    fn perceive(&mut self, understood: &mut Understood, decoded_at: Instant, durable: Durable) -> bool {
        let received = &understood.received;
        let trace_of = |index: usize| stages(received[index], decoded_at);
        let steps = self.perception.take_screening(&mut understood.events, &trace_of);
        CrashPoint::Evaluated.pass();
        if let Some(first) = understood.first_received {
            self.latencies.evaluated.record(first.elapsed());
        }
        let is_something = !steps.is_empty();
        if understood.events.is_empty() {
            // A look at the clock had brought it about, which nothing here says.
            self.tell_in_time(steps);
        } else {
            self.tell(steps, understood.first_received, Some(durable));
        }
        self.tell_counts();
        is_something
    }

    fn understand(&mut self, deliveries: &mut Vec<Delivery>) -> Understood {
        let mut understood = Understood {
            events: Vec::with_capacity(deliveries.len()),
            received: Vec::with_capacity(deliveries.len()),
            refused: Vec::new(),
            acks: Vec::with_capacity(deliveries.len()),
            first_received: deliveries.first().map(|delivery| delivery.message.received),
        };
        self.counts.messages += deliveries.len() as u64;
        for Delivery { message, ack } in deliveries.drain(..) {
            understood.acks.push(ack);
            if !self.assignment.takes(&message.topic) {
                // The broker has given it to its own worker as well, which is the one to keep it.
                self.counts.elsewhere += 1;
                continue;
            }
            // Retained messages of a broker are its memory and not something that happens now; only its newest is
            // known, so that they could not make up for what was missed either. Ids make them harmless.
            let decoded = self
                .decoder
                .decode_or_refuse(&message.topic, &message.payload, message.received_us);
            for event in decoded.events {
                let key = dedup_key(&event);
                if !self.ids.insert(key) {
                    self.counts.duplicates += 1;
                    continue;
                }
                self.counts.events += 1;
                if matches!(event.clock, crate::event::Clock::Ahead | crate::event::Clock::Unset) {
                    self.counts.wrong_clocks += 1;
                }
                understood.events.push(event);
                understood.received.push(message.received);
            }
            for refusal in decoded.refused {
                self.counts.refused += 1;
                metrics::counter!("usher_refused_total", "reason" => refusal.class.as_str()).increment(1);
                let record = Record::Refused(refusal);
                let before = understood.events.len();
                understood.refused.push((before, record.to_bytes().into()));
                if let Record::Refused(refusal) = record {
                    tracing::debug!(topic = %refusal.topic, reason = %refusal.reason, "a payload could not be read");
                    self.refused.push(refusal);
                }
            }
        }
        understood
    }

    /// The same once there was room. What is larger than the room there was waits a little for more.
    async fn hand_over_again(&mut self) -> Result<(), LogError> {
        self.hand_over().await?;
        if !self.held.is_empty() {
            tokio::time::sleep(LARGER_ROOM).await;
        }
        Ok(())
    }

    fn append(&self, records: &[Bytes]) -> Result<Option<Append>, LogError> {
        if records.is_empty() {
            return Ok(None);
        }
        self.log.append(records.to_vec()).map(Some)
    }

    /// Runs until `stop`, then takes what is still in the channel, saves and ends. `now_us` is our clock.
    ///
    /// # Errors
    /// When the log does not take a record for a reason that waiting does not mend.
    pub async fn run(
        &mut self,
        mut deliveries: mpsc::Receiver<Delivery>,
        Asks(mut asks): Asks,
        stop: CancellationToken,
    ) -> Result<(), LogError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut batch = Vec::with_capacity(self.batch);
        let (log, settler, outbox) = (Arc::clone(&self.log), self.settler.clone(), Arc::clone(&self.outbox));
        self.perception.take_turns_of(TURN);
        loop {
            let has_room = outbox.has_room();
            let may_take = self.held.is_empty() && has_room;
            let are_messages_next = may_take && self.saving.was_turn() && !deliveries.is_empty();
            tokio::select! {
                taken = deliveries.recv_many(&mut batch, self.saving.messages_max(self.batch)), if may_take => {
                    if taken == 0 {
                        break;
                    }
                    self.note_taken(&batch);
                    self.saving.messages_taken();
                    let begun = self.begin_work();
                    self.walk(&mut batch).await?;
                    self.end_work(begun);
                    // A flood leaves no pause in which others on this thread would have their turn.
                    tokio::task::yield_now().await;
                }
                () = room(log.as_ref(), &settler), if !self.held.is_empty() => self.hand_over_again().await?,
                // Until then no more messages are taken.
                () = outbox.room(), if !has_room => {}
                Some(ask) = asks.recv() => self.answer(ask),
                durable = self.untold.next(), if !self.untold.is_empty() => self.tell_all(durable),
                _ = tick.tick() => self.tick(),
                // While something is held back from the log, the state would have in it what the log has not.
                // Two turns in a row would be one that is twice as long.
                () = std::future::ready(()), if self.saving.is_gathering() && !are_messages_next && self.held.is_empty() && settler.has_room() => {
                    self.gather().await;
                    tokio::task::yield_now().await;
                }
                found = self.repairing.found(), if self.repairing.is_walking() => self.take_found(found),
                () = std::future::ready(()), if self.perception.has_work() => {
                    self.work();
                    tokio::task::yield_now().await;
                }
                () = stop.cancelled() => break,
            }
        }
        self.repairing.stop().await;
        // Sources have stopped; what they handed over before is still to be acknowledged.
        loop {
            while !self.held.is_empty() {
                room(log.as_ref(), &settler).await;
                self.hand_over_again().await?;
            }
            if deliveries.recv_many(&mut batch, self.batch).await == 0 {
                break;
            }
            self.walk(&mut batch).await?;
        }
        while self.perception.has_work() {
            self.work();
        }
        // Among them may be that a checkpoint came to nothing, which the last one has to know.
        while let Ok(ask) = asks.try_recv() {
            self.answer(ask);
        }
        while !self.held.is_empty() {
            room(log.as_ref(), &settler).await;
            self.hand_over_again().await?;
        }
        while !self.untold.is_empty() {
            let durable = self.untold.next().await;
            self.tell_all(durable);
        }
        self.counts_told -= TELL_COUNTS;
        self.tell_counts();
        self.save_last().await;
        Ok(())
    }

    /// Answers a question; a fault in it is the asker's and nobody else's.
    fn answer(&mut self, ask: Ask) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| ask(self))) {
            tracing::error!(
                words = words_of(&*panic),
                "a fault in the engine, while answering a question"
            );
        }
    }

    /// Goes on with moving time on.
    fn work(&mut self) {
        let begun = self.begin_work();
        let steps = self.perception.work();
        self.end_work(begun);
        self.tell_in_time(steps);
    }

    fn tick(&mut self) {
        self.now_us = self.clock.wall_us();
        self.look_whether_deaf();
        let stood = (self.perception.watermark(), self.perception.holder());
        let begun = self.begin_work();
        let steps = self.perception.tick(self.now_us);
        self.end_work(begun);
        self.is_ahead |= stood != (self.perception.watermark(), self.perception.holder());
        self.tell_in_time(steps);
        self.tell_counts();
        self.look_whether_to_repair();
        if self.is_log_written() {
            self.begin_saving();
        }
    }

    /// Whether the log is being written. While it isn't, states would only pile up behind what waits.
    fn is_log_written(&self) -> bool {
        let health = self.log.health();
        self.held.is_empty() && health.trouble.is_none() && health.waiting_for < self.saving.every_so_long()
    }

    /// To be called when queries came or went: alerts of rules that are gone are cleared.
    pub fn learn_rules(&mut self) {
        let steps = self.perception.learn_rules();
        self.tell(steps, None, None);
    }

    /// Our clock as it was last looked at, microseconds since 1970.
    pub fn now_us(&self) -> i64 {
        self.now_us
    }

    /// What our clock shows, microseconds since 1970.
    pub(crate) fn wall_us(&self) -> i64 {
        self.clock.wall_us()
    }
}

/// Resolves when something can be handed to the log, and to whoever waits for the disk.
async fn room(log: &dyn Log, settler: &Settler) {
    log.room().await;
    settler.room().await;
}

/// How long the stages took for a message that came in at `received`.
fn stages(received: Instant, decoded_at: Instant) -> Trace {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    Trace {
        received_us: 0,
        decoded_us: micros(decoded_at.saturating_duration_since(received)),
        evaluated_us: micros(received.elapsed()),
        sent_us: 0,
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("views are always JSON")
}

/// Microseconds since 1970 by the wall clock. Only the runtime reads it.
pub(crate) fn wall_clock_us() -> i64 {
    SystemClock.wall_us()
}
