-- Nexmark q13, bounded side input: each bid with a value looked up in the reference table side_input.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q13 AS
SELECT b.auction, b.bidder, b.price, b.date_time, s.value
FROM bid b
JOIN side_input s ON b.auction % 10000 = s.key;
