//! Random events in random batches: what queries say last of each window, and which rows come too late, does not depend
//! on how events were cut into batches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use proptest::prelude::*;

use crate::flow::Flow;
use crate::query_set::QuerySet;
use crate::row::Rows;
use crate::rows::batch_to_json;
use crate::statement::parse_statements;
use crate::streams::stream_schema;

const SECOND: i64 = 1_000_000;
const SQL: &str = "
CREATE QUERY tumble_update WITH (emit = 'update', lateness = '3 seconds') AS
SELECT zone, window_start, window_end, count(*) AS n, sum(entered) AS entered, max(event_time) AS newest
FROM TUMBLE(gate, event_time, INTERVAL '10 seconds') GROUP BY zone, window_start, window_end;
CREATE QUERY tumble_close WITH (lateness = '3 seconds') AS
SELECT zone, window_start, window_end, count(*) AS n, sum(entered) FILTER (WHERE exited > 0) AS entered
FROM TUMBLE(gate, event_time, INTERVAL '10 seconds') GROUP BY zone, window_start, window_end HAVING count(*) > 0;
CREATE QUERY hop_update WITH (emit = 'update') AS
SELECT zone, window_start, window_end, count(*) AS n, avg(CAST(entered AS DOUBLE)) AS entered
FROM HOP(gate, event_time, INTERVAL '4 seconds', INTERVAL '10 seconds') GROUP BY zone, window_start, window_end;
CREATE QUERY hop_close WITH (lateness = '5 seconds') AS
SELECT zone, window_start, window_end, count(*) AS n, sum(entered) AS entered, min(exited) AS exited
FROM HOP(gate, event_time, INTERVAL '4 seconds', INTERVAL '10 seconds') GROUP BY zone, window_start, window_end;
CREATE QUERY gaps AS
SELECT zone, window_start, window_end, count(*) AS n
FROM HOP(gate, event_time, INTERVAL '10 seconds', INTERVAL '4 seconds') GROUP BY zone, window_start, window_end;
CREATE QUERY running WITH (emit = 'update') AS
SELECT zone, count(*) AS n, sum(entered) AS entered FROM gate GROUP BY zone;
CREATE QUERY too_late AS SELECT query, event_id, event_time, watermark FROM late;
";

/// (seconds since the last event, how far it is out of order, zone, people).
type Step = (i64, i64, u8, i64);

fn flow_of(events: &[(i64, i64, u8, i64)], first: usize) -> Flow {
    let schema = stream_schema("gate").expect("a stream");
    let text = |of: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..events.len()).map(of)))
    };
    let times = || -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(
            events.iter().map(|event| event.0),
        ))
    };
    let numbers = |of: fn(i64) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(events.iter().map(|event| of(event.3))))
    };
    let columns = vec![
        text(&|index| format!("e{}", first + index)),
        times(),
        times(),
        text(&|_| "main".to_owned()),
        text(&|index| format!("z{}", events[index].2)),
        text(&|_| "d".to_owned()),
        numbers(|people| people),
        numbers(|people| people % 2),
        Arc::new(Int64Array::new_null(events.len())),
    ];
    let batch = RecordBatch::try_new(schema, columns).expect("the columns of the stream");
    let causes = batch
        .column(0)
        .as_any()
        .downcast_ref::<StringArray>()
        .expect("texts")
        .clone();
    Flow {
        batch,
        watermarks: Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.1))),
        causes: Arc::new(causes),
    }
}

/// What was said last of each key of each query, and all rows that came too late.
fn said(events: &[(i64, i64, u8, i64)], sizes: &[usize]) -> BTreeMap<String, String> {
    let mut queries = QuerySet::new();
    let mistakes = queries.create_all(parse_statements(SQL).expect("it can be read"));
    assert!(mistakes.is_empty(), "{mistakes:?}");
    let (mut from, mut outputs) = (0, Vec::new());
    let mut sizes = sizes.iter().copied().cycle();
    while from < events.len() {
        let to = (from + sizes.next().unwrap_or(1)).min(events.len());
        queries.push("gate", &Rows::Many(flow_of(&events[from..to], from)), &mut outputs);
        queries.advance(events[to - 1].1, &mut outputs);
        from = to;
    }
    queries.advance(i64::MAX / 4, &mut outputs);
    assert!(
        queries.queries().iter().all(|query| query.broken().is_none()),
        "one has stopped"
    );
    let mut last = BTreeMap::new();
    for output in &outputs {
        for row in batch_to_json(&output.rows.flow().batch) {
            let key: Vec<String> = ["zone", "window_start", "query", "event_id"]
                .iter()
                .map(|column| row.get(*column).map(ToString::to_string).unwrap_or_default())
                .collect();
            let text = serde_json::Value::Object(row).to_string();
            last.insert(format!("{} {}", output.query, key.join(" ")), text);
        }
    }
    last
}

fn events_of(steps: &[Step]) -> Vec<(i64, i64, u8, i64)> {
    let (mut newest, mut watermark) = (1_000 * SECOND, i64::MIN);
    steps
        .iter()
        .map(|(pause, back, zone, people)| {
            newest += pause * SECOND;
            let met = watermark;
            watermark = newest - 2 * SECOND;
            (newest - back * SECOND, met, *zone, *people)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn what_is_said_does_not_depend_on_batches(
        steps in prop::collection::vec((0..9_i64, 0..14_i64, 0..3_u8, 0..4_i64), 1..40),
        sizes in prop::collection::vec(1..12_usize, 1..5),
    ) {
        let events = events_of(&steps);
        let singly = said(&events, &[1]);
        for sizes in [sizes, vec![events.len()]] {
            let batched = said(&events, &sizes);
            let keys: BTreeSet<&String> = singly.keys().chain(batched.keys()).collect();
            let differ: Vec<_> = keys
                .into_iter()
                .filter(|key| singly.get(*key) != batched.get(*key))
                .map(|key| (key, singly.get(key), batched.get(key)))
                .collect();
            prop_assert!(differ.is_empty(), "{events:?} in batches of {sizes:?}: (key, singly, in batches) {differ:#?}");
        }
    }
}
