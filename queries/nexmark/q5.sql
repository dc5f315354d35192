-- Nexmark q5, hot items: bids of each auction in the last 10 seconds, every 2 seconds; the most in each window; the auctions that have so many.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q5_counts WITH (emit = 'close') AS
SELECT auction, count(*) AS num, window_start AS starttime, window_end AS endtime
FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')
GROUP BY auction, window_start, window_end;

-- Windows end 2 seconds apart, so that each has a tumbling window of 2 seconds to itself.
CREATE QUERY q5_most WITH (emit = 'close') AS
SELECT starttime, endtime, window_start, window_end, max(num) AS most
FROM TUMBLE(q5_counts, endtime, INTERVAL '2 seconds')
GROUP BY starttime, endtime, window_start, window_end;

CREATE QUERY q5 AS
SELECT c.auction, c.num, c.starttime, c.endtime
FROM q5_counts c
JOIN q5_most m ON c.starttime = m.starttime AND c.endtime = m.endtime AND c.num >= m.most;
