//! Random events of two streams: joins say the same in every way, and the same as bounded runs.

use proptest::prelude::*;

use super::PARTNERS_WERE_FINAL;
use crate::feeding::{Event, Moving, SECOND, check, event, events, feed, mistake};

const SQL: &str = "
CREATE QUERY inner_join WITH (lateness = '1 second') AS
SELECT a.event_id AS a, b.event_id AS b, a.event_time AS event_time, a.person AS person
FROM rfid a JOIN click b ON a.zone = b.zone AND a.person = b.person
AND b.event_time BETWEEN a.event_time - INTERVAL '3 seconds' AND a.event_time + INTERVAL '5 seconds';
CREATE QUERY left_join WITH (lateness = '1 second') AS
SELECT a.event_id AS a, b.event_id AS b, a.event_time AS event_time, a.zone AS zone
FROM rfid a LEFT JOIN click b ON a.zone = b.zone AND b.results > a.antenna AND a.person = b.person
AND b.event_time BETWEEN a.event_time - INTERVAL '3 seconds' AND a.event_time + INTERVAL '5 seconds';
CREATE QUERY right_join WITH (lateness = '1 second') AS
SELECT a.event_id AS a, b.event_id AS b, b.event_time AS event_time
FROM rfid a RIGHT JOIN click b ON a.zone = b.zone
AND a.event_time > b.event_time - INTERVAL '4 seconds' AND b.event_time > a.event_time;
CREATE QUERY left_long_before WITH (lateness = '1 second') AS
SELECT a.event_id AS a, b.event_id AS b FROM rfid a LEFT JOIN click b ON a.zone = b.zone
AND b.event_time BETWEEN a.event_time - INTERVAL '9 seconds' AND a.event_time - INTERVAL '4 seconds';
CREATE QUERY left_long_after WITH (lateness = '1 second') AS
SELECT a.event_id AS a, b.event_id AS b FROM rfid a LEFT JOIN click b ON a.zone = b.zone
AND b.event_time - INTERVAL '4 seconds' >= a.event_time AND b.event_time < a.event_time + INTERVAL '9 seconds';
CREATE QUERY self_join WITH (lateness = '1 second') AS
SELECT a.event_id AS a, b.event_id AS b FROM rfid a JOIN rfid b ON a.zone = b.zone
AND b.event_time >= a.event_time AND b.event_time <= a.event_time + INTERVAL '4 seconds';
CREATE QUERY without_keys WITH (lateness = '1 second') AS
SELECT a.event_id AS a, b.event_id AS b FROM rfid a, click b
WHERE b.event_time >= a.event_time AND b.event_time - INTERVAL '2 seconds' <= a.event_time AND a.antenna > 1;
CREATE QUERY of_differences WITH (lateness = '1 second') AS
SELECT a.event_id AS a, b.event_id AS b FROM rfid a JOIN click b ON a.zone = b.zone
WHERE b.event_time - a.event_time <= INTERVAL '2 seconds' AND b.event_time - a.event_time > INTERVAL '-3 seconds';
CREATE QUERY of_one_difference WITH (lateness = '1 second') AS
SELECT a.event_id AS a, b.event_id AS b FROM rfid a JOIN click b
ON a.zone = b.zone AND a.event_time = b.event_time + INTERVAL '1 second';
CREATE QUERY of_other_keys WITH (lateness = '1 second') AS
SELECT a.event_id AS a, b.event_id AS b FROM (SELECT *, CAST(antenna AS INT) AS n FROM rfid WHERE antenna <> 1) a
LEFT JOIN (SELECT event_id, event_time, CAST(results AS INT) AS n FROM click WHERE zone = 'z1') b
ON a.n = b.n AND b.event_time BETWEEN a.event_time - INTERVAL '3 seconds' AND a.event_time + INTERVAL '3 seconds';
CREATE QUERY of_nulls WITH (lateness = '1 second') AS
SELECT a.event_id AS a, b.event_id AS b FROM rfid a LEFT JOIN click b ON (a.person IS NOT DISTINCT FROM b.person)
AND b.event_time BETWEEN a.event_time AND a.event_time + INTERVAL '3 seconds';
CREATE QUERY of_three WITH (lateness = '1 second') AS
SELECT a.event_id AS a, b.event_id AS b, c.event_id AS c FROM rfid a JOIN click b ON a.zone = b.zone
AND b.event_time BETWEEN a.event_time - INTERVAL '1 second' AND a.event_time + INTERVAL '3 seconds'
LEFT JOIN rfid c ON c.zone = b.zone AND c.antenna = 2
AND c.event_time BETWEEN b.event_time - INTERVAL '4 seconds' AND b.event_time + INTERVAL '2 seconds';
CREATE QUERY over_windows WITH (lateness = '1 second') AS
SELECT zone, window_start, window_end, count(*) AS n, count(b) AS matched
FROM TUMBLE((SELECT a.zone AS zone, a.event_time AS event_time, b.event_id AS b FROM rfid a LEFT JOIN click b
ON a.zone = b.zone AND b.event_time BETWEEN a.event_time AND a.event_time + INTERVAL '8 seconds'),
event_time, INTERVAL '4 seconds') GROUP BY zone, window_start, window_end;
CREATE QUERY over_left_join WITH (lateness = '1 second') AS
SELECT zone, window_start, window_end, count(*) AS n, count(b) AS matched
FROM TUMBLE(left_join, event_time, INTERVAL '4 seconds') GROUP BY zone, window_start, window_end;
CREATE QUERY over_inner_join WITH (lateness = '1 second') AS
SELECT a.a AS a, a.b AS b, c.a AS c, c.b AS d FROM inner_join a LEFT JOIN left_join c ON c.b = a.b
AND c.event_time BETWEEN a.event_time - INTERVAL '2 seconds' AND a.event_time + INTERVAL '2 seconds';
CREATE QUERY too_late AS SELECT event_id, reason FROM late WHERE query = 'without_keys' OR query = 'self_join';
";

const LATENESS: i64 = SECOND;

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 60, ..ProptestConfig::default() })]
    #[test]
    fn a_join_of_two_streams_is_the_same_in_every_way(
        events in events(&["rfid", "click"], 40),
        sizes in prop::collection::vec(4..16_usize, 1..4),
    ) {
        check(SQL, &events, LATENESS, &sizes)?;
    }
}

fn one_join(kind: &str) -> String {
    format!(
        "CREATE QUERY q AS SELECT a.event_id AS a, b.event_id AS b FROM rfid a {kind} click b ON a.zone = b.zone
        AND b.event_time BETWEEN a.event_time - INTERVAL '5 seconds' AND a.event_time + INTERVAL '10 seconds';
        CREATE QUERY too_late AS SELECT event_id, watermark, reason FROM late;"
    )
}

/// What the query `q` says of events fed one by one.
fn said(sql: &str, events: &[Event]) -> Vec<String> {
    feed(sql, events, &[1], Moving::AtOnce)
        .rows
        .remove("q")
        .unwrap_or_default()
}

#[test]
fn both_ends_of_a_bound_belong_to_it() {
    let around = |apart: i64| {
        let events = [event("rfid", 100, 0), event("click", 100 + apart, 0)];
        said(&one_join("JOIN"), &events).len()
    };
    assert_eq!([-6, -5, 0, 10, 11].map(around), [0, 1, 1, 1, 0]);
}

#[test]
fn the_last_partner_that_is_not_late_is_still_found() {
    // The watermark stands where a partner of the greatest difference is just not late.
    let events = [
        event("rfid", 100, 0),
        event("click", 110, 110),
        event("click", 109, 110),
    ];
    let said = feed(&one_join("LEFT JOIN"), &events, &[1], Moving::AtOnce);
    assert_eq!(said.rows["q"], [r#"{"a":"e0","b":"e1"}"#]);
    let late = format!(r#"{{"event_id":"e2","watermark":"1970-01-01T00:01:50Z","reason":"{PARTNERS_WERE_FINAL}"}}"#);
    assert_eq!(said.rows["too_late"], [late]);
}

#[test]
fn an_unmatched_row_is_said_when_it_is_certain_and_not_before() {
    let until = |watermark: i64| {
        let mut last = event("rfid", 500, 0);
        last.left = watermark * SECOND;
        let events = [event("rfid", 100, 0), last];
        crate::feeding::feed_without_end(&one_join("LEFT JOIN"), &events)
            .rows
            .get("q")
            .map_or(0, Vec::len)
    };
    assert_eq!([109, 110, 111].map(until), [0, 0, 1]);
}

#[test]
fn a_row_meets_itself_once() {
    let sql = "CREATE QUERY q AS SELECT a.event_id AS a, b.event_id AS b FROM rfid a JOIN rfid b
        ON b.event_time BETWEEN a.event_time - INTERVAL '1 second' AND a.event_time + INTERVAL '1 second';";
    assert_eq!(said(sql, &[event("rfid", 100, 0)]), [r#"{"a":"e0","b":"e0"}"#]);
}

#[test]
fn a_pair_is_caused_by_the_row_that_came_later() {
    let events = [event("click", 105, 90), event("rfid", 100, 100)];
    let said = feed(&one_join("JOIN"), &events, &[2], Moving::AtOnce);
    assert_eq!(said.traced["q"], [r#"{"a":"e1","b":"e0"} at 100000000 by Some("e1")"#]);
}

#[test]
fn a_join_that_would_wait_for_ever_is_refused_with_its_place() {
    let advice =
        "add AND b.event_time BETWEEN a.event_time - INTERVAL '1 minute' AND a.event_time + INTERVAL '1 minute'";
    let unbounded = "two streams are joined without a bound on time, and each row would wait for the other for ever";
    let cases = [
        ("JOIN click b ON a.zone = b.zone", format!("2:21: {unbounded}, {advice}")),
        ("JOIN click b ON a.zone = b.zone AND b.event_time > a.event_time", format!("2:21: {unbounded}")),
        (
            "JOIN click b ON a.zone = b.zone AND b.event_time BETWEEN a.received_at AND a.event_time + INTERVAL '1 second'",
            format!("2:21: {unbounded}"),
        ),
        (
            "JOIN click b ON b.event_time BETWEEN a.event_time AND a.event_time + INTERVAL '1 month'",
            format!("2:21: {unbounded}"),
        ),
        (
            "JOIN click b ON b.event_time BETWEEN a.event_time AND a.event_time - INTERVAL '1 second'",
            "2:21: two streams are joined where b.event_time - a.event_time is at least 0s and at most -1s, which nothing is"
                .to_owned(),
        ),
        (
            "JOIN rfid c ON a.event_time = c.event_time JOIN click b ON a.zone = b.zone",
            format!("2:64: {unbounded}"),
        ),
        (
            "FULL JOIN click b ON b.event_time = a.event_time",
            "2:26: Full JOIN of two streams is not there, JOIN, LEFT JOIN and RIGHT JOIN are".to_owned(),
        ),
        (
            "JOIN counts b ON b.newest = a.event_time",
            "2:26: 'counts' says rows again when they change, so that each would be joined more than once".to_owned(),
        ),
        (
            "JOIN (SELECT zone, max(event_time) AS newest FROM click GROUP BY zone) b ON b.newest = a.event_time",
            "2:21: one side of the join is a GROUP BY of its own".to_owned(),
        ),
        (
            "JOIN (SELECT * FROM click MATCH_RECOGNIZE (PARTITION BY zone ORDER BY event_time MEASURES LAST(y.event_time) \
             AS newest PATTERN (x y) DEFINE y AS y.page > x.page)) b ON b.newest = a.event_time",
            "2:47: one side of the join is a MATCH_RECOGNIZE, which waits by rules of its own, create it as a query, and \
             join with that query by its name"
                .to_owned(),
        ),
    ];
    let counts = "CREATE QUERY counts AS SELECT zone, max(event_time) AS newest FROM rfid GROUP BY zone;";
    for (join, expected) in cases {
        let error = mistake(
            counts,
            &format!("CREATE QUERY q AS SELECT 1 AS one\n        FROM rfid a {join}"),
        );
        assert!(
            error.starts_with(&expected),
            "{join}\n  said:     {error}\n  expected: {expected}"
        );
    }
}

#[test]
fn a_join_amends_nothing_and_its_rows_may_be_grouped_again() {
    let sql = format!(
        "{} CREATE QUERY n AS SELECT a, count(*) AS n FROM q GROUP BY a;",
        one_join("JOIN")
    );
    let events = [event("rfid", 100, 0), event("click", 100, 0), event("click", 101, 0)];
    let said = crate::feeding::feed_without_end(&sql, &events);
    assert_eq!(said.rows["n"], [r#"{"a":"e0","n":1}"#, r#"{"a":"e0","n":2}"#]);
}
