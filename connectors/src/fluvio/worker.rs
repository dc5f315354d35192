//! The worker of a log in Fluvio: it reads what the partition says, sends what waits, and begins anew when either fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::fluvio::{
    DeliverySemantic, Fluvio, RecordKey, RetryPolicy, TopicProducerConfig, TopicProducerConfigBuilder,
    TopicProducerPool,
};
use tracing::{info, warn};

use super::cluster::{FluvioError, RECORD_BYTES_MAX};
use super::frame;
use super::reader::{Place, Reader};
use super::state::{Group, Shared};
use crate::back_off::BackOff;
use crate::message::wall_clock_us;

/// Records taken from the cluster at once.
pub(super) const RECORDS: usize = 4_096;
/// Bytes that the client gathers into one batch.
const BATCH_BYTES: usize = 1 << 20;
/// How often it is looked whether what was sent has come.
const LOOK: Duration = Duration::from_millis(200);
/// How often it is noted how far a partition was read.
const KEEP_EVERY: Duration = Duration::from_secs(2);
/// How often reading that takes long says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Why a session is over.
enum Over {
    /// Nothing waits, and nothing more will come.
    Done,
    /// The next one may do better.
    Failed(String),
    /// The partition is not what it was; whoever has the log has to open it anew.
    Lost(String),
}

impl From<FluvioError> for Over {
    fn from(error: FluvioError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Works until the log is closed and nothing waits, or the partition is not what it was.
pub(super) async fn run(shared: Arc<Shared>, place: Place) {
    let mut back_off = BackOff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        let reason = match session(&shared, &place, &mut back_off).await {
            Over::Done => break,
            Over::Failed(reason) => reason,
            Over::Lost(reason) => {
                shared.note_trouble(&reason, wall_clock_us());
                shared.close();
                shared.fail_all(&shared.unwritable(&reason));
                break;
            }
        };
        if shared.is_done() {
            break;
        }
        shared.note_trouble(&reason, wall_clock_us());
        if shared.is_closed() {
            shared.fail_all(&shared.unwritable(&reason));
            break;
        }
        let mut pause = std::pin::pin!(tokio::time::sleep(back_off.wait()));
        loop {
            tokio::select! {
                () = &mut pause => break,
                () = shared.work.notified() => if shared.is_closed() { break },
            }
        }
    }
    keep(&shared).await;
    shared.end_writing();
}

/// One connection, from catching up to its first failure.
async fn session(shared: &Arc<Shared>, place: &Place, back_off: &mut BackOff) -> Over {
    match connected(shared, place, back_off).await {
        Ok(over) | Err(over) => over,
    }
}

async fn connected(shared: &Arc<Shared>, place: &Place, back_off: &mut BackOff) -> Result<Over, Over> {
    let client = place.cluster.connect().await?;
    let mark = shared.begin_session();
    let producer = producer(place, &client).await?;
    let is_proven = shared.is_proven();
    let end = end(place, &client, &producer, if is_proven { mark.place } else { 0 }).await?;
    let mut reader = match is_proven {
        true => None,
        false => proven(shared, place, &client, end).await?,
    };
    let from = shared.place();
    if reader.is_none()
        && end > from
        && let Some(begin) = place.begin(&client).await?
        && begin > from
    {
        shared.begin_at(begin);
    }
    let mut reader = match reader.take() {
        Some(reader) => reader,
        None => place.read_from(&client, shared.place()).await?,
    };
    let (from, mut told) = (shared.place(), Instant::now());
    while shared.place() < end {
        let records = place.cluster.answer("give records", reader.next(RECORDS)).await?;
        // What stands behind a gap is sent again below, as is all that does not count yet.
        let _ = shared.take(records);
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            let (log, read) = (shared.name.display(), shared.place() - from);
            info!(%log, "reading a partition: {read} of {} records", end - from);
            keep(shared).await;
        }
    }
    shared.note_caught_up(shared.place() - from);
    keep(shared).await;
    back_off.reset();
    tokio::select! {
        over = follow(shared, &mut reader) => over,
        over = send(shared, place, &producer) => over,
        over = look(shared, place.cluster.options().request_timeout) => over,
    }
}

/// Goes on behind what was kept of the partition in a file, where it is still the same one; forgets it where it is not.
async fn proven(shared: &Shared, place: &Place, client: &Fluvio, end: i64) -> Result<Option<Reader>, Over> {
    let last = shared.place() - 1;
    let begin = place.begin(client).await?;
    if end > last && begin.is_some_and(|begin| begin <= last) {
        let mut reader = place.read_from(client, last).await?;
        let read = place.cluster.answer("give a record", reader.next(1)).await?;
        if shared.prove(&read) {
            return Ok(Some(reader));
        }
    }
    warn!(log = %shared.name.display(), "a partition is not the one that was read before; it is read whole");
    shared.forget();
    Ok(None)
}

/// Notes how far the partition was read, if there is where to.
async fn keep(shared: &Arc<Shared>) {
    let Some(path) = shared.file.clone() else { return };
    if let Some(known) = shared.to_keep() {
        // What comes of it is said there; nobody has to wait for a disk that is slow.
        let _ = tokio::task::spawn_blocking(move || known.save(&path)).await;
    }
}

/// The place behind the last record, for certain; `known` is up to where the partition was read before.
///
/// An SPU that comes up has no partition until the SC has told it which are its own. Asked for an end meanwhile it gives 0
/// and an error code, and the client hands the 0 out. So an end that is 0, or before what was read, is not believed: a
/// record is written, which no SPU takes for a partition that it does not lead, and its place is where the end was.
async fn end(place: &Place, client: &Fluvio, producer: &TopicProducerPool, known: i64) -> Result<i64, Over> {
    let told = place.end(client).await?;
    if told > 0 && told >= known {
        return Ok(told);
    }
    let writing = async {
        let words = |error: &dyn std::fmt::Display| format!("{error:#}");
        let sent = producer.send(RecordKey::NULL, frame::probe()).await;
        let sent = sent.map_err(|error| words(&error))?;
        producer.flush().await.map_err(|error| words(&error))?;
        sent.wait().await.map_err(|error| words(&error))
    };
    let end = place.cluster.answer("take a record", writing).await?.offset();
    if end < known {
        return Err(Over::Lost(format!(
            "the partition ended at its record {end}, and there were {known} before: the cluster has lost some"
        )));
    }
    Ok(end + 1)
}

/// A producer that tries once: whether what it sent counts, the partition says.
async fn producer(place: &Place, client: &Fluvio) -> Result<TopicProducerPool, FluvioError> {
    let config: Result<TopicProducerConfig, _> = TopicProducerConfigBuilder::default()
        .set_specific_partitioner(place.partition)
        .batch_size(BATCH_BYTES)
        .max_request_size(2 * RECORD_BYTES_MAX)
        .linger(Duration::from_millis(20))
        .timeout(place.cluster.options().request_timeout)
        .isolation(place.topic.isolation())
        .delivery_semantic(DeliverySemantic::AtLeastOnce(RetryPolicy {
            max_retries: 0,
            timeout: place.cluster.options().request_timeout,
            ..RetryPolicy::default()
        }))
        .build();
    let config = config.map_err(|error| place.cluster.unreachable(error))?;
    let making = client.topic_producer_with_config(place.topic.name.clone(), config);
    place.cluster.answer("let us write", making).await
}

async fn follow(shared: &Shared, reader: &mut Reader) -> Result<Over, Over> {
    loop {
        let records = reader.next(RECORDS).await.map_err(Over::Failed)?;
        shared.take(records).map_err(Over::Failed)?;
        // A flood must not keep from sending.
        tokio::task::yield_now().await;
    }
}

async fn send(shared: &Shared, place: &Place, producer: &TopicProducerPool) -> Result<Over, Over> {
    loop {
        let mut work = std::pin::pin!(shared.work.notified());
        work.as_mut().enable();
        match shared.take_group() {
            Some(group) => {
                place
                    .cluster
                    .answer("take records", send_group(producer, group))
                    .await?;
            }
            None if shared.is_done() => return Ok(Over::Done),
            None => work.await,
        }
    }
}

async fn send_group(producer: &TopicProducerPool, group: Group) -> Result<(), String> {
    let words = |error: &dyn std::fmt::Display| format!("{error:#}");
    let mut last = None;
    if let Some(sequence) = group.claim {
        let sent = producer
            .send(RecordKey::NULL, frame::claim(group.owner, sequence))
            .await;
        last = Some(sent.map_err(|error| words(&error))?);
    }
    for (sequence, record) in group.records {
        let framed = frame::record(group.owner, sequence, &record);
        last = Some(
            producer
                .send(RecordKey::NULL, framed)
                .await
                .map_err(|error| words(&error))?,
        );
    }
    producer.flush().await.map_err(|error| words(&error))?;
    match last {
        Some(last) => last.wait().await.map(drop).map_err(|error| words(&error)),
        None => Ok(()),
    }
}

/// Ends a session in which something was sent and did not come.
async fn look(shared: &Arc<Shared>, patience: Duration) -> Result<Over, Over> {
    let mut kept = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        if kept.elapsed() > KEEP_EVERY {
            kept = Instant::now();
            keep(shared).await;
        }
        let since = shared.sent_since();
        if since.is_some_and(|since| Instant::now().duration_since(since) > patience) {
            return Err(Over::Failed(format!(
                "what was sent did not come within {} s",
                patience.as_secs_f32()
            )));
        }
    }
}
