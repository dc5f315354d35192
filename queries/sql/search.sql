-- Search trouble: searches without a result by each person in the last five minutes, every minute.
-- Read by search_needs_help. A person without a login is known by the session.
CREATE QUERY search_trouble WITH (emit = 'update', lateness = '10 seconds') AS
SELECT
  site,
  coalesce(person, session) AS person,
  window_start,
  window_end,
  count(*) AS failed,
  last_value(query ORDER BY event_time) AS query,
  array_agg(event_id ORDER BY event_time) AS causes
FROM HOP(click, event_time, INTERVAL '1 minute', INTERVAL '5 minutes')
WHERE action = 'search' AND results = 0 AND coalesce(person, session) IS NOT NULL
GROUP BY site, coalesce(person, session), window_start, window_end
HAVING count(*) >= 3;

-- Three searches without results in five minutes: someone needs help now. Stands for a quarter of an hour.
CREATE ALERT search_needs_help WITH (
  subject = 'person', severity = 'info', cooldown = '15 minutes', expires = '15 minutes',
  text = 'A reader searched {failed} times without results and may need help'
) AS
SELECT site, person, window_start, window_end, failed, causes FROM search_trouble;
