-- Channel activity: how often each person used each channel, first and last. Read by engagement reports.
CREATE QUERY channel_activity WITH (emit = 'update', ttl = '730 days') AS
SELECT person, channel, sum(events) AS events, min(event_time) AS first_seen, max(event_time) AS last_seen
FROM (
  SELECT person, 'rfid' AS channel, CAST(1 AS BIGINT) AS events, event_time FROM rfid
  UNION ALL
  SELECT person, 'web' AS channel, count AS events, event_time FROM click
  UNION ALL
  SELECT person, 'reply' AS channel, CAST(1 AS BIGINT) AS events, event_time FROM reply
)
WHERE person IS NOT NULL
GROUP BY person, channel;

-- Click totals of each site and action, for reports and for checking a replayed recording.
CREATE QUERY click_totals WITH (emit = 'update') AS
SELECT site, action, sum(count) AS clicks, count(*) AS events, max(event_time) AS as_of
FROM click
GROUP BY site, action;

-- Tag reads of each reader, for reports and for checking a replayed recording.
CREATE QUERY reader_totals WITH (emit = 'update') AS
SELECT site, zone, device, count(*) AS events, approx_distinct(tag) AS tags, max(event_time) AS as_of
FROM rfid
GROUP BY site, zone, device;
