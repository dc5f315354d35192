//! Own functions in SQL: continuous answers are what a bounded run finds, in every kind of window, and mistakes are
//! told in words.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::bounded;
use crate::flow::Flow;
use crate::query_set::{QuerySet, Restored};
use crate::row::Rows;
use crate::rows::row_to_json;
use crate::snapshot::QuerySnapshot;
use crate::statement::{Statement, parse_statements};
use crate::streams::stream_schema;

const SECOND: i64 = 1_000_000;
/// How far events may come out of order, and the watermark stays behind.
const DELAY_US: i64 = 10 * SECOND;
const WINDOWS: &[(&str, &str, &str)] = &[
    (
        "tumble",
        "emit = 'close'",
        "TUMBLE(gate, event_time, INTERVAL '20 seconds')",
    ),
    (
        "hop_panes",
        "emit = 'close'",
        "HOP(gate, event_time, INTERVAL '10 seconds', INTERVAL '25 seconds')",
    ),
    (
        "hop_update",
        "emit = 'update'",
        "HOP(gate, event_time, INTERVAL '10 seconds', INTERVAL '25 seconds')",
    ),
    (
        "session",
        "emit = 'close'",
        "SESSION(gate, event_time, INTERVAL '6 seconds')",
    ),
    ("running", "emit = 'update'", "gate"),
];
const ANSWERS: &str = "decayed_sum(entered, event_time, INTERVAL '30 seconds') AS warmth,
decayed_sum(entered - exited, event_time, INTERVAL '1 minute') FILTER (WHERE exited > 0) AS net,
rate(entered, event_time) AS a_second, rate(entered, event_time, INTERVAL '1 minute') AS a_minute,
first_seen(event_time) AS first_seen, last_seen(event_time) AS last_seen,
first_value(event_id ORDER BY event_time) AS opener, last_value(event_id ORDER BY event_time) AS closer,
stddev_pop(entered) AS spread, bool_or(exited > 3) AS busy, count(DISTINCT device) AS devices, median(entered) AS middle";

fn statements() -> Vec<Statement> {
    WINDOWS
        .iter()
        .map(|(name, options, from)| {
            let by = if *from == "gate" {
                "zone"
            } else {
                "zone, window_start, window_end"
            };
            // No pane knows the order of arrival, or any other than of the window; and a bounded run reads the rows of a
            // session in the order of time.
            let newest = match *name {
                "hop_panes" => "",
                "session" => ", last_value(event_id ORDER BY received_at DESC) AS other_end",
                _ => ", last_value(event_id) AS newest, last_value(event_id ORDER BY received_at DESC) AS other_end",
            };
            let select = format!("SELECT {by}, {ANSWERS}{newest} FROM {from} GROUP BY {by}");
            let sql = format!("CREATE QUERY {name} WITH ({options}) AS {select}");
            parse_statements(&sql).expect("it can be read").remove(0)
        })
        .collect()
}

fn query_set() -> QuerySet {
    let mut queries = QuerySet::new();
    let mistakes = queries.create_all(statements());
    assert!(mistakes.is_empty(), "{mistakes:?}");
    queries
}

/// (time in microseconds, zone, people in, people out).
type Event = (i64, u8, i64, i64);

fn batch_of(events: &[Event], first: usize) -> RecordBatch {
    let text = |of: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..events.len()).map(of)))
    };
    let times = || -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(
            events.iter().map(|event| event.0),
        ))
    };
    let numbers = |of: fn(&Event) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(events.iter().map(of))) };
    let columns = vec![
        text(&|index| format!("e{}", first + index)),
        times(),
        times(),
        text(&|_| "main".to_owned()),
        text(&|index| format!("z{}", events[index].1)),
        text(&|index| format!("d{}", events[index].2)),
        numbers(|event| event.2),
        numbers(|event| event.3),
        Arc::new(Int64Array::new_null(events.len())),
    ];
    RecordBatch::try_new(stream_schema("gate").expect("a stream"), columns).expect("the columns of the stream")
}

type Answers = BTreeMap<String, Map<String, Value>>;

fn put(answers: &mut Answers, query: &str, batch: &RecordBatch) {
    for row in 0..batch.num_rows() {
        let object = row_to_json(batch, row);
        let start = object.get("window_start").cloned().unwrap_or_default();
        answers.insert(format!("{query} {} {start}", object["zone"]), object);
    }
}

/// What is said last of each group and window; each batch before the next, kept and taken back when asked for.
fn continuous(events: &[Event], sizes: &[usize], restarts: bool) -> Answers {
    let (mut queries, mut out, mut answers) = (query_set(), Vec::new(), Answers::new());
    let (mut from, mut sizes, mut newest) = (0, sizes.iter().cycle(), i64::MIN);
    while from < events.len() {
        let to = (from + sizes.next().expect("a size")).min(events.len());
        let batch = batch_of(&events[from..to], from);
        newest = events[from..to].iter().map(|event| event.0).fold(newest, i64::max);
        let flow = Flow {
            causes: Arc::new(batch.column(0).as_string::<i32>().clone()),
            watermarks: Arc::new(Int64Array::from_value(
                queries.watermark().unwrap_or(i64::MIN),
                to - from,
            )),
            batch,
        };
        let rows = match to - from {
            1 => Rows::One(crate::row::Row::of(&flow, 0)),
            _ => Rows::Many(flow),
        };
        queries.push("gate", &rows, &mut out);
        queries.advance(newest - DELAY_US, &mut out);
        if restarts {
            let snapshots: Vec<QuerySnapshot> = queries
                .snapshot()
                .expect("state can be written")
                .iter()
                .map(|kept| QuerySnapshot::from_bytes(&kept.to_bytes().expect("bytes")).expect("a snapshot"))
                .collect();
            let watermark = queries.watermark();
            queries = query_set();
            for (name, outcome) in queries.restore(watermark, &snapshots) {
                assert_eq!(outcome, Restored::Kept, "{name}");
            }
        }
        from = to;
    }
    queries.advance(i64::MAX / 4, &mut out);
    for query in queries.queries() {
        assert_eq!(query.broken(), None, "{} has stopped", query.name());
    }
    for output in &out {
        put(&mut answers, &output.query, &output.rows.flow().batch);
    }
    answers
}

fn bounded(events: &[Event]) -> Answers {
    let gate = (stream_schema("gate").expect("a stream"), vec![batch_of(events, 0)]);
    let recorded = bounded::Recorded::from([("gate".to_owned(), gate)]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let mut answers = Answers::new();
    for statement in statements() {
        let (_, batches) = runtime
            .block_on(bounded::run(&statement.sql, &recorded))
            .unwrap_or_else(|error| panic!("{}: {error}", statement.name));
        for batch in &batches {
            put(&mut answers, &statement.name, batch);
        }
    }
    answers
}

fn are_near(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0),
        _ => a == b,
    }
}

fn assert_near(how: &str, got: &Answers, want: &Answers) {
    let keys: Vec<&String> = got.keys().collect();
    assert_eq!(keys, want.keys().collect::<Vec<_>>(), "{how}");
    for (key, want) in want {
        for (name, want) in want {
            let got = &got[key][name];
            assert!(are_near(got, want), "{how}, {key}: {name} is {got}, bounded {want}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn continuous_answers_are_the_bounded_ones(
        steps in prop::collection::vec((0..6_i64, 0..9_i64, 0..2_u8, 0..5_i64, 0..5_i64), 1..30),
        sizes in prop::collection::vec(1..6_usize, 1..4),
    ) {
        let mut newest = 1_000 * SECOND;
        let events: Vec<Event> = steps
            .iter()
            .map(|(pause, back, zone, entered, exited)| {
                newest += pause * SECOND;
                (newest - back * SECOND, *zone, *entered, *exited)
            })
            .collect();
        let want = bounded(&events);
        assert_near("singly", &continuous(&events, &[1], false), &want);
        assert_near("in batches", &continuous(&events, &sizes, false), &want);
        assert_near("restarted after each", &continuous(&events, &sizes, true), &want);
    }
}

/// What one SELECT says of these events, by column.
fn ask(select: &str, events: &[Event]) -> Result<Map<String, Value>, String> {
    let gate = (stream_schema("gate").expect("a stream"), vec![batch_of(events, 0)]);
    let recorded = bounded::Recorded::from([("gate".to_owned(), gate)]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let (_, batches) = runtime
        .block_on(bounded::run(&format!("SELECT {select} FROM gate"), &recorded))
        .map_err(|error| error.to_string())?;
    Ok(row_to_json(&batches[0], 0))
}

#[test]
fn hopping_windows_keep_panes_where_they_can_be_merged() {
    let queries = query_set();
    let plan = |name: &str| queries.get(name).expect("it is there").operators().join("\n");
    assert!(plan("hop_panes").contains("panes of 5s"), "{}", plan("hop_panes"));
    // Of another order than the window's, equal rows may lie in several panes, whichever came first.
    for answer in ["last_value(event_id)", "last_value(event_id ORDER BY received_at)"] {
        let sql = format!(
            "CREATE QUERY whole AS SELECT zone, {answer} AS x
             FROM HOP(gate, event_time, INTERVAL '10 seconds', INTERVAL '25 seconds')
             GROUP BY zone, window_start, window_end"
        );
        let mut queries = QuerySet::new();
        let mistakes = queries.create_all(parse_statements(&sql).expect("it can be read"));
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let plan = queries.get("whole").expect("it is there").operators().join("\n");
        assert!(!plan.contains("panes"), "{answer}: {plan}");
    }
}

#[test]
fn the_formulas_are_those_of_the_documentation() {
    // 8 people a minute before the latest row, 3 with it; half of the 8 are left after 30 seconds, a quarter after 60.
    let events = [(60 * SECOND, 0, 3, 0), (0, 0, 8, 1)];
    let said = ask(
        "decayed_sum(entered, event_time, INTERVAL '30 seconds') AS warmth,
         decayed_sum(exited, event_time, INTERVAL '30 seconds') AS out,
         decayed_sum(CAST(NULL AS BIGINT), event_time, INTERVAL '30 seconds') AS none,
         rate(entered, event_time) AS a_second,
         rate(entered, event_time, INTERVAL '1 minute') AS a_minute,
         rate(entered, event_time) FILTER (WHERE exited = 0) AS of_one",
        &events,
    )
    .expect("it runs");
    for (name, want) in [
        ("warmth", Value::from(5.0)),
        ("out", Value::from(0.25)),
        ("none", Value::Null),
        ("a_second", Value::from(11.0 / 60.0)),
        ("a_minute", Value::from(11.0)),
        ("of_one", Value::Null),
    ] {
        let got = said.get(name).unwrap_or(&Value::Null);
        assert!(are_near(got, &want), "{name} is {got} and not {want}");
    }
}

#[test]
fn mistakes_are_told_in_words() {
    for (call, words) in [
        (
            "decayed_sum(entered, event_time, INTERVAL '0 seconds')",
            "not longer than none",
        ),
        ("decayed_sum(entered, event_time, INTERVAL '1 month')", "has months"),
        ("decayed_sum(entered, event_time, NULL)", "an interval was expected"),
        (
            "decayed_sum(entered, event_time, event_time - received_at)",
            "decayed_sum does not take",
        ),
        (
            "decayed_sum(entered, event_time, CASE WHEN entered > 1 THEN INTERVAL '1 day' ELSE INTERVAL '2 days' END)",
            "another for each row",
        ),
        (
            "decayed_sum(entered)",
            "decayed_sum(value, time, half-life) was expected",
        ),
        (
            "decayed_sum(DISTINCT entered, event_time, INTERVAL '1 day')",
            "leave DISTINCT out",
        ),
        ("rate(zone, event_time)", "rate does not take"),
        ("rate(entered, event_time, INTERVAL '-1 day')", "not longer than none"),
        ("first_seen(zone)", "first_seen(time) was expected"),
        ("last_seen()", "last_seen(time) was expected"),
    ] {
        let sql = format!("CREATE QUERY wrong AS SELECT zone, {call} AS x FROM gate GROUP BY zone");
        let mut queries = QuerySet::new();
        let mistakes = queries.create_all(parse_statements(&sql).expect("it can be read"));
        let said: Vec<String> = mistakes.iter().map(|(_, mistake)| mistake.to_string()).collect();
        assert!(said.len() == 1 && said[0].contains(words), "{call}: {said:?}");
        // At the function, or at what it was given.
        let column: usize = said[0]
            .split(':')
            .nth(1)
            .and_then(|column| column.parse().ok())
            .expect("a column");
        assert!(column >= 36, "{call} stands elsewhere: {said:?}");
        assert!(
            !said[0].contains("Error"),
            "{call} is told as the inside sees it: {said:?}"
        );
        let said = ask(call, &[(0, 0, 1, 1)]).expect_err("it is wrong");
        assert!(said.contains(words), "{call}, bounded: {said}");
    }
}
