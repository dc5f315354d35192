//! A calendar says when a site is open, in the civil time of where it stands.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, TimeZone, Weekday};
use chrono_tz::{GapInfo, Tz};
use usher_queries::civil_time::{HoursMistake, daily_hours};

/// How far ahead the next opening is looked for: a year, and some for a site that opens once a year.
const LOOK_AHEAD_DAYS: u64 = 400;

/// Nobody waits longer than this for opening time to pass; it bounds the walk over days.
const OPEN_TIME_WALK_DAYS: u64 = 366 * 100;

const MINUTES_OF_DAY: u16 = 24 * 60;

/// When one day's doors are open: ranges of minutes from midnight, in order, apart from each other.
/// A range may end on the next day.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DayHours(Vec<(u16, u16)>);

impl DayHours {
    /// Not open at all.
    pub fn closed() -> Self {
        Self(Vec::new())
    }

    /// From midnight to midnight.
    pub fn whole_day() -> Self {
        Self(vec![(0, MINUTES_OF_DAY)])
    }

    /// Reads `08:00-22:30`, several such with commas, `closed` or `24h`. A range whose end is before its start ends
    /// on the next day. Fails with what is wrong and what would be right.
    pub fn read(text: &str) -> Result<Self, (String, String)> {
        match text.trim() {
            "closed" => return Ok(Self::closed()),
            "24h" => return Ok(Self::whole_day()),
            _ => {}
        }
        daily_hours(text).map(Self).map_err(|mistake| match mistake {
            HoursMistake::Unreadable => (
                format!("`{text}` is no opening hours"),
                "hours such as \"08:00-22:30\", \"20:00-02:00\", \"closed\" or \"24h\" would be right".to_owned(),
            ),
            HoursMistake::Empty => (
                format!("`{text}` closes when it opens"),
                "\"closed\" or \"24h\" would be right".to_owned(),
            ),
            HoursMistake::Overlapping => (
                format!("the ranges of `{text}` run into each other"),
                "the earlier first, with a break between them, would be right".to_owned(),
            ),
        })
    }

    /// These ranges of minutes from midnight, in order and apart from each other.
    pub fn of_ranges(ranges: &[(u16, u16)]) -> Self {
        Self(ranges.to_vec())
    }
}

/// Reads `mon` or `sat-sun` as the weekdays it stands for; `fri-mon` goes over the weekend. `None` for anything else.
pub fn weekdays(text: &str) -> Option<Vec<Weekday>> {
    let day = |name: &str| WEEKDAYS.iter().position(|known| *known == name.trim());
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (day(first)?, day(last)?),
        None => (day(text)?, day(text)?),
    };
    let count = (last + 7 - first) % 7 + 1;
    Some(
        (first..first + count)
            .map(|day| Weekday::try_from((day % 7) as u8).expect("a remainder by 7 is a weekday"))
            .collect(),
    )
}

/// The names of weekdays in `opening`, from Monday.
pub const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// When a site is open. All times are microseconds since 1970 (UTC).
///
/// A range belongs to the day it begins on: closed on the 25th still lets the night of the 24th end at 02:00.
/// Where the clocks go back, every moment at which a clock on the wall shows an opening hour is open; where they go
/// forward, an hour that does not exist is nobody's, and what would begin in it begins right after.
#[derive(Debug, Clone, PartialEq)]
pub struct Calendar {
    time_zone: Tz,
    /// By weekday from Monday; `None` when nobody said and so it is always open.
    week: Option<[DayHours; 7]>,
    exceptions: BTreeMap<NaiveDate, DayHours>,
}

impl Calendar {
    /// A site in `time_zone` that is always open, but for exceptions.
    pub fn always_open(time_zone: Tz) -> Self {
        Self {
            time_zone,
            week: None,
            exceptions: BTreeMap::new(),
        }
    }

    /// A site with these hours, from Monday.
    pub fn weekly(time_zone: Tz, week: [DayHours; 7]) -> Self {
        let said = week.iter().any(|day| *day != DayHours::whole_day());
        Self {
            time_zone,
            week: said.then_some(week),
            exceptions: BTreeMap::new(),
        }
    }

    /// On that date these hours count and not those of its weekday.
    #[must_use]
    pub fn except(mut self, date: NaiveDate, hours: DayHours) -> Self {
        self.exceptions.insert(date, hours);
        self
    }

    /// Where it stands.
    pub fn time_zone(&self) -> Tz {
        self.time_zone
    }

    /// Whether it never closes.
    pub fn is_always_open(&self) -> bool {
        self.week.is_none() && self.exceptions.is_empty()
    }

    /// Whether it is open at that instant.
    pub fn is_open(&self, at_us: i64) -> bool {
        self.is_always_open() || self.range_at(at_us).is_some()
    }

    /// From when to when it is open around that instant, the end not included; `None` while it is closed. Ranges that
    /// follow without a break are one, for at most 400 to each side. A site that never closes answers
    /// `(i64::MIN, i64::MAX)`.
    pub fn opening_interval(&self, at_us: i64) -> Option<(i64, i64)> {
        if self.is_always_open() {
            return Some((i64::MIN, i64::MAX));
        }
        let (mut start, mut end) = self.range_at(at_us)?;
        for _ in 0..LOOK_AHEAD_DAYS {
            match self.range_at(end) {
                Some((_, later)) => end = later,
                None => break,
            }
        }
        for _ in 0..LOOK_AHEAD_DAYS {
            match self.range_at(start - 1) {
                Some((earlier, _)) => start = earlier,
                None => break,
            }
        }
        Some((start, end))
    }

    /// When it opens the next time, after that instant: when it is open then, the opening after the next closing.
    /// `None` if it never closes, or does not open within 400 days.
    pub fn next_opening(&self, at_us: i64) -> Option<i64> {
        if self.is_always_open() {
            return None;
        }
        let closed_from = self.opening_interval(at_us).map_or(at_us, |(_, end)| end);
        let today = self.date(closed_from)?;
        today
            .pred_opt()?
            .iter_days()
            .take(LOOK_AHEAD_DAYS as usize + 2)
            .flat_map(|date| self.ranges_of(date))
            .map(|(start, _)| start)
            .find(|start| *start >= closed_from)
    }

    /// The instant at which so many microseconds of opening time have passed since `from_us`; closed hours do not
    /// count. `None` if it does not open for 400 days on the way, or if it would take more than a century.
    pub fn add_open_time(&self, from_us: i64, micros: i64) -> Option<i64> {
        if micros <= 0 {
            return Some(from_us);
        }
        if self.is_always_open() {
            return from_us.checked_add(micros);
        }
        let last = from_us.checked_add(days_us(OPEN_TIME_WALK_DAYS))?;
        let (mut at, mut left) = (from_us, micros);
        while at < last {
            match self.range_at(at) {
                Some((_, end)) if left <= end - at => return Some(at + left),
                Some((_, end)) => {
                    left -= end - at;
                    at = end;
                }
                None => at = self.next_opening(at)?,
            }
        }
        None
    }

    /// The local date at that instant; `None` beyond the years a calendar knows.
    fn date(&self, at_us: i64) -> Option<NaiveDate> {
        let at = DateTime::from_timestamp_micros(at_us)?;
        // Ten thousand years are enough for a library, and keep all arithmetic below from overflowing.
        let known: RangeInclusive<i32> = 1..=9999;
        known
            .contains(&at.year())
            .then(|| at.with_timezone(&self.time_zone).date_naive())
    }

    /// The range that covers the instant; of two that overlap, the one that ends later.
    fn range_at(&self, at_us: i64) -> Option<(i64, i64)> {
        let today = self.date(at_us)?;
        // What began yesterday may go on after midnight, and nothing is longer than a day.
        [today.pred_opt()?, today]
            .into_iter()
            .flat_map(|date| self.ranges_of(date))
            .filter(|(start, end)| (*start..*end).contains(&at_us))
            .max_by_key(|(_, end)| *end)
    }

    /// The ranges that begin on a date, in order, as instants.
    fn ranges_of(&self, date: NaiveDate) -> impl Iterator<Item = (i64, i64)> {
        let weekly = || {
            let week = self.week.as_ref()?;
            Some(&week[date.weekday().num_days_from_monday() as usize])
        };
        let ranges = match self.exceptions.get(&date).or_else(weekly) {
            Some(hours) => hours.0.clone(),
            None => DayHours::whole_day().0,
        };
        ranges.into_iter().filter_map(move |(from, to)| {
            let start = self.instant(date, from, Clock::FirstShows)?;
            let end = self.instant(date, to, Clock::LastShows)?;
            // A range inside the hour that clocks skip is over before it begins.
            (start < end).then_some((start, end))
        })
    }

    fn instant(&self, date: NaiveDate, minute: u16, clock: Clock) -> Option<i64> {
        let midnight = date.and_time(chrono::NaiveTime::MIN);
        let local = midnight.checked_add_signed(TimeDelta::minutes(i64::from(minute)))?;
        let at = match (self.time_zone.from_local_datetime(&local), clock) {
            (chrono::LocalResult::Single(at), _) => at,
            (chrono::LocalResult::Ambiguous(first, _), Clock::FirstShows) => first,
            (chrono::LocalResult::Ambiguous(_, last), Clock::LastShows) => last,
            (chrono::LocalResult::None, _) => GapInfo::new(&local, &self.time_zone)?.end?,
        };
        Some(at.timestamp_micros())
    }
}

/// Which of two instants is meant when a clock shows a time twice.
#[derive(Clone, Copy)]
enum Clock {
    FirstShows,
    LastShows,
}

fn days_us(days: u64) -> i64 {
    TimeDelta::days(days as i64)
        .num_microseconds()
        .expect("a century of microseconds fits an i64")
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Timelike;
    use chrono_tz::America::New_York;
    use chrono_tz::Asia::Shanghai;
    use chrono_tz::Europe::Copenhagen;

    const MINUTE: i64 = 60_000_000;
    const HOUR: i64 = 60 * MINUTE;

    fn us(instant: &str) -> i64 {
        DateTime::parse_from_rfc3339(instant)
            .expect("the test writes RFC 3339")
            .timestamp_micros()
    }

    fn hours(text: &str) -> DayHours {
        DayHours::read(text).expect("the test writes hours")
    }

    fn weekly(time_zone: Tz, days: [&str; 7]) -> Calendar {
        Calendar::weekly(time_zone, days.map(hours))
    }

    fn daily(time_zone: Tz, text: &str) -> Calendar {
        weekly(time_zone, [text; 7])
    }

    fn main_library() -> Calendar {
        let (week, weekend) = ("08:00-22:30", "09:00-21:00");
        weekly(Shanghai, [week, week, week, week, week, weekend, weekend])
    }

    #[track_caller]
    fn open_around(calendar: &Calendar, at: &str, from: &str, to: &str) {
        let interval = calendar.opening_interval(us(at));
        assert_eq!(interval, Some((us(from), us(to))));
    }

    #[test]
    fn a_library_is_open_from_its_first_to_before_its_last_minute() {
        let site = main_library();
        // Monday 23 November 2026; Shanghai is always eight hours ahead.
        assert!(!site.is_open(us("2026-11-22T23:59:59.999999Z")));
        assert!(site.is_open(us("2026-11-23T00:00:00Z")));
        assert!(site.is_open(us("2026-11-23T14:29:59.999999Z")));
        assert!(!site.is_open(us("2026-11-23T14:30:00Z")));
        open_around(
            &site,
            "2026-11-23T10:00:00+08:00",
            "2026-11-23T08:00:00+08:00",
            "2026-11-23T22:30:00+08:00",
        );
        assert_eq!(site.opening_interval(us("2026-11-23T23:00:00+08:00")), None);
    }

    #[test]
    fn the_next_opening_comes_after_the_next_closing() {
        let site = main_library();
        let saturday = Some(us("2026-11-28T09:00:00+08:00"));
        assert_eq!(site.next_opening(us("2026-11-27T22:30:00+08:00")), saturday);
        assert_eq!(site.next_opening(us("2026-11-27T12:00:00+08:00")), saturday);
        assert_eq!(site.next_opening(us("2026-11-28T08:59:59+08:00")), saturday);
    }

    #[test]
    fn closing_after_midnight_belongs_to_the_day_before() {
        let site = weekly(
            Shanghai,
            [
                "closed",
                "closed",
                "closed",
                "closed",
                "20:00-02:00",
                "closed",
                "closed",
            ],
        );
        open_around(
            &site,
            "2026-11-28T01:59:00+08:00",
            "2026-11-27T20:00:00+08:00",
            "2026-11-28T02:00:00+08:00",
        );
        assert!(!site.is_open(us("2026-11-27T01:00:00+08:00")), "Thursday night");
        assert!(!site.is_open(us("2026-11-28T20:00:00+08:00")), "Saturday evening");
    }

    #[test]
    fn what_the_spring_change_skips_is_nobodys_opening_hour() {
        // New York skips 02:00 to 03:00 on 8 March 2026: closing at 02:00 is 03:00 EDT, 07:00 UTC.
        let site = daily(New_York, "20:00-02:00");
        open_around(
            &site,
            "2026-03-08T06:59:00Z",
            "2026-03-07T20:00:00-05:00",
            "2026-03-08T07:00:00Z",
        );
        // 02:30 does not exist there either: it opens right after the gap.
        let site = daily(New_York, "02:30-06:00");
        open_around(
            &site,
            "2026-03-08T09:00:00Z",
            "2026-03-08T03:00:00-04:00",
            "2026-03-08T06:00:00-04:00",
        );
        // And hours that lie in the gap do not happen that day.
        let site = daily(New_York, "02:15-02:45");
        assert_eq!(
            site.next_opening(us("2026-03-07T12:00:00-05:00")),
            Some(us("2026-03-09T02:15:00-04:00"))
        );
    }

    #[test]
    fn a_night_over_the_autumn_change_is_an_hour_longer() {
        // New York shows 01:00 to 02:00 twice on 1 November 2026: 05:00 and 06:00 UTC.
        let site = daily(New_York, "20:00-02:00");
        open_around(
            &site,
            "2026-11-01T05:30:00Z",
            "2026-11-01T00:00:00Z",
            "2026-11-01T07:00:00Z",
        );
        // A time shown twice opens when it is first shown and closes when it is last shown.
        let site = daily(New_York, "01:15-01:45");
        open_around(
            &site,
            "2026-11-01T06:00:00Z",
            "2026-11-01T01:15:00-04:00",
            "2026-11-01T01:45:00-05:00",
        );
    }

    #[test]
    fn two_whole_days_are_one_interval_of_47_48_or_49_hours() {
        let closed = "closed";
        let site = weekly(Copenhagen, [closed, closed, closed, closed, closed, "24h", "24h"]);
        let long = |at: &str| site.opening_interval(us(at)).map(|(from, to)| (to - from) / HOUR);
        assert_eq!(long("2026-03-28T12:00:00Z"), Some(47));
        assert_eq!(long("2026-04-05T12:00:00Z"), Some(48));
        assert_eq!(long("2026-10-25T12:00:00Z"), Some(49));
        open_around(
            &site,
            "2026-10-25T01:30:00Z",
            "2026-10-23T22:00:00Z",
            "2026-10-25T23:00:00Z",
        );
    }

    #[test]
    fn opening_time_stands_still_while_the_doors_are_closed() {
        let site = main_library();
        // Friday 22:00: half an hour that day, the other from Saturday 09:00.
        let friday = us("2026-11-27T22:00:00+08:00");
        let at = |micros| site.add_open_time(friday, micros);
        assert_eq!(at(0), Some(friday));
        assert_eq!(at(30 * MINUTE), Some(us("2026-11-27T22:30:00+08:00")));
        assert_eq!(at(60 * MINUTE), Some(us("2026-11-28T09:30:00+08:00")));
        // 0.5 + 12 + 12 hours, then 3.5 of Monday.
        assert_eq!(at(28 * HOUR), Some(us("2026-11-30T11:30:00+08:00")));
        // Begun at night it counts from the morning.
        let night = us("2026-11-27T23:00:00+08:00");
        assert_eq!(site.add_open_time(night, HOUR), Some(us("2026-11-28T10:00:00+08:00")));
        // In New York the night of the autumn change has seven opening hours, that of the spring change six as always:
        // 02:00 comes right after 01:59, under the name of 03:00.
        let site = daily(New_York, "20:00-02:00");
        assert_eq!(
            site.add_open_time(us("2026-10-31T20:00:00-04:00"), 8 * HOUR),
            Some(us("2026-11-01T21:00:00-05:00"))
        );
        assert_eq!(
            site.add_open_time(us("2026-03-07T20:00:00-05:00"), 8 * HOUR),
            Some(us("2026-03-08T22:00:00-04:00"))
        );
    }

    #[test]
    fn a_date_of_its_own_replaces_its_weekday() {
        let date = |day| NaiveDate::from_ymd_opt(2026, 12, day).expect("a day of December");
        let site = main_library()
            .except(date(24), hours("09:00-13:00"))
            .except(date(25), DayHours::closed());
        open_around(
            &site,
            "2026-12-24T10:00:00+08:00",
            "2026-12-24T09:00:00+08:00",
            "2026-12-24T13:00:00+08:00",
        );
        assert_eq!(
            site.next_opening(us("2026-12-24T12:00:00+08:00")),
            Some(us("2026-12-26T09:00:00+08:00"))
        );
        let always = Calendar::always_open(Shanghai).except(date(25), DayHours::closed());
        assert!(always.is_open(us("2026-12-24T23:59:59+08:00")));
        assert!(!always.is_open(us("2026-12-25T00:00:00+08:00")));
        assert_eq!(
            always.next_opening(us("2026-12-24T12:00:00+08:00")),
            Some(us("2026-12-26T00:00:00+08:00"))
        );
    }

    #[test]
    fn several_ranges_a_day_leave_the_midday_break_closed() {
        let site = daily(Copenhagen, "09:00-12:00, 13:00-17:00");
        assert!(!site.is_open(us("2026-06-01T12:30:00+02:00")));
        assert_eq!(
            site.next_opening(us("2026-06-01T10:00:00+02:00")),
            Some(us("2026-06-01T13:00:00+02:00"))
        );
    }

    #[test]
    fn a_site_without_hours_is_always_open_and_one_without_days_never() {
        let now = us("2026-11-23T10:00:00Z");
        for site in [Calendar::always_open(Shanghai), daily(Shanghai, "24h")] {
            assert!(site.is_open(now) && site.is_open(i64::MAX) && site.is_open(i64::MIN));
            assert_eq!(site.opening_interval(now), Some((i64::MIN, i64::MAX)));
            assert_eq!(site.next_opening(now), None);
            assert_eq!(site.add_open_time(now, HOUR), Some(now + HOUR));
            assert_eq!(site.add_open_time(now, i64::MAX), None);
        }
        let never = daily(Shanghai, "closed");
        assert_eq!(never.next_opening(now), None);
        assert_eq!(never.add_open_time(now, 1), None);
        for far in [i64::MIN, i64::MAX] {
            let site = main_library();
            assert!(!site.is_open(far));
            assert_eq!(site.next_opening(far), None);
            assert_eq!(site.add_open_time(far, 1), None);
        }
        assert_eq!(
            main_library().add_open_time(now, i64::MAX - now),
            None,
            "more than a century"
        );
    }

    #[test]
    fn all_year_round_the_doors_follow_the_clock_on_the_wall() {
        for zone in [New_York, Copenhagen, Shanghai] {
            for (text, from, to) in [
                ("08:00-22:30", 480, 1350),
                ("20:00-00:30", 1200, 30),
                ("00:00-24:00", 0, 1440),
            ] {
                let sunday_closed = weekly(zone, [text, text, text, text, text, text, "closed"]);
                let mut at = us("2026-01-01T00:00:00Z");
                while at < us("2027-01-01T00:00:00Z") {
                    let wall = DateTime::from_timestamp_micros(at)
                        .expect("an instant of 2026")
                        .with_timezone(&zone);
                    let minute = wall.num_seconds_from_midnight() / 60;
                    let (day, open) = if to > from {
                        (wall.weekday(), (from..to).contains(&minute))
                    } else if minute < to {
                        (wall.weekday().pred(), true)
                    } else {
                        (wall.weekday(), minute >= from)
                    };
                    let expected = open && day != Weekday::Sun;
                    assert_eq!(sunday_closed.is_open(at), expected, "{text} at {wall}");
                    at += 10 * MINUTE;
                }
            }
        }
    }

    #[test]
    fn hours_that_mean_nothing_say_what_would() {
        let said = |text| DayHours::read(text).expect_err("it means nothing");
        let (wrong, right) = said("8-22");
        assert_eq!(wrong, "`8-22` is no opening hours");
        assert_eq!(
            right,
            "hours such as \"08:00-22:30\", \"20:00-02:00\", \"closed\" or \"24h\" would be right"
        );
        for text in [
            "",
            "08:00",
            "25:00-26:00",
            "08:60-09:00",
            "24:00-08:00",
            "+8:00-9:00",
            "08:00-22:3",
        ] {
            assert!(said(text).0.contains("is no opening hours"), "{text}");
        }
        assert_eq!(
            said("08:00-08:00"),
            (
                "`08:00-08:00` closes when it opens".to_owned(),
                "\"closed\" or \"24h\" would be right".to_owned()
            )
        );
        assert_eq!(
            said("08:00-12:00,11:00-15:00").0,
            "the ranges of `08:00-12:00,11:00-15:00` run into each other"
        );
        assert_eq!(hours("8:00-24:00"), DayHours(vec![(480, 1440)]));
    }

    #[test]
    fn weekdays_may_run_over_the_weekend() {
        use Weekday::{Fri, Mon, Sat, Sun};
        assert_eq!(weekdays("mon"), Some(vec![Mon]));
        assert_eq!(weekdays("fri-mon"), Some(vec![Fri, Sat, Sun, Mon]));
        assert_eq!(weekdays("mon-sun").map(|days| days.len()), Some(7));
        assert_eq!(weekdays("monday"), None);
        assert_eq!(weekdays("mon-"), None);
    }
}
