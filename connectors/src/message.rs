//! A message is what a device or a broker handed over: a topic and bytes nobody here looks into.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

/// How hard MQTT tries to deliver a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    /// Sent once and forgotten; may be lost.
    AtMostOnce,
    /// Sent until acknowledged; may arrive twice.
    AtLeastOnce,
    /// Sent with a double handshake.
    ExactlyOnce,
}

impl fmt::Display for QoS {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QoS::AtMostOnce => "0",
            QoS::AtLeastOnce => "1",
            QoS::ExactlyOnce => "2",
        })
    }
}

/// One message as it arrived.
#[derive(Debug, Clone)]
pub struct Message {
    /// The MQTT topic.
    pub topic: Arc<str>,
    /// The payload, unread.
    pub payload: Bytes,
    /// The quality of service it was published with.
    pub qos: QoS,
    /// True when the publisher asked the broker to retain it, or the broker sent it from its retained ones.
    pub retain: bool,
    /// Wall clock at receipt, microseconds since 1970.
    pub received_us: i64,
    /// The same moment on the monotonic clock, for stage times.
    pub received: Instant,
}

impl Message {
    /// A message received now. Only the runtime's edge calls this; everything behind it is handed its time.
    pub fn received_now(topic: Arc<str>, payload: Bytes, qos: QoS, retain: bool) -> Self {
        Self {
            topic,
            payload,
            qos,
            retain,
            received_us: wall_clock_us(),
            received: Instant::now(),
        }
    }

    /// What it takes of its source's room: the bytes of topic and payload.
    pub(crate) fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len()
    }
}

/// Microseconds since 1970 by the wall clock; 0 for a clock before that.
pub(crate) fn wall_clock_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
