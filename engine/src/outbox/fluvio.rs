//! Steps to a Fluvio topic: each under its subject, in the partition of its site.

use std::sync::Arc;

use usher_connectors::BoxFuture;
use usher_connectors::fluvio::cluster::FluvioError;
use usher_connectors::fluvio::topic::{TopicWriter, VALUE_BYTES_MAX};

use super::news::News;
use super::receiver::{Sender, Sent};
use super::step::Told;

/// Sends to a topic.
pub(super) struct FluvioSender {
    pub(super) writer: Arc<TopicWriter>,
}

impl Sender for FluvioSender {
    fn kind(&self) -> &'static str {
        "fluvio"
    }

    fn address(&self) -> String {
        self.writer.address()
    }

    fn wants(&self, news: &News) -> bool {
        // The topic is of alerts.
        matches!(news, News::Alert(_))
    }

    fn send(&self, step: Arc<Told>) -> BoxFuture<'_, Sent> {
        Box::pin(async move {
            let value = step.to_json();
            if value.len() > VALUE_BYTES_MAX {
                return Sent::Refused(format!(
                    "it has {} bytes, and a record has at most {VALUE_BYTES_MAX}",
                    value.len()
                ));
            }
            // The site decides the partition, so that the steps of a subject stay in their order.
            match self.writer.send(step.news.key(), value).await {
                Ok(()) => Sent::Done,
                // Whatever is wrong, somebody can mend it, and then everything arrives.
                Err(
                    error @ (FluvioError::Unreachable { .. }
                    | FluvioError::Topic { .. }
                    | FluvioError::Tls(_)
                    | FluvioError::Thread(_)),
                ) => Sent::Later {
                    reason: error.to_string(),
                    peace: None,
                },
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::State;
    use crate::outbox::step::tests::alert;

    #[test]
    fn a_step_is_under_its_subject_and_the_site_comes_first() {
        let step = alert("a", "hall", State::Active);
        assert_eq!(
            News::from(&step).key(),
            format!("{}/{}/hall", step.site, step.subject.kind)
        );
    }
}
