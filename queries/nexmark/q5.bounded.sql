-- Nexmark q5 over recorded rows, without window functions in FROM.
-- After github.com/nexmark/nexmark, Apache-2.0.
WITH counts AS (
  SELECT b.auction, count(*) AS num,
    date_bin(INTERVAL '2 seconds', b.date_time) - h.back AS starttime,
    date_bin(INTERVAL '2 seconds', b.date_time) - h.back + INTERVAL '10 seconds' AS endtime
  FROM bid b
  CROSS JOIN (VALUES (INTERVAL '0 seconds'), (INTERVAL '2 seconds'), (INTERVAL '4 seconds'), (INTERVAL '6 seconds'),
    (INTERVAL '8 seconds')) AS h (back)
  GROUP BY b.auction, date_bin(INTERVAL '2 seconds', b.date_time) - h.back
)
SELECT c.auction, c.num, c.starttime, c.endtime
FROM counts c
JOIN (SELECT starttime, endtime, max(num) AS most FROM counts GROUP BY starttime, endtime) m
  ON c.starttime = m.starttime AND c.endtime = m.endtime AND c.num >= m.most;
