-- Nexmark CEP q2, longest time with an average price below 10000: bids of a bidder on an auction as long as their average stays below, and one more; a match from every row.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY cep_3 AS
SELECT auction, bidder, start_tstamp, end_tstamp, CAST(avg_price AS BIGINT) AS avg_price
FROM bid
MATCH_RECOGNIZE (
  PARTITION BY auction, bidder
  ORDER BY date_time
  MEASURES
    FIRST(A.date_time) AS start_tstamp,
    LAST(A.date_time) AS end_tstamp,
    AVG(A.price) AS avg_price
  ONE ROW PER MATCH
  AFTER MATCH SKIP TO NEXT ROW
  PATTERN (A+ B)
  DEFINE
    A AS AVG(A.price) < 10000
);
