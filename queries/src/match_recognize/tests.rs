//! Patterns as SQL: what they find, that they find the same however rows come, and what is refused.

mod random;
mod refusals;
mod semantics;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use serde_json::{Map, Value as Json, json};

use crate::bounded;
use crate::capture::tests::Chain;
use crate::flow::Flow;
use crate::query_set::{QuerySet, Restored};
use crate::row::Rows;
use crate::rows::{batch_from_ndjson, batch_to_json};
use crate::statement::{Statement, parse_statements};
use crate::streams::stream_schema;

const SECOND: i64 = 1_000_000;

/// An event of a stream: its time in seconds, and its columns.
type Event = (i64, Json);

fn batch_of(stream: &str, events: &[(usize, Event)]) -> RecordBatch {
    let schema = stream_schema(stream).expect("a stream");
    let lines: Vec<String> = events
        .iter()
        .map(|(id, (time, columns))| {
            let mut object = Map::new();
            for column in ["site", "zone", "device", "seat", "state", "tag", "action"] {
                object.insert(column.to_owned(), json!("-"));
            }
            object.insert("count".to_owned(), json!(1));
            object.insert("entered".to_owned(), json!(0));
            object.insert("exited".to_owned(), json!(0));
            let at = chrono::DateTime::from_timestamp(*time, 0).expect("a time").to_rfc3339();
            object.insert("event_id".to_owned(), json!(format!("e{id}")));
            object.insert("event_time".to_owned(), json!(at));
            object.insert("received_at".to_owned(), json!("1970-01-01T00:00:00Z"));
            object.extend(columns.as_object().expect("an object").clone());
            object.retain(|name, _| schema.field_with_name(name).is_ok());
            Json::Object(object).to_string()
        })
        .collect();
    batch_from_ndjson(&schema, &lines.join("\n")).expect("well formed")
}

/// How events are fed.
#[derive(Debug, Clone)]
enum Feeding {
    Batches(Vec<usize>),
    /// Row by row, and behind so many rows state is captured, and now and then goes through bytes into a new engine.
    Restarting(usize),
}

struct Run {
    /// What each query said, as JSON, with the event it says caused it.
    said: BTreeMap<String, Vec<String>>,
    /// The watermarks its rows were said at.
    watermarks_by_query: BTreeMap<String, Vec<i64>>,
    /// For each row that came too late the query, the event and the reason.
    late: Vec<(String, String, String)>,
}

fn queries_of(statements: &[Statement]) -> QuerySet {
    let mut queries = QuerySet::new();
    let mistakes = queries.create_all(statements.to_vec());
    let words: Vec<String> = mistakes.iter().map(|(_, error)| error.to_string()).collect();
    assert!(words.is_empty(), "{words:#?}");
    queries
}

/// Feeds events in the order given; a row's watermark is the latest time before it less `delay` seconds.
fn run(sql: &str, stream: &str, events: &[Event], delay: i64, feeding: &Feeding) -> Run {
    let with_late = format!("{sql}; CREATE QUERY told_late AS SELECT query, event_id, reason FROM late");
    let statements = parse_statements(&with_late).expect("it can be read");
    let mut queries = queries_of(&statements);
    let (mut chain, mut step) = (Chain::default(), 0);
    let (mut newest, mut from, mut outputs) = (i64::MIN, 0, Vec::new());
    let sizes = match feeding {
        Feeding::Batches(sizes) => sizes.clone(),
        Feeding::Restarting(rows) => vec![*rows],
    };
    let mut sizes = sizes.into_iter().cycle();
    let watermark = |newest: i64| newest.saturating_sub(delay).saturating_mul(SECOND);
    while from < events.len() {
        let to = (from + sizes.next().unwrap_or(1)).min(events.len());
        let numbered: Vec<(usize, Event)> = (from..to).map(|index| (index, events[index].clone())).collect();
        let batch = batch_of(stream, &numbered);
        let mut met = Vec::new();
        for (_, (time, _)) in &numbered {
            met.push(if newest == i64::MIN {
                i64::MIN
            } else {
                watermark(newest)
            });
            newest = newest.max(*time);
        }
        let flow = Flow {
            causes: Arc::new(batch.column(0).as_string::<i32>().clone()),
            batch,
            watermarks: Arc::new(Int64Array::from(met)),
        };
        queries.push(stream, &Rows::Many(flow), &mut outputs);
        queries.advance(watermark(newest), &mut outputs);
        let snapshots = match feeding {
            Feeding::Restarting(_) => chain.step(&mut queries, step),
            Feeding::Batches(_) => None,
        };
        step += 1;
        if let Some(snapshots) = snapshots {
            let at = queries.watermark();
            queries = queries_of(&statements);
            let outcome = queries.restore(at, &snapshots);
            assert!(
                outcome.iter().all(|(_, outcome)| *outcome == Restored::Kept),
                "{outcome:?}"
            );
        }
        from = to;
    }
    queries.advance(i64::MAX / 4, &mut outputs);
    for query in queries.queries() {
        assert_eq!(query.broken(), None, "{} has stopped", query.name());
        if query.name().as_ref() != "told_late" {
            assert_eq!(query.footprint().keys, 0, "{} keeps something at the end", query.name());
        }
    }
    let mut run = Run {
        said: BTreeMap::new(),
        watermarks_by_query: BTreeMap::new(),
        late: Vec::new(),
    };
    for output in &outputs {
        let rows = batch_to_json(&output.rows.flow().batch);
        for (index, row) in rows.into_iter().enumerate() {
            if output.query.as_ref() == "told_late" {
                let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
                run.late.push((text("query"), text("event_id"), text("reason")));
                continue;
            }
            let text = Json::Object(row).to_string();
            let cause = output.rows.cause(index).unwrap_or("-").to_owned();
            run.said
                .entry(output.query.to_string())
                .or_default()
                .push(format!("{text} by {cause}"));
            run.watermarks_by_query
                .entry(output.query.to_string())
                .or_default()
                .push(output.rows.watermark(index));
        }
    }
    run
}

/// The rows of the SELECT of a statement over recorded events.
fn bounded_rows(sql: &str, stream: &str, events: &[Event]) -> Vec<String> {
    let numbered: Vec<(usize, Event)> = events.iter().cloned().enumerate().collect();
    let batch = batch_of(stream, &numbered);
    let recorded = BTreeMap::from([(stream.to_owned(), (batch.schema(), vec![batch]))]);
    let answer = futures::executor::block_on(bounded::run(sql, &recorded));
    let (_, batches) = answer.unwrap_or_else(|error| panic!("{error}"));
    let mut rows = Vec::new();
    for batch in &batches {
        rows.extend(
            batch_to_json(batch)
                .into_iter()
                .map(|row| Json::Object(row).to_string()),
        );
    }
    rows
}

fn without_cause(rows: &[String]) -> Vec<String> {
    rows.iter()
        .map(|row| row.rsplit_once(" by ").map_or(row.clone(), |(row, _)| row.to_owned()))
        .collect()
}

/// The rows of one statement, fed whole, which are those of a bounded run.
fn said_whole(sql: &str, stream: &str, events: &[Event]) -> Vec<String> {
    let whole = run(sql, stream, events, 0, &Feeding::Batches(vec![events.len().max(1)]));
    let rows = whole.said.into_values().next().unwrap_or_default();
    assert_eq!(bounded_rows(sql, stream, events), without_cause(&rows));
    rows
}

/// The rows of one statement, which are the same however `events` are fed.
fn said(sql: &str, stream: &str, events: &[Event]) -> Vec<String> {
    let whole = run(sql, stream, events, 0, &Feeding::Batches(vec![events.len().max(1)]));
    let rows = whole.said.into_values().next().unwrap_or_default();
    for feeding in [
        Feeding::Batches(vec![1]),
        Feeding::Batches(vec![2]),
        Feeding::Batches(vec![3, 1]),
        Feeding::Restarting(1),
    ] {
        let other = run(sql, stream, events, 0, &feeding);
        assert_eq!(other.said.into_values().next().unwrap_or_default(), rows, "{feeding:?}");
        assert_eq!(other.watermarks_by_query, whole.watermarks_by_query, "{feeding:?}");
        assert_eq!(other.late, whole.late, "{feeding:?}");
    }
    assert_eq!(bounded_rows(sql, stream, events), without_cause(&rows));
    rows
}
