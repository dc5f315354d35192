//! The settler waits for the disk, so that the pipeline need not: then it acknowledges, and saves checkpoints.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use usher_connectors::checkpoint::{CheckpointStore, Update};
use usher_connectors::crash_point::CrashPoint;
use usher_connectors::delivery::Ack;
use usher_connectors::log::{Append, Log, Offset};

use crate::background::Background;
#[cfg(test)]
use crate::background::done_in_background;
use crate::capture::Capture;
#[cfg(test)]
use crate::clock::Clock;
use crate::latency::Latencies;
use crate::pipeline::{Asker, Pipeline};
use crate::recovery::FORMAT;
use crate::supervisor::words_of;

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
        /// When the first message came in.
        received: Option<Instant>,
    },
    /// The state after everything settled before it.
    Checkpoint(Box<Captured>),
}

/// A state to be saved.
pub struct Captured {
    /// What is new in it.
    pub capture: Capture,
    /// The first offset not yet in it.
    pub next_offset: Offset,
    /// What time it is, microseconds since 1970.
    pub now_us: i64,
    /// Who waits for nothing to be left of what was saved before; they hear how many files went.
    pub alone: Vec<oneshot::Sender<Result<u64, String>>>,
}

/// Where to hand settlements.
#[derive(Clone)]
pub struct Settler {
    sender: mpsc::Sender<Settlement>,
    /// A state was handed over and is not saved yet.
    saving: Arc<AtomicBool>,
}

/// The other end, which does the waiting.
pub struct Settling {
    receiver: mpsc::Receiver<Settlement>,
    saving: Arc<AtomicBool>,
    forwarded: Option<Arc<AtomicU64>>,
    writer: Writer,
}

/// Where a state is written, beside what is settled meanwhile.
enum Writer {
    /// On a thread of its own, which begins with the first one: that takes as long as what is new is large.
    Thread(Option<Background>),
    /// On a thread as well, and what else runs waits for it, after up to so many of a clock's seconds: how long a thread takes is
    /// known to nobody.
    #[cfg(test)]
    Paced(Arc<dyn Clock>, std::time::Duration),
}

impl Writer {
    fn write(&mut self, write: impl FnOnce() + Send + 'static) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(match self {
            Self::Thread(thread) => {
                if thread.is_none() {
                    let started = Background::start("checkpoint-writer");
                    *thread = started
                        .inspect_err(|error| tracing::warn!(%error, "checkpoints are written beside other work"))
                        .ok();
                }
                match thread {
                    Some(thread) => {
                        let (is_written, written) = oneshot::channel();
                        thread.hand_over(Box::new(move || {
                            write();
                            let _ = is_written.send(());
                        }));
                        tokio::spawn(async move {
                            let _ = written.await;
                        })
                    }
                    None => tokio::task::spawn_blocking(write),
                }
            }
            #[cfg(test)]
            Self::Paced(clock, most) => {
                let slept = clock.sleep_until(clock.now() + most.mul_f64(clock.spread()));
                tokio::spawn(async move {
                    slept.await;
                    done_in_background("checkpoint-writer", write).expect("it says itself what went wrong");
                })
            }
        })
    }
}

/// A settler and its other end.
pub fn settling() -> (Settler, Settling) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let saving = Arc::new(AtomicBool::new(false));
    let settler = Settler {
        sender,
        saving: Arc::clone(&saving),
    };
    let settling = Settling {
        receiver,
        saving,
        forwarded: None,
        writer: Writer::Thread(None),
    };
    (settler, settling)
}

impl Settler {
    /// Hands over; waits while too much is waiting already.
    pub async fn send(&self, settlement: Settlement) {
        // The other end outlives the pipeline; without it the process is ending and nothing is acknowledged.
        let _ = self.sender.send(settlement).await;
    }

    /// Hands over a state to be saved.
    pub async fn save(&self, captured: Captured) {
        self.saving.store(true, Ordering::Release);
        self.send(Settlement::Checkpoint(Box::new(captured))).await;
    }

    /// Whether a state that was handed over is not saved yet: the next one has to wait, for it names what that has.
    pub fn is_saving(&self) -> bool {
        self.saving.load(Ordering::Acquire)
    }

    /// Whether something can be handed over without waiting.
    pub fn has_room(&self) -> bool {
        self.sender.capacity() > 0
    }

    /// Waits until something can be handed over.
    pub async fn room(&self) {
        // The place is free again when the permit is dropped, and one task alone takes places.
        let _ = self.sender.reserve().await;
    }

    /// Hands over an append of something that is no message, without waiting; `acks` tell whoever waits for it.
    pub fn try_send(&self, append: Append, acks: Vec<Ack>) {
        let _ = self.sender.try_send(Settlement::Batch {
            append: Some(append),
            acks,
            received: None,
        });
    }
}

impl Settling {
    /// Keeps in the log what is not copied elsewhere yet: everything from this offset on.
    pub fn keeping(self, forwarded: Option<Arc<AtomicU64>>) -> Self {
        Self { forwarded, ..self }
    }

    /// Writes a state where everything else runs, once up to `most` has passed on a simulated clock.
    #[cfg(test)]
    pub(crate) fn paced_by(self, clock: Arc<dyn Clock>, most: std::time::Duration) -> Self {
        Self {
            writer: Writer::Paced(clock, most),
            ..self
        }
    }

    /// Settles until the pipeline is gone and all is settled.
    pub async fn run(
        mut self,
        log: Arc<dyn Log>,
        checkpoints: Arc<CheckpointStore>,
        latencies: Arc<Latencies>,
        pipeline: Asker,
    ) {
        // The log gives an append up only when it is closed or somebody else owns it. Nothing behind that is sure: not the
        // repetitions of what was in it, which need no append of their own, and no state with it in it.
        let mut is_sure = true;
        let mut writing: Option<AbortOnDropHandle<()>> = None;
        while let Some(settlement) = self.receiver.recv().await {
            match settlement {
                Settlement::Batch { append, acks, received } => {
                    if let Some(append) = append
                        && let Err(error) = append.durable().await
                    {
                        if is_sure {
                            tracing::error!(%error, "the log has given up; what waits is not acknowledged");
                        }
                        is_sure = false;
                    }
                    if is_sure {
                        let is_awaited = !acks.is_empty();
                        acks.into_iter().for_each(Ack::done);
                        if is_awaited {
                            CrashPoint::Acknowledged.pass();
                        }
                        if let Some(received) = received {
                            latencies.durable.record(received.elapsed());
                        }
                    }
                }
                Settlement::Checkpoint(captured) if is_sure => {
                    // Only the last one, when the engine stops, comes while one before it is being saved.
                    if let Some(before) = writing.take() {
                        let _ = before.await;
                    }
                    let (log, checkpoints) = (Arc::clone(&log), Arc::clone(&checkpoints));
                    let (pipeline, saving) = (pipeline.clone(), Arc::clone(&self.saving));
                    let forwarded = self.forwarded.as_ref().map(|at| Offset(at.load(Ordering::Acquire)));
                    // Acknowledgements do not wait for it.
                    writing = Some(self.writer.write(move || {
                        // Writing down and packing some megabytes must not take a core from whoever evaluates events.
                        let mut captured = *captured;
                        let alone = std::mem::take(&mut captured.alone);
                        let is_alone = !alone.is_empty();
                        let saved = catch_unwind(AssertUnwindSafe(|| {
                            save(captured, log.as_ref(), &checkpoints, forwarded, is_alone)
                        }));
                        let saved =
                            saved.unwrap_or_else(|panic| Err(format!("a fault in the engine: {}", words_of(&*panic))));
                        for waiting in alone {
                            // Whoever no longer waits asks again.
                            let _ = waiting.send(saved.clone());
                        }
                        if let Err(cause) = saved {
                            // What this one knew to be new is in no other.
                            checkpoints.begin_anew();
                            tracing::error!(cause, "the state could not be saved; the log has it all the same");
                            metrics::counter!("usher_checkpoint_failures_total").increment(1);
                            pipeline.tell(Pipeline::not_saved);
                        }
                        saving.store(false, Ordering::Release);
                    }));
                }
                Settlement::Checkpoint(_) => {
                    // It may name records that are not on disk. What it knew to be new is in no other.
                    pipeline.tell(Pipeline::not_saved);
                    self.saving.store(false, Ordering::Release);
                }
            }
        }
        if let Some(last) = writing {
            let _ = last.await;
        }
    }
}

/// Saves the state and drops from the log what is older than is kept. Where it is to be alone, nothing is left of what was saved
/// before; gives how many files went for that.
fn save(
    captured: Captured,
    log: &dyn Log,
    checkpoints: &CheckpointStore,
    forwarded: Option<Offset>,
    is_alone: bool,
) -> Result<u64, String> {
    CrashPoint::CheckpointBegun.pass();
    let begun = Instant::now();
    let update = Update {
        next_offset: captured.next_offset,
        format: FORMAT,
        parts: captured.capture.pieces(),
    };
    if is_alone {
        // A part that is as it was would otherwise stay where it lies, beside what is to go.
        checkpoints.begin_anew();
    }
    let saved = checkpoints.save(update).map_err(|error| error.to_string())?;
    let dropped = match is_alone {
        true => checkpoints.keep_last().map_err(|error| error.to_string())?,
        false => 0,
    };
    CrashPoint::CheckpointDone.pass();
    metrics::counter!("usher_checkpoints_total").increment(1);
    metrics::counter!("usher_checkpoint_written_bytes_total").increment(saved.written_bytes);
    metrics::gauge!("usher_checkpoint_state_bytes").set(saved.state_bytes as f64);
    metrics::gauge!("usher_checkpoint_seconds").set(begun.elapsed().as_secs_f64());
    tracing::debug!(
        checkpoint = saved.sequence,
        written = saved.written_bytes,
        state = saved.state_bytes,
        files = saved.files,
        "state saved"
    );
    if let Some(keep_from) = checkpoints.keep_from() {
        let keep_from = forwarded.map_or(keep_from, |forwarded| forwarded.min(keep_from));
        // The state is saved all the same.
        if let Err(error) = log.retain(keep_from, captured.now_us) {
            tracing::warn!(%error, "what is older than is kept can't be dropped yet; it is tried again");
        }
    }
    Ok(dropped as u64)
}
