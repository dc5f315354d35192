-- Nexmark q18 over recorded rows, as the original writes it.
-- After github.com/nexmark/nexmark, Apache-2.0.
SELECT auction, bidder, price, channel, url, date_time, extra
FROM (SELECT *, row_number() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC) AS place FROM bid)
WHERE place <= 1;
