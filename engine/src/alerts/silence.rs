//! Silence: a subject that should be heard of and is not.

use std::sync::Arc;

use usher_queries::rows::time_to_text;

use super::found::{Found, alert_id, blank_alert};
use super::life::Happened;
use super::watch::{Bell, Open, Phase, Place};
use super::{Alerts, Moment, Step};
use crate::alert::{Alert, What, Why};
use crate::rule::{Finds, Rule};
use crate::site::Places;

impl Alerts {
    /// We begin to listen at this event time: silence before it was ours and nobody else's.
    pub fn listen_from(&mut self, event_time_us: i64) {
        self.listening_since_us = self.listening_since_us.max(event_time_us);
    }

    /// A subject was heard of; if it had been silent, that is over.
    pub(super) fn hear(&mut self, key: &str, found: &Found<'_>, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        let at = found.time(moment);
        let Some(watch) = self.watches.get_mut(key) else { return };
        if at >= watch.heard_us {
            watch.heard_us = at;
            watch.heard_by.clear();
            watch.heard_by.push_str(found.cause.unwrap_or(""));
        }
        if watch.phase == Phase::Standing {
            // Its own clock may be far behind: what it says now was heard now, or it would be silent again at once.
            watch.heard_us = watch.heard_us.max(found.watermark);
            let key = self.key_of(key);
            self.end(
                &key,
                at,
                Happened::by_usher(at, What::Cleared, Why::Rule),
                moment,
                steps,
            );
            self.listen(&key, found.rule.options.silent_us.unwrap_or(0), found.site(), moment);
        }
    }

    /// Winds the clock of a subject that should be heard of within `silent_us` of opening time.
    pub(super) fn listen(&mut self, key: &Arc<str>, silent_us: i64, site: &str, moment: &Moment<'_>) {
        let Some(watch) = self.watches.get(key) else { return };
        let since = watch.heard_us.max(self.listening_since_us);
        let due = silent_at(since, silent_us, site, moment.places);
        self.set_clock(key, Bell::Phase, due);
    }

    pub(super) fn fall_silent(
        &mut self,
        key: &Arc<str>,
        rule: &Rule,
        rang: i64,
        moment: &Moment<'_>,
        steps: &mut Vec<Step>,
    ) {
        let Some(silent_us) = rule.options.silent_us else {
            return;
        };
        let place = Place::of(key);
        let Some(watch) = self.watches.get_mut(key) else { return };
        let since = watch.heard_us.max(self.listening_since_us);
        let Some(due) = silent_at(since, silent_us, place.site, moment.places) else {
            return;
        };
        if due > rang {
            self.set_clock(key, Bell::Phase, Some(due));
            return;
        }
        let mut values = serde_json::Map::new();
        if rule.finds == Finds::NoData {
            values.insert("finding".to_owned(), "no_data".into());
        }
        let heard = time_to_text(watch.heard_us);
        values.insert("last_heard".to_owned(), heard.clone().into());
        let causes = vec![watch.heard_by.clone()];
        let alert = Alert {
            id: alert_id(&rule.name, key, &causes, &heard),
            text: rule.text_without_rows(place.site, place.zone, place.subject, moment.places),
            values,
            causes,
            ..blank_alert(rule, place, due)
        };
        watch.open = Some(Open::new(alert.clone(), due));
        self.by_id.insert(alert.id, Arc::clone(key));
        let before = steps.len();
        self.raise(key, due, Why::Clock, moment, steps);
        // With what it holds back and its group.
        for step in &mut steps[before..] {
            step.waits_for_disk = true;
        }
    }

    /// What a rule measured is no longer known: its alert is neither told nor over before measurements come again.
    pub(super) fn no_data(&mut self, key: &Arc<str>, at: i64, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        let Some(watch) = self.watches.get(key) else { return };
        match watch.phase {
            Phase::Pending { not_before } => self.withdraw(key, at, not_before, Why::NoData, moment, steps),
            Phase::Standing => {
                // That the clearing condition still holds is not known either.
                self.set_clock(key, Bell::Phase, None);
                self.review(key, at, moment, steps);
            }
            Phase::Listening | Phase::Cooling { .. } => {}
        }
    }
}

/// When a subject last heard of at `since` counts as silent.
fn silent_at(since: i64, silent_us: i64, site: &str, places: &Places) -> Option<i64> {
    match places.site(site) {
        Some(site) => site.calendar.add_open_time(since, silent_us),
        None => since.checked_add(silent_us),
    }
}
