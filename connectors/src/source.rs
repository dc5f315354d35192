//! A source brings messages in and acknowledges those that were taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::BoxFuture;
use crate::delivery::Delivery;

/// Where messages come from.
///
/// The contract, and who sees to it:
/// - Messages of one connection are sent in the order in which they arrived (checked by the contract suite).
/// - A message of QoS 1 or 2 is acknowledged to its sender only after `Ack::done` (checked).
/// - Acknowledgements go out in the order of arrival, each exactly once (checked).
/// - A message whose `Ack` was dropped, or still open at the end, is not acknowledged and comes again (checked).
/// - A lost connection is no end: the source reconnects until it is stopped (checked).
/// - A source that was stopped can be run again (checked).
/// - QoS 0 may be shed when the receiver is slow, and is counted (checked).
/// - What was handed over and is not acknowledged yet stays within its bytes; others wait for that (checked).
/// - The receiver calls `done` only after its durable append (trusted).
/// - The receiver keeps taking; a receiver that stops makes publishers wait (trusted).
pub trait Source: Send + Sync + 'static {
    /// Runs until `stop`. Every message goes to `out`, which is bounded: when it is full the source waits. So it does when what
    /// is not acknowledged yet has as many bytes as it was told to allow. After it has ended, also by a panic, it can be run
    /// again, never twice at a time.
    ///
    /// # Errors
    /// Only what waiting cannot mend; anything about the network is retried.
    fn run(
        self: Arc<Self>,
        out: mpsc::Sender<Delivery>,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<(), SourceError>>;

    /// How the source is, now and at each change.
    fn health(&self) -> watch::Receiver<Health>;
}

/// How a source is, in words for a status page and in figures for a dashboard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// True while messages can arrive.
    pub connected: bool,
    /// What is going on, in words.
    pub detail: String,
    /// Connections made after the first one.
    pub reconnects: u64,
    /// Messages received, since the start.
    pub received: u64,
    /// Messages of QoS 0 dropped because the receiver was slow, since the start.
    pub shed: u64,
    /// Messages of QoS 0 dropped because nothing was being received, or because the source stopped before they were handed
    /// over, since the start.
    pub shed_not_receiving: u64,
}

/// Why a source gave up.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The receiving end is gone, so there is nobody to hand messages to.
    #[error("nobody takes messages from {0} any more: the receiving end was closed")]
    ReceiverGone(String),
    /// What was configured cannot work, however long one waits.
    #[error("{0}")]
    Misconfigured(String),
}

/// How often figures are shown on; changes of state are shown at once.
pub(crate) const REFRESH: Duration = Duration::from_millis(500);

/// Where a source writes down how it is. Counting is cheap, telling others happens now and then.
#[derive(Debug)]
pub(crate) struct HealthBoard {
    shown: watch::Sender<Health>,
    received: AtomicU64,
    shed: AtomicU64,
    shed_not_receiving: AtomicU64,
}

impl HealthBoard {
    pub(crate) fn new(detail: &str) -> Self {
        let health = Health {
            detail: detail.to_owned(),
            ..Health::default()
        };
        Self {
            shown: watch::Sender::new(health),
            received: AtomicU64::new(0),
            shed: AtomicU64::new(0),
            shed_not_receiving: AtomicU64::new(0),
        }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Health> {
        self.shown.subscribe()
    }

    pub(crate) fn count_received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_shed_not_receiving(&self) {
        self.shed_not_receiving.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn shed_not_receiving(&self) -> u64 {
        self.shed_not_receiving.load(Ordering::Relaxed)
    }

    /// Whatever the reason.
    pub(crate) fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed) + self.shed_not_receiving()
    }

    /// Shows a new state.
    pub(crate) fn show(&self, connected: bool, detail: String, reconnects: u64) {
        let figures = self.figures();
        self.shown.send_replace(Health {
            connected,
            detail,
            reconnects,
            ..figures
        });
    }

    /// Shows the figures as they are now.
    pub(crate) fn refresh(&self) {
        let now = self.figures();
        self.shown.send_if_modified(|health| {
            let shown = (health.received, health.shed, health.shed_not_receiving);
            (health.received, health.shed) = (now.received, now.shed);
            health.shed_not_receiving = now.shed_not_receiving;
            shown != (now.received, now.shed, now.shed_not_receiving)
        });
    }

    fn figures(&self) -> Health {
        Health {
            received: self.received.load(Ordering::Relaxed),
            shed: self.shed.load(Ordering::Relaxed),
            shed_not_receiving: self.shed_not_receiving(),
            ..Health::default()
        }
    }
}
