//! Random events: ABSENT says the same in every way, and the same as bounded runs.

use proptest::prelude::*;

use crate::feeding::{SECOND, check, events};

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
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, ..ProptestConfig::default() })]
    #[test]
    fn an_absence_is_the_same_in_every_way(
        events in events(&["rfid", "rfid", "click"], 40),
        sizes in prop::collection::vec(4..16_usize, 1..4),
    ) {
        check(SQL, &events, LATENESS, &sizes)?;
    }
}
