//! What shipped queries keep of many events: as much as there are persons and seats, or what still waits, and not each event.

use serde_json::{Value, json};

use super::{Line, line_of, query_set_of, with_sources};
use crate::flow::Flow;
use crate::query_set::QuerySet;
use crate::row::Rows;
use crate::statement::parse_statements;

const SECOND: i64 = 1_000_000;

/// Monday, 2 March 2026, microseconds.
const MONDAY: i64 = 1_772_409_600 * SECOND;

/// Pushes a row so many seconds after Monday began; the watermark follows two seconds behind.
fn push(queries: &mut QuerySet, number: usize, second: f64, mut row: Value) {
    let at = MONDAY + (second * 1e6) as i64;
    let time = chrono::DateTime::from_timestamp_micros(at).expect("a time");
    for (column, value) in [("site", "main"), ("zone", "hall"), ("device", "d")] {
        row[column] = json!(value);
    }
    row["event_time"] = json!(time.to_rfc3339());
    let object = row.as_object().expect("a row is an object").clone();
    let Line { stream, row } = line_of(number, object);
    let watermark = at - 2 * SECOND;
    let flow = Flow::at_watermark(row, watermark);
    queries.push(stream, &Rows::Many(flow), &mut Vec::new());
    queries.advance(watermark, &mut Vec::new());
}

/// Bytes that a query and those that it reads keep after so many rows, `apart` seconds from one to the next.
fn bytes_after(name: &str, rows: usize, apart: f64, row: impl Fn(usize) -> Value) -> usize {
    let mut queries = query_set_of(&with_sources(name));
    for number in 0..rows {
        push(&mut queries, number, number as f64 * apart, row(number));
    }
    let all = queries.queries().iter();
    all.map(|query| {
        assert_eq!(query.broken(), None, "{} has stopped", query.name());
        query.footprint().bytes
    })
    .sum()
}

fn search(results: u32) -> Value {
    json!({"stream": "click", "action": "search", "query": "tea", "count": 1, "person": "p_a", "results": results})
}

#[test]
fn benefit_by_cohort_keeps_no_searches() {
    // One a second for an hour, in a visit that goes on.
    let bytes = bytes_after("measure_benefit_by_cohort", 3_600, 1.0, |_| search(7));
    assert!(bytes < 64 << 10, "{bytes} bytes");
}

#[test]
fn what_seats_say_that_were_not_left_is_not_kept_for_who_may_want_one() {
    // Ten seats that change every ten seconds for two hours, which is as long as one that was left may be wanted and offered.
    let bytes = bytes_after("offer_left_seat", 7_200, 1.0, |number| {
        let state = if (number / 10) % 2 == 0 { "occupied" } else { "free" };
        json!({"stream": "seat", "seat": format!("s{}", number % 10), "state": state})
    });
    assert!(bytes < 64 << 10, "{bytes} bytes");
}

#[test]
fn a_join_keeps_no_column_that_nothing_looks_at() {
    // What was searched for decides that a row is kept, and is not looked at again.
    let bytes = bytes_after("offer_quiet_seat", 200, 1.0, |_| {
        let mut search = search(7);
        search["query"] = json!(format!("a seat{}", ", and another".repeat(300)));
        search
    });
    assert!(bytes < 200 << 10, "{bytes} bytes");
    assert!(bytes > 200 * 100, "{bytes} bytes: those who asked are kept");
}

/// Who is to be forgotten is found in what a join keeps by whom its rows are about, though nothing else looks at that.
#[test]
fn rows_that_wait_in_a_join_are_still_those_of_a_person() {
    let sql = "CREATE QUERY q AS SELECT r.tag, c.page, c.event_time FROM click c JOIN rfid r ON c.site = r.site
        AND r.event_time BETWEEN c.event_time AND c.event_time + INTERVAL '1 hour'";
    let mut queries = query_set_of(&parse_statements(sql).expect("it can be read"));
    push(&mut queries, 0, 0.0, search(0));
    let plan = queries.get("q").expect("it is created").plan_text();
    assert!(!plan.contains("c.device") && plan.contains("c.person"), "{plan}");
    assert_eq!(queries.keeping(&|name| name == "p_a"), ["q"]);
    queries.forget(&|name| name == "p_a").expect("it can be taken apart");
    assert_eq!(queries.keeping(&|name| name == "p_a"), [] as [String; 0]);
    assert_eq!(queries.get("q").expect("it goes on").footprint().keys, 0);
}
