-- Nexmark CEP q3, price drop: a bidder's price on an auction falls by more than 50 within 5 seconds.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY cep_4 AS
SELECT auction, bidder, drop_time, drop_diff
FROM bid
MATCH_RECOGNIZE (
  PARTITION BY auction, bidder
  ORDER BY date_time
  MEASURES
    LAST(C.date_time) AS drop_time,
    FIRST(A.price) - LAST(C.price) AS drop_diff
  ONE ROW PER MATCH
  AFTER MATCH SKIP PAST LAST ROW
  PATTERN (A B* C) WITHIN INTERVAL '5 seconds'
  DEFINE
    B AS B.price > A.price - 50,
    C AS C.price < A.price - 50
);
