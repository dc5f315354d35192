//! The time of a row: read from its columns in the zone of its place, or honestly invented.
//!
//! A wall clock that jumps forward leaves times that never were: they are read with the offset from before the jump,
//! which shifts them forward by its length. One that is set back has times twice: the earlier is taken.

use std::collections::HashMap;

use chrono::format::{Item, StrftimeItems};
use chrono::{
    DateTime, Datelike, Days, FixedOffset, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, TimeDelta,
    TimeZone, Utc,
};
use chrono_tz::{TZ_VARIANTS, Tz};
use toml::Spanned;

use crate::mapping::Names;
use crate::mapping::template::{Field, Row};
use crate::mapping::written::{EpochWritten, InventWritten, TimeWritten};
use crate::position::Mistakes;

/// When a row happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowTime {
    /// Microseconds since the Unix epoch.
    pub(crate) us: i64,
    /// RFC 3339 with the offset of the place.
    pub(crate) text: String,
    /// The recording has no time of day for it.
    pub(crate) invented: bool,
}

#[derive(Debug, Clone, Copy)]
enum Zone {
    Named(Tz),
    Fixed(FixedOffset),
}

#[derive(Debug)]
enum Form {
    /// Text with its own offset.
    Stamped(String),
    /// Text with date and time of day.
    DateTime(String),
    /// Text with a date only; the time of day is invented.
    Date(String),
    /// Text with a time of day only; the date is a day number.
    Time(String),
}

#[derive(Debug, Clone, Copy)]
enum Invent {
    At(NaiveTime),
    Spread(NaiveTime, NaiveTime),
}

/// Reads the time of rows.
#[derive(Debug)]
pub(crate) struct TimeReader {
    fields: Vec<Field>,
    forms: Vec<Form>,
    epoch: Option<EpochWritten>,
    day: Option<(Field, NaiveDate)>,
    zone: Zone,
    invent: Option<Invent>,
}

/// How many rows each day has and how many of them were given a time: what it takes to spread a day's rows.
#[derive(Debug, Default)]
pub(crate) struct SpreadDays {
    rows: HashMap<NaiveDate, (u32, u32)>,
}

enum Local {
    Instant(DateTime<FixedOffset>),
    DateTime(NaiveDateTime),
    Date(NaiveDate),
}

impl TimeReader {
    pub(crate) fn compile(written: TimeWritten, names: &Names<'_>, mistakes: &mut Mistakes<'_>) -> Option<TimeReader> {
        let fields = written
            .columns
            .iter()
            .map(|column| Field::compile(column, names, mistakes))
            .collect::<Option<Vec<_>>>()?;
        let zone = match &written.zone {
            None => None,
            Some(zone) => Some(Zone::compile(zone, mistakes)?),
        };
        let invent = match &written.invent {
            None => None,
            Some(invent) => Some(Invent::compile(invent, mistakes)?),
        };
        let day = match &written.day {
            None => None,
            Some(day) => {
                let zero = &day.as_ref().zero;
                let Ok(date) = zero.as_ref().parse::<NaiveDate>() else {
                    mistakes.add(
                        zero.span(),
                        format!("{:?} is not a date", zero.as_ref()),
                        "YYYY-MM-DD was expected",
                    );
                    return None;
                };
                Some((Field::compile(&day.as_ref().column, names, mistakes)?, date))
            }
        };
        let mut forms = Vec::new();
        for format in &written.formats {
            forms.push(form(format, day.is_some(), invent.is_some(), zone.is_some(), mistakes)?);
        }
        let place = written
            .columns
            .first()
            .map(Spanned::span)
            .or(written.day.as_ref().map(Spanned::span))
            .unwrap_or(0..0);
        let ways = usize::from(written.epoch.is_some()) + usize::from(!forms.is_empty() || day.is_some());
        if ways != 1 || (fields.is_empty() && day.is_none()) {
            let right = "[time] with `columns` and `formats`, `columns` and `epoch`, or `day` was expected";
            mistakes.add(place, "how to read the time is not told, or told twice", right);
            return None;
        }
        if day.is_some()
            && (zone.is_none() || (fields.is_empty() != forms.is_empty()) || (forms.is_empty() && invent.is_none()))
        {
            let right = "`zone`, and `columns` with `formats` or an `invent`, are needed beside `day`";
            mistakes.add(place, "a day number alone is not a time", right);
            return None;
        }
        Some(TimeReader {
            fields,
            forms,
            epoch: written.epoch.map(Spanned::into_inner),
            day,
            zone: zone.unwrap_or(Zone::Named(Tz::UTC)),
            invent,
        })
    }

    /// Whether the rows of each day must be counted before the first is read.
    pub(crate) fn needs_counting(&self) -> bool {
        matches!(self.invent, Some(Invent::Spread(..)))
    }

    /// Counts a row for the day it will be spread over. A row without a readable day is left to [`Self::read`].
    pub(crate) fn count(&self, row: &Row, days: &mut SpreadDays) {
        if let Ok(Local::Date(date)) = self.local(row) {
            days.rows.entry(date).or_default().1 += 1;
        }
    }

    /// The time of a row. The error says which text was found and what was expected.
    pub(crate) fn read(&self, row: &Row, days: &mut SpreadDays) -> Result<RowTime, String> {
        let local = self.local(row)?;
        // Beyond these years zones and RFC 3339 have no answer.
        let year = match &local {
            Local::Instant(instant) => instant.year(),
            Local::DateTime(local) => local.year(),
            Local::Date(date) => date.year(),
        };
        if !(1..=9998).contains(&year) {
            return Err(format!(
                "the time lies in the year {year}: one from 1 to 9998 was expected"
            ));
        }
        let (local, invented) = match local {
            Local::Instant(instant) => return Ok(row_time(instant, false)),
            Local::DateTime(local) => (local, false),
            Local::Date(date) => {
                let time = match self
                    .invent
                    .expect("a format without a time of day needs an `invent`, checked when read")
                {
                    Invent::At(time) => time,
                    Invent::Spread(from, to) => {
                        let (given, of) = days.rows.entry(date).or_default();
                        *given += 1;
                        let share = f64::from(*given - 1) / f64::from((*of).max(*given));
                        let span_ms = (to - from).num_milliseconds();
                        from + TimeDelta::milliseconds((span_ms as f64 * share) as i64)
                    }
                };
                (date.and_time(time), true)
            }
        };
        Ok(row_time(self.zone.instant(local), invented))
    }

    fn local(&self, row: &Row) -> Result<Local, String> {
        let text = self
            .fields
            .iter()
            .map(|field| field.of(row))
            .collect::<Vec<_>>()
            .join(" ");
        if let Some(unit) = self.epoch {
            let number: i64 = text
                .parse()
                .map_err(|_| format!("the time is {text:?}: a whole number was expected"))?;
            let instant = match unit {
                EpochWritten::S => DateTime::from_timestamp(number, 0),
                EpochWritten::Ms => DateTime::from_timestamp_millis(number),
                EpochWritten::Us => DateTime::from_timestamp_micros(number),
            };
            return instant
                .map(|instant| Local::Instant(instant.fixed_offset()))
                .ok_or_else(|| format!("the time is {text:?}: no calendar goes so far"));
        }
        let date = match self.day {
            None => None,
            Some((field, zero)) => {
                let number = field.of(row);
                let days: i32 = number
                    .parse()
                    .map_err(|_| format!("the day is {number:?}: a whole number was expected"))?;
                let far = Days::new(days.unsigned_abs().into());
                let date = if days < 0 {
                    zero.checked_sub_days(far)
                } else {
                    zero.checked_add_days(far)
                };
                Some(date.ok_or_else(|| format!("the day is {number:?}: no calendar goes so far"))?)
            }
        };
        if let (Some(date), true) = (date, self.forms.is_empty()) {
            return Ok(Local::Date(date));
        }
        let read = |form: &Form| match form {
            Form::Stamped(format) => DateTime::parse_from_str(&text, format).ok().map(Local::Instant),
            Form::DateTime(format) => NaiveDateTime::parse_from_str(&text, format).ok().map(Local::DateTime),
            Form::Date(format) => NaiveDate::parse_from_str(&text, format).ok().map(Local::Date),
            Form::Time(format) => {
                let time = NaiveTime::parse_from_str(&text, format).ok()?;
                Some(Local::DateTime(date?.and_time(time)))
            }
        };
        self.forms.iter().find_map(read).ok_or_else(|| {
            let formats: Vec<&str> = self.forms.iter().map(Form::format).collect();
            format!("the time is {text:?}: {} was expected", formats.join(" or "))
        })
    }
}

impl Form {
    fn format(&self) -> &str {
        match self {
            Form::Stamped(format) | Form::DateTime(format) | Form::Date(format) | Form::Time(format) => format,
        }
    }
}

fn form(
    format: &Spanned<String>,
    has_day: bool,
    invents: bool,
    has_zone: bool,
    mistakes: &mut Mistakes<'_>,
) -> Option<Form> {
    let text = format.as_ref().clone();
    if StrftimeItems::new(&text).any(|item| matches!(item, Item::Error)) {
        let right = "strftime marks such as %Y-%m-%d %H:%M:%S were expected";
        mistakes.add(format.span(), "the format holds something unknown", right);
        return None;
    }
    // What a format holds is found by writing a known moment with it and looking what can be read back.
    let moment = Utc
        .with_ymd_and_hms(2017, 4, 3, 12, 34, 0)
        .single()
        .expect("a plain moment")
        .fixed_offset();
    let sample = moment.format(&text).to_string();
    if DateTime::parse_from_str(&sample, &text).is_ok() {
        return Some(Form::Stamped(text));
    }
    let form = if NaiveDateTime::parse_from_str(&sample, &text).is_ok() {
        Form::DateTime(text)
    } else if has_day && NaiveTime::parse_from_str(&sample, &text).is_ok() {
        Form::Time(text)
    } else if NaiveDate::parse_from_str(&sample, &text).is_ok() {
        if !invents {
            mistakes.add(
                format.span(),
                "the format has no time of day",
                "%H:%M or an `invent` would be right",
            );
            return None;
        }
        Form::Date(text)
    } else {
        mistakes.add(
            format.span(),
            "the format does not make a time",
            "%Y-%m-%d %H:%M:%S or the like was expected",
        );
        return None;
    };
    if !has_zone {
        let right = "%z in the format or a `zone` would be right";
        mistakes.add(format.span(), "the format has no offset and there is no zone", right);
        return None;
    }
    Some(form)
}

impl Zone {
    fn compile(written: &Spanned<String>, mistakes: &mut Mistakes<'_>) -> Option<Zone> {
        let text = written.as_ref();
        if let Ok(zone) = text.parse::<Tz>() {
            return Some(Zone::Named(zone));
        }
        if let Ok(offset) = text.parse::<FixedOffset>() {
            return Some(Zone::Fixed(offset));
        }
        mistakes.unknown(
            written.span(),
            "time zone",
            text,
            TZ_VARIANTS.iter().map(|zone| zone.name()),
        );
        None
    }

    fn instant(self, local: NaiveDateTime) -> DateTime<FixedOffset> {
        match self {
            Zone::Fixed(offset) => DateTime::<FixedOffset>::from_naive_utc_and_offset(
                local - TimeDelta::seconds(offset.local_minus_utc().into()),
                offset,
            ),
            Zone::Named(zone) => match zone.from_local_datetime(&local) {
                LocalResult::Single(instant) | LocalResult::Ambiguous(instant, _) => instant.fixed_offset(),
                LocalResult::None => {
                    // The last wall-clock time before the jump tells the offset that held until then.
                    let before = (1..=4 * 48)
                        .find_map(|quarters| {
                            zone.from_local_datetime(&(local - TimeDelta::minutes(15 * quarters)))
                                .latest()
                        })
                        .expect("no zone ever left out two days");
                    let shifted_utc = before.naive_utc() + (local - before.naive_local());
                    zone.from_utc_datetime(&shifted_utc).fixed_offset()
                }
            },
        }
    }
}

impl Invent {
    fn compile(written: &Spanned<InventWritten>, mistakes: &mut Mistakes<'_>) -> Option<Invent> {
        let mut time = |text: &str, span: std::ops::Range<usize>| match NaiveTime::parse_from_str(text, "%H:%M") {
            Ok(time) => Some(time),
            Err(_) => {
                mistakes.add(span, format!("{text:?} is not a time of day"), "HH:MM was expected");
                None
            }
        };
        match (&written.as_ref().at, &written.as_ref().spread) {
            (Some(at), None) => Some(Invent::At(time(at.as_ref(), at.span())?)),
            (None, Some(spread)) => {
                let [from, to] = spread.as_ref();
                let (from, to) = (time(from, spread.span())?, time(to, spread.span())?);
                if from >= to {
                    mistakes.add(
                        spread.span(),
                        "the spread ends before it begins",
                        "an earlier and a later time were expected",
                    );
                    return None;
                }
                Some(Invent::Spread(from, to))
            }
            _ => {
                mistakes.add(
                    written.span(),
                    "no time of day is invented, or two are",
                    "either `at` or `spread` was expected",
                );
                None
            }
        }
    }
}

fn row_time(instant: DateTime<FixedOffset>, invented: bool) -> RowTime {
    RowTime {
        us: instant.timestamp_micros(),
        text: instant.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        invented,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(zone: &str, local: &str, expected: &str) {
        let zone = Zone::Named(zone.parse().expect("a zone"));
        let local = NaiveDateTime::parse_from_str(local, "%Y-%m-%d %H:%M").expect("a local time");
        assert_eq!(row_time(zone.instant(local), false).text, expected);
    }

    #[test]
    fn a_time_that_never_was_is_shifted_forward_by_the_jump() {
        check("Europe/Copenhagen", "2017-03-26 02:00", "2017-03-26T03:00:00+02:00");
        check("Europe/Copenhagen", "2017-03-26 02:59", "2017-03-26T03:59:00+02:00");
        check("Pacific/Apia", "2011-12-30 12:00", "2011-12-31T12:00:00+14:00");
    }

    #[test]
    fn of_a_time_that_was_twice_the_earlier_is_taken() {
        check("America/Los_Angeles", "2005-10-30 01:30", "2005-10-30T01:30:00-07:00");
        check("America/Los_Angeles", "2005-10-30 02:00", "2005-10-30T02:00:00-08:00");
    }
}
