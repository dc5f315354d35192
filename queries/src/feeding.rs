//! Feeds random events to statements in every way and holds what they say against bounded runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::DataType;
use proptest::prelude::*;
use serde_json::Value as Json;

use crate::bounded::{self, Recorded};
use crate::budget::Budget;
use crate::capture::tests::Chain;
use crate::flow::Flow;
use crate::query::Output;
use crate::query_set::{QuerySet, Restored};
use crate::row::Rows;
use crate::rows::row_to_json;
use crate::snapshot::QuerySnapshot;
use crate::statement::parse_statements;
use crate::streams::{EVENT_STREAMS, LATE, stream_schema};

/// A second in microseconds.
pub(crate) const SECOND: i64 = 1_000_000;
/// How far events come out of order without being late, before any lateness.
const DELAY: i64 = 2 * SECOND;

/// An event as the tests have it.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// The stream it is of.
    pub(crate) stream: &'static str,
    /// Its event time.
    pub(crate) time: i64,
    /// The watermark it met.
    pub(crate) met: i64,
    /// The watermark behind it.
    pub(crate) left: i64,
    /// Its zone.
    pub(crate) zone: u8,
    /// Its person; most streams have none.
    pub(crate) person: Option<u8>,
    /// Whatever number its stream has.
    pub(crate) number: i64,
}

/// Random events of `streams`: some seconds apart, some of them back in time, some far too far.
pub(crate) fn events(streams: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<Event>> {
    let step = (
        0..streams.len(),
        0..5_i64,
        prop_oneof![4 => 0..4_i64, 1 => 0..20_i64],
        0..2_u8,
        0..4_u8,
        0..4_i64,
    );
    prop::collection::vec(step, 1..most).prop_map(|steps| {
        let (mut newest, mut watermark) = (1_000 * SECOND, i64::MIN);
        steps
            .into_iter()
            .map(|(stream, pause, back, zone, person, number)| {
                newest += pause * SECOND;
                let met = watermark;
                watermark = newest - DELAY;
                Event {
                    stream: streams[stream],
                    time: newest - back * SECOND,
                    met,
                    left: watermark,
                    zone,
                    person: (person > 0).then_some(person),
                    number,
                }
            })
            .collect()
    })
}

/// An event of zone 0 at so many seconds that met a watermark at so many seconds and moves it no further.
pub(crate) fn event(stream: &'static str, time: i64, met: i64) -> Event {
    Event {
        stream,
        time: time * SECOND,
        met: met * SECOND,
        left: met * SECOND,
        zone: 0,
        person: Some(1),
        number: 0,
    }
}

/// The mistake in `sql` beside the statements `before`, in words.
pub(crate) fn mistake(before: &str, sql: &str) -> String {
    let statement = parse_statements(sql).map(|mut statements| statements.remove(0));
    let error = statement.and_then(|statement| queries(before).check(statement).map(|_| ()));
    error.expect_err(sql).to_string()
}

/// Events of one stream; each with its number among all events as its id.
fn flow_of(stream: &str, events: &[(usize, &Event)]) -> Flow {
    let schema = stream_schema(stream).expect("a stream");
    let text = |of: &dyn Fn(&(usize, &Event)) -> Option<String>| -> ArrayRef {
        Arc::new(events.iter().map(of).collect::<StringArray>())
    };
    let columns: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .map(|field| match field.name().as_str() {
            "event_id" => text(&|(number, _)| Some(format!("e{number}"))),
            "event_time" | "received_at" => {
                let times = events.iter().map(|(_, event)| event.time);
                Arc::new(TimestampMicrosecondArray::from_iter_values(times)) as ArrayRef
            }
            "zone" => text(&|(_, event)| Some(format!("z{}", event.zone))),
            "person" => text(&|(_, event)| event.person.map(|person| format!("p{person}"))),
            _ if *field.data_type() == DataType::Int64 => Arc::new(Int64Array::from_iter_values(
                events.iter().map(|(_, event)| event.number),
            )),
            _ if !field.is_nullable() => text(&|_| Some("x".to_owned())),
            _ => new_null_array(field.data_type(), events.len()),
        })
        .collect();
    let causes = events.iter().map(|(number, _)| Some(format!("e{number}")));
    Flow {
        batch: RecordBatch::try_new(schema, columns).expect("the columns of the stream"),
        watermarks: Arc::new(events.iter().map(|(_, event)| event.met).collect::<Int64Array>()),
        causes: Arc::new(causes.collect::<StringArray>()),
    }
}

/// What statements said.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Said {
    /// The rows of each statement, sorted.
    pub(crate) rows: BTreeMap<String, Vec<String>>,
    /// The same with their causes and watermarks.
    pub(crate) traced: BTreeMap<String, Vec<String>>,
}

impl Said {
    fn of(outputs: &[Output]) -> Self {
        let mut said = Self::default();
        for output in outputs {
            let flow = output.rows.flow();
            for row in 0..flow.num_rows() {
                let text = Json::Object(row_to_json(&flow.batch, row)).to_string();
                let (met, cause) = (output.rows.watermark(row), output.rows.cause(row));
                let name = output.query.to_string();
                said.traced
                    .entry(name.clone())
                    .or_default()
                    .push(format!("{text} at {met} by {cause:?}"));
                said.rows.entry(name).or_default().push(text);
            }
        }
        said.rows
            .values_mut()
            .chain(said.traced.values_mut())
            .for_each(|rows| rows.sort());
        said
    }
}

/// The queries of these statements.
pub(crate) fn queries(sql: &str) -> QuerySet {
    let mut queries = QuerySet::new();
    let mistakes = queries.create_all(parse_statements(sql).expect("it can be read"));
    assert!(mistakes.is_empty(), "{mistakes:?}");
    queries
}

/// How time moves on between batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moving {
    /// All at once.
    AtOnce,
    /// All at once; then all state goes through bytes into new queries.
    Restarting,
    /// A row at a time, so many rows, then come the next events; what is left goes through bytes into new queries.
    InParts(usize),
}

/// Feeds `events` in batches of these sizes, over and over, and lets time run out. Then nothing is kept, but by queries
/// whose names begin with `over_running_`: their windows have no end.
pub(crate) fn feed(sql: &str, events: &[Event], sizes: &[usize], moving: Moving) -> Said {
    let mut outputs = Vec::new();
    let mut set = stepped(sql, events, sizes, moving, &mut outputs);
    set.advance(i64::MAX / 4, &mut outputs);
    for query in set.queries() {
        assert_eq!(query.broken(), None, "{} has stopped", query.name());
        if query.name().starts_with("over_running_") {
            continue;
        }
        let left = query.footprint();
        assert_eq!(left.keys, 0, "{} keeps rows that nothing finds", query.name());
        // Windows keep some memory for those that come next.
        if !query.name().starts_with("over_") {
            assert_eq!(left.bytes, 0, "{} has lost count of what it keeps", query.name());
        }
    }
    Said::of(&outputs)
}

/// The same one by one without the end of time.
pub(crate) fn feed_without_end(sql: &str, events: &[Event]) -> Said {
    let mut outputs = Vec::new();
    stepped(sql, events, &[1], Moving::AtOnce, &mut outputs);
    Said::of(&outputs)
}

/// Feeds events, each with its number, as one batch of each stream.
pub(crate) fn push(set: &mut QuerySet, events: &[(usize, &Event)], outputs: &mut Vec<Output>) {
    for stream in EVENT_STREAMS {
        let of_stream: Vec<(usize, &Event)> = events
            .iter()
            .copied()
            .filter(|(_, event)| event.stream == stream)
            .collect();
        if !of_stream.is_empty() {
            set.push(stream, &Rows::Many(flow_of(stream, &of_stream)), outputs);
        }
    }
}

fn stepped(sql: &str, events: &[Event], sizes: &[usize], moving: Moving, outputs: &mut Vec<Output>) -> QuerySet {
    let mut set = queries(sql);
    let (mut from, mut step, mut chain) = (0, 0, Chain::default());
    let mut sizes = sizes.iter().copied().cycle();
    while from < events.len() {
        let to = (from + sizes.next().unwrap_or(1)).min(events.len());
        let batch: Vec<(usize, &Event)> = (from..to).map(|number| (number, &events[number])).collect();
        push(&mut set, &batch, outputs);
        match moving {
            Moving::InParts(rows) => {
                set.advance_within(events[to - 1].left, Budget::one_part(1), outputs);
                for _ in 1..rows {
                    set.work(Budget::one_part(1), outputs);
                }
            }
            _ => set.advance(events[to - 1].left, outputs),
        }
        let snapshots: Option<Vec<QuerySnapshot>> = match moving {
            Moving::AtOnce => None,
            _ => chain.step(&mut set, step),
        };
        if let Some(snapshots) = snapshots {
            let watermark = set.watermark();
            set = queries(sql);
            let outcome = set.restore(watermark, &snapshots);
            assert!(
                outcome.iter().all(|(_, outcome)| *outcome == Restored::Kept),
                "{outcome:?}"
            );
        }
        (from, step) = (to, step + 1);
    }
    set
}

/// What bounded runs say over the events that are not late; each statement may read those before it.
pub(crate) fn bounded_rows(sql: &str, events: &[Event], lateness: i64) -> BTreeMap<String, Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime can be made");
    let mut recorded = Recorded::new();
    for stream in EVENT_STREAMS {
        let taken: Vec<(usize, &Event)> = (0..)
            .zip(events)
            .filter(|(_, event)| event.stream == stream && !is_late(event, lateness))
            .collect();
        let flow = flow_of(stream, &taken);
        recorded.insert(stream.to_owned(), (flow.batch.schema(), vec![flow.batch]));
    }
    let mut rows = BTreeMap::new();
    for statement in parse_statements(sql).expect("it can be read") {
        if statement.select.contains("FROM late") {
            continue;
        }
        let (schema, batches) = runtime
            .block_on(bounded::run(&statement.sql, &recorded))
            .unwrap_or_else(|error| panic!("{}, bounded: {error}", statement.name));
        let mut said: Vec<String> = batches
            .iter()
            .flat_map(|batch| (0..batch.num_rows()).map(|row| Json::Object(row_to_json(batch, row)).to_string()))
            .collect();
        said.sort();
        if !said.is_empty() {
            rows.insert(statement.name.clone(), said);
        }
        recorded.insert(statement.name, (schema, batches));
    }
    rows
}

fn is_late(event: &Event, lateness: i64) -> bool {
    event.time < event.met.saturating_sub(lateness)
}

/// Holds what `sql`, whose statements all have this lateness, says of `events` in every way against bounded runs, and
/// what it says of late rows against the events.
///
/// A statement `too_late` over the stream `late` is expected, and that each other one reads one of the streams itself
/// or the output of others. Names that begin with `over_` are those whose rows have no causes or watermarks of
/// their own.
pub(crate) fn check(sql: &str, events: &[Event], lateness: i64, sizes: &[usize]) -> Result<(), TestCaseError> {
    let singly = feed(sql, events, &[1], Moving::AtOnce);
    let bounded = bounded_rows(sql, events, lateness);
    let names: BTreeSet<&String> = singly.rows.keys().chain(bounded.keys()).collect();
    for name in names.into_iter().filter(|name| *name != "too_late") {
        prop_assert_eq!(
            singly.rows.get(name),
            bounded.get(name),
            "{} against a bounded run of {:#?}",
            name,
            events
        );
    }
    let reported: BTreeSet<&str> = singly
        .rows
        .get("too_late")
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let late: BTreeSet<String> = (0..)
        .zip(events)
        .filter(|(_, event)| is_late(event, lateness))
        .map(|(number, event)| format!("{{\"event_id\":\"e{number}\",\"stream\":\"{}\"}}", event.stream))
        .collect();
    prop_assert_eq!(reported.len(), late.len(), "{:?} of {:#?}", reported, events);
    let ways = [
        (sizes, Moving::AtOnce),
        (&[events.len()][..], Moving::AtOnce),
        (sizes, Moving::Restarting),
        (sizes, Moving::InParts(sizes[0])),
    ];
    for (sizes, moving) in ways {
        let said = feed(sql, events, sizes, moving);
        prop_assert_eq!(
            &said.rows,
            &singly.rows,
            "{:?} in batches of {:?} of {:#?}",
            moving,
            sizes,
            events
        );
        let traced = |said: &Said| -> BTreeMap<String, Vec<String>> {
            let of_streams = said
                .traced
                .iter()
                .filter(|(name, _)| !name.starts_with("over_") && *name != LATE);
            of_streams
                .filter(|(name, _)| *name != "too_late")
                .map(|(name, rows)| (name.clone(), rows.clone()))
                .collect()
        };
        prop_assert_eq!(
            traced(&said),
            traced(&singly),
            "in batches of {:?} of {:#?}",
            sizes,
            events
        );
    }
    Ok(())
}
