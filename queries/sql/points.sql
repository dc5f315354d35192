-- Points for returning on time: an item that comes back within four weeks of its loan gives its reader ten points, once
-- a loan. Read by the ledger, as all queries whose names begin with grant_.
CREATE QUERY grant_returned_on_time AS
WITH loans AS (SELECT * FROM rfid WHERE action <> 'read')
SELECT
  person,
  CAST(10 AS BIGINT) AS points,
  'returned_on_time' AS reason,
  cause,
  event_time,
  CAST(365 AS BIGINT) AS expires_days
FROM loans MATCH_RECOGNIZE (
  PARTITION BY site, tag
  ORDER BY event_time
  MEASURES O.person AS person, B.event_id AS cause, B.event_time AS event_time
  ONE ROW PER MATCH
  AFTER MATCH SKIP PAST LAST ROW
  PATTERN (O B) WITHIN INTERVAL '28 days'
  DEFINE O AS O.action = 'checkout', B AS B.action = 'checkin'
) AS m
WHERE person IS NOT NULL;

-- Points for feedback: the first rating of a message that was sent to its reader gives two points. Read by the ledger.
CREATE QUERY grant_feedback AS
SELECT
  person,
  CAST(2 AS BIGINT) AS points,
  'feedback' AS reason,
  message AS cause,
  event_time,
  CAST(365 AS BIGINT) AS expires_days
FROM message
WHERE state = 'rated' AND person IS NOT NULL;

-- A challenge: three loans within four weeks give fifteen points, once a period. Read by the ledger, as all queries whose
-- names begin with challenge_.
CREATE QUERY challenge_three_loans WITH (emit = 'update', lateness = '1 minute') AS
SELECT
  person,
  'three_loans' AS challenge,
  count(*) AS progress,
  CAST(3 AS BIGINT) AS goal,
  CAST(15 AS BIGINT) AS points,
  window_start AS period_start,
  window_end AS period_end,
  max(event_time) AS event_time,
  CAST(365 AS BIGINT) AS expires_days
FROM TUMBLE(rfid, event_time, INTERVAL '28 days')
WHERE action = 'checkout' AND person IS NOT NULL
GROUP BY person, window_start, window_end;
