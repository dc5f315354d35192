//! Tables are what a bounded question can read: the streams as they were recorded, and what stands now.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use rustc_hash::FxHashSet;
use usher_connectors::log::{Log, LogError, Offset};
use usher_queries::bounded::Recorded;
use usher_queries::query_set::QuerySet;
use usher_queries::row::{Row, Rows};
use usher_queries::streams::{DERIVED_STREAMS, EVENT_STREAMS, MESSAGE, STREAMS, stream_schema};
use usher_queries::value::Value;
use usher_queries::watermark::WatermarkOptions;

use crate::alert::Trace;
use crate::columns::flow_of;
use crate::consent::opted_out_by;
use crate::event::{Event, Kind};
use crate::people::{People, people_schema};
use crate::perception::{Observing, Perception, observe_all};
use crate::record::Record;
use crate::settings::EngagementSettings;
use crate::site::Places;

/// Events of the log that a question reads at most, the newest.
pub const RECENT_EVENTS: u64 = 200_000;
/// Records read at once.
const READ_RECORDS: usize = 4_096;
/// Bytes read at once.
const READ_BYTES: usize = 8 << 20;
/// The column `person` of the stream `message`.
const MESSAGE_PERSON: usize = 4;

/// The events as streams, by name, each with its columns even where nothing came. What is worked out from them is as if
/// nobody had been known before, up to the end of the last visit; nothing of who is among `opted_out`, or is by these events.
/// The stream `message` is empty: [`messages_of`] works it out where somebody asks for it.
pub fn streams_of(
    events: &[Event],
    engagement: &EngagementSettings,
    opted_out: FxHashSet<Arc<str>>,
    places: &Places,
) -> Recorded {
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
    let people = People::leaving_out(engagement.clone(), opted_out_by(opted_out, events));
    streams.extend(derived_of(events, people, places));
    streams
}

/// The streams that are worked out from events.
fn derived_of(events: &[Event], mut people: People, places: &Places) -> Recorded {
    for event in events {
        people.take(event, i64::MIN, places);
    }
    if let Some(newest_us) = events.iter().map(|event| event.time_us).max() {
        let gap_us = i64::try_from(people.settings().visit_gap.as_micros()).unwrap_or(i64::MAX);
        people.advance(newest_us.saturating_add(gap_us).saturating_add(1));
    }
    let said = people.drain();
    let streams = DERIVED_STREAMS.into_iter().filter_map(|name| {
        let schema = stream_schema(name)?;
        let batches = said.iter().filter(|(stream, _)| *stream == name);
        let batches = batches.map(|(_, rows)| rows.flow().batch.clone()).collect();
        Some((name.to_owned(), (schema, batches)))
    });
    streams.collect()
}

/// What became of messages, as rows of the stream `message`: what the rules of `perception`, which knows nothing yet, find in
/// these events, by the watermark `until_us`, or else when the last that was sent is over. Nothing of who is among `opted_out`.
pub fn messages_of(
    events: &[Event],
    mut perception: Perception,
    opted_out: &FxHashSet<Arc<str>>,
    until_us: Option<i64>,
) -> Vec<Row> {
    perception.keep_message_rows();
    for some in events.chunks(READ_RECORDS) {
        perception.take(some, &|_| Trace::default());
        perception.take_messages();
    }
    if let Some(newest_us) = events.iter().map(|event| event.time_us).max() {
        let micros = |duration: std::time::Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        let decided_us = newest_us
            .saturating_add(micros(perception.options().messages.moment))
            .saturating_add(1);
        perception.move_to(until_us.unwrap_or(decided_us));
        if let Some(open_us) = perception.messages.open_until().filter(|_| until_us.is_none()) {
            perception.move_to(open_us.saturating_add(1));
        }
    }
    let mut rows = perception.message_rows();
    rows.retain(|row| match &row.values[MESSAGE_PERSON] {
        Value::Text(person) => !opted_out.contains(person),
        _ => true,
    });
    rows
}

/// These rows as the stream `message` of a bounded question.
pub fn message_stream(rows: Vec<Row>) -> (SchemaRef, Vec<RecordBatch>) {
    let schema = stream_schema(MESSAGE).expect("the stream is built in");
    let rows = Rows::of(&schema, rows).expect("a row has the columns of its stream");
    (schema, vec![rows.flow().batch.clone()])
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
    STREAMS.iter().any(|name| mentions(sql, name))
}
