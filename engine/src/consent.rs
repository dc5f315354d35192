//! Consents know who agrees to what: what persons decided about purposes, and what holds of whoever decided nothing;
//! docs/PRIVACY.md.
//!
//! A decision is an event and comes out of the log. It holds for all names of a person: where one of two names that turn out to
//! be one person's refuses, the person does.

mod decision;
mod purposes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use indexmap::IndexMap;
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};
use usher_queries::purpose::{Consent, Purpose};
use usher_queries::rows::time_to_text;

pub use self::decision::{Deciding, Decision, Decisions};
pub use self::purposes::Purposes;
use crate::capture::{Capture, Entries, Parts};
use crate::changes::Changes;
use crate::columns::pseudonym;
use crate::erasure::{Who, without_person};
use crate::event::Event;
use crate::identity::{Aliases, Regrouping};

/// The part of decisions; checkpoints from before there were purposes have none.
const PART: &str = "consents";
/// The part of what held without consent when it was saved.
const WITHOUT: &str = "consents_without";

/// What holds of a person before and after something was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub before: Purposes,
    /// After.
    pub after: Purposes,
}

/// What everybody decided, to be asked.
#[derive(Debug, Clone)]
pub struct Decided {
    without: Purposes,
    /// By how persons are called.
    persons: IndexMap<Arc<str>, Decisions, FxBuildHasher>,
    /// How many persons refuse each purpose, in the order of [`Purpose::ALL`].
    refusals: [usize; 3],
    aliases: Aliases,
}

impl Decided {
    /// What holds of the person that has this name. Where nobody may be told apart, nothing else holds either: there is no
    /// person to do it for.
    pub fn of(&self, name: &str) -> Purposes {
        let said = match self.persons.get(self.aliases.resolve(name)) {
            Some(decisions) => decisions.over(self.without),
            None => self.without,
        };
        match said.has(Purpose::Recognition) {
            true => said,
            false => Purposes::NONE,
        }
    }

    /// Whether the person that has this name may be told apart.
    pub fn recognises(&self, name: &str) -> bool {
        self.of(name).has(Purpose::Recognition)
    }

    /// Whether everybody may be told apart.
    pub fn recognises_all(&self) -> bool {
        self.holds_for_all(Purpose::Recognition)
    }

    /// What the person that has this name decided.
    pub fn decisions(&self, name: &str) -> Option<&Decisions> {
        self.persons.get(self.aliases.resolve(name))
    }

    /// Whether the person that has this name said no to a purpose.
    pub fn is_refused(&self, name: &str, purpose: Purpose) -> bool {
        let decision = self.decisions(name).and_then(|decisions| decisions.of(purpose));
        decision.is_some_and(|decision| !decision.holds)
    }

    /// Takes the person out of an event that names one who may not be told apart.
    pub fn screen(&self, event: &mut Event) {
        if self.refuses(event) {
            without_person(event);
        }
    }

    /// Whether an event names somebody who may not be told apart.
    pub fn refuses(&self, event: &Event) -> bool {
        let name = pseudonym(&event.reading);
        name.is_some_and(|name| !self.recognises(name)) && Deciding::of(event).is_none()
    }

    /// Of the persons whom these events name, by the names in them, those who may not be told apart: by now, and by what the
    /// events decide, which are in the order of the log.
    pub fn left_out(&self, events: &[Event]) -> FxHashSet<Arc<str>> {
        let mut said: FxHashMap<Arc<str>, Decisions> = FxHashMap::default();
        for event in events {
            if let Some(deciding) = Deciding::of(event) {
                let person = self.aliases.person(deciding.person);
                let decisions = said
                    .entry(Arc::clone(person))
                    .or_insert_with(|| self.persons.get(person).cloned().unwrap_or_default());
                decisions.decide(deciding.purposes, &deciding.decision(event));
            }
        }
        let is_known = |name: &Arc<str>| match said.get(self.aliases.person(name)) {
            Some(decisions) => decisions.over(self.without).has(Purpose::Recognition),
            None => self.recognises(name),
        };
        let named = events.iter().filter_map(|event| pseudonym(&event.reading));
        named.filter(|name| !is_known(name)).cloned().collect()
    }

    /// Takes them out of the events, also of those from before they said so.
    pub fn leave_out(&self, events: &mut [Event]) -> FxHashSet<Arc<str>> {
        let left_out = self.left_out(events);
        let is_left_out = |event: &Event| pseudonym(&event.reading).is_some_and(|name| left_out.contains(name));
        if !left_out.is_empty() {
            events
                .iter_mut()
                .filter(|event| is_left_out(event))
                .for_each(without_person);
        }
        left_out
    }

    fn decide(&mut self, deciding: &Deciding<'_>, event: &Event) {
        let person = Arc::clone(self.aliases.person(deciding.person));
        let mut decisions = self.persons.get(&person).cloned().unwrap_or_default();
        decisions.decide(deciding.purposes, &deciding.decision(event));
        self.put(person, decisions);
    }

    fn put(&mut self, person: Arc<str>, decisions: Decisions) {
        self.count(&decisions, 1);
        if let Some(former) = self.persons.insert(person, decisions) {
            self.count(&former, -1);
        }
    }

    /// Gives who stands in the place of the one that is gone, and what was decided.
    fn remove(&mut self, person: &str) -> Option<(Option<Arc<str>>, Decisions)> {
        let (place, _, former) = self.persons.swap_remove_full(person)?;
        self.count(&former, -1);
        let moved = self.persons.get_index(place).map(|(person, _)| Arc::clone(person));
        Some((moved, former))
    }

    fn count(&mut self, decisions: &Decisions, by: isize) {
        for (count, purpose) in self.refusals.iter_mut().zip(Purpose::ALL) {
            if decisions.of(purpose).is_some_and(|decision| !decision.holds) {
                *count = count.saturating_add_signed(by);
            }
        }
    }
}

impl Consent for Decided {
    fn holds(&self, purpose: Purpose, person: &str) -> bool {
        // Where a query takes a session for who did something, nobody knows whose it is.
        let is_session = person.starts_with("s_") && self.decisions(person).is_none();
        is_session || self.of(person).has(purpose)
    }

    fn holds_for_all(&self, purpose: Purpose) -> bool {
        let needed = [Purpose::Recognition, purpose];
        let is_refused = |of: &Purpose| {
            let refusals = self.refusals.iter().zip(Purpose::ALL);
            !self.without.has(*of)
                || refusals
                    .into_iter()
                    .any(|(count, purpose)| purpose == *of && *count > 0)
        };
        !needed.iter().any(is_refused)
    }
}

/// What everybody decided, as the engine keeps it.
#[derive(Debug)]
pub struct Consents {
    decided: Arc<Decided>,
    changes: Changes<Arc<str>, Decisions>,
}

impl Consents {
    /// Nobody has decided anything; of these purposes all hold all the same.
    pub fn new(without: Purposes) -> Self {
        Self {
            decided: Arc::new(Decided {
                without,
                persons: IndexMap::default(),
                refusals: [0; 3],
                aliases: Aliases::default(),
            }),
            changes: Changes::default(),
        }
    }

    /// What everybody decided by now.
    pub fn decided(&self) -> &Arc<Decided> {
        &self.decided
    }

    /// This is what everybody decided.
    pub fn know(&mut self, decided: &Arc<Decided>) {
        self.decided = Arc::clone(decided);
        self.changes.begin_anew();
    }

    /// For queries; `None` where everybody agrees to everything.
    pub fn for_queries(&self) -> Option<Arc<dyn Consent>> {
        let is_open = Purpose::ALL
            .into_iter()
            .all(|purpose| self.decided.holds_for_all(purpose));
        (!is_open).then(|| Arc::clone(&self.decided) as Arc<dyn Consent>)
    }

    /// What holds of a person before a decision that an event says, and after it.
    pub fn change(&self, deciding: &Deciding<'_>, event: &Event) -> Change {
        let decided = &self.decided;
        let mut decisions = decided.decisions(deciding.person).cloned().unwrap_or_default();
        decisions.decide(deciding.purposes, &deciding.decision(event));
        let after = decisions.over(decided.without);
        Change {
            before: decided.of(deciding.person),
            after: match after.has(Purpose::Recognition) {
                true => after,
                false => Purposes::NONE,
            },
        }
    }

    /// A person has decided.
    pub fn decide(&mut self, deciding: &Deciding<'_>, event: &Event) {
        let decided = Arc::make_mut(&mut self.decided);
        decided.decide(deciding, event);
        self.changes.note(decided.aliases.person(deciding.person));
    }

    /// Names are other persons' from now on. Each has what all of them together decided: a refusal before an agreement. Gives what
    /// holds of them then.
    pub fn regroup(&mut self, regrouping: &Regrouping) -> Purposes {
        let mut all = Decisions::default();
        let mut is_any = false;
        for group in &regrouping.before {
            if let Some(former) = self.forget(&group.person) {
                all.join(&former);
                is_any = true;
            }
        }
        let decided = Arc::make_mut(&mut self.decided);
        decided.aliases.apply(regrouping);
        for group in regrouping.after.iter().filter(|_| is_any) {
            decided.put(Arc::clone(&group.person), all.clone());
            self.changes.note(&group.person);
        }
        let after = regrouping.after.first().map(|group| &group.person);
        after.map_or(Purposes::NONE, |person| decided.of(person))
    }

    /// Names are other persons' now that somebody was erased.
    pub fn rename(&mut self, regrouping: &Regrouping) {
        Arc::make_mut(&mut self.decided).aliases.apply(regrouping);
    }

    /// Forgets what whoever is to be erased decided; gives of how many.
    pub fn erase(&mut self, who: &Who) -> u64 {
        let mut erased = 0;
        for person in who.among(self.decided.persons.keys()) {
            erased += u64::from(self.forget(&person).is_some());
        }
        erased
    }

    fn forget(&mut self, person: &Arc<str>) -> Option<Decisions> {
        let (moved, former) = Arc::make_mut(&mut self.decided).remove(person)?;
        self.changes.note(person);
        if let Some(moved) = moved {
            self.changes.note(&moved);
        }
        Some(former)
    }

    /// These are known to have decided so before the log at hand begins.
    pub fn begin_with(&mut self, decisions: impl IntoIterator<Item = (Arc<str>, Decisions)>) {
        let decided = Arc::make_mut(&mut self.decided);
        for (person, decisions) in decisions {
            let mut all = decided.persons.get(&person).cloned().unwrap_or_default();
            all.join(&decisions);
            decided.put(person, all);
        }
        self.changes.begin_anew();
    }

    /// Takes decisions that changed since the last checkpoint, about `room` of them, ahead of the next one.
    pub fn gather(&mut self, room: &mut usize) {
        self.changes.gather(room, &self.decided.persons);
    }

    /// For a checkpoint: the decisions that changed since the last one.
    pub(crate) fn capture(&mut self, capture: &mut Capture) {
        capture.rows(PART, self.changes.take(&self.decided.persons));
        let without = self.decided.without;
        capture.whole(WITHOUT, move || {
            postcard::to_stdvec(&without).map_err(|error| error.to_string())
        });
    }

    /// The next capture is to hold everything.
    pub fn capture_anew(&mut self) {
        self.changes.begin_anew();
    }

    /// Takes back what was captured.
    ///
    /// # Errors
    /// In words, when the bytes are something else, or when what held without consent no longer does: then there is a state of
    /// persons who were never asked.
    pub(crate) fn restore(&mut self, aliases: Aliases, parts: &Parts) -> Result<(), String> {
        let before = match parts.segments(WITHOUT) {
            [] => Purposes::ALL,
            _ => parts.value(WITHOUT)?,
        };
        let gone = Purpose::ALL
            .into_iter()
            .find(|purpose| before.has(*purpose) && !self.decided.without.has(*purpose));
        if let Some(gone) = gone {
            return Err(format!(
                "{gone} held without consent when it was saved, and does not any more"
            ));
        }
        let decided = Arc::make_mut(&mut self.decided);
        decided.aliases = aliases;
        for (person, decisions) in entries(parts)? {
            decided.put(person, decisions);
        }
        Ok(())
    }
}

/// What persons had decided by a checkpoint.
///
/// # Errors
/// In words, when the bytes are something else.
pub(crate) fn entries(parts: &Parts) -> Result<IndexMap<Arc<str>, Decisions, FxBuildHasher>, String> {
    let rows: Entries<Arc<str>, Decisions> = parts.rows(PART)?;
    let mut all = IndexMap::default();
    for (person, decisions) in rows {
        match decisions {
            Some(decisions) => all.insert(person, decisions),
            None => all.swap_remove(&person),
        };
    }
    Ok(all)
}

/// Those of `opted_out`, and those who do not want to be known after these events, which are in the order of the log.
pub fn opted_out_by(mut opted_out: FxHashSet<Arc<str>>, events: &[Event]) -> FxHashSet<Arc<str>> {
    opted_out.extend(Consents::new(Purposes::ALL).decided.left_out(events));
    opted_out
}

/// What a person decided, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct ConsentView {
    /// The pseudonym by which the person is called.
    pub person: String,
    /// Each purpose.
    pub purposes: Vec<PurposeView>,
}

/// One purpose of a person.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct PurposeView {
    /// `service`, `recognition` or `research`.
    pub purpose: &'static str,
    /// Whether what is known of the person may be used for it. Nothing may where recognition is refused.
    pub holds: bool,
    /// What the person decided: `allow` or `refuse`; null where nothing, so that what holds is what the settings say.
    pub decision: Option<&'static str>,
    /// Since when, RFC 3339; null also where it is known from an old checkpoint only.
    pub since: Option<String>,
    /// The id of the event that said so.
    pub event: Option<String>,
}

impl Decided {
    /// What the person that has this name decided.
    pub fn view(&self, name: &str) -> ConsentView {
        let (holding, decisions) = (self.of(name), self.decisions(name));
        let purposes = Purpose::ALL.into_iter().map(|purpose| {
            let decision = decisions.and_then(|decisions| decisions.of(purpose));
            let known = decision.filter(|decision| !decision.event.is_empty());
            PurposeView {
                purpose: purpose.as_str(),
                holds: holding.has(purpose),
                decision: decision.map(|decision| if decision.holds { "allow" } else { "refuse" }),
                since: known.map(|decision| time_to_text(decision.at_us)),
                event: known.map(|decision| decision.event.to_string()),
            }
        });
        ConsentView {
            person: self.aliases.resolve(name).to_owned(),
            purposes: purposes.collect(),
        }
    }
}
