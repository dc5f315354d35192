//! The embedded broker lets devices speak MQTT to Usher without a broker being set up first.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mqtt5::broker::config::{AuthConfig, StorageBackend, StorageConfig};
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::{BrokerConfig, BrokerShutdownHandle, MqttBroker};
use mqtt5::packet::publish::PublishPacket;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::BoxFuture;
use crate::client::packet_limit;
use crate::delivery::Delivery;
use crate::device_access::DeviceAccess;
use crate::message::QoS;
use crate::publish_gate::PublishGate;
use crate::publisher::{Publication, PublishError, Publisher, check_topic};
use crate::source::{Health, REFRESH, Source, SourceError};

/// How long one of our own publications waits for slow subscribers; beyond it theirs is queued behind them.
const SLOW_SUBSCRIBER: Duration = Duration::from_millis(20);

/// The target of the line that tells whose connection ended without a goodbye, in the field `client`. The broker tells why in the
/// line behind it, of the same task, and not whose it was.
pub const LEFT: &str = "usher_connectors::left";

/// How the embedded broker listens and what it bounds.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// Where to listen. Port 0 takes any free one; see [`EmbeddedBroker::local_addr`].
    pub listen: SocketAddr,
    /// The largest payload taken, bytes.
    pub max_packet_bytes: usize,
    /// Connections at a time.
    pub max_clients: usize,
    /// Messages waiting for one subscriber on its connection, for QoS 0 and the others each. Beyond it QoS 0 is
    /// dropped for that subscriber, uncounted; the others move to its session's queue.
    pub client_queue: usize,
    /// Messages of QoS 1 and 2 queued for a subscriber that is away or behind; beyond it the oldest is dropped.
    pub session_queue: usize,
    /// Bytes of the same.
    pub session_queue_bytes: usize,
    /// Bytes of messages, topics among them, that may have come in and not be acknowledged yet. Beyond it publishers of QoS 1
    /// and 2 wait, and QoS 0 is shed. At most 4 GiB less one.
    pub intake_bytes: usize,
    /// How long a session outlives its connection at most.
    pub session_expiry: Duration,
    /// Topics whose messages are retained, at most.
    pub retained_max: usize,
    /// Messages under this prefix come in.
    pub input_prefix: String,
    /// Nobody but Usher publishes under this prefix.
    pub output_prefix: String,
    /// Lines `name:argon2-hash`; with it, only those named get in.
    pub password_file: Option<PathBuf>,
    /// Whether everybody may connect. `None` means: only where it listens on loopback and no password file is named.
    pub allow_anonymous: Option<bool>,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 1883)),
            max_packet_bytes: 16 << 20,
            max_clients: 10_000,
            // A second of a busy site for each subscriber; a slower one is served from its session's queue.
            client_queue: 2_000,
            session_queue: 10_000,
            session_queue_bytes: 16 << 20,
            intake_bytes: 64 << 20,
            session_expiry: Duration::from_secs(24 * 3600),
            retained_max: 100_000,
            input_prefix: "usher/in/".to_owned(),
            output_prefix: "usher/out/".to_owned(),
            password_file: None,
            allow_anonymous: None,
        }
    }
}

/// Why the embedded broker does not run.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// It cannot listen there.
    #[error(
        "cannot listen for MQTT on {address}: {reason}; stop what listens there, or choose another address (port 0 takes a free one)"
    )]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        reason: String,
    },
    /// What was configured would not be safe or cannot work.
    #[error("{0}")]
    Misconfigured(String),
    /// It stopped by itself.
    #[error("the embedded broker stopped: {0}")]
    Stopped(String),
}

/// A running broker. Dropping it without [`EmbeddedBroker::shutdown`] stops it too, but waits for nothing.
pub struct EmbeddedBroker {
    local_addr: SocketAddr,
    ready: watch::Receiver<bool>,
    stop: BrokerShutdownHandle,
    gate: Arc<PublishGate>,
    running: Option<JoinHandle<Result<(), mqtt5::MqttError>>>,
}

impl EmbeddedBroker {
    /// Listens and runs, and gives the two ends: what comes in, and how to publish. Until the source runs,
    /// publishers of QoS 1 wait for their acknowledgement.
    ///
    /// # Errors
    /// [`BrokerError`] says what would be right.
    pub async fn bind(options: BrokerOptions) -> Result<(Self, EmbeddedSource, LocalPublisher), BrokerError> {
        crate::install_crypto_provider();
        let anonymous = anonymous_allowed(&options)?;
        if let Some(path) = &options.password_file {
            check_password_file(path)?;
        }
        // Asked first, because the broker only says that nothing could be bound.
        if let Err(error) = std::net::TcpListener::bind(options.listen) {
            return Err(BrokerError::Listen {
                address: options.listen,
                reason: error.to_string(),
            });
        }
        let gate = Arc::new(PublishGate::new(options.input_prefix.clone(), options.intake_bytes));
        let config = config(&options, anonymous, &gate);
        let broker = MqttBroker::with_config(config)
            .await
            .map_err(|error| BrokerError::Listen {
                address: options.listen,
                reason: error.to_string(),
            })?;
        let access = DeviceAccess::new(broker.auth_provider(), options.output_prefix.clone());
        let mut broker = broker.with_auth_provider(Arc::new(access));
        let local_addr = broker
            .local_addr()
            .ok_or_else(|| BrokerError::Stopped("it does not say where it listens".to_owned()))?;
        let router = broker.router();
        gate.attach(&router);
        let (ready, stop) = (broker.ready_receiver(), broker.shutdown_handle());
        let running = tokio::spawn(async move { broker.run().await });
        info!(%local_addr, "embedded broker listens");
        let source = EmbeddedSource {
            gate: Arc::clone(&gate),
            local_addr,
        };
        let publisher = LocalPublisher {
            router,
            turn: Mutex::new(()),
            max_packet_bytes: options.max_packet_bytes,
        };
        Ok((
            Self {
                local_addr,
                ready,
                stop,
                gate,
                running: Some(running),
            },
            source,
            publisher,
        ))
    }

    /// Where it listens; with the real port when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Resolves when connections are accepted.
    ///
    /// # Errors
    /// [`BrokerError::Stopped`] when it stopped before.
    pub async fn ready(&mut self) -> Result<(), BrokerError> {
        match self.ready.wait_for(|ready| *ready).await {
            Ok(_) => Ok(()),
            Err(_) => Err(BrokerError::Stopped("before it was ready".to_owned())),
        }
    }

    /// Messages of QoS 0 dropped because the receiver was slow or not there.
    pub fn shed(&self) -> u64 {
        self.gate.health.shed()
    }

    /// Stops listening, ends all connections, and waits until they are over (at most some seconds). Messages
    /// not taken yet are not acknowledged.
    ///
    /// # Errors
    /// [`BrokerError::Stopped`] when it had already failed by itself.
    pub async fn shutdown(mut self) -> Result<(), BrokerError> {
        self.gate.closing.cancel();
        self.stop.shutdown();
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        match running.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(BrokerError::Stopped(error.to_string())),
            Err(error) => Err(BrokerError::Stopped(error.to_string())),
        }
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        self.gate.closing.cancel();
        self.stop.shutdown();
    }
}

/// What devices publish to the embedded broker.
pub struct EmbeddedSource {
    gate: Arc<PublishGate>,
    local_addr: SocketAddr,
}

impl EmbeddedSource {
    async fn receive(&self, out: mpsc::Sender<Delivery>, stop: CancellationToken) -> Result<(), SourceError> {
        let name = format!("the embedded broker on {}", self.local_addr);
        self.gate.open(out.clone());
        self.gate.health.show(true, format!("receiving from {name}"), 0);
        let mut refresh = tokio::time::interval(REFRESH);
        let ended = loop {
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                () = self.gate.closing.cancelled() => break Ok(()),
                () = out.closed() => break Err(SourceError::ReceiverGone(name.clone())),
                _ = refresh.tick() => self.gate.health.refresh(),
            }
        };
        self.gate.shut();
        self.gate.health.show(false, format!("not receiving from {name}"), 0);
        ended
    }
}

impl Source for EmbeddedSource {
    fn run(
        self: Arc<Self>,
        out: mpsc::Sender<Delivery>,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<(), SourceError>> {
        Box::pin(async move { self.receive(out, stop).await })
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.gate.health.watch()
    }
}

/// Publishes inside the process, without a socket: the message is with each subscriber's connection, and
/// retained, when `publish` resolves.
pub struct LocalPublisher {
    router: Arc<MessageRouter>,
    /// One publication at a time, in the order of the calls. Waiting callers are the queue, each with one message.
    turn: Mutex<()>,
    max_packet_bytes: usize,
}

impl Publisher for LocalPublisher {
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(async move {
            check_topic(&publication.topic)?;
            let bytes = publication.payload.len();
            if bytes > self.max_packet_bytes {
                return Err(PublishError::TooLarge {
                    bytes,
                    max: self.max_packet_bytes,
                });
            }
            let qos = match publication.qos {
                QoS::AtMostOnce => mqtt5::QoS::AtMostOnce,
                QoS::AtLeastOnce => mqtt5::QoS::AtLeastOnce,
                QoS::ExactlyOnce => mqtt5::QoS::ExactlyOnce,
            };
            let packet =
                PublishPacket::new(&*publication.topic, publication.payload, qos).with_retain(publication.retain);
            // Not to be interrupted before it stands in the queue: the runtime wakes those in another order.
            let _turn = unconstrained(self.turn.lock()).await;
            self.router
                .route_message_with_deadline(&packet, None, Instant::now() + SLOW_SUBSCRIBER)
                .await;
            Ok(())
        })
    }
}

/// Every default that would be unsafe here is set: it would listen everywhere, let everybody in, take packets of
/// 256 MiB, keep sessions for ever and write into the working directory.
fn config(options: &BrokerOptions, anonymous: bool, gate: &Arc<PublishGate>) -> BrokerConfig {
    let mut auth = AuthConfig::new().with_allow_anonymous(anonymous);
    if let Some(path) = &options.password_file {
        auth = auth.with_password_file(path.clone());
    }
    let storage = StorageConfig::new()
        .with_backend(StorageBackend::Memory)
        .with_cleanup_interval(Duration::from_secs(60))
        .with_max_queued_messages_per_client(options.session_queue)
        .with_max_queued_bytes_per_client(options.session_queue_bytes);
    let max_packet = packet_limit(options.max_packet_bytes) as usize;
    BrokerConfig::new()
        .with_bind_address(options.listen)
        .with_max_clients(options.max_clients.max(1))
        .with_session_expiry(options.session_expiry)
        .with_max_packet_size(max_packet)
        .with_max_retained_messages(options.retained_max)
        .with_max_retained_message_size(max_packet)
        .with_client_channel_capacity(options.client_queue.max(1))
        .with_max_subscriptions_per_client(1_000)
        .with_sys_topics_enabled(false)
        .with_storage(storage)
        .with_auth(auth)
        .with_event_handler(Arc::clone(gate) as Arc<_>)
}

fn anonymous_allowed(options: &BrokerOptions) -> Result<bool, BrokerError> {
    let loopback = options.listen.ip().is_loopback();
    let anonymous = options
        .allow_anonymous
        .unwrap_or(loopback && options.password_file.is_none());
    if !anonymous && options.password_file.is_none() {
        return Err(BrokerError::Misconfigured(format!(
            "MQTT on {} would be open to the network without passwords: name a password file, or allow anonymous access in so many words",
            options.listen
        )));
    }
    if anonymous && !loopback {
        warn!(listen = %options.listen, "anybody who reaches this address may publish and subscribe");
    }
    Ok(anonymous)
}

/// The broker skips a line it cannot read with a warning; a person locked out that way deserves an error.
fn check_password_file(path: &Path) -> Result<(), BrokerError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        BrokerError::Misconfigured(format!("cannot read the passwords in {}: {error}", path.display()))
    })?;
    let mut users = 0;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once(':') {
            Some((name, hash)) if !name.is_empty() && hash.starts_with("$argon2") => users += 1,
            _ => {
                return Err(BrokerError::Misconfigured(format!(
                    "{}:{}: this is no name with a password hash; write name:$argon2id$…",
                    path.display(),
                    at + 1
                )));
            }
        }
    }
    if users == 0 {
        return Err(BrokerError::Misconfigured(format!(
            "{} names nobody, so nobody could connect",
            path.display()
        )));
    }
    Ok(())
}
