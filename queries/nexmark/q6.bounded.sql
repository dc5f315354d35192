-- Nexmark q6 over recorded rows: the last value of the original's moving average for each seller.
-- After github.com/nexmark/nexmark, Apache-2.0.
WITH winning AS (
  SELECT id, seller, price, date_time FROM (
    SELECT a.id, a.seller, b.price, b.date_time,
      row_number() OVER (PARTITION BY a.id, a.seller ORDER BY b.price DESC, b.date_time) AS place
    FROM auction a
    JOIN bid b ON a.id = b.auction
    WHERE b.date_time BETWEEN a.date_time AND a.expires
  ) WHERE place = 1
), moving AS (
  SELECT seller,
    avg(price) OVER (PARTITION BY seller ORDER BY date_time, id ROWS BETWEEN 10 PRECEDING AND CURRENT ROW) AS average,
    row_number() OVER (PARTITION BY seller ORDER BY date_time DESC, id DESC) AS from_last
  FROM winning
)
SELECT seller, CAST(average AS BIGINT) AS avg_price
FROM moving
WHERE from_last = 1;
