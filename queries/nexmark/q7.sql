-- Nexmark q7, highest bid: the highest price of each 10 seconds, and the bids of that time that have it.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q7_highest WITH (emit = 'close') AS
SELECT max(price) AS maxprice, window_start AS starttime, window_end AS endtime
FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')
GROUP BY window_start, window_end;

CREATE QUERY q7 AS
SELECT b.auction, b.bidder, b.price, b.date_time, b.extra
FROM bid b
JOIN q7_highest h
  ON b.price = h.maxprice
  AND b.date_time BETWEEN h.endtime - INTERVAL '10 seconds' AND h.endtime;
