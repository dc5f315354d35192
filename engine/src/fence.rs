//! A fence is shut when somebody else has this worker's partitions: nothing goes out behind it.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;
use usher_connectors::BoxFuture;
use usher_connectors::publisher::{Publication, PublishError, Publisher};

use crate::outbox::news::News;
use crate::outbox::receiver::{Sender, Sent};
use crate::outbox::step::Told;

/// Open until it is shut, and then shut for good. Clones are the same fence.
#[derive(Debug, Clone, Default)]
pub struct Fence {
    reason: Arc<OnceLock<String>>,
    shut: CancellationToken,
}

impl Fence {
    /// Shuts it; the first reason stays.
    pub fn shut(&self, reason: String) {
        let _ = self.reason.set(reason);
        self.shut.cancel();
    }

    /// Why it is shut.
    pub fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// Waits until it is shut, and gives the reason.
    pub async fn shut_at(&self) -> String {
        self.shut.cancelled().await;
        self.reason().unwrap_or_default().to_owned()
    }
}

/// Sends as long as the fence is open; behind it every step waits, for it is another's to send.
pub(crate) struct FencedSender {
    pub(crate) sender: Box<dyn Sender>,
    pub(crate) fence: Fence,
}

impl Sender for FencedSender {
    fn kind(&self) -> &'static str {
        self.sender.kind()
    }

    fn address(&self) -> String {
        self.sender.address()
    }

    fn wants(&self, news: &News) -> bool {
        self.sender.wants(news)
    }

    fn send(&self, step: Arc<Told>) -> BoxFuture<'_, Sent> {
        match self.fence.reason() {
            None => self.sender.send(step),
            Some(reason) => {
                let reason = reason.to_owned();
                Box::pin(async move { Sent::Later { reason, peace: None } })
            }
        }
    }
}

/// Publishes as long as the fence is open.
pub(crate) struct FencedPublisher {
    pub(crate) publisher: Arc<dyn Publisher>,
    pub(crate) fence: Fence,
}

impl Publisher for FencedPublisher {
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<(), PublishError>> {
        match self.fence.reason() {
            None => self.publisher.publish(publication),
            Some(_) => Box::pin(async { Err(PublishError::Closed) }),
        }
    }

    fn next_retained(&self) -> BoxFuture<'_, Arc<str>> {
        self.publisher.next_retained()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::alert::State;
    use crate::outbox::step::tests::alert;

    struct Counting(Arc<AtomicUsize>);

    impl Sender for Counting {
        fn kind(&self) -> &'static str {
            "counting"
        }

        fn address(&self) -> String {
            "here".to_owned()
        }

        fn wants(&self, _: &News) -> bool {
            true
        }

        fn send(&self, _: Arc<Told>) -> BoxFuture<'_, Sent> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Sent::Done })
        }
    }

    #[tokio::test]
    async fn behind_a_shut_fence_nothing_is_sent() {
        let (count, fence) = (Arc::new(AtomicUsize::new(0)), Fence::default());
        let sender = FencedSender {
            sender: Box::new(Counting(Arc::clone(&count))),
            fence: fence.clone(),
        };
        let id = "s-00000000000000000000000000000001".parse().expect("an id");
        let step = Arc::new(Told::new(
            1,
            id,
            News::from(&alert("a", "hall", State::Active)),
            0,
            None,
        ));
        assert_eq!(sender.send(Arc::clone(&step)).await, Sent::Done);
        fence.shut("taken over".to_owned());
        fence.shut("later".to_owned());
        let refused = sender.send(step).await;
        let later = Sent::Later {
            reason: "taken over".to_owned(),
            peace: None,
        };
        assert_eq!((refused, count.load(Ordering::Relaxed)), (later, 1));
        assert_eq!(fence.shut_at().await, "taken over");
    }
}
