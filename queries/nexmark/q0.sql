-- Nexmark q0, pass through: every bid as it comes.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q0 AS
SELECT auction, bidder, price, date_time, extra
FROM bid;
