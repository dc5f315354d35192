//! What holds an alert back while it stands: other alerts, quiet hours, the opening calendar, and the lack of data.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::life::Happened;
use super::watch::{Bell, Place, Reason};
use super::{Alerts, Moment, Step};
use crate::alert::What;
use crate::rule::{Finds, Rule};
use usher_queries::statement::When;

impl Alerts {
    /// What holds an alert back at an event time, and when hours may change that.
    fn reasons(&self, key: &Arc<str>, rule: &Rule, at: i64, moment: &Moment<'_>) -> (BTreeSet<Reason>, Option<i64>) {
        let place = Place::of(key);
        let mut reasons = BTreeSet::new();
        let hours = rule.hours_at(place.site, at, moment.places);
        if hours.is_quiet {
            reasons.insert(Reason::Quiet);
        }
        match rule.options.when {
            When::Open if !hours.is_open => reasons.insert(Reason::Closed),
            When::Closed if hours.is_open => reasons.insert(Reason::Open),
            _ => false,
        };
        if !rule.options.inhibited_by.is_empty()
            && let Some(open) = self.watches.get(key).and_then(|watch| watch.open.as_ref())
        {
            let zone = Self::zone_of(rule, key, open);
            let kind_of = |name: &str| self.rules.get(name).map(Arc::clone);
            let rules = self.relations.inhibitors(rule, key, zone, kind_of, moment.places);
            reasons.extend(rules.into_iter().map(Reason::Inhibited));
        }
        if rule.options.no_data_us.is_some() {
            let silent = self.watches.get(place.key(&rule.no_data_name()).as_str());
            if silent.is_some_and(|watch| watch.standing().is_some()) {
                reasons.insert(Reason::NoData);
            }
        }
        (reasons, hours.until)
    }

    /// Holds an alert back that is about to be raised, where something does. Gives the first reason.
    pub(super) fn hold_back(&mut self, key: &Arc<str>, rule: &Rule, at: i64, moment: &Moment<'_>) -> Option<Reason> {
        let (reasons, until) = self.reasons(key, rule, at, moment);
        self.set_clock(key, Bell::Hours, until);
        let open = self.watches.get_mut(key)?.open.as_mut()?;
        open.alert.suppressed = !reasons.is_empty();
        open.alert.suppressed_by = reasons.iter().map(|reason| reason.word().to_owned()).collect();
        open.reviewed_us = at;
        open.reasons = reasons;
        open.reasons.first().cloned()
    }

    /// Looks again at what holds an alert back, and tells when that begins or ends.
    pub(super) fn review(&mut self, key: &Arc<str>, at: i64, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        let Some(watch) = self.watches.get(key) else { return };
        let Some(rule) = self.rules.get(&watch.rule).map(Arc::clone) else {
            return;
        };
        let Some(before) = watch.standing().map(|open| open.reasons.clone()) else {
            return;
        };
        self.hold_back(key, &rule, at, moment);
        let now = self.watches.get(key).and_then(|watch| watch.open.as_ref());
        let Some(now) = now.map(|open| open.reasons.clone()) else {
            return;
        };
        let (what, reason) = match (before.is_empty(), now.is_empty()) {
            (true, false) => (What::Suppressed, now.first()),
            (false, true) => (What::Unsuppressed, before.first()),
            _ => {
                if before != now {
                    self.remeasured(key, steps);
                }
                return;
            }
        };
        let Some(reason) = reason else { return };
        let happened = Happened {
            note: Some(reason.word().to_owned()),
            ..Happened::by_usher(at, what, reason.why())
        };
        self.turn(key, happened, steps);
        self.relate(key, at, moment, steps);
    }

    /// Lets others know what has become of an alert: those that it holds back, and its group.
    pub(super) fn relate(&mut self, key: &Arc<str>, at: i64, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        let Some(watch) = self.watches.get(key) else { return };
        let Some(rule) = self.rules.get(&watch.rule).map(Arc::clone) else {
            return;
        };
        if rule.finds == Finds::NoData {
            let of = Place::of(key).key(&rule.of);
            if self.watches.contains_key(of.as_str()) {
                let of = self.key_of(&of);
                match watch.standing() {
                    Some(_) => self.no_data(&of, at, moment, steps),
                    None => self.review(&of, at, moment, steps),
                }
            }
        }
        if !self.relations.is_linked(&rule.name) {
            return;
        }
        let standing = self.watches.get(key).and_then(super::watch::Watch::standing);
        for touched in self.relations.note_standing(key, &rule, standing) {
            self.review(&touched, at, moment, steps);
        }
        self.regroup(key, &rule, at, moment, steps);
    }

    /// Whatever has changed of the rules or the place, each alert that stands is looked at again, as of when it was looked
    /// at last: at once where that finds something else.
    pub(super) fn review_all(&mut self, moment: &Moment<'_>) {
        let mut keys: Vec<Arc<str>> = self
            .watches
            .iter()
            .filter(|(_, watch)| watch.standing().is_some())
            .map(|(key, _)| Arc::clone(key))
            .collect();
        keys.sort();
        for key in &keys {
            let Some(watch) = self.watches.get(key) else { continue };
            let (Some(rule), Some(open)) = (self.rules.get(&watch.rule), watch.standing()) else {
                continue;
            };
            let (reasons, until) = self.reasons(key, rule, open.reviewed_us, moment);
            if reasons != open.reasons || until != watch.rings_us[Bell::Hours as usize] {
                let at = open.reviewed_us;
                self.set_clock(key, Bell::Hours, Some(at));
            }
        }
    }
}
