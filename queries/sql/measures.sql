-- Unmet demand in the catalogue: searches and how many of them found nothing, by day and place. For who buys and who describes.
-- Read at /api/v1/measures, as all queries whose names begin with measure_.
CREATE QUERY measure_searches WITH (purpose = 'research', emit = 'update', lateness = '1 minute') AS
SELECT
  site,
  zone,
  window_start,
  window_end,
  sum(count) AS searches,
  coalesce(sum(count) FILTER (WHERE results = 0), 0) AS without_result,
  round(100.0 * coalesce(sum(count) FILTER (WHERE results = 0), 0) / sum(count), 1) AS percent_without_result,
  count(DISTINCT coalesce(person, session)) AS persons
FROM TUMBLE(click, event_time, INTERVAL '1 day')
WHERE action = 'search'
GROUP BY site, zone, window_start, window_end;

-- Unmet demand for room: how many came into each zone by day, and how many of them when it was full. For who opens rooms.
CREATE QUERY measure_arrivals_while_full WITH (
  emit = 'update', lateness = '1 minute', parameters = 'full_at number = 1'
) AS
WITH arrivals AS (
  SELECT
    g.site,
    g.zone,
    g.event_time,
    g.entered,
    -- Of those who came in together, as many as found no room.
    least(
      g.entered,
      greatest(coalesce(g.inside, 0) + g.entered - CAST(floor(z.capacity * $full_at) AS BIGINT), 0)
    ) AS while_full
  FROM gate g
  JOIN zones z ON g.site = z.site AND g.zone = z.zone
  WHERE g.entered > 0 AND z.capacity > 0
)
SELECT
  site,
  zone,
  window_start,
  window_end,
  sum(entered) AS arrivals,
  sum(while_full) AS while_full,
  round(1.0 * sum(while_full) / sum(entered), 3) AS share,
  -- Nobody knows who passes a door: at most as many.
  sum(entered) AS persons
FROM TUMBLE(arrivals, event_time, INTERVAL '1 day')
GROUP BY site, zone, window_start, window_end;

-- Unmet demand for seats: how often and for how long all seats of a zone were taken, by the day on which that began. For who opens
-- rooms that have sensors on their seats and none on their doors.
CREATE QUERY measure_seats_all_taken WITH (emit = 'update', lateness = '1 minute') AS
SELECT
  site,
  zone,
  window_start,
  window_end,
  count(*) AS times,
  round(sum(date_part('epoch', ended - began)) / 60.0, 1) AS minutes,
  round(max(date_part('epoch', ended - began)) / 60.0, 1) AS longest_minutes,
  -- Nobody knows who sits where: at any of these moments so many did, or had left their belongings.
  max(seats) AS persons
FROM TUMBLE((SELECT site, zone, began, ended, seats FROM all_seats_taken), began, INTERVAL '1 day')
GROUP BY site, zone, window_start, window_end;

-- Unmet demand for seats: how often somebody asked the site for a seat while all those of a zone were taken, by zone and day. For who
-- opens rooms. What asking for a seat is, offer_quiet_seat says with the same words.
CREATE QUERY measure_asked_while_taken WITH (
  purpose = 'research', emit = 'update', lateness = '1 minute',
  parameters = 'words text = seat|quiet|座|静, longest interval = 1 day'
) AS
WITH asked AS (
  SELECT t.site, t.zone, coalesce(c.person, c.session) AS person, c.event_time, c.count
  FROM all_seats_taken t
  JOIN click c ON t.site = c.site AND t.ended > c.event_time AND t.ended <= c.event_time + $longest
  WHERE t.began <= c.event_time AND (
    c.action = 'search' AND regexp_like(c.query, $words, 'i') OR c.action IN ('request', 'reserve') AND regexp_like(c.page, $words, 'i')
  )
)
SELECT site, zone, window_start, window_end, sum(count) AS asked, count(DISTINCT person) AS persons
FROM TUMBLE(asked, event_time, INTERVAL '1 day')
GROUP BY site, zone, window_start, window_end;

-- Requests served: from the first time a person asked for an item to its loan by the same person. Read by measures.
CREATE QUERY requests_served WITH (purpose = 'research', lateness = '1 minute', parameters = 'within interval = 28 days') AS
WITH acts AS (
  SELECT site, zone, person, item, event_time, 'asked' AS act
  FROM click
  WHERE action IN ('request', 'reserve') AND item IS NOT NULL AND person IS NOT NULL
  UNION ALL
  SELECT site, zone, person, tag AS item, event_time, 'served' AS act
  FROM rfid
  WHERE action = 'checkout' AND person IS NOT NULL
)
SELECT site, zone, person, item, asked_at, served_at, requests
FROM acts MATCH_RECOGNIZE (
  PARTITION BY site, person, item
  ORDER BY event_time
  MEASURES FIRST(A.event_time) AS asked_at, S.event_time AS served_at, S.zone AS zone, COUNT(A.event_time) AS requests
  ONE ROW PER MATCH
  AFTER MATCH SKIP PAST LAST ROW
  PATTERN (A+ S) WITHIN $within
  DEFINE A AS A.act = 'asked', S AS S.act = 'served'
) AS m;

-- Items ready: from the first time an item was asked for to its return to the branch, by whomever. Read by measures.
CREATE QUERY items_ready WITH (purpose = 'research', lateness = '1 minute', parameters = 'within interval = 28 days') AS
WITH acts AS (
  SELECT site, zone, person, item, event_time, 'asked' AS act
  FROM click
  WHERE action IN ('request', 'reserve') AND item IS NOT NULL AND person IS NOT NULL
  UNION ALL
  SELECT site, zone, person, tag AS item, event_time, 'served' AS act
  FROM rfid
  WHERE action = 'checkin'
)
SELECT site, zone, person, item, asked_at, served_at
FROM acts MATCH_RECOGNIZE (
  PARTITION BY site, item
  ORDER BY event_time
  MEASURES FIRST(A.event_time) AS asked_at, FIRST(A.person) AS person, S.event_time AS served_at, S.zone AS zone
  ONE ROW PER MATCH
  AFTER MATCH SKIP PAST LAST ROW
  PATTERN (A+ S) WITHIN $within
  DEFINE A AS A.act = 'asked', S AS S.act = 'served'
) AS m;

-- Searches served: from a search without a result to the next with one, of the same person or session. Read by measures.
CREATE QUERY searches_served WITH (purpose = 'research', lateness = '1 minute', parameters = 'within interval = 30 minutes') AS
WITH searches AS (
  SELECT site, zone, coalesce(person, session) AS person, event_time, results
  FROM click
  WHERE action = 'search' AND results IS NOT NULL AND coalesce(person, session) IS NOT NULL
)
SELECT site, zone, person, asked_at, served_at
FROM searches MATCH_RECOGNIZE (
  PARTITION BY site, person
  ORDER BY event_time
  MEASURES FIRST(A.event_time) AS asked_at, S.event_time AS served_at, S.zone AS zone
  ONE ROW PER MATCH
  AFTER MATCH SKIP PAST LAST ROW
  PATTERN (A+ S) WITHIN $within
  DEFINE A AS A.results = 0, S AS S.results > 0
) AS m;

-- Time to service: from asking to being served, by service, place and the day of being served. For who fetches, returns and
-- describes. Services: `loan` of what was asked for, its being `ready` at the branch, and `search` until something was found.
CREATE QUERY measure_time_to_service WITH (purpose = 'research', emit = 'update', lateness = '1 minute') AS
WITH served AS (
  SELECT site, zone, 'loan' AS service, person, asked_at, served_at FROM requests_served
  UNION ALL
  SELECT site, zone, 'ready' AS service, person, asked_at, served_at FROM items_ready
  UNION ALL
  SELECT site, zone, 'search' AS service, person, asked_at, served_at FROM searches_served
)
SELECT
  site,
  zone,
  service,
  window_start,
  window_end,
  count(*) AS served,
  round(median(date_part('epoch', served_at - asked_at) / 60.0), 2) AS median_minutes,
  round(percentile_cont(date_part('epoch', served_at - asked_at) / 60.0, 0.9), 2) AS p90_minutes,
  round(max(date_part('epoch', served_at - asked_at) / 60.0), 2) AS longest_minutes,
  count(DISTINCT person) AS persons
FROM TUMBLE(served, served_at, INTERVAL '1 day')
GROUP BY site, zone, service, window_start, window_end;

-- Unmet demand for items: what persons asked for that no loan of it to them followed in time, by where and by the day on which
-- they asked. The service is the word they asked by. For who buys.
CREATE QUERY measure_requests_not_served WITH (
  purpose = 'research', emit = 'update', lateness = '1 minute', parameters = 'within interval = 28 days'
) AS
WITH unserved AS (
  SELECT c.site, c.zone, c.action AS service, c.person, c.event_time
  FROM click c
  LEFT JOIN rfid l ON c.site = l.site AND c.item = l.tag AND c.person = l.person AND l.action = 'checkout'
    AND l.event_time BETWEEN c.event_time AND c.event_time + $within
  WHERE c.action IN ('request', 'reserve') AND c.item IS NOT NULL AND c.person IS NOT NULL AND l.tag IS NULL
)
SELECT site, zone, service, window_start, window_end, count(*) AS requests, count(DISTINCT person) AS persons
FROM TUMBLE(unserved, event_time, INTERVAL '1 day')
GROUP BY site, zone, service, window_start, window_end;

-- Offers: what became of messages to people, by rule and the week in which it did. For who writes rules. What had no answer in
-- time was ignored; withdrawn is what stood when its person opted out, and withheld what was never sent.
CREATE QUERY measure_offers WITH (purpose = 'research', emit = 'update', lateness = '1 minute') AS
SELECT
  site,
  zone,
  rule,
  kind,
  window_start,
  window_end,
  count(*) FILTER (WHERE state = 'sent') AS sent,
  count(*) FILTER (WHERE state = 'opened') AS opened,
  count(*) FILTER (WHERE state = 'accepted') AS accepted,
  count(*) FILTER (WHERE state = 'declined') AS declined,
  count(*) FILTER (WHERE state = 'expired') AS ignored,
  count(*) FILTER (WHERE state = 'withdrawn') AS withdrawn,
  count(*) FILTER (WHERE state = 'withheld') AS withheld,
  round(
    1.0 * count(*) FILTER (WHERE state = 'accepted')
      / nullif(count(*) FILTER (WHERE state IN ('accepted', 'declined', 'expired', 'withdrawn')), 0),
    3
  ) AS acceptance,
  round(
    avg(date_part('epoch', event_time - decided_at) / 60.0) FILTER (WHERE state IN ('accepted', 'declined')),
    2
  ) AS mean_minutes_to_answer,
  count(DISTINCT person) AS persons
FROM TUMBLE(message, event_time, INTERVAL '7 days', INTERVAL '4 days')
WHERE state <> 'rated'
GROUP BY site, zone, rule, kind, window_start, window_end;

-- Demands: what persons wanted of the catalogue and of items, and what of it they got, at the time at which they asked. A request
-- that is served is told once more, then. Read by measures of benefit.
CREATE QUERY demands WITH (purpose = 'research') AS
SELECT
  site,
  'search' AS service,
  coalesce(person, session) AS person,
  event_time,
  count AS demands,
  CASE WHEN results > 0 THEN count ELSE CAST(0 AS BIGINT) END AS served
FROM click
WHERE action = 'search' AND results IS NOT NULL
UNION ALL
SELECT site, 'item' AS service, person, event_time, CAST(1 AS BIGINT) AS demands, CAST(0 AS BIGINT) AS served
FROM click
WHERE action IN ('request', 'reserve') AND item IS NOT NULL AND person IS NOT NULL
UNION ALL
SELECT site, 'item' AS service, person, asked_at AS event_time, CAST(0 AS BIGINT) AS demands, requests AS served
FROM requests_served;

-- Benefit: which share of what people wanted they got, by service and four weeks. Between 0, nothing, and 1. For those who answer
-- for what a library is good for.
CREATE QUERY measure_benefit WITH (purpose = 'research', emit = 'update', lateness = '1 minute') AS
SELECT
  site,
  service,
  window_start,
  window_end,
  sum(demands) AS demands,
  sum(served) AS served,
  round(1.0 * sum(served) / nullif(sum(demands), 0), 3) AS benefit,
  count(DISTINCT person) AS persons
FROM TUMBLE(demands, event_time, INTERVAL '28 days', INTERVAL '4 days')
GROUP BY site, service, window_start, window_end;

-- Benefit by cohort: the same of those whose first visit was at the same site and ended in the same four weeks, as far as they
-- wanted it during a visit. Searches count when their visit ends, which has added them up: to keep each until then would take
-- as much memory as there are searches.
CREATE QUERY measure_benefit_by_cohort WITH (purpose = 'research', emit = 'update', lateness = '1 minute') AS
WITH wanted AS (
  SELECT
    first_site AS site,
    first_visit_end,
    'search' AS service,
    person,
    event_time,
    searches_told AS demands,
    searches_found AS served
  FROM visit
  WHERE searches_told > 0
  UNION ALL
  SELECT v.first_site AS site, v.first_visit_end, d.service, d.person, d.event_time, d.demands, d.served
  FROM demands d
  JOIN visit v ON d.person = v.person AND d.event_time BETWEEN v.visit_end - INTERVAL '1 day' AND v.visit_end
  WHERE d.service = 'item' AND regexp_like(v.used, '(^| )(request|reserve)( |$)') AND d.event_time >= v.visit_start
), of_visits AS (
  SELECT
    site,
    to_char(date_bin(INTERVAL '28 days', first_visit_end, TIMESTAMP '1970-01-05T00:00:00'), '%Y-%m-%d') AS cohort,
    service,
    person,
    event_time,
    demands,
    served
  FROM wanted
)
SELECT
  site,
  cohort,
  service,
  window_start,
  window_end,
  sum(demands) AS demands,
  sum(served) AS served,
  round(1.0 * sum(served) / nullif(sum(demands), 0), 3) AS benefit,
  count(DISTINCT person) AS persons
FROM TUMBLE(of_visits, event_time, INTERVAL '28 days', INTERVAL '4 days')
GROUP BY site, cohort, service, window_start, window_end;

-- Trust: whether people take what they are offered, and come again, by four weeks. The mean of the share of answers that say yes,
-- of which a message that was sent has one, the first in time, and where opting out is the strongest no, and of the share of persons who came that had come before. Where nobody answered it
-- is the latter alone. Between 0 and 1. For those who answer for how people are treated.
CREATE QUERY measure_trust WITH (purpose = 'research', emit = 'update', lateness = '1 minute') AS
WITH signs AS (
  SELECT site, person, event_time, state AS response, CAST(NULL AS BIGINT) AS visit_number
  FROM message
  WHERE state IN ('accepted', 'declined')
  UNION ALL
  SELECT site, person, event_time, response, CAST(NULL AS BIGINT) AS visit_number
  FROM reply
  WHERE response = 'opted_out'
  UNION ALL
  SELECT site, person, event_time, CAST(NULL AS VARCHAR) AS response, visit_number
  FROM visit
)
SELECT
  site,
  window_start,
  window_end,
  count(*) FILTER (WHERE response = 'accepted') AS accepted,
  count(*) FILTER (WHERE response = 'declined') AS declined,
  count(*) FILTER (WHERE response = 'opted_out') AS opted_out,
  count(DISTINCT person) FILTER (WHERE visit_number > 1) AS came_again,
  count(DISTINCT person) FILTER (WHERE visit_number IS NOT NULL) AS came,
  round(
    CASE
      WHEN count(response) = 0 THEN
        1.0 * count(DISTINCT person) FILTER (WHERE visit_number > 1)
          / nullif(count(DISTINCT person) FILTER (WHERE visit_number IS NOT NULL), 0)
      WHEN count(visit_number) = 0 THEN
        1.0 * count(*) FILTER (WHERE response = 'accepted') / count(response)
      ELSE
        0.5 * count(*) FILTER (WHERE response = 'accepted') / count(response)
          + 0.5 * count(DISTINCT person) FILTER (WHERE visit_number > 1)
            / nullif(count(DISTINCT person) FILTER (WHERE visit_number IS NOT NULL), 0)
    END,
    3
  ) AS trust,
  count(DISTINCT person) AS persons
FROM TUMBLE(signs, event_time, INTERVAL '28 days', INTERVAL '4 days')
GROUP BY site, window_start, window_end;

-- Participation: which share of those who came took part, by cohort and four weeks: asked for something, asked for help, answered
-- or rated. Between 0, nobody, and 1. For those who want a library to be made with its readers.
CREATE QUERY measure_participation WITH (
  purpose = 'research', emit = 'update', lateness = '1 minute', parameters = 'taking_part text = request|reserve|help|reply|rating'
) AS
WITH visits_of_cohorts AS (
  SELECT
    site,
    person,
    event_time,
    regexp_like(used, concat('(^| )(', $taking_part, ')( |$)')) AS takes_part,
    to_char(date_bin(INTERVAL '28 days', first_visit_end, TIMESTAMP '1970-01-05T00:00:00'), '%Y-%m-%d') AS cohort
  FROM visit
)
SELECT
  site,
  cohort,
  window_start,
  window_end,
  count(DISTINCT person) FILTER (WHERE takes_part) AS took_part,
  round(1.0 * count(DISTINCT person) FILTER (WHERE takes_part) / count(DISTINCT person), 3) AS participation,
  count(DISTINCT person) AS persons
FROM TUMBLE(visits_of_cohorts, event_time, INTERVAL '28 days', INTERVAL '4 days')
GROUP BY site, cohort, window_start, window_end;

-- Retention: of the people whose first visit was at the same site and ended in the same period, how many came in each period
-- since, to any site. For whoever plans beginnings of terms. The cohort's size is the row of no weeks since. A period of another
-- length has to be whole weeks.
CREATE QUERY measure_retention WITH (
  purpose = 'research', emit = 'update', lateness = '1 minute', parameters = 'period interval = 28 days'
) AS
WITH returns AS (
  SELECT
    first_site AS site,
    person,
    event_time,
    to_char(date_bin($period, first_visit_end, TIMESTAMP '1970-01-05T00:00:00'), '%Y-%m-%d') AS cohort
  FROM visit
)
SELECT
  site,
  cohort,
  window_start,
  window_end,
  CAST(round(date_part('epoch', window_start - CAST(cohort AS TIMESTAMP)) / 604800.0) AS BIGINT) AS weeks_since,
  count(DISTINCT person) AS persons,
  count(*) AS visits
FROM TUMBLE(returns, event_time, $period, INTERVAL '4 days')
GROUP BY site, cohort, window_start, window_end;

-- Stability: of the visits that followed another, the share before which the person had not been away for longer than was
-- usual for that person. Between 0, nobody comes as usual, and 1. For those who answer for how a library is used.
CREATE QUERY measure_stability WITH (purpose = 'research', emit = 'update', lateness = '1 minute') AS
SELECT
  site,
  window_start,
  window_end,
  count(*) AS returns,
  count(*) FILTER (WHERE days_since <= usual_gap_days) AS as_usual,
  round(1.0 * count(*) FILTER (WHERE days_since <= usual_gap_days) / count(*), 3) AS stability,
  count(DISTINCT person) AS persons
FROM TUMBLE(visit, event_time, INTERVAL '28 days', INTERVAL '4 days')
WHERE days_since IS NOT NULL
GROUP BY site, window_start, window_end;
