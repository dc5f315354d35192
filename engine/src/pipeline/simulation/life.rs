//! A life of the engine in a simulation: from a start, which recovers what there is, to its end.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use usher_connectors::checkpoint::CheckpointStore;
use usher_connectors::delivery::Delivery;
use usher_connectors::log::Log;
use usher_connectors::message::QoS;

use super::clock::SimClock;
use super::disk::{LogDisk, ShelfDisk, SimLog, SimShelf};
use super::fresh;
use super::receivers::{Far, SimBroker, SimHook};
use crate::bus::Bus;
use crate::clock::Clock;
use crate::decode::DecodeOptions;
use crate::fixture::secret;
use crate::latency::Latencies;
use crate::outbox::journal::Journal;
use crate::outbox::{MqttReceiver, Outbox, ReceiverOptions, ReceiverView, StepId, Way};
use crate::pipeline::{Asks, Parts, Pipeline, asking};
use crate::public::Board;
use crate::settler::{Settler, settling};
use crate::supervisor::Supervisor;

/// Messages taken at once, at most: more than are told of before they are logged, and fewer.
pub(super) const BATCH: usize = 24;
/// Steps on their way to a receiver at a time.
const IN_FLIGHT: usize = 3;
/// Numbers of steps that a receiver keeps in memory.
const IN_MEMORY: usize = 64;
/// How long saving a state takes, at most.
const SAVING_MAX: Duration = Duration::from_secs(4);

/// An engine that runs.
pub(super) struct Life {
    pub(super) pipeline: Pipeline,
    pub(super) outbox: Arc<Outbox>,
    pub(super) journal: Arc<Journal>,
    settler: Settler,
    asks: Asks,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    /// Steps told, each with the offset of the log behind what it comes of.
    told: Vec<(StepId, u64)>,
    told_to: u64,
}

/// What outlives an engine.
pub(super) struct Ground {
    pub(super) clock: Arc<SimClock>,
    pub(super) log: Arc<LogDisk>,
    pub(super) shelf: Arc<ShelfDisk>,
    pub(super) broker: Arc<Far>,
    pub(super) hook: Arc<Far>,
}

impl Life {
    pub(super) fn begin(runtime: &Runtime, ground: &Ground, checkpoints: &Path) -> Self {
        let clock: Arc<dyn Clock> = Arc::clone(&ground.clock) as Arc<_>;
        let latencies = Arc::new(Latencies::default());
        let log: Arc<dyn Log> = Arc::new(SimLog(Arc::clone(&ground.log)));
        let journal =
            Journal::over(Arc::new(SimShelf(Arc::clone(&ground.shelf))), u64::MAX, 10_000).expect("it is readable");
        let mqtt = MqttReceiver {
            publisher: Arc::new(SimBroker(Arc::clone(&ground.broker))),
            address: "simulated".to_owned(),
            qos: QoS::AtLeastOnce,
            latencies: Arc::clone(&latencies),
        };
        let hook = Way {
            name: "hook".to_owned(),
            sender: Box::new(SimHook(Arc::clone(&ground.hook))),
            options: ReceiverOptions {
                in_memory_max: IN_MEMORY,
                ..ReceiverOptions::new(IN_FLIGHT, 10)
            },
        };
        let outbox = Outbox::over(
            Arc::clone(&journal),
            ReceiverOptions::new(IN_FLIGHT, 10),
            mqtt,
            vec![hook],
            Arc::clone(&clock),
        );
        let outbox = Arc::new(outbox.expect("the journal is readable"));
        let (settler, waiting) = settling();
        let (asker, asks) = asking();
        let checkpoints = Arc::new(CheckpointStore::open(checkpoints).expect("checkpoints can be listed"));
        let mut pipeline = Pipeline::new(Parts {
            assignment: crate::workers::Assignment::default(),
            perception: fresh(),
            decode: DecodeOptions::new(secret()),
            recent_ids: 10_000,
            batch: BATCH,
            intake: Arc::default(),
            checkpoint_every: Duration::from_secs(15),
            log: Arc::clone(&log),
            settler: settler.clone(),
            outbox: Arc::clone(&outbox),
            bus: Arc::new(Bus::new(0)),
            board: Arc::new(Board::new(0)),
            latencies: Arc::clone(&latencies),
            clock,
        });
        let told_to = journal.next();
        ground.log.set_instant(true);
        pipeline.recover(&checkpoints, fresh).expect("it recovers");
        ground.log.set_instant(false);
        // As `run` does; no turn is so short that nothing happens in it.
        pipeline.perception.take_turns_of(Duration::ZERO);
        let stop = CancellationToken::new();
        let _entered = runtime.enter();
        let tasks = vec![
            tokio::spawn(waiting.paced_by(Arc::clone(&ground.clock) as Arc<_>, SAVING_MAX).run(
                log,
                checkpoints,
                latencies,
                asker,
            )),
            tokio::spawn(Arc::clone(&outbox).send(Supervisor::new(), stop.clone())),
        ];
        let mut life = Self {
            pipeline,
            outbox,
            journal,
            settler,
            asks,
            stop,
            tasks,
            told: Vec::new(),
            told_to,
        };
        life.note_told();
        life
    }

    /// Remembers of which records the steps come that were told since the last time.
    pub(super) fn note_told(&mut self) {
        let held: usize = self.pipeline.held.iter().map(|held| held.records.len()).sum();
        self.note_told_of(self.pipeline.log.next().0 + held as u64);
    }

    fn note_told_of(&mut self, behind: u64) {
        let next = self.journal.next();
        let most = usize::try_from(next.saturating_sub(self.told_to)).expect("it is few");
        let steps = self.journal.recent(self.told_to, most).unwrap_or_default();
        self.told.extend(steps.iter().map(|step| (step.id, behind)));
        self.told_to = next;
    }

    /// Lets everybody do what there is to do, as far as neither clock nor disk moves.
    pub(super) async fn settle_down(&self) {
        for _ in 0..40 {
            tokio::task::yield_now().await;
        }
    }

    /// One batch of messages.
    pub(super) async fn walk(&mut self, deliveries: &mut Vec<Delivery>) {
        self.pipeline.walk(deliveries).await.expect("the log only lets wait");
        self.note_told();
    }

    /// Tells what waited for the disk. Of that nothing may be forgotten.
    fn tell_durable(&mut self) {
        while let Some(steps) = self.pipeline.untold.try_next() {
            self.pipeline.tell_all(steps);
            self.note_told_of(self.pipeline.log.durable().0);
        }
    }

    /// What the loop of [`Pipeline::run`] does beside taking messages, once.
    pub(super) async fn turn(&mut self) {
        if !self.pipeline.held.is_empty() {
            self.pipeline.hand_over().await.expect("the log only lets wait");
        }
        while let Ok(ask) = self.asks.0.try_recv() {
            self.pipeline.answer(ask);
        }
        self.tell_durable();
        self.pipeline.tick();
        self.note_told();
        if self.pipeline.saving.is_gathering() && self.pipeline.held.is_empty() {
            self.pipeline.gather().await;
        }
        if self.pipeline.perception.has_work() {
            self.pipeline.work();
            self.note_told();
        }
    }

    /// The loop itself, until what it takes messages from is closed.
    pub(super) async fn run(&mut self, deliveries: mpsc::Receiver<Delivery>) {
        let (_, nobody_asks) = asking();
        let asks = std::mem::replace(&mut self.asks, nobody_asks);
        let ended = self.pipeline.run(deliveries, asks, self.stop.clone()).await;
        ended.expect("the log only lets wait");
    }

    /// Whether messages are taken.
    pub(super) fn takes(&self) -> bool {
        self.pipeline.held.is_empty()
    }

    /// Whether all it has heard is in the log and told.
    pub(super) fn is_through(&self) -> bool {
        self.takes() && !self.pipeline.perception.has_work() && self.pipeline.untold.is_empty()
    }

    /// Whether everybody has what it is for, also who was away.
    pub(super) fn has_told_all(&self) -> bool {
        let has_all = |receiver: &ReceiverView| receiver.waiting == 0;
        self.outbox.is_empty() && self.outbox.receivers().iter().all(has_all)
    }

    /// What waits in it, as far as it is bounded: (what, how much, how much may).
    pub(super) fn queues(&self) -> Vec<(&'static str, usize, usize)> {
        let batches = self.pipeline.held.iter().filter(|held| held.records.len() > 1).count();
        let mut queues = vec![("batches held back from the log", batches, 1)];
        let kept = self.outbox.in_memory("hook");
        queues.push(("steps in memory for a receiver", kept, IN_MEMORY + 256));
        queues
    }

    /// Ends in the middle of it. What was told of records that the log has lost may differ in the next life.
    pub(super) fn crash(self, runtime: &Runtime) -> Told {
        self.stop.cancel();
        self.tasks[0].abort();
        let told = self.told;
        drop((self.pipeline, self.asks, self.settler, self.outbox));
        runtime.block_on(async {
            for _ in 0..40 {
                tokio::task::yield_now().await;
            }
        });
        Told(told)
    }

    /// Ends as it does when it is asked to: all is saved.
    pub(super) fn stop(mut self, runtime: &Runtime, ground: &Ground) -> Told {
        let log = &ground.log;
        runtime.block_on(async {
            while !self.pipeline.held.is_empty() {
                log.sync(usize::MAX);
                self.settle_down().await;
                self.pipeline.hand_over().await.expect("the log only lets wait");
            }
            while self.pipeline.perception.has_work() {
                self.pipeline.work();
            }
            self.note_told();
            while !self.pipeline.held.is_empty() || !self.pipeline.untold.is_empty() {
                log.sync(usize::MAX);
                self.settle_down().await;
                self.tell_durable();
                self.pipeline.hand_over().await.expect("the log only lets wait");
            }
            log.sync(usize::MAX);
            self.pipeline.save_last().await;
            self.settle_down().await;
            log.sync(usize::MAX);
            self.settle_down().await;
            // The one before may still be written, and then the last.
            while self.settler.is_saving() {
                ground.clock.go_on(ground.clock.now() + SAVING_MAX);
                self.settle_down().await;
            }
        });
        self.journal.write_once(true);
        self.crash(runtime)
    }
}

/// Steps told in a life, each with the offset behind what it comes of.
pub(super) struct Told(Vec<(StepId, u64)>);

impl Told {
    /// Those that come of what the log no longer has.
    pub(super) fn beyond(&self, end: u64) -> HashSet<String> {
        let beyond = self.0.iter().filter(|(_, behind)| *behind > end);
        beyond.map(|(id, _)| id.to_string()).collect()
    }
}
