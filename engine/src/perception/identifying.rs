//! Identifying is what becomes of everything that is kept of persons when names turn out to be one person's, or not.

use std::borrow::Cow;
use std::sync::Arc;

use rustc_hash::FxHashSet;
use usher_queries::purpose::Purpose;

use super::{Perception, no_events};
use crate::alerts::Step;
use crate::consent::Deciding;
use crate::event::{Event, IdentifyAction, Reading, dedup_key};
use crate::identity::{Aliases, Regrouping, TableChange};
use crate::people::Past;
use crate::pseudonym::Pseudonym;
use crate::record::Record;

impl Perception {
    /// The places behind events that do what they say when all is said that comes of what was before: who decides what may be
    /// known, and what is news of names. A link that is said at each login is none.
    pub(super) fn turning_points(&self, events: &[Event]) -> Vec<usize> {
        let (mut ends, mut is_regrouped) = (Vec::new(), false);
        for (end, event) in (1..).zip(events) {
            let turns = match &event.reading {
                Reading::Identify { person, also, action } => {
                    let mut two = also.iter().map(|other| (person.shared(), other.shared()));
                    // Behind one that is news who knows what the next one changes.
                    is_regrouped |= two.any(|(person, also)| self.identity.is_news(person, also, *action));
                    is_regrouped
                }
                _ => Deciding::of(event).is_some(),
            };
            if turns {
                // A decision stands alone: all before it is as it was before.
                if Deciding::of(event).is_some() && end > 1 && ends.last() != Some(&(end - 1)) {
                    ends.push(end - 1);
                }
                ends.push(end);
            }
        }
        ends
    }

    /// Does what an event says of names, when all is said that comes of what was before; gives the steps of alerts.
    pub(super) fn identify(&mut self, event: &Event) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Reading::Identify { person, also, action } = &event.reading {
            let key = dedup_key(event);
            let mut gone = FxHashSet::default();
            for other in also {
                let two = (person.shared(), other.shared());
                self.say(two, *action, key, &mut gone, &mut steps);
            }
            self.rename_alerts(gone, &mut steps);
            self.tell_changed_groups();
        }
        steps
    }

    /// Does what has changed in the reference table, when all is said that is due by then; gives the steps of alerts.
    pub fn identify_by_table(&mut self, at_us: i64, change: &TableChange) -> Vec<Step> {
        let (mut steps, _) = self.catch_up(at_us);
        let (key, mut gone) = (Record::identities_key(at_us), FxHashSet::default());
        for (person, also) in &change.unlink {
            self.say((person, also), IdentifyAction::Unlink, key, &mut gone, &mut steps);
            self.identity.note_in_table(person, also, false);
        }
        for (person, also) in &change.link {
            self.say((person, also), IdentifyAction::Link, key, &mut gone, &mut steps);
            self.identity.note_in_table(person, also, true);
        }
        self.rename_alerts(gone, &mut steps);
        self.tell_changed_groups();
        steps
    }

    /// Takes what the log says of the past of persons, when all is said that is due by then; gives the steps of alerts.
    pub fn repair(&mut self, at_us: i64, pasts: &[Past]) -> Vec<Step> {
        let (steps, _) = self.catch_up(at_us);
        for past in pasts {
            self.people.repair(past);
        }
        steps
    }

    /// Links two names or parts them; `gone` takes those that are no persons' any more.
    fn say(
        &mut self,
        (person, also): (&Arc<str>, &Arc<str>),
        action: IdentifyAction,
        key: u128,
        gone: &mut FxHashSet<Arc<str>>,
        steps: &mut Vec<Step>,
    ) {
        let regrouping = match action {
            IdentifyAction::Link => self.identity.link(person, also),
            IdentifyAction::Unlink => self.identity.unlink(person, also),
        };
        let Some(regrouping) = regrouping else { return };
        let now_us = self.clock_us().unwrap_or(self.now_us);
        let holding = self.change_consents(|consents| consents.regroup(&regrouping));
        let is_out = !holding.has(Purpose::Recognition);
        let decided = Arc::clone(self.consents.decided());
        if regrouping
            .after
            .iter()
            .any(|group| decided.is_refused(&group.person, Purpose::Research))
        {
            for group in &regrouping.before {
                self.messages.forget_trials(&group.person);
            }
        }
        drop(decided);
        self.people.regroup(key, &regrouping, is_out);
        self.groups.regroup(&regrouping);
        self.points.regroup(&regrouping, key, now_us);
        let reached = self.queries.reached().unwrap_or(i64::MIN);
        self.messages.regroup(&regrouping, holding, (now_us, reached));
        if !holding.has(Purpose::Service) {
            for name in regrouping.before.iter().flat_map(|group| &group.names) {
                self.points.forget(name);
            }
        }
        if is_out {
            self.forget_all(&regrouping, steps);
        } else {
            gone.extend(regrouping.gone().cloned());
        }
    }

    /// One of these names is of somebody who does not want to be known, so all of them are.
    fn forget_all(&mut self, regrouping: &Regrouping, steps: &mut Vec<Step>) {
        let (places, reached) = (Arc::clone(&self.places), self.queries.reached().unwrap_or(i64::MIN));
        let moment = no_events(self.now_us, &places);
        for name in regrouping.before.iter().flat_map(|group| &group.names) {
            self.lookups.forget(name);
            self.alerts.forget_person(name, reached, &moment, steps);
        }
    }

    /// Alerts about names that are no persons' any more are over.
    fn rename_alerts(&mut self, mut gone: FxHashSet<Arc<str>>, steps: &mut Vec<Step>) {
        gone.retain(|name| self.identity.aliases().is_alias(name));
        let (places, reached) = (Arc::clone(&self.places), self.queries.reached().unwrap_or(i64::MIN));
        let moment = no_events(self.now_us, &places);
        self.alerts.rename_persons(&gone, reached, &moment, steps);
    }
}

/// The same of events that are one's own.
pub(crate) fn all_resolved(events: Vec<Event>, aliases: &Aliases) -> Vec<Event> {
    let resolved = match resolved(&events, aliases) {
        Cow::Owned(resolved) => Some(resolved),
        Cow::Borrowed(_) => None,
    };
    resolved.unwrap_or(events)
}

/// Events with each name replaced by how its person is called.
pub(super) fn resolved<'e>(events: &'e [Event], aliases: &Aliases) -> Cow<'e, [Event]> {
    let is_alias = |name: &Pseudonym| aliases.is_alias(name.as_str());
    let named = |event: &Event| match &event.reading {
        Reading::Rfid { person, .. } | Reading::Click { person, .. } => person.as_ref().is_some_and(is_alias),
        Reading::Reply { person, .. } | Reading::Consent { person, .. } => is_alias(person),
        // It is said of names, and stays as it was said.
        Reading::Identify { .. } | Reading::Gate(_) | Reading::Seat { .. } => false,
    };
    if aliases.is_empty() || !events.iter().any(named) {
        return Cow::Borrowed(events);
    }
    let mut events = events.to_vec();
    for event in &mut events {
        match &mut event.reading {
            Reading::Rfid { person: Some(name), .. }
            | Reading::Click { person: Some(name), .. }
            | Reading::Reply { person: name, .. }
            | Reading::Consent { person: name, .. } => *name = name.of_person(aliases),
            _ => {}
        }
    }
    Cow::Owned(events)
}
