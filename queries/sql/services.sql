-- A seat in the quiet zone is free for somebody who asked for one: who searched or asked for a seat on the web, and within
-- half an hour one of the zone is freed. For the reader, who need not walk up in vain.
CREATE ALERT offer_quiet_seat WITH (
  subject = 'person', message = 'seat_offer', priority = 60, per_day = 2, points = 2, when = 'open', expires = $stands,
  prefer = 'minutes',
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
  c.action = 'search' AND regexp_like(c.query, $words, 'i') OR c.action IN ('request', 'reserve') AND regexp_like(c.page, $words, 'i')
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

-- Seats back: when a seat that was left was first found to be taken or free again. Read by offer_left_seat, which would keep what
-- each seat says for hours; these are few.
CREATE QUERY seats_back AS
WITH told AS (
  SELECT site, zone, seat, event_time, state FROM seat
)
SELECT site, zone, seat, event_time
FROM told MATCH_RECOGNIZE (
  PARTITION BY site, zone, seat
  ORDER BY event_time
  MEASURES B.event_time AS event_time
  ONE ROW PER MATCH
  AFTER MATCH SKIP PAST LAST ROW
  PATTERN (L B)
  DEFINE L AS L.state = 'away', B AS B.state <> 'away'
) AS m;

-- A seat was left behind that somebody else waits for: who asked for a seat since, or within the last half hour before it
-- was found so. Not where its owner was back by then, nor where seats are nobody's to free. For who waits; the desk can free it.
CREATE ALERT offer_left_seat WITH (
  subject = 'person', message = 'seat_offer', priority = 40, per_day = 2, when = 'open', expires = $stands,
  prefer = 'left_minutes DESC',
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
LEFT JOIN seats_back b ON b.site = l.site AND b.zone = l.zone AND b.seat = l.seat
  AND b.event_time > l.event_time AND b.event_time BETWEEN c.event_time - $within AND c.event_time
WHERE b.seat IS NULL AND c.person IS NOT NULL AND (
  c.action = 'search' AND regexp_like(c.query, $words, 'i') OR c.action IN ('request', 'reserve') AND regexp_like(c.page, $words, 'i')
);

-- Zone fill: how many people are in each zone, as its gates last told within half an hour, every five minutes. Read by
-- offer_other_zone. Of a zone whose gates have been silent for longer nobody knows.
CREATE QUERY zone_fill WITH (parameters = 'known_for interval = 30 minutes') AS
SELECT
  site,
  zone,
  window_start,
  window_end,
  greatest(last_value(coalesce(inside, 0) + entered - exited ORDER BY event_time), 0) AS persons,
  last_value(event_id ORDER BY event_time) AS event_id
FROM HOP(gate, event_time, INTERVAL '5 minutes', $known_for)
GROUP BY site, zone, window_start, window_end;

-- Group reads: where members of groups were read within ten minutes, every five. Read by offer_other_zone.
CREATE QUERY group_reads WITH (parameters = 'crowd_within interval = 10 minutes') AS
WITH of_groups AS (
  SELECT r.site, r.zone, r.person, m.group_id, r.event_time, r.event_id
  FROM rfid r
  JOIN memberships m ON r.person = m.person
)
SELECT site, zone, group_id, person, window_start, window_end, last_value(event_id ORDER BY event_time) AS event_id
FROM HOP(of_groups, event_time, INTERVAL '5 minutes', $crowd_within)
GROUP BY site, zone, group_id, person, window_start, window_end;

-- Group crowds: how many of a group were read in a zone within the same ten minutes. Read by offer_other_zone.
CREATE QUERY group_crowds WITH (parameters = 'crowd_within interval = 10 minutes') AS
WITH of_groups AS (
  SELECT r.site, r.zone, r.person, m.group_id, r.event_time
  FROM rfid r
  JOIN memberships m ON r.person = m.person
)
SELECT site, zone, group_id, window_start, window_end, count(DISTINCT person) AS members
FROM HOP(of_groups, event_time, INTERVAL '5 minutes', $crowd_within)
GROUP BY site, zone, group_id, window_start, window_end;

-- A group crowds one zone while another has room for all of them who are there: at least eight of a course were read in a zone that
-- is nearly full. For these members, who can go on together elsewhere. Neither the floor that a zone is a part of nor a part of
-- it is another zone.
CREATE ALERT offer_other_zone WITH (
  subject = 'person', message = 'zone_offer', priority = 45, per_day = 1, when = 'open', expires = $stands,
  prefer = 'room DESC',
  parameters = 'persons integer = 8, full_at number = 0.9, stands interval = 15 minutes, not_to text = special-collections',
  eligible = 'members >= $persons AND share >= $full_at AND room >= members AND zone <> $not_to',
  text = '{members} of {group_id} are in {here}, which is {percent} % full; {zone} has room for {room} more',
  text_zh = '{group_id}有{members}人在{here_zh}，那里已占{percent}%；{zone}还有{room}个空位'
) AS
SELECT
  r.site,
  t.zone,
  r.zone AS crowded,
  h.name AS here,
  h.name_zh AS here_zh,
  r.group_id,
  r.person,
  c.members,
  f.persons / h.capacity AS share,
  round(100 * f.persons / h.capacity) AS percent,
  CAST(z.capacity AS BIGINT) - t.persons AS room,
  r.window_start,
  r.window_end,
  [r.event_id, f.event_id, t.event_id] AS causes
FROM group_reads r
JOIN group_crowds c ON r.site = c.site AND r.zone = c.zone AND r.group_id = c.group_id AND c.window_end = r.window_end
JOIN zone_fill f ON r.site = f.site AND r.zone = f.zone AND f.window_end = r.window_end
JOIN zone_fill t ON r.site = t.site AND t.window_end = r.window_end AND t.zone <> r.zone
JOIN zones h ON r.site = h.site AND r.zone = h.zone
JOIN zones z ON t.site = z.site AND t.zone = z.zone
WHERE h.capacity > 0 AND z.capacity > 0
  AND (h.parent IS DISTINCT FROM t.zone) AND (z.parent IS DISTINCT FROM r.zone);
