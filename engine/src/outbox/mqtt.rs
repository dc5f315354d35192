//! Steps over MQTT: each on the topic of its rule.

use std::sync::Arc;

use usher_connectors::BoxFuture;
use usher_connectors::message::QoS;
use usher_connectors::publisher::{Publication, PublishError, Publisher};

use super::news::News;
use super::receiver::{Sender, Sent};
use super::step::Told;
use crate::latency::Latencies;

/// Sends to a broker.
pub(super) struct MqttSender {
    pub(super) publisher: Arc<dyn Publisher>,
    pub(super) address: String,
    pub(super) qos: QoS,
    pub(super) latencies: Arc<Latencies>,
}

impl Sender for MqttSender {
    fn kind(&self) -> &'static str {
        "mqtt"
    }

    fn address(&self) -> String {
        self.address.clone()
    }

    fn wants(&self, _: &News) -> bool {
        true
    }

    fn send(&self, step: Arc<Told>) -> BoxFuture<'_, Sent> {
        Box::pin(async move {
            let publication = Publication {
                topic: step.news.topic().into(),
                payload: step.to_json(),
                qos: self.qos,
                retain: false,
            };
            match self.publisher.publish(publication).await {
                Ok(()) => {
                    metrics::counter!("usher_published_total").increment(1);
                    if let Some(received) = step.received {
                        self.latencies.alert.record(received.elapsed());
                    }
                    Sent::Done
                }
                Err(error @ (PublishError::Unconfirmed { .. } | PublishError::Closed)) => Sent::Later {
                    reason: error.to_string(),
                    peace: None,
                },
                Err(error) => {
                    metrics::counter!("usher_publish_failures_total").increment(1);
                    Sent::Refused(error.to_string())
                }
            }
        })
    }
}
