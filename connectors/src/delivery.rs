//! A delivery is a message together with the right to acknowledge it.

use tokio::sync::oneshot;

use crate::message::Message;
use crate::room::Taken;

/// A message on its way in, and what tells its source that it has been taken.
#[derive(Debug)]
pub struct Delivery {
    /// What arrived.
    pub message: Message,
    /// To be called once the message is durable.
    pub ack: Ack,
}

/// The right to acknowledge one message.
///
/// Dropping it without [`Ack::done`] means "not taken": the source does not acknowledge, and the publisher
/// or the broker sends the message again after its next connection.
#[derive(Debug)]
#[must_use = "a dropped Ack means that the message was not taken"]
pub struct Ack {
    waiting: Option<oneshot::Sender<()>>,
    /// What the message takes of its source's room, free again once this is called or dropped.
    room: Taken,
}

impl Ack {
    /// An acknowledgement and the end that hears of it: `Ok` when done, `Err` when dropped.
    pub fn pair() -> (Ack, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let ack = Ack {
            waiting: Some(sender),
            room: Taken::default(),
        };
        (ack, receiver)
    }

    /// For a message that nobody waits for, such as one of QoS 0.
    pub fn none() -> Ack {
        Ack {
            waiting: None,
            room: Taken::default(),
        }
    }

    /// The same, holding the room that its message takes.
    pub(crate) fn holding(self, room: Taken) -> Ack {
        Ack { room, ..self }
    }

    /// Says that the message has been taken for good.
    pub fn done(self) {
        drop(self.room);
        if let Some(sender) = self.waiting {
            // Nobody listening any more means that the connection is gone; the message will come again.
            let _ = sender.send(());
        }
    }
}
