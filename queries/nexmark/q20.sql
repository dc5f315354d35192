-- Nexmark q20, bids with their auction where its category is 10; the unbounded join as an interval join that covers all pairs from 200 events a second of event time on.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q20 AS
SELECT b.auction, b.bidder, b.price, b.channel, b.url, b.date_time AS bid_date_time, b.extra AS bid_extra,
  a.item_name, a.description, a.initial_bid, a.reserve, a.date_time AS auction_date_time, a.expires, a.seller, a.category,
  a.extra AS auction_extra
FROM bid b
JOIN auction a
  ON b.auction = a.id
  AND b.date_time BETWEEN a.date_time - INTERVAL '1 second' AND a.date_time + INTERVAL '10 seconds'
WHERE a.category = 10;
