-- Nexmark q10, log to files: each bid with the day and minute that name its file; the writing of files is the reader's.
-- After github.com/nexmark/nexmark, Apache-2.0.
CREATE QUERY q10 AS
SELECT auction, bidder, price, date_time, extra,
  to_char(date_time, '%Y-%m-%d') AS dt, to_char(date_time, '%H:%M') AS hm
FROM bid;
