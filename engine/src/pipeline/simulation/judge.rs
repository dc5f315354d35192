//! The judge compares what came of a seed with a run without faults over the same events.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use serde_json::Value;

use super::fresh;
use super::receivers::Taken;
use crate::alert::Alert;
use crate::alerts::Step;
use crate::event::{Event, dedup_key};
use crate::fixture::decoder;
use crate::messages::{MessageState, MessageStep};
use crate::outbox::step::StepNames;
use crate::perception::Perception;
use crate::record::Record;

/// A run without faults over the records of a log: no crash, no checkpoint, no queue, one event after the other.
pub(super) struct Faultless {
    pub(super) perception: Perception,
    /// The steps, in their order: id and alert.
    pub(super) steps: Vec<(String, Value)>,
    /// The messages that go out: id and message. None of them has to arrive: it may be over by then.
    pub(super) messages: HashMap<String, Value>,
    names: StepNames,
}

impl Faultless {
    pub(super) fn over(records: &[Record], now_us: i64) -> Self {
        let mut run = Self {
            perception: fresh(),
            steps: Vec::new(),
            messages: HashMap::new(),
            names: StepNames::default(),
        };
        for record in records {
            let steps = run.perception.apply(record);
            run.tell(&steps);
        }
        let steps = run.perception.tick(now_us);
        run.tell(&steps);
        run
    }

    fn tell(&mut self, steps: &[Step]) {
        for step in steps.iter().filter(|step| step.is_turn) {
            let id = self.names.name(&step.alert).to_string();
            self.steps.push((id, plain(&step.alert)));
        }
        for step in self.perception.take_messages() {
            if let MessageStep::Turned(message) = step
                && message.state == MessageState::Sent
            {
                let id = StepNames::name_message(&message).to_string();
                let value = serde_json::to_value(&*message).expect("a message is JSON");
                self.messages.insert(id, value);
            }
        }
    }
}

/// An alert without what our clock and our machine measured.
fn plain(alert: &Alert) -> Value {
    without_clocks(serde_json::to_value(alert).expect("an alert is JSON"))
}

fn without_clocks(mut alert: Value) -> Value {
    if let Some(members) = alert.as_object_mut() {
        for clock in ["trace", "raised_at", "step"] {
            members.remove(clock);
        }
    }
    alert
}

/// What is known, as lines.
pub(super) fn state(perception: &Perception) -> BTreeMap<&'static str, BTreeSet<String>> {
    let clock = perception.clock_us();
    let places = perception.places();
    let lines = |rows: Vec<String>| rows.into_iter().collect::<BTreeSet<String>>();
    let zones = perception.zones.all(clock, places);
    let seats = perception.seats.all(None, places);
    let people = perception.people.table(clock.unwrap_or(0));
    let mut alerts: Vec<String> = perception
        .alerts
        .open()
        .into_iter()
        .map(|alert| plain(alert).to_string())
        .collect();
    alerts.extend(perception.alerts.cleared().map(|alert| plain(alert).to_string()));
    let messages = perception.messages.newest(|_, _, _| true, usize::MAX);
    BTreeMap::from([
        ("zones", lines(zones.iter().map(|zone| format!("{zone:?}")).collect())),
        ("seats", lines(seats.iter().map(|seat| format!("{seat:?}")).collect())),
        ("people", lines(vec![format!("{people:?}")])),
        ("alerts", lines(alerts)),
        (
            "messages",
            lines(messages.iter().map(|message| format!("{message:?}")).collect()),
        ),
    ])
}

/// What is durable, read as it grows: a log only ever loses what was not.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) records: Vec<Record>,
    /// The keys of the events, as often as they are there.
    pub(super) keys: HashMap<u128, usize>,
    /// Topics of what could not be read.
    pub(super) refused: HashSet<String>,
    /// Who of the staff did something.
    pub(super) acted: HashSet<String>,
}

impl Kept {
    /// Reads the next records.
    pub(super) fn read(&mut self, bytes: &[Bytes]) {
        for bytes in bytes {
            let record = Record::from_bytes(bytes).expect("what was appended can be read");
            match &record {
                Record::Event(event) => *self.keys.entry(dedup_key(event)).or_insert(0) += 1,
                Record::Refused(refusal) => {
                    self.refused.insert(refusal.topic.to_string());
                }
                Record::Acted(action) | Record::ActedOnPerson { action, .. } => {
                    self.acted.insert(action.by.clone());
                }
                Record::Started { .. }
                | Record::Ticked { .. }
                | Record::QueryRestarted { .. }
                | Record::Shed { .. }
                | Record::Points(_)
                | Record::Identities { .. }
                | Record::Repaired { .. }
                | Record::Looked(_)
                | Record::Erased(_)
                | Record::ErasureDone(_)
                | Record::Removed
                | Record::Expired { .. } => {}
            }
            self.records.push(record);
        }
    }
}

/// The event of a message, if it can be read.
pub(super) fn event_of(topic: &str, payload: &str, received_us: i64) -> Option<Event> {
    decoder().decode(topic, payload.as_bytes(), received_us).events.pop()
}

/// What a receiver was told, against what a run without faults tells. Steps of `unsure` were told of records that a
/// crash took from the log: those may be there and may not, and may say what was measured then.
pub(super) fn hold_against(
    name: &str,
    taken: &[Taken],
    expected: &[(String, Value)],
    unsure: &HashSet<String>,
    wrong: &mut Vec<String>,
) {
    let wanted: HashMap<&str, (usize, &Value)> = expected
        .iter()
        .enumerate()
        .map(|(place, (id, alert))| (id.as_str(), (place, alert)))
        .collect();
    let mut had: HashMap<&str, Value> = HashMap::new();
    // The last place of a subject, in the order of the run without faults, of what came for the first time.
    let mut last: HashMap<String, usize> = HashMap::new();
    for taken in taken {
        let alert = without_clocks(taken.alert.clone());
        let is_unsure = unsure.contains(&taken.id);
        let is_first = match had.get(taken.id.as_str()) {
            Some(before) if *before != alert && !is_unsure => {
                wrong.push(format!(
                    "{name} was told {} again with other words: {before} and {alert}",
                    taken.id
                ));
                false
            }
            Some(_) => false,
            None => true,
        };
        had.insert(&taken.id, alert.clone());
        let Some((place, should)) = wanted.get(taken.id.as_str()) else {
            if !is_unsure {
                wrong.push(format!("{name} was told what no run without faults tells: {alert}"));
            }
            continue;
        };
        if **should != alert && !is_unsure && unsure.is_empty() {
            wrong.push(format!("{name} was told {alert}, and it should be {should}"));
        }
        if is_first && unsure.is_empty() {
            let subject = alert_of(&alert);
            if let Some(before) = last.insert(subject.clone(), *place)
                && before > *place
            {
                wrong.push(format!(
                    "{name} was told of {subject} in another order: {alert} (life {})",
                    taken.life
                ));
            }
        }
    }
    for (id, alert) in expected.iter().filter(|(id, _)| !had.contains_key(id.as_str())) {
        wrong.push(format!("{name} was never told {id}: {alert}"));
    }
}

/// What a receiver was sent of messages: only what a run without faults sends, in its words, whatever was lost. What people are
/// told is durable before.
pub(super) fn hold_messages_against(
    name: &str,
    taken: &[Taken],
    expected: &HashMap<String, Value>,
    wrong: &mut Vec<String>,
) {
    for taken in taken {
        match expected.get(&taken.id) {
            Some(should) if *should == taken.alert => {}
            Some(should) => wrong.push(format!("{name} was sent {}, and it should be {should}", taken.alert)),
            None => wrong.push(format!(
                "{name} was sent what no run without faults sends: {}",
                taken.alert
            )),
        }
    }
}

/// The rule and the subject of an alert. What different rules find in one batch has an order that depends on the batch.
fn alert_of(alert: &Value) -> String {
    let subject = &alert["subject"];
    format!(
        "{} {} {} {}",
        alert["rule"], alert["zone"], subject["kind"], subject["id"]
    )
}

/// The alerts that a broker should retain: topic and state.
pub(super) fn standing(perception: &Perception) -> BTreeMap<String, String> {
    let open = perception.alerts.open().into_iter();
    let standing = open.filter(|alert| alert.state.is_standing());
    standing
        .map(|alert| (alert.topic(), alert.state.as_str().to_owned()))
        .collect()
}

/// The alerts that it does retain.
pub(super) fn retained(topics: &BTreeMap<String, Bytes>) -> BTreeMap<String, String> {
    let alerts = topics.iter().filter(|(topic, _)| topic.contains("/alert/"));
    let state = |payload: &Bytes| {
        let alert: Value = serde_json::from_slice(payload).unwrap_or_default();
        alert["state"].as_str().unwrap_or("?").to_owned()
    };
    alerts.map(|(topic, payload)| (topic.clone(), state(payload))).collect()
}
