//! `[retention]`: how long streams are kept that go before the log does.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Settings;
use super::layers::{CENTURY, Layers, Raw, Refusal, SECOND};
use super::values::duration;
use crate::event::Kind;

/// The streams that may go before the log does. Who is whose and what persons decided stay as long as it does.
const STREAMS: [Kind; 5] = [Kind::Gate, Kind::Seat, Kind::Rfid, Kind::Click, Kind::Reply];
const AGES: RangeInclusive<Duration> = SECOND..=CENTURY;

/// How long streams are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionSettings {
    /// Those that go before the log does.
    pub streams: Vec<(Kind, Duration)>,
}

impl Layers<'_> {
    pub(super) fn retention(&mut self) -> RetentionSettings {
        let streams = STREAMS.map(|kind| (kind, self.one(&key_of(kind), age)));
        RetentionSettings {
            streams: streams
                .into_iter()
                .filter_map(|(kind, age)| Some((kind, age?)))
                .collect(),
        }
    }

    /// What goes with the log can't be kept for longer.
    pub(super) fn refuse_retentions(&mut self, settings: &Settings) {
        let log = settings.log.retention_age;
        for (kind, age) in &settings.retention.streams {
            if *age > log {
                let wrong = format!(
                    "it is longer than the log keeps anything, `log.retention_age`, which is {}",
                    humantime::format_duration(log)
                );
                let right = "a shorter one, \"\" for as long as the log, or a longer `retention_age` would be right";
                self.refuse(&key_of(*kind), wrong, right.to_owned());
            }
        }
    }
}

fn key_of(kind: Kind) -> String {
    format!("retention.{}", kind.as_str())
}

fn age(raw: &Raw<'_>) -> Result<Option<Duration>, Refusal> {
    match raw.text().map(str::trim) {
        Some("") => Ok(None),
        _ => duration(AGES)(raw).map(Some),
    }
}
