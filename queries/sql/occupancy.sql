-- Occupancy: how many people are in each zone now, and how sure that is. Read by the page and by zone_crowded.
-- The balance of all passages; a door counts a little wrong in both directions, so the bounds widen with the square
-- root of the traffic. Nobody is less than no one: counters that drift below zero show an empty room.
CREATE QUERY occupancy WITH (emit = 'update') AS
SELECT
  site,
  zone,
  greatest(sum(entered) - sum(exited), 0) AS persons,
  greatest(sum(entered) - sum(exited) - CAST(ceil(0.5 * sqrt(sum(entered) + sum(exited))) AS BIGINT), 0) AS low,
  greatest(sum(entered) - sum(exited), 0) + CAST(ceil(0.5 * sqrt(sum(entered) + sum(exited))) AS BIGINT) AS high,
  sum(entered) AS entered,
  sum(exited) AS exited,
  max(event_time) AS as_of
FROM gate
GROUP BY site, zone;

-- Zone flow: passages into and out of each zone in the last minute, every ten seconds. Read by the page's history.
CREATE QUERY zone_flow WITH (emit = 'close', lateness = '5 seconds') AS
SELECT site, zone, window_start, window_end, sum(entered) AS entered, sum(exited) AS exited
FROM HOP(gate, event_time, INTERVAL '10 seconds', INTERVAL '1 minute')
GROUP BY site, zone, window_start, window_end;

-- A zone is crowded from 90 % of its capacity until it is below 80 %. For staff: open another room, send people there.
CREATE ALERT zone_crowded WITH (
  subject = 'zone', severity = 'warning',
  raise = 'share >= 0.90', clear = 'share < 0.80', for = '10 seconds', cooldown = '5 minutes',
  text = '{zone} is {percent} % full'
) AS
SELECT o.site, o.zone, o.persons, z.capacity, o.persons / z.capacity AS share,
  round(100 * o.persons / z.capacity) AS percent
FROM occupancy o
JOIN zones z ON o.site = z.site AND o.zone = z.zone
WHERE z.capacity IS NOT NULL;
