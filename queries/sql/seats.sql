-- Seat state: what each seat last said, and since when. Read by the page.
CREATE QUERY seat_state WITH (emit = 'update') AS
SELECT
  site,
  zone,
  seat,
  last_value(state ORDER BY event_time) AS state,
  max(event_time) AS as_of
FROM seat
GROUP BY site, zone, seat;

-- Seat turnover: how often each zone's seats were taken and freed in an hour, every hour. A report that repeats the
-- state counts again, so this is an upper bound for sensors that send heartbeats.
CREATE QUERY seat_turnover WITH (emit = 'close', lateness = '1 minute') AS
SELECT
  site,
  zone,
  window_start,
  window_end,
  count(*) FILTER (WHERE state = 'occupied') AS taken,
  count(*) FILTER (WHERE state = 'free') AS freed,
  count(DISTINCT seat) AS seats_heard
FROM TUMBLE(seat, event_time, INTERVAL '1 hour')
GROUP BY site, zone, window_start, window_end;

-- A seat is left behind when belongings have held it for half an hour. For staff: free it for someone who waits.
CREATE ALERT seat_left_behind WITH (
  subject = 'seat', severity = 'info',
  raise = 'state = ''away''', clear = 'state <> ''away''', for = '30 minutes', cooldown = '5 minutes',
  text = 'Seat {seat} in {zone} has been left with belongings for 30 minutes'
) AS
SELECT site, zone, seat, state, event_time FROM seat;

-- Seat stretches: for how long each seat that site.toml names was taken, by somebody or by belongings, from the report that says so
-- to the one that it is free. Read by all_seats_taken. A seat that is not freed within a day has a broken sensor, or nobody to
-- clear it: it counts as taken for that day and no longer.
CREATE QUERY seat_stretches WITH (lateness = '1 minute', parameters = 'longest interval = 1 day') AS
WITH known AS (
  SELECT s.site, s.zone, s.seat, s.event_time, s.state
  FROM seat s
  JOIN seats k ON s.site = k.site AND s.zone = k.zone AND s.seat = k.seat
)
SELECT site, zone, seat, taken_at, coalesce(freed_at, taken_at + $longest) AS freed_at
FROM known MATCH_RECOGNIZE (
  PARTITION BY site, zone, seat
  ORDER BY event_time
  MEASURES T.event_time AS taken_at, F.event_time AS freed_at
  ONE ROW PER MATCH
  AFTER MATCH SKIP PAST LAST ROW
  PATTERN (T S* F) WITHIN $longest SHOW TIMED OUT
  DEFINE
    -- A report that repeats the state begins nothing.
    T AS T.state <> 'free' AND coalesce(PREV(T.state), 'free') = 'free',
    S AS S.state <> 'free',
    F AS F.state = 'free'
) AS m;

-- All seats taken: from when until when no seat of a zone was free, of the zones whose seats site.toml names. It begins with the
-- seat that was taken last, and ends with the first of all that is freed. Read by measures.
CREATE QUERY all_seats_taken WITH (parameters = 'longest interval = 1 day') AS
WITH held AS (
  -- Each time a seat was taken, with the seats that were taken then, itself among them.
  SELECT n.site, n.zone, n.taken_at AS began, h.seat, h.freed_at
  FROM seat_stretches n
  JOIN seat_stretches h ON n.site = h.site AND n.zone = h.zone
    AND h.freed_at > n.taken_at AND h.freed_at <= n.taken_at + $longest
  WHERE h.taken_at <= n.taken_at
),
of_zones AS (
  SELECT h.site, h.zone, h.began, h.seat, h.freed_at, z.seats
  FROM held h
  JOIN zones z ON h.site = z.site AND h.zone = z.zone
)
SELECT site, zone, began, window_start, window_end, min(freed_at) AS ended, max(seats) AS seats
FROM TUMBLE(of_zones, began, INTERVAL '1 hour')
GROUP BY site, zone, began, window_start, window_end
HAVING count(DISTINCT seat) = max(seats);
