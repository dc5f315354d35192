-- A device is silent when a sensor that reports by itself has said nothing for a quarter of an hour of opening time.
-- Readers, web catalogue and replies speak only when items and people move, so they are not watched.
CREATE ALERT device_silent WITH (
  subject = 'device', severity = 'warning', silent = '15 minutes',
  text = 'Sensor {device} in {zone} has been silent for 15 minutes'
) AS
SELECT site, zone, device, 'gate' AS kind, event_time FROM gate
UNION ALL
SELECT site, zone, device, 'seat' AS kind, event_time FROM seat;
