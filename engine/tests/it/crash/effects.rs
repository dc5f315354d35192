//! Effects are what a receiver was told of alerts: each step of each alert's life, however it came.
//!
//! A receiver of any kind hands over what it got. A subscriber over MQTT is one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS, SubscribeFilterInput};
use serde_json::Value;

use crate::crash::Failure;
use crate::soon;

/// The steps a receiver was told, each with how often and with its place among those that came for the first time.
#[derive(Debug, Default, Clone)]
pub(crate) struct Effects(Arc<Mutex<BTreeMap<String, Times>>>);

#[derive(Debug)]
struct Times {
    place: usize,
    told: u64,
}

impl Effects {
    /// A receiver was told this step of an alert.
    pub(crate) fn hear(&self, alert: &Value) {
        let mut told = self.0.lock().expect("no holder of this lock panics");
        let place = told.len();
        told.entry(identity(alert)).or_insert(Times { place, told: 0 }).told += 1;
    }

    /// The different steps, in the order in which each came first.
    pub(crate) fn steps(&self) -> Vec<String> {
        let told = self.0.lock().expect("no holder of this lock panics");
        let mut steps: Vec<_> = told.iter().collect();
        steps.sort_unstable_by_key(|(_, times)| times.place);
        steps.into_iter().map(|(step, _)| step.clone()).collect()
    }

    /// How many steps were told again, byte for byte the same but for the clocks of this machine.
    pub(crate) fn repeats(&self) -> u64 {
        let told = self.0.lock().expect("no holder of this lock panics");
        told.values().map(|times| times.told - 1).sum()
    }
}

/// A step as it is the same in every run over the same events: without what the clock of this machine says.
pub(crate) fn identity(alert: &Value) -> String {
    let mut alert = alert.clone();
    if let Some(members) = alert.as_object_mut() {
        for clock in ["raised_at", "trace"] {
            members.remove(clock);
        }
    }
    alert.to_string()
}

/// A subscriber whose session outlives its connections, and who listens for as long as it lives.
pub(crate) struct Subscriber {
    driver: tokio::task::JoinHandle<()>,
    has_heard_aside: Arc<AtomicBool>,
}

/// A topic on which a test says something to its own subscriber.
pub(crate) const ASIDE: &str = "usher/aside";

impl Subscriber {
    /// Subscribes to the steps of all alerts; comes back when the broker has confirmed it.
    pub(crate) async fn subscribe(url: &str, effects: Effects) -> Result<Self, Failure> {
        let (host, port) = url
            .trim_start_matches("mqtt://")
            .rsplit_once(':')
            .ok_or("an address has a port")?;
        let mut options = MqttOptions::new("a-service", (host, port.parse::<u16>()?));
        options.set_keep_alive(30);
        options.set_clean_start(false);
        options.set_session_expiry_interval(Some(3_600));
        let (client, mut events) = AsyncClient::builder(options).capacity(64).build();
        let has_heard_aside = Arc::new(AtomicBool::new(false));
        let heard_aside = Arc::clone(&has_heard_aside);
        let (ready_in, ready) = tokio::sync::oneshot::channel();
        let driver = tokio::spawn(async move {
            let mut ready_in = Some(ready_in);
            loop {
                match events.poll().await {
                    // A session that the broker has lost is subscribed anew; one that it has does not mind.
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        let filters = ["usher/out/+/alert-event/+", ASIDE];
                        // There is room for it: nothing else is ever asked of this client.
                        let _ = client.try_subscribe_many(
                            filters.map(|filter| SubscribeFilterInput::new(filter.to_owned(), QoS::AtLeastOnce)),
                        );
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        if let Some(ready) = ready_in.take() {
                            let _ = ready.send(());
                        }
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) if publish.topic == ASIDE => {
                        heard_aside.store(true, Ordering::Release);
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        effects.hear(&serde_json::from_slice(&publish.payload).unwrap_or(Value::Null));
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                }
            }
        });
        soon("the subscription", ready).await??;
        Ok(Self {
            driver,
            has_heard_aside,
        })
    }

    /// Whether it has heard something on [`ASIDE`]: what its broker had for it before that, it has then heard too.
    pub(crate) fn has_heard_aside(&self) -> bool {
        self.has_heard_aside.load(Ordering::Acquire)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
