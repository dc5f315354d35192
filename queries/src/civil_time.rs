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

/// Why hours of a day mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoursMistake {
    /// They can't be read.
    Unreadable,
    /// A range ends when it begins.
    Empty,
    /// Two ranges run into each other, or the later stands first.
    Overlapping,
}

const MINUTES_OF_DAY: u16 = 24 * 60;

/// Reads `08:00-22:30`, or several such with commas: ranges of minutes from midnight, in order, apart from each other. A
/// range whose end is before its start ends on the next day.
///
/// # Errors
/// [`HoursMistake`] of the first range that is wrong.
pub fn daily_hours(text: &str) -> Result<Vec<(u16, u16)>, HoursMistake> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for range in text.split(',') {
        let (from, to) = range.split_once(['-', '–']).ok_or(HoursMistake::Unreadable)?;
        let from = minute_of_day(from).ok_or(HoursMistake::Unreadable)?;
        let to = minute_of_day(to).ok_or(HoursMistake::Unreadable)?;
        if from == to {
            return Err(HoursMistake::Empty);
        }
        if from == MINUTES_OF_DAY {
            return Err(HoursMistake::Unreadable);
        }
        let to = if to < from { to + MINUTES_OF_DAY } else { to };
        if ranges.last().is_some_and(|(_, before)| *before >= from) {
            return Err(HoursMistake::Overlapping);
        }
        ranges.push((from, to));
    }
    Ok(ranges)
}

fn minute_of_day(text: &str) -> Option<u16> {
    let (hour, minute) = text.trim().split_once(':')?;
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(hour) || !digits(minute) || hour.len() > 2 || minute.len() != 2 {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    let total = hour * 60 + minute;
    (minute < 60 && total <= MINUTES_OF_DAY).then_some(total)
}

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
