-- Nexmark q3, local item suggestion: sellers in three states in category 10; the unbounded join as an interval join that covers all pairs from 1,000 events a second of event time on. The crate writes states in lower case.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q3 AS
SELECT p.name, p.city, p.state, a.id
FROM auction a
JOIN person p
  ON a.seller = p.id
  AND a.date_time BETWEEN p.date_time - INTERVAL '1 second' AND p.date_time + INTERVAL '1 minute'
WHERE a.category = 10 AND p.state IN ('or', 'id', 'ca');
