//! The pipeline is the walk of an event: bytes in, understood, logged, asked about, judged, told.
//!
//! One task runs it, so that everything happens in the order of the log. It waits for nothing but messages: the disk
//! is waited for by the settler, the broker by the outbox, pages by the bus.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustc_hash::FxHashSet;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use usher_connectors::checkpoint::Checkpoint;
use usher_connectors::delivery::{Ack, Delivery};
use usher_connectors::log::{Append, Log, LogError, Offset};

use crate::alert::{Alert, Trace};
use crate::alerts::{Action, Step};
use crate::bus::Bus;
use crate::decode::{DecodeOptions, Decoder};
use crate::event::{Event, dedup_key};
use crate::latency::Latencies;
use crate::outbox::Outbox;
use crate::perception::Perception;
use crate::recent_ids::RecentIds;
use crate::record::Record;
use crate::refused::RefusedList;
use crate::settler::{Settlement, Settler};

/// How often time moves on without events.
const TICK: Duration = Duration::from_millis(50);
/// How often counts that changed are told: often enough to look live, seldom enough for a thousand events a second.
const TELL_COUNTS: Duration = Duration::from_millis(100);
/// Questions of the API that may wait; a page asks one at a time.
const ASKS_MAX: usize = 64;
/// Up to so many events, people who wait for an alert come before publishers who wait for the disk: waking the log's
/// thread costs more than evaluating a few events. Beyond it the disk works while the rest is evaluated.
const ALERTS_FIRST_MAX: usize = 16;
/// Records taken from the log at once while going through it again.
const REPLAY_RECORDS: usize = 4_096;
/// Bytes taken at once.
const REPLAY_BYTES: usize = 8 << 20;
/// What the parts of a checkpoint mean; another number is not read.
const CHECKPOINT_FORMAT: u32 = 1;
/// Unreadable payloads kept for people to look at.
const REFUSED_MAX: usize = 1_000;

/// A question or an order to the pipeline, run between two batches.
type Ask = Box<dyn FnOnce(&mut Pipeline) + Send>;

/// What the pipeline has counted since the process started.
#[derive(Debug, Clone, Copy, Default, serde::Serialize, utoipa::ToSchema)]
pub struct Counts {
    /// Messages taken from sources.
    pub messages: u64,
    /// Events understood, repetitions not counted.
    pub events: u64,
    /// Events that had come before.
    pub duplicates: u64,
    /// Payloads, or elements of one, that could not be read.
    pub refused: u64,
    /// Steps of alerts told.
    pub alert_steps: u64,
    /// Events whose device has a wrong clock.
    pub wrong_clocks: u64,
}

/// The walk, with all that stands beside it.
pub struct Pipeline {
    /// All that has been understood.
    pub perception: Perception,
    /// What could not be.
    pub refused: RefusedList,
    /// What was counted.
    pub counts: Counts,
    decoder: Decoder,
    ids: RecentIds,
    /// Processed, but not on disk because the disk failed; to be logged, and not processed again, when they come again.
    unlogged: FxHashSet<u128>,
    log: Arc<dyn Log>,
    settler: Settler,
    outbox: Arc<Outbox>,
    bus: Arc<Bus>,
    latencies: Arc<Latencies>,
    batch: usize,
    checkpoint_every: Duration,
    checkpointed: Instant,
    checkpointed_at: Offset,
    counts_told: Instant,
    now_us: i64,
}

/// What a pipeline is made of.
pub struct Parts {
    /// Fresh, with its queries.
    pub perception: Perception,
    /// How payloads are read.
    pub decode: DecodeOptions,
    /// Event ids remembered.
    pub recent_ids: usize,
    /// Messages taken at once.
    pub batch: usize,
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
    /// Where stages are measured.
    pub latencies: Arc<Latencies>,
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
        let (sender, receiver) = tokio::sync::oneshot::channel();
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
    records: Vec<Bytes>,
    keys: Vec<u128>,
    acks: Vec<Ack>,
    first_received: Option<Instant>,
}

impl Pipeline {
    /// Puts a pipeline together; [`Pipeline::recover`] it before it runs.
    pub fn new(parts: Parts) -> Self {
        Self {
            decoder: Decoder::new(parts.decode),
            ids: RecentIds::with_capacity(parts.recent_ids),
            refused: RefusedList::with_capacity(REFUSED_MAX),
            counts: Counts::default(),
            unlogged: FxHashSet::default(),
            perception: parts.perception,
            log: parts.log,
            settler: parts.settler,
            outbox: parts.outbox,
            bus: parts.bus,
            latencies: parts.latencies,
            batch: parts.batch.max(1),
            checkpoint_every: parts.checkpoint_every,
            checkpointed: Instant::now(),
            checkpointed_at: Offset(0),
            counts_told: Instant::now(),
            now_us: 0,
        }
    }

    /// The whole walk of the messages that are there.
    async fn walk(&mut self, deliveries: &mut Vec<Delivery>) -> Result<(), LogError> {
        // bytes → events: what can't be read and what had come before is counted and goes no further.
        let mut understood = self.understand(deliveries);
        let decoded_at = Instant::now();
        if let Some(first) = understood.first_received {
            self.latencies.decoded.record(decoded_at - first);
        }
        if understood.events.len() > ALERTS_FIRST_MAX {
            self.log(&mut understood).await?;
            self.perceive(&understood, decoded_at);
            return Ok(());
        }
        // Either way an alert may go out before its event is on disk. After a crash in between, the publisher, who was
        // not acknowledged, sends it again; with an id or a time of its own it is the same event and the same alert.
        if self.perceive(&understood, decoded_at) {
            // What was told goes out first.
            tokio::task::yield_now().await;
        }
        self.log(&mut understood).await
    }

    /// events → log: the publisher is acknowledged once they are durable, which nobody here waits for.
    async fn log(&mut self, understood: &mut Understood) -> Result<(), LogError> {
        let append = self.append(std::mem::take(&mut understood.records)).await?;
        let settlement = Settlement::Batch {
            append,
            acks: std::mem::take(&mut understood.acks),
            keys: std::mem::take(&mut understood.keys),
            received: understood.first_received,
        };
        self.settler.send(settlement).await;
        Ok(())
    }

    /// events → queries → engagement → alerts → outbox, page. True when there was something to tell of alerts.
    fn perceive(&mut self, understood: &Understood, decoded_at: Instant) -> bool {
        let received = &understood.received;
        let trace_of = |index: usize| stages(received[index], decoded_at);
        let steps = self.perception.take(&understood.events, &trace_of);
        if let Some(first) = understood.first_received {
            self.latencies.evaluated.record(first.elapsed());
        }
        self.tell(&steps, understood.first_received);
        self.tell_counts();
        !steps.is_empty()
    }

    fn understand(&mut self, deliveries: &mut Vec<Delivery>) -> Understood {
        let mut understood = Understood {
            events: Vec::with_capacity(deliveries.len()),
            received: Vec::with_capacity(deliveries.len()),
            records: Vec::with_capacity(deliveries.len()),
            keys: Vec::with_capacity(deliveries.len()),
            acks: Vec::with_capacity(deliveries.len()),
            first_received: deliveries.first().map(|delivery| delivery.message.received),
        };
        self.counts.messages += deliveries.len() as u64;
        for Delivery { message, ack } in deliveries.drain(..) {
            understood.acks.push(ack);
            // Retained messages of a broker are its memory and not something that happens now; only its newest is
            // known, so that they could not make up for what was missed either. Ids make them harmless.
            let decoded = self
                .decoder
                .decode(&message.topic, &message.payload, message.received_us);
            for event in decoded.events {
                let key = dedup_key(&event);
                if !self.ids.insert(key) {
                    self.counts.duplicates += 1;
                    if self.unlogged.remove(&key) {
                        understood.keys.push(key);
                        understood.records.push(Record::Event(event).to_bytes().into());
                    }
                    continue;
                }
                self.counts.events += 1;
                if matches!(event.clock, crate::event::Clock::Ahead | crate::event::Clock::Unset) {
                    self.counts.wrong_clocks += 1;
                }
                let record = Record::Event(event);
                understood.keys.push(key);
                understood.records.push(record.to_bytes().into());
                if let Record::Event(event) = record {
                    understood.events.push(event);
                    understood.received.push(message.received);
                }
            }
            for refusal in decoded.refused {
                self.counts.refused += 1;
                metrics::counter!("usher_refused_total", "reason" => refusal.class.as_str()).increment(1);
                let record = Record::Refused(refusal);
                understood.records.push(record.to_bytes().into());
                if let Record::Refused(refusal) = record {
                    tracing::debug!(topic = %refusal.topic, reason = %refusal.reason, "a payload could not be read");
                    self.refused.push(refusal);
                }
            }
        }
        understood
    }

    /// Hands records to the log, waiting while its queue is full.
    async fn append(&mut self, records: Vec<Bytes>) -> Result<Option<Append>, LogError> {
        if records.is_empty() {
            return Ok(None);
        }
        loop {
            match self.log.append(records.clone()) {
                Ok(append) => return Ok(Some(append)),
                Err(LogError::Busy) => self.log.room().await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Tells the world of steps in alerts' lives.
    fn tell(&mut self, steps: &[Step], received: Option<Instant>) {
        for step in steps {
            if step.is_turn {
                self.counts.alert_steps += 1;
                metrics::counter!(
                    "usher_alerts_total", "rule" => step.alert.rule.to_string(), "state" => step.alert.state.as_str()
                )
                .increment(1);
                self.outbox.tell_alert(&step.alert, received);
            } else {
                self.outbox.show_alert(&step.alert, None);
            }
            self.bus.tell("alert", json(&step.alert));
        }
    }

    fn tell_counts(&mut self) {
        if self.counts_told.elapsed() < TELL_COUNTS {
            return;
        }
        self.counts_told = Instant::now();
        let places = Arc::clone(self.perception.places());
        let clock = self.perception.clock_us();
        for zone in self.perception.zones.drain_changed(clock, &places) {
            self.outbox.show_zone(&zone);
            self.bus.tell("occupancy", json(&zone));
        }
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
        loop {
            tokio::select! {
                taken = deliveries.recv_many(&mut batch, self.batch) => {
                    if taken == 0 {
                        break;
                    }
                    self.walk(&mut batch).await?;
                    // A flood leaves no pause in which others on this thread would have their turn.
                    tokio::task::yield_now().await;
                }
                Some(ask) = asks.recv() => ask(self),
                _ = tick.tick() => self.tick().await,
                () = stop.cancelled() => break,
            }
        }
        // Sources have stopped; what they handed over before is still to be acknowledged.
        while deliveries.recv_many(&mut batch, self.batch).await > 0 {
            self.walk(&mut batch).await?;
        }
        self.counts_told -= TELL_COUNTS;
        self.tell_counts();
        self.save().await;
        Ok(())
    }

    async fn tick(&mut self) {
        self.now_us = wall_clock_us();
        let steps = self.perception.tick(self.now_us);
        self.tell(&steps, None);
        self.tell_counts();
        let is_new = self.log.next() != self.checkpointed_at;
        if is_new && self.checkpointed.elapsed() >= self.checkpoint_every {
            self.save().await;
        }
    }

    /// Hands the state to the settler, which saves it once all of it is durable.
    async fn save(&mut self) {
        let started = Instant::now();
        self.checkpointed = started;
        self.checkpointed_at = self.log.next();
        let parts = self.perception.snapshot().and_then(|mut parts| {
            let outbox = self.outbox.to_bytes().map_err(|error| error.to_string())?;
            parts.push(("outbox".to_owned(), outbox.into()));
            Ok(parts)
        });
        match parts {
            Ok(parts) => {
                let checkpoint = Checkpoint {
                    next_offset: self.checkpointed_at,
                    format: CHECKPOINT_FORMAT,
                    parts,
                };
                metrics::gauge!("usher_checkpoint_seconds").set(started.elapsed().as_secs_f64());
                self.settler.send(Settlement::Checkpoint(checkpoint, self.now_us)).await;
            }
            Err(reason) => tracing::error!(reason, "the state can't be saved; the log has it all the same"),
        }
    }

    /// Forgets that these events were logged: the disk failed. Their publishers were not acknowledged and send again.
    pub(crate) fn not_logged(&mut self, keys: Vec<u128>) {
        self.unlogged.extend(keys);
    }

    /// Does what staff did to an alert, and logs it. `None` when no alert that stands has that id.
    pub fn act(&mut self, action: Action) -> Option<Arc<Alert>> {
        let steps = self.perception.act(&action)?;
        let alert = steps.iter().find(|step| step.alert.id == action.alert)?.alert.clone();
        match self.log.append(vec![Record::Acted(action).to_bytes().into()]) {
            // Durable with the next commit, like an event; a checkpoint waits for it.
            Ok(append) => self.settler.try_send(append),
            Err(error) => tracing::error!(%error, "what staff did could not be logged; it holds until a restart"),
        }
        self.tell(&steps, None);
        Some(alert)
    }

    /// To be called when queries came or went: alerts of rules that are gone are cleared.
    pub fn learn_rules(&mut self) {
        let steps = self.perception.learn_rules();
        self.tell(&steps, None);
    }

    /// Goes on where a process before this one ended: takes its checkpoint, goes through the rest of the log, and
    /// shows what stands. Blocks on the disk.
    ///
    /// # Errors
    /// When the log can't be read or written. What of a checkpoint can't be used is said, and the log gone through
    /// from its beginning.
    pub fn recover(&mut self, checkpoint: Option<Checkpoint>, fresh: impl Fn() -> Perception) -> Result<(), LogError> {
        let mut from = self.log.oldest();
        let mut is_continued = false;
        if let Some(checkpoint) = checkpoint {
            match self.restore(&checkpoint) {
                Ok(()) => {
                    from = checkpoint.next_offset.max(from);
                    is_continued = true;
                }
                Err(reason) => {
                    tracing::warn!(
                        reason,
                        "the checkpoint is not used; going through the whole log instead"
                    );
                    self.perception = fresh();
                }
            }
        }
        self.remember_ids(from)?;
        self.replay(from, is_continued)?;
        self.now_us = wall_clock_us();
        self.perception.begin_listening(self.now_us);
        let started = Record::Started { at_us: self.now_us }.to_bytes();
        self.log.append(vec![started.into()])?.wait_durable()?;
        let places = Arc::clone(self.perception.places());
        self.perception.zones.touch_all(&places);
        for alert in self.perception.alerts.open() {
            if alert.state.is_standing() {
                self.outbox.show_alert(&Arc::new(alert.clone()), None);
            }
        }
        self.counts = Counts::default();
        Ok(())
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), String> {
        if checkpoint.format != CHECKPOINT_FORMAT {
            return Err(format!(
                "it has form {}, and this Usher reads form {CHECKPOINT_FORMAT}",
                checkpoint.format
            ));
        }
        let outcomes = self
            .perception
            .restore(&checkpoint.parts)
            .map_err(|error| error.to_string())?;
        for (query, outcome) in outcomes {
            use usher_queries::query_set::Restored;
            match outcome {
                Restored::Kept => {}
                Restored::Changed => tracing::warn!(query, "changed since the last run; it begins anew"),
                Restored::Gone => tracing::info!(query, "no longer there; its state is dropped"),
                Restored::Unreadable(reason) => {
                    tracing::error!(query, reason, "its state can't be read; it begins anew")
                }
            }
        }
        if let Some((_, bytes)) = checkpoint.parts.iter().find(|(part, _)| part == "outbox") {
            self.outbox.restore(bytes).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Learns the ids of the events before `from`, as many as are remembered.
    fn remember_ids(&mut self, from: Offset) -> Result<(), LogError> {
        let first = from
            .0
            .saturating_sub(self.ids.capacity() as u64)
            .max(self.log.oldest().0);
        let mut at = Offset(first);
        while at < from {
            let wanted = usize::try_from(from.0 - at.0).unwrap_or(usize::MAX).min(REPLAY_RECORDS);
            let records = self.read(&mut at, wanted)?;
            if records.is_empty() {
                break;
            }
            for record in records {
                match record {
                    Record::Event(event) => {
                        self.ids.insert(dedup_key(&event));
                    }
                    Record::Refused(refusal) => self.refused.push(refusal),
                    Record::Acted(_) | Record::Started { .. } => {}
                }
            }
        }
        Ok(())
    }

    /// Goes through the log from `from` on. Only a continued run tells of steps: others would tell old news.
    fn replay(&mut self, from: Offset, is_continued: bool) -> Result<(), LogError> {
        let (mut at, end) = (from, self.log.next());
        let mut told = Instant::now();
        let mut pending: Vec<Event> = Vec::new();
        while at < end {
            let records = self.read(&mut at, REPLAY_RECORDS)?;
            if records.is_empty() {
                break;
            }
            let mut steps = VecDeque::new();
            for record in records {
                if let Record::Event(event) = record {
                    if self.ids.insert(dedup_key(&event)) {
                        pending.push(event);
                    }
                    continue;
                }
                // What is not an event has its place between them.
                steps.extend(self.perception.take(&pending, &|_| Trace::default()));
                pending.clear();
                match record {
                    Record::Acted(action) => steps.extend(self.perception.act(&action).unwrap_or_default()),
                    Record::Started { at_us } => self.perception.begin_listening(at_us),
                    Record::Refused(refusal) => self.refused.push(refusal),
                    Record::Event(_) => {}
                }
            }
            steps.extend(self.perception.take(&pending, &|_| Trace::default()));
            pending.clear();
            if is_continued {
                for step in steps.iter().filter(|step| step.is_turn) {
                    self.outbox.tell_alert(&step.alert, None);
                }
            }
            if told.elapsed() > Duration::from_secs(2) {
                told = Instant::now();
                tracing::info!("going through the log: {} of {} records", at.0 - from.0, end.0 - from.0);
            }
        }
        if end > from {
            tracing::info!("went through {} records of the log", end.0 - from.0);
        }
        Ok(())
    }

    /// Reads records from `at` on and moves it behind them. What is damaged is said and stepped over.
    fn read(&self, at: &mut Offset, max_records: usize) -> Result<Vec<Record>, LogError> {
        let rows = loop {
            match self.log.read(*at, max_records, REPLAY_BYTES) {
                Ok(rows) => break rows,
                Err(LogError::Damaged { offset, resume, reason }) => {
                    tracing::error!(%offset, %resume, reason, "the log is damaged; what lies there is lost");
                    *at = resume;
                }
                Err(LogError::Expired(oldest)) => *at = oldest,
                Err(error) => return Err(error),
            }
        };
        if let Some((last, _)) = rows.last() {
            *at = Offset(last.0 + 1);
        }
        let mut records = Vec::with_capacity(rows.len());
        for (offset, bytes) in rows {
            match Record::from_bytes(&bytes) {
                Ok(record) => records.push(record),
                Err(error) => tracing::error!(%offset, %error, "a record of the log is left out"),
            }
        }
        Ok(records)
    }

    /// Our clock as it was last looked at, microseconds since 1970.
    pub fn now_us(&self) -> i64 {
        self.now_us
    }
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
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
