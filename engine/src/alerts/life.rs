//! The life of one alert: it holds, is raised, recovers, relapses, is over, and its subject cools down.

use std::sync::Arc;

use usher_queries::rows::time_to_text;

use super::cleared::Over;
use super::found::Found;
use super::watch::{BELLS, Bell, Open, Phase, Place, Watch};
use super::{Alerts, Moment, Step};
use crate::alert::{State, Trace, Turn, What, Why};
use crate::rule::{Finds, Rule};

/// Who does what nobody of the staff does.
const USHER: &str = "usher";

/// Something that happens to an alert.
pub(super) struct Happened<'a> {
    pub(super) at_us: i64,
    pub(super) what: What,
    pub(super) why: Why,
    pub(super) by: &'a str,
    pub(super) note: Option<String>,
}

impl Happened<'static> {
    /// Something that Usher did.
    pub(super) fn by_usher(at_us: i64, what: What, why: Why) -> Self {
        Self {
            at_us,
            what,
            why,
            by: USHER,
            note: None,
        }
    }
}

impl Alerts {
    pub(super) fn judge(
        &mut self,
        key: &str,
        found: &Found<'_>,
        (raise, clear): (bool, bool),
        moment: &Moment<'_>,
        steps: &mut Vec<Step>,
    ) {
        let rule = found.rule;
        let Some(watch) = self.watches.get_mut(key) else {
            if raise && let Some(key) = self.watch(key, found, moment) {
                match rule.options.silent_us {
                    Some(silent_us) => self.listen(&key, silent_us, found.site(), moment),
                    None => self.begin(&key, found, i64::MIN, moment, steps),
                }
            }
            return;
        };
        if rule.options.silent_us.is_some() {
            self.hear(key, found, moment, steps);
            return;
        }
        match (watch.phase, &mut watch.open) {
            (Phase::Pending { .. }, Some(open)) if raise => {
                found.measure(&mut open.alert, moment);
            }
            (Phase::Pending { not_before }, Some(_)) => {
                let (key, at) = (self.key_of(key), found.time(moment));
                self.withdraw(&key, at, not_before, Why::Rule, moment, steps);
            }
            (Phase::Standing, Some(open)) if rule.options.raise.is_none() => {
                // Found again: it stands longer.
                watch.heard_us = watch.heard_us.max(found.heard(moment));
                if found.measure(&mut open.alert, moment) {
                    let key = self.key_of(key);
                    self.remeasured(&key, steps);
                }
            }
            (Phase::Standing, Some(open)) => {
                let changed = found.measure(&mut open.alert, moment);
                let (key, at) = (self.key_of(key), found.time(moment));
                self.waver(&key, rule, (raise, clear), changed, at, moment, steps);
            }
            (Phase::Cooling { until }, _) => {
                if raise && (rule.options.raise.is_some() || found.time(moment) >= until) {
                    let key = self.key_of(key);
                    self.begin(&key, found, until, moment, steps);
                }
            }
            // Its rule found silence before, and now what holds.
            (Phase::Listening, _) if raise => {
                let key = self.key_of(key);
                self.begin(&key, found, i64::MIN, moment, steps);
            }
            (Phase::Listening | Phase::Pending { .. } | Phase::Standing, _) => {}
        }
    }

    /// A standing alert goes on, recovers, relapses or is over.
    #[allow(clippy::too_many_arguments)] // what was found, and whom to tell
    fn waver(
        &mut self,
        key: &Arc<str>,
        rule: &Rule,
        (raise, clear): (bool, bool),
        changed: bool,
        at: i64,
        moment: &Moment<'_>,
        steps: &mut Vec<Step>,
    ) {
        if clear && rule.options.keep_us == 0 {
            self.clear(key, at, Why::Rule, moment, steps);
            return;
        }
        let Some(watch) = self.watches.get_mut(key) else { return };
        let is_kept = watch.rings_us[Bell::Phase as usize].is_some();
        let Some(open) = &mut watch.open else { return };
        let was = open.alert.state;
        let state = match (raise && !clear, open.acknowledged) {
            (false, _) => State::Recovering,
            (true, true) => State::Acknowledged,
            (true, false) => State::Active,
        };
        open.alert.state = state;
        match (clear, is_kept) {
            (true, false) => self.set_clock(key, Bell::Phase, Some(at.saturating_add(rule.options.keep_us))),
            (false, true) => self.set_clock(key, Bell::Phase, None),
            _ => {}
        }
        if state != was {
            let is_back = was == State::Recovering;
            let what = if is_back { What::Relapsed } else { What::Recovering };
            self.turn(key, Happened::by_usher(at, what, Why::Rule), steps);
            if is_back {
                // Its severity waited while it recovered.
                self.escalate(key, at, moment, steps);
            }
        } else if changed {
            self.remeasured(key, steps);
        }
    }

    /// A subject not seen before. `None` when there are too many already.
    fn watch(&mut self, key: &str, found: &Found<'_>, moment: &Moment<'_>) -> Option<Arc<str>> {
        let watch = Watch::new(&found.rule.name, found.time(moment), found.cause.unwrap_or(""));
        self.add_watch(key, watch)
    }

    /// The condition has begun to hold.
    fn begin(
        &mut self,
        key: &Arc<str>,
        found: &Found<'_>,
        not_before: i64,
        moment: &Moment<'_>,
        steps: &mut Vec<Step>,
    ) {
        let at = found.time(moment);
        let due = at.saturating_add(found.rule.options.for_us).max(not_before);
        let Some(watch) = self.watches.get_mut(key) else { return };
        watch.heard_us = match found.rule.options.silent_us {
            Some(_) => at,
            None => found.heard(moment),
        };
        self.put_forward(
            key,
            Open::new(found.alert(at, moment), at),
            due,
            not_before,
            moment,
            steps,
        );
    }

    /// An alert begins, to be raised at `due`.
    pub(super) fn put_forward(
        &mut self,
        key: &Arc<str>,
        open: Open,
        due: i64,
        not_before: i64,
        moment: &Moment<'_>,
        steps: &mut Vec<Step>,
    ) {
        let at = open.since_us;
        self.by_id.insert(open.alert.id.clone(), Arc::clone(key));
        let Some(watch) = self.watches.get_mut(key) else { return };
        watch.open = Some(open);
        if due > at {
            watch.phase = Phase::Pending { not_before };
            self.set_clock(key, Bell::Phase, Some(due));
            self.turn(key, Happened::by_usher(at, What::Pending, Why::Rule), steps);
        } else {
            self.raise(key, at, Why::Rule, moment, steps);
        }
    }

    /// It is out there from now on.
    pub(super) fn raise(&mut self, key: &Arc<str>, at: i64, why: Why, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        let Some(rule) = self.rules.get(&watch.rule).map(Arc::clone) else {
            return;
        };
        watch.phase = Phase::Standing;
        let heard_us = watch.heard_us;
        let Some(open) = &mut watch.open else { return };
        open.since_us = at;
        open.alert.state = if open.acknowledged {
            State::Acknowledged
        } else {
            State::Active
        };
        open.alert.event_time = time_to_text(at);
        open.alert.raised_at = Some(time_to_text(moment.now_us));
        let is_finding = rule.finds == Finds::Rows && rule.options.raise.is_none() && rule.options.silent_us.is_none();
        let expires = is_finding.then(|| heard_us.saturating_add(rule.options.expires_us));
        self.set_clock(key, Bell::Phase, expires);
        let held_back = self.hold_back(key, &rule, at, moment);
        self.name_group(key, &rule, moment);
        self.turn(key, Happened::by_usher(at, What::Raised, why), steps);
        if let Some(reason) = held_back {
            let happened = Happened {
                note: Some(reason.word().to_owned()),
                ..Happened::by_usher(at, What::Suppressed, reason.why())
            };
            self.turn(key, happened, steps);
        }
        self.escalate(key, at, moment, steps);
        self.relate(key, at, moment, steps);
    }

    /// The severity is what it should be after so long, unless somebody looks after it.
    pub(super) fn escalate(&mut self, key: &Arc<str>, at: i64, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        let Some(watch) = self.watches.get(key) else { return };
        let Some(rule) = self.rules.get(&watch.rule).map(Arc::clone) else {
            return;
        };
        let Some(since_us) = watch.standing().map(|open| open.since_us) else {
            return;
        };
        let rises = &rule.options.escalate;
        let due = |after_us: i64| since_us.saturating_add(after_us);
        let next = rises.iter().map(|rise| due(rise.after_us)).find(|due| *due > at);
        self.set_clock(key, Bell::Severity, next);
        let mut has_risen = false;
        for rise in rises.iter().filter(|rise| due(rise.after_us) <= at) {
            let Some(open) = self.watches.get_mut(key).and_then(|watch| watch.open.as_mut()) else {
                return;
            };
            let rank = super::rank(&rise.severity);
            let rises = match open.alert.state {
                State::Active => true,
                State::Acknowledged => rise.even_acknowledged,
                State::Pending | State::Recovering | State::Cleared => false,
            };
            if rises && rank > super::rank(&open.alert.severity) {
                open.alert.severity.clone_from(&rise.severity);
                let happened = Happened {
                    note: Some(rise.severity.clone()),
                    ..Happened::by_usher(at, What::Escalated, Why::Clock)
                };
                self.turn(key, happened, steps);
                has_risen = true;
            }
        }
        if has_risen {
            self.relate(key, at, moment, steps);
        }
    }

    /// One that is pending was nothing; what its subject still had to cool down, it still has.
    pub(super) fn withdraw(
        &mut self,
        key: &Arc<str>,
        at: i64,
        not_before: i64,
        why: Why,
        moment: &Moment<'_>,
        steps: &mut Vec<Step>,
    ) {
        self.end(key, at, Happened::by_usher(at, What::Withdrawn, why), moment, steps);
        self.cool(key, not_before, at);
    }

    /// One that stands is over, and its subject cools down.
    pub(super) fn clear(&mut self, key: &Arc<str>, at: i64, why: Why, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        let Some(rule) = self.watches.get(key).and_then(|watch| self.rules.get(&watch.rule)) else {
            return;
        };
        let until = at.saturating_add(rule.options.cooldown_us);
        self.end(key, at, Happened::by_usher(at, What::Cleared, why), moment, steps);
        self.cool(key, until, at);
    }

    /// It is over at the event time `at`. The watch stays, without a clock.
    pub(super) fn end(
        &mut self,
        key: &Arc<str>,
        at: i64,
        happened: Happened<'_>,
        moment: &Moment<'_>,
        steps: &mut Vec<Step>,
    ) {
        for bell in BELLS {
            self.set_clock(key, bell, None);
        }
        let Some(watch) = self.watches.get_mut(key) else { return };
        let Some(open) = &mut watch.open else { return };
        let alert = &mut open.alert;
        let was_standing = alert.state.is_standing();
        alert.state = State::Cleared;
        alert.snoozed = false;
        alert.snoozed_until = None;
        alert.suppressed = false;
        alert.suppressed_by.clear();
        alert.cleared_at = Some(time_to_text(at));
        if alert.raised_at.is_none() {
            alert.trace = Trace::default();
        }
        watch.phase = Phase::Listening;
        self.turn(key, happened, steps);
        let ended = self.watches.get_mut(key).and_then(|watch| watch.open.take());
        if let Some(Open { alert, history, .. }) = ended {
            self.by_id.remove(&alert.id);
            if was_standing {
                let (alert, history) = (Arc::new(alert), Arc::new(history));
                self.cleared.push(Over { alert, history }, self.keep_cleared);
            }
        }
        self.relate(key, at, moment, steps);
    }

    /// Nothing is raised for the subject before `until`; it is forgotten when that is no later than `at`.
    pub(super) fn cool(&mut self, key: &Arc<str>, until: i64, at: i64) {
        if until <= at {
            self.forget(key);
        } else if let Some(watch) = self.watches.get_mut(key) {
            watch.phase = Phase::Cooling { until };
            self.set_clock(key, Bell::Phase, Some(until));
        }
    }

    /// Notes what happened as the next step of the alert's life, and tells it.
    pub(super) fn turn(&mut self, key: &Arc<str>, happened: Happened<'_>, steps: &mut Vec<Step>) {
        let Some(open) = self.watches.get_mut(key).and_then(|watch| watch.open.as_mut()) else {
            return;
        };
        let turn = Turn {
            number: open.history.next_number(),
            at: time_to_text(happened.at_us),
            what: happened.what,
            state: open.alert.state,
            by: happened.by.to_owned(),
            why: happened.why,
            note: happened.note,
        };
        open.history.push(turn.clone());
        open.alert.step = Some(turn);
        steps.push(Step {
            alert: Arc::new(open.alert.clone()),
            is_turn: true,
            waits_for_disk: false,
        });
    }

    /// Shows the alert's new measurements; that is no step of its life.
    pub(super) fn remeasured(&self, key: &Arc<str>, steps: &mut Vec<Step>) {
        let open = self.watches.get(key).and_then(|watch| watch.open.as_ref());
        steps.extend(open.map(|open| Step {
            alert: Arc::new(open.alert.clone()),
            is_turn: false,
            waits_for_disk: false,
        }));
    }

    /// A clock that was taken out rings.
    pub(super) fn rings(&mut self, key: &Arc<str>, due: i64, bell: Bell, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        let Some(watch) = self.watches.get_mut(key) else {
            return;
        };
        watch.rings_us[bell as usize] = None;
        let Some(rule) = self.rules.get(&watch.rule).map(Arc::clone) else {
            return;
        };
        match (bell, watch.phase) {
            (Bell::Hours, _) => self.review(key, due, moment, steps),
            (Bell::Severity, _) => self.escalate(key, due, moment, steps),
            (Bell::Snooze, _) => {
                if let Some(open) = &mut watch.open {
                    open.alert.snoozed = false;
                    open.alert.snoozed_until = None;
                    self.turn(key, Happened::by_usher(due, What::Unsnoozed, Why::Clock), steps);
                }
            }
            (Bell::Phase, Phase::Pending { .. }) => self.raise(key, due, Why::Clock, moment, steps),
            (Bell::Phase, Phase::Cooling { .. }) => self.forget(key),
            (Bell::Phase, Phase::Listening) => self.fall_silent(key, &rule, due, moment, steps),
            (Bell::Phase, Phase::Standing) if rule.finds == Finds::Group => {
                self.turn(key, Happened::by_usher(due, What::Regrouped, Why::Group), steps);
            }
            (Bell::Phase, Phase::Standing) if rule.options.raise.is_some() => {
                self.clear(key, due, Why::Clock, moment, steps);
            }
            (Bell::Phase, Phase::Standing) => {
                let expires = watch.heard_us.saturating_add(rule.options.expires_us);
                if expires > due {
                    self.set_clock(key, Bell::Phase, Some(expires));
                } else {
                    self.clear(key, due, Why::Clock, moment, steps);
                }
            }
        }
    }

    pub(super) fn set_clock(&mut self, key: &Arc<str>, bell: Bell, rings_us: Option<i64>) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        let before = std::mem::replace(&mut watch.rings_us[bell as usize], rings_us);
        if before == rings_us {
            return;
        }
        if let Some(before) = before {
            self.clocks.remove(&(before, Arc::clone(key), bell));
        }
        if let Some(rings) = rings_us {
            self.clocks.insert((rings, Arc::clone(key), bell));
        }
    }

    pub(super) fn forget(&mut self, key: &Arc<str>) {
        for bell in BELLS {
            self.set_clock(key, bell, None);
        }
        self.watches.remove(key);
    }

    /// The zone that an alert is in, where it or its place tells.
    pub(super) fn zone_of<'a>(rule: &Rule, key: &'a str, open: &'a Open) -> Option<&'a str> {
        if rule.options.subject == "zone" {
            return Place::of(key).zone_of(rule);
        }
        open.alert.zone.as_deref()
    }
}
