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
