//! How the past of persons is made anew: the log is gone through in the background, and what it says becomes a record of it, so
//! that a replay takes the record instead of going through the log once more.
//!
//! Whoever waits for it is found by one walk through the log, however many they are. A process that ends before the record
//! is written begins the walk again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use usher_connectors::delivery::Ack;
use usher_connectors::log::{Log, LogError, Offset};

use super::Pipeline;
use super::read_ahead::ReadAhead;
use crate::background::done_in_background;
use crate::identity::IdentityTable;
use crate::people::Past;
use crate::perception::PastReader;
use crate::record::Record;
use crate::supervisor::words_of;

/// How long after a walk that failed the next one begins: a disk that can't be read is not mended by reading on.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Persons in one record, some ten kilobytes.
const PASTS_MAX: usize = 64;

/// What goes through the log, where something does.
#[derive(Debug, Default)]
pub(super) struct Repairing {
    /// Up to where the log is to be gone through, once it is durable so far.
    until: Option<Offset>,
    walk: Option<JoinHandle<Result<Vec<Past>, String>>>,
    /// Before then no walk begins: the last one has failed.
    not_before: Option<Instant>,
    is_stopped: Arc<AtomicBool>,
}

impl Repairing {
    pub(super) fn is_walking(&self) -> bool {
        self.walk.is_some()
    }

    /// Waits for what the log says.
    pub(super) async fn found(&mut self) -> Result<Vec<Past>, String> {
        let Some(walk) = &mut self.walk else {
            return Ok(Vec::new());
        };
        let found = walk.await;
        self.walk = None;
        found.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Ends a walk, and waits until the log is held by nobody here.
    pub(super) async fn stop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        // What it found is found again by whoever starts next.
        let _ = self.found().await;
    }
}

impl Pipeline {
    /// To be called now and then: begins a walk through the log where somebody's past has to be made anew.
    pub(super) fn look_whether_to_repair(&mut self) {
        if self.repairing.is_walking() || !self.held.is_empty() || !self.perception.people.is_repairing() {
            return;
        }
        if self
            .repairing
            .not_before
            .is_some_and(|instant| self.clock.now() < instant)
        {
            return;
        }
        let until = *self.repairing.until.get_or_insert_with(|| self.log.next());
        if self.log.durable() < until {
            return;
        }
        self.repairing.until = None;
        let Some(reader) = self.perception.past_reader(self.ids.capacity()) else {
            return;
        };
        let (log, is_stopped) = (Arc::clone(&self.log), Arc::clone(&self.repairing.is_stopped));
        // It waits for the disk, and for the thread behind all others.
        self.repairing.walk = Some(tokio::task::spawn_blocking(move || {
            let walked = done_in_background("past", || walk(reader, &log, until, &is_stopped));
            walked.unwrap_or_else(|panic| Err(words_of(&*panic).to_owned()))
        }));
    }

    /// Takes what the log says of persons' past, and logs it.
    pub(super) fn take_found(&mut self, found: Result<Vec<Past>, String>) {
        let pasts = match found {
            Ok(pasts) => pasts,
            Err(error) => {
                self.repairing.not_before = Some(self.clock.now() + AGAIN_AFTER);
                metrics::counter!("usher_repairs_failed_total").increment(1);
                tracing::error!(
                    error,
                    "the past of persons could not be read from the log; it is tried again in a minute"
                );
                return;
            }
        };
        // Who was erased meanwhile is not to be named behind it.
        let pasts: Vec<_> = pasts
            .into_iter()
            .filter(|past| self.perception.people.wants(past))
            .collect();
        for pasts in pasts.chunks(PASTS_MAX) {
            metrics::counter!("usher_repairs_total").increment(pasts.len() as u64);
            self.log_deafness();
            // As with what staff does: a replay has to find it behind all that is known.
            let at_us = self.clock.wall_us().max(self.perception.now_us());
            let pasts = pasts.to_vec();
            let steps = self.perception.repair(at_us, &pasts);
            let (ack, durable) = Ack::pair();
            self.note(&Record::Repaired { at_us, pasts }, vec![ack]);
            self.tell(steps, None, Some(durable));
        }
    }

    /// Brings into the log how the reference table of identities differs from what the log knows of it. Blocks on the disk; to
    /// be called behind [`Pipeline::recover`].
    ///
    /// # Errors
    /// When the log can't be written.
    pub fn identify_by_table(&mut self, table: &IdentityTable) -> Result<(), LogError> {
        let change = self.perception.identity.differences(table);
        for change in change.in_parts() {
            // Each at a time of its own, by which it is known.
            let at_us = self.clock.wall_us().max(self.perception.now_us().saturating_add(1));
            tracing::info!(
                links = change.link.len(),
                unlinks = change.unlink.len(),
                "the table of identities has changed"
            );
            let record = Record::Identities { at_us, change };
            let steps = self.perception.apply(&record);
            self.log.append(vec![record.to_bytes().into()])?.wait_durable()?;
            self.tell(steps, None, None);
        }
        Ok(())
    }
}

/// Goes through the log up to `until`, or until everything is found.
fn walk(
    mut reader: PastReader,
    log: &Arc<dyn Log>,
    until: Offset,
    is_stopped: &AtomicBool,
) -> Result<Vec<Past>, String> {
    let oldest = log.oldest();
    if oldest > Offset(0) {
        reader.begin_cut();
    }
    for batch in ReadAhead::new(log, oldest, vec![until]) {
        if is_stopped.load(Ordering::Relaxed) {
            return Err("the engine is stopping".to_owned());
        }
        for (record, key) in batch.map_err(|error| error.to_string())?.records {
            reader.take(&record, key);
            if reader.is_done() {
                return Ok(reader.into_pasts());
            }
        }
    }
    Ok(reader.into_pasts())
}
