//! A link is one connection to a broker of one's own, with the task that drives it, up to its first failure.
//!
//! It is never mended: whoever holds it opens another. So what was under way is known to be under way no more,
//! and a stalled event loop ends the same way as a lost connection.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, MqttOptions, Packet, Publish, SubscribeReasonCode,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::broker_url::CONNECT_TIMEOUT;
use crate::entrance::{Entrance, Passage};

/// What happens on a link, in order.
#[expect(clippy::large_enum_variant, reason = "nearly all that happens is a message")]
pub(crate) enum LinkEvent {
    /// The broker accepted the connection.
    Connected,
    /// The broker answered a subscription; the text says why when it refused.
    Subscribed(Result<(), String>),
    /// A message arrived and was let in.
    Message(Publish, Passage),
    /// The broker retains something under this topic; only without an entrance.
    Retained(Bytes),
    /// The connection is over, with the reason in words. Nothing follows.
    Lost(String),
}

/// One connection, from opening to its first failure.
pub(crate) struct Link {
    pub(crate) client: AsyncClient,
    pub(crate) events: mpsc::Receiver<LinkEvent>,
    driver: JoinHandle<()>,
}

impl Link {
    /// Begins to connect. `events` is how many events may wait for the holder; messages come in by `entrance`; without one
    /// they are passed over, but for the topics of those that the broker retains. Requests may wait without a bound of their own:
    /// each answers a message, takes a place in a window, or asks for what is wanted of the connection, and those are bounded.
    pub(crate) fn open(options: MqttOptions, events: usize, entrance: Option<Entrance>) -> Self {
        // Something is heard at least once a keep-alive; beyond twice that, the event loop hangs.
        let stall = options.keep_alive() * 2 + CONNECT_TIMEOUT;
        let (client, event_loop) = AsyncClient::builder(options).unbounded().build();
        let (sender, events) = mpsc::channel(events);
        let driver = tokio::spawn(drive(event_loop, sender, stall, entrance));
        Self { client, events, driver }
    }

    /// The next event; a link whose task is gone is lost.
    pub(crate) async fn next(&mut self) -> LinkEvent {
        self.events
            .recv()
            .await
            .unwrap_or_else(|| LinkEvent::Lost("the connection was closed".to_owned()))
    }

    /// Says goodbye, so that the broker does not wait for us, and waits briefly for it to go out.
    pub(crate) async fn disconnect(mut self) {
        if self.client.try_disconnect().is_err() {
            return;
        }
        let over = async { while !matches!(self.next().await, LinkEvent::Lost(_)) {} };
        // A broker that does not listen any more is not worth waiting for.
        let _ = tokio::time::timeout(Duration::from_secs(1), over).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn drive(
    mut event_loop: rumqttc::EventLoop,
    events: mpsc::Sender<LinkEvent>,
    stall: Duration,
    entrance: Option<Entrance>,
) {
    loop {
        let event = match tokio::time::timeout(stall, event_loop.poll()).await {
            // Without room nothing more is read, so that the broker waits.
            Ok(Ok(Event::Incoming(Packet::Publish(publish)))) => {
                if let Some(entrance) = &entrance {
                    let Some(passage) = entrance.admit(&publish).await else {
                        continue;
                    };
                    LinkEvent::Message(publish, passage)
                } else if publish.retain {
                    LinkEvent::Retained(publish.topic)
                } else {
                    continue;
                }
            }
            Ok(Ok(Event::Incoming(Packet::ConnAck(_)))) => LinkEvent::Connected,
            Ok(Ok(Event::Incoming(Packet::SubAck(answer)))) => LinkEvent::Subscribed(subscribed(&answer.return_codes)),
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => LinkEvent::Lost(words(&error)),
            Err(_) => LinkEvent::Lost(format!("nothing was heard for {} s", stall.as_secs())),
        };
        let over = matches!(event, LinkEvent::Lost(_));
        if events.send(event).await.is_err() || over {
            return;
        }
    }
}

fn subscribed(codes: &[SubscribeReasonCode]) -> Result<(), String> {
    match codes
        .iter()
        .find(|code| !matches!(code, SubscribeReasonCode::Success(_)))
    {
        Some(code) => Err(format!("{code:?}")),
        None => Ok(()),
    }
}

/// A connection error as one would say it.
fn words(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(cause) => match cause.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            std::io::ErrorKind::ConnectionReset => "the broker closed the connection".to_owned(),
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionAborted => {
                "the broker closed the connection".to_owned()
            }
            _ => cause.to_string(),
        },
        ConnectionError::Timeout(_) => format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        ConnectionError::ConnectionRefused(ConnectReturnCode::BadUserNamePassword) => {
            "the broker does not accept this user name and password".to_owned()
        }
        ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized) => {
            "the broker does not let this client in".to_owned()
        }
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion,
        ) => "the broker does not speak MQTT 5".to_owned(),
        ConnectionError::ConnectionRefused(code) => {
            format!("the broker refused the connection: {code:?}")
        }
        ConnectionError::RequestsDone => "the connection was closed".to_owned(),
        other => other.to_string(),
    }
}
