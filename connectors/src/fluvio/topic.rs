//! A topic that is told: records by key, each in the partition of its site.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ::fluvio::{
    DeliverySemantic, Fluvio, Partitioner, PartitionerConfig, RetryPolicy, TopicProducerConfig,
    TopicProducerConfigBuilder, TopicProducerPool,
};
use bytes::Bytes;
use tokio::sync::Mutex;

use super::cluster::{Cluster, FluvioError, RECORD_BYTES_MAX, TopicOptions};
use crate::partition::partition_of;

/// The largest value of a record that can be told, bytes.
pub const VALUE_BYTES_MAX: usize = RECORD_BYTES_MAX;

/// What stands before the first `/` of a key is the site, and decides the partition. The client's own hash differs from
/// one platform to the other.
struct SitePartitioner;

impl Partitioner for SitePartitioner {
    fn partition(&self, config: &PartitionerConfig, key: Option<&[u8]>, _: &[u8]) -> u32 {
        let site = key
            .and_then(|key| key.split(|byte| *byte == b'/').next())
            .unwrap_or(b"");
        let partitions = NonZeroU32::new(config.partition_count).unwrap_or(NonZeroU32::MIN);
        partition_of(&String::from_utf8_lossy(site), partitions)
    }
}

/// Writes to a topic. Connects when it has something to write, and anew after any failure.
pub struct TopicWriter {
    cluster: Arc<Cluster>,
    topic: TopicOptions,
    open: Mutex<Option<Open>>,
}

/// A connection with its producer.
#[derive(Clone)]
struct Open {
    _client: Arc<Fluvio>,
    producer: TopicProducerPool,
    number: u64,
}

impl TopicWriter {
    /// A writer to this topic. Connects to nothing yet.
    pub fn new(cluster: Arc<Cluster>, topic: TopicOptions) -> Self {
        Self {
            cluster,
            topic,
            open: Mutex::new(None),
        }
    }

    /// Where it writes to.
    pub fn address(&self) -> String {
        format!("fluvio://{}/{}", self.cluster.options().endpoint, self.topic.name)
    }

    /// Writes a record, and waits until the cluster has it. The key is a site, or begins with one and `/`.
    ///
    /// # Errors
    /// [`FluvioError`]; whether the cluster has it is not known then, and sending it again is right.
    pub async fn send(self: &Arc<Self>, key: String, value: Bytes) -> Result<(), FluvioError> {
        let own = Arc::clone(self);
        let sending = async move {
            let open = own.open().await?;
            let sent = async {
                let output = open.producer.send(key, value.to_vec()).await;
                let output = output.map_err(|error| format!("{error:#}"))?;
                output.wait().await.map_err(|error| error.to_string())
            };
            let sent = own.cluster.answer("take a record", sent).await;
            if sent.is_err() {
                own.leave(open.number).await;
            }
            sent.map(drop)
        };
        match self.cluster.handle().spawn(sending).await {
            Ok(sent) => sent,
            Err(error) => Err(self.cluster.unreachable(error)),
        }
    }

    async fn open(&self) -> Result<Open, FluvioError> {
        let mut slot = self.open.lock().await;
        if let Some(open) = slot.as_ref() {
            return Ok(open.clone());
        }
        self.cluster.ensure(&self.topic).await?;
        let client = self.cluster.connect().await?;
        let config: Result<TopicProducerConfig, _> = TopicProducerConfigBuilder::default()
            .partitioner(Arc::new(SitePartitioner))
            .max_request_size(2 * RECORD_BYTES_MAX)
            .linger(Duration::ZERO)
            .timeout(self.cluster.options().request_timeout)
            .isolation(self.topic.isolation())
            .delivery_semantic(DeliverySemantic::AtLeastOnce(RetryPolicy {
                max_retries: 0,
                timeout: self.cluster.options().request_timeout,
                ..RetryPolicy::default()
            }))
            .build();
        let config = config.map_err(|error| self.cluster.unreachable(error))?;
        let making = client.topic_producer_with_config(self.topic.name.clone(), config);
        let producer = self.cluster.answer("let us write", making).await?;
        let open = Open {
            _client: Arc::new(client),
            producer,
            number: fastrand::u64(..),
        };
        *slot = Some(open.clone());
        Ok(open)
    }

    /// A producer that failed once fails for ever.
    async fn leave(&self, number: u64) {
        let mut slot = self.open.lock().await;
        slot.take_if(|open| open.number == number);
    }
}
