//! The entrance stands behind a connection to a broker of one's own: what comes in gets room there, waits for it, or is shed.

use std::sync::Arc;

use rumqttc::Publish;

use crate::room::{Room, Taken};
use crate::source::HealthBoard;

/// Where messages come in.
pub(crate) struct Entrance {
    pub(crate) room: Arc<Room>,
    pub(crate) health: Arc<HealthBoard>,
}

/// The way of one message from its connection to whoever takes it. A message of QoS 0 that is dropped on the way, with whatever
/// it lay in, is counted; others come again.
pub(crate) struct Passage {
    room: Taken,
    counted: Option<Arc<HealthBoard>>,
}

impl Entrance {
    /// Lets a message in once there is room. For one of QoS 0 nobody can wait: without room it is counted and shed.
    pub(crate) async fn admit(&self, publish: &Publish) -> Option<Passage> {
        let bytes = publish.topic.len() + publish.payload.len();
        if publish.qos != rumqttc::QoS::AtMostOnce {
            return Some(Passage {
                room: self.room.take(bytes).await,
                counted: None,
            });
        }
        let Some(room) = self.room.try_take(bytes) else {
            self.health.count_shed();
            self.health.count_received();
            return None;
        };
        Some(Passage {
            room,
            counted: Some(Arc::clone(&self.health)),
        })
    }
}

impl Passage {
    /// The message is handed over, or counted as something else; what is left is its room.
    pub(crate) fn end(mut self) -> Taken {
        self.counted = None;
        std::mem::take(&mut self.room)
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if let Some(health) = &self.counted {
            health.count_shed_not_receiving();
        }
    }
}
