//! `public_http` and `[privacy]`: what anybody may see, where and how often.

use std::net::SocketAddr;
use std::time::Duration;

use super::layers::{DAY, Layers, Raw, Refusal, SECOND};
use super::values::{address, duration, no_address};

/// What anybody may see, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicSettings {
    /// Where public answers are served and nothing else; port 0 is any free one. `None` where they are only beside staff's.
    pub http: Option<SocketAddr>,
    /// Public answers change at such steps of event time.
    pub step: Duration,
    /// The measures that may be seen, without `measure_`.
    pub measures: Vec<String>,
}

impl Layers<'_> {
    pub(super) fn public(&mut self) -> PublicSettings {
        PublicSettings {
            http: self.one("public_http", maybe_address),
            step: self.one("privacy.public_step", duration(60 * SECOND..=DAY)),
            measures: self.one("privacy.public_measures", names),
        }
    }
}

fn maybe_address(raw: &Raw<'_>) -> Result<Option<SocketAddr>, Refusal> {
    match raw.text().map(str::trim) {
        Some("") => Ok(None),
        text => address(text.unwrap_or_default()).map(Some).ok_or_else(|| {
            no_address(
                raw,
                "an address such as \"0.0.0.0:8090\", or \"\" for none, would be right",
            )
        }),
    }
}

fn names(raw: &Raw<'_>) -> Result<Vec<String>, Refusal> {
    let right = "names of measures such as \"searches, retention\", or \"\" for none, would be right";
    let Some(text) = raw.text() else {
        return Err((format!("{} is no text", raw.shown()), right.to_owned()));
    };
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if names == [""] {
        return Ok(Vec::new());
    }
    let is_name = |name: &String| {
        !name.is_empty()
            && name
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    match names.iter().find(|name| !is_name(name)) {
        Some(name) => Err((format!("`{name}` is no name of a measure"), right.to_owned())),
        None => Ok(names),
    }
}
