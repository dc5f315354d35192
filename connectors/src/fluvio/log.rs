//! A partition of a Fluvio topic as a log: each record once, in order, and only of its owner.
//!
//! An append is durable when it was read back from the partition and counts there. So one who was cut off, and does not
//! know it, is told nothing wrong: what it wrote behind the claim of a later owner counts for no reader, itself included.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use ::fluvio::Fluvio;
use bytes::Bytes;

use super::cluster::{Cluster, FluvioError, RECORD_BYTES_MAX, TopicOptions};
use super::fold::{Fold, Folded};
use super::frame::Frame;
use super::reader::{Place, Reader};
use super::state::{Known, Shared};
use super::worker;
use crate::BoxFuture;
use crate::embedded_log::LogOptions;
use crate::log::{Append, Epoch, Log, LogError, LogHealth, Offset, Retained};

/// How long opening may take to read all that is there is without an end, but not how long nothing may happen meanwhile.
const STANDSTILL: Duration = Duration::from_secs(30);
/// How long a claim may take.
const CLAIM: Duration = Duration::from_secs(30);
/// How long what waits may take to be written when it is dropped.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// A partition of a topic. Dropping it writes what is queued and closes it.
pub struct FluvioLog {
    shared: Arc<Shared>,
    place: Place,
    ended: Mutex<mpsc::Receiver<()>>,
    reading: Mutex<Option<Cursor>>,
}

/// Reading that went on to somewhere, and goes on from there when it is asked to.
struct Cursor {
    /// Held, for its end ends the reading.
    _client: Fluvio,
    reader: Reader,
    fold: Fold,
    held: VecDeque<(u64, Bytes)>,
}

/// Opens a partition of a topic, which is made where there is none, and reads what is there. Blocks.
///
/// With a `file` it notes there how far it has read, every few seconds and when it is closed, and reads only what came
/// since when it is opened again. A file that is gone or broken, or of another partition, means to read all of it.
///
/// # Errors
/// [`LogError::Unreadable`] when the cluster does not answer, or the topic is not what it should be.
pub fn open(
    cluster: &Arc<Cluster>,
    topic: &TopicOptions,
    partition: u32,
    options: LogOptions,
    file: Option<PathBuf>,
) -> Result<FluvioLog, LogError> {
    let name = PathBuf::from(format!(
        "fluvio://{}/{}/{partition}",
        cluster.options().endpoint,
        topic.name
    ));
    let unreadable = |cause: String| LogError::Unreadable {
        path: name.clone(),
        cause,
    };
    let place = Place {
        cluster: Arc::clone(cluster),
        topic: topic.clone(),
        partition,
    };
    let ensuring = place.clone();
    waited(cluster, async move { ensuring.cluster.ensure(&ensuring.topic).await })
        .and_then(|ensured| ensured.map_err(|error: FluvioError| error.to_string()))
        .map_err(unreadable)?;
    let shared = Arc::new(Shared::new(name.clone(), options, file));
    if let Some(known) = shared.file.as_deref().and_then(Known::load) {
        shared.restore(known);
    }
    let (sender, ended) = mpsc::channel();
    cluster.handle().spawn({
        let (shared, place) = (Arc::clone(&shared), place.clone());
        async move {
            worker::run(shared, place).await;
            let _ = sender.send(());
        }
    });
    let mut caught_up = shared.caught_up.subscribe();
    let reading = Arc::clone(&shared);
    let caught_up = waited(cluster, async move {
        loop {
            let before = reading.place();
            match tokio::time::timeout(STANDSTILL, caught_up.wait_for(|is_so| *is_so)).await {
                Ok(caught_up) => return caught_up.is_ok(),
                Err(_) if reading.place() > before => {}
                Err(_) => return false,
            }
        }
    });
    let log = FluvioLog {
        shared,
        place,
        ended: Mutex::new(ended),
        reading: Mutex::new(None),
    };
    match (caught_up, log.health().trouble) {
        (Ok(true), _) if !log.shared.is_closed() => Ok(log),
        (_, Some(trouble)) => Err(unreadable(trouble.reason)),
        _ => Err(unreadable(format!("nothing came for {} s", STANDSTILL.as_secs()))),
    }
}

/// Waits for work that is done in the cluster's own runtime, whatever the caller runs in.
fn waited<T: Send + 'static>(cluster: &Cluster, work: impl Future<Output = T> + Send + 'static) -> Result<T, String> {
    let (sender, receiver) = mpsc::channel();
    cluster.handle().spawn(async move {
        let _ = sender.send(work.await);
    });
    receiver.recv().map_err(|_| "the Fluvio client has ended".to_owned())
}

impl FluvioLog {
    /// How many of Fluvio's records were read before it was open.
    pub fn read_to_open(&self) -> u64 {
        self.shared.read_to_open()
    }

    fn unreadable(&self, cause: impl std::fmt::Display) -> LogError {
        LogError::Unreadable {
            path: self.shared.name.clone(),
            cause: cause.to_string(),
        }
    }
}

/// How far a read may go.
#[derive(Clone, Copy)]
struct Bounds {
    from: u64,
    until: u64,
    max_records: usize,
    max_bytes: usize,
}

/// Why a read came to nothing.
enum Unread {
    /// The cluster could not.
    Failed(String),
    /// The first offset that is left.
    Expired(u64),
}

impl From<FluvioError> for Unread {
    fn from(error: FluvioError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Cursor {
    async fn open(shared: &Shared, place: &Place, from: u64) -> Result<Self, Unread> {
        let client = place.cluster.connect().await?;
        let mark = shared.mark_before(from);
        if let Some(begin) = place.begin(&client).await?
            && begin > mark.place
        {
            return Err(Unread::Expired(shared.expire(begin)));
        }
        Ok(Self {
            reader: place.read_from(&client, mark.place).await?,
            _client: client,
            fold: mark.fold,
            held: VecDeque::new(),
        })
    }

    /// The offset that it goes on with.
    fn next(&self) -> Option<u64> {
        self.held.front().map(|(offset, _)| *offset).or(self.fold.next)
    }

    async fn read(&mut self, place: &Place, bounds: Bounds) -> Result<Vec<(Offset, Bytes)>, Unread> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < bounds.max_records {
            let Some((offset, record)) = self.held.front() else {
                if self.fold.next.is_some_and(|next| next >= bounds.until) {
                    break;
                }
                let records = place
                    .cluster
                    .answer("give records", self.reader.next(worker::RECORDS))
                    .await?;
                for (_, value) in records {
                    let Some(frame) = Frame::decode(value) else { continue };
                    if let Folded::Accepted(offset) = self.fold.take(&frame)
                        && offset >= bounds.from
                    {
                        self.held.extend(frame.record.map(|record| (offset, record)));
                    }
                }
                continue;
            };
            let too_large = bytes + record.len() > bounds.max_bytes && !taken.is_empty();
            if *offset >= bounds.until || too_large {
                break;
            }
            bytes += record.len();
            taken.extend(self.held.pop_front().map(|(offset, record)| (Offset(offset), record)));
        }
        Ok(taken)
    }
}

/// Reads on where the last read ended, or from the nearest place that is known. A cursor that failed is left.
async fn read(
    shared: Arc<Shared>,
    place: Place,
    cursor: Option<Cursor>,
    bounds: Bounds,
) -> (Option<Cursor>, Result<Vec<(Offset, Bytes)>, Unread>) {
    if let Some(mut cursor) = cursor.filter(|cursor| cursor.next() == Some(bounds.from))
        && let Ok(records) = cursor.read(&place, bounds).await
    {
        return (Some(cursor), Ok(records));
    }
    match Cursor::open(&shared, &place, bounds.from).await {
        Ok(mut cursor) => {
            let read = cursor.read(&place, bounds).await;
            (read.is_ok().then_some(cursor), read)
        }
        Err(unread) => (None, Err(unread)),
    }
}

impl Log for FluvioLog {
    fn append(&self, records: Vec<Bytes>) -> Result<Append, LogError> {
        self.shared.push(records, RECORD_BYTES_MAX)
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.shared.room())
    }

    fn tail(&self, from: Offset) -> BoxFuture<'_, Result<Offset, LogError>> {
        let end = self.shared.wait_for(from.0);
        Box::pin(async move { end.await.map(Offset).ok_or(LogError::Closed) })
    }

    fn read(&self, from: Offset, max_records: usize, max_bytes: usize) -> Result<Vec<(Offset, Bytes)>, LogError> {
        let (oldest, until) = (self.shared.oldest(), self.shared.durable());
        if from.0 < oldest {
            return Err(LogError::Expired(Offset(oldest)));
        }
        if from.0 >= until || max_records == 0 {
            return Ok(Vec::new());
        }
        let bounds = Bounds {
            from: from.0,
            until,
            max_records,
            max_bytes,
        };
        let mut reading = self.reading.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let work = read(Arc::clone(&self.shared), self.place.clone(), reading.take(), bounds);
        let (cursor, records) = waited(&self.place.cluster, work).map_err(|reason| self.unreadable(reason))?;
        *reading = cursor;
        records.map_err(|unread| match unread {
            Unread::Failed(reason) => self.unreadable(reason),
            Unread::Expired(oldest) => LogError::Expired(Offset(oldest)),
        })
    }

    fn oldest(&self) -> Offset {
        Offset(self.shared.oldest())
    }

    fn next(&self) -> Offset {
        Offset(self.shared.next())
    }

    fn durable(&self) -> Offset {
        Offset(self.shared.durable())
    }

    /// Drops nothing: Fluvio drops whole segments itself, by the age and size that its topic was made with, and knows of
    /// no checkpoint. So `keep_from` is kept by retaining longer than the oldest checkpoint is old.
    fn retain(&self, _: Offset, _: i64) -> Result<Retained, LogError> {
        Ok(Retained {
            oldest: self.oldest(),
            ..Retained::default()
        })
    }

    fn claim(&self, epoch: Epoch) -> Result<(), LogError> {
        let (sender, answer) = mpsc::channel();
        self.shared.ask_to_own(epoch.0, sender);
        answer.recv_timeout(CLAIM).unwrap_or_else(|_| {
            self.shared.forget_claim();
            let waited = format!("the cluster did not take a claim within {} s", CLAIM.as_secs());
            let trouble = self.health().trouble.map_or(waited, |trouble| trouble.reason);
            Err(self.shared.unwritable(trouble))
        })
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.shared.own_epoch())
    }

    fn health(&self) -> LogHealth {
        self.shared.health()
    }

    fn close(&self) {
        self.shared.close();
    }
}

impl Drop for FluvioLog {
    fn drop(&mut self) {
        self.shared.close();
        let ended = self.ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // What could not be written by then was never acknowledged.
        let _ = ended.recv_timeout(LAST_WRITES);
    }
}
