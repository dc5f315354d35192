-- Nexmark q19, the ten highest bids of each auction: one row an auction with lists, highest first, instead of ten rows; all bids of an auction are kept.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q19 WITH (emit = 'update') AS
SELECT auction,
  array_slice(array_agg(price ORDER BY price DESC, date_time), 1, 10) AS prices,
  array_slice(array_agg(bidder ORDER BY price DESC, date_time), 1, 10) AS bidders,
  array_slice(array_agg(date_time ORDER BY price DESC, date_time), 1, 10) AS times
FROM bid
GROUP BY auction;
