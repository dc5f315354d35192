-- Item custody: when each item was last lent, returned, and seen at an exit. An exit is a device with the role "exit".
-- Read by item_left_unborrowed. Items unseen for two years are forgotten.
CREATE QUERY item_custody WITH (emit = 'update', ttl = '730 days') AS
SELECT
  r.site,
  r.tag,
  max(r.event_time) FILTER (WHERE r.action = 'checkout') AS lent_at,
  max(r.event_time) FILTER (WHERE r.action = 'checkin') AS returned_at,
  max(r.event_time) FILTER (WHERE r.action = 'read' AND d.role = 'exit') AS left_at,
  max(r.event_time) FILTER (WHERE r.action = 'read' AND d.role IS DISTINCT FROM 'exit') AS inside_at,
  max(r.zone) FILTER (WHERE r.action = 'read' AND d.role = 'exit') AS exit_zone
FROM rfid r
LEFT JOIN devices d ON r.site = d.site AND r.zone = d.zone AND r.device = d.device AND d.kind = 'rfid'
GROUP BY r.site, r.tag;

-- An item leaves without a loan when an exit sees it and it was never lent, or returned since. It clears when the item
-- is lent, returned, or seen inside again.
CREATE ALERT item_left_unborrowed WITH (
  subject = 'item', severity = 'critical', cooldown = '1 minute',
  raise = 'left_at IS NOT NULL AND NOT on_loan AND NOT back_inside', clear = 'on_loan OR back_inside',
  text = 'Item {item} left through {zone} without a loan'
) AS
SELECT
  site,
  exit_zone AS zone,
  tag AS item,
  left_at,
  lent_at IS NOT NULL AND (returned_at IS NULL OR returned_at < lent_at) AS on_loan,
  left_at IS NULL OR coalesce(inside_at > left_at, false) OR coalesce(returned_at > left_at, false) AS back_inside
FROM item_custody;
