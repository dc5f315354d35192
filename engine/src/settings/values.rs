//! Values are what one setting may be, read alike from a file, a variable and a flag.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use chrono::{DateTime, Utc};
use toml::de::{DeTable, DeValue};

use super::layers::{KIB, MIB, Raw, Refusal};
use super::{BrokerUrl, Mqtt, Tier};

pub(super) fn name(raw: &Raw<'_>) -> Result<String, Refusal> {
    match raw.text() {
        Some(text) if !text.trim().is_empty() => Ok(text.to_owned()),
        Some(_) => Err(("it is empty".to_owned(), "a name would be right".to_owned())),
        None => Err((
            format!("{} is no text", raw.shown()),
            "a text in quotes would be right".to_owned(),
        )),
    }
}

pub(super) fn topic_level(raw: &Raw<'_>) -> Result<String, Refusal> {
    let group = name(raw)?;
    if group.contains(['/', '+', '#']) {
        let right = "one level of an MQTT topic, without `/`, `+` and `#`, would be right";
        return Err((format!("`{group}` cannot be a group"), right.to_owned()));
    }
    Ok(group)
}

pub(super) fn mqtt(raw: &Raw<'_>) -> Result<Mqtt, Refusal> {
    let text = raw.text().unwrap_or_default();
    let Some((scheme, rest)) = text.split_once("://") else {
        let right = "\"127.0.0.1:1883\" for the embedded broker or \"mqtt://broker:1883\" for your own would be right";
        return address(text).map(Mqtt::Embedded).ok_or_else(|| no_address(raw, right));
    };
    if scheme != "mqtt" && scheme != "mqtts" {
        let wrong = format!("`{scheme}://` is no way to a broker");
        return Err((wrong, "mqtt:// or mqtts:// would be right".to_owned()));
    }
    // The password comes before the last @, and may not be shown.
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    let place = place.strip_suffix('/').unwrap_or(place);
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse::<u16>().ok().filter(|port| *port > 0)),
        _ => (place, Some(1883)),
    };
    let bad_host = |letter: char| letter.is_whitespace() || matches!(letter, '/' | '?' | '#');
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if host.is_empty() || host.contains(bad_host) || bare_v6 || port.is_none() {
        let wrong = format!("`{scheme}://{place}` names no host and port");
        let right = format!("a URL such as \"{scheme}://user:password@broker.example:1883\" would be right");
        return Err((wrong, right));
    }
    Ok(Mqtt::Own(BrokerUrl(text.to_owned())))
}

/// An address to listen on. `localhost` is said so often that it is taken as what it stands for.
pub(super) fn address(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    let port = text.strip_prefix("localhost:");
    port.map_or_else(|| text.parse().ok(), |port| format!("127.0.0.1:{port}").parse().ok())
}

pub(super) fn no_address(raw: &Raw<'_>, right: &str) -> Refusal {
    let shown = match raw.text().and_then(|text| text.rsplit_once('@')) {
        // What stands before an @ may be a password, even where no scheme says so.
        Some((_, place)) => format!("`***@{place}`"),
        None => raw.shown(),
    };
    (format!("{shown} is no address with a port"), right.to_owned())
}

/// A duration within limits. The units are those of SQL options such as `lateness`.
pub(super) fn duration(limits: RangeInclusive<Duration>) -> impl Fn(&Raw<'_>) -> Result<Duration, Refusal> {
    move |raw| {
        let right = "a duration such as \"500ms\", \"10 seconds\", \"5 minutes\", \"1h\" or \"14d\" would be right";
        let refuse = |wrong: String| Err((wrong, right.to_owned()));
        let shown = raw.shown();
        let Some(text) = raw.text() else {
            return refuse(format!("{shown} has no unit of time"));
        };
        let duration = match humantime::parse_duration(text.trim()) {
            Ok(duration) => duration,
            Err(humantime::DurationError::UnknownUnit { unit, .. }) if unit.is_empty() => {
                return refuse(format!("{shown} has no unit of time"));
            }
            Err(humantime::DurationError::UnknownUnit { unit, .. }) => {
                return refuse(format!("`{unit}` is no unit of time"));
            }
            Err(_) => return refuse(format!("{shown} is no duration")),
        };
        if limits.contains(&duration) {
            return Ok(duration);
        }
        let shown_limit = |limit: &Duration| humantime::format_duration(*limit).to_string();
        let (low, high) = (shown_limit(limits.start()), shown_limit(limits.end()));
        Err((
            format!("{shown} is out of range"),
            format!("\"{low}\" to \"{high}\" would be right"),
        ))
    }
}

/// Steps of 1024 and of 1000, with the names people give them.
const SIZES: [(&str, u64); 10] = [
    ("B", 1),
    ("bytes", 1),
    ("KiB", KIB),
    ("MiB", MIB),
    ("GiB", 1024 * MIB),
    ("TiB", 1024 * 1024 * MIB),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A size in bytes within limits.
pub(super) fn size(limits: RangeInclusive<u64>) -> impl Fn(&Raw<'_>) -> Result<u64, Refusal> {
    move |raw| {
        let shown = raw.shown();
        let form = "a size such as \"256KiB\", \"16MiB\" or \"20GiB\" would be right";
        let Some(text) = raw.text() else {
            return Err((format!("{shown} has no unit of size"), form.to_owned()));
        };
        let digits = text.trim().trim_end_matches(|letter: char| !letter.is_ascii_digit());
        let unit = text.trim()[digits.len()..].trim();
        let Ok(number) = digits.parse::<u64>() else {
            return Err((format!("{shown} is no size"), form.to_owned()));
        };
        let Some((_, bytes)) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) else {
            let wrong = match unit {
                "" => format!("{shown} has no unit of size"),
                unit => format!("`{unit}` is no unit of size"),
            };
            return Err((wrong, form.to_owned()));
        };
        let size = number.checked_mul(*bytes).filter(|size| limits.contains(size));
        size.ok_or_else(|| {
            let (low, high) = (limits.start(), limits.end());
            (
                format!("{shown} is out of range"),
                format!("{low} to {high} bytes would be right"),
            )
        })
    }
}

/// A whole number within limits.
pub(super) fn count(limits: RangeInclusive<usize>) -> impl Fn(&Raw<'_>) -> Result<usize, Refusal> {
    move |raw| {
        let number = match raw {
            Raw::Text(text) => text.trim().parse().ok(),
            Raw::Toml(DeValue::Integer(number)) => usize::from_str_radix(number.as_str(), number.radix()).ok(),
            Raw::Toml(_) => None,
        };
        number.filter(|number| limits.contains(number)).ok_or_else(|| {
            let right = match *limits.end() {
                usize::MAX => format!("a whole number from {} would be right", limits.start()),
                high => format!("a whole number from {} to {high} would be right", limits.start()),
            };
            (format!("{} is no such number", raw.shown()), right)
        })
    }
}

pub(super) fn instant(raw: &Raw<'_>) -> Result<DateTime<Utc>, Refusal> {
    let written = match raw {
        Raw::Toml(DeValue::Datetime(time)) => time.to_string(),
        other => other.text().unwrap_or_default().to_owned(),
    };
    match DateTime::parse_from_rfc3339(written.trim()) {
        Ok(instant) => Ok(instant.to_utc()),
        Err(_) => Err((
            format!(
                "{} is no instant",
                if written.is_empty() {
                    raw.shown()
                } else {
                    format!("`{written}`")
                }
            ),
            "date, time and offset such as \"2001-01-01T00:00:00Z\" would be right".to_owned(),
        )),
    }
}

pub(super) fn tiers(raw: &Raw<'_>) -> Result<Vec<Tier>, Refusal> {
    let right = || "a score for each, one of them 0, such as { occasional = 0, regular = 5 } would be right".to_owned();
    let refuse = |wrong: String| Err((wrong, right()));
    // A variable holds the same table, as a text.
    let mut named: Vec<Tier> = match raw {
        Raw::Toml(DeValue::Table(table)) => tiers_of(table),
        Raw::Text(text) => match DeTable::parse(&format!("tiers = {text}")) {
            Ok(tree) => tree
                .get_ref()
                .get("tiers")
                .and_then(|tiers| tiers.get_ref().as_table())
                .and_then(tiers_of),
            Err(_) => None,
        },
        Raw::Toml(_) => None,
    }
    .ok_or_else(|| ("tiers are names, each with the score it begins at, and where one is written the lower one at which it is left".to_owned(), right()))?;
    named.sort_by(|a, b| a.from.total_cmp(&b.from));
    if named.first().is_none_or(|lowest| lowest.from != 0.0) {
        return refuse("no tier begins at 0, so that somebody would be in none".to_owned());
    }
    match named.windows(2).find(|pair| pair[0].from == pair[1].from) {
        Some(pair) => refuse(format!(
            "`{}` and `{}` begin at the same score",
            pair[0].name, pair[1].name
        )),
        None => Ok(named),
    }
}

fn tiers_of(table: &DeTable<'_>) -> Option<Vec<Tier>> {
    let tier = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let name: &std::borrow::Cow<'_, str> = key.get_ref();
        let (from, until) = match value.get_ref() {
            DeValue::Table(limits)
                if limits
                    .iter()
                    .all(|(key, _)| ["from", "until"].contains(&&**key.get_ref())) =>
            {
                let limit = |name: &str| limits.get(name).and_then(|limit| score(limit.get_ref()));
                (limit("from")?, limit("until")?)
            }
            value => {
                let from = score(value)?;
                (from, from * LEFT_AT)
            }
        };
        (until <= from && (until > 0.0 || from == 0.0)).then(|| Tier {
            name: name.to_string(),
            from,
            until,
        })
    };
    table.iter().map(tier).collect()
}

/// A tier of which nobody says when it is left is left below this share of where it begins: a score that wavers about a
/// limit does not change the tier each time.
const LEFT_AT: f64 = 0.8;

fn score(value: &DeValue<'_>) -> Option<f64> {
    let written = match value {
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        _ => return None,
    };
    written
        .parse()
        .ok()
        .filter(|score: &f64| score.is_finite() && *score >= 0.0)
}
