//! Civil time: days as a time zone has them, and opening hours as whoever knows the places tells them.

use std::fmt::Debug;

use chrono::{DateTime, Days, LocalResult, NaiveDate, NaiveTime, TimeZone};
use chrono_tz::{GapInfo, Tz};

/// When places are open.
///
/// Contract: intervals of one site do not overlap, hold the instant they were asked for, and are always the
/// same (trusted); `next_end` is behind its argument (trusted).
pub trait OpeningHours: Send + Sync + Debug {
    /// From when to when a site is open around an instant, microseconds since 1970, the end not included; `None` while
    /// it is closed. A site that never closes answers with its civil day.
    fn interval(&self, site: &str, at_us: i64) -> Option<(i64, i64)>;

    /// The first end of any interval of any site behind an instant.
    fn next_end(&self, after_us: i64) -> i64;

    /// How long the longest interval is, microseconds.
    fn longest_us(&self) -> i64;
}

/// Every site is always open, in UTC: what holds where nobody said anything.
#[derive(Debug)]
pub struct AlwaysOpen;

impl OpeningHours for AlwaysOpen {
    fn interval(&self, _site: &str, at_us: i64) -> Option<(i64, i64)> {
        Some(day_around(Tz::UTC, at_us))
    }

    fn next_end(&self, after_us: i64) -> i64 {
        day_around(Tz::UTC, after_us).1
    }

    fn longest_us(&self) -> i64 {
        DAY_US
    }
}

/// How long the longest civil day is, microseconds: one on which the clocks go back, in Antarctica by two hours.
pub const LONGEST_DAY_US: i64 = 26 * 3_600_000_000;
const DAY_US: i64 = 86_400_000_000;

/// The civil day of a time zone around an instant: from its first moment to that of the next day, microseconds since
/// 1970. It has 23 or 25 hours where the clocks change. Far beyond the years that a calendar knows, days are those of
/// UTC.
pub fn day_around(zone: Tz, at_us: i64) -> (i64, i64) {
    civil_day(zone, at_us).unwrap_or_else(|| {
        let start = at_us.div_euclid(DAY_US).saturating_mul(DAY_US);
        (start, start.saturating_add(DAY_US))
    })
}

fn civil_day(zone: Tz, at_us: i64) -> Option<(i64, i64)> {
    let date = DateTime::from_timestamp_micros(at_us)?
        .with_timezone(&zone)
        .date_naive();
    let start = first_moment(zone, date)?;
    let end = first_moment(zone, date.checked_add_days(Days::new(1))?)?;
    Some((start, end))
}

/// The first instant of a date: midnight, or where the clocks skip midnight what they show instead.
fn first_moment(zone: Tz, date: NaiveDate) -> Option<i64> {
    let midnight = date.and_time(NaiveTime::MIN);
    let at = match zone.from_local_datetime(&midnight) {
        LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => at,
        LocalResult::None => GapInfo::new(&midnight, &zone)?.end?,
    };
    Some(at.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use chrono_tz::Tz;

    use super::day_around;

    fn us(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).expect("a time").timestamp_micros()
    }

    #[test]
    fn a_day_is_as_long_as_its_time_zone_makes_it() {
        let cases = [
            // No daylight saving since 1991.
            (
                Tz::Asia__Shanghai,
                "2026-03-29T12:00:00+08:00",
                "2026-03-29T00:00:00+08:00",
                24,
            ),
            (
                Tz::Asia__Shanghai,
                "2026-10-25T12:00:00+08:00",
                "2026-10-25T00:00:00+08:00",
                24,
            ),
            (
                Tz::Europe__Copenhagen,
                "2026-03-29T12:00:00+02:00",
                "2026-03-29T00:00:00+01:00",
                23,
            ),
            (
                Tz::Europe__Copenhagen,
                "2026-10-25T12:00:00+01:00",
                "2026-10-25T00:00:00+02:00",
                25,
            ),
            (
                Tz::America__New_York,
                "2026-03-08T12:00:00-04:00",
                "2026-03-08T00:00:00-05:00",
                23,
            ),
            (
                Tz::America__New_York,
                "2026-11-01T12:00:00-05:00",
                "2026-11-01T00:00:00-04:00",
                25,
            ),
            // The clocks skipped midnight itself: the day began at one o'clock.
            (
                Tz::America__Sao_Paulo,
                "2018-11-04T12:00:00-02:00",
                "2018-11-04T01:00:00-02:00",
                23,
            ),
        ];
        for (zone, at, start, hours) in cases {
            let (from, to) = day_around(zone, us(at));
            assert_eq!((from, (to - from) / 3_600_000_000), (us(start), hours), "{zone} {at}");
            assert_eq!(day_around(zone, from), (from, to), "its first moment belongs to it");
            assert_eq!(day_around(zone, to - 1), (from, to), "and its last");
            assert_eq!(day_around(zone, to).0, to, "the next begins where it ends");
        }
    }

    #[test]
    fn the_end_of_time_is_a_day_too() {
        let (from, to) = day_around(Tz::Asia__Shanghai, i64::MAX / 4);
        assert!(from <= i64::MAX / 4 && i64::MAX / 4 < to);
    }
}
