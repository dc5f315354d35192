-- Nexmark q7 over recorded rows, without window functions in FROM.
-- After github.com/nexmark/nexmark, Apache-2.0.
SELECT b.auction, b.bidder, b.price, b.date_time, b.extra
FROM bid b
JOIN (
  SELECT max(price) AS maxprice, date_bin(INTERVAL '10 seconds', date_time) + INTERVAL '10 seconds' AS endtime
  FROM bid
  GROUP BY date_bin(INTERVAL '10 seconds', date_time)
) h ON b.price = h.maxprice
WHERE b.date_time BETWEEN h.endtime - INTERVAL '10 seconds' AND h.endtime;
