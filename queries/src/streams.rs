//! The built-in streams and their columns, as CONTRACT names them.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// The event-time column of every built-in stream.
pub const EVENT_TIME: &str = "event_time";
/// The event-id column of every built-in stream.
pub const EVENT_ID: &str = "event_id";
/// The built-in streams of events, in the order in which a step feeds them.
pub const EVENT_STREAMS: [&str; 5] = ["gate", "seat", "rfid", "click", "reply"];
/// The stream of rows that came too late for a window.
pub const LATE: &str = "late";

/// The type of every time column: microseconds since the Unix epoch, UTC.
pub fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

fn optional(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

/// The columns of a built-in stream, or `None` for a name that is not one.
///
/// `gate`: passages of people. `seat`: a seat's state. `rfid`: reads, check-outs and check-ins. `click`: web and
/// catalogue actions. `reply`: answers to messages. `late`: what a window could not take any more.
pub fn stream_schema(name: &str) -> Option<SchemaRef> {
    // Made once: a row by itself asks for it at each event.
    static SCHEMAS: LazyLock<Vec<(&str, SchemaRef)>> = LazyLock::new(|| {
        EVENT_STREAMS
            .into_iter()
            .chain([LATE])
            .filter_map(|name| Some((name, new_schema(name)?)))
            .collect()
    });
    let (_, schema) = SCHEMAS.iter().find(|(stream, _)| *stream == name)?;
    Some(Arc::clone(schema))
}

fn new_schema(name: &str) -> Option<SchemaRef> {
    use DataType::{Float64, Int64, Utf8};
    let mut fields = vec![
        field(EVENT_ID, Utf8),
        field(EVENT_TIME, time_type()),
        field("received_at", time_type()),
        field("site", Utf8),
        field("zone", Utf8),
        field("device", Utf8),
    ];
    let own = match name {
        "gate" => vec![field("entered", Int64), field("exited", Int64)],
        "seat" => vec![field("seat", Utf8), field("state", Utf8)],
        "rfid" => vec![
            field("tag", Utf8),
            optional("antenna", Int64),
            optional("rssi_dbm", Float64),
            field("action", Utf8),
            optional("person", Utf8),
        ],
        "click" => vec![
            optional("person", Utf8),
            optional("session", Utf8),
            field("action", Utf8),
            optional("query", Utf8),
            optional("results", Int64),
            optional("item", Utf8),
            optional("page", Utf8),
            field("count", Int64),
        ],
        "reply" => vec![
            field("person", Utf8),
            field("message", Utf8),
            field("response", Utf8),
            optional("rating", Int64),
        ],
        LATE => {
            return Some(Arc::new(Schema::new(vec![
                field("query", Utf8),
                optional(EVENT_ID, Utf8),
                field(EVENT_TIME, time_type()),
                field("watermark", time_type()),
                field("reason", Utf8),
            ])));
        }
        _ => return None,
    };
    fields.extend(own);
    Some(Arc::new(Schema::new(fields)))
}
