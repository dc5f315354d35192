-- Nexmark q12, windows of processing time: how many bids each bidder made in 10 seconds; by event time here, so that a replay gives the same.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q12 WITH (emit = 'close') AS
SELECT bidder, count(*) AS bid_count, window_start AS starttime, window_end AS endtime
FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')
GROUP BY bidder, window_start, window_end;
