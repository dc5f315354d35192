-- A seat in the quiet zone is free for somebody who asked for one: who searched or asked for a seat on the web, and within
-- half an hour one of the zone is freed. For the reader, who need not walk up in vain.
CREATE ALERT offer_quiet_seat WITH (
  subject = 'person', message = 'seat_offer', priority = 60, per_day = 2, points = 2, when = 'open', expires = $stands,
  parameters = 'zone text = quiet-study, words text = seat|quiet|座|静, within interval = 30 minutes,
                stands interval = 10 minutes',
  eligible = 'zone = $zone',
  text = 'Seat {seat} in {zone} is free now; you asked for one {minutes} minutes ago',
  text_zh = '{zone}的{seat}号座位现在空出来了；您在{minutes}分钟前找过座位'
) AS
SELECT
  s.site,
  s.zone,
  s.seat,
  c.person,
  round(date_part('epoch', s.event_time - c.event_time) / 60.0) AS minutes,
  s.event_time,
  [c.event_id, s.event_id] AS causes
FROM click c
JOIN seat s ON c.site = s.site AND s.event_time BETWEEN c.event_time AND c.event_time + $within
WHERE s.state = 'free' AND c.person IS NOT NULL AND (
  c.action = 'search' AND regexp_like(c.query, $words) OR c.action IN ('request', 'reserve') AND regexp_like(c.page, $words)
);

-- A requested item has just been returned to this branch. For who asked for it, unless it is who brought it back. Several may
-- have asked, and whether it is kept for one of them no event tells.
CREATE ALERT offer_returned_item WITH (
  subject = 'person', message = 'item_offer', priority = 70, per_day = 3, when = 'open', expires = $stands,
  parameters = 'within interval = 28 days, stands interval = 2 hours',
  eligible = 'returned_by IS DISTINCT FROM person',
  text = 'Item {item}, which you asked for, has just been returned here',
  text_zh = '您预约的文献{item}刚刚归还到本馆'
) AS
SELECT
  r.site,
  r.zone,
  c.person,
  c.item,
  r.person AS returned_by,
  r.event_time,
  [c.event_id, r.event_id] AS causes
FROM click c
JOIN rfid r ON c.site = r.site AND c.item = r.tag AND r.event_time BETWEEN c.event_time AND c.event_time + $within
WHERE c.action IN ('request', 'reserve') AND r.action = 'checkin' AND c.person IS NOT NULL;

-- The third search without a result within five minutes: offer help now. For who searches and is known: a session is nobody
-- to write to. Staff hears of both by search_needs_help.
CREATE ALERT offer_search_help WITH (
  subject = 'person', message = 'help_offer', priority = 80, when = 'open', expires = $stands,
  emit = 'update', lateness = '10 seconds',
  parameters = 'searches integer = 3, within interval = 5 minutes, stands interval = 15 minutes',
  eligible = 'failed >= $searches',
  text = 'You searched {failed} times without a result; shall we look together? The last was: {query}',
  text_zh = '您已检索{failed}次未找到结果，需要我们帮忙吗？最近一次检索：{query}'
) AS
SELECT
  site,
  person,
  window_start,
  window_end,
  count(*) AS failed,
  last_value(query ORDER BY event_time) AS query,
  array_agg(event_id ORDER BY event_time) AS causes
FROM HOP(click, event_time, INTERVAL '1 minute', $within)
WHERE action = 'search' AND results = 0 AND person IS NOT NULL
GROUP BY site, person, window_start, window_end;

-- Left seats: seats that belongings have held for half an hour without a change. Read by offer_left_seat.
CREATE QUERY left_seats WITH (parameters = 'left_for interval = 30 minutes') AS
SELECT s.site, s.zone, s.seat, s.event_id, s.event_time
FROM seat s
LEFT JOIN seat b ON s.site = b.site AND s.zone = b.zone AND s.seat = b.seat AND b.state <> 'away'
  AND b.event_time BETWEEN s.event_time AND s.event_time + $left_for
WHERE s.state = 'away' AND b.seat IS NULL;

-- A seat was left behind that somebody else waits for: who asked for a seat since, or within the last half hour before it
-- was found so. Not where its owner was back by then, nor where seats are nobody's to free. For who waits; the desk can free it.
CREATE ALERT offer_left_seat WITH (
  subject = 'person', message = 'seat_offer', priority = 40, per_day = 2, when = 'open', expires = $stands,
  parameters = 'words text = seat|quiet|座|静, within interval = 1 hour, stands interval = 15 minutes,
                not_in text = special-collections',
  eligible = 'zone <> $not_in',
  text = 'Seat {seat} in {zone} has been left for a while; ask at the desk and it is freed for you',
  text_zh = '{zone}的{seat}号座位已长时间无人；请到服务台，我们为您腾出'
) AS
SELECT
  l.site,
  l.zone,
  l.seat,
  c.person,
  round(date_part('epoch', c.event_time - l.event_time) / 60.0) AS left_minutes,
  [l.event_id, c.event_id] AS causes
FROM left_seats l
JOIN click c ON l.site = c.site AND c.event_time BETWEEN l.event_time AND l.event_time + $within
LEFT JOIN seat b ON b.site = l.site AND b.zone = l.zone AND b.seat = l.seat AND b.state <> 'away'
  AND b.event_time > l.event_time AND b.event_time BETWEEN c.event_time - $within AND c.event_time
WHERE b.seat IS NULL AND c.person IS NOT NULL AND (
  c.action = 'search' AND regexp_like(c.query, $words) OR c.action IN ('request', 'reserve') AND regexp_like(c.page, $words)
);
