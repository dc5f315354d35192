//! A message is what goes out to one person, or would have: its words, where it stands, and why it was withheld.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use usher_queries::rows::time_to_text;
use usher_queries::statement::Prefer;

use crate::alert::level;
use crate::erasure::forget_in;

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    /// It is out, and nothing was heard of it.
    Sent,
    /// The person has opened it.
    Opened,
    /// The answer was yes.
    Accepted,
    /// The answer was no.
    Declined,
    /// Its time is over, and there was no answer.
    Expired,
    /// It was never sent.
    Withheld,
}

impl MessageState {
    /// All states.
    pub const ALL: [Self; 6] = [
        Self::Sent,
        Self::Opened,
        Self::Accepted,
        Self::Declined,
        Self::Expired,
        Self::Withheld,
    ];

    /// As it stands in payloads.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Opened => "opened",
            Self::Accepted => "accepted",
            Self::Declined => "declined",
            Self::Expired => "expired",
            Self::Withheld => "withheld",
        }
    }

    /// Whether an answer still counts.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Sent | Self::Opened)
    }
}

/// Why a message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Withheld {
    /// The person had as many that day as a day may have.
    Cap,
    /// It was night, or another of the hours in which nobody is written to.
    QuietHours,
    /// The site was closed, and the rule writes only while it is open.
    Closed,
    /// The person is among those who are sent nothing, to see whether messages help.
    Holdout,
    /// The person does not want to be known.
    OptedOut,
    /// The person has declined this kind so often that it is stopped for a while.
    DeclinedTwice,
    /// Another message was more important at that moment.
    LowerPriority,
    /// The person has one of the kind that may still be answered.
    StillOpen,
}

impl Withheld {
    /// As it stands in payloads.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cap => "cap",
            Self::QuietHours => "quiet_hours",
            Self::Closed => "closed",
            Self::Holdout => "holdout",
            Self::OptedOut => "opted_out",
            Self::DeclinedTwice => "declined_twice",
            Self::LowerPriority => "lower_priority",
            Self::StillOpen => "still_open",
        }
    }
}

/// What a person reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Texts {
    /// In English.
    pub en: String,
    /// In Chinese.
    pub zh: String,
}

impl Texts {
    /// What names somebody says no more than which rule it is of.
    fn forget_names(&mut self, is_named: &dyn Fn(&str) -> bool, rule: &str) -> bool {
        let mut has_changed = false;
        for text in [&mut self.en, &mut self.zh] {
            if is_named(text) {
                rule.clone_into(text);
                has_changed = true;
            }
        }
        has_changed
    }
}

/// A message as it is kept, under its person. Times are event times, microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) rule: Arc<str>,
    pub(super) kind: Arc<str>,
    pub(super) site: Arc<str>,
    pub(super) zone: Option<Arc<str>>,
    pub(super) text: Texts,
    pub(super) priority: i32,
    /// JSON, as it goes out: a checkpoint's form knows no values of any type.
    pub(super) values: String,
    pub(super) causes: Vec<String>,
    pub(super) state: MessageState,
    pub(super) withheld: Option<Withheld>,
    /// When it was found, and once it is decided when that was.
    pub(super) at_us: i64,
    pub(super) expires_us: i64,
    pub(super) opened_us: Option<i64>,
    pub(super) answered_us: Option<i64>,
    pub(super) rating: Option<i32>,
    /// Points for accepting it.
    pub(super) points: Option<u32>,
}

impl Message {
    /// Whether this is to go out in place of another that its rule found in the same moment. Of two that are as good it is the one
    /// of the zone that comes first, so that people who are told together are told of the same.
    pub(super) fn is_preferred_to(&self, other: &Self, prefer: &Prefer) -> bool {
        let good = |message: &Self| {
            let values: Value = serde_json::from_str(&message.values).unwrap_or_default();
            let value = values.get(&prefer.column.value).and_then(Value::as_f64);
            value.map(|value| if prefer.greatest { value } else { -value })
        };
        let by_good = good(self).partial_cmp(&good(other)).unwrap_or(Ordering::Equal);
        by_good.then_with(|| other.zone.cmp(&self.zone)) == Ordering::Greater
    }

    /// Keeps nothing that names somebody to whom it does not go; true where something did.
    pub(super) fn forget_names(&mut self, is_named: &dyn Fn(&str) -> bool) -> bool {
        let mut has_changed = self.text.forget_names(is_named, &self.rule);
        if is_named(&self.values) {
            let mut values: Value = serde_json::from_str(&self.values).unwrap_or_default();
            forget_in(&mut values, is_named);
            self.values = values.to_string();
            has_changed = true;
        }
        has_changed
    }

    pub(super) fn view(&self, person: &str) -> MessageView {
        MessageView {
            id: self.id.clone(),
            rule: self.rule.to_string(),
            kind: self.kind.to_string(),
            site: self.site.to_string(),
            zone: self.zone.as_deref().map(str::to_owned),
            person: person.to_owned(),
            state: self.state,
            text: self.text.clone(),
            priority: self.priority,
            values: serde_json::from_str(&self.values).unwrap_or_default(),
            causes: self.causes.clone(),
            at: time_to_text(self.at_us),
            expires_at: time_to_text(self.expires_us),
            opened_at: self.opened_us.map(time_to_text),
            answered_at: self.answered_us.map(time_to_text),
            rating: self.rating,
            points: self.points,
            withheld: self.withheld,
        }
    }
}

/// A message as it goes out and as the API shows it. Times are RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MessageView {
    /// What a reply names; the same however often the same events are gone through.
    pub id: String,
    /// The rule that found it.
    pub rule: String,
    /// What a person declines, and what is counted by day.
    pub kind: String,
    /// The site.
    pub site: String,
    /// The zone, where the rule tells one.
    pub zone: Option<String>,
    /// The pseudonym.
    pub person: String,
    /// Where it stands.
    pub state: MessageState,
    /// What the person reads.
    pub text: Texts,
    /// 0 to 100.
    pub priority: i32,
    /// What the rule measured.
    #[schema(value_type = Object)]
    pub values: Map<String, Value>,
    /// The events that made it so.
    pub causes: Vec<String>,
    /// When it was sent or withheld, event time.
    pub at: String,
    /// Until when an answer counts.
    pub expires_at: String,
    /// When it was opened.
    pub opened_at: Option<String>,
    /// When it was accepted or declined.
    pub answered_at: Option<String>,
    /// How much it was liked.
    pub rating: Option<i32>,
    /// Points for accepting it.
    pub points: Option<u32>,
    /// Why it was not sent.
    pub withheld: Option<Withheld>,
}

impl MessageView {
    /// Keeps nothing that names somebody to whom it does not go.
    pub(crate) fn forget_names(&mut self, is_named: &dyn Fn(&str) -> bool) {
        self.text.forget_names(is_named, &self.rule);
        for value in self.values.values_mut() {
            forget_in(value, is_named);
        }
    }

    /// Where it goes out.
    pub fn topic(&self) -> String {
        format!("usher/out/{}/message/{}", level(&self.site), level(&self.person))
    }
}
