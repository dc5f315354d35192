//! A timestamp as devices write it: RFC 3339, or milliseconds since 1970 as a number or in quotes.

use chrono::DateTime;
use serde_json::Value;

/// A device's time, microseconds since 1970; `None` where it sends none.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn read(ts: Option<&Value>) -> Result<Option<i64>, String> {
    match ts {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => {
            if let Some(millis) = number.as_i64() {
                return Ok(Some(millis.saturating_mul(1_000)));
            }
            match number.as_f64() {
                // Beyond what fits it saturates, which reads as a clock far ahead.
                #[allow(clippy::cast_possible_truncation)]
                Some(millis) if millis.is_finite() => Ok(Some((millis * 1_000.0) as i64)),
                _ => Err(wrong(&number.to_string())),
            }
        }
        Some(Value::String(text)) => from_text(text.trim()).map(Some),
        Some(other) => Err(wrong(&other.to_string())),
    }
}

fn from_text(text: &str) -> Result<i64, String> {
    if text.is_empty() {
        return Err(wrong("\"\""));
    }
    if let Ok(millis) = text.parse::<i64>() {
        return Ok(millis.saturating_mul(1_000));
    }
    let parsed = DateTime::parse_from_rfc3339(text)
        // Some devices leave the colon out of the offset.
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"))
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%z"));
    match parsed {
        Ok(time) => Ok(time.timestamp_micros()),
        Err(_) if has_no_offset(text) => Err(format!(
            "`ts` is \"{text}\", which does not say in which time zone; \"{text}Z\" or an offset such as \"{text}+08:00\" would be right"
        )),
        Err(_) => Err(wrong(&format!("\"{}\"", text.chars().take(60).collect::<String>()))),
    }
}

fn has_no_offset(text: &str) -> bool {
    chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").is_ok()
}

fn wrong(found: &str) -> String {
    format!("`ts` is {found}: RFC 3339 such as \"2026-03-02T08:00:00+08:00\", or milliseconds since 1970, was expected")
}

#[cfg(test)]
mod tests {
    use super::read;
    use serde_json::json;

    #[test]
    fn times_of_devices_are_read() {
        let same = [
            json!("2026-03-02T00:00:00Z"),
            json!("2026-03-02t08:00:00+08:00"),
            json!("2026-03-02T08:00:00.000+0800"),
            json!("2026-03-02 08:00:00+08:00"),
            json!(1_772_409_600_000_i64),
            json!("1772409600000"),
            json!(1_772_409_600_000.0),
        ];
        for ts in same {
            assert_eq!(read(Some(&ts)), Ok(Some(1_772_409_600_000_000)), "{ts}");
        }
        assert_eq!(read(None), Ok(None));
        assert_eq!(read(Some(&json!(null))), Ok(None));
        assert_eq!(read(Some(&json!(i64::MAX))), Ok(Some(i64::MAX)));
    }

    #[test]
    fn what_is_no_time_is_told() {
        for ts in [json!(""), json!("yesterday"), json!(true), json!([1])] {
            let reason = read(Some(&ts)).expect_err("no time");
            assert!(reason.contains("was expected"), "{reason}");
        }
        let reason = read(Some(&json!("2026-03-02T08:00:00"))).expect_err("no zone");
        assert!(reason.contains("2026-03-02T08:00:00Z"), "{reason}");
    }
}
