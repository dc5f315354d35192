//! A step is one thing told of an alert, under an id that is the same however often the same log is gone through.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::news::News;
use crate::alert::{Alert, State};
use crate::messages::MessageView;

/// Alerts that are over and of which is still known what was told. An alert that came back under the same id goes on
/// counting.
const OVER_MAX: usize = 1_000;
/// Bytes before the alert in a written step: id, when it was told, subject.
const HEAD_BYTES: usize = 32;

/// The id of a step. Receivers know by it what they have had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(u128);

impl fmt::Display for StepId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "s-{:032x}", self.0)
    }
}

impl std::str::FromStr for StepId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("s-").filter(|digits| digits.len() == 32);
        digits
            .and_then(|digits| u128::from_str_radix(digits, 16).ok())
            .map(Self)
            .ok_or_else(|| format!("'{text}' is no id of a step"))
    }
}

impl Serialize for StepId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StepId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a step is about, as a number: its steps reach a receiver in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SubjectKey(pub(super) u64);

impl SubjectKey {
    /// Of what was about somebody who was erased.
    pub(crate) const NOBODY: Self = Self(0);

    /// What an alert is about.
    pub(crate) fn of(alert: &Alert) -> Self {
        // Seats and devices have their names within a zone; the others within a site.
        let zone = match alert.subject.kind.as_str() {
            "seat" | "device" => alert.zone.as_deref().unwrap_or(""),
            _ => "",
        };
        Self(short_hash(&[&alert.site, zone, &alert.subject.kind, &alert.subject.id]))
    }

    /// Whom a message goes to.
    pub(crate) fn of_person(site: &str, person: &str) -> Self {
        Self(short_hash(&[site, "", "person", person]))
    }
}

/// A step that was told.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Its place in the sequence of all steps.
    pub(crate) number: u64,
    /// Its id.
    pub(crate) id: StepId,
    /// What it is about.
    pub(crate) subject: SubjectKey,
    /// When it was told, by our clock, microseconds since 1970.
    pub(super) told_us: i64,
    /// The alert as it was then, or the message.
    pub(crate) news: News,
    /// When the message that caused it came in, where this process received it.
    pub(super) received: Option<Instant>,
}

/// The alert or the message with the id of the step, as it goes out.
#[derive(Serialize)]
struct Out<'a, N> {
    #[serde(flatten)]
    news: &'a N,
    step_id: String,
}

impl Told {
    /// A step that tells this.
    pub(crate) fn new(number: u64, id: StepId, news: News, told_us: i64, received: Option<Instant>) -> Self {
        Self {
            number,
            id,
            subject: news.subject(),
            told_us,
            news,
            received,
        }
    }

    /// A step in the place of this one that does not name somebody: of what is about others it tells the rest, else nothing.
    pub(super) fn erased(&self, is_named: &dyn Fn(&str) -> bool) -> Self {
        let news = match &self.news {
            News::Alert(alert) if !is_named(&alert.subject.id) => {
                let mut left = (**alert).clone();
                left.forget_names(is_named);
                News::from(&Arc::new(left))
            }
            News::Message(message) if !is_named(&message.person) => {
                let mut left = (**message).clone();
                left.forget_names(is_named);
                News::from(&Arc::new(left))
            }
            News::Alert(_) | News::Message(_) | News::Erased(_) => News::ERASED,
        };
        let left = Self { news, ..self.clone() };
        if left.names(is_named) || left.news.is_erased() {
            return Self::new(self.number, self.id, News::ERASED, self.told_us, None);
        }
        left
    }

    /// Whether it tells anything that `is_named` finds.
    pub(super) fn names(&self, is_named: &dyn Fn(&str) -> bool) -> bool {
        !self.news.is_erased() && serde_json::to_string(&self.news).is_ok_and(|json| is_named(&json))
    }

    /// The step as it is kept on disk; the number is the key it is kept under.
    pub(super) fn to_bytes(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + 1_024);
        bytes.extend_from_slice(&self.id.0.to_be_bytes());
        bytes.extend_from_slice(&self.told_us.to_be_bytes());
        bytes.extend_from_slice(&self.subject.0.to_be_bytes());
        serde_json::to_writer(&mut bytes, &self.news).expect("news are always JSON");
        bytes.into()
    }

    /// Reads what [`Told::to_bytes`] wrote.
    ///
    /// # Errors
    /// In words, when it is something else.
    pub(super) fn from_bytes(number: u64, bytes: &[u8]) -> Result<Self, String> {
        let short = || format!("step {number} has {} bytes and is cut off", bytes.len());
        let (head, json) = bytes.split_at_checked(HEAD_BYTES).ok_or_else(short)?;
        let part = |at: usize| head[at..at + 8].try_into().map(i64::from_be_bytes).map_err(|_| short());
        let news: News = serde_json::from_slice(json).map_err(|error| format!("step {number}: {error}"))?;
        Ok(Self {
            number,
            id: Self::id_in(bytes).ok_or_else(short)?,
            told_us: part(16)?,
            subject: SubjectKey(part(24)?.cast_unsigned()),
            news,
            received: None,
        })
    }

    /// The id alone, without reading the rest.
    pub(super) fn id_in(bytes: &[u8]) -> Option<StepId> {
        let id = bytes.get(..16)?.try_into().ok()?;
        Some(StepId(u128::from_be_bytes(id)))
    }

    /// The step as JSON, with the time until now as the last stage.
    pub(crate) fn to_json(&self) -> Bytes {
        let step_id = self.id.to_string();
        let written = match (&self.news, self.received) {
            (News::Alert(alert), Some(received)) => {
                let mut sent = (**alert).clone();
                sent.trace.sent_us = u64::try_from(received.elapsed().as_micros()).unwrap_or(u64::MAX);
                serde_json::to_vec(&Out { news: &sent, step_id })
            }
            (News::Alert(alert), None) => serde_json::to_vec(&Out {
                news: &**alert,
                step_id,
            }),
            (News::Message(message), _) => serde_json::to_vec(&Out {
                news: &**message,
                step_id,
            }),
            (News::Erased(erased), _) => serde_json::to_vec(&Out { news: erased, step_id }),
        };
        written.expect("news are always JSON").into()
    }
}

/// Gives steps their ids: a hash of the alert, of what is told of it, and of how often the same was told before. Not of
/// all that was told before: what a clock did and the log does not know may be missing when the log is gone through.
///
/// A step that was told may be missing from a log that lost its end, and another come in its place. So all that tells
/// two steps apart is in the id.
#[derive(Debug, Default)]
pub(crate) struct StepNames {
    /// By alert: what was told, and how often.
    told: FxHashMap<u64, Vec<(u64, u32)>>,
    /// Alerts that are over, the oldest first.
    over: VecDeque<u64>,
}

/// What a checkpoint keeps of the names.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct KeptNames {
    told: Vec<(u64, Vec<(u64, u32)>)>,
    over: VecDeque<u64>,
}

impl StepNames {
    /// The id of the next step of this alert.
    pub(crate) fn name(&mut self, alert: &Alert) -> StepId {
        let key = short_hash(&[&alert.id]);
        let content = content(alert);
        let told = self.told.entry(key).or_default();
        let times = match told.iter_mut().find(|(known, _)| *known == content) {
            Some((_, times)) => {
                *times += 1;
                *times
            }
            None => {
                told.push((content, 1));
                1
            }
        };
        if alert.state == State::Cleared && times == 1 && !self.over.contains(&key) {
            self.over.push_back(key);
            if self.over.len() > OVER_MAX
                && let Some(oldest) = self.over.pop_front()
            {
                self.told.remove(&oldest);
            }
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(alert.id.as_bytes());
        hasher.update(&content.to_le_bytes());
        hasher.update(&times.to_le_bytes());
        hasher.update(&details(alert).to_le_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        StepId(u128::from_be_bytes(id))
    }

    /// The id of the step by which a message goes out: it goes out once.
    pub(crate) fn name_message(message: &MessageView) -> StepId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"message sent");
        hasher.update(message.id.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        StepId(u128::from_be_bytes(id))
    }

    pub(super) fn kept(&self) -> KeptNames {
        KeptNames {
            told: self.told.iter().map(|(key, told)| (*key, told.clone())).collect(),
            over: self.over.clone(),
        }
    }

    pub(super) fn restore(&mut self, kept: KeptNames) {
        self.told = kept.told.into_iter().collect();
        self.over = kept.over;
    }
}

/// What a step says, as a number: all that staff or the rule changed, and nothing that is only measured. Of these there
/// are a few for each alert, which are counted.
fn content(alert: &Alert) -> u64 {
    let flags = [alert.snoozed, alert.suppressed].map(u8::from);
    let step = alert.step.as_ref();
    short_hash(&[
        &step
            .map(|step| format!("{:?} {:?}", step.what, step.why))
            .unwrap_or_default(),
        alert.state.as_str(),
        &alert.severity,
        alert.acknowledged_by.as_deref().unwrap_or("\u{1f}"),
        &format!("{flags:?} {}", alert.comments.len()),
    ])
}

/// What a step says in words of its own, as a number: who, the note, and of a group its members. Neither when nor the
/// number of the step, which may differ when the log is gone through again.
fn details(alert: &Alert) -> u64 {
    let step = alert.step.as_ref();
    let is_group = alert.values.get("finding").is_some_and(|finding| finding == "group");
    let members = is_group.then(|| serde_json::to_string(&alert.values).expect("values are always JSON"));
    short_hash(&[
        step.map_or("", |step| &step.by),
        step.and_then(|step| step.note.as_deref()).unwrap_or("\u{1f}"),
        &members.unwrap_or_default(),
    ])
}

/// The same on every machine and in every release, since it is written down.
fn short_hash(parts: &[&str]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut short = [0; 8];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_be_bytes(short)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::alert::{Subject, Trace, Turn, What, Why};

    /// An alert about a zone.
    pub(crate) fn alert(id: &str, zone: &str, state: State) -> Arc<Alert> {
        Arc::new(Alert {
            id: id.to_owned(),
            rule: "crowded".into(),
            site: "main".to_owned(),
            zone: Some(zone.to_owned()),
            subject: Subject {
                kind: "zone".to_owned(),
                id: zone.to_owned(),
            },
            severity: "warning".to_owned(),
            state,
            snoozed: false,
            snoozed_until: None,
            suppressed: false,
            suppressed_by: Vec::new(),
            group: None,
            text: "it is full".to_owned(),
            values: serde_json::Map::new(),
            window: None,
            event_time: "2026-03-02T01:00:00Z".to_owned(),
            raised_at: None,
            cleared_at: None,
            acknowledged_by: None,
            assignee: None,
            comments: Vec::new(),
            causes: vec!["e1".to_owned()],
            step: None,
            trace: Trace::default(),
        })
    }

    #[test]
    fn a_step_has_the_same_id_whenever_the_same_is_told_again_from_the_beginning() {
        let life = [
            State::Pending,
            State::Active,
            State::Recovering,
            State::Active,
            State::Cleared,
        ];
        let tell = |names: &mut StepNames, states: &[State]| -> Vec<StepId> {
            states
                .iter()
                .map(|state| names.name(&alert("a", "hall", *state)))
                .collect()
        };
        let first = tell(&mut StepNames::default(), &life);
        assert_eq!(first, tell(&mut StepNames::default(), &life));
        for (at, id) in first.iter().enumerate() {
            assert!(
                !first[..at].contains(id),
                "each step has an id of its own, the second 'active' as well"
            );
        }
        assert_ne!(first[0], StepNames::default().name(&alert("b", "hall", State::Pending)));
        // Half of it in another process, which took up what was kept.
        let mut names = StepNames::default();
        let mut again = tell(&mut names, &life[..3]);
        let kept = serde_json::to_vec(&names.kept()).expect("it is JSON");
        let mut names = StepNames::default();
        names.restore(serde_json::from_slice(&kept).expect("it is JSON"));
        again.extend(tell(&mut names, &life[3..]));
        assert_eq!(first, again);
    }

    #[test]
    fn what_a_clock_did_and_the_log_does_not_know_changes_no_other_id() {
        let snoozed = |is_snoozed| {
            let mut alert = (*alert("a", "hall", State::Active)).clone();
            alert.snoozed = is_snoozed;
            alert
        };
        let cleared = alert("a", "hall", State::Cleared);
        let mut names = StepNames::default();
        names.name(&snoozed(true));
        names.name(&snoozed(false));
        let with = names.name(&cleared);
        let mut names = StepNames::default();
        names.name(&snoozed(true));
        assert_eq!(names.name(&cleared), with);
    }

    #[test]
    fn a_step_that_came_in_the_place_of_one_that_was_lost_has_another_id() {
        let of = |what: What, by: &str, note: Option<&str>, count: u32, number: u32| {
            let mut alert = (*alert("a", "hall", State::Active)).clone();
            alert.values.insert("finding".to_owned(), "group".into());
            alert.values.insert("count".to_owned(), count.into());
            alert.step = Some(Turn {
                number,
                at: format!("2026-03-02T01:00:{number:02}Z"),
                what,
                state: alert.state,
                by: by.to_owned(),
                why: Why::Staff,
                note: note.map(str::to_owned),
            });
            StepNames::default().name(&alert)
        };
        let told = of(What::Assigned, "Li", Some("Wu"), 2, 3);
        assert_eq!(
            of(What::Assigned, "Li", Some("Wu"), 2, 4),
            told,
            "its number is not in it"
        );
        for other in [
            of(What::Commented, "Li", Some("Wu"), 2, 3),
            of(What::Assigned, "Ma", Some("Wu"), 2, 3),
            of(What::Assigned, "Li", Some("Ma"), 2, 3),
            of(What::Assigned, "Li", None, 2, 3),
            of(What::Assigned, "Li", Some("Wu"), 3, 3),
        ] {
            assert_ne!(other, told);
        }
    }

    #[test]
    fn alerts_that_are_over_are_forgotten_in_the_end() {
        let mut names = StepNames::default();
        for number in 0..OVER_MAX + 10 {
            names.name(&alert(&format!("a{number}"), "hall", State::Active));
            names.name(&alert(&format!("a{number}"), "hall", State::Cleared));
        }
        assert_eq!(names.told.len(), OVER_MAX);
    }

    #[test]
    fn a_step_is_read_as_it_was_written() {
        let mut names = StepNames::default();
        let alert = alert("a", "hall", State::Active);
        let told = Told::new(9, names.name(&alert), News::from(&alert), 123, Some(Instant::now()));
        let bytes = told.to_bytes();
        let read = Told::from_bytes(9, &bytes).expect("it was written so");
        assert_eq!(
            (read.number, read.id, read.subject),
            (told.number, told.id, told.subject)
        );
        assert_eq!((read.told_us, &read.news), (told.told_us, &told.news));
        assert_eq!(Told::id_in(&bytes), Some(told.id));
        assert!(Told::from_bytes(9, &bytes[..20]).is_err());
        let json: serde_json::Value = serde_json::from_slice(&read.to_json()).expect("it is JSON");
        assert_eq!(json["step_id"], told.id.to_string());
        assert_eq!(json["state"], "active");
    }
}
