//! An alert is a rule's finding about one subject, with a life; this is what the world sees of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::erasure::forget_in;

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
    /// The raising condition no longer holds, the clearing one not yet or not yet for as long as the rule wants.
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
    /// `zone`, `seat`, `person`, `item`, `device` or `site`.
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

impl Trace {
    /// With so long between evaluation and the alert, while rows waited.
    pub fn waited(self, waited_us: i64) -> Self {
        let waited_us = u64::try_from(waited_us).unwrap_or(0);
        Self {
            evaluated_us: self.evaluated_us.saturating_add(waited_us),
            ..self
        }
    }
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

/// What happened in a step of an alert's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// The condition began to hold.
    Pending,
    /// It held for long enough.
    Raised,
    /// It holds again before the alert was over.
    Relapsed,
    /// It no longer holds.
    Recovering,
    /// The alert is over.
    Cleared,
    /// The condition did not hold for long enough.
    Withdrawn,
    /// Somebody looks.
    Acknowledged,
    /// Somebody is to look, or nobody any more.
    Assigned,
    /// Somebody noted something.
    Commented,
    /// Staff does not want to hear of it for a while.
    Snoozed,
    /// The while is over.
    Unsnoozed,
    /// Something holds it back from now on.
    Suppressed,
    /// Nothing holds it back any more.
    Unsuppressed,
    /// It has become graver.
    Escalated,
    /// Alerts joined or left a group.
    Regrouped,
}

/// Why it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The rule's conditions say so.
    Rule,
    /// So much time has passed.
    Clock,
    /// Staff wants it so.
    Staff,
    /// Another alert says as much.
    Inhibition,
    /// The rule's quiet hours.
    Quiet,
    /// The site's opening calendar.
    Calendar,
    /// No measurements come.
    NoData,
    /// What became of the alerts of a group.
    Group,
    /// The rule was taken away.
    Configuration,
    /// The person whom it is about does not want to be known.
    OptedOut,
    /// The name that it is about is another person's now.
    Identified,
    /// The person whom it is about was erased.
    Erased,
}

/// A step of an alert's life: when, who and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Turn {
    /// From 1, without a gap, the same however often the same events are processed.
    pub number: u32,
    /// When, RFC 3339: by the clocks of the devices, or by ours where staff did it.
    pub at: String,
    /// What happened.
    pub what: What,
    /// The state behind it.
    pub state: State,
    /// Who: staff as they called themselves, or `usher`.
    pub by: String,
    /// Why.
    pub why: Why,
    /// What belongs to it: the rule that holds back, whom it was assigned to, the words of a comment.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
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
    /// Whether staff does not want to hear of it for a while; stands beside the state.
    pub snoozed: bool,
    /// Until when, by our clock.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub snoozed_until: Option<String>,
    /// Held back by something that [`Alert::suppressed_by`] names; stands beside the state.
    pub suppressed: bool,
    /// What holds it back: names of rules, `quiet`, `open`, `closed` or `no_data`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub suppressed_by: Vec<String>,
    /// The subject of the notice that speaks for it as well, where its rule has groups.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<String>,
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
    /// Who is to look after it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub assignee: Option<String>,
    /// What staff noted.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub comments: Vec<Comment>,
    /// The ids of the events that made it so.
    pub causes: Vec<String>,
    /// The latest step of its life.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub step: Option<Turn>,
    /// How long it took.
    pub trace: Trace,
}

/// An alert with the steps of its life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AlertHistory {
    /// The alert as it is.
    #[serde(flatten)]
    pub alert: Alert,
    /// Its steps, the earliest first.
    pub history: Vec<Turn>,
    /// Steps between the first and the second of them that are no longer kept.
    #[serde(skip_serializing_if = "is_none", default)]
    pub history_left_out: u32,
}

fn is_none(count: &u32) -> bool {
    *count == 0
}

impl Alert {
    /// Keeps nothing of what was measured and said of the subject.
    pub fn forget_measurements(&mut self) {
        self.text = self.rule.to_string();
        self.values.clear();
        self.causes.clear();
        self.comments.clear();
        if let Some(step) = &mut self.step {
            step.note = None;
        }
    }

    /// Keeps nothing that names somebody whom it is not about; true where something did.
    pub fn forget_names(&mut self, is_named: &dyn Fn(&str) -> bool) -> bool {
        let mut has_changed = false;
        for value in self.values.values_mut() {
            has_changed |= forget_in(value, is_named);
        }
        if is_named(&self.text) {
            self.text = self.rule.to_string();
            has_changed = true;
        }
        let before = self.comments.len();
        self.comments.retain(|comment| !is_named(&comment.text));
        has_changed |= self.comments.len() < before;
        let note = self.step.as_mut().map(|step| &mut step.note);
        for text in [Some(&mut self.group), note].into_iter().flatten() {
            if text.as_deref().is_some_and(is_named) {
                *text = None;
                has_changed = true;
            }
        }
        has_changed
    }

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

/// A filter of the topics under which alerts of a site are retained.
pub(crate) fn alerts_of(site: &str) -> String {
    format!("usher/out/{}/alert/+/+", level(site))
}

/// A name as one level of a topic: what would split it, be a wildcard, or have a broker close the connection becomes
/// `_`. MQTT leaves it to brokers what they do about control characters and non-characters, and many close.
pub fn level(name: &str) -> String {
    if name.is_empty() {
        return "_".to_owned();
    }
    let is_bad = |letter: char| {
        matches!(letter, '/' | '+' | '#')
            || letter.is_control()
            || u32::from(letter) & 0xfffe == 0xfffe
            || ('\u{fdd0}'..='\u{fdef}').contains(&letter)
    };
    name.replace(is_bad, "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_level_that_every_broker_takes() {
        for (name, expected) in [
            ("", "_"),
            ("gate-1", "gate-1"),
            ("收银台 1", "收银台 1"),
            ("a/b+c#", "a_b_c_"),
            ("\0\u{1}\u{85}", "___"),
            ("\u{fffe}\u{ffff}\u{1ffff}\u{fdd0}", "____"),
            ("\u{fffd}\u{fdf0}", "\u{fffd}\u{fdf0}"),
        ] {
            assert_eq!(level(name), expected, "{name:?}");
        }
    }
}
