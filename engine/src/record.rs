//! A record is what the log keeps: all that the state of the engine is a function of.

use serde::{Deserialize, Serialize};

use crate::alerts::Action;
use crate::erasure::{Done, Erasure};
use crate::event::Event;
use crate::identity::TableChange;
use crate::lookups::Look;
use crate::people::Past;
use crate::points::PointsDeed;
use crate::refused::Refusal;
use crate::shed::ShedReason;

/// The version of the records' form; written before each.
const VERSION: u8 = 1;

/// One record of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// Something was perceived.
    Event(Event),
    /// Something could not be read.
    Refused(Refusal),
    /// Staff did something to an alert.
    Acted(Action),
    /// The engine began to listen, at its start or when it took messages again, microseconds since 1970.
    Started {
        /// By our clock.
        at_us: i64,
    },
    /// Time alone raised or ended alerts, microseconds since 1970.
    Ticked {
        /// By our clock.
        at_us: i64,
    },
    /// A query that had stopped began anew.
    QueryRestarted {
        /// Its name.
        query: String,
    },
    /// Messages that nobody waits for were dropped.
    Shed {
        /// By our clock, microseconds since 1970.
        at_us: i64,
        /// Why.
        reason: ShedReason,
        /// How many since the last time.
        messages: u64,
    },
    /// Something was done to a person's points.
    Points(PointsDeed),
    /// The reference table of identities has changed between two starts.
    Identities {
        /// By our clock, microseconds since 1970.
        at_us: i64,
        /// What has.
        change: TableChange,
    },
    /// The log was gone through for the past of persons whose names were said to be theirs, or not.
    Repaired {
        /// By our clock, microseconds since 1970.
        at_us: i64,
        /// What it says.
        pasts: Vec<Past>,
    },
    /// Somebody was shown what is known of people.
    Looked(Look),
    /// Staff did something to an alert about a person.
    ActedOnPerson {
        /// The pseudonym.
        person: String,
        /// What.
        action: Action,
    },
    /// A person is to be erased, out of everything that came before.
    Erased(Erasure),
    /// An erasure is through: nothing of the person is left before it.
    ErasureDone(Done),
    /// What stood here was about a person who was erased.
    Removed,
    /// An event stood here that was older than its stream is kept.
    Expired {
        /// By what it is known when it comes again, [`dedup_key`](crate::event::dedup_key).
        key: u128,
    },
}

/// Why a record can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// There is nothing.
    #[error("the record is empty")]
    Empty,
    /// Another Usher wrote it.
    #[error("the record has form {0}; this Usher reads form {VERSION}")]
    OtherVersion(u8),
    /// It is not what was written.
    #[error("the record can't be read: {0}")]
    Damaged(String),
}

impl Record {
    /// The record as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).expect("a record in memory can always be written to memory")
    }

    /// An event as the bytes of its record.
    pub fn event_to_bytes(event: &Event) -> Vec<u8> {
        // The number of the first of the records stands before it, as in `to_bytes`; a test holds the two together.
        postcard::to_extend(event, vec![VERSION, 0]).expect("a record in memory can always be written to memory")
    }

    /// By what a change of the table of identities is known, as an event is by
    /// [`dedup_key`](crate::event::dedup_key). No two have the same time, and what one says changes when a person is erased.
    pub fn identities_key(at_us: i64) -> u128 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"identities");
        hasher.update(&at_us.to_le_bytes());
        let mut short = [0; 16];
        short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        u128::from_le_bytes(short)
    }

    /// Reads what [`Record::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`RecordError`] in words.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        match bytes.split_first() {
            None => Err(RecordError::Empty),
            Some((&VERSION, rest)) => {
                postcard::from_bytes(rest).map_err(|error| RecordError::Damaged(error.to_string()))
            }
            Some((version, _)) => Err(RecordError::OtherVersion(*version)),
        }
    }
}
