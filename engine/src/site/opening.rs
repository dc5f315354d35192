//! Opening hours and the time zone of a site, as `site.toml` has them.

use std::ops::Range;

use chrono::NaiveDate;
use chrono_tz::Tz;
use toml::Spanned;
use toml::de::DeValue;

use crate::calendar::{Calendar, DayHours, WEEKDAYS, weekdays};
use crate::position::{Fields, Mistakes, kind, nearest};

pub(super) fn calendar(fields: &Fields<'_, '_>, mistakes: &mut Mistakes<'_>) -> Calendar {
    let zone = time_zone(fields, mistakes);
    let mut calendar = match week(fields, mistakes) {
        Some(week) => Calendar::weekly(zone, week),
        None => Calendar::always_open(zone),
    };
    let mut said: Vec<NaiveDate> = Vec::new();
    for (date, span, hours) in exceptions(fields, mistakes) {
        if said.contains(&date) {
            let wrong = format!("{date} is said twice");
            mistakes.add(span, wrong, "once in `closed` or `hours` would be right");
            continue;
        }
        said.push(date);
        calendar = calendar.except(date, hours);
    }
    calendar
}

fn time_zone(fields: &Fields<'_, '_>, mistakes: &mut Mistakes<'_>) -> Tz {
    let needs = ["opening", "closed", "hours"];
    if needs.iter().all(|key| fields.value(key).is_none()) && fields.value("time_zone").is_none() {
        return Tz::UTC;
    }
    let Some(written) = fields.needed("time_zone", "Asia/Shanghai", mistakes) else {
        return Tz::UTC;
    };
    written.get_ref().parse().unwrap_or_else(|_| {
        let wrong = format!("`{}` is no time zone", written.get_ref());
        let known = || chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
        // Nobody can be shown six hundred names, but people who write "Shanghai" mean the one that ends so.
        let city = known().find(|name| {
            let city = name.rsplit('/').next().unwrap_or(name);
            city.eq_ignore_ascii_case(&written.get_ref().trim().replace(' ', "_"))
        });
        let right = match city.or_else(|| nearest(written.get_ref(), known())) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "an IANA name such as `Asia/Shanghai` would be right".to_owned(),
        };
        mistakes.add(written.span(), wrong, right);
        Tz::UTC
    })
}

/// The opening hours from Monday; days nobody mentions are closed.
fn week(fields: &Fields<'_, '_>, mistakes: &mut Mistakes<'_>) -> Option<[DayHours; 7]> {
    let value = fields.value("opening")?;
    let form = "{ mon-fri = \"08:00-22:30\", sat = \"09:00-21:00\" } would be right";
    let DeValue::Table(table) = value.get_ref() else {
        let wrong = format!("`opening` is {}", kind(value.get_ref()));
        mistakes.add(value.span(), wrong, form);
        return None;
    };
    let mut week: [DayHours; 7] = Default::default();
    let mut said: [Option<&str>; 7] = [None; 7];
    let mut members: Vec<_> = table.iter().collect();
    members.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in members {
        let days = key.get_ref().as_ref();
        let Some(meant) = weekdays(days) else {
            let wrong = format!("`{days}` is no day of the week");
            let right = match nearest(days, WEEKDAYS) {
                Some(day) if !days.contains('-') => format!("did you mean `{day}`?"),
                _ => "`mon` to `sun` or a range such as `mon-fri` would be right".to_owned(),
            };
            mistakes.add(key.span(), wrong, right);
            continue;
        };
        let hours = day_hours(value, mistakes);
        for day in meant {
            let at = day.num_days_from_monday() as usize;
            if let Some(before) = said[at].filter(|before| *before != days) {
                let wrong = format!("`{days}` says again what `{before}` says: {}", WEEKDAYS[at]);
                mistakes.add(key.span(), wrong, "each day once would be right");
                break;
            }
            said[at] = Some(days);
            week[at] = hours.clone();
        }
    }
    Some(week)
}

fn day_hours(value: &Spanned<DeValue<'_>>, mistakes: &mut Mistakes<'_>) -> DayHours {
    let Some(text) = value.get_ref().as_str() else {
        let wrong = format!("opening hours are {}", kind(value.get_ref()));
        mistakes.add(value.span(), wrong, "a text such as \"08:00-22:30\" would be right");
        return DayHours::closed();
    };
    DayHours::read(text).unwrap_or_else(|(wrong, right)| {
        mistakes.add(value.span(), wrong, right);
        DayHours::closed()
    })
}

/// The dates with hours of their own: `closed = ["2026-12-25"]` and `hours = { "2026-12-24" = "09:00-13:00" }`.
fn exceptions(fields: &Fields<'_, '_>, mistakes: &mut Mistakes<'_>) -> Vec<(NaiveDate, Range<usize>, DayHours)> {
    let mut found = Vec::new();
    match fields.value("closed").map(|value| (value.get_ref(), value.span())) {
        None => {}
        Some((DeValue::Array(dates), _)) => {
            for written in dates {
                let text = match written.get_ref() {
                    DeValue::String(text) => text.to_string(),
                    DeValue::Datetime(date) => date.to_string(),
                    other => kind(other).to_owned(),
                };
                if let Some(date) = date(&text, written.span(), mistakes) {
                    found.push((date, written.span(), DayHours::closed()));
                }
            }
        }
        Some((other, span)) => {
            let wrong = format!("`closed` is {}", kind(other));
            mistakes.add(span, wrong, "a list of dates such as [\"2026-12-25\"] would be right");
        }
    }
    match fields.value("hours").map(|value| (value.get_ref(), value.span())) {
        None => {}
        Some((DeValue::Table(table), _)) => {
            let mut members: Vec<_> = table.iter().collect();
            members.sort_by_key(|(key, _)| key.span().start);
            for (key, value) in members {
                let hours = day_hours(value, mistakes);
                if let Some(date) = date(key.get_ref(), key.span(), mistakes) {
                    found.push((date, key.span(), hours));
                }
            }
        }
        Some((other, span)) => {
            let wrong = format!("`hours` is {}", kind(other));
            mistakes.add(span, wrong, "{ \"2026-12-24\" = \"09:00-13:00\" } would be right");
        }
    }
    found
}

fn date(text: &str, span: Range<usize>, mistakes: &mut Mistakes<'_>) -> Option<NaiveDate> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    if date.is_none() {
        let wrong = format!("`{text}` is no date");
        mistakes.add(span, wrong, "a date such as \"2026-12-25\" would be right");
    }
    date
}
