//! What reads a join, an absence or a pattern gets its rows in time, late rows take no part anywhere, and limits hold.

use proptest::prelude::*;

use crate::feeding::{Event, Moving, SECOND, check, event, events, feed, mistake};

fn feed_all(sql: &str, events: &[Event], sizes: &[usize]) -> crate::feeding::Said {
    feed(sql, events, sizes, Moving::AtOnce)
}

const LEFT: &str = "CREATE QUERY left_join AS SELECT a.event_id AS a, b.event_id AS b, a.event_time AS event_time, a.zone AS zone
 FROM rfid a LEFT JOIN click b ON a.zone = b.zone AND b.event_time BETWEEN a.event_time AND a.event_time + INTERVAL '5 seconds';
 CREATE QUERY too_late AS SELECT query, event_id, watermark, reason FROM late;";

#[test]
fn an_unmatched_row_is_not_late_for_a_second_join_in_the_same_statement() {
    let sql = "CREATE QUERY q AS SELECT a.event_id AS a, b.event_id AS b, c.event_id AS c
 FROM rfid a LEFT JOIN click b ON a.zone = b.zone AND b.event_time BETWEEN a.event_time AND a.event_time + INTERVAL '5 seconds'
 LEFT JOIN gate c ON a.zone = c.zone AND c.event_time BETWEEN a.event_time AND a.event_time + INTERVAL '5 seconds';
 CREATE QUERY too_late AS SELECT query, event_id, watermark, reason FROM late;";
    let events = [event("rfid", 100, 0), event("gate", 102, 0)];
    let said = feed_all(sql, &events, &[1]);
    assert_eq!(said.rows.get("too_late"), None);
}

#[test]
fn nor_for_a_query_that_joins_the_output() {
    let sql = format!(
        "{LEFT} CREATE QUERY q AS SELECT l.a AS a, c.event_id AS c FROM left_join l JOIN gate c ON l.zone = c.zone
 AND c.event_time BETWEEN l.event_time AND l.event_time + INTERVAL '5 seconds';"
    );
    let events = [event("rfid", 100, 0), event("gate", 102, 0)];
    let said = feed_all(&sql, &events, &[1]);
    assert_eq!(said.rows.get("too_late"), None);
}

#[test]
fn nor_for_absent_or_a_pattern_or_a_window() {
    let sql = format!("{LEFT} CREATE QUERY q AS SELECT a, absent_at FROM ABSENT(left_join, event_time, zone, INTERVAL '9 seconds');
 CREATE QUERY m AS SELECT * FROM left_join MATCH_RECOGNIZE (PARTITION BY zone ORDER BY event_time MEASURES A.a AS a PATTERN (A) WITHIN INTERVAL '1 second' DEFINE A AS A.b IS NULL);
 CREATE QUERY over_w AS SELECT zone, window_start, window_end, count(*) AS n FROM TUMBLE(left_join, event_time, INTERVAL '1 second') GROUP BY zone, window_start, window_end;");
    let mut one = event("rfid", 100, 0);
    one.time = 101 * SECOND - 1;
    let said = feed_all(&sql, &[one], &[1]);
    assert_eq!(said.rows.get("too_late"), None);
}

#[test]
fn the_cause_of_an_absence_does_not_depend_on_batches() {
    let sql =
        "CREATE QUERY q AS WITH seen AS (SELECT event_time, zone FROM rfid UNION ALL SELECT event_time, zone FROM gate)
 SELECT zone, absent_at FROM ABSENT(seen, event_time, zone, INTERVAL '3 seconds');";
    let events = [event("rfid", 100, 0), event("gate", 100, 0)];
    let singly = feed_all(sql, &events, &[1]);
    let batched = feed_all(sql, &events, &[2]);
    assert_eq!(singly.traced, batched.traced);
}

#[test]
fn a_query_over_a_query_over_a_join_says_the_same_in_any_batches() {
    let sql =
        "CREATE QUERY a AS SELECT a.event_id AS id, a.event_time AS event_time, a.zone AS zone FROM rfid a JOIN rfid b
 ON a.event_id = b.event_id AND b.event_time BETWEEN a.event_time - INTERVAL '10 seconds' AND a.event_time;
 CREATE QUERY b AS SELECT id, zone, event_time - INTERVAL '15 seconds' AS early FROM a;
 CREATE QUERY q AS SELECT id, absent_at FROM ABSENT(b, early, zone, INTERVAL '5 seconds');
 CREATE QUERY too_late AS SELECT query, event_id, reason FROM late;";
    let mut events = [event("rfid", 100, 0), event("rfid", 103, 100)];
    events[0].left = 100 * SECOND;
    events[1].left = 103 * SECOND;
    let singly = feed_all(sql, &events, &[1]);
    let batched = feed_all(sql, &events, &[2]);
    assert_eq!(singly.rows, batched.rows);
}

#[test]
fn a_late_row_takes_no_part_on_the_third_side() {
    let sql = "CREATE QUERY q AS SELECT a.event_id AS a, b.event_id AS b, c.event_id AS c FROM rfid a JOIN click b ON a.zone = b.zone
 AND b.event_time BETWEEN a.event_time AND a.event_time + INTERVAL '20 seconds'
 LEFT JOIN gate c ON c.zone = b.zone AND c.event_time BETWEEN b.event_time - INTERVAL '4 seconds' AND b.event_time + INTERVAL '2 seconds';
 CREATE QUERY too_late AS SELECT query, event_id, reason FROM late;";
    // The gate's row is ten seconds later than the watermark allows.
    let events = [event("rfid", 100, 0), event("click", 101, 0), event("gate", 100, 110)];
    let said = feed_all(sql, &events, &[1]);
    assert_eq!(said.rows["q"], [r#"{"a":"e0","b":"e1","c":null}"#]);
}

#[test]
fn a_length_beyond_all_bounds_is_refused_in_words() {
    let cases = [
        (
            "SELECT 1 AS one FROM rfid a JOIN click b ON b.event_time BETWEEN a.event_time AND a.event_time + INTERVAL '200000000 days'",
            "two streams are joined without a bound on time",
        ),
        (
            "SELECT * FROM ABSENT(rfid, event_time, zone, INTERVAL '200000000 days')",
            "at most a hundred years",
        ),
        (
            "SELECT * FROM rfid MATCH_RECOGNIZE (ORDER BY event_time MEASURES A.zone AS z PATTERN (A) WITHIN INTERVAL '200000000 days' DEFINE A AS true)",
            "of at most a hundred years, was expected",
        ),
        (
            "SELECT * FROM rfid MATCH_RECOGNIZE (ORDER BY event_time MEASURES COUNT(*) AS n PATTERN ((A?){400} B) WITHIN INTERVAL '1 hour' DEFINE B AS B.antenna = 7)",
            "too many optional parts within each other",
        ),
    ];
    for (case, expected) in cases {
        let error = mistake("", &format!("CREATE QUERY q AS {case}"));
        assert!(error.contains(expected), "{case}\n{error}");
    }
}

const THREE: &str = "
CREATE QUERY of_three WITH (lateness = '1 second') AS
SELECT a.event_id AS a, b.event_id AS b, c.event_id AS c FROM rfid a JOIN click b ON a.zone = b.zone
AND b.event_time BETWEEN a.event_time - INTERVAL '1 second' AND a.event_time + INTERVAL '3 seconds'
LEFT JOIN rfid c ON c.zone = b.zone AND c.antenna = 2
AND c.event_time BETWEEN b.event_time - INTERVAL '4 seconds' AND b.event_time + INTERVAL '2 seconds';
CREATE QUERY too_late AS SELECT event_id, reason FROM late WHERE query = 'of_three';
";

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 60, ..ProptestConfig::default() })]
    #[test]
    fn a_join_of_three_streams_is_the_same_in_every_way(
        events in events(&["rfid", "click"], 40),
        sizes in prop::collection::vec(4..16_usize, 1..4),
    ) {
        check(THREE, &events, SECOND, &sizes)?;
    }
}
