-- Nexmark q4, average winning price of each category: bids within 10 seconds of their auction and before its end, the highest when the auction ends, then the average of those. Exact from 340 events a second of event time on.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q4_bids AS
SELECT a.id, a.category, a.expires, b.price
FROM auction a
JOIN bid b
  ON b.auction = a.id
  AND b.date_time BETWEEN a.date_time AND a.date_time + INTERVAL '10 seconds'
WHERE b.date_time <= a.expires;

-- All bids of an auction share its end, so that they lie in one window whatever its size.
CREATE QUERY q4_winning WITH (emit = 'close') AS
SELECT id, category, window_start, window_end, max(price) AS winning
FROM TUMBLE(q4_bids, expires, INTERVAL '1 second')
GROUP BY id, category, window_start, window_end;

CREATE QUERY q4 WITH (emit = 'update') AS
SELECT category AS id, CAST(avg(winning) AS BIGINT) AS average
FROM q4_winning
GROUP BY category;
