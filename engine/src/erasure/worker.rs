//! The worker takes what was erased off the disk: log, outbox, checkpoints, in this order, beside everything else. What is older
//! than its stream is kept goes by its hands too, so that no two ever rewrite the log at once.
//!
//! What it does can be done again: where the process ends in between, the next one finds the erasure under way and begins
//! with it anew.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use usher_connectors::log::{Log, LogError, Offset};
use usher_connectors::spool::SpoolError;
use usher_queries::rows::time_to_text;

use super::receipts::{Erasure, OnDisk, Progress, Stays};
use super::scan::look;
use super::{anonymous, who::Who};
use crate::background::done_in_background;
use crate::outbox::Outbox;
use crate::pipeline::{Asker, Stopping, wall_clock_us};
use crate::record::Record;
use crate::retention::{Retention, Turned};
use crate::supervisor::words_of;

/// Records that are gone through in one turn; between two of them the process may end.
const RECORDS: usize = 4_096;
/// How long to wait before what failed is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// How long to rest after each turn of letting go of what is old: nobody waits for it.
const REST: Duration = Duration::from_millis(20);
/// How long to wait for room in the log.
const ROOM: Duration = Duration::from_millis(50);

/// Why an erasure did not come to its end; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// The engine stops; the next one goes on.
    #[error("the engine is stopping")]
    Stopping,
    /// The log does not do it.
    #[error("{0}")]
    Log(#[from] LogError),
    /// The outbox does not do it.
    #[error("{0}")]
    Outbox(#[from] SpoolError),
    /// The state could not be saved anew.
    #[error("the state could not be saved anew: {0}")]
    Checkpoint(String),
    /// It broke.
    #[error("a fault in the engine: {0}")]
    Fault(String),
}

impl From<Stopping> for ErasureError {
    fn from(_: Stopping) -> Self {
        Self::Stopping
    }
}

/// What the worker works on.
#[derive(Clone)]
pub struct Parts {
    /// Asks the pipeline.
    pub asker: Asker,
    /// The log.
    pub log: Arc<dyn Log>,
    /// The outbox.
    pub outbox: Arc<Outbox>,
    /// Where copies lie out of which nothing can be taken.
    pub stays: Vec<Copies>,
    /// What goes before the log does.
    pub retention: Retention,
    /// From where on the log has what no saved state has, or what is not copied yet; `None` where nothing is saved.
    pub keep_from: KeepFrom,
}

/// Tells from where on the log has to stay as it is.
pub type KeepFrom = Arc<dyn Fn() -> Option<Offset> + Send + Sync>;

/// A place out of which nothing can be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// The place, in words.
    pub place: String,
    /// How long it keeps what it is given; none where it does not say.
    pub kept_for: Option<Duration>,
}

/// The worker, as others see it.
#[derive(Debug, Default)]
pub struct Erasing {
    wake: Notify,
    progress: Mutex<Option<(String, Progress)>>,
    is_stopping: AtomicBool,
}

impl Erasing {
    /// Something is to be erased.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// How far an erasure is, where it is the one that is being worked on.
    pub fn progress_of(&self, id: &str) -> Option<Progress> {
        let progress = self.progress.lock().expect("no holder of this lock panics");
        progress
            .as_ref()
            .filter(|(of, _)| of == id)
            .map(|(_, progress)| *progress)
    }

    fn note_progress(&self, progress: Option<(String, Progress)>) {
        *self.progress.lock().expect("no holder of this lock panics") = progress;
    }

    /// Works until `stop`.
    ///
    /// # Errors
    /// [`ErasureError::Stopping`] when the engine is gone; all else is said, and tried again after a while.
    pub async fn run(self: Arc<Self>, parts: Parts, stop: CancellationToken) -> Result<(), ErasureError> {
        let mut retention = parts.retention.clone();
        // At once after a start, which may come after a long time.
        let mut due = retention.every().map(|_| Instant::now());
        loop {
            let under_way = parts
                .asker
                .ask(|pipeline| pipeline.perception.erasures.under_way())
                .await?;
            let mut has_failed = false;
            for erasure in under_way {
                let id = erasure.id.clone();
                let ended = tokio::select! {
                    ended = self.erase(&parts, erasure) => ended,
                    () = stop.cancelled() => {
                        // What lies in a thread of its own ends with its turn.
                        self.is_stopping.store(true, Ordering::Release);
                        return Ok(());
                    }
                };
                self.note_progress(None);
                match ended {
                    Ok(()) => tracing::info!(erasure = id, "a person is erased"),
                    Err(error) => {
                        has_failed = true;
                        tracing::error!(erasure = id, %error, "a person is not erased from the disk yet; it is tried again");
                    }
                }
            }
            let again = has_failed.then(|| Instant::now() + TRY_AGAIN);
            loop {
                tokio::select! {
                    () = self.wake.notified() => break,
                    () = reached(again) => break,
                    () = reached(due) => {}
                    () = stop.cancelled() => return Ok(()),
                }
                let rest;
                (retention, rest) = tokio::select! {
                    turned = let_go(retention, &parts) => turned,
                    () = stop.cancelled() => return Ok(()),
                };
                due = rest.map(|rest| Instant::now() + rest);
            }
        }
    }

    /// Takes one person off the disk.
    async fn erase(self: &Arc<Self>, parts: &Parts, mut erasure: Erasure) -> Result<(), ErasureError> {
        let until = end_of_log(parts).await?;
        let found = self.in_thread(parts, &erasure, move |_, parts, erasure| {
            let who = erasure.who();
            Ok(look(parts.log.as_ref(), until, &who, Some(&erasure.id))?)
        });
        let (sessions, asked) = found.await?;
        let new: Vec<Arc<str>> = {
            let who = erasure.who();
            sessions.into_iter().filter(|session| !who.is(session)).collect()
        };
        if !new.is_empty() {
            let asked_for = erasure.clone();
            let durable = parts
                .asker
                .ask(move |pipeline| {
                    let durable = pipeline.erase_sessions(&asked_for, &new);
                    let all = pipeline.perception.erasures.under_way();
                    (durable, all.into_iter().find(|erasure| erasure.id == asked_for.id))
                })
                .await?;
            erasure = durable.1.ok_or(ErasureError::Stopping)?;
            durable.0.await.map_err(|_| ErasureError::Stopping)?;
        }
        // What came behind is of somebody new.
        let until = asked.unwrap_or(until);
        let off_disk = self.in_thread(parts, &erasure, move |erasing, parts, erasure| {
            let mut on_disk = erasing.rewrite(parts.log.as_ref(), erasure, until)?;
            let who = erasure.who();
            on_disk.outbox = parts.outbox.erase(&|text| who.is_in(text))?;
            Ok(on_disk)
        });
        let mut on_disk = off_disk.await?;
        let alone = parts.asker.ask(|pipeline| pipeline.save_alone()).await?;
        on_disk.checkpoint_files = match alone.await {
            Ok(files) => files.map_err(ErasureError::Checkpoint)?,
            Err(_) => return Err(ErasureError::Checkpoint("see above".to_owned())),
        };
        on_disk.stays.extend(parts.stays.iter().map(stays));
        let durable = parts
            .asker
            .ask(move |pipeline| {
                // Pages were told meanwhile that alerts are over; after a restart refusals came out of the log.
                pipeline.forget_shown(&erasure.who());
                pipeline.erasure_done(erasure.id, on_disk)
            })
            .await?;
        durable.await.map_err(|_| ErasureError::Stopping)
    }

    /// Does something that blocks where nobody else has to wait for it, behind all others.
    async fn in_thread<T: Send + 'static>(
        self: &Arc<Self>,
        parts: &Parts,
        erasure: &Erasure,
        work: impl FnOnce(&Self, &Parts, &Erasure) -> Result<T, ErasureError> + Send + 'static,
    ) -> Result<T, ErasureError> {
        let (erasing, parts, erasure) = (Arc::clone(self), parts.clone(), erasure.clone());
        let done = tokio::task::spawn_blocking(move || {
            let done = done_in_background("eraser", || work(&erasing, &parts, &erasure));
            done.unwrap_or_else(|panic| Err(ErasureError::Fault(words_of(&*panic))))
        });
        done.await
            .unwrap_or_else(|error| Err(ErasureError::Fault(error.to_string())))
    }

    /// Rewrites the log up to an offset, in turns, and makes what was there unfindable.
    fn rewrite(&self, log: &dyn Log, erasure: &Erasure, until: Offset) -> Result<OnDisk, ErasureError> {
        let who = erasure.who();
        let mut on_disk = OnDisk::default();
        let mut at = log.oldest();
        let first = at;
        while at < until {
            if self.is_stopping.load(Ordering::Acquire) {
                return Err(ErasureError::Stopping);
            }
            let turn = log.rewrite(at, until, RECORDS, &mut |_, bytes| {
                on_disk.log_records += 1;
                replacement(bytes, &who, &mut on_disk)
            });
            let turn = match turn {
                Err(LogError::Immutable) => {
                    on_disk.stays.push(Stays {
                        place: "the log, whose records can't be replaced".to_owned(),
                        until: None,
                    });
                    return Ok(on_disk);
                }
                turn => turn?,
            };
            on_disk.unreadable += turn.damaged;
            at = turn.next.max(Offset(at.0 + 1));
            let progress = Progress {
                records: at.0.saturating_sub(first.0),
                of: until.0.saturating_sub(first.0),
            };
            self.note_progress(Some((erasure.id.clone(), progress)));
        }
        log.purge()?;
        Ok(on_disk)
    }
}

/// Waits until then; for ever where there is no such time.
async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Lets go of what is old, a turn of it, and tells how long to rest then; for good where nothing can be replaced.
async fn let_go(mut retention: Retention, parts: &Parts) -> (Retention, Option<Duration>) {
    let every = retention.every();
    let log = Arc::clone(&parts.log);
    let Some(keep_from) = (parts.keep_from)() else {
        return (retention, every);
    };
    let before = retention.clone();
    let turned = tokio::task::spawn_blocking(move || {
        let turned = done_in_background("eraser", || retention.turn(log.as_ref(), keep_from, wall_clock_us()));
        let turned = turned.map_err(|panic| ErasureError::Fault(words_of(&*panic)));
        (retention, turned.and_then(|turned| Ok(turned?)))
    });
    match turned.await {
        Ok((retention, Ok(Turned::On))) => (retention, Some(REST)),
        Ok((retention, Ok(Turned::Done))) => (retention, every),
        Ok((retention, Err(ErasureError::Log(LogError::Immutable)))) => {
            tracing::warn!(
                "the log can't replace records: what is older than `[retention]` lets it be stays as long as the log keeps it"
            );
            (retention, None)
        }
        Ok((retention, Err(error))) => {
            tracing::error!(%error, "what is old could not be let go of; it is tried again");
            (retention, Some(TRY_AGAIN))
        }
        Err(error) => {
            tracing::error!(%error, "what is old could not be let go of; it is tried again");
            (before, Some(TRY_AGAIN))
        }
    }
}

/// Until when copies are kept that were made by now.
fn stays(copies: &Copies) -> Stays {
    let micros = |kept_for: Duration| i64::try_from(kept_for.as_micros()).unwrap_or(i64::MAX);
    let until = copies
        .kept_for
        .map(|kept_for| wall_clock_us().saturating_add(micros(kept_for)));
    Stays {
        place: copies.place.clone(),
        until: until.map(time_to_text),
    }
}

/// The bytes that stand in the place of a record; `None` where it has nothing to do with the person.
fn replacement(bytes: &bytes::Bytes, who: &Who, on_disk: &mut OnDisk) -> Option<bytes::Bytes> {
    let Ok(record) = Record::from_bytes(bytes) else {
        on_disk.unreadable += 1;
        return None;
    };
    let left = anonymous(&record, who)?;
    match left {
        Record::Event(_) => on_disk.events += 1,
        _ => on_disk.records += 1,
    }
    Some(left.to_bytes().into())
}

/// Waits until all that is logged by now is durable; gives the offset behind it.
async fn end_of_log(parts: &Parts) -> Result<Offset, ErasureError> {
    let end = loop {
        match parts.asker.ask(|pipeline| pipeline.log_end()).await? {
            Some(end) => break end,
            None => tokio::time::sleep(ROOM).await,
        }
    };
    if let Some(last) = end.0.checked_sub(1) {
        parts.log.tail(Offset(last)).await?;
    }
    Ok(end)
}
