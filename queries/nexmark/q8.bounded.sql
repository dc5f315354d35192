-- Nexmark q8 over recorded rows, without window functions in FROM.
-- After github.com/nexmark/nexmark, Apache-2.0.
SELECT DISTINCT p.id, p.name, date_bin(INTERVAL '10 seconds', p.date_time) AS starttime
FROM person p
JOIN auction a
  ON p.id = a.seller
  AND date_bin(INTERVAL '10 seconds', p.date_time) = date_bin(INTERVAL '10 seconds', a.date_time);
