//! The outbox keeps what has to go out until the broker has it: alerts first, then counts, each topic's newest only.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use usher_connectors::message::QoS;
use usher_connectors::publisher::{Publication, PublishError, Publisher};

use crate::alert::{Alert, State, level};
use crate::latency::Latencies;
use crate::zones::ZoneView;

/// Steps of alerts that may wait for a broker that is away; beyond it the oldest step is dropped and counted, while
/// what is retained of each alert still goes out. A day of a large house has fewer.
const EVENTS_MAX: usize = 10_000;
/// Publications under way at a time; the broker's window is wider.
const UNDER_WAY: usize = 32;
/// How long to wait before trying again what the broker did not take.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Something to be told, and the moment its message came in, where one did.
#[derive(Debug, Clone)]
enum Entry {
    /// A step of an alert's life, not retained.
    Event(Arc<Alert>, Option<Instant>),
    /// The newest state of a topic.
    Retained(Arc<str>),
}

/// What a topic should show to whoever subscribes late.
#[derive(Debug, Clone)]
enum Shown {
    Alert(Arc<Alert>, Option<Instant>),
    Json(Bytes),
    Nothing,
}

#[derive(Default)]
struct Waiting {
    urgent: VecDeque<Entry>,
    ordinary: VecDeque<Entry>,
    shown: HashMap<Arc<str>, Shown>,
    queued: HashSet<Arc<str>>,
    /// Sent and not yet confirmed, by a number of its own.
    under_way: BTreeMap<u64, Entry>,
    next_number: u64,
    dropped: u64,
}

/// What a checkpoint keeps of the outbox.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    events: Vec<Alert>,
    /// (topic, payload; empty clears it).
    retained: Vec<(String, String)>,
}

/// Everything that waits to go out.
#[derive(Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

/// The part of a zone that goes out over MQTT.
#[derive(Serialize)]
struct Occupancy<'a> {
    persons: Option<i64>,
    capacity: Option<u32>,
    share: Option<f64>,
    low: Option<i64>,
    high: Option<i64>,
    as_of: Option<&'a str>,
    stale: bool,
}

impl Outbox {
    /// Nothing to tell.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no holder of this lock panics")
    }

    /// Tells a step of an alert's life. `received` is when the message that caused it came in.
    pub fn tell_alert(&self, alert: &Arc<Alert>, received: Option<Instant>) {
        let mut waiting = self.lock();
        if waiting.urgent.len() >= EVENTS_MAX {
            let oldest_event = waiting
                .urgent
                .iter()
                .position(|entry| matches!(entry, Entry::Event(..)));
            if let Some(oldest) = oldest_event {
                waiting.urgent.remove(oldest);
                waiting.dropped += 1;
                metrics::counter!("usher_outbox_dropped_total").increment(1);
            }
        }
        waiting.urgent.push_back(Entry::Event(Arc::clone(alert), received));
        drop(waiting);
        match alert.state {
            State::Pending => self.wake.notify_one(),
            _ => self.show_alert(alert, received),
        }
    }

    /// Shows what stands now under the alert's own topic, without telling of a step.
    pub fn show_alert(&self, alert: &Arc<Alert>, received: Option<Instant>) {
        let shown = if alert.state.is_standing() {
            Shown::Alert(Arc::clone(alert), received)
        } else {
            Shown::Nothing
        };
        let mut waiting = self.lock();
        let topic: Arc<str> = alert.topic().into();
        waiting.shown.insert(Arc::clone(&topic), shown);
        if waiting.queued.insert(Arc::clone(&topic)) {
            waiting.urgent.push_back(Entry::Retained(topic));
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Shows a zone's count.
    pub fn show_zone(&self, zone: &ZoneView) {
        let topic: Arc<str> = format!("usher/out/{}/{}/occupancy", level(&zone.site), level(&zone.zone)).into();
        let occupancy = Occupancy {
            persons: zone.persons,
            capacity: zone.capacity,
            share: zone.share,
            low: zone.low,
            high: zone.high,
            as_of: zone.as_of.as_deref(),
            stale: zone.stale,
        };
        let payload = serde_json::to_vec(&occupancy).expect("numbers and texts are always JSON");
        let mut waiting = self.lock();
        waiting.shown.insert(Arc::clone(&topic), Shown::Json(payload.into()));
        if waiting.queued.insert(Arc::clone(&topic)) {
            waiting.ordinary.push_back(Entry::Retained(topic));
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// How much waits or is under way.
    pub fn len(&self) -> usize {
        let waiting = self.lock();
        waiting.urgent.len() + waiting.ordinary.len() + waiting.under_way.len()
    }

    /// Whether all has gone out.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What has not gone out yet, for a checkpoint.
    ///
    /// # Errors
    /// When a value can't be written as JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let waiting = self.lock();
        let mut kept = Kept::default();
        for entry in waiting
            .under_way
            .values()
            .chain(&waiting.urgent)
            .chain(&waiting.ordinary)
        {
            match entry {
                Entry::Event(alert, _) => kept.events.push((**alert).clone()),
                Entry::Retained(topic) => {
                    let payload = match waiting.shown.get(topic) {
                        Some(Shown::Alert(alert, _)) => serde_json::to_string(alert)?,
                        Some(Shown::Json(json)) => String::from_utf8_lossy(json).into_owned(),
                        Some(Shown::Nothing) | None => String::new(),
                    };
                    kept.retained.push((topic.to_string(), payload));
                }
            }
        }
        serde_json::to_vec(&kept)
    }

    /// Takes back what [`Outbox::to_bytes`] gave, to be sent again under the same ids.
    ///
    /// # Errors
    /// When the bytes are of another version.
    pub fn restore(&self, bytes: &[u8]) -> Result<(), serde_json::Error> {
        let kept: Kept = serde_json::from_slice(bytes)?;
        let mut waiting = self.lock();
        for alert in kept.events {
            waiting.urgent.push_back(Entry::Event(Arc::new(alert), None));
        }
        for (topic, payload) in kept.retained {
            let topic: Arc<str> = topic.into();
            let shown = if payload.is_empty() {
                Shown::Nothing
            } else {
                Shown::Json(payload.into())
            };
            waiting.shown.insert(Arc::clone(&topic), shown);
            if waiting.queued.insert(Arc::clone(&topic)) {
                waiting.urgent.push_back(Entry::Retained(topic));
            }
        }
        drop(waiting);
        self.wake.notify_one();
        Ok(())
    }

    fn next(&self) -> Option<(u64, Entry)> {
        let mut waiting = self.lock();
        let entry = waiting.urgent.pop_front().or_else(|| waiting.ordinary.pop_front())?;
        let number = waiting.next_number;
        waiting.next_number += 1;
        waiting.under_way.insert(number, entry.clone());
        if let Entry::Retained(topic) = &entry {
            // A newer state that comes from now on has to go out as well.
            waiting.queued.remove(topic);
        }
        Some((number, entry))
    }

    fn publication(&self, entry: &Entry) -> (Publication, Option<Instant>) {
        let (topic, payload, received, retain) = match entry {
            Entry::Event(alert, received) => (
                alert.event_topic().into(),
                alert_json(alert, *received),
                *received,
                false,
            ),
            Entry::Retained(topic) => {
                let shown = self.lock().shown.get(topic).cloned().unwrap_or(Shown::Nothing);
                match shown {
                    Shown::Alert(alert, received) => (Arc::clone(topic), alert_json(&alert, received), received, true),
                    Shown::Json(json) => (Arc::clone(topic), json, None, true),
                    Shown::Nothing => (Arc::clone(topic), Bytes::new(), None, true),
                }
            }
        };
        let publication = Publication {
            topic,
            payload,
            qos: QoS::AtLeastOnce,
            retain,
        };
        (publication, received)
    }

    /// Sends until `stop`; what the broker does not take is tried again, for as long as it takes.
    pub async fn send(&self, publisher: &dyn Publisher, latencies: &Latencies, stop: CancellationToken) {
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < UNDER_WAY
                && let Some((number, entry)) = self.next()
            {
                let (publication, received) = self.publication(&entry);
                under_way.push(async move {
                    let result = publisher.publish(publication).await;
                    if let Some(received) = received.filter(|_| result.is_ok()) {
                        latencies.alert.record(received.elapsed());
                    }
                    (number, result)
                });
            }
            tokio::select! {
                Some((number, result)) = under_way.next(), if !under_way.is_empty() => {
                    if !self.settle(number, result) {
                        tokio::time::sleep(TRY_AGAIN).await;
                    }
                }
                () = self.wake.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// True when it is out or never will be; false when it has to be tried again, after a pause.
    fn settle(&self, number: u64, result: Result<(), PublishError>) -> bool {
        let mut waiting = self.lock();
        let Some(entry) = waiting.under_way.remove(&number) else {
            return true;
        };
        match result {
            Ok(()) => {
                metrics::counter!("usher_published_total").increment(1);
                if let Entry::Retained(topic) = &entry
                    && !waiting.queued.contains(topic)
                {
                    waiting.shown.remove(topic);
                }
                true
            }
            Err(PublishError::Unconfirmed { topic, reason }) => {
                tracing::warn!(topic, reason, "not confirmed by the broker; it will be sent again");
                if let Entry::Retained(topic) = &entry
                    && !waiting.queued.insert(Arc::clone(topic))
                {
                    return false;
                }
                waiting.urgent.push_front(entry);
                false
            }
            Err(error) => {
                tracing::error!(%error, "a message can't go out");
                metrics::counter!("usher_publish_failures_total").increment(1);
                true
            }
        }
    }
}

/// The alert as JSON, with the time until now as the last stage.
fn alert_json(alert: &Alert, received: Option<Instant>) -> Bytes {
    let sent = received.map(|received| {
        let mut alert = alert.clone();
        alert.trace.sent_us = u64::try_from(received.elapsed().as_micros()).unwrap_or(u64::MAX);
        alert
    });
    serde_json::to_vec(sent.as_ref().unwrap_or(alert))
        .expect("an alert is always JSON")
        .into()
}
