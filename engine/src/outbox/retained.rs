//! What the broker retains: of every topic the newest state, alerts before counts, until the broker has it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use usher_connectors::message::QoS;
use usher_connectors::publisher::{Publication, PublishError, Publisher};

use crate::alert::{Alert, level};
use crate::clock::Clock;
use crate::latency::Latencies;
use crate::zones::ZoneView;

/// Publications under way at a time; the broker's window is wider.
const UNDER_WAY: usize = 32;
/// How long to wait before trying again what the broker did not take.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How long the broker may retain what does not stand before it is cleared: what a crash took comes again when devices connect.
const STRAY_PATIENCE: Duration = Duration::from_secs(10);

/// What a topic should show to whoever subscribes late.
#[derive(Debug, Clone)]
pub(super) enum Shown {
    Alert(Arc<Alert>, Option<Instant>),
    Json(Bytes),
    Nothing,
}

#[derive(Default)]
struct Waiting {
    urgent: VecDeque<Arc<str>>,
    ordinary: VecDeque<Arc<str>>,
    shown: HashMap<Arc<str>, Shown>,
    queued: HashSet<Arc<str>>,
    /// Alerts that stand, by topic, the one that changed last at the end. Subjects of two zones may share a topic.
    standing: HashMap<Arc<str>, Vec<Arc<Alert>>>,
    /// Topics whose state was sent and is not confirmed yet, and whether there is a newer one since.
    under_way: BTreeMap<Arc<str>, bool>,
}

/// The newest state of every topic whose state the broker does not have yet.
#[derive(Default)]
pub(super) struct Retained {
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

impl Waiting {
    /// A topic shows this from now on.
    fn show(&mut self, topic: Arc<str>, shown: Shown) {
        let is_urgent = !matches!(shown, Shown::Json(_));
        self.shown.insert(Arc::clone(&topic), shown);
        self.queue(topic, is_urgent);
    }

    /// A topic has something to say. It says one thing at a time: of two that are under way, the older might come to the
    /// broker behind the newer, and would stand there.
    fn queue(&mut self, topic: Arc<str>, is_urgent: bool) {
        if let Some(is_newer) = self.under_way.get_mut(&topic) {
            *is_newer = true;
        } else if self.queued.insert(Arc::clone(&topic)) {
            match is_urgent {
                true => self.urgent.push_back(topic),
                false => self.ordinary.push_back(topic),
            }
        }
    }

    /// What was under way is the broker's, or will never be: what a topic shows need not be known any more, unless it is
    /// newer than that.
    fn is_over(&mut self, topic: Arc<str>, is_newer: bool) {
        match self.shown.get(&topic) {
            Some(shown) if is_newer => {
                let is_urgent = !matches!(shown, Shown::Json(_));
                self.queue(topic, is_urgent);
            }
            _ => {
                self.shown.remove(&topic);
            }
        }
    }
}

impl Retained {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no holder of this lock panics")
    }

    /// Shows what stands now under the alert's own topic: this one, or when it is over another that has the same topic.
    pub(super) fn show_alert(&self, alert: &Arc<Alert>, received: Option<Instant>) {
        let mut waiting = self.lock();
        let topic: Arc<str> = alert.topic().into();
        let standing = waiting.standing.entry(Arc::clone(&topic)).or_default();
        let was_shown = standing.last().is_none_or(|last| last.id == alert.id);
        standing.retain(|other| other.id != alert.id);
        let shown = if alert.state.is_standing() {
            standing.push(Arc::clone(alert));
            Shown::Alert(Arc::clone(alert), received)
        } else {
            match standing.last() {
                Some(_) if !was_shown => return,
                Some(other) => Shown::Alert(Arc::clone(other), None),
                None => {
                    waiting.standing.remove(&topic);
                    Shown::Nothing
                }
            }
        };
        waiting.show(topic, shown);
        drop(waiting);
        self.wake.notify_one();
    }

    /// Shows a zone's count.
    pub(super) fn show_zone(&self, zone: &ZoneView) {
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
        waiting.show(topic, Shown::Json(payload.into()));
        drop(waiting);
        self.wake.notify_one();
    }

    /// The broker retains something where alerts are shown. What stands there is ours to say: a crash may have taken from the log
    /// what raised an alert that was told already, and that may come again too late to raise it, or never.
    fn clear_stray(&self, topic: Arc<str>) {
        let mut waiting = self.lock();
        if waiting.standing.contains_key(&topic) || waiting.shown.contains_key(&topic) {
            return;
        }
        tracing::info!(%topic, "the broker retains an alert that does not stand; it is cleared there");
        waiting.show(topic, Shown::Nothing);
    }

    /// How much waits or is under way.
    pub(super) fn len(&self) -> usize {
        let waiting = self.lock();
        let newer = waiting.under_way.values().filter(|is_newer| **is_newer);
        waiting.urgent.len() + waiting.ordinary.len() + waiting.under_way.len() + newer.count()
    }

    /// What the broker does not have yet, for a checkpoint.
    pub(super) fn shown(&self) -> Vec<(Arc<str>, Shown)> {
        let waiting = self.lock();
        let topics = waiting.under_way.keys().chain(&waiting.urgent).chain(&waiting.ordinary);
        let shown = |topic: &Arc<str>| waiting.shown.get(topic).cloned().unwrap_or(Shown::Nothing);
        topics.map(|topic| (Arc::clone(topic), shown(topic))).collect()
    }

    /// Takes back what [`kept`] gave.
    pub(super) fn restore(&self, kept: Vec<(String, String)>) {
        let mut waiting = self.lock();
        for (topic, payload) in kept {
            let topic: Arc<str> = topic.into();
            let shown = if payload.is_empty() {
                Shown::Nothing
            } else {
                Shown::Json(payload.into())
            };
            waiting.shown.insert(Arc::clone(&topic), shown);
            waiting.queue(topic, true);
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// What is under way is in nobody's hands any more: it goes out again.
    fn give_back(&self) {
        let mut waiting = self.lock();
        for topic in std::mem::take(&mut waiting.under_way).into_keys() {
            waiting.queue(topic, true);
        }
    }

    fn next(&self) -> Option<Arc<str>> {
        let mut waiting = self.lock();
        let topic = waiting.urgent.pop_front().or_else(|| waiting.ordinary.pop_front())?;
        waiting.queued.remove(&topic);
        waiting.under_way.insert(Arc::clone(&topic), false);
        Some(topic)
    }

    fn publication(&self, topic: &Arc<str>, qos: QoS) -> (Publication, Option<Instant>) {
        let shown = self.lock().shown.get(topic).cloned().unwrap_or(Shown::Nothing);
        let (payload, received) = match shown {
            Shown::Alert(alert, received) => (alert_json(&alert, received), received),
            Shown::Json(json) => (json, None),
            Shown::Nothing => (Bytes::new(), None),
        };
        let publication = Publication {
            topic: Arc::clone(topic),
            payload,
            qos,
            retain: true,
        };
        (publication, received)
    }

    /// Sends until `stop`; what the broker does not take is tried again, for as long as it takes. By then all that stands has been
    /// shown, so that what else the broker has can be told from it.
    pub(super) async fn send(
        &self,
        publisher: &dyn Publisher,
        qos: QoS,
        latencies: &Latencies,
        clock: &dyn Clock,
        stop: CancellationToken,
    ) {
        // It may have failed before, with topics in its hands.
        self.give_back();
        let mut under_way = FuturesUnordered::new();
        let mut heard: VecDeque<(Instant, Arc<str>)> = VecDeque::new();
        loop {
            while heard.front().is_some_and(|(due, _)| *due <= clock.now())
                && let Some((_, topic)) = heard.pop_front()
            {
                self.clear_stray(topic);
            }
            while under_way.len() < UNDER_WAY
                && let Some(topic) = self.next()
            {
                let (publication, received) = self.publication(&topic, qos);
                under_way.push(async move {
                    let result = publisher.publish(publication).await;
                    if let Some(received) = received.filter(|_| result.is_ok()) {
                        latencies.alert.record(received.elapsed());
                    }
                    (topic, result)
                });
            }
            tokio::select! {
                // In this order, so that the same things happening give the same.
                biased;
                () = stop.cancelled() => return,
                Some((topic, result)) = under_way.next(), if !under_way.is_empty() => {
                    if !self.settle(topic, result) {
                        tokio::select! {
                            () = clock.sleep_until(clock.now() + TRY_AGAIN) => {}
                            () = stop.cancelled() => return,
                        }
                    }
                }
                topic = publisher.next_retained() => heard.push_back((clock.now() + STRAY_PATIENCE, topic)),
                () = async { match heard.front() {
                    Some((due, _)) => clock.sleep_until(*due).await,
                    None => std::future::pending().await,
                } } => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// True when it is out or never will be; false when it has to be tried again, after a pause.
    fn settle(&self, topic: Arc<str>, result: Result<(), PublishError>) -> bool {
        let mut waiting = self.lock();
        let Some(is_newer) = waiting.under_way.remove(&topic) else {
            return true;
        };
        match result {
            Ok(()) => {
                metrics::counter!("usher_published_total").increment(1);
                waiting.is_over(topic, is_newer);
                true
            }
            Err(PublishError::Unconfirmed { topic: told, reason }) => {
                tracing::warn!(
                    topic = told,
                    reason,
                    "not confirmed by the broker; it will be sent again"
                );
                if waiting.queued.insert(Arc::clone(&topic)) {
                    waiting.urgent.push_front(topic);
                }
                false
            }
            Err(error) => {
                tracing::error!(%error, "a message can't go out");
                metrics::counter!("usher_publish_failures_total").increment(1);
                waiting.is_over(topic, is_newer);
                true
            }
        }
    }
}

/// Of each topic its payload, which is empty where it is to be cleared.
pub(super) fn kept(shown: &[(Arc<str>, Shown)]) -> Result<Vec<(String, String)>, serde_json::Error> {
    let kept = shown.iter().map(|(topic, shown)| {
        let payload = match shown {
            Shown::Alert(alert, _) => serde_json::to_string(alert)?,
            Shown::Json(json) => String::from_utf8_lossy(json).into_owned(),
            Shown::Nothing => String::new(),
        };
        Ok((topic.to_string(), payload))
    });
    kept.collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::State;
    use crate::outbox::step::tests::alert;

    /// The id and the state of an alert; none for an empty payload.
    type Seen = Option<(String, String)>;

    /// What goes out next: its topic, and what is to be seen there.
    fn next(retained: &Retained) -> Option<(Arc<str>, Seen)> {
        let topic = retained.next()?;
        let (publication, _) = retained.publication(&topic, QoS::AtLeastOnce);
        let payload: Option<serde_json::Value> = serde_json::from_slice(&publication.payload).ok();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("").to_owned();
        Some((topic, payload.map(|alert| (text(&alert["id"]), text(&alert["state"])))))
    }

    fn of(id: &str, state: &str) -> Seen {
        Some((id.to_owned(), state.to_owned()))
    }

    fn unconfirmed() -> Result<(), PublishError> {
        Err(PublishError::Unconfirmed {
            topic: "usher/out/main/alert/crowded/hall".to_owned(),
            reason: "the connection is gone".to_owned(),
        })
    }

    #[test]
    fn a_newer_state_waits_until_the_broker_has_answered_for_the_one_before() {
        let retained = Retained::default();
        retained.show_alert(&alert("a", "hall", State::Active), None);
        let (topic, shown) = next(&retained).expect("it waits");
        assert_eq!(shown, of("a", "active"));
        retained.show_alert(&alert("a", "hall", State::Acknowledged), None);
        retained.show_alert(&alert("a", "hall", State::Recovering), None);
        assert_eq!(next(&retained), None, "of two under way the older could come last");
        assert_eq!((retained.len(), retained.shown().len()), (2, 1));
        retained.show_alert(&alert("b", "yard", State::Active), None);
        let (other, shown) = next(&retained).expect("no other topic waits for it");
        assert_eq!(shown, of("b", "active"));
        assert!(retained.settle(topic, Ok(())));
        let (topic, shown) = next(&retained).expect("it may go now");
        assert_eq!(shown, of("a", "recovering"));
        assert!(retained.settle(topic, Ok(())) && retained.settle(other, Ok(())));
        assert_eq!((next(&retained), retained.len()), (None, 0));
        assert!(
            retained.lock().shown.is_empty(),
            "nothing is kept of what the broker has"
        );
    }

    #[test]
    fn what_was_not_confirmed_goes_again_as_it_is_by_then() {
        let retained = Retained::default();
        retained.show_alert(&alert("a", "hall", State::Active), None);
        let (topic, _) = next(&retained).expect("it waits");
        retained.show_alert(&alert("a", "hall", State::Acknowledged), None);
        assert!(!retained.settle(topic, unconfirmed()));
        let (topic, shown) = next(&retained).expect("it goes again");
        assert_eq!(shown, of("a", "acknowledged"));
        // Whoever sent it fails.
        retained.give_back();
        assert_eq!(next(&retained), Some((Arc::clone(&topic), shown)));
        assert!(retained.settle(topic, Ok(())));
        assert_eq!(next(&retained), None);
    }

    #[test]
    fn what_the_broker_has_and_does_not_stand_is_cleared() {
        let retained = Retained::default();
        let (a, b) = (alert("a", "hall", State::Active), alert("b", "yard", State::Active));
        retained.show_alert(&a, None);
        retained.clear_stray(a.topic().into());
        let (topic, shown) = next(&retained).expect("it waits");
        assert_eq!(shown, of("a", "active"));
        retained.clear_stray(a.topic().into());
        assert!(retained.settle(topic, Ok(())));
        retained.clear_stray(a.topic().into());
        assert_eq!(next(&retained), None, "it stands");
        retained.clear_stray(b.topic().into());
        assert_eq!(retained.shown().len(), 1, "a checkpoint has it");
        let (topic, shown) = next(&retained).expect("it is cleared");
        assert_eq!((&*topic, shown), (b.topic().as_str(), None));
        assert!(retained.settle(topic, Ok(())));
        retained.show_alert(&b, None);
        retained.clear_stray(b.topic().into());
        assert_eq!(next(&retained).map(|(_, shown)| shown), Some(of("b", "active")));
    }

    #[test]
    fn a_topic_of_two_subjects_is_empty_when_neither_stands() {
        let retained = Retained::default();
        let shown = |id: &str, state| {
            retained.show_alert(&alert(id, "gate-1", state), None);
            next(&retained).map(|(topic, shown)| {
                assert!(retained.settle(topic, Ok(())));
                shown.map(|(id, _)| id)
            })
        };
        let id = |id: &str| Some(Some(id.to_owned()));
        assert_eq!(shown("a", State::Active), id("a"));
        assert_eq!(shown("b", State::Active), id("b"));
        assert_eq!(shown("a", State::Cleared), None, "b is shown already");
        assert_eq!(shown("a", State::Active), id("a"));
        assert_eq!(shown("a", State::Cleared), id("b"), "b still stands");
        assert_eq!(shown("b", State::Cleared), Some(None));
        assert_eq!(
            shown("b", State::Cleared),
            Some(None),
            "also of one not known to have stood"
        );
        assert!(retained.lock().standing.is_empty(), "nothing is kept of what is over");
    }
}
