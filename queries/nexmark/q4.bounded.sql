-- Nexmark q4 over recorded rows, as the original writes it.
-- After github.com/nexmark/nexmark, Apache-2.0.
SELECT q.category AS id, CAST(avg(q.winning) AS BIGINT) AS average
FROM (
  SELECT max(b.price) AS winning, a.category
  FROM auction a
  JOIN bid b ON a.id = b.auction
  WHERE b.date_time BETWEEN a.date_time AND a.expires
  GROUP BY a.id, a.category
) q
GROUP BY q.category;
