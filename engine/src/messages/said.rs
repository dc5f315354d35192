//! What is said of messages: rows of the stream `message`, which queries and alerts read as those of events.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::SchemaRef;
use usher_queries::row::Row;
use usher_queries::streams::{MESSAGE, stream_schema};
use usher_queries::value::Value;

use super::message::{Message, Withheld};
use crate::derived_id::derived_id;

/// The state of a message whose person opted out before answering it.
const WITHDRAWN: &str = "withdrawn";

/// What is said of a message that is rated for the first time; it stays in its state.
const RATED: &str = "rated";

/// A message is in another state, or was rated.
#[derive(Debug, Clone)]
pub(super) struct Said {
    person: Arc<str>,
    message: Message,
    state: &'static str,
    /// When that was, microseconds.
    at_us: i64,
    /// The watermark at which it is known. A row is never late: what was earlier counts from here on.
    met_us: i64,
}

impl Said {
    /// A message that is in its state from `at_us` on, which is known at the watermark `met_us`.
    pub(super) fn turned(person: &Arc<str>, message: Message, at_us: i64, met_us: i64) -> Self {
        Self {
            person: Arc::clone(person),
            state: message.state.as_str(),
            message,
            at_us,
            met_us,
        }
    }

    /// A message that nobody will answer: its person does not want to be known any more.
    pub(super) fn withdrawn(person: &Arc<str>, message: Message, at_us: i64, met_us: i64) -> Self {
        Self {
            state: WITHDRAWN,
            ..Self::turned(person, message, at_us, met_us)
        }
    }

    /// A message that the person rates for the first time, be it open, answered or over.
    pub(super) fn rated(person: &Arc<str>, message: Message, at_us: i64, met_us: i64) -> Self {
        Self {
            state: RATED,
            ..Self::turned(person, message, at_us, met_us)
        }
    }

    /// Whose message it is.
    pub(super) fn person(&self) -> &str {
        &self.person
    }

    /// As a row of the stream.
    pub(super) fn row(&self) -> Row {
        let message = &self.message;
        let id: Arc<str> = derived_id('t', [message.id.as_str(), self.state]).into();
        let text = |text: &str| Value::Text(text.into());
        let values = [
            Value::Text(Arc::clone(&id)),
            Value::Time(self.at_us.max(self.met_us)),
            Value::Text(Arc::clone(&message.site)),
            message
                .zone
                .as_ref()
                .map_or(Value::Null, |zone| Value::Text(Arc::clone(zone))),
            Value::Text(Arc::clone(&self.person)),
            text(&message.id),
            Value::Text(Arc::clone(&message.rule)),
            Value::Text(Arc::clone(&message.kind)),
            text(self.state),
            message
                .withheld
                .map_or(Value::Null, |reason: Withheld| text(reason.as_str())),
            Value::Int(i64::from(message.priority)),
            Value::Time(message.at_us),
            message
                .points
                .map_or(Value::Null, |points| Value::Int(i64::from(points))),
            message
                .rating
                .map_or(Value::Null, |rating| Value::Int(i64::from(rating))),
        ];
        Row {
            schema: schema(),
            values: values.into(),
            watermark: self.met_us,
            cause: Some(id),
        }
    }
}

fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| stream_schema(MESSAGE).expect("the stream is built in"));
    Arc::clone(&SCHEMA)
}
