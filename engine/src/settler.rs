//! The settler waits for the disk, so that the pipeline need not: then it acknowledges, and saves checkpoints.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use usher_connectors::checkpoint::{Checkpoint, CheckpointStore};
use usher_connectors::delivery::Ack;
use usher_connectors::log::{Append, Log, LogError};

use crate::latency::Latencies;
use crate::pipeline::Asker;

/// Batches that may wait for the disk. The log's own queue is the tighter bound; this one only has to be no tighter.
const QUEUE: usize = 8_192;

/// Something to settle, in the order of the log.
pub enum Settlement {
    /// A batch of messages.
    Batch {
        /// Its records on their way to the disk; `None` when there were none.
        append: Option<Append>,
        /// The publishers that wait.
        acks: Vec<Ack>,
        /// The events among the records, to be known again when the disk fails.
        keys: Vec<u128>,
        /// When the first message came in.
        received: Option<Instant>,
    },
    /// The state after everything settled before it, and what time it is, microseconds since 1970.
    Checkpoint(Checkpoint, i64),
}

/// Where to hand settlements.
#[derive(Clone)]
pub struct Settler(mpsc::Sender<Settlement>);

/// The other end, which does the waiting.
pub struct Settling(mpsc::Receiver<Settlement>);

/// A settler and its other end.
pub fn settling() -> (Settler, Settling) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Settler(sender), Settling(receiver))
}

impl Settler {
    /// Hands over; waits while too much is waiting already.
    pub async fn send(&self, settlement: Settlement) {
        // The other end outlives the pipeline; without it the process is ending and nothing is acknowledged.
        let _ = self.0.send(settlement).await;
    }

    /// Hands over an append that nobody is acknowledged for.
    pub fn try_send(&self, append: Append) {
        let _ = self.0.try_send(Settlement::Batch {
            append: Some(append),
            acks: Vec::new(),
            keys: Vec::new(),
            received: None,
        });
    }
}

impl Settling {
    /// Settles until the pipeline is gone and all is settled.
    pub async fn run(
        mut self,
        log: Arc<dyn Log>,
        checkpoints: Arc<CheckpointStore>,
        latencies: Arc<Latencies>,
        pipeline: Asker,
    ) {
        // After a failed append nothing is sure until one succeeds: not the repetitions of what was in it either.
        let mut is_sure = true;
        let mut saving: Option<tokio::task::JoinHandle<()>> = None;
        while let Some(settlement) = self.0.recv().await {
            match settlement {
                Settlement::Batch {
                    append,
                    acks,
                    keys,
                    received,
                } => {
                    if let Some(append) = append {
                        match append.durable().await {
                            Ok(()) => is_sure = true,
                            Err(error) => {
                                if is_sure {
                                    tracing::error!(%error, "nothing is acknowledged until the log takes it");
                                }
                                is_sure = false;
                                metrics::counter!("usher_log_failures_total").increment(1);
                                pipeline.tell(move |pipeline| pipeline.not_logged(keys));
                            }
                        }
                    }
                    if is_sure {
                        acks.into_iter().for_each(Ack::done);
                        if let Some(received) = received {
                            latencies.durable.record(received.elapsed());
                        }
                    }
                }
                Settlement::Checkpoint(checkpoint, now_us) if is_sure => {
                    // Saving takes as long as the state is large; acknowledgements do not wait for it.
                    if let Some(before) = saving.take() {
                        let _ = before.await;
                    }
                    let (log, checkpoints) = (Arc::clone(&log), Arc::clone(&checkpoints));
                    saving = Some(tokio::task::spawn_blocking(move || {
                        match save(&checkpoint, now_us, log.as_ref(), &checkpoints) {
                            Ok(()) => metrics::counter!("usher_checkpoints_total").increment(1),
                            Err(error) => {
                                tracing::error!(%error, "the state could not be saved; the log has it all the same");
                            }
                        }
                    }));
                }
                Settlement::Checkpoint(..) => {}
            }
        }
        if let Some(last) = saving {
            let _ = last.await;
        }
    }
}

/// Saves the state and drops from the log what is older than is kept.
fn save(checkpoint: &Checkpoint, now_us: i64, log: &dyn Log, checkpoints: &CheckpointStore) -> Result<(), LogError> {
    checkpoints.save(checkpoint)?;
    if let Some(keep_from) = checkpoints.keep_from()? {
        log.retain(keep_from, now_us)?;
    }
    Ok(())
}
