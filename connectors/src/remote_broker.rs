//! The remote broker is a broker of one's own, over the network: messages in with manual acknowledgement, facts out.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{AckMode, ManualAck, MqttOptions, Publish, RetainForwardRule, SubscribeFilterInput};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::BoxFuture;
use crate::back_off::BackOff;
use crate::broker_url::BrokerUrl;
use crate::client::{ClientOptions, ConnectError, MqttClient, packet_limit};
use crate::crash_point::CrashPoint;
use crate::delivery::{Ack, Delivery};
use crate::entrance::{Entrance, Passage};
use crate::link::{Link, LinkEvent};
use crate::message::{Message, QoS};
use crate::publisher::{Publication, PublishError, Publisher};
use crate::room::Room;
use crate::session_file::SessionFile;
use crate::source::{Health, HealthBoard, REFRESH, Source, SourceError};

/// After `stop`, how long acknowledgements of what was handed over may still go out.
const DRAIN: Duration = Duration::from_secs(2);
/// A connection that held this long was a good one; the next failure is met with a short wait again. A shorter one
/// is not: with a full disk every message is refused, and connecting again at once would help nobody.
const STEADY: Duration = Duration::from_secs(10);
/// How long one publication is tried before its caller hears that it is unconfirmed.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(30);
/// Packets read from a connection at once, before any of them gets room.
const READ_PACKETS: usize = 8;

/// How to use a broker of one's own.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// `mqtt://` or `mqtts://`, with user and password.
    pub url: String,
    /// The MQTT client id of the receiving connection; the publishing one adds `-out`. Unique at the broker,
    /// and the same after a restart, or the session is not found again.
    pub client_id: String,
    /// Receives together with others of this group, each message going to one of them. The broker sends no
    /// retained messages to a shared subscription.
    pub share_group: Option<String>,
    /// What to receive.
    pub topic_filter: String,
    /// Filters of topics of which the publisher tells what the broker retains: see [`Publisher::next_retained`].
    pub retained: Vec<String>,
    /// Where the session is kept, so that a restart continues it.
    pub session_file: PathBuf,
    /// The largest payload taken or sent, bytes.
    pub max_packet_bytes: usize,
    /// Messages the broker may send ahead of our acknowledgements. It bounds what a slow disk leaves in memory.
    pub receive_maximum: u16,
    /// Bytes of messages, topics among them, that may have come in and not be acknowledged yet. Beyond it nothing more is read
    /// from the broker, and QoS 0 is shed. At most 4 GiB less one.
    pub intake_bytes: usize,
    /// Publications that may be unconfirmed at a time.
    pub publish_window: usize,
    /// Silence after which the broker is asked whether it is there.
    pub keep_alive: Duration,
    /// How long the broker keeps our session, and queues for it, while we are away.
    pub session_expiry: Duration,
    /// Certificates to trust instead of the system's, PEM.
    pub ca_file: Option<PathBuf>,
}

impl RemoteOptions {
    /// The defaults for a broker, with the session kept in `session_file`.
    pub fn new(url: impl Into<String>, session_file: impl Into<PathBuf>) -> Self {
        Self {
            url: url.into(),
            client_id: "usher".to_owned(),
            share_group: None,
            topic_filter: "usher/in/#".to_owned(),
            retained: Vec::new(),
            session_file: session_file.into(),
            max_packet_bytes: 16 << 20,
            receive_maximum: 1024,
            intake_bytes: 64 << 20,
            publish_window: 64,
            keep_alive: Duration::from_secs(30),
            session_expiry: Duration::from_secs(7 * 24 * 3600),
            ca_file: None,
        }
    }
}

/// Makes both ends of a remote broker.
#[derive(Debug)]
pub struct RemoteBroker;

impl RemoteBroker {
    /// The source and the publisher of one broker, each with a connection of its own. Both go on trying when the
    /// broker is not there yet. Must be called inside the async runtime.
    ///
    /// # Errors
    /// [`SourceError::Misconfigured`] in words, for what trying cannot mend.
    #[expect(clippy::new_ret_no_self, reason = "a broker has two ends and no middle")]
    pub fn new(options: RemoteOptions) -> Result<(RemoteSource, RemotePublisher), SourceError> {
        let publishing = ClientOptions {
            window: options.publish_window,
            max_packet_bytes: options.max_packet_bytes,
            keep_alive: options.keep_alive,
            ca_file: options.ca_file.clone(),
            retained: options.retained.clone(),
            ..ClientOptions::new(options.url.clone(), format!("{}-out", options.client_id))
        };
        let source = RemoteSource::new(options)?;
        let client = MqttClient::open(publishing).map_err(misconfigured)?;
        Ok((source, RemotePublisher { client }))
    }
}

/// Receives from a broker of one's own.
pub struct RemoteSource {
    mqtt: MqttOptions,
    url: BrokerUrl,
    filter: String,
    receive_maximum: usize,
    room: Arc<Room>,
    health: Arc<HealthBoard>,
}

/// Publishes to a broker of one's own.
pub struct RemotePublisher {
    client: MqttClient,
}

impl Publisher for RemotePublisher {
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(async move {
            let Publication {
                topic,
                payload,
                qos,
                retain,
            } = publication;
            let sent = async {
                self.client
                    .publish(Arc::clone(&topic), payload, qos, retain)
                    .await?
                    .await
            };
            tokio::time::timeout(PUBLISH_PATIENCE, sent).await.unwrap_or_else(|_| {
                let reason = format!(
                    "the broker has not confirmed it within {} s",
                    PUBLISH_PATIENCE.as_secs()
                );
                Err(PublishError::Unconfirmed {
                    topic: topic.to_string(),
                    reason,
                })
            })
        })
    }

    fn next_retained(&self) -> BoxFuture<'_, Arc<str>> {
        Box::pin(self.client.next_retained())
    }
}

impl RemoteSource {
    fn new(options: RemoteOptions) -> Result<Self, SourceError> {
        let url: BrokerUrl = options
            .url
            .parse()
            .map_err(|error| misconfigured(ConnectError::BadUrl(error)))?;
        let mut mqtt = url
            .options(&options.client_id, options.ca_file.as_deref())
            .map_err(SourceError::Misconfigured)?;
        mqtt.set_clean_start(false);
        mqtt.set_ack_mode(AckMode::Manual);
        mqtt.set_keep_alive(u16::try_from(options.keep_alive.as_secs().max(1)).unwrap_or(u16::MAX));
        mqtt.set_session_expiry_interval(Some(
            u32::try_from(options.session_expiry.as_secs()).unwrap_or(u32::MAX),
        ));
        mqtt.set_receive_maximum(Some(options.receive_maximum.max(1)));
        // It publishes nothing, and the client looks through the whole of this window at each acknowledgement.
        mqtt.set_outgoing_inflight_upper_limit(1);
        mqtt.set_max_packet_size(Some(packet_limit(options.max_packet_bytes)));
        mqtt.set_read_batch_size(READ_PACKETS);
        let session = SessionFile::new(options.session_file, &mqtt);
        mqtt.set_session_store(session);
        let filter = match options.share_group {
            Some(group) if group.is_empty() || group.contains(['/', '#', '+']) => {
                let reason = format!("{group:?} is no share group; use a name without '/', '#' and '+'");
                return Err(SourceError::Misconfigured(reason));
            }
            Some(group) => format!("$share/{group}/{}", options.topic_filter),
            None => options.topic_filter,
        };
        let health = Arc::new(HealthBoard::new(&format!("not connected to {url} yet")));
        Ok(Self {
            mqtt,
            url,
            filter,
            receive_maximum: usize::from(options.receive_maximum.max(1)),
            room: Arc::new(Room::of(options.intake_bytes)),
            health,
        })
    }

    async fn receive(&self, out: mpsc::Sender<Delivery>, stop: CancellationToken) -> Result<(), SourceError> {
        let mut back_off = BackOff::default();
        let mut connections: u64 = 0;
        let dropped_before = self.health.shed_not_receiving();
        let mut backlog = VecDeque::new();
        loop {
            let entrance = Entrance {
                room: Arc::clone(&self.room),
                health: Arc::clone(&self.health),
            };
            let mut connection = Connection {
                link: Link::open(self.mqtt.clone(), self.receive_maximum + 64, Some(entrance)),
                backlog,
                unacknowledged: VecDeque::new(),
            };
            let opened = Instant::now();
            let over = self.serve(&mut connection, &out, &stop, &mut connections).await;
            let reason = match over {
                Over::Stopped => {
                    connection.link.disconnect().await;
                    self.health.show(
                        false,
                        format!("stopped; was at {}", self.url),
                        connections.saturating_sub(1),
                    );
                    self.say_what_was_dropped(dropped_before);
                    return Ok(());
                }
                Over::ReceiverGone => return Err(SourceError::ReceiverGone(self.url.to_string())),
                Over::Lost(reason) => reason,
            };
            // All but QoS 0 is dropped here, unacknowledged: the broker sends it again.
            backlog = self.keep_what_comes_no_more(connection).await;
            if opened.elapsed() > STEADY {
                back_off.reset();
            }
            let wait = back_off.wait();
            let detail = format!(
                "cannot reach {}: {reason}; trying again in {}",
                self.url,
                in_words(wait)
            );
            warn!(broker = %self.url, %reason, wait_ms = wait.as_millis(), "broker lost");
            self.health.show(false, detail, connections.saturating_sub(1));
            tokio::select! {
                () = stop.cancelled() => {
                    drop(backlog);
                    self.health.refresh();
                    self.say_what_was_dropped(dropped_before);
                    return Ok(());
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Says at the end what was not handed over and comes no more: the process may be about to end, and its counters with it.
    fn say_what_was_dropped(&self, before: u64) {
        let dropped = self.health.shed_not_receiving().saturating_sub(before);
        if dropped > 0 {
            warn!(broker = %self.url, dropped, "messages of QoS 0 that had come in were dropped at the stop");
        }
    }

    /// What came in by a connection that is over and waits to be handed over, of what no broker sends again.
    async fn keep_what_comes_no_more(&self, mut connection: Connection) -> VecDeque<Waiting> {
        connection.link.events.close();
        while let Some(event) = connection.link.events.recv().await {
            if let LinkEvent::Message(publish, passage) = event
                && publish.qos == rumqttc::QoS::AtMostOnce
            {
                self.take(&mut connection, publish, passage);
            }
        }
        let mut backlog = connection.backlog;
        backlog.retain(|waiting| waiting.message.qos == QoS::AtMostOnce);
        backlog
    }

    async fn serve(
        &self,
        connection: &mut Connection,
        out: &mpsc::Sender<Delivery>,
        stop: &CancellationToken,
        connections: &mut u64,
    ) -> Over {
        let mut stopping: Option<Instant> = None;
        let mut refresh = tokio::time::interval(REFRESH);
        loop {
            if let Some(deadline) = stopping
                && (connection.unacknowledged.is_empty() || Instant::now() >= deadline)
            {
                return Over::Stopped;
            }
            tokio::select! {
                biased;
                () = stop.cancelled(), if stopping.is_none() => {
                    // What was not handed over yet is not: it stays with the broker.
                    connection.forget_backlog();
                    stopping = Some(Instant::now() + DRAIN);
                }
                taken = first_taken(&mut connection.unacknowledged) => {
                    if let Err(reason) = connection.acknowledge(taken) {
                        return Over::Lost(reason);
                    }
                }
                permit = out.reserve(), if !connection.backlog.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(waiting) = connection.backlog.pop_front() {
                            permit.send(waiting.into_delivery());
                        }
                    }
                    Err(_) => return Over::ReceiverGone,
                },
                event = connection.link.next(), if connection.backlog.len() < self.ahead_max() => match event {
                    LinkEvent::Connected => {
                        if let Err(reason) = self.subscribe(&connection.link) {
                            return Over::Lost(reason);
                        }
                    }
                    LinkEvent::Subscribed(Ok(())) => {
                        *connections += 1;
                        info!(broker = %self.url, filter = %self.filter, "receiving");
                        let detail = format!("receiving {} from {}", self.filter, self.url);
                        self.health.show(true, detail, connections.saturating_sub(1));
                    }
                    LinkEvent::Subscribed(Err(code)) => {
                        return Over::Lost(format!("the broker refused the subscription to {}: {code}", self.filter));
                    }
                    LinkEvent::Message(publish, passage) if stopping.is_none() => {
                        self.take(connection, publish, passage);
                    }
                    LinkEvent::Message(..) | LinkEvent::Retained(_) => {}
                    LinkEvent::Lost(_) if stopping.is_some() => return Over::Stopped,
                    LinkEvent::Lost(reason) => return Over::Lost(reason),
                },
                _ = refresh.tick() => self.health.refresh(),
            }
        }
    }

    /// Messages that may wait to be handed over before no more are read from the connection. A broker that keeps to the
    /// receive maximum stays far below; not every one does when it has many retained messages.
    fn ahead_max(&self) -> usize {
        4 * self.receive_maximum
    }

    /// Subscribes at every connection: the same subscription replaces itself, and one that a crash kept from
    /// going out is made up for.
    fn subscribe(&self, link: &Link) -> Result<(), String> {
        let filter = SubscribeFilterInput::new(self.filter.clone(), rumqttc::QoS::AtLeastOnce)
            .preserve_retain(true)
            .retain_forward_rule(RetainForwardRule::OnNewSubscribe);
        link.client
            .try_subscribe_many([filter])
            .map_err(|error| error.to_string())
    }

    fn take(&self, connection: &mut Connection, publish: Publish, passage: Passage) {
        self.health.count_received();
        CrashPoint::Received.pass();
        let manual = connection.link.client.prepare_ack(&publish);
        // QoS 1 is bounded by the receive maximum; QoS 0 is not, so it is what gets shed.
        if manual.is_none() && connection.backlog.len() >= self.receive_maximum {
            self.health.count_shed();
            drop(passage.end());
            return;
        }
        let qos = match publish.qos {
            rumqttc::QoS::AtMostOnce => QoS::AtMostOnce,
            rumqttc::QoS::AtLeastOnce => QoS::AtLeastOnce,
            rumqttc::QoS::ExactlyOnce => QoS::ExactlyOnce,
        };
        let topic = Arc::from(String::from_utf8_lossy(&publish.topic));
        let message = Message::received_now(topic, publish.payload, qos, publish.retain);
        let ack = match manual {
            Some(manual) => {
                let (ack, taken) = Ack::pair();
                connection.unacknowledged.push_back((manual, taken));
                ack
            }
            None => Ack::none(),
        };
        connection.backlog.push_back(Waiting { message, ack, passage });
    }
}

impl Source for RemoteSource {
    fn run(
        self: Arc<Self>,
        out: mpsc::Sender<Delivery>,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<(), SourceError>> {
        Box::pin(async move { self.receive(out, stop).await })
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.watch()
    }
}

/// One connection and what is under way on it. At most the receive maximum of QoS 1 and as many of QoS 0.
struct Connection {
    link: Link,
    backlog: VecDeque<Waiting>,
    /// In the order of arrival, which is the order acknowledgements must keep.
    unacknowledged: VecDeque<(ManualAck, oneshot::Receiver<()>)>,
}

/// A message that waits to be handed over.
struct Waiting {
    message: Message,
    ack: Ack,
    passage: Passage,
}

impl Waiting {
    fn into_delivery(self) -> Delivery {
        Delivery {
            message: self.message,
            ack: self.ack.holding(self.passage.end()),
        }
    }
}

enum Over {
    Stopped,
    ReceiverGone,
    Lost(String),
}

impl Connection {
    /// Acknowledges the oldest, if it was taken.
    fn acknowledge(&mut self, taken: bool) -> Result<(), String> {
        let Some((manual, _)) = self.unacknowledged.pop_front() else {
            return Ok(());
        };
        if !taken {
            // It must come again, and so must all behind it: only a new connection makes the broker do that.
            return Err("a message was not taken, so it is asked for again".to_owned());
        }
        self.link
            .client
            .try_manual_ack(manual)
            .map_err(|error| error.to_string())
    }

    /// Drops what was not handed over, with the acknowledgements it would have had. QoS 0 is counted in being dropped.
    fn forget_backlog(&mut self) {
        let waiting = self
            .backlog
            .iter()
            .filter(|waiting| waiting.message.qos != QoS::AtMostOnce)
            .count();
        self.unacknowledged.truncate(self.unacknowledged.len() - waiting);
        self.backlog.clear();
    }
}

/// Whether the oldest message was taken; waits until that is decided.
async fn first_taken(unacknowledged: &mut VecDeque<(ManualAck, oneshot::Receiver<()>)>) -> bool {
    match unacknowledged.front_mut() {
        Some((_, taken)) => taken.await.is_ok(),
        None => std::future::pending().await,
    }
}

fn misconfigured(error: ConnectError) -> SourceError {
    SourceError::Misconfigured(error.to_string())
}

fn in_words(wait: Duration) -> String {
    if wait < Duration::from_secs(1) {
        format!("{} ms", wait.as_millis())
    } else {
        format!("{:.0} s", wait.as_secs_f64())
    }
}
