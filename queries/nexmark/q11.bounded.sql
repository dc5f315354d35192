-- Nexmark q11 over recorded rows, without window functions in FROM: a pause of exactly the gap ends a session, which it does not in Flink.
-- After github.com/nexmark/nexmark, Apache-2.0.
SELECT bidder, count(*) AS bid_count, min(date_time) AS starttime, max(date_time) + INTERVAL '10 seconds' AS endtime
FROM (
  SELECT bidder, date_time, sum(begins) OVER (PARTITION BY bidder ORDER BY date_time) AS session
  FROM (
    SELECT bidder, date_time,
      CASE WHEN date_time - lag(date_time) OVER (PARTITION BY bidder ORDER BY date_time) < INTERVAL '10 seconds'
        THEN 0 ELSE 1 END AS begins
    FROM bid
  )
)
GROUP BY bidder, session;
