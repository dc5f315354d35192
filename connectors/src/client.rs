//! A client publishes as a device does: tools replay recordings with it, and facts go out through it.

use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{MqttOptions, PublishNoticeError, PublishOptions, SubscribeFilterInput};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::coop::unconstrained;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::BoxFuture;
use crate::back_off::BackOff;
use crate::broker_url::{BadBrokerUrl, BrokerUrl};
use crate::link::{Link, LinkEvent};
use crate::message::QoS;
use crate::publisher::{Publication, PublishError, check_topic};

/// How often one publication is sent before it is given up: a message that makes the broker hang up each time
/// must not keep all others waiting.
const ATTEMPTS_MAX: u32 = 8;
/// How long a dropped client may still finish what is under way.
const LINGER: Duration = Duration::from_secs(5);
/// Topics that may wait to be told as retained. Beyond it they are told at the next connection.
const RETAINED: usize = 65_536;
/// Filters in one subscription; some brokers take no more.
const FILTERS: usize = 8;
/// Connections lost in a row before the broker had answered a subscription, after which none is asked for: some brokers hang
/// up in place of a refusal, and to publish is what the client is for.
const UNANSWERED_MAX: u32 = 2;

/// How a client connects and how much it has under way.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// `mqtt://` or `mqtts://`, with user and password.
    pub url: String,
    /// The MQTT client id; unique at the broker.
    pub client_id: String,
    /// Publications that may be unconfirmed at a time. More hide the round trip, fewer bound what may come twice.
    pub window: usize,
    /// The largest payload sent, bytes.
    pub max_packet_bytes: usize,
    /// Silence after which the broker is asked whether it is there.
    pub keep_alive: Duration,
    /// Certificates to trust instead of the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// How long [`MqttClient::connect_with`] tries before it says why it cannot.
    pub patience: Duration,
    /// Filters of topics of which [`MqttClient::next_retained`] tells what the broker retains.
    pub retained: Vec<String>,
}

impl ClientOptions {
    /// The defaults for a broker and a client id.
    pub fn new(url: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            client_id: client_id.into(),
            window: 64,
            max_packet_bytes: 16 << 20,
            keep_alive: Duration::from_secs(30),
            ca_file: None,
            patience: Duration::from_secs(10),
            retained: Vec::new(),
        }
    }
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is no address.
    #[error(transparent)]
    BadUrl(#[from] BadBrokerUrl),
    /// Something local is wrong, such as a certificate file.
    #[error("{0}")]
    Misconfigured(String),
    /// The broker did not let us in in time.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// The broker, without password.
        url: String,
        /// What happened last.
        reason: String,
    },
}

/// A plain publishing client. It reconnects by itself and sends again, in order, what was not confirmed.
pub struct MqttClient {
    orders: mpsc::Sender<Order>,
    window: Arc<Semaphore>,
    window_size: u32,
    max_packet_bytes: usize,
    state: watch::Receiver<LinkState>,
    retained: Mutex<mpsc::Receiver<Arc<str>>>,
}

/// Resolves when the broker has the message. Dropping it does not take the message back.
#[derive(Debug)]
#[must_use = "a publication is confirmed only when its ticket resolves"]
pub struct Ticket(oneshot::Receiver<Result<(), PublishError>>);

impl Future for Ticket {
    type Output = Result<(), PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(PublishError::Closed)))
    }
}

/// How the connection stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LinkState {
    Connecting,
    Connected,
    /// Not connected, for this reason.
    Lost(String),
}

struct Order {
    publication: Publication,
    done: oneshot::Sender<Result<(), PublishError>>,
    attempts: u32,
    _permit: OwnedSemaphorePermit,
}

struct Underway {
    order: Order,
    outcome: BoxFuture<'static, Result<(), PublishNoticeError>>,
}

impl MqttClient {
    /// Connects with the defaults.
    ///
    /// # Errors
    /// As [`MqttClient::connect_with`].
    pub async fn connect(url: &str, client_id: &str) -> Result<Self, ConnectError> {
        Self::connect_with(ClientOptions::new(url, client_id)).await
    }

    /// Connects, trying for as long as `patience` says.
    ///
    /// # Errors
    /// [`ConnectError`] in words.
    pub async fn connect_with(options: ClientOptions) -> Result<Self, ConnectError> {
        let patience = options.patience;
        let url: BrokerUrl = options.url.parse()?;
        let client = Self::open(options)?;
        let mut state = client.state.clone();
        let connected = tokio::time::timeout(patience, state.wait_for(|state| *state == LinkState::Connected)).await;
        if matches!(connected, Ok(Ok(_))) {
            return Ok(client);
        }
        let reason = match &*client.state.borrow() {
            LinkState::Lost(reason) => reason.clone(),
            _ => format!("no answer within {} s", patience.as_secs()),
        };
        Err(ConnectError::Unreachable {
            url: url.to_string(),
            reason,
        })
    }

    /// Begins to connect and goes on trying. Must be called inside the async runtime.
    ///
    /// # Errors
    /// Only what trying cannot mend.
    pub fn open(options: ClientOptions) -> Result<Self, ConnectError> {
        let url: BrokerUrl = options.url.parse()?;
        let window = u16::try_from(options.window.max(1)).unwrap_or(u16::MAX);
        let mut mqtt = url
            .options(&options.client_id, options.ca_file.as_deref())
            .map_err(ConnectError::Misconfigured)?;
        // Nothing is left at the broker: what is unconfirmed is sent again from here.
        mqtt.set_clean_start(true);
        mqtt.set_keep_alive(u16::try_from(options.keep_alive.as_secs().max(1)).unwrap_or(u16::MAX));
        mqtt.set_outgoing_inflight_upper_limit(window);
        mqtt.set_max_packet_size(Some(packet_limit(options.max_packet_bytes)));
        // Permits bound what is in this queue, so that sending into it never waits.
        let (orders, incoming) = mpsc::channel(usize::from(window));
        let (state, watched) = watch::channel(LinkState::Connecting);
        let (retained, topics) = mpsc::channel(RETAINED);
        let sending = Sending {
            mqtt,
            url,
            window: usize::from(window),
            underway: VecDeque::new(),
            again: VecDeque::new(),
            back_off: BackOff::default(),
            state,
            filters: options.retained,
            retained,
            asked: 0,
            unanswered: 0,
            closing: None,
        };
        tokio::spawn(sending.run(incoming));
        Ok(Self {
            orders,
            window: Arc::new(Semaphore::new(usize::from(window))),
            window_size: u32::from(window),
            max_packet_bytes: options.max_packet_bytes,
            state: watched,
            retained: Mutex::new(topics),
        })
    }

    /// The next topic below [`ClientOptions::retained`] that the broker retained something under when it was connected. They
    /// are told at each connection, up to 65,536 ahead of whoever listens; it never resolves where there are no filters. A future
    /// that is dropped loses none.
    pub async fn next_retained(&self) -> Arc<str> {
        match self.retained.lock().await.recv().await {
            Some(topic) => topic,
            None => std::future::pending().await,
        }
    }

    /// Publishes. Waits while the window is full; the ticket resolves at the broker's PUBACK, and at once after
    /// the write for QoS 0. Messages of one caller leave in the order of the calls.
    ///
    /// # Errors
    /// [`PublishError::BadTopic`], [`PublishError::TooLarge`] and [`PublishError::Closed`] at once, the rest by the ticket.
    pub async fn publish(
        &self,
        topic: impl Into<Arc<str>>,
        payload: impl Into<Bytes>,
        qos: QoS,
        retain: bool,
    ) -> Result<Ticket, PublishError> {
        let publication = Publication {
            topic: topic.into(),
            payload: payload.into(),
            qos,
            retain,
        };
        check_topic(&publication.topic)?;
        if publication.payload.len() > self.max_packet_bytes {
            return Err(PublishError::TooLarge {
                bytes: publication.payload.len(),
                max: self.max_packet_bytes,
            });
        }
        // Whoever is first to ask is first to stand in the queue, also in a task that is due for a break: the runtime wakes
        // those that it interrupts before they could queue in another order.
        let permit = unconstrained(Arc::clone(&self.window).acquire_owned())
            .await
            .map_err(|_| PublishError::Closed)?;
        let (done, answer) = oneshot::channel();
        let order = Order {
            publication,
            done,
            attempts: 0,
            _permit: permit,
        };
        unconstrained(self.orders.send(order))
            .await
            .map_err(|_| PublishError::Closed)?;
        Ok(Ticket(answer))
    }

    /// True while the broker is connected.
    pub fn is_connected(&self) -> bool {
        *self.state.borrow() == LinkState::Connected
    }

    /// Waits until everything is confirmed or given up, then says goodbye to the broker. With the broker away
    /// this takes until it is back; put a time-out around it to stop earlier.
    pub async fn disconnect(self) {
        // All permits back means that nothing is under way.
        let _ = self.window.acquire_many(self.window_size).await;
        let Self { orders, mut state, .. } = self;
        drop(orders);
        // The sending task drops its end when it is through.
        while state.changed().await.is_ok() {}
    }
}

/// What the sending task holds.
struct Sending {
    mqtt: MqttOptions,
    url: BrokerUrl,
    window: usize,
    underway: VecDeque<Underway>,
    /// To be sent on the next connection, before anything new and in the old order.
    again: VecDeque<Order>,
    back_off: BackOff,
    state: watch::Sender<LinkState>,
    /// What is asked at each connection about what the broker retains, and where its topics are told.
    filters: Vec<String>,
    retained: mpsc::Sender<Arc<str>>,
    /// Subscriptions that this connection has not answered yet, and connections that were lost so, in a row.
    asked: usize,
    unanswered: u32,
    /// Set once nobody can order any more: until when what is left may still go out.
    closing: Option<Instant>,
}

enum Served {
    Lost(String),
    Finished(Link),
}

impl Sending {
    async fn run(mut self, mut incoming: mpsc::Receiver<Order>) {
        loop {
            let link = Link::open(self.mqtt.clone(), self.window * 2 + 16, None);
            let reason = match self.serve(link, &mut incoming).await {
                Served::Finished(link) => return link.disconnect().await,
                Served::Lost(reason) => reason,
            };
            self.take_back(&reason);
            self.note_unanswered(&reason);
            let wait = self.back_off.wait();
            debug!(broker = %self.url, %reason, wait_ms = wait.as_millis(), "publishing connection lost");
            self.state.send_replace(LinkState::Lost(reason));
            self.note_closing(&incoming);
            if self
                .closing
                .is_some_and(|deadline| self.again.is_empty() || Instant::now() >= deadline)
            {
                return;
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn serve(&mut self, mut link: Link, incoming: &mut mpsc::Receiver<Order>) -> Served {
        let mut connected = false;
        // Nothing wakes a task that cannot take orders when its last customer leaves, so it looks now and then.
        let mut look = tokio::time::interval(Duration::from_millis(100));
        loop {
            while connected && let Some(order) = self.again.pop_front() {
                if let Err(reason) = self.send(&link, order).await {
                    return Served::Lost(reason);
                }
            }
            self.note_closing(incoming);
            if self
                .closing
                .is_some_and(|deadline| self.is_idle() || Instant::now() >= deadline)
            {
                return Served::Finished(link);
            }
            tokio::select! {
                biased;
                outcome = front(&mut self.underway) => {
                    if let Some(Underway { order, .. }) = self.underway.pop_front()
                        && let Err(reason) = self.settle(order, outcome)
                    {
                        return Served::Lost(reason);
                    }
                }
                event = link.next() => match event {
                    LinkEvent::Connected => {
                        connected = true;
                        self.back_off.reset();
                        self.state.send_replace(LinkState::Connected);
                        if let Err(reason) = self.ask_for_retained(&link) {
                            return Served::Lost(reason);
                        }
                    }
                    LinkEvent::Lost(reason) => return Served::Lost(reason),
                    LinkEvent::Retained(topic) => self.tell_retained(&topic),
                    LinkEvent::Subscribed(answer) => {
                        self.asked = self.asked.saturating_sub(1);
                        self.unanswered = 0;
                        if let Err(reason) = answer {
                            self.warn_of_refusal(&reason);
                        }
                    }
                    LinkEvent::Message(..) => {}
                },
                Some(order) = incoming.recv(), if connected => {
                    if let Err(reason) = self.send(&link, order).await {
                        return Served::Lost(reason);
                    }
                }
                _ = look.tick() => {}
            }
        }
    }

    /// A subscription brings what is retained at once, and no link has one before.
    fn ask_for_retained(&mut self, link: &Link) -> Result<(), String> {
        for filters in self.filters.chunks(FILTERS) {
            let filters = filters.iter().map(|filter| {
                // What goes out from here needs not come back.
                SubscribeFilterInput::new(filter.as_str(), rumqttc::QoS::AtLeastOnce).no_local(true)
            });
            link.client
                .try_subscribe_many(filters)
                .map_err(|error| error.to_string())?;
            self.asked += 1;
        }
        Ok(())
    }

    /// The connection is lost.
    fn note_unanswered(&mut self, reason: &str) {
        if std::mem::take(&mut self.asked) == 0 {
            return;
        }
        self.unanswered += 1;
        if self.unanswered >= UNANSWERED_MAX {
            self.warn_of_refusal(reason);
            self.filters.clear();
        }
    }

    fn warn_of_refusal(&self, reason: &str) {
        warn!(
            broker = %self.url, reason, filters = self.filters.join(" "),
            "the broker does not say what it retains; leave to subscribe to these filters would be right"
        );
    }

    fn tell_retained(&self, topic: &[u8]) {
        // Publishing must not wait for whoever does not listen.
        if let Ok(topic) = std::str::from_utf8(topic)
            && self.retained.try_send(topic.into()).is_err()
        {
            debug!(broker = %self.url, %topic, "so much is retained that this is told at the next connection");
        }
    }

    /// Sends one order; an error says that the link is gone, and the order waits for the next one.
    async fn send(&mut self, link: &Link, mut order: Order) -> Result<(), String> {
        order.attempts += 1;
        let Publication {
            topic,
            payload,
            qos,
            retain,
        } = order.publication.clone();
        let options = PublishOptions::new(wire_qos(qos)).retain(retain);
        match link.client.publish_tracked(&*topic, payload, options).await {
            Ok(notice) => {
                let outcome = Box::pin(notice.wait_completion_async());
                self.underway.push_back(Underway { order, outcome });
                Ok(())
            }
            Err(error) => {
                // Those under way came before it.
                self.take_back("the connection was closed");
                self.again.push_back(order);
                Err(error.to_string())
            }
        }
    }

    /// Passes an answer on; an error says that there was none because the link is gone.
    fn settle(&mut self, order: Order, outcome: Result<(), PublishNoticeError>) -> Result<(), String> {
        let refused = |reason: String| PublishError::Refused {
            topic: order.publication.topic.to_string(),
            reason,
        };
        let answer = match outcome {
            Ok(()) => Ok(()),
            Err(PublishNoticeError::V5PubAck(reason)) => Err(refused(format!("{reason:?}"))),
            Err(PublishNoticeError::V5PubRec(reason)) => Err(refused(format!("{reason:?}"))),
            Err(PublishNoticeError::V5PubComp(reason)) => Err(refused(format!("{reason:?}"))),
            Err(PublishNoticeError::RetainNotSupported) => Err(refused("it retains nothing".to_owned())),
            Err(error) => {
                let reason = error.to_string();
                self.try_again(order, &reason);
                return Err(reason);
            }
        };
        // Whoever dropped the ticket does not want to know.
        let _ = order.done.send(answer);
        Ok(())
    }

    /// The link is gone: everything unconfirmed is sent again on the next one, in the same order.
    fn take_back(&mut self, reason: &str) {
        for Underway { order, .. } in std::mem::take(&mut self.underway) {
            self.try_again(order, reason);
        }
    }

    fn try_again(&mut self, order: Order, reason: &str) {
        if order.attempts < ATTEMPTS_MAX {
            self.again.push_back(order);
            return;
        }
        let topic = order.publication.topic.to_string();
        warn!(broker = %self.url, %topic, attempts = order.attempts, "publication given up");
        let _ = order.done.send(Err(PublishError::Unconfirmed {
            topic,
            reason: reason.to_owned(),
        }));
    }

    fn note_closing(&mut self, incoming: &mpsc::Receiver<Order>) {
        if self.closing.is_none() && incoming.is_closed() && incoming.is_empty() {
            self.closing = Some(Instant::now() + LINGER);
        }
    }

    fn is_idle(&self) -> bool {
        self.underway.is_empty() && self.again.is_empty()
    }
}

async fn front(underway: &mut VecDeque<Underway>) -> Result<(), PublishNoticeError> {
    match underway.front_mut() {
        Some(first) => (&mut first.outcome).await,
        None => std::future::pending().await,
    }
}

/// The packet limit for a payload limit: topic and properties come on top.
pub(crate) fn packet_limit(max_packet_bytes: usize) -> u32 {
    u32::try_from(max_packet_bytes.saturating_add(128 << 10)).unwrap_or(u32::MAX)
}

pub(crate) fn wire_qos(qos: QoS) -> rumqttc::QoS {
    match qos {
        QoS::AtMostOnce => rumqttc::QoS::AtMostOnce,
        QoS::AtLeastOnce => rumqttc::QoS::AtLeastOnce,
        QoS::ExactlyOnce => rumqttc::QoS::ExactlyOnce,
    }
}
