-- Nexmark q8, new users: people who registered and opened an auction within the same 10 seconds.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q8_people WITH (emit = 'close') AS
SELECT id, name, window_start AS starttime, window_end AS endtime
FROM TUMBLE(person, date_time, INTERVAL '10 seconds')
GROUP BY id, name, window_start, window_end;

CREATE QUERY q8_sellers WITH (emit = 'close') AS
SELECT seller, window_start AS starttime, window_end AS endtime
FROM TUMBLE(auction, date_time, INTERVAL '10 seconds')
GROUP BY seller, window_start, window_end;

CREATE QUERY q8 AS
SELECT p.id, p.name, p.starttime
FROM q8_people p
JOIN q8_sellers s ON p.id = s.seller AND p.starttime = s.starttime AND p.endtime = s.endtime;
