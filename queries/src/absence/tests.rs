//! Random events: ABSENT says the same in every way, and the same as bounded runs.

use proptest::prelude::*;

use super::ABSENCE_WAS_FINAL;
use crate::feeding::{Event, Moving, SECOND, check, event, events, feed, feed_without_end, mistake};

const SQL: &str = "
CREATE QUERY by_zone WITH (lateness = '1 second') AS
SELECT event_id, zone, event_time, absent_at FROM ABSENT(rfid, event_time, zone, INTERVAL '5 seconds');
CREATE QUERY by_person WITH (lateness = '1 second') AS
SELECT * FROM TABLE(ABSENT(rfid, DESCRIPTOR(event_time), DESCRIPTOR(site, person), INTERVAL '8 seconds')) a
WHERE a.zone = 'z1' AND a.absent_at > a.event_time;
CREATE QUERY of_some WITH (lateness = '1 second') AS
SELECT event_id, absent_at FROM ABSENT((SELECT event_id, event_time, CAST(antenna AS INT) AS n FROM rfid
WHERE zone = 'z1'), event_time, (n), INTERVAL '6 seconds');
CREATE QUERY of_two WITH (lateness = '1 second') AS
WITH seen AS (SELECT event_id, event_time, zone, person FROM rfid
UNION ALL SELECT event_id, event_time, zone, person FROM click)
SELECT event_id, absent_at FROM ABSENT(seen, event_time, (zone, person), INTERVAL '3 seconds');
CREATE QUERY of_joined WITH (lateness = '1 second') AS
WITH pairs AS (SELECT a.zone AS zone, a.event_time AS event_time, a.event_id AS a, b.event_id AS b
FROM rfid a JOIN click b ON a.zone = b.zone AND a.person = b.person
AND b.event_time BETWEEN a.event_time AND a.event_time + INTERVAL '3 seconds')
SELECT zone, event_time, absent_at FROM ABSENT(pairs, event_time, zone, INTERVAL '5 seconds');
CREATE QUERY over_absences WITH (lateness = '1 second') AS
SELECT zone, window_start, window_end, count(*) AS n
FROM TUMBLE((SELECT zone, absent_at FROM ABSENT(rfid, event_time, zone, INTERVAL '5 seconds')), absent_at, INTERVAL '4 seconds')
GROUP BY zone, window_start, window_end;
CREATE QUERY over_by_zone WITH (lateness = '1 second') AS
SELECT zone, window_start, window_end, count(*) AS n
FROM TUMBLE(by_zone, event_time, INTERVAL '4 seconds') GROUP BY zone, window_start, window_end;
CREATE QUERY too_late AS SELECT event_id, reason FROM late WHERE query = 'of_two';
";

const LATENESS: i64 = SECOND;

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 60, ..ProptestConfig::default() })]
    #[test]
    fn an_absence_is_the_same_in_every_way(
        events in events(&["rfid", "rfid", "click"], 40),
        sizes in prop::collection::vec(4..16_usize, 1..4),
    ) {
        check(SQL, &events, LATENESS, &sizes)?;
    }
}

const ONE: &str =
    "CREATE QUERY q AS SELECT event_id, absent_at FROM ABSENT(rfid, event_time, zone, INTERVAL '10 seconds');
CREATE QUERY too_late AS SELECT event_id, reason FROM late;";

#[test]
fn an_absence_is_said_when_it_is_certain_and_not_before() {
    let until = |watermark: i64| {
        let mut last = event("click", 500, 0);
        last.left = watermark * SECOND;
        let events = [event("rfid", 100, 0), last];
        feed_without_end(ONE, &events).rows.get("q").map_or(0, Vec::len)
    };
    assert_eq!([109, 110].map(until), [0, 1]);
}

#[test]
fn a_row_in_the_last_moment_ends_a_silence_and_one_after_it_does_not() {
    let between = |apart: i64| {
        let events = [event("rfid", 100, 0), event("rfid", 100 + apart, 0)];
        feed(ONE, &events, &[1], Moving::AtOnce).rows["q"].len()
    };
    assert_eq!([9, 10].map(between), [1, 2]);
}

#[test]
fn a_row_between_others_puts_their_silences_together() {
    let times = |times: &[i64]| -> Vec<String> {
        let events: Vec<Event> = times.iter().map(|time| event("rfid", *time, 0)).collect();
        let said = feed(ONE, &events, &[1], Moving::AtOnce);
        assert_eq!(
            feed(ONE, &events, &[1], Moving::Restarting).rows,
            said.rows,
            "after a restart"
        );
        said.rows["q"].clone()
    };
    let last = [r#"{"event_id":"e1","absent_at":"1970-01-01T00:02:06Z"}"#];
    assert_eq!(times(&[100, 116, 108]), last);
    // A row that another followed in time is not silent, though that one was not silent either.
    assert_eq!(
        times(&[110, 116, 105])[0],
        r#"{"event_id":"e1","absent_at":"1970-01-01T00:02:06Z"}"#
    );
    assert_eq!(times(&[110, 116, 105]).len(), 1);
}

#[test]
fn a_row_that_comes_too_late_is_told_and_ends_nothing() {
    let events = [event("rfid", 100, 0), event("rfid", 105, 106)];
    let said = feed(ONE, &events, &[1], Moving::AtOnce);
    assert_eq!(
        said.rows["q"],
        [r#"{"event_id":"e0","absent_at":"1970-01-01T00:01:50Z"}"#]
    );
    let late = format!(r#"{{"event_id":"e1","reason":"{ABSENCE_WAS_FINAL}"}}"#);
    assert_eq!(said.rows["too_late"], [late]);
}

#[test]
fn a_mistake_in_absent_says_what_would_be_right() {
    let cases = [
        (
            "ABSENT(rfid, event_time, zone)",
            "ABSENT has 3 arguments; ABSENT(stream, time, key, for)",
        ),
        (
            "ABSENT(rfid, zone, zone, INTERVAL '1 minute')",
            "'rfid.zone' is Utf8, and silence is measured by a time",
        ),
        (
            "ABSENT(rfid, event_time, zone, INTERVAL '1 month')",
            "a month has no fixed length",
        ),
        (
            "ABSENT(rfid, event_time, zone, 10)",
            "is no length of time such as INTERVAL '10 seconds'",
        ),
        (
            "ABSENT(rfid, event_time, 'zone', INTERVAL '1 minute')",
            "is the same for all rows",
        ),
        (
            "ABSENT(rfid, event_time, zon, INTERVAL '1 minute')",
            "1:58: column 'zon' not found, did you mean 'zone'?",
        ),
        (
            "ABSENT(counts, newest, zone, INTERVAL '1 minute')",
            "1:40: 'counts' says rows again when they change",
        ),
        (
            "ABSENT(zones, event_time, zone, INTERVAL '1 minute')",
            "there is no stream, query or table 'zones'",
        ),
    ];
    let counts = "CREATE QUERY counts AS SELECT zone, max(event_time) AS newest FROM rfid GROUP BY zone;";
    for (from, expected) in cases {
        let error = mistake(counts, &format!("CREATE QUERY q AS SELECT * FROM {from}"));
        assert!(
            error.contains(expected),
            "{from}\n  said:     {error}\n  expected: {expected}"
        );
    }
}
