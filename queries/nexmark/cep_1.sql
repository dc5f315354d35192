-- Nexmark CEP q0, falling prices: two or more falls of a bidder's price on an auction, then a rise above the last fall but one. The original skips to the rise; a start that is itself no fall with SKIP TO NEXT ROW finds the same.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY cep_1 AS
SELECT auction, bidder, start_tstamp, bottom_tstamp, end_tstamp
FROM bid
MATCH_RECOGNIZE (
  PARTITION BY auction, bidder
  ORDER BY date_time
  MEASURES
    FIRST(START_ROW.date_time) AS start_tstamp,
    LAST(PRICE_DOWN.date_time) AS bottom_tstamp,
    LAST(PRICE_UP.date_time) AS end_tstamp
  ONE ROW PER MATCH
  AFTER MATCH SKIP TO NEXT ROW
  PATTERN (START_ROW PRICE_DOWN+ PRICE_UP)
  DEFINE
    START_ROW AS PREV(START_ROW.price) IS NULL OR START_ROW.price >= PREV(START_ROW.price),
    PRICE_DOWN AS
      (LAST(PRICE_DOWN.price, 1) IS NULL AND PRICE_DOWN.price < START_ROW.price)
      OR PRICE_DOWN.price < LAST(PRICE_DOWN.price, 1),
    PRICE_UP AS PRICE_UP.price > LAST(PRICE_DOWN.price, 1)
);
