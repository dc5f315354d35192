//! A publisher sends messages out and knows when the broker has them.

use std::sync::Arc;

use bytes::Bytes;

use crate::BoxFuture;
use crate::message::QoS;

/// One message on its way out.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The MQTT topic, without wildcards.
    pub topic: Arc<str>,
    /// The payload. Empty with `retain` clears what the broker retains under this topic.
    pub payload: Bytes,
    /// How hard to try.
    pub qos: QoS,
    /// Whether the broker keeps it for those who subscribe later.
    pub retain: bool,
}

/// Where messages go out.
///
/// - The future resolves when the broker has taken the message: QoS 1 at its PUBACK, QoS 2 at its PUBCOMP (checked).
/// - Publications of one caller, each awaited or not, leave in the order of the calls' first poll (checked).
/// - Nothing is kept across a restart: what was not resolved must be sent again by the caller (trusted).
pub trait Publisher: Send + Sync + 'static {
    /// Publishes. The number on their way is bounded; beyond it this waits.
    ///
    /// # Errors
    /// [`PublishError`] says whether sending again can help.
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<(), PublishError>>;

    /// The next topic that the broker retained something under when it was connected, of those that whoever made this
    /// publisher asked about. All of them, as far as the broker names them and somebody listens, are told at each
    /// connection, also what went out through here; none is told when it changes. Never resolves where the broker keeps nothing
    /// for longer than this process.
    fn next_retained(&self) -> BoxFuture<'_, Arc<str>> {
        Box::pin(std::future::pending())
    }
}

/// Why a message did not go out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The topic cannot be published to.
    #[error("cannot publish to {topic:?}: {reason}")]
    BadTopic {
        /// The topic as given.
        topic: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The payload is beyond what the broker takes.
    #[error(
        "a payload of {bytes} bytes is more than the {max} this broker takes; send less, or raise max_packet_bytes"
    )]
    TooLarge {
        /// Size of the payload.
        bytes: usize,
        /// The most that is taken.
        max: usize,
    },
    /// The broker answered no.
    #[error("the broker refused {topic:?}: {reason}")]
    Refused {
        /// The topic.
        topic: String,
        /// The broker's reason.
        reason: String,
    },
    /// It is unknown whether the broker has it; sending again is right, with the same id inside.
    #[error("unknown whether {topic:?} went out: {reason}; send it again")]
    Unconfirmed {
        /// The topic.
        topic: String,
        /// What happened.
        reason: String,
    },
    /// The publisher was shut down.
    #[error("the publisher is closed; nothing more goes out")]
    Closed,
}

/// Whether a topic may be published to: not empty, no wildcard, no NUL, at most 65,535 bytes.
pub(crate) fn check_topic(topic: &str) -> Result<(), PublishError> {
    let reason = if topic.is_empty() {
        "a topic has at least one character"
    } else if topic.contains(['#', '+']) {
        "'#' and '+' belong in subscriptions only"
    } else if topic.contains('\0') {
        "a topic has no NUL character"
    } else if topic.len() > usize::from(u16::MAX) {
        "a topic has at most 65535 bytes"
    } else {
        return Ok(());
    };
    Err(PublishError::BadTopic {
        topic: topic.to_owned(),
        reason: reason.to_owned(),
    })
}
