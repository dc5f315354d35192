//! Columns are made once from decoded events and shared by all queries: a flow a kind.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use usher_queries::flow::Flow;
use usher_queries::streams::stream_schema;

use crate::event::{Event, Kind, Reading};

/// An event with what the walk has found out about it before the queries see it.
#[derive(Debug, Clone)]
pub struct Observed<'a> {
    /// The event.
    pub event: &'a Event,
    /// The watermark that stood when it came, microseconds.
    pub watermark: i64,
    /// For a gate: people who passed (in, out), differences of totals worked out.
    pub passed: (i64, i64),
}

/// The events of one kind as a flow of the stream of that name; `None` when there are none.
///
/// Columns as [`stream_schema`] has them, rows in the order of `observed`.
pub fn flow_of(kind: Kind, observed: &[Observed<'_>]) -> Option<Flow> {
    let rows: Vec<&Observed<'_>> = observed
        .iter()
        .filter(|observed| observed.event.source.kind == kind)
        .collect();
    if rows.is_empty() {
        return None;
    }
    let ids: Arc<StringArray> = Arc::new(strings(&rows, |event| event.id.as_ref()));
    let mut columns: Vec<ArrayRef> = vec![
        Arc::clone(&ids) as ArrayRef,
        Arc::new(times(&rows, |event| event.time_us)),
        Arc::new(times(&rows, |event| event.received_us)),
        Arc::new(strings(&rows, |event| event.source.site.as_ref())),
        Arc::new(strings(&rows, |event| event.source.zone.as_ref())),
        Arc::new(strings(&rows, |event| event.source.device.as_ref())),
    ];
    columns.extend(own_columns(kind, &rows));
    let schema = stream_schema(kind.as_str())?;
    let batch = RecordBatch::try_new(schema, columns).expect("columns are built for the schema of their kind");
    Some(Flow {
        batch,
        watermarks: Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.watermark))),
        causes: ids,
    })
}

fn own_columns(kind: Kind, rows: &[&Observed<'_>]) -> Vec<ArrayRef> {
    match kind {
        Kind::Gate => vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.passed.0))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.passed.1))),
        ],
        Kind::Seat => vec![
            Arc::new(strings(rows, |event| event.source.device.as_ref())),
            optional_strings(rows, |reading| match reading {
                Reading::Seat { state } => Some(state.as_str()),
                _ => None,
            }),
        ],
        Kind::Rfid => vec![
            optional_strings(rows, |reading| match reading {
                Reading::Rfid { tag, .. } => Some(tag),
                _ => None,
            }),
            optional_integers(rows, |reading| match reading {
                Reading::Rfid { antenna, .. } => antenna.map(i64::from),
                _ => None,
            }),
            Arc::new(
                rows.iter()
                    .map(|row| match &row.event.reading {
                        Reading::Rfid { rssi_dbm, .. } => rssi_dbm.map(f64::from),
                        _ => None,
                    })
                    .collect::<Float64Array>(),
            ),
            optional_strings(rows, |reading| match reading {
                Reading::Rfid { action, .. } => Some(action.as_str()),
                _ => None,
            }),
            optional_strings(rows, person),
        ],
        Kind::Click => vec![
            optional_strings(rows, person),
            optional_strings(rows, |reading| match reading {
                Reading::Click { session, .. } => session.as_ref().map(|session| session.as_str()),
                _ => None,
            }),
            optional_strings(rows, |reading| match reading {
                Reading::Click { action, .. } => Some(action),
                _ => None,
            }),
            optional_strings(rows, |reading| match reading {
                Reading::Click { query, .. } => query.as_deref(),
                _ => None,
            }),
            optional_integers(rows, |reading| match reading {
                Reading::Click { results, .. } => *results,
                _ => None,
            }),
            optional_strings(rows, |reading| match reading {
                Reading::Click { item, .. } => item.as_deref(),
                _ => None,
            }),
            optional_strings(rows, |reading| match reading {
                Reading::Click { page, .. } => page.as_deref(),
                _ => None,
            }),
            optional_integers(rows, |reading| match reading {
                Reading::Click { count, .. } => Some(i64::from(*count)),
                _ => None,
            }),
        ],
        Kind::Reply => vec![
            optional_strings(rows, person),
            optional_strings(rows, |reading| match reading {
                Reading::Reply { message, .. } => Some(message),
                _ => None,
            }),
            optional_strings(rows, |reading| match reading {
                Reading::Reply { response, .. } => Some(response.as_str()),
                _ => None,
            }),
            optional_integers(rows, |reading| match reading {
                Reading::Reply { rating, .. } => rating.map(i64::from),
                _ => None,
            }),
        ],
    }
}

/// The pseudonym behind a reading, where there is one.
pub(crate) fn person(reading: &Reading) -> Option<&str> {
    match reading {
        Reading::Rfid { person, .. } | Reading::Click { person, .. } => person.as_ref().map(|person| person.as_str()),
        Reading::Reply { person, .. } => Some(person.as_str()),
        Reading::Gate(_) | Reading::Seat { .. } => None,
    }
}

fn strings<'a>(rows: &[&Observed<'a>], of: impl Fn(&'a Event) -> &'a str) -> StringArray {
    StringArray::from_iter_values(rows.iter().map(|row| of(row.event)))
}

fn times(rows: &[&Observed<'_>], of: impl Fn(&Event) -> i64) -> TimestampMicrosecondArray {
    TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| of(row.event)))
}

fn optional_strings<'a>(rows: &[&Observed<'a>], of: impl Fn(&'a Reading) -> Option<&'a str>) -> ArrayRef {
    Arc::new(rows.iter().map(|row| of(&row.event.reading)).collect::<StringArray>())
}

fn optional_integers(rows: &[&Observed<'_>], of: impl Fn(&Reading) -> Option<i64>) -> ArrayRef {
    Arc::new(rows.iter().map(|row| of(&row.event.reading)).collect::<Int64Array>())
}
