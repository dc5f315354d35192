//! A record is what the log keeps: all that the state of the engine is a function of.

use serde::{Deserialize, Serialize};

use crate::alerts::Action;
use crate::event::Event;
use crate::refused::Refusal;

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
    /// The engine began to listen, microseconds since 1970.
    Started {
        /// By our clock.
        at_us: i64,
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
