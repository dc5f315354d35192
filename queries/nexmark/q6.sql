-- Nexmark q6, average selling price of each seller: winning bids as in q4, then the average of the seller's last 11 (10 preceding and the current row, as the original's OVER says), newest winning bid last.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q6_bids AS
SELECT a.id, a.seller, a.expires, b.price, b.date_time
FROM auction a
JOIN bid b
  ON b.auction = a.id
  AND b.date_time BETWEEN a.date_time AND a.date_time + INTERVAL '10 seconds'
WHERE b.date_time <= a.expires;

CREATE QUERY q6_winning WITH (emit = 'close') AS
SELECT id, seller, window_start, window_end, max(price) AS price,
  first_value(date_time ORDER BY price DESC, date_time) AS date_time
FROM TUMBLE(q6_bids, expires, INTERVAL '1 second')
GROUP BY id, seller, window_start, window_end;

CREATE QUERY q6 WITH (emit = 'update') AS
SELECT seller, CAST(array_avg(array_slice(array_agg(price ORDER BY date_time, id), -11, -1)) AS BIGINT) AS avg_price
FROM q6_winning
GROUP BY seller;
