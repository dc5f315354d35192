//! Random events of two streams: joins say the same in every way, and the same as bounded runs.

use proptest::prelude::*;

use super::PARTNERS_WERE_FINAL;
use crate::feeding::{Event, SECOND, check, events, feed};
use crate::query_set::QuerySet;
use crate::statement::parse_statements;

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
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, ..ProptestConfig::default() })]
    #[test]
    fn a_join_of_two_streams_is_the_same_in_every_way(
        events in events(&["rfid", "click"], 40),
        sizes in prop::collection::vec(4..16_usize, 1..4),
    ) {
        check(SQL, &events, LATENESS, &sizes)?;
    }
}
