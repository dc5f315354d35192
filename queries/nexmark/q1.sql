-- Nexmark q1, currency conversion: each price in euros, DECIMAL(23, 3) as in the original.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q1 AS
SELECT auction, bidder, CAST(0.908 * price AS DECIMAL(23, 3)) AS price, date_time, extra
FROM bid;
