//! Statements are planned beside what runs, and put in only where they still fit; what can't be restored begins anew.

use arrow::array::{Int64Array, RecordBatch};

use super::{CROWDED, MINUTE_SUMS, SECOND, gate, said, set_of};
use crate::query_set::planning::{Planned, Planning, Stale};
use crate::query_set::{QuerySet, Restored};
use crate::statement::{Statement, parse_statement};

fn statement(sql: &str) -> Statement {
    parse_statement(sql).expect("it is right")
}

fn planned(planning: &Planning, sql: &str) -> Planned {
    planning
        .put(statement(sql))
        .unwrap_or_else(|error| panic!("it is right: {error}"))
}

#[test]
fn a_change_that_was_planned_for_other_queries_is_not_made() {
    let mut queries = set_of(&[MINUTE_SUMS]);
    let hours = "CREATE QUERY hours AS SELECT zone, entered FROM sums";
    let stale = planned(&queries.planning(), hours);
    queries.remove("sums").expect("nobody reads it");
    assert_eq!(queries.apply(stale), Err(Stale));
    assert!(queries.get("hours").is_none(), "what it reads is gone");
    let error = queries.planning().put(statement(hours)).err().expect("it can't run");
    assert!(
        error.wrong.contains("there is no stream, query or table 'sums'"),
        "{error}"
    );

    queries.create(statement(MINUTE_SUMS)).expect("it is right");
    let first = planned(&queries.planning(), hours);
    let second = planned(&queries.planning(), &hours.replace("entered FROM", "window_start FROM"));
    queries.apply(first).expect("nothing has changed");
    assert_eq!(queries.apply(second), Err(Stale));
    let schema = queries.get("hours").expect("it runs").schema().clone();
    assert_eq!(schema.field(1).name(), "entered");
}

/// Events come, windows close and tables change while a statement is planned: it fits all the same.
#[test]
fn events_do_not_wait_for_planning() {
    let joins: Vec<String> = (1..60)
        .map(|number| {
            format!(
                "JOIN gate g{number} ON g{number}.zone = g0.zone AND g{number}.event_time BETWEEN g0.event_time \
                 - INTERVAL '1 second' AND g0.event_time + INTERVAL '1 second'"
            )
        })
        .collect();
    let wide = format!("CREATE QUERY wide AS SELECT g0.zone FROM gate g0 {}", joins.join(" "));
    let mut queries = set_of(&[MINUTE_SUMS]);
    let planning = queries.planning();
    let planner = std::thread::spawn(move || planning.put(statement(&wide)));
    let mut outputs = Vec::new();
    let mut minute = 0;
    while !planner.is_finished() || minute < 3 {
        queries.push("gate", &gate(&[(minute * 60, "a", 1)]), &mut outputs);
        minute += 1;
        queries.advance(minute * 60 * SECOND, &mut outputs);
    }
    assert_eq!(said(&outputs, "sums").len() as i64, minute, "each minute as it closed");
    let wide = planner.join().expect("it does not panic");
    let wide = wide.unwrap_or_else(|error| panic!("it can run: {error}"));
    queries
        .apply(wide)
        .expect("events change nothing that it was planned by");
    assert!(queries.get("wide").is_some());
}

#[test]
fn what_an_alert_begins_to_read_goes_on_with_its_windows() {
    let mut queries = set_of(&[MINUTE_SUMS]);
    let mut outputs = Vec::new();
    queries.push("gate", &gate(&[(1, "a", 4)]), &mut outputs);
    let alert = planned(&queries.planning(), CROWDED);
    queries.push("gate", &gate(&[(2, "a", 5)]), &mut outputs);
    assert_eq!(queries.apply(alert).expect("it fits"), [], "nothing begins anew");
    assert!(queries.get("sums").expect("it runs").keeps_causes());
    queries.advance(60 * SECOND, &mut outputs);
    let crowded = said(&outputs, "crowded");
    assert!(crowded[0].contains("\"entered\":9"), "{crowded:?}");
}

/// Of a snapshot that breaks off in the middle nothing is taken.
#[test]
fn a_query_that_cannot_be_restored_begins_anew() {
    let pairs = "CREATE QUERY pairs AS
        SELECT window_start, count(*) AS pairs FROM TUMBLE(
            (SELECT a.event_time FROM gate a JOIN gate b ON a.zone = b.zone
             AND b.event_time BETWEEN a.event_time AND a.event_time + INTERVAL '10 seconds'), event_time, INTERVAL '1 minute')
        GROUP BY window_start";
    let mut queries = set_of(&[pairs]);
    queries.push("gate", &gate(&[(1, "a", 1)]), &mut Vec::new());
    let whole = queries.snapshot().expect("it can be written");
    assert_eq!(whole[0].parts.len(), 2, "a join and windows");
    let foreign = RecordBatch::try_from_iter([("what", std::sync::Arc::new(Int64Array::from(vec![1])) as _)])
        .expect("well formed");
    for part in 0..2 {
        let mut broken = whole.clone();
        broken[0].parts[part].1 = foreign.clone();
        let mut again = set_of(&[pairs]);
        let outcomes = again.restore(None, &broken);
        assert!(matches!(outcomes[0].1, Restored::Unreadable(_)), "{outcomes:?}");
        let answers = |queries: &mut QuerySet| {
            let mut outputs = Vec::new();
            queries.push("gate", &gate(&[(5, "a", 1)]), &mut outputs);
            queries.advance(3_600 * SECOND, &mut outputs);
            assert_eq!(queries.get("pairs").and_then(|query| query.broken()), None);
            said(&outputs, "pairs")
        };
        assert_eq!(answers(&mut again), answers(&mut set_of(&[pairs])), "part {part}");
    }
}
