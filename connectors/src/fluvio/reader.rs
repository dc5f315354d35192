//! A reader follows one partition of a topic, offset by offset, and notices when one is missing.

use std::pin::Pin;
use std::sync::Arc;

use ::fluvio::consumer::{ConsumerConfigExt, RetryMode};
use ::fluvio::{Fluvio, Offset};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use super::cluster::{Cluster, FETCH_BYTES, FluvioError, TopicOptions};

/// What lies in a partition: its place there, and what it is.
pub(super) type Physical = (i64, Bytes);

type Records = Pin<Box<dyn Stream<Item = Result<Physical, String>> + Send>>;

/// One stream for one partition: that of several loses records when it connects again.
pub(super) struct Reader {
    records: Records,
    /// The place of the next record; the first one decides where a partition is read from its beginning.
    next: Option<i64>,
    /// Why it is over, where that came behind records.
    over: Option<String>,
}

/// Where a partition is, and how it is read.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) cluster: Arc<Cluster>,
    pub(super) topic: TopicOptions,
    pub(super) partition: u32,
}

impl Place {
    async fn stream(&self, client: &Fluvio, start: Offset, to_end: bool) -> Result<Records, FluvioError> {
        let config = ConsumerConfigExt::builder()
            .topic(self.topic.name.clone())
            .partition(self.partition)
            .offset_start(start)
            .max_bytes(FETCH_BYTES)
            .isolation(self.topic.isolation())
            // It would connect without our sockets, and go on as if nothing were missing.
            .retry_mode(RetryMode::Disabled)
            .disable_continuous(to_end)
            .build()
            .map_err(|error| self.cluster.unreachable(error))?;
        let opening = client.consumer_with_config(config);
        let records = self.cluster.answer("open a partition", opening).await?;
        let records = records.map(|record| match record {
            Ok(record) => Ok((
                record.offset(),
                Bytes::from(record.into_inner().into_value().into_vec()),
            )),
            Err(code) => Err(format!("{code}")),
        });
        Ok(Box::pin(records))
    }

    /// Reads on from a place.
    pub(super) async fn read_from(&self, client: &Fluvio, place: i64) -> Result<Reader, FluvioError> {
        let start = Offset::absolute(place).map_err(|error| self.cluster.unreachable(error))?;
        Ok(Reader {
            records: self.stream(client, start, false).await?,
            next: Some(place),
            over: None,
        })
    }

    /// The place behind the last record, as the cluster says: 0 in an empty partition, and wherever it can't say.
    pub(super) async fn end(&self, client: &Fluvio) -> Result<i64, FluvioError> {
        let mut last = self.stream(client, Offset::from_end(1), true).await?;
        let mut end = 0;
        while let Some((place, _)) = self.next_of(&mut last).await? {
            end = place + 1;
        }
        Ok(end)
    }

    /// The place of the first record that is kept; none in an empty partition.
    pub(super) async fn begin(&self, client: &Fluvio) -> Result<Option<i64>, FluvioError> {
        let mut all = self.stream(client, Offset::beginning(), true).await?;
        Ok(self.next_of(&mut all).await?.map(|(place, _)| place))
    }

    async fn next_of(&self, records: &mut Records) -> Result<Option<Physical>, FluvioError> {
        let next = async { records.next().await.transpose() };
        self.cluster.answer("give a record", next).await
    }
}

impl Reader {
    /// The next record, and those that are there behind it, up to `max`. Waits without an end.
    ///
    /// # Errors
    /// In words, when the stream is over or a record is missing; it has to be opened anew.
    pub(super) async fn next(&mut self, max: usize) -> Result<Vec<Physical>, String> {
        const ENDED: &str = "the stream of records ended";
        if let Some(reason) = self.over.take() {
            return Err(reason);
        }
        let mut taken = Vec::new();
        let first = self.records.next().await.ok_or(ENDED)??;
        self.check(&first)?;
        taken.push(first);
        while taken.len() < max {
            let next = match futures_util::FutureExt::now_or_never(self.records.next()) {
                None => break,
                Some(next) => next.unwrap_or_else(|| Err(ENDED.to_owned())),
            };
            match next.and_then(|record| self.check(&record).map(|()| record)) {
                Ok(record) => taken.push(record),
                Err(reason) => {
                    self.over = Some(reason);
                    break;
                }
            }
        }
        Ok(taken)
    }

    fn check(&mut self, (place, _): &Physical) -> Result<(), String> {
        match self.next {
            Some(next) if next != *place => Err(format!(
                "the cluster gave record {place} where {next} comes: some were left out"
            )),
            _ => {
                self.next = Some(place + 1);
                Ok(())
            }
        }
    }
}
