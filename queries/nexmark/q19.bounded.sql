-- Nexmark q19 over recorded rows: the original's ten rows of each auction, put into lists.
-- After github.com/nexmark/nexmark, Apache-2.0.
SELECT auction, array_agg(price ORDER BY place) AS prices, array_agg(bidder ORDER BY place) AS bidders,
  array_agg(date_time ORDER BY place) AS times
FROM (SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC, date_time) AS place FROM bid)
WHERE place <= 10
GROUP BY auction;
