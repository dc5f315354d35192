//! Values are what an option may be: a duration, a size, when a query speaks, one word of several, a list.

use std::time::Duration;

use super::parameters::Shifts;
use super::{Emit, OptionValue};
use crate::error::{Position, QueryError};

pub(super) fn emit(value: &OptionValue) -> Result<Emit, QueryError> {
    match value.value.to_lowercase().as_str() {
        "close" => Ok(Emit::Close),
        "update" => Ok(Emit::Update),
        other => match humantime::parse_duration(other) {
            Ok(interval) if !interval.is_zero() => Ok(Emit::Every(micros(interval))),
            _ => Err(value.at.mistake(
                format!("emit = '{}' is not known", value.value),
                "'close', 'update' or an interval such as '10 seconds'",
            )),
        },
    }
}

pub(super) fn duration(value: &OptionValue) -> Result<i64, QueryError> {
    humantime::parse_duration(&value.value).map(micros).map_err(|_| {
        value.at.mistake(
            format!("'{}' is no duration", value.value),
            "a duration such as '500ms', '5 seconds' or '2 hours'",
        )
    })
}

/// Sizes as people write them.
const SIZES: [(&str, usize); 6] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
];

pub(super) fn size(value: &OptionValue) -> Result<usize, QueryError> {
    let text = value.value.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_lowercase();
    let factor = SIZES.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let bytes = number
        .parse::<usize>()
        .ok()
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| {
        value.at.mistake(
            format!("'{}' is no size", value.value),
            "a size such as '64 MiB' or '2 GB'",
        )
    })
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

pub(super) fn one_of(value: Option<OptionValue>, option: &str, allowed: &[&str]) -> Result<Option<String>, QueryError> {
    let Some(value) = value else { return Ok(None) };
    if allowed.contains(&value.value.as_str()) {
        return Ok(Some(value.value));
    }
    Err(value.at.mistake(
        format!("{option} = '{}' is not known", value.value),
        format!("one of {}", allowed.join(", ")),
    ))
}

/// The parts of a list with commas, without the blanks around them, each with its place.
pub(super) fn parts(value: &OptionValue) -> impl Iterator<Item = OptionValue> {
    let at = value.at;
    value.value.split(',').scan(0_u64, move |column, part| {
        let blanks = part.chars().take_while(|c| c.is_whitespace()).count() as u64;
        let found = OptionValue {
            value: part.trim().to_owned(),
            at: Position {
                column: at.column + *column + blanks,
                ..at
            },
            is_parameter: false,
            shifts: Shifts::default(),
        };
        *column += part.chars().count() as u64 + 1;
        Some(found)
    })
}
