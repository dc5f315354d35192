//! A subscriber of the test's own: what Usher publishes, in its order.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::soon;

/// One message as a subscriber sees it.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) retain: bool,
}

impl Heard {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap_or(Value::Null)
    }
}

/// A subscription.
pub(crate) struct Listener {
    heard: mpsc::UnboundedReceiver<Heard>,
    _client: AsyncClient,
    driver: tokio::task::JoinHandle<()>,
}

impl Listener {
    /// Subscribes, and comes back when the broker has confirmed it.
    pub(crate) async fn subscribe(url: &str, filter: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let address = url.trim_start_matches("mqtt://");
        let (host, port) = address.rsplit_once(':').ok_or("an address has a port")?;
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let id = format!("listener-{}-{number}", std::process::id());
        let mut options = MqttOptions::new(id, (host, port.parse::<u16>()?));
        options.set_keep_alive(30);
        let (client, mut events) = AsyncClient::builder(options).capacity(16).build();
        client.subscribe(filter, QoS::AtLeastOnce).await?;
        let (sender, heard) = mpsc::unbounded_channel();
        let (ready_in, ready) = tokio::sync::oneshot::channel();
        let driver = tokio::spawn(async move {
            let mut ready_in = Some(ready_in);
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        if let Some(ready) = ready_in.take() {
                            let _ = ready.send(());
                        }
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let heard = Heard {
                            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                            payload: publish.payload.to_vec(),
                            retain: publish.retain,
                        };
                        if sender.send(heard).is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        soon("the subscription", ready).await??;
        Ok(Self {
            heard,
            _client: client,
            driver,
        })
    }

    /// The next message for which `is_it` holds; others are passed over.
    pub(crate) async fn next(&mut self, what: &str, is_it: impl Fn(&Heard) -> bool) -> Result<Heard, String> {
        soon(what, async {
            loop {
                match self.heard.recv().await {
                    Some(heard) if is_it(&heard) => return Ok(heard),
                    Some(_) => {}
                    None => return Err("the subscription ended".to_owned()),
                }
            }
        })
        .await?
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
