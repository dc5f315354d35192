//! Messages tell people what was found for them, hear what they answer, and leave them in peace where they want it.
//!
//! A rule with `message` finds rows about persons. What is found of one person in the same moment competes, and one message
//! of it goes out at most: not more than a day may have, not at night, not what was declined, and to nobody who opted out or
//! was drawn to be sent nothing. All of it is a function of rows, watermarks and events in the order of the log, so that a
//! replay finds the same messages under the same ids.

mod erasing;
mod finding;
mod kept;
mod message;
mod names;
mod recipient;
mod said;
#[cfg(test)]
pub(crate) mod tests;
mod uplift;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use rustc_hash::{FxBuildHasher, FxHashMap};
use usher_queries::purpose::Purpose;
use usher_queries::query::{Output, Query};
use usher_queries::row::Row;
use usher_queries::statement::StatementKind;

use self::finding::candidate;
pub use self::message::{MessageState, MessageView, Texts, Withheld};
use self::recipient::{Deciding, Happened, Recipient, Terms};
use self::said::Said;
use self::uplift::Trial;
pub use self::uplift::{SIDE_MIN, Side, SideView, Sides, UpliftView};
use crate::alerts::Moment;
use crate::changes::Changes;
use crate::columns::pseudonym;
use crate::consent::{Change, Decided};
use crate::event::{Event, Reading, Response};
use crate::identity::{Aliases, Owners};
use crate::people::OfMessage;
use crate::points::Grant;
use crate::rule::Rule;
use crate::settings::MessageSettings;

/// People of whom something is remembered at a time. Beyond it nobody new is written to, which is said.
const RECIPIENTS_MAX: usize = 1_000_000;
/// Messages that are listed over all people, the newest.
const LISTED_MAX: usize = 10_000;

/// What a person answers.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) message: Arc<str>,
    pub(crate) response: Response,
    pub(crate) rating: Option<i32>,
    /// Event time, microseconds.
    pub(crate) at_us: i64,
}

/// What a person does.
#[derive(Debug)]
enum Act {
    Answered(Answer),
    Seen {
        at_us: i64,
    },
    /// The person has decided what may be done.
    Decided {
        change: Change,
        refuses_research: bool,
        at_us: i64,
    },
}

/// An act in its place among the rows: the watermark that its event met, and which event it was.
#[derive(Debug)]
pub(crate) struct Placed {
    met_us: i64,
    index: usize,
    person: Arc<str>,
    act: Act,
}

impl Placed {
    /// What a person decided, at an event time and in its place.
    pub(crate) fn decided(
        person: Arc<str>,
        change: Change,
        refuses_research: bool,
        (at_us, met_us, index): (i64, i64, usize),
    ) -> Self {
        let act = Act::Decided {
            change,
            refuses_research,
            at_us,
        };
        Self {
            met_us,
            index,
            person,
            act,
        }
    }
}

/// Something to be told.
#[derive(Debug, Clone, PartialEq)]
pub enum MessageStep {
    /// A message is in another state now.
    Turned(Arc<MessageView>),
    /// A person refuses to be written to: nobody may be sent anything of it any more.
    Withdrawn {
        /// The pseudonym.
        person: Arc<str>,
        /// The messages that were open.
        open: Vec<String>,
    },
    /// A rule found something about somebody who refuses to be written to; nothing of it is kept.
    Refused {
        /// The rule.
        rule: Arc<str>,
    },
}

/// What became of a message, for the figures of its person.
#[derive(Debug)]
pub(crate) struct Noted {
    pub(crate) person: Arc<str>,
    /// The name under which it was found.
    pub(crate) name: Arc<str>,
    pub(crate) what: OfMessage,
}

/// A message's place in the list of all: when it was decided, whose it is, its id.
type Listed = (i64, Arc<str>, String);

/// What one row or act comes to be taken at: the watermark, the event's place, rows before acts, and which.
type Place = (i64, usize, u8, usize, usize);

/// The messages of everybody.
#[derive(Debug)]
pub struct Messages {
    terms: Terms,
    delay_us: i64,
    holdout: Holdout,
    rules: FxHashMap<Arc<str>, Arc<Rule>>,
    recipients: IndexMap<Arc<str>, Recipient, FxBuildHasher>,
    /// When something is due next, and whose it is: of each recipient [`Recipient::due_us`], where there is one.
    due: BTreeSet<(i64, Arc<str>)>,
    listed: BTreeSet<Listed>,
    changes: Changes<Arc<str>, Recipient>,
    sides: BTreeMap<String, Sides>,
    sides_changes: Changes<String, Sides>,
    acts: Vec<Placed>,
    unsaid: Vec<MessageStep>,
    /// What became of messages, to be told to queries.
    said: Vec<Said>,
    grants: Vec<Grant>,
    /// What became of messages, for the figures of their persons.
    noted: Vec<Noted>,
    /// The watermark up to which all was decided.
    decided_us: i64,
    has_changed: bool,
    overflow_told: bool,
    /// Which names are whose.
    aliases: Aliases,
    /// Under which name of a person a message was found or sent.
    owners: Owners,
}

/// Who is sent nothing: a share of all people, drawn by a keyed hash of the pseudonym.
#[derive(Debug, Clone)]
struct Holdout {
    key: [u8; 32],
    share: f64,
}

impl Holdout {
    fn has(&self, person: &str) -> bool {
        let hash = blake3::keyed_hash(&self.key, person.as_bytes());
        let mut short = [0; 8];
        short.copy_from_slice(&hash.as_bytes()[..8]);
        // 53 bits fill a float exactly.
        let drawn = (u64::from_be_bytes(short) >> 11) as f64 / (1_u64 << 53) as f64;
        drawn < self.share
    }
}

impl Messages {
    /// Nobody was written to yet. The watermark follows events `delay_us` behind.
    pub fn new(settings: &MessageSettings, delay_us: i64) -> Self {
        let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self {
            terms: Terms {
                moment_us: micros(settings.moment),
                per_day: settings.per_day as usize,
                quiet: settings.quiet.clone(),
                declines: settings.declines,
                stop_us: micros(settings.stop),
                back_after_us: micros(settings.back_after),
                back_within_us: micros(settings.back_within),
                keep_us: micros(settings.keep),
            },
            delay_us,
            holdout: Holdout {
                key: blake3::derive_key("usher 2026 holdout", settings.holdout_key.as_bytes()),
                share: settings.holdout,
            },
            rules: FxHashMap::default(),
            recipients: IndexMap::default(),
            due: BTreeSet::new(),
            listed: BTreeSet::new(),
            changes: Changes::default(),
            sides: BTreeMap::new(),
            sides_changes: Changes::default(),
            acts: Vec::new(),
            unsaid: Vec::new(),
            said: Vec::new(),
            grants: Vec::new(),
            noted: Vec::new(),
            decided_us: i64::MIN,
            has_changed: false,
            overflow_told: false,
            aliases: Aliases::default(),
            owners: Owners::default(),
        }
    }

    /// Learns the rules among the running queries that write to people.
    pub fn set_rules(&mut self, queries: &[Query]) {
        self.rules.clear();
        for query in queries {
            if let StatementKind::Alert(options) = &query.statement().kind
                && options.message.is_some()
            {
                let rule = Rule::new(Arc::clone(query.name()), (**options).clone(), query.schema());
                self.rules.insert(Arc::clone(&rule.name), Arc::new(rule));
            }
        }
    }

    /// Whether a person is among those who are sent nothing.
    pub fn is_held_out(&self, person: &str) -> bool {
        self.holdout.has(person)
    }

    /// Notes what an event says a person did; `met_us` is the watermark it met, `index` its place among those at hand. It
    /// counts with the next [`Messages::step`].
    pub fn hear(&mut self, event: &Event, met_us: i64, index: usize) {
        let act = match &event.reading {
            // That is a decision.
            Reading::Reply {
                response: Response::OptedIn | Response::OptedOut,
                ..
            } => return,
            Reading::Reply {
                message,
                response,
                rating,
                ..
            } => Act::Answered(Answer {
                message: Arc::clone(message),
                response: *response,
                rating: *rating,
                at_us: event.time_us,
            }),
            _ if self.rules.is_empty() && self.recipients.is_empty() => return,
            _ => Act::Seen { at_us: event.time_us },
        };
        if let Some(person) = pseudonym(&event.reading) {
            self.acts.push(Placed {
                met_us,
                index,
                person: Arc::clone(person),
                act,
            });
        }
    }

    /// Notes in its place what a person decided; it counts with the next [`Messages::step`].
    pub(crate) fn hear_decision(&mut self, placed: Placed) {
        self.acts.push(placed);
    }

    /// Whether all that is due has to be said before [`Messages::step`], because somebody answered or may have come back:
    /// which of two was first matters.
    pub fn waits_for_all(&self) -> bool {
        // What is not decided yet, be it said or not, is decided behind this; who is seen so soon has not come back to it.
        let from_us = self.decided_us.saturating_add(self.terms.back_after_us);
        let matters = |placed: &Placed| match placed.act {
            Act::Answered(_) | Act::Decided { .. } => true,
            Act::Seen { at_us } if at_us > from_us && !self.rules.is_empty() => true,
            Act::Seen { at_us } => self
                .recipients
                .get(&placed.person)
                .is_some_and(|recipient| recipient.would_be_back(at_us)),
        };
        self.acts.iter().any(matters)
    }

    /// Takes the rows that queries said and what people did, in the order in which they would have come one by one, and
    /// decides what is due. All queries have said what is due by the watermark `reached`. `decided` is what persons have decided.
    pub fn step(&mut self, outputs: &[Output], reached: i64, moment: &Moment<'_>, decided: &Decided) {
        let acts = std::mem::take(&mut self.acts);
        let mut places: Vec<Place> = Vec::new();
        for (index, output) in outputs.iter().enumerate() {
            if output.judgement.is_none() || !self.rules.contains_key(&output.query) {
                continue;
            }
            for row in 0..output.rows.len() {
                let met_us = output.rows.watermark(row);
                // What comes of time is said before what the events say that bring it.
                let event = output.rows.cause(row).and_then(|cause| (moment.event_of)(cause));
                let place = event
                    .filter(|event| event.met_us == met_us)
                    .map_or(0, |event| event.index + 1);
                places.push((met_us, place, 0, index, row));
            }
        }
        places.extend(
            acts.iter()
                .enumerate()
                .map(|(which, placed)| (placed.met_us, placed.index + 1, 1, which, 0)),
        );
        places.sort_unstable();
        for (met_us, _, kind, which, row) in places {
            self.ring(met_us.min(reached), moment, decided);
            match kind {
                0 => self.take_row(&outputs[which], row, moment, decided),
                _ => self.do_act(&acts[which]),
            }
        }
        self.ring(reached, moment, decided);
        self.decided_us = self.decided_us.max(reached);
    }

    fn take_row(&mut self, output: &Output, row: usize, moment: &Moment<'_>, decided: &Decided) {
        let (Some(judgement), Some(rule)) = (&output.judgement, self.rules.get(&output.query).map(Arc::clone)) else {
            return;
        };
        let Some(options) = rule.options.message.as_ref().filter(|_| judgement.raise[row]) else {
            return;
        };
        let Some((person, candidate)) = candidate(&rule, options, (&output.rows, row), moment, self.delay_us) else {
            return;
        };
        // Windows that were begun before names became one person's say rows under the one that was seen.
        let name = person;
        let person = self.aliases.resolve(&name).to_owned();
        if !decided.of(&person).has(Purpose::Service) {
            tracing::trace!(rule = %rule.name, person = %person, "not to be written to");
            self.unsaid.push(MessageStep::Refused {
                rule: Arc::clone(&rule.name),
            });
            return;
        }
        let person: Arc<str> = match self.recipients.get_key_value(person.as_str()) {
            Some((person, _)) => Arc::clone(person),
            None if self.recipients.len() >= RECIPIENTS_MAX => {
                if !std::mem::replace(&mut self.overflow_told, true) {
                    tracing::warn!("{RECIPIENTS_MAX} people were written to; nobody new is");
                }
                return;
            }
            None => person.into(),
        };
        let recipient = self.recipients.entry(Arc::clone(&person)).or_default();
        let id = candidate.message.id.clone();
        if recipient.find(candidate) {
            if name != *person {
                self.owners.note(&person, &id, &Arc::from(name));
            }
            self.note(&person);
        }
    }

    /// Notes that a recipient changed, and when the next thing is due.
    fn note(&mut self, person: &Arc<str>) {
        self.has_changed = true;
        self.changes.note(person);
        self.schedule(person);
    }

    /// Sets a recipient's clock anew.
    fn schedule(&mut self, person: &Arc<str>) {
        let Some(recipient) = self.recipients.get_mut(person) else {
            return;
        };
        let due_us = recipient.next_due(&self.terms);
        if let Some(former_us) = std::mem::replace(&mut recipient.due_us, due_us) {
            self.due.remove(&(former_us, Arc::clone(person)));
        }
        self.due.extend(due_us.map(|due_us| (due_us, Arc::clone(person))));
    }

    fn do_act(&mut self, placed: &Placed) {
        let person = &placed.person;
        match &placed.act {
            Act::Seen { at_us } => {
                if self
                    .recipients
                    .get_mut(person)
                    .is_some_and(|recipient| recipient.see(*at_us))
                {
                    self.note(person);
                }
            }
            Act::Answered(answer) => match answer.response {
                Response::OptedOut | Response::OptedIn => {}
                Response::Opened | Response::Accepted | Response::Declined => {
                    self.answer(person, answer, placed.met_us)
                }
            },
            Act::Decided {
                change,
                refuses_research,
                at_us,
            } => {
                if *refuses_research {
                    self.forget_trials(person);
                }
                if !change.after.has(Purpose::Service) {
                    self.withdraw(person, *at_us, placed.met_us);
                }
            }
        }
    }

    fn answer(&mut self, person: &Arc<str>, answer: &Answer, met_us: i64) {
        let Some(recipient) = self.recipients.get_mut(person) else {
            return;
        };
        let before = recipient.message(&answer.message);
        let (state, rating) = before.map_or((None, None), |message| (Some(message.state), message.rating));
        let Some(message) = recipient.answer(answer, &self.terms) else {
            return;
        };
        let has_turned = state != Some(message.state);
        let is_accepted = has_turned && message.state == MessageState::Accepted;
        if let Some(points) = message.points.filter(|_| is_accepted) {
            self.grants.push(Grant {
                person: Arc::clone(person),
                points,
                reason: Arc::clone(&message.kind),
                cause: message.id.clone(),
                at_us: message.answered_us.unwrap_or(answer.at_us),
                expires_us: None,
            });
        }
        let at_us = answer.at_us.max(message.at_us);
        if has_turned {
            self.unsaid.push(MessageStep::Turned(Arc::new(message.view(person))));
            self.said.push(Said::turned(person, message.clone(), at_us, met_us));
            match message.state {
                MessageState::Accepted => self.note_for_figures(person, &message.id, OfMessage::Accepted),
                MessageState::Declined => self.note_for_figures(person, &message.id, OfMessage::Declined),
                _ => {}
            }
        }
        if rating.is_none() && message.rating.is_some() {
            self.said.push(Said::rated(person, message, at_us, met_us));
        }
        self.note(person);
    }

    fn note_for_figures(&mut self, person: &Arc<str>, id: &str, what: OfMessage) {
        self.noted.push(Noted {
            person: Arc::clone(person),
            name: Arc::clone(self.owners.name(person, id)),
            what,
        });
    }

    /// Leaves a person out of what is counted of rules from now on.
    pub(crate) fn forget_trials(&mut self, person: &Arc<str>) {
        if let Some(recipient) = self.recipients.get_mut(person)
            && recipient.forget_trials()
        {
            self.note(person);
        }
    }

    /// Forgets all about a person; nothing may go out any more, at once.
    fn withdraw(&mut self, person: &Arc<str>, at_us: i64, met_us: i64) {
        // What comes of what was forgotten would otherwise come to who opts in before it is taken.
        self.grants.retain(|grant| grant.person != *person);
        self.noted.retain(|noted| noted.person != *person);
        self.owners.keep(person, |_| false);
        let mut open = Vec::new();
        if let Some(former) = self.remove(person) {
            // Left out, whoever dislikes messages would be missing among those who were sent one.
            for trial in former.running() {
                self.count(trial);
            }
            for message in former.messages().filter(|message| message.state.is_open()) {
                open.push(message.id.clone());
                let at_us = at_us.max(message.at_us);
                self.said.push(Said::withdrawn(person, message.clone(), at_us, met_us));
            }
        }
        for name in self.aliases.names(person) {
            self.unsaid.push(MessageStep::Withdrawn {
                person: Arc::clone(name),
                open: open.clone(),
            });
        }
        self.has_changed = true;
    }

    /// Counts a trial that is over.
    fn count(&mut self, trial: &Trial) {
        let rule = trial.rule.to_string();
        self.sides_changes.note(&rule);
        self.sides.entry(rule).or_default().add(trial);
    }

    fn remove(&mut self, person: &Arc<str>) -> Option<Recipient> {
        for message in self.recipients.get(person).into_iter().flat_map(Recipient::messages) {
            self.listed
                .remove(&(message.at_us, Arc::clone(person), message.id.clone()));
        }
        let (place, person, former) = self.recipients.swap_remove_full(person)?;
        if let Some(due_us) = former.due_us {
            self.due.remove(&(due_us, Arc::clone(&person)));
        }
        // Whoever was last has this place now.
        if let Some((moved, _)) = self.recipients.get_index(place) {
            self.changes.note(moved);
        }
        self.has_changed = true;
        self.changes.note(&person);
        Some(former)
    }

    /// Does what is due by the watermark `until_us`.
    fn ring(&mut self, until_us: i64, moment: &Moment<'_>, decided: &Decided) {
        while self.due.first().is_some_and(|(due_us, _)| *due_us <= until_us) {
            let Some((due_us, person)) = self.due.pop_first() else {
                return;
            };
            let Some(recipient) = self.recipients.get_mut(&person) else {
                continue;
            };
            let deciding = Deciding {
                terms: &self.terms,
                rules: &self.rules,
                places: moment.places,
                is_held_out: self.holdout.has(&person),
                is_studied: decided.of(&person).has(Purpose::Research),
            };
            let mut happened = Happened::default();
            recipient.due_us = None;
            let is_over = recipient.advance(due_us, &deciding, &mut happened);
            for message in &happened.turned {
                if message.state == MessageState::Sent {
                    self.note_for_figures(&person, &message.id, OfMessage::Sent);
                }
                let at_us = match message.state {
                    MessageState::Expired => message.expires_us.min(due_us),
                    _ => message.at_us,
                };
                self.said.push(Said::turned(&person, message.clone(), at_us, due_us));
                self.list(&person, message.at_us, &message.id);
                self.unsaid.push(MessageStep::Turned(Arc::new(message.view(&person))));
            }
            for trial in &happened.over {
                self.count(trial);
            }
            match (is_over, happened.has_changed) {
                (true, _) => {
                    self.remove(&person);
                    self.owners.keep(&person, |_| false);
                }
                (false, true) => self.note(&person),
                (false, false) => self.schedule(&person),
            }
        }
    }

    fn list(&mut self, person: &Arc<str>, at_us: i64, id: &str) {
        let listed = (at_us, Arc::clone(person), id.to_owned());
        let recipient = self.recipients.get(person);
        if recipient.is_none_or(|recipient| recipient.message(id).is_none()) {
            // It is one too many to be kept.
            self.listed.remove(&listed);
            return;
        }
        self.listed.insert(listed);
        if self.listed.len() > LISTED_MAX {
            self.listed.pop_first();
        }
    }

    /// What is to be told since the last call, in its order.
    pub fn drain(&mut self) -> Vec<MessageStep> {
        self.has_changed = false;
        std::mem::take(&mut self.unsaid)
    }

    /// What became of messages since the last call as rows of the stream `message`, where they are wanted.
    pub(crate) fn take_rows(&mut self, are_wanted: bool) -> Vec<Row> {
        let said = std::mem::take(&mut self.said);
        if are_wanted {
            said.iter().map(Said::row).collect()
        } else {
            Vec::new()
        }
    }

    /// Up to when any of the messages that still stand may be answered, microseconds.
    pub(crate) fn open_until(&self) -> Option<i64> {
        let all = self.recipients.values().flat_map(Recipient::messages);
        all.filter(|message| message.state.is_open())
            .map(|message| message.expires_us)
            .max()
    }

    /// Whether anything has changed since [`Messages::drain`].
    pub fn has_changed(&self) -> bool {
        self.has_changed
    }

    /// The points for what was accepted since the last call.
    pub(crate) fn take_grants(&mut self) -> Vec<Grant> {
        std::mem::take(&mut self.grants)
    }

    /// Which messages went out since the last call, and which were accepted or declined in time, for the figures of their persons.
    pub(crate) fn take_noted(&mut self) -> Vec<Noted> {
        std::mem::take(&mut self.noted)
    }

    /// Whether a message still stands.
    pub fn is_open(&self, person: &str, id: &str) -> bool {
        let person = self.aliases.resolve(person);
        let message = self.recipients.get(person).and_then(|recipient| recipient.message(id));
        message.is_some_and(|message| message.state.is_open())
    }

    /// The ids of the messages that still stand.
    pub fn open(&self) -> Vec<String> {
        let all = self.recipients.values().flat_map(Recipient::messages);
        all.filter(|message| message.state.is_open())
            .map(|message| message.id.clone())
            .collect()
    }

    /// What a person was sent and what was withheld, the newest first.
    pub fn of(&self, person: &str) -> Vec<MessageView> {
        let person = self.aliases.resolve(person);
        let recipient = self.recipients.get(person);
        let mut views: Vec<(i64, MessageView)> = recipient
            .into_iter()
            .flat_map(Recipient::messages)
            .map(|message| (message.at_us, message.view(person)))
            .collect();
        // Of those of one moment the one that went out stands first.
        let rank = |view: &MessageView| (view.withheld.is_some(), view.id.clone());
        views.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| rank(&a.1).cmp(&rank(&b.1))));
        views.into_iter().map(|(_, view)| view).collect()
    }

    /// The newest messages of all people that are wanted by their state, rule and kind, the newest first, so many at most.
    pub fn newest(&self, wanted: impl Fn(MessageState, &str, &str) -> bool, most: usize) -> Vec<MessageView> {
        let listed = self.listed.iter().rev();
        let views = listed.filter_map(|(_, person, id)| {
            let message = self.recipients.get(person)?.message(id)?;
            wanted(message.state, &message.rule, &message.kind).then(|| message.view(person))
        });
        views.take(most).collect()
    }

    /// How many messages of those that are listed are in each state.
    pub fn states(&self) -> BTreeMap<MessageState, usize> {
        let mut states = BTreeMap::new();
        for (_, person, id) in &self.listed {
            if let Some(message) = self.recipients.get(person).and_then(|recipient| recipient.message(id)) {
                *states.entry(message.state).or_default() += 1;
            }
        }
        states
    }

    /// How each rule does; figures behind which fewer than `k` persons stand are hidden.
    pub fn uplift(&self, k: u32) -> Vec<UpliftView> {
        let mut rules: Vec<&Arc<Rule>> = self.rules.values().collect();
        rules.sort_by(|a, b| a.name.cmp(&b.name));
        let view = |rule: &Arc<Rule>| {
            let sides = self.sides.get(&*rule.name).copied().unwrap_or_default();
            let kind = rule
                .options
                .message
                .as_ref()
                .map_or("", |options| options.kind.as_str());
            UpliftView::of(&rule.name, kind, sides, k)
        };
        rules.into_iter().map(view).collect()
    }

    /// How many people there are of whom something is remembered.
    pub fn len(&self) -> usize {
        self.recipients.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.recipients.is_empty()
    }
}
