-- Nexmark q22, the three directories of each bid's URL; split_part counts from 1 where SPLIT_INDEX counts from 0.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q22 AS
SELECT auction, bidder, price, channel,
  split_part(url, '/', 4) AS dir1, split_part(url, '/', 5) AS dir2, split_part(url, '/', 6) AS dir3
FROM bid;
