-- Visits and dwell: where each person was seen by readers in an hour, how often, and from when to when.
-- Read by engagement reports.
CREATE QUERY visits WITH (emit = 'update', lateness = '1 minute') AS
SELECT
  site,
  zone,
  person,
  window_start,
  window_end,
  count(*) AS sightings,
  min(event_time) AS first_seen,
  max(event_time) AS last_seen,
  date_part('epoch', max(event_time) - min(event_time)) AS dwell_seconds
FROM TUMBLE(rfid, event_time, INTERVAL '1 hour')
WHERE person IS NOT NULL
GROUP BY site, zone, person, window_start, window_end;
