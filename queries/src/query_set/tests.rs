//! Queries that come, change and go while others run; what they may keep; what they warn of.

mod consenting;
mod planning;
mod sharing;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};

use super::{QuerySet, Restored};
use crate::flow::Flow;
use crate::query::Output;
use crate::row::Rows;
use crate::rows::batch_to_json;
use crate::statement::parse_statement;
use crate::streams::stream_schema;

pub(crate) const SECOND: i64 = 1_000_000;

/// Passages: (second, zone, people).
pub(crate) fn gate(events: &[(i64, &str, i64)]) -> Rows {
    let count = events.len();
    let text =
        |of: &dyn Fn(usize) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values((0..count).map(of))) };
    let times = || -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(
            events.iter().map(|event| event.0 * SECOND),
        ))
    };
    let columns = vec![
        text(&|index| format!("e{}-{index}", events[index].0)),
        times(),
        times(),
        text(&|_| "main".to_owned()),
        text(&|index| events[index].1.to_owned()),
        text(&|_| "d".to_owned()),
        Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.2))) as ArrayRef,
        Arc::new(Int64Array::from_value(0, count)),
        Arc::new(Int64Array::new_null(count)),
    ];
    let batch = RecordBatch::try_new(stream_schema("gate").expect("a stream"), columns).expect("its columns");
    Rows::Many(Flow::at_watermark(batch, i64::MIN))
}

pub(crate) fn set_of(statements: &[&str]) -> QuerySet {
    let mut queries = QuerySet::new();
    for sql in statements {
        let statement = parse_statement(sql).expect("it is right");
        queries.create(statement).expect("it can run");
    }
    queries
}

fn put(queries: &mut QuerySet, sql: &str) -> Result<Vec<(String, Restored)>, String> {
    let statement = parse_statement(sql).map_err(|error| error.to_string())?;
    queries.put(statement).map_err(|error| error.to_string())
}

pub(crate) fn said(outputs: &[Output], name: &str) -> Vec<String> {
    let of_query = outputs.iter().filter(|output| output.query.as_ref() == name);
    of_query
        .flat_map(|output| batch_to_json(&output.rows.flow().batch))
        .map(|row| serde_json::Value::Object(row).to_string())
        .collect()
}

pub(crate) const MINUTE_SUMS: &str =
    "CREATE QUERY sums AS SELECT zone, window_start, window_end, sum(entered) AS entered
    FROM TUMBLE(gate, event_time, INTERVAL '1 minute') GROUP BY zone, window_start, window_end";
const CROWDED: &str = "CREATE ALERT crowded WITH (subject = 'zone', raise = 'entered > 5') AS
    SELECT 'main' AS site, zone, entered FROM sums";

#[test]
fn an_alert_keeps_its_windows_when_its_threshold_is_changed() {
    let windowed = |threshold: i64| {
        format!(
            "CREATE ALERT busy WITH (subject = 'zone', raise = 'entered > {threshold}') AS
             SELECT site, zone, window_start, sum(entered) AS entered
             FROM TUMBLE(gate, event_time, INTERVAL '1 minute') GROUP BY site, zone, window_start"
        )
    };
    let mut queries = set_of(&[&windowed(5)]);
    let mut outputs = Vec::new();
    queries.push("gate", &gate(&[(1, "a", 4)]), &mut outputs);
    let outcome = put(&mut queries, &windowed(3)).expect("it is right");
    assert_eq!(outcome, vec![("busy".to_owned(), Restored::Kept)]);
    queries.push("gate", &gate(&[(2, "a", 1)]), &mut outputs);
    queries.advance(60 * SECOND, &mut outputs);
    assert!(
        said(&outputs, "busy")[0].contains("\"entered\":5"),
        "what came before the change counts"
    );
    assert_eq!(
        outputs[0].judgement.as_ref().map(|judgement| judgement.raise[0]),
        Some(true)
    );
    assert_eq!(queries.get("busy").expect("it runs").counters().rows_in, 2);
}

#[test]
fn a_mistake_behind_a_parameter_in_a_condition_is_told_where_it_was_written() {
    let sql = "CREATE ALERT busy WITH (subject = 'zone', parameters = 'threshold integer = 5',\n\
               raise = 'entered > $threshold AND gone > 1') AS SELECT site, zone, entered FROM gate";
    let line = sql.lines().nth(1).expect("it has two");
    let column = line.find("gone").expect("it is there") + 1;
    let error = put(&mut QuerySet::new(), sql).expect_err("there is no such column");
    assert!(error.starts_with(&format!("2:{column}: ")), "{column} and not {error}");
}

#[test]
fn a_query_is_changed_under_those_that_read_it() {
    let mut queries = set_of(&[MINUTE_SUMS, CROWDED]);
    let mut outputs = Vec::new();
    let shorter = MINUTE_SUMS.replace("1 minute", "10 seconds");
    let outcome = put(&mut queries, &shorter).expect("the reader can run on");
    assert_eq!(
        outcome,
        vec![
            ("sums".to_owned(), Restored::Changed),
            ("crowded".to_owned(), Restored::Kept)
        ]
    );
    queries.push("gate", &gate(&[(1, "a", 7)]), &mut outputs);
    queries.advance(10 * SECOND, &mut outputs);
    assert_eq!(said(&outputs, "crowded").len(), 1);

    let without = MINUTE_SUMS.replace("sum(entered) AS entered", "count(*) AS passages");
    let error = put(&mut queries, &without).expect_err("the reader would lose its column");
    assert!(
        error.starts_with("1:14: 'crowded' reads 'sums' and could not run any more: column 'entered' not found"),
        "{error}"
    );
    outputs.clear();
    queries.push("gate", &gate(&[(11, "a", 8)]), &mut outputs);
    queries.advance(20 * SECOND, &mut outputs);
    assert_eq!(said(&outputs, "crowded").len(), 1, "everything runs as before");

    let circle = "CREATE QUERY sums AS SELECT zone, entered FROM crowded";
    let error = put(&mut queries, circle).expect_err("it would read itself");
    assert!(
        error.contains("'sums' would read 'crowded', which reads 'sums'"),
        "{error}"
    );
}

#[test]
fn windows_over_windows_are_right_when_time_jumps() {
    let hours = "CREATE QUERY hours AS
        WITH minutes AS (SELECT zone, window_start AS minute, entered FROM sums)
        SELECT window_start, window_end, sum(entered) AS entered, count(*) AS minutes
        FROM TUMBLE(minutes, minute, INTERVAL '1 hour')
        GROUP BY window_start, window_end";
    let mut queries = set_of(&[MINUTE_SUMS, hours]);
    let mut outputs = Vec::new();
    queries.push(
        "gate",
        &gate(&[(1, "a", 1), (3_599, "a", 2), (3_601, "b", 4)]),
        &mut outputs,
    );
    // Nothing came for a night; then everything is over at once.
    queries.advance(40_000 * SECOND, &mut outputs);
    assert_eq!(
        said(&outputs, "hours"),
        vec![
            r#"{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T01:00:00Z","entered":3,"minutes":2}"#,
            r#"{"window_start":"1970-01-01T01:00:00Z","window_end":"1970-01-01T02:00:00Z","entered":4,"minutes":1}"#,
        ]
    );
    assert_eq!(queries.get("hours").expect("it runs").counters().late_rows, 0);
}

/// What is said again is grouped by nobody, be it passed on by others, unless it is taken once and for good.
#[test]
fn what_is_said_again_is_not_counted_twice() {
    let amended = "CREATE QUERY sums WITH (lateness = '2 minutes') AS
        SELECT window_start AS minute, window_end, sum(entered) AS entered, final
        FROM TUMBLE(gate, event_time, INTERVAL '1 minute') GROUP BY window_start, window_end, final";
    let passed_on = "CREATE QUERY passed_on AS SELECT minute, entered FROM sums WHERE entered > 0";
    let hours = |from: &str| {
        format!(
            "CREATE QUERY hours AS SELECT window_start, window_end, sum(entered) AS entered
             FROM TUMBLE({from}, minute, INTERVAL '1 hour') GROUP BY window_start, window_end"
        )
    };
    let refused = |statements: &[&str]| {
        let (last, before) = statements.split_last().expect("there are some");
        let statement = parse_statement(last).expect("it is right");
        let error = set_of(before).create(statement).expect_err("it would count twice");
        assert!(error.wrong.contains("says rows again when they change"), "{error}");
    };
    refused(&[amended, &hours("(SELECT minute, entered FROM sums)")]);
    refused(&[amended, passed_on, &hours("passed_on")]);
    let once = amended.to_owned() + " HAVING final";
    let passed_on_once = passed_on.replace("entered > 0", "final AND entered > 0");
    for statements in [
        vec![amended, &hours("(SELECT minute, entered FROM sums WHERE final)")],
        vec![amended, &passed_on_once, &hours("passed_on")],
        vec![&once, &hours("(SELECT minute, entered FROM sums)")],
    ] {
        let mut queries = set_of(&statements);
        let mut outputs = Vec::new();
        queries.push("gate", &gate(&[(3_550, "a", 1)]), &mut outputs);
        queries.advance(3_610 * SECOND, &mut outputs);
        queries.push("gate", &gate(&[(3_555, "a", 2)]), &mut outputs);
        queries.advance(40_000 * SECOND, &mut outputs);
        assert_eq!(
            said(&outputs, "hours"),
            vec![r#"{"window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T01:00:00Z","entered":3}"#,],
            "{statements:?}"
        );
    }
}

#[test]
fn windows_three_deep_are_right_however_time_moves_on() {
    let over = |name: &str, source: &str, size: &str| {
        format!(
            "CREATE QUERY {name} AS
             SELECT window_start, window_end, sum(entered) AS entered
             FROM TUMBLE((SELECT window_start AS began, entered FROM {source}), began, INTERVAL '{size}')
             GROUP BY window_start, window_end"
        )
    };
    // Rows of the middle are behind by its own windows and those it reads; the last has none so long that it would not show.
    let (middle, last) = (
        over("middle", "sums", "3 minutes"),
        over("last", "middle", "30 seconds"),
    );
    let events: Vec<(i64, &str, i64)> = (0..100).map(|index| (index * 17, "a", index)).collect();
    let run = |step: i64| {
        let mut queries = set_of(&[MINUTE_SUMS, &middle, &last]);
        let mut outputs = Vec::new();
        for event in &events {
            queries.push("gate", &gate(&[*event]), &mut outputs);
            if event.0 % step == 0 {
                queries.advance(event.0 * SECOND, &mut outputs);
            }
        }
        for second in (1_700..3_000).step_by(step as usize) {
            queries.advance(second * SECOND, &mut outputs);
        }
        queries.advance(i64::MAX / 4, &mut outputs);
        assert_eq!(queries.get("last").expect("it runs").counters().late_rows, 0, "{step}");
        said(&outputs, "last")
    };
    let jumping = run(10_000);
    assert_eq!(jumping.len(), 10, "{jumping:#?}");
    for step in [1, 34, 170] {
        assert_eq!(run(step), jumping, "in steps of {step} s");
    }
}

#[test]
fn what_a_query_over_windows_says_meets_the_watermark_of_all() {
    let hours = "CREATE QUERY hours AS
        SELECT window_start, window_end, count(*) AS n
        FROM TUMBLE((SELECT window_start AS began FROM sums), began, INTERVAL '1 hour')
        GROUP BY window_start, window_end";
    let mut queries = set_of(&[MINUTE_SUMS, hours]);
    let mut outputs = Vec::new();
    queries.push("gate", &gate(&[(1, "a", 1)]), &mut outputs);
    queries.advance(40_000 * SECOND, &mut outputs);
    let met = |name: &str| {
        let of_query = outputs.iter().filter(|output| output.query.as_ref() == name);
        of_query.map(|output| output.rows.watermark(0)).collect::<Vec<_>>()
    };
    let lag = 40_000 * SECOND - queries.watermark_of("hours").expect("time has moved on");
    assert!(lag > 0, "minutes are said when they are over");
    assert_eq!(
        met("hours"),
        vec![3_600 * SECOND + lag],
        "when the hour was over and {lag}"
    );
}

#[test]
fn a_query_that_keeps_more_than_it_may_stops_alone() {
    let greedy =
        "CREATE QUERY greedy WITH (memory = '1 MiB') AS SELECT event_id, count(*) AS n FROM gate GROUP BY event_id";
    let mut queries = set_of(&[greedy, MINUTE_SUMS]);
    let mut outputs = Vec::new();
    let batches = 30;
    for batch in 0..batches {
        let events: Vec<(i64, &str, i64)> = (0..1_000).map(|index| (batch * 1_000 + index, "a", 1)).collect();
        queries.push("gate", &gate(&events), &mut outputs);
    }
    queries.advance(20_000 * SECOND, &mut outputs);
    let query = queries.get("greedy").expect("it is still there");
    let reason = query.broken().expect("it has stopped");
    assert!(
        reason.contains("more than its 1 MiB") && reason.contains("WITH (memory = '…')"),
        "{reason}"
    );
    assert_eq!(query.footprint().bytes, 0, "what it kept is given up");
    assert_eq!(queries.get("sums").expect("it runs").broken(), None);
    assert!(!said(&outputs, "sums").is_empty());
}

#[test]
fn a_join_that_says_too_much_at_once_stops_alone() {
    // Forty rows that find each other in each of twelve streams are more than atoms on earth.
    let joins: String = (1..12)
        .map(|number| {
            format!(
                " JOIN gate g{number} ON g{number}.zone = g0.zone AND g{number}.event_time BETWEEN
                  g0.event_time - INTERVAL '1 hour' AND g0.event_time + INTERVAL '1 hour'"
            )
        })
        .collect();
    let endless = format!("CREATE QUERY endless AS SELECT g0.zone FROM gate g0{joins}");
    let mut queries = set_of(&[&endless, MINUTE_SUMS]);
    let mut outputs = Vec::new();
    let events: Vec<(i64, &str, i64)> = (0..40).map(|index| (index, "a", 1)).collect();
    queries.push("gate", &gate(&events), &mut outputs);
    queries.advance(20_000 * SECOND, &mut outputs);
    let query = queries.get("endless").expect("it is still there");
    let reason = query.broken().expect("it has stopped");
    assert!(reason.contains("would say more than"), "{reason}");
    assert_eq!(queries.get("sums").expect("it runs").broken(), None);
    assert!(!said(&outputs, "sums").is_empty());
}

#[test]
fn a_watched_query_says_every_change() {
    let totals = "CREATE QUERY totals WITH (emit = 'update') AS SELECT sum(entered) AS entered FROM gate";
    let passed = gate(&[(1, "a", 1), (2, "a", 2), (3, "a", 3)]);
    let last = [r#"{"entered":6}"#];
    let each = [r#"{"entered":1}"#, r#"{"entered":3}"#, r#"{"entered":6}"#];
    for (watched, expected) in [(&[][..], &last[..]), (&["totals"], &each), (&["tot*"], &each)] {
        let mut queries = QuerySet::new();
        queries.watch(watched);
        let mistakes = queries.create_all(vec![parse_statement(totals).expect("it is right")]);
        assert!(mistakes.is_empty());
        let mut outputs = Vec::new();
        queries.push("gate", &passed, &mut outputs);
        assert_eq!(said(&outputs, "totals"), expected);
        put(&mut queries, &totals.replace("sum(entered)", "sum(entered) + 0")).expect("it can run");
        outputs.clear();
        queries.push("gate", &passed, &mut outputs);
        assert_eq!(
            said(&outputs, "totals").len(),
            expected.len(),
            "also when it is changed"
        );
    }
}

#[test]
fn a_query_that_keeps_keys_for_ever_is_warned_of() {
    let forever = "CREATE QUERY seen AS\nSELECT tag, count(*) AS n FROM rfid GROUP BY tag";
    let queries = set_of(&[forever]);
    let warnings: Vec<String> = queries.queries()[0]
        .warnings()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        warnings,
        vec![
            "2:37: a running GROUP BY tag keeps each tag for ever, WITH (ttl = '30 days') forgets those unseen for so long"
        ]
    );
    for right in [
        "CREATE QUERY seen WITH (ttl = '1 day') AS SELECT tag, count(*) AS n FROM rfid GROUP BY tag",
        "CREATE QUERY seen AS SELECT zone, count(*) AS n FROM rfid GROUP BY zone",
        "CREATE QUERY seen AS SELECT query, count(*) AS n FROM late GROUP BY query",
        MINUTE_SUMS,
    ] {
        assert!(set_of(&[right]).queries()[0].warnings().is_empty(), "{right}");
    }
}

/// Long texts fill memory in few rows: what is kept is measured by what comes, and not by rows alone.
#[test]
fn a_query_that_keeps_long_texts_stops_before_it_keeps_much_more_than_it_may() {
    let greedy = "CREATE QUERY greedy WITH (memory = '1 MiB') AS
        SELECT window_start, array_agg(zone) AS zones FROM HOP(gate, event_time, INTERVAL '1 minute', INTERVAL '1 hour')
        GROUP BY window_start";
    let zone = "z".repeat(8 << 10);
    for size in [1, 16] {
        let mut queries = set_of(&[greedy]);
        let mut taken = 0;
        while queries.queries()[0].broken().is_none() && taken < 4_096 {
            let events: Vec<(i64, &str, i64)> = (0..size).map(|_| (3_600, zone.as_str(), 1)).collect();
            queries.push("gate", &gate(&events), &mut Vec::new());
            taken += events.len();
        }
        let bytes = taken * zone.len();
        assert!(bytes < 2 << 20, "{} KiB by {size}", bytes >> 10);
    }
}

#[test]
fn columns_of_one_name_are_refused_where_they_are_made() {
    let both = "CREATE QUERY both AS
SELECT * FROM gate g JOIN seat s ON g.zone = s.zone AND s.event_time BETWEEN g.event_time AND g.event_time";
    let error = parse_statement(both).and_then(|statement| QuerySet::new().check(statement).map(|_| ()));
    assert_eq!(
        error.expect_err("nobody could tell them apart").to_string(),
        "2:1: more than one column is named device, event_id, event_time, received_at, site, zone, name the columns one by \
         one, and these apart: SELECT a.device, b.device AS other_device"
    );
}

/// SQL that no person wrote, or that means harm, meets a limit in words.
#[test]
fn hostile_sql_meets_a_limit() {
    let chain = |count: usize| vec!["entered"; count].join(" + ");
    let nested = |count: usize| format!("{}entered{}", "abs(".repeat(count), ")".repeat(count));
    let brackets = |count: usize| format!("{}entered{}", "(".repeat(count), ")".repeat(count));
    let select = |expression: String| format!("CREATE QUERY q AS SELECT {expression} AS n FROM gate");
    let window = |window: &str| {
        format!("CREATE QUERY q AS SELECT window_start, count(*) AS n FROM {window} GROUP BY window_start")
    };
    let cases = [
        (select(chain(100_000)), "at most 262144 bytes are read"),
        (select(chain(10_000)), "more than 128 operators deep"),
        (select(nested(5_000)), "more than 128 operators deep"),
        (select(brackets(20_000)), "more than 128 operators deep"),
        (
            select(vec!["entered > 1"; 5_000].join(" OR ")),
            "more than 128 operators deep",
        ),
        (
            format!(
                "CREATE QUERY q AS {}",
                vec!["SELECT zone FROM gate"; 7_000].join(" UNION ALL ")
            ),
            "more than 128 relations",
        ),
        (
            window("TUMBLE(gate, event_time, INTERVAL '213503983 days')"),
            "at most a hundred years",
        ),
        (
            window("OPENING(gate, event_time)"),
            "sites that open together may close apart",
        ),
        (
            window("HOP(gate, event_time, INTERVAL '1 microsecond', INTERVAL '1 day')"),
            "each row would lie in 86400000000 windows",
        ),
        (
            window("TUMBLE(gate, event_time, INTERVAL '40000 days')"),
            "at most a hundred years",
        ),
        (
            window("TUMBLE(gate, event_time, INTERVAL '0 seconds')"),
            "more than nothing",
        ),
        (
            window("SESSION(gate, event_time, INTERVAL '1 hour', INTERVAL '1 second')"),
            "make max longer",
        ),
        (
            window("DAY(gate, event_time, 'Europe/Kopenhagen')"),
            "did you mean 'Europe/Copenhagen'?",
        ),
    ];
    for (sql, expected) in cases {
        let error = parse_statement(&sql)
            .and_then(|statement| QuerySet::new().check(statement).map(|_| ()))
            .expect_err("it is hostile")
            .to_string();
        assert!(error.contains(expected), "{}…\n{error}", &sql[..80]);
        assert!(error.len() < 1_000, "an error is for people: {} bytes", error.len());
    }
    // What people do write goes through.
    for sql in [
        select(chain(120)),
        select(nested(45)),
        select(format!("entered IN ({})", vec!["1"; 9_000].join(", "))),
    ] {
        let statement = parse_statement(&sql).expect("it is right");
        QuerySet::new().check(statement).expect("it can run");
    }
}

/// A key that never rests is cut, so that its sessions are said and its state stays small.
#[test]
fn a_session_that_never_ends_is_cut() {
    let sql = "CREATE QUERY q AS SELECT zone, window_start, window_end, count(*) AS n
        FROM SESSION(gate, event_time, INTERVAL '10 minutes') GROUP BY zone, window_start, window_end";
    let mut queries = set_of(&[sql]);
    let mut outputs = Vec::new();
    for hour in 0..24 * 30 {
        let events: Vec<(i64, &str, i64)> = (0..12).map(|index| (hour * 3_600 + index * 300, "a", 1)).collect();
        queries.push("gate", &gate(&events), &mut outputs);
        queries.advance(hour * 3_600 * SECOND, &mut outputs);
        let footprint = queries.queries()[0].footprint();
        assert!(footprint.bytes < 16_384, "hour {hour}: {footprint:?}");
    }
    let rows = said(&outputs, "q");
    assert_eq!(rows.len(), 29, "a day each, but the last");
    assert!(rows.iter().all(|row| row.contains("\"n\":288")), "{rows:?}");
}

#[test]
fn a_shared_window_is_given_up_when_all_that_share_it_have_stopped() {
    let running = |name: &str, aggregate: &str| {
        format!(
            "CREATE QUERY {name} WITH (emit = 'update', memory = '1 MB') AS SELECT zone, {aggregate} AS n FROM gate
             GROUP BY zone"
        )
    };
    let mut queries = set_of(&[&running("counts", "count(*)"), &running("sums", "sum(entered)")]);
    let window = queries.get("counts").and_then(|query| query.shared_window().cloned());
    let window = window.expect("they share it");
    let mut outputs = Vec::new();
    for from in 0..1_000 {
        let zones: Vec<String> = (0..100).map(|number| format!("zone {from} {number}")).collect();
        let events: Vec<(i64, &str, i64)> = zones.iter().map(|zone| (1, zone.as_str(), 1)).collect();
        queries.push("gate", &gate(&events), &mut outputs);
        outputs.clear();
    }
    assert!(queries.queries().iter().all(|query| query.broken().is_some()));
    let left = crate::shared_window::locked(&window).pipeline().footprint();
    assert_eq!((left.keys, left.bytes), (0, 0), "nobody reads it any more");
    queries.push("gate", &gate(&[(2, "a", 1)]), &mut outputs);
    queries.advance(100 * SECOND, &mut outputs);
}
