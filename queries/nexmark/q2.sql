-- Nexmark q2, selection: bids for every 123rd auction.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q2 AS
SELECT auction, price
FROM bid
WHERE auction % 123 = 0;
