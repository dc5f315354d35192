//! `[messages]`: how often people are written to, when not, and who is left out to see whether it helps.

use std::time::Duration;

use usher_queries::civil_time::daily_hours;

use super::layers::{DAY, Layers, Raw, Refusal, SECOND};
use super::values::{count, duration, name};

/// How people are written to.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageSettings {
    /// What is found of a person within so long competes; one message of it goes out.
    pub moment: Duration,
    /// Messages to a person in a calendar day of the site, of all kinds, at most.
    pub per_day: u32,
    /// The hours of the day in which nobody is written to: minutes from midnight in the site's zone; an end may lie on the
    /// next day.
    pub quiet: Vec<(u16, u16)>,
    /// A kind that a person declined so often in a row is stopped.
    pub declines: u32,
    /// For so long.
    pub stop: Duration,
    /// The share of people that are written to never, 0 to 1.
    pub holdout: f64,
    /// What the draw of these people is keyed with.
    pub holdout_key: String,
    /// Who is seen again within so long of a message came back.
    pub back_within: Duration,
    /// What a person does within so long of a message is still the same visit.
    pub back_after: Duration,
    /// How long it is remembered what a person was sent.
    pub keep: Duration,
}

impl Layers<'_> {
    pub(super) fn messages(&mut self) -> MessageSettings {
        MessageSettings {
            moment: self.one("messages.moment", duration(Duration::ZERO..=60 * SECOND)),
            per_day: self.one("messages.per_day", count(1..=50)) as u32,
            quiet: self.one("messages.quiet", quiet),
            declines: self.one("messages.declines", count(1..=100)) as u32,
            stop: self.one("messages.stop", duration(SECOND..=3_650 * DAY)),
            holdout: self.one("messages.holdout", share),
            holdout_key: self.one("messages.holdout_key", name),
            back_within: self.one("messages.back_within", duration(60 * SECOND..=365 * DAY)),
            back_after: self.one("messages.back_after", duration(Duration::ZERO..=30 * DAY)),
            keep: self.one("messages.keep", duration(2 * DAY..=3_650 * DAY)),
        }
    }
}

fn share(raw: &Raw<'_>) -> Result<f64, Refusal> {
    let number = match raw {
        Raw::Text(text) => text.trim().parse().ok(),
        Raw::Toml(toml::de::DeValue::Float(number)) => number.as_str().parse().ok(),
        Raw::Toml(toml::de::DeValue::Integer(number)) => number.as_str().parse().ok(),
        Raw::Toml(_) => None,
    };
    number.filter(|share| (0.0..=0.9).contains(share)).ok_or_else(|| {
        let right = "a share from 0 (nobody) to 0.9 would be right";
        (format!("{} is no such share", raw.shown()), right.to_owned())
    })
}

fn quiet(raw: &Raw<'_>) -> Result<Vec<(u16, u16)>, Refusal> {
    let right =
        || "hours such as \"22:00-07:00\" or \"12:00-13:00, 22:00-07:00\", or \"\" for none would be right".to_owned();
    match raw.text().map(str::trim) {
        Some("") => Ok(Vec::new()),
        Some(text) => daily_hours(text).map_err(|_| (format!("`{text}` is no hours of a day"), right())),
        None => Err((format!("{} is no hours of a day", raw.shown()), right())),
    }
}
