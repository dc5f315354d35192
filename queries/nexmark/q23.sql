-- Nexmark q23, bids by people who also sell: bid with person with auction, the unbounded joins as two interval joins that cover all pairs from 1,000 events a second of event time on.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q23_bidders AS
SELECT b.bidder, b.price, b.channel, b.url, b.date_time AS bid_date_time, b.extra AS bid_extra,
  p.id AS person_id, p.name, p.email_address, p.credit_card, p.city, p.state, p.extra AS person_extra
FROM bid b
JOIN person p
  ON p.id = b.bidder
  AND b.date_time BETWEEN p.date_time - INTERVAL '1 second' AND p.date_time + INTERVAL '1 minute';

CREATE QUERY q23 AS
SELECT b.bidder, b.price, b.channel, b.url, b.bid_extra, b.person_id, b.name, b.email_address, b.credit_card, b.city,
  b.state, b.person_extra, a.item_name, a.description, a.initial_bid, a.reserve, a.date_time AS auction_date_time,
  a.expires, a.seller, a.category, a.extra AS auction_extra
FROM q23_bidders b
JOIN auction a
  ON a.seller = b.bidder
  AND a.date_time BETWEEN b.bid_date_time - INTERVAL '1 minute' AND b.bid_date_time + INTERVAL '1 minute';
