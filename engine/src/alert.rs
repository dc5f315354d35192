//! An alert is a rule's finding about one subject, with a life; this is what the world sees of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Where in its life an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The condition holds, but not yet for as long as the rule wants.
    Pending,
    /// Somebody should look.
    Active,
    /// Somebody looks.
    Acknowledged,
    /// The raising condition no longer holds, the clearing one not yet.
    Recovering,
    /// Over.
    Cleared,
}

impl State {
    /// As it is written in JSON and in `?state=`.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Active => "active",
            State::Acknowledged => "acknowledged",
            State::Recovering => "recovering",
            State::Cleared => "cleared",
        }
    }

    /// Whether people should see it: raised and not over.
    pub fn is_standing(self) -> bool {
        matches!(self, State::Active | State::Acknowledged | State::Recovering)
    }
}

/// What an alert is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Subject {
    /// `zone`, `seat`, `person`, `item` or `device`.
    pub kind: String,
    /// Its id; of a person the pseudonym.
    pub id: String,
}

/// From when to when, RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Span {
    /// The first instant.
    pub start: String,
    /// The first instant after it.
    pub end: String,
}

/// How long each stage took, microseconds since the message was received. For an alert that a clock raised, since the
/// clock was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Trace {
    /// Always 0: from here it counts.
    pub received_us: u64,
    /// The payload was understood.
    pub decoded_us: u64,
    /// The queries had spoken.
    pub evaluated_us: u64,
    /// It was handed to the broker; 0 until then.
    pub sent_us: u64,
}

/// What somebody noted beside an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Comment {
    /// When, RFC 3339.
    pub at: String,
    /// Who, as they called themselves.
    pub by: String,
    /// The words.
    pub text: String,
}

/// An alert as it goes out over MQTT and HTTP. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Alert {
    /// The same however often the same events are processed.
    pub id: String,
    /// The rule that raised it.
    #[schema(value_type = String)]
    pub rule: Arc<str>,
    /// The site.
    pub site: String,
    /// The zone, where the rule names one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub zone: Option<String>,
    /// What it is about.
    pub subject: Subject,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// Where in its life it is.
    pub state: State,
    /// For how long staff does not want to hear of it, stands beside the state.
    pub snoozed: bool,
    /// Held back because another alert says the same.
    pub suppressed: bool,
    /// The sentence for people.
    pub text: String,
    /// The measurements behind it.
    #[schema(value_type = Object)]
    pub values: Map<String, Value>,
    /// The window it was found in, if it was one.
    pub window: Option<Span>,
    /// When it became true, by the clocks of the devices.
    pub event_time: String,
    /// When it was raised, by our clock; null while pending.
    pub raised_at: Option<String>,
    /// When it was over, by the clocks of the devices.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cleared_at: Option<String>,
    /// Who looks after it; null until somebody does.
    #[serde(default)]
    pub acknowledged_by: Option<String>,
    /// What staff noted.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub comments: Vec<Comment>,
    /// The ids of the events that made it so.
    pub causes: Vec<String>,
    /// How long it took.
    pub trace: Trace,
}

impl Alert {
    /// The topic under which the alert is retained while it stands.
    pub fn topic(&self) -> String {
        format!(
            "usher/out/{}/alert/{}/{}",
            level(&self.site),
            level(&self.rule),
            level(&self.subject.id)
        )
    }

    /// The topic on which each step of its life is told.
    pub fn event_topic(&self) -> String {
        format!("usher/out/{}/alert-event/{}", level(&self.site), level(&self.rule))
    }
}

/// A name as one level of a topic: what would split it or be a wildcard becomes `_`.
pub fn level(name: &str) -> String {
    if name.is_empty() {
        return "_".to_owned();
    }
    name.replace(['/', '+', '#', '\0'], "_")
}
