-- A newcomer's first visit, as it begins. For whoever welcomes people; one row a newcomer.
CREATE QUERY newcomer_visits AS
SELECT site, person, event_time, tier
FROM engagement
WHERE reason = 'first_visit';

-- A regular who drifts: somebody who has come five times and more stays away for longer than is usual for this person, until the
-- person comes back, or has been away for so long that nobody is to be reminded any more. For whoever keeps in touch.
CREATE ALERT regular_drifts WITH (
  subject = 'person',
  severity = 'info',
  raise = 'life_cycle = ''drifting'' AND life_cycle_before = ''active'' AND visits >= 5',
  clear = 'life_cycle <> ''drifting''',
  text = '{person} came {visits} times and has been away for {days} days; up to {usual} are usual'
) AS
SELECT
  -- Of who comes back elsewhere, where the person drifted.
  coalesce(site_before, site) AS site,
  person,
  event_time,
  visits,
  round(days_away, 1) AS days,
  round(usual_gap_days, 1) AS usual,
  life_cycle,
  life_cycle_before
FROM engagement
WHERE life_cycle IS DISTINCT FROM life_cycle_before;
