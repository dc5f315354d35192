-- Nexmark q11, user sessions: how many bids each bidder made until 10 seconds passed without one.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q11 WITH (emit = 'close') AS
SELECT bidder, count(*) AS bid_count, window_start AS starttime, window_end AS endtime
FROM SESSION(bid, date_time, INTERVAL '10 seconds')
GROUP BY bidder, window_start, window_end;
