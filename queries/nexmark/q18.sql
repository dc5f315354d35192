-- Nexmark q18, last bid of each bidder on each auction.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q18 WITH (emit = 'update') AS
SELECT auction, bidder,
  last_value(price ORDER BY date_time) AS price,
  last_value(channel ORDER BY date_time) AS channel,
  last_value(url ORDER BY date_time) AS url,
  max(date_time) AS date_time,
  last_value(extra ORDER BY date_time) AS extra
FROM bid
GROUP BY auction, bidder;
