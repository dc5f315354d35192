//! The publish gate stands in the embedded broker, between a device's publish and its acknowledgement.
//!
//! The broker awaits the gate before it routes a message and before it sends PUBACK, so that PUBACK means
//! "durable here". It does so one message at a time per connection: group commit gathers across connections.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::{BrokerEventHandler, ClientDisconnectEvent, ClientPublishEvent, PublishAction};
use mqtt5::packet::publish::PublishPacket;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::crash_point::CrashPoint;
use crate::delivery::{Ack, Delivery};
use crate::embedded_broker::LEFT;
use crate::message::{Message, QoS};
use crate::room::Room;
use crate::source::HealthBoard;

/// A publisher whose message was not taken is disconnected after this, so that it does not come back in a spin.
const REFUSAL_PAUSE: Duration = Duration::from_millis(500);
/// Where a message that was not taken is sent instead. Filters with wildcards do not match a topic beginning with `$`.
const NOWHERE: &str = "$usher/not-taken";

/// What the broker calls at each publish.
pub(crate) struct PublishGate {
    prefix: String,
    /// Where deliveries go; none until the source runs, and after it stopped.
    out: watch::Sender<Option<mpsc::Sender<Delivery>>>,
    /// For what was taken and is not acknowledged yet.
    room: Room,
    router: OnceLock<Weak<MessageRouter>>,
    pub(crate) closing: CancellationToken,
    pub(crate) health: HealthBoard,
}

impl PublishGate {
    /// A gate for messages under this prefix, of which so many bytes may be under way.
    pub(crate) fn new(prefix: String, intake_bytes: usize) -> Self {
        Self {
            prefix,
            out: watch::Sender::new(None),
            room: Room::of(intake_bytes),
            router: OnceLock::new(),
            closing: CancellationToken::new(),
            health: HealthBoard::new("the embedded broker is starting"),
        }
    }

    /// Tells the gate how to disconnect a client. Weak, because the router holds the gate.
    pub(crate) fn attach(&self, router: &Arc<MessageRouter>) {
        // Set once, when the broker is made.
        let _ = self.router.set(Arc::downgrade(router));
    }

    pub(crate) fn open(&self, out: mpsc::Sender<Delivery>) {
        self.out.send_replace(Some(out));
    }

    pub(crate) fn shut(&self) {
        self.out.send_replace(None);
    }

    async fn pass(&self, event: ClientPublishEvent) -> PublishAction {
        if !event.topic.starts_with(&self.prefix) {
            return PublishAction::Continue;
        }
        self.health.count_received();
        CrashPoint::Received.pass();
        let qos = match event.qos {
            mqtt5::QoS::AtMostOnce => QoS::AtMostOnce,
            mqtt5::QoS::AtLeastOnce => QoS::AtLeastOnce,
            mqtt5::QoS::ExactlyOnce => QoS::ExactlyOnce,
        };
        let message = Message::received_now(event.topic, event.payload, qos, event.retain);
        if qos == QoS::AtMostOnce {
            self.offer(message);
            return PublishAction::Continue;
        }
        let taken = tokio::select! {
            taken = self.hand_over(message) => taken,
            () = self.closing.cancelled() => false,
        };
        if taken {
            PublishAction::Continue
        } else {
            self.refuse(&event.client_id).await
        }
    }

    /// QoS 0 is handed over if there is room, and shed and counted if not.
    fn offer(&self, message: Message) {
        let out = self.out.borrow();
        let Some(out) = out.as_ref() else {
            return self.health.count_shed_not_receiving();
        };
        let Some(room) = self.room.try_take(message.bytes()) else {
            return self.health.count_shed();
        };
        let ack = Ack::none().holding(room);
        match out.try_send(Delivery { message, ack }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.health.count_shed(),
            Err(TrySendError::Closed(_)) => self.health.count_shed_not_receiving(),
        }
    }

    /// Waits for room and then for the acknowledgement; false when the message was not taken.
    async fn hand_over(&self, message: Message) -> bool {
        let mut opened = self.out.subscribe();
        let out = match opened.wait_for(Option::is_some).await {
            Ok(out) => out.clone(),
            Err(_) => None,
        };
        let Some(out) = out else { return false };
        let room = self.room.take(message.bytes()).await;
        let (ack, taken) = Ack::pair();
        let ack = ack.holding(room);
        out.send(Delivery { message, ack }).await.is_ok() && taken.await.is_ok()
    }

    /// Withholds the acknowledgement and disconnects the client, so that it sends the message again.
    ///
    /// The broker offers no way to say no, but it acknowledges by the QoS of the packet it routes: one of QoS 0
    /// in place of the message gets no PUBACK and no PUBREC.
    async fn refuse(&self, client_id: &str) -> PublishAction {
        tokio::select! {
            () = tokio::time::sleep(REFUSAL_PAUSE) => {}
            () = self.closing.cancelled() => {}
        }
        if !self.closing.is_cancelled() {
            warn!(
                client = client_id,
                "message was not taken; client disconnected so that it sends it again"
            );
        }
        match self.router.get().and_then(Weak::upgrade) {
            Some(router) => router.disconnect_client(client_id).await,
            None => debug!(client = client_id, "broker is gone"),
        }
        PublishAction::Transform(PublishPacket::new(NOWHERE, bytes::Bytes::new(), mqtt5::QoS::AtMostOnce))
    }
}

impl BrokerEventHandler for PublishGate {
    fn on_client_publish<'a>(
        &'a self,
        event: ClientPublishEvent,
    ) -> Pin<Box<dyn Future<Output = PublishAction> + Send + 'a>> {
        Box::pin(self.pass(event))
    }

    fn on_client_disconnect<'a>(
        &'a self,
        event: ClientDisconnectEvent,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        if event.unexpected {
            debug!(target: LEFT, client = &*event.client_id, "connection ended without a goodbye");
        }
        Box::pin(std::future::ready(()))
    }
}
