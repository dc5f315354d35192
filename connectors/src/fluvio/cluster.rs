//! A cluster is where Fluvio is, how to reach it, and which topics it should have.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::fluvio::metadata::topic::{CleanupPolicy, SegmentBasedPolicy, TopicSpec, TopicStorageConfig};
use ::fluvio::{Fluvio, FluvioClusterConfig, Isolation};
use tokio::runtime::{Handle, Runtime};
use tracing::{debug, info};

use super::socket::Sockets;
use crate::back_off::BackOff;

/// A segment is never larger than half of what a reader takes at once: with the usual ones, catching up lost a fifth of
/// all records in silence.
pub(super) const SEGMENT_BYTES: u32 = 8 << 20;
/// Bytes that a reader takes at once.
pub(super) const FETCH_BYTES: i32 = 16 << 20;
/// The largest record that fits well into a segment.
pub(super) const RECORD_BYTES_MAX: usize = 4 << 20;

/// How long the SC may take for a question, and how often it is asked.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(3);
const ADMIN_TRIES: u32 = 5;
/// How long is waited between two of them, at first and at most: an SC that is restarted refuses connections for a moment.
const ADMIN_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(800));

/// How to reach a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FluvioOptions {
    /// Host and port of its SC, as in `127.0.0.1:9003`.
    pub endpoint: String,
    /// Encrypted, and with whose certificates; none is in the clear.
    pub tls: Option<TlsOptions>,
    /// For one connection to be made.
    pub connect_timeout: Duration,
    /// For one request to be answered. The client itself can wait for minutes.
    pub request_timeout: Duration,
}

/// Whom to trust, and who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// The name in the certificate of the SC; an SPU's has that of the SPU and a dot before it.
    pub domain: String,
    /// Certificates of who signed theirs, PEM.
    pub ca_cert: PathBuf,
    /// Our certificate and its key, PEM: the cluster knows and authorises us by them.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOptions {
    /// Its name.
    pub name: String,
    /// Its partitions; their number never changes.
    pub partitions: u32,
    /// On how many SPUs each is.
    pub replication: u32,
    /// How long Fluvio keeps records; none is its own default, a week.
    pub retention_age: Option<Duration>,
    /// Bytes of a partition that Fluvio keeps; none is its own default.
    pub retention_bytes: Option<u64>,
}

/// What is wrong with a cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FluvioError {
    /// It does not answer, or not what it should. Trying again later is right.
    #[error("the Fluvio cluster at {endpoint} {reason}")]
    Unreachable {
        /// Its SC.
        endpoint: String,
        /// What happened.
        reason: String,
    },
    /// A topic is there and is not what is needed. Somebody has to change it, or the settings.
    #[error("the topic {topic} {reason}")]
    Topic {
        /// Its name.
        topic: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The certificates can't be used.
    #[error("TLS to the Fluvio cluster: {0}")]
    Tls(String),
    /// The process has no thread for it.
    #[error("no thread for the Fluvio client: {0}")]
    Thread(String),
}

impl FluvioOptions {
    /// A cluster at this address, in the clear, with the usual patience.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            tls: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
        }
    }
}

/// A way to a cluster, with a thread of its own. Nothing is connected until it is needed.
pub struct Cluster {
    options: FluvioOptions,
    sockets: Sockets,
    handle: Handle,
    runtime: Mutex<Option<Runtime>>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Cluster({})", self.options.endpoint)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Not waited for: it may be dropped where nothing may wait, and what it did is done or given up.
        if let Some(runtime) = self.runtime.lock().ok().and_then(|mut runtime| runtime.take()) {
            runtime.shutdown_background();
        }
    }
}

impl Cluster {
    /// A way to this cluster. Reads the certificates and connects to nothing.
    ///
    /// # Errors
    /// [`FluvioError::Tls`], [`FluvioError::Thread`].
    pub fn new(options: FluvioOptions) -> Result<Arc<Self>, FluvioError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("fluvio")
            .enable_all()
            .build()
            .map_err(|error| FluvioError::Thread(error.to_string()))?;
        let handle = runtime.handle().clone();
        let sockets = Sockets::new(handle.clone(), options.tls.as_ref()).map_err(FluvioError::Tls)?;
        Ok(Arc::new(Self {
            options,
            sockets,
            handle,
            runtime: Mutex::new(Some(runtime)),
        }))
    }

    /// How it is reached.
    pub fn options(&self) -> &FluvioOptions {
        &self.options
    }

    /// Where its work is done.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(super) fn unreachable(&self, reason: impl fmt::Display) -> FluvioError {
        FluvioError::Unreachable {
            endpoint: self.options.endpoint.clone(),
            reason: reason.to_string(),
        }
    }

    /// A client of its own for whoever asks: one that has failed is not mended but left, and the next one made.
    pub(super) async fn connect(&self) -> Result<Fluvio, FluvioError> {
        let config = FluvioClusterConfig::new(&self.options.endpoint);
        let connecting = Fluvio::connect_with_connector(Box::new(self.sockets.clone()), &config);
        match tokio::time::timeout(self.options.connect_timeout, connecting).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(self.unreachable(format!("can't be reached: {error:#}"))),
            Err(_) => Err(self.unreachable(format!(
                "did not answer within {} s",
                self.options.connect_timeout.as_secs_f32()
            ))),
        }
    }

    /// Waits for an answer no longer than is allowed for one.
    pub(super) async fn answer<T, E: fmt::Display>(
        &self,
        what: &str,
        asking: impl Future<Output = Result<T, E>>,
    ) -> Result<T, FluvioError> {
        match tokio::time::timeout(self.options.request_timeout, asking).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.unreachable(format!("did not {what}: {error:#}"))),
            Err(_) => Err(self.unreachable(format!(
                "did not {what} within {} s",
                self.options.request_timeout.as_secs_f32()
            ))),
        }
    }

    /// Makes a topic where there is none of the name, and says what is wrong with one that is there.
    ///
    /// # Errors
    /// [`FluvioError::Unreachable`]; [`FluvioError::Topic`] when it has another number of partitions, or segments that a
    /// reader can't follow.
    pub async fn ensure_topic(self: &Arc<Self>, topic: &TopicOptions) -> Result<(), FluvioError> {
        let (own, topic) = (Arc::clone(self), topic.clone());
        // In our own runtime, whatever the caller runs in.
        match self.handle.spawn(async move { own.ensure(&topic).await }).await {
            Ok(ensured) => ensured,
            Err(error) => Err(self.unreachable(error)),
        }
    }

    /// The SC now and then leaves a question without an answer, and answers it at once on another connection.
    pub(super) async fn ensure(&self, topic: &TopicOptions) -> Result<(), FluvioError> {
        let mut tries = 0;
        let mut back_off = BackOff::new(ADMIN_PAUSE.0, ADMIN_PAUSE.1);
        loop {
            tries += 1;
            match tokio::time::timeout(ADMIN_TIMEOUT, self.try_ensure(topic)).await {
                Ok(Err(FluvioError::Unreachable { .. })) if tries < ADMIN_TRIES => {
                    tokio::time::sleep(back_off.wait()).await;
                }
                Ok(ensured) => return ensured,
                Err(_) if tries < ADMIN_TRIES => debug!(tries, "the SC did not answer; asked again"),
                Err(_) => return Err(self.unreachable("did not say which topics it has")),
            }
        }
    }

    async fn try_ensure(&self, topic: &TopicOptions) -> Result<(), FluvioError> {
        let client = self.connect().await?;
        let admin = client.admin().await;
        let listed = admin.list::<TopicSpec, String>(vec![topic.name.clone()]);
        let listed = self.answer("list its topics", listed).await?;
        if let Some(found) = listed.into_iter().find(|found| found.name == topic.name) {
            return topic.check(&found.spec);
        }
        // Another process may make it at the same moment; then it is there at the next try.
        let created = admin.create(topic.name.clone(), false, topic.spec());
        self.answer("make a topic", created).await?;
        info!(
            topic = topic.name,
            partitions = topic.partitions,
            "made a topic in Fluvio"
        );
        Ok(())
    }

    /// Removes a topic with all its records; tests clean up with it.
    ///
    /// # Errors
    /// [`FluvioError::Unreachable`].
    pub async fn remove_topic(self: &Arc<Self>, name: &str) -> Result<(), FluvioError> {
        let (own, name) = (Arc::clone(self), name.to_owned());
        let removing = async move {
            let client = own.connect().await?;
            let admin = client.admin().await;
            own.answer("remove a topic", admin.delete::<TopicSpec>(name)).await
        };
        match self.handle.spawn(removing).await {
            Ok(removed) => removed,
            Err(error) => Err(self.unreachable(error)),
        }
    }
}

impl TopicOptions {
    /// A topic on one SPU, kept for as long as Fluvio usually keeps records.
    pub fn new(name: impl Into<String>, partitions: u32) -> Self {
        Self {
            name: name.into(),
            partitions,
            replication: 1,
            retention_age: None,
            retention_bytes: None,
        }
    }

    fn spec(&self) -> TopicSpec {
        let mut spec = TopicSpec::new_computed(self.partitions, self.replication, None);
        spec.set_storage(TopicStorageConfig {
            segment_size: Some(SEGMENT_BYTES),
            max_partition_size: self.retention_bytes,
        });
        if let Some(age) = self.retention_age {
            spec.set_cleanup_policy(CleanupPolicy::Segment(SegmentBasedPolicy {
                time_in_seconds: u32::try_from(age.as_secs()).unwrap_or(u32::MAX),
            }));
        }
        spec
    }

    fn check(&self, found: &TopicSpec) -> Result<(), FluvioError> {
        let refuse = |reason: String| {
            Err(FluvioError::Topic {
                topic: self.name.clone(),
                reason,
            })
        };
        if found.partitions() != self.partitions {
            return refuse(format!(
                "has {} partitions and not {}; the number can't change, for it decides where each site's records are: set it to {}, or choose another topic",
                found.partitions(),
                self.partitions,
                found.partitions()
            ));
        }
        let segment = found.get_storage().and_then(|storage| storage.segment_size);
        if segment.is_none_or(|bytes| bytes > SEGMENT_BYTES) {
            return refuse(format!(
                "has segments of {}, from which a reader that catches up loses records; let Usher make it, or make it with segments of at most {SEGMENT_BYTES} bytes",
                segment.map_or_else(|| "the usual size".to_owned(), |bytes| format!("{bytes} bytes"))
            ));
        }
        Ok(())
    }

    /// What a reader may see and a writer waits for: where there are several copies, only what all of them have.
    pub(super) fn isolation(&self) -> Isolation {
        match self.replication {
            0 | 1 => Isolation::ReadUncommitted,
            _ => Isolation::ReadCommitted,
        }
    }
}
