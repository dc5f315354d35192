//! Tables are what a bounded question can read: the streams as they were recorded, and what stands now.

use std::sync::Arc;

use arrow::array::RecordBatch;
use usher_connectors::log::{Log, LogError, Offset};
use usher_queries::bounded::Recorded;
use usher_queries::query_set::QuerySet;
use usher_queries::streams::{EVENT_STREAMS, stream_schema};
use usher_queries::watermark::WatermarkOptions;

use crate::columns::flow_of;
use crate::event::{Event, Kind};
use crate::people::people_schema;
use crate::perception::{Observing, Perception, observe_all};
use crate::record::Record;

/// Events of the log that a question reads at most, the newest.
pub const RECENT_EVENTS: u64 = 200_000;
/// Records read at once.
const READ_RECORDS: usize = 4_096;
/// Bytes read at once.
const READ_BYTES: usize = 8 << 20;

/// The events as the five streams, by name, each with its columns even where nothing came.
pub fn streams_of(events: &[Event]) -> Recorded {
    // Bounded questions know no lateness; only the differences of totals are wanted here.
    let mut observing = Observing::new(WatermarkOptions {
        delay_us: 0,
        idle_us: i64::MAX,
    });
    let observed = observe_all(&mut observing, events);
    let mut streams = Recorded::new();
    for name in EVENT_STREAMS {
        let Some(schema) = stream_schema(name) else { continue };
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == name);
        let batch = kind
            .and_then(|kind| flow_of(kind, &observed))
            .map_or_else(|| RecordBatch::new_empty(Arc::clone(&schema)), |flow| flow.batch);
        streams.insert(name.to_owned(), (schema, vec![batch]));
    }
    streams
}

/// The newest events of the log, at most `count`, oldest first. Blocks on the disk.
///
/// # Errors
/// When the log can't be read.
pub fn recent_events(log: &dyn Log, count: u64) -> Result<Vec<Event>, LogError> {
    let end = log.durable();
    let mut at = Offset(end.0.saturating_sub(count).max(log.oldest().0));
    let mut events = Vec::new();
    while at < end {
        let rows = match log.read(at, READ_RECORDS, READ_BYTES) {
            Ok(rows) => rows,
            Err(LogError::Damaged { resume, .. }) => {
                at = resume;
                continue;
            }
            Err(LogError::Expired(oldest)) => {
                at = oldest;
                continue;
            }
            Err(error) => return Err(error),
        };
        let Some((last, _)) = rows.last() else { break };
        at = Offset(last.0 + 1);
        events.extend(rows.iter().filter_map(|(_, bytes)| match Record::from_bytes(bytes) {
            Ok(Record::Event(event)) => Some(event),
            _ => None,
        }));
    }
    Ok(events)
}

/// Whether SQL mentions a name as a word; more than it reads does no harm, less would.
pub fn mentions(sql: &str, name: &str) -> bool {
    let sql = sql.to_lowercase();
    sql.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|word| word == name)
}

/// What stands now and `sql` mentions: reference tables, `people`, and each query's rows under its name.
pub fn standing(perception: &mut Perception, sql: &str) -> Recorded {
    let mut tables = Recorded::new();
    references_of(&perception.queries, &mut tables);
    if mentions(sql, "people") {
        let table = perception.people.table(perception.clock_us().unwrap_or(0));
        tables.insert("people".to_owned(), (people_schema(), vec![table]));
    }
    let names: Vec<String> = perception
        .queries
        .queries()
        .iter()
        .map(|query| query.name().to_string())
        .filter(|name| mentions(sql, name))
        .collect();
    for name in names {
        match perception.queries.peek(&name) {
            Ok(Some((schema, batch))) => {
                tables.insert(name, (schema, vec![batch]));
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(query = name, %error, "its rows can't be shown"),
        }
    }
    tables
}

/// Adds the reference tables of a query set.
pub fn references_of(queries: &QuerySet, tables: &mut Recorded) {
    for (name, batch) in queries.references().iter() {
        tables.insert(name.to_owned(), (batch.schema(), vec![batch.clone()]));
    }
}

/// The streams' names that `sql` mentions.
pub fn mentions_streams(sql: &str) -> bool {
    EVENT_STREAMS.iter().any(|name| mentions(sql, name))
}
