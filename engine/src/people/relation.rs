//! A relation is what a person and the library have of each other: what was asked for and got, what was offered and answered,
//! and visits in which the person took part.
//!
//! It lies in a box of its own beside the figures, for most people only come and search.

use serde::{Deserialize, Serialize};

use super::act::{OfItem, Reply};
use super::mail::OfMessages;
use super::rules::DAY_US;

/// A loan serves what was asked for no longer ago, as the measures of benefit have it.
const SERVED_WITHIN_US: i64 = 28 * DAY_US;
/// Requests of a person that a loan may still serve. Beyond it the one asked first stays unserved; somebody who asks for more
/// within four weeks is a program, or a course that shares a card.
pub(super) const OPEN_MAX: usize = 64;

/// What is there of who has none of it.
pub(super) static NOTHING: Relation = Relation {
    messages: OfMessages::NONE,
    replied: None,
    requests: 0,
    served: 0,
    took_part: 0,
    open: Vec::new(),
};

/// What a person asked for, was sent and answered, in figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Relation {
    /// Messages that went out to the person, and what became of them.
    pub(super) messages: OfMessages,
    /// The message that the person replied to last, be it one that was sent or not.
    replied: Option<Replied>,
    /// Requests of items.
    pub(super) requests: u32,
    /// Those of them that a loan served.
    pub(super) served: u32,
    /// Visits in which the person took part.
    pub(super) took_part: u32,
    /// Requests that a loan may still serve, in the order of their times.
    open: Vec<Request>,
}

/// What the person replied to a message.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Replied {
    /// The message, hashed.
    message: u64,
    is_opened: bool,
    is_answered: bool,
}

/// A request of an item.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Request {
    at_us: i64,
    /// The item at its site, hashed, which takes less than its name.
    item: u64,
}

impl Relation {
    /// The person replies; false where that says what the person said of the same message just before.
    pub(super) fn reply(&mut self, reply: Reply) -> bool {
        let (message, is_answer) = match reply {
            Reply::Opened(message) => (message, false),
            Reply::Answered(message) => (message, true),
        };
        let mut replied = self.replied.filter(|last| last.message == message).unwrap_or(Replied {
            message,
            is_opened: false,
            is_answered: false,
        });
        let is_said = match is_answer {
            false => std::mem::replace(&mut replied.is_opened, true),
            true => std::mem::replace(&mut replied.is_answered, true),
        };
        self.replied = Some(replied);
        !is_said
    }

    /// The person asked for an item, or borrowed one, at an event time.
    pub(super) fn deal(&mut self, at_us: i64, of: OfItem) {
        match of {
            OfItem::Asked(item) => self.ask(at_us, item),
            OfItem::Lent(item) => self.lend(at_us, item),
        }
    }

    fn ask(&mut self, at_us: i64, item: u64) {
        self.requests = self.requests.saturating_add(1);
        self.open
            .retain(|request| at_us.saturating_sub(request.at_us) <= SERVED_WITHIN_US);
        // What comes too late is not the last.
        let place = self.open.partition_point(|request| request.at_us <= at_us);
        self.open.insert(place, Request { at_us, item });
        if self.open.len() > OPEN_MAX {
            self.open.remove(0);
        }
    }

    /// All requests of the item that are not too long ago are served by one loan.
    fn lend(&mut self, at_us: i64, item: u64) {
        let is_served =
            |request: &Request| request.item == item && (0..=SERVED_WITHIN_US).contains(&(at_us - request.at_us));
        let before = self.open.len();
        self.open.retain(|request| !is_served(request));
        let served = u32::try_from(before - self.open.len()).unwrap_or(u32::MAX);
        self.served = self.served.saturating_add(served);
        if self.open.is_empty() {
            self.open = Vec::new();
        }
    }

    /// Of two who turn out to be one person, until the log tells what is.
    pub(super) fn merged(mut self, other: &Self) -> Self {
        self.messages = self.messages.plus(other.messages);
        self.replied = self.replied.or(other.replied);
        for (sum, more) in [
            (&mut self.requests, other.requests),
            (&mut self.served, other.served),
            (&mut self.took_part, other.took_part),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.open.extend(&other.open);
        self.open.sort_by_key(|request| (request.at_us, request.item));
        let beyond = self.open.len().saturating_sub(OPEN_MAX);
        self.open.drain(..beyond);
        self
    }

    /// What the person answered, of what was sent; `None` where nothing was.
    pub(super) fn answer_rate(&self) -> Option<f64> {
        let OfMessages {
            sent,
            accepted,
            declined,
        } = self.messages;
        share(f64::from(accepted) + f64::from(declined), f64::from(sent))
    }

    /// The share of answers that say yes; `None` where there is none.
    pub(super) fn says_yes(&self) -> Option<f64> {
        let accepted = f64::from(self.messages.accepted);
        share(accepted, accepted + f64::from(self.messages.declined))
    }
}

/// A part of a whole; `None` of nothing.
pub(super) fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}
