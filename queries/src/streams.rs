//! The built-in streams and their columns, as CONTRACT names them.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// The event-time column of every built-in stream.
pub const EVENT_TIME: &str = "event_time";
/// The event-id column of every built-in stream.
pub const EVENT_ID: &str = "event_id";
/// The built-in streams of events, in the order in which a step feeds them.
pub const EVENT_STREAMS: [&str; 7] = ["gate", "seat", "rfid", "click", "reply", "identify", "consent"];
/// All streams but [`LATE`], in that order.
pub const STREAMS: [&str; 10] = [
    "gate", "seat", "rfid", "click", "reply", "identify", "consent", VISIT, ENGAGEMENT, MESSAGE,
];
/// The streams that are worked out from those of events: visits of persons that ended, changes of their engagement, and what
/// became of messages to them.
pub const DERIVED_STREAMS: [&str; 3] = [VISIT, ENGAGEMENT, MESSAGE];
/// The stream of visits, a row for each that has ended.
pub const VISIT: &str = "visit";
/// The stream of changes of persons' life cycle and tier.
pub const ENGAGEMENT: &str = "engagement";
/// The stream of messages to persons, a row for each change of a message's state, and one when it is first rated. Queries find what is written, so that what
/// reads it goes on behind all others.
pub const MESSAGE: &str = "message";
/// How long after a person was last seen a visit is over, microseconds, where nobody says: so far its row is behind the
/// watermark.
pub const VISIT_GAP_US: i64 = 45 * 60 * 1_000_000;
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
/// catalogue actions. `reply`: answers to messages. `identify`: which names are one person. `consent`: what persons agree to. `visit`, `engagement` and `message`:
/// what is worked out from these of persons.
/// `late`: what a window could not take any more.
pub fn stream_schema(name: &str) -> Option<SchemaRef> {
    // Made once: a row by itself asks for it at each event.
    static SCHEMAS: LazyLock<Vec<(&str, SchemaRef)>> = LazyLock::new(|| {
        STREAMS
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
    if DERIVED_STREAMS.contains(&name) {
        return Some(Arc::new(Schema::new(derived_fields(name))));
    }
    let mut fields = vec![
        field(EVENT_ID, Utf8),
        field(EVENT_TIME, time_type()),
        field("received_at", time_type()),
        field("site", Utf8),
        field("zone", Utf8),
        field("device", Utf8),
    ];
    let own = match name {
        "gate" => vec![
            field("entered", Int64),
            field("exited", Int64),
            // Where nobody counted before it, nothing is known.
            optional("inside", Int64),
        ],
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
            // Of somebody who was erased neither is known.
            optional("person", Utf8),
            optional("message", Utf8),
            field("response", Utf8),
            optional("rating", Int64),
        ],
        "identify" => vec![field("person", Utf8), field("also", Utf8), field("action", Utf8)],
        "consent" => vec![
            // Of somebody who refuses to be told apart nobody hears who it is.
            optional("person", Utf8),
            field("purposes", Utf8),
            field("action", Utf8),
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

/// How far the rows of a stream may lie behind the watermark at which they come, microseconds.
pub(crate) fn stream_lag_us(name: &str) -> i64 {
    if name == VISIT { VISIT_GAP_US } else { 0 }
}

fn derived_fields(name: &str) -> Vec<Field> {
    use DataType::{Boolean, Float64, Int64, Utf8};
    let mut fields = vec![
        field(EVENT_ID, Utf8),
        field(EVENT_TIME, time_type()),
        field("site", Utf8),
    ];
    fields.extend(match name {
        VISIT => vec![
            field("zone", Utf8),
            field("person", Utf8),
            field("visit_start", time_type()),
            field("visit_end", time_type()),
            field("dwell_us", Int64),
            field("channels", Int64),
            field("services", Int64),
            field("used", Utf8),
            field("loans", Int64),
            field("searches", Int64),
            field("searches_told", Int64),
            field("searches_found", Int64),
            field("clicks", Int64),
            field("events", Int64),
            field("visit_number", Int64),
            field("is_first", Boolean),
            field("first_visit", time_type()),
            field("first_visit_end", time_type()),
            field("first_site", Utf8),
            optional("days_since", Float64),
            optional("usual_gap_days", Float64),
        ],
        MESSAGE => vec![
            optional("zone", Utf8),
            // Of somebody who does not want to be told apart any more nobody hears whose it was.
            optional("person", Utf8),
            field("message", Utf8),
            field("rule", Utf8),
            field("kind", Utf8),
            field("state", Utf8),
            optional("reason", Utf8),
            field("priority", Int64),
            field("decided_at", time_type()),
            optional("points", Int64),
            optional("rating", Int64),
        ],
        _ => vec![
            field("person", Utf8),
            optional("site_before", Utf8),
            optional("life_cycle_before", Utf8),
            field("life_cycle", Utf8),
            optional("tier_before", Utf8),
            field("tier", Utf8),
            field("score", Float64),
            field("reason", Utf8),
            field("visits", Int64),
            field("days_away", Float64),
            field("usual_gap_days", Float64),
        ],
    });
    fields
}
