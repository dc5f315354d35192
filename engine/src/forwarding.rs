//! Forwarding copies what our log has into the partitions that all workers can read, in order and once, so that another
//! worker can take over.
//!
//! Nothing waits for it: devices are acknowledged by our own log, and alerts are raised where events arrive. What it could
//! not copy yet stays in our log.

mod envelope;
mod opening;
mod progress;
mod takeover;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use usher_connectors::log::{Append, Epoch, Log, LogError, Offset};

use self::envelope::{Envelope, LogId};
use self::opening::{Opening, claimed, opening};
use self::progress::Progress;
use self::takeover::{TakenOver, take_over};
use crate::fence::Fence;
use crate::record::Record;
use crate::workers::{Assignment, site_in};

/// Records read from our log at once.
const READ_RECORDS: usize = 4_096;
const READ_BYTES: usize = 2 << 20;
/// Such batches under way.
const UNDER_WAY: usize = 8;
/// How often it is noted how far it has come, and what receivers have.
const NOTE_EVERY: Duration = Duration::from_millis(500);
/// How long a worker that needs nothing from Fluvio waits for it at the start, to hear whether another one has its place.
const START_WAIT: Duration = Duration::from_secs(5);
/// How long the last records may take when the engine stops.
const LAST_RECORDS: Duration = Duration::from_secs(5);

/// Opens a partition that all workers can read. Blocks.
pub type OpenPartition = Arc<dyn Fn(u32) -> Result<Arc<dyn Log>, LogError> + Send + Sync>;

/// Gives the offset of our log before which every step was told and every receiver has what it wants, where that is known.
pub type SettledUntil = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// Why a worker can't take up its assignment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TakeUpError {
    /// The settings or the data folder have to be changed.
    #[error("{0}")]
    Refused(String),
    /// Somebody else has it.
    #[error(transparent)]
    Fenced(LogError),
    /// What others had can't be read now; nothing was taken over or is lost.
    #[error("the assignment {assignment} can't be taken up: {reason}; it can be tried again")]
    Unreachable {
        /// Which.
        assignment: String,
        /// Why.
        reason: String,
    },
}

/// What is copied, where to, and how far that is.
pub struct Forwarding {
    local: Arc<dyn Log>,
    open: OpenPartition,
    assignment: Assignment,
    data: PathBuf,
    progress: Mutex<Progress>,
    /// What comes of opening the partitions at the start.
    opening: Mutex<Option<Opening>>,
    fence: Fence,
    /// Every record before it is in its partition; our log keeps the others.
    forwarded: Arc<AtomicU64>,
}

/// A partition being written.
struct Target {
    number: u32,
    log: Arc<dyn Log>,
    /// The last record of ours that was there at the start.
    last: Option<Offset>,
}

/// A batch under way: what has to be durable, what is, and our offset behind it.
struct Batch {
    appends: VecDeque<(u32, Append)>,
    done: Vec<(u32, Offset)>,
    next: Offset,
}

/// What taking up an assignment came to.
pub struct TakenUp {
    /// The rest of the work.
    pub forwarding: Arc<Forwarding>,
    /// Every step of records before it was told by others, in a folder that was empty. An outbox that knows better keeps
    /// to what it knows.
    pub told_until: Option<Offset>,
}

impl Forwarding {
    /// Takes up an assignment: claims its partitions, and reads what other workers had put there into our log. Blocks.
    ///
    /// A worker that comes back under the assignment it had needs nobody, and starts also when the cluster is away.
    ///
    /// # Errors
    /// [`TakeUpError`], in words.
    pub fn take_up(
        local: Arc<dyn Log>,
        open: OpenPartition,
        assignment: Assignment,
        data: &Path,
        fence: Fence,
    ) -> Result<TakenUp, TakeUpError> {
        let refused = TakeUpError::Refused;
        let found = Progress::load(data).map_err(refused)?;
        if let Some(words) = found.as_ref().and_then(|found| found.refuses(&assignment, data)) {
            return Err(refused(words));
        }
        let is_first = found.is_none();
        let mut progress = found.unwrap_or_else(|| Progress::fresh(&assignment));
        if is_first {
            // What our log had before there was Fluvio is copied, and nothing of it taken over.
            progress.taken_over_from = local.next().0;
        }
        if is_first && progress.taken_over_from > 0 && !assignment.has_all() {
            return Err(refused(format!(
                "{} has a log of before there were several workers, with other workers' sites in it: what it knows of them \
                 would go on being told. Start it once with all partitions, which copies its log; then each worker takes \
                 over its own with an empty folder",
                data.display()
            )));
        }
        let is_same = progress.is_complete && progress.epoch == assignment.epoch();
        if progress.is_complete && !is_same {
            progress.taken_over_from = local.next().0;
        }
        let was_empty = progress.taken_over_from == 0;
        let unreachable = |error: &dyn std::fmt::Display| TakeUpError::Unreachable {
            assignment: assignment.to_string(),
            reason: error.to_string(),
        };
        let (mut opening, mut opened) = (opening(&open, &assignment), None);
        let waited = match is_same {
            true => opening.recv_timeout(START_WAIT).ok(),
            false => opening.recv().ok(),
        };
        match waited {
            Some(Ok(partitions)) => {
                let (sender, again) = std::sync::mpsc::channel();
                let _ = sender.send(Ok(partitions.clone()));
                (opening, opened) = (again, Some(partitions));
            }
            Some(Err(error @ LogError::Fenced { .. })) => return Err(TakeUpError::Fenced(error)),
            Some(Err(error)) if is_same => {
                tracing::warn!(%error, "Fluvio is away; events are copied there when it is back");
            }
            Some(Err(error)) => return Err(unreachable(&error)),
            None if is_same => tracing::warn!("Fluvio is slow to answer; events are copied there when it does"),
            None => return Err(unreachable(&"a fault in the engine")),
        }
        local.claim(Epoch(assignment.epoch())).map_err(|error| match error {
            LogError::Fenced { .. } => TakeUpError::Fenced(error),
            error => unreachable(&error),
        })?;
        if let Some(partitions) = opened.as_ref().filter(|_| !is_same) {
            progress.is_complete = false;
            progress.epoch = assignment.epoch();
            progress.save(data).map_err(refused)?;
            let TakenOver { records, unsettled } =
                take_over(local.as_ref(), partitions, &progress).map_err(|error| unreachable(&error))?;
            if records > 0 {
                tracing::info!(records, "took over what other workers had put into our partitions");
                progress.told = was_empty.then_some(unsettled.0);
            }
            progress.is_complete = true;
            let from = progress.taken_over_from;
            progress.others.push((from, from + records));
            let ends = partitions.iter().map(|(number, log)| (*number, log.durable().0));
            progress.taken = ends.collect();
            progress.save(data).map_err(refused)?;
        }
        let told_until = progress.told.map(Offset);
        let forwarded = Arc::new(AtomicU64::new(progress.forwarded));
        let forwarding = Arc::new(Self {
            local,
            open,
            assignment,
            data: data.to_owned(),
            progress: Mutex::new(progress),
            opening: Mutex::new(Some(opening)),
            fence,
            forwarded,
        });
        Ok(TakenUp { forwarding, told_until })
    }

    /// Our offset before which every record is in its partition.
    pub fn forwarded(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.forwarded)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Copies until `stop`, and then what is left, for a moment. Where another one has a partition, the fence is shut.
    ///
    /// # Errors
    /// When a log can't be read or written; running it again goes on where it was.
    pub async fn run(self: Arc<Self>, settled: SettledUntil, stop: CancellationToken) -> Result<(), LogError> {
        let copied = self.copy(&settled, &stop).await;
        match copied {
            Err(error @ LogError::Fenced { .. }) => {
                self.fence.shut(error.to_string());
                stop.cancelled().await;
                Ok(())
            }
            Err(_) if stop.is_cancelled() => Ok(()),
            Err(error) => Err(error),
            Ok(never) => match never {},
        }
    }

    async fn copy(
        self: &Arc<Self>,
        settled_until: &SettledUntil,
        stop: &CancellationToken,
    ) -> Result<Infallible, LogError> {
        let (own, (sender, mut opened)) = (Arc::clone(self), oneshot::channel());
        // A thread that nobody waits for when the engine stops: a cluster that answers nothing can hold it for long.
        std::thread::spawn(move || sender.send(own.targets()));
        let mut note = tokio::time::interval(NOTE_EVERY);
        let (targets, from) = loop {
            tokio::select! {
                opened = &mut opened => break opened.unwrap_or(Err(LogError::Closed))?,
                _ = note.tick() => {
                    self.measure();
                }
                () = stop.cancelled() => {
                    let left = self.measure();
                    tracing::warn!(left, "Fluvio is away and does not have all that the log has");
                    return Err(LogError::Closed);
                }
            }
        };
        let copied = self.copy_to(&targets, from, settled_until, stop).await;
        // Dropping a partition writes what is queued, and waits for it.
        let _ = tokio::task::spawn_blocking(move || drop(targets)).await;
        copied
    }

    async fn copy_to(
        self: &Arc<Self>,
        targets: &[Target],
        from: Offset,
        settled_until: &SettledUntil,
        stop: &CancellationToken,
    ) -> Result<Infallible, LogError> {
        let mut at = from.max(self.local.oldest());
        let (sender, mut read) = mpsc::channel(1);
        let _reading = AbortOnDropHandle::new(tokio::spawn(Arc::clone(self).read_all(at, sender)));
        let mut under_way: VecDeque<Batch> = VecDeque::new();
        let mut note = tokio::time::interval(NOTE_EVERY);
        note.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut settled = 0;
        let mut ends_at = None;
        loop {
            if ends_at.is_none() && stop.is_cancelled() {
                ends_at = Some(tokio::time::Instant::now() + LAST_RECORDS);
            }
            let is_all = under_way.is_empty() && at >= self.local.durable();
            let ends = async {
                match ends_at {
                    Some(_) if is_all => {}
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let has_room = under_way.len() < UNDER_WAY;
            tokio::select! {
                biased;
                done = first_done(&mut under_way), if !under_way.is_empty() => self.note_done(&done?),
                _ = note.tick() => {
                    self.say_settled(settled_until, targets, &mut settled).await?;
                    self.save().await;
                    watch_owners(targets)?;
                }
                () = ends => {
                    self.end(settled_until, targets, &mut settled, is_all).await?;
                    return Err(LogError::Closed);
                }
                Some(records) = read.recv(), if has_room => {
                    let batch = self.put(targets, at, records?).await?;
                    at = batch.next;
                    under_way.push_back(batch);
                }
                () = stop.cancelled(), if ends_at.is_none() => {}
            }
            self.measure();
        }
    }

    /// How many records Fluvio does not have yet.
    fn measure(&self) -> u64 {
        let left = self
            .local
            .durable()
            .0
            .saturating_sub(self.forwarded.load(Ordering::Acquire));
        metrics::gauge!("usher_fluvio_waiting_records").set(left as f64);
        left
    }

    /// Reads our log from a place on, as long as somebody takes it.
    async fn read_all(self: Arc<Self>, mut at: Offset, sender: mpsc::Sender<Result<Vec<(Offset, Bytes)>, LogError>>) {
        loop {
            let records = self.read(at).await;
            let is_over = records.is_err();
            if let Ok(records) = &records {
                at = records.last().map_or(at, |(last, _)| Offset(last.0 + 1));
            }
            if sender.send(records).await.is_err() || is_over {
                return;
            }
        }
    }

    /// The partitions, owned, with where our records in them end, and from where on they are to be copied. Blocks.
    fn targets(&self) -> Result<(Vec<Target>, Offset), LogError> {
        let opening = self
            .opening
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        let opened = match opening.map(|opening| opening.recv()) {
            Some(Ok(opened)) => opened?,
            // It was heard at the start that it came to nothing, or this is another try.
            Some(Err(_)) | None => claimed(&self.open, &self.assignment)?,
        };
        let (log_id, behind) = {
            let progress = self.progress();
            (progress.log, progress.partitions.clone())
        };
        let forwarded = self.forwarded.load(Ordering::Acquire);
        let (mut targets, mut from) = (Vec::with_capacity(opened.len()), Offset(forwarded));
        for (number, log) in opened {
            let behind = behind.get(&number).copied().unwrap_or(0);
            let (at, mut last) = match log.durable().0 < behind {
                false => (behind, forwarded.checked_sub(1).map(Offset)),
                true => {
                    tracing::error!(
                        partition = number,
                        "Fluvio has lost records that were there; they are copied again"
                    );
                    from = Offset(0);
                    (0, None)
                }
            };
            last = last_of(log.as_ref(), log_id, Offset(at))?.max(last);
            targets.push(Target { number, last, log });
        }
        Ok((targets, from))
    }

    /// The next records of our log; waits until there are some.
    async fn read(&self, at: Offset) -> Result<Vec<(Offset, Bytes)>, LogError> {
        if self.local.tail(at).await.is_err() {
            // Our log is closed: nothing more comes.
            std::future::pending::<()>().await;
        }
        let local = Arc::clone(&self.local);
        blocking(move || {
            let mut at = at;
            loop {
                match local.read(at, READ_RECORDS, READ_BYTES) {
                    Err(LogError::Damaged { resume, .. }) if resume < local.durable() => at = resume,
                    Err(LogError::Expired(oldest)) if oldest > at => at = oldest,
                    read => return read,
                }
            }
        })
        .await
    }

    /// Hands records to the partitions they belong to.
    async fn put(&self, targets: &[Target], at: Offset, records: Vec<(Offset, Bytes)>) -> Result<Batch, LogError> {
        let progress = self.progress().clone();
        let log = progress.log;
        let next = records.last().map_or(at, |(last, _)| Offset(last.0 + 1));
        let mut by_partition: BTreeMap<u32, Vec<Bytes>> = BTreeMap::new();
        for (offset, record) in records {
            if progress.is_of_others(offset.0) {
                continue;
            }
            if is_of_this_log(&record) {
                continue;
            }
            let home = home_of(&record, &self.assignment);
            let envelope = Envelope::Record { log, offset, record }.to_bytes();
            for target in targets {
                let is_there = target.last.is_some_and(|last| offset <= last);
                if !is_there && home.is_none_or(|home| home == target.number) {
                    by_partition.entry(target.number).or_default().push(envelope.clone());
                }
            }
        }
        let mut appends = VecDeque::new();
        for target in targets {
            if let Some(records) = by_partition.remove(&target.number) {
                appends.push_back((target.number, append(target.log.as_ref(), records).await?));
            }
        }
        Ok(Batch {
            appends,
            done: Vec::new(),
            next,
        })
    }

    fn note_done(&self, batch: &Batch) {
        let mut progress = self.progress();
        // What is copied once more was there before.
        progress.forwarded = progress.forwarded.max(batch.next.0);
        self.forwarded.store(progress.forwarded, Ordering::Release);
        metrics::counter!("usher_fluvio_forwarded_total").absolute(progress.forwarded);
        progress
            .partitions
            .extend(batch.done.iter().map(|(number, behind)| (*number, behind.0)));
    }

    /// Says in the partitions what every receiver has, so that whoever takes over need not send it again.
    async fn say_settled(
        &self,
        settled_until: &SettledUntil,
        targets: &[Target],
        said: &mut u64,
    ) -> Result<(), LogError> {
        let Some(until) = settled_until().filter(|until| *until > *said) else {
            return Ok(());
        };
        let log = self.progress().log;
        let envelope = Envelope::Settled {
            log,
            until: Offset(until),
        };
        for target in targets {
            // Not waited for: it is said again with more, and until then steps only come twice, under their ids.
            match target.log.append(vec![envelope.to_bytes()]) {
                Ok(_) => {}
                Err(LogError::Busy) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        *said = until;
        Ok(())
    }

    async fn save(self: &Arc<Self>) {
        let own = Arc::clone(self);
        let saved = blocking(move || {
            let progress = own.progress().clone();
            progress.save(&own.data).map_err(|cause| LogError::Unwritable {
                path: own.data.clone(),
                cause,
            })
        });
        if let Err(error) = saved.await {
            // What was copied since is looked at again after the next start, and not copied twice.
            tracing::warn!(%error, "how far forwarding has come could not be noted");
        }
    }

    /// Notes how far it has come, for the last time.
    async fn end(
        self: &Arc<Self>,
        settled_until: &SettledUntil,
        targets: &[Target],
        settled: &mut u64,
        is_all: bool,
    ) -> Result<(), LogError> {
        self.save().await;
        let left = self.measure();
        if is_all {
            self.say_settled(settled_until, targets, settled).await?;
            tracing::info!("Fluvio has all that the log has");
        } else {
            tracing::warn!(
                left,
                "Fluvio does not have all that the log has; start this worker again before another one takes over"
            );
        }
        Ok(())
    }
}

/// Whether a record says something of this log alone: what it told of persons' past. Whoever takes over has more of it, or less, and
/// goes through its own.
fn is_of_this_log(record: &[u8]) -> bool {
    matches!(Record::from_bytes(record), Ok(Record::Repaired { .. }))
}

/// The partition that a record belongs to; none when it is no single site's, and so each worker's.
fn home_of(record: &[u8], assignment: &Assignment) -> Option<u32> {
    let of_site = |site: &str| {
        let home = assignment.partition_of(site);
        assignment.partitions().contains(&home).then_some(home)
    };
    match Record::from_bytes(record).ok()? {
        Record::Event(event) => of_site(&event.source.site),
        Record::Refused(refusal) => site_in(&refusal.topic).and_then(of_site),
        Record::Acted(_)
        | Record::ActedOnPerson { .. }
        | Record::Erased(_)
        | Record::ErasureDone(_)
        | Record::Removed
        | Record::Expired { .. }
        | Record::Started { .. }
        | Record::Ticked { .. }
        | Record::QueryRestarted { .. }
        | Record::Shed { .. }
        | Record::Points(_)
        | Record::Identities { .. }
        | Record::Repaired { .. }
        | Record::Looked(_) => None,
    }
}

/// Hears of a later owner also where nothing is to be copied.
fn watch_owners(targets: &[Target]) -> Result<(), LogError> {
    for target in targets {
        // Nothing is appended by it; it is refused all the same.
        target.log.append(Vec::new())?;
    }
    Ok(())
}

/// The place in our log of the last of our records in a partition, from a place there on.
fn last_of(log: &dyn Log, own: LogId, from: Offset) -> Result<Option<Offset>, LogError> {
    let (mut at, end, mut last) = (from.max(log.oldest()), log.durable(), None);
    while at < end {
        let records = log.read(at, READ_RECORDS, READ_BYTES)?;
        let Some((read, _)) = records.last() else { break };
        at = Offset(read.0 + 1);
        for (_, bytes) in records {
            if let Some(Envelope::Record { log, offset, .. }) = Envelope::from_bytes(&bytes)
                && log == own
            {
                last = last.max(Some(offset));
            }
        }
    }
    Ok(last)
}

async fn append(log: &dyn Log, records: Vec<Bytes>) -> Result<Append, LogError> {
    loop {
        match log.append(records.clone()) {
            Err(LogError::Busy) => log.room().await,
            appended => return appended,
        }
    }
}

/// Waits until all of the oldest batch is durable.
async fn first_done(under_way: &mut VecDeque<Batch>) -> Result<Batch, LogError> {
    let Some(batch) = under_way.front_mut() else {
        return std::future::pending().await;
    };
    while let Some((number, append)) = batch.appends.front_mut() {
        append.wait().await?;
        batch.done.push((*number, append.next()));
        batch.appends.pop_front();
    }
    Ok(under_way.pop_front().expect("it was there a moment ago"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(LogError::Unreadable {
            path: PathBuf::from("a partition"),
            cause: error.to_string(),
        })
    })
}
