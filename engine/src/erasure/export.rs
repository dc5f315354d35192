//! An export is everything that is kept of a person, as one JSON document.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use usher_connectors::log::{Log, LogError, Offset};
use usher_queries::rows::{row_to_json, time_to_text};

use super::anonymous::is_theirs;
use super::scan::{each_record, look};
use super::who::Who;
use crate::alert::Alert;
use crate::columns::{Observed, flow_of};
use crate::consent::ConsentView;
use crate::event::{Event, Gate, Reading};
use crate::lookups::LookView;
use crate::messages::MessageView;
use crate::people::PersonView;
use crate::perception::Perception;
use crate::points::PointsView;
use crate::pseudonym::Pseudonym;
use crate::record::Record;

/// What the engine knows of a person now. Behind it the document has under `log` what the log has.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Export {
    /// The pseudonym by which the person is called.
    pub person: String,
    /// The other names of the same person.
    pub links: Vec<String>,
    /// The groups that the person is in, as `groups.csv` says.
    pub groups: Vec<String>,
    /// When this was so, RFC 3339, by our clock.
    pub exported_at: String,
    /// Whether the person is not to be told apart; then there are no figures.
    pub opted_out: bool,
    /// What the person agrees to, and since when; nothing where nothing was decided.
    pub consent: Option<ConsentView>,
    /// Figures and the visit that is going on.
    pub engagement: Option<PersonView>,
    /// The ledger.
    pub points: Option<PointsView>,
    /// What was sent and withheld, and what the person answered.
    pub messages: Vec<MessageView>,
    /// Alerts that stand or are over and are about the person, or name the person.
    pub alerts: Vec<Alert>,
    /// Queries that keep something of the person at the moment.
    pub queries: Vec<String>,
    /// Rows of measures that name the person.
    #[schema(value_type = Vec<Object>)]
    pub measures: Vec<Value>,
    /// Who looked the person up, the newest first.
    pub lookups: Vec<LookView>,
}

impl Export {
    /// Of the person that has this name, at `now_us` by our clock.
    pub fn of(perception: &mut Perception, name: &str, now_us: i64) -> Self {
        let names = perception.identity.names_of(name);
        let person: &str = &names[0];
        let who = Who::known(&names);
        let clock_us = perception.clock_us().unwrap_or(0);
        let is_named = |alert: &Alert| serde_json::to_string(alert).is_ok_and(|json| who.is_in(&json));
        let decided = perception.consents.decided();
        let open = perception.alerts.open().into_iter();
        let cleared = perception.alerts.cleared().map(AsRef::as_ref);
        let alerts = open.chain(cleared).filter(|alert| is_named(alert)).cloned().collect();
        Self {
            person: person.to_owned(),
            links: names[1..].iter().map(ToString::to_string).collect(),
            groups: perception.groups.of(&names),
            exported_at: time_to_text(now_us),
            opted_out: !decided.recognises(person),
            consent: decided.decisions(person).map(|_| decided.view(person)),
            engagement: perception.people.get(person, clock_us),
            points: perception.points.get(person),
            messages: perception.messages.of(person),
            alerts,
            queries: perception.queries.keeping(&|text| who.is_in(text)),
            measures: perception.measures.naming(&|row| who.is_in(row)),
            lookups: perception.lookups.of_all(&names),
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.consent.is_none()
            && self.links.is_empty()
            && self.groups.is_empty()
            && self.engagement.is_none()
            && self.points.is_none()
            && self.messages.is_empty()
            && self.alerts.is_empty()
            && self.queries.is_empty()
            && self.measures.is_empty()
            && self.lookups.is_empty()
    }
}

/// Hands what the log has of a person, by all names, before `until` to `each`, the oldest first, each as a JSON object. Blocks on the disk.
///
/// # Errors
/// When the log can't be read.
pub fn exported(
    log: &dyn Log,
    names: &[Arc<str>],
    until: Offset,
    mut each: impl FnMut(Value) -> ControlFlow<()>,
) -> Result<(), LogError> {
    let (sessions, _) = look(log, until, &Who::known(names), None)?;
    let mut names = names.to_vec();
    names.extend(sessions);
    let who = Who::known(&names);
    each_record(log, until, |offset, record| match written(&record, &who) {
        Some(mut written) => {
            written["offset"] = offset.0.into();
            each(written)
        }
        None => ControlFlow::Continue(()),
    })
}

/// What a record says of a person; `None` where it says nothing.
fn written(record: &Record, who: &Who) -> Option<Value> {
    Some(match record {
        Record::Event(event) if is_theirs(event, who) => {
            let stream = event.source.kind.as_str();
            json!({ "record": "event", "stream": stream, "event": columns_of(&of_theirs(event, who)) })
        }
        Record::Refused(refusal)
            if who.is_in(&refusal.sample) || who.is_in(&refusal.topic) || who.is_in(&refusal.reason) =>
        {
            json!({ "record": "refused", "refused": refusal })
        }
        Record::Points(deed) if who.is(&deed.person) => json!({ "record": "points", "deed": deed }),
        Record::Identities { at_us, change } => {
            let is_theirs = |(person, also): &&(Arc<str>, Arc<str>)| who.is(person) && who.is(also);
            let [links, unlinks] = [&change.link, &change.unlink].map(|said| -> Vec<_> {
                let theirs = said.iter().filter(is_theirs);
                theirs
                    .map(|(person, also)| json!({ "person": person, "also": also }))
                    .collect()
            });
            if links.is_empty() && unlinks.is_empty() {
                return None;
            }
            json!({ "record": "identities", "at": time_to_text(*at_us), "link": links, "unlink": unlinks })
        }
        // Not who else was shown beside them.
        Record::Looked(look) if look.persons.iter().any(|person| who.is(person)) => json!({
            "record": "looked",
            "by": look.by,
            "at": time_to_text(look.at_us),
            "what": look.what,
            "reason": look.reason,
            "persons": look.persons.len(),
        }),
        Record::ActedOnPerson { person, action } if who.is(person) => json!({ "record": "alert", "action": action }),
        _ => return None,
    })
}

/// What an event says of a person; of links, which name others too, those names that are the person's.
fn of_theirs<'e>(event: &'e Event, who: &Who) -> Cow<'e, Event> {
    let mut event = Cow::Borrowed(event);
    if matches!(event.reading, Reading::Identify { .. })
        && let Reading::Identify { person, also, .. } = &mut event.to_mut().reading
    {
        also.retain(|name| who.is(name.as_str()));
        if !who.is(person.as_str()) {
            *person = Pseudonym::nobody();
        }
    }
    event
}

/// An event as queries see it.
fn columns_of(event: &Event) -> Value {
    let passed = match &event.reading {
        Reading::Gate(Gate::Passed { entered, exited }) => (i64::from(*entered), i64::from(*exited)),
        _ => (0, 0),
    };
    let observed = Observed {
        event,
        watermark: i64::MIN,
        passed,
        inside: 0,
    };
    flow_of(event.source.kind, &[observed]).map_or(Value::Null, |flow| Value::Object(row_to_json(&flow.batch, 0)))
}
