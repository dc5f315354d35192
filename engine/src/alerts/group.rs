//! A group: one notice that speaks for all alerts of a rule at one place, beside their own lives.

use std::sync::Arc;

use serde_json::{Value, json};
use usher_queries::statement::Group;

use super::found::{alert_id, blank_alert};
use super::life::Happened;
use super::watch::{Bell, Open, Phase, Place, Watch};
use super::{Alerts, Moment, Step};
use crate::alert::{Alert, What, Why};
use crate::rule::{Rule, subject_name};

impl Alerts {
    /// Names the group in an alert that is about to be raised, so that who is told of the group can leave it out.
    pub(super) fn name_group(&mut self, key: &Arc<str>, rule: &Rule, moment: &Moment<'_>) {
        let Some(by) = rule.options.group else { return };
        if let Some(open) = self.watches.get_mut(key).and_then(|watch| watch.open.as_mut()) {
            open.alert.group = group_subject(by, rule, key, open, moment);
        }
    }

    /// Notes whether an alert is one of a group: while it stands and nothing holds it back.
    pub(super) fn regroup(&mut self, key: &Arc<str>, rule: &Rule, at: i64, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        if rule.options.group.is_none() {
            return;
        }
        let standing = self.watches.get(key).and_then(Watch::standing);
        let member = standing.filter(|open| !open.alert.suppressed);
        let group = member.and_then(|open| open.alert.group.as_deref());
        let group: Option<Arc<str>> = group.map(|subject| group_key(rule, key, subject).into());
        let rank = member.map_or(0, |open| super::rank(&open.alert.severity));
        let regrouped = self
            .relations
            .note_group(key, group.as_ref().map(|group| (group, rank)));
        let mut is_new = group.is_some();
        match regrouped.left {
            Some((left, names_others)) if Some(&left) != group.as_ref() => {
                self.changed(&left, names_others, at, moment, steps);
            }
            Some(_) => is_new = false,
            None => {}
        }
        let Some(group) = group else { return };
        if self.watches.contains_key(&group) {
            self.changed(&group, regrouped.names_others, at, moment, steps);
        } else if is_new {
            self.begin_group(&group, key, rule, at, moment, steps);
        }
    }

    /// A group has its first member, or its first since staff cleared its notice.
    fn begin_group(
        &mut self,
        group: &Arc<str>,
        first: &Arc<str>,
        rule: &Rule,
        at: i64,
        moment: &Moment<'_>,
        steps: &mut Vec<Step>,
    ) {
        let Some(notice) = self.rules.get(&rule.group_name()).map(Arc::clone) else {
            return;
        };
        let Some(first) = self.watches.get(first).and_then(|watch| watch.open.as_ref()) else {
            return;
        };
        let when = usher_queries::rows::time_to_text(at);
        let alert = Alert {
            id: alert_id(&notice.name, group, std::slice::from_ref(&first.alert.id), &when),
            causes: first.alert.causes.clone(),
            trace: first.alert.trace,
            ..blank_alert(&notice, Place::of(group), at)
        };
        let watch = Watch::new(&notice.name, at, "");
        if self.add_watch(group, watch).is_none() {
            return;
        }
        let mut open = Open::new(alert, at);
        if let Some(said) = self.said_of(group, rule, &open.alert, true, moment) {
            said.write(&mut open.alert);
        }
        let due = at.saturating_add(rule.options.group_wait_us);
        self.put_forward(group, open, due, i64::MIN, moment, steps);
    }

    /// Members came or went, or became graver. That is told when others had time to follow.
    fn changed(&mut self, group: &Arc<str>, names_others: bool, at: i64, moment: &Moment<'_>, steps: &mut Vec<Step>) {
        let Some(watch) = self.watches.get(group) else { return };
        let (phase, is_gathering) = (watch.phase, watch.rings_us[Bell::Phase as usize].is_some());
        let Some(rule) = self.rules.get(&watch.rule).map(Arc::clone) else {
            return;
        };
        if self.relations.members(group).is_none() {
            let what = match phase {
                Phase::Pending { .. } => What::Withdrawn,
                _ => What::Cleared,
            };
            self.end(group, at, Happened::by_usher(at, what, Why::Group), moment, steps);
            self.forget(group);
            return;
        }
        let Some(alert) = watch.open.as_ref().map(|open| &open.alert) else {
            return;
        };
        let Some(said) = self.said_of(group, &rule, alert, names_others, moment) else {
            return;
        };
        if !names_others && !said.is_new(alert) {
            return;
        }
        if let Some(open) = self.watches.get_mut(group).and_then(|watch| watch.open.as_mut()) {
            said.write(&mut open.alert);
        }
        if phase != Phase::Standing {
            return;
        }
        if rule.options.group_wait_us == 0 {
            self.turn(group, Happened::by_usher(at, What::Regrouped, Why::Group), steps);
            return;
        }
        if !is_gathering {
            let due = at.saturating_add(rule.options.group_wait_us);
            self.set_clock(group, Bell::Phase, Some(due));
        }
        self.remeasured(group, steps);
    }

    /// What a notice says of its members. Each change of a large group costs no more than one of a small one: of the members
    /// no more are looked at than are named, and those only where others are named than before.
    fn said_of(
        &self,
        group: &Arc<str>,
        rule: &Rule,
        notice: &Alert,
        names_others: bool,
        moment: &Moment<'_>,
    ) -> Option<Said> {
        let members = self.relations.members(group)?;
        let alert_of = |key: &Arc<str>| self.watches.get(key)?.open.as_ref().map(|open| &open.alert);
        let named = |alert: &Alert| json!({"id": alert.id, "subject": alert.subject.id, "zone": alert.zone});
        let count = members.count();
        let name = subject_name(&notice.subject.kind, &notice.site, &notice.subject.id, moment.places);
        let first = members
            .named()
            .find_map(alert_of)
            .map_or("", |alert| alert.text.as_str());
        Some(Said {
            of: Arc::clone(&rule.of),
            count,
            severity: members.gravest()?,
            members: names_others.then(|| members.named().filter_map(alert_of).map(named).collect()),
            text: match count {
                1 => format!("{name}: {first}"),
                _ => format!("{name}: {count} alerts, such as: {first}"),
            },
        })
    }
}

/// What a notice says of its members: how many, which, and the gravest severity.
struct Said {
    of: Arc<str>,
    count: usize,
    severity: &'static str,
    /// None where they are those of before.
    members: Option<Vec<Value>>,
    text: String,
}

impl Said {
    fn is_new(&self, alert: &Alert) -> bool {
        alert.severity != self.severity || alert.values.get("count") != Some(&self.count.into())
    }

    fn write(self, alert: &mut Alert) {
        self.severity.clone_into(&mut alert.severity);
        alert.text = self.text;
        let mut write = |name: &str, value: Value| alert.values.insert(name.to_owned(), value);
        write("finding", "group".into());
        write("of", self.of.as_ref().into());
        write("count", self.count.into());
        if let Some(members) = self.members {
            write("members", members.into());
        }
    }
}

/// The key of a group's watch.
pub(super) fn group_key(rule: &Rule, member: &str, subject: &str) -> String {
    let place = Place {
        site: Place::of(member).site,
        zone: "",
        subject,
    };
    place.key(&rule.group_name())
}

/// The subject of the group that an alert belongs to; `None` in a zone without a parent.
fn group_subject(by: Group, rule: &Rule, key: &str, open: &Open, moment: &Moment<'_>) -> Option<String> {
    let site = Place::of(key).site;
    match by {
        Group::Site => Some(site.to_owned()),
        Group::Parent => {
            let zone = Alerts::zone_of(rule, key, open)?;
            moment.places.zone(site, zone)?.parent.clone()
        }
    }
}
