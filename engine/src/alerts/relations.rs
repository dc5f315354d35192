//! Relations are what alerts have to do with each other: who holds back whom, and who is told together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use usher_queries::statement::SEVERITIES;

use super::watch::{Open, Place};
use crate::rule::Rule;
use crate::site::Places;

/// Members named in a notice; it counts the others.
pub(super) const NAMED_MAX: usize = 100;
/// Zones within zones are followed so deep.
const PARENTS_MAX: usize = 16;

/// A place at which an alert that stands holds others back: rule, site, what it is, id.
type Scope = (Arc<str>, String, ScopeKind, String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ScopeKind {
    /// The very subject.
    Subject,
    /// A zone that the subject is in.
    InZone,
    /// A zone that is the subject, with all zones in it.
    Zone,
    /// The whole site.
    Site,
}

/// A rule that another holds back.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Inhibited {
    rule: Arc<str>,
    /// The kind of its subjects.
    subject: String,
}

/// Which alerts stand where, by what others ask. In trees, as everything of which there is one for each alert: a hash table
/// that grows moves all at once, and events wait for that.
#[derive(Debug, Default)]
pub(super) struct Relations {
    /// Rules by the name of one that holds them back.
    inhibits: FxHashMap<Arc<str>, Vec<Inhibited>>,
    /// Rules whose alerts have to do with others'.
    linked: FxHashSet<Arc<str>>,
    /// Standing alerts of rules that hold others back, by where they do.
    by_scope: BTreeMap<Scope, BTreeSet<Arc<str>>>,
    scopes: BTreeMap<Arc<str>, Vec<Scope>>,
    /// Standing alerts of rules that may be held back.
    held: BTreeSet<Arc<str>>,
    /// Members by the key of their group, and the other way round with how grave each is.
    members: BTreeMap<Arc<str>, Members>,
    group_of: BTreeMap<Arc<str>, (Arc<str>, usize)>,
}

/// The alerts of a group. What is said of them costs the same however many they are.
#[derive(Debug, Default)]
pub(super) struct Members {
    keys: BTreeSet<Arc<str>>,
    /// How many there are of each severity.
    of_rank: [usize; SEVERITIES.len()],
}

impl Members {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.keys.len()
    }

    /// Those that are named, in the order of their keys.
    pub(super) fn named(&self) -> impl Iterator<Item = &Arc<str>> {
        self.keys.iter().take(NAMED_MAX)
    }

    /// The severity of the gravest.
    pub(super) fn gravest(&self) -> Option<&'static str> {
        let rank = self.of_rank.iter().rposition(|count| *count > 0)?;
        Some(SEVERITIES[rank])
    }

    /// Whether a key is or would be among those that are named.
    fn names(&self, key: &Arc<str>) -> bool {
        self.keys.iter().nth(NAMED_MAX - 1).is_none_or(|last| key <= last)
    }

    /// True when others are named now.
    fn add(&mut self, key: &Arc<str>, rank: usize) -> bool {
        self.keys.insert(Arc::clone(key));
        self.of_rank[rank] += 1;
        self.names(key)
    }

    /// True when others are named now.
    fn remove(&mut self, key: &Arc<str>, rank: usize) -> bool {
        let named = self.names(key);
        self.keys.remove(key);
        self.of_rank[rank] -= 1;
        named
    }
}

/// What became of groups when an alert joined one, or left one.
#[derive(Debug, Default)]
pub(super) struct Regrouped {
    /// The group it was in before, and whether that names others now.
    pub(super) left: Option<(Arc<str>, bool)>,
    /// Whether the group it is in names others now.
    pub(super) names_others: bool,
}

impl Relations {
    /// Of these rules, with no alert yet.
    pub(super) fn of<'r>(rules: impl Iterator<Item = &'r Arc<Rule>>) -> Self {
        let mut relations = Self::default();
        for rule in rules {
            for other in &rule.options.inhibited_by {
                let other: Arc<str> = Arc::from(other.value.as_str());
                relations.linked.insert(Arc::clone(&other));
                relations.linked.insert(Arc::clone(&rule.name));
                let inhibited = relations.inhibits.entry(other).or_default();
                inhibited.push(Inhibited {
                    rule: Arc::clone(&rule.name),
                    subject: rule.options.subject.clone(),
                });
                inhibited.sort();
            }
            if rule.options.group.is_some() {
                relations.linked.insert(Arc::clone(&rule.name));
            }
        }
        relations
    }

    /// Whether alerts of any rule have to do with others'.
    pub(super) fn has_links(&self) -> bool {
        !self.linked.is_empty()
    }

    /// Whether alerts of the rule have to do with others'.
    pub(super) fn is_linked(&self, rule: &str) -> bool {
        self.linked.contains(rule)
    }

    /// Notes whether an alert stands. Gives the keys of those that may be held back, or no longer, because of that.
    pub(super) fn note_standing(&mut self, key: &Arc<str>, rule: &Rule, open: Option<&Open>) -> Vec<Arc<str>> {
        if !rule.options.inhibited_by.is_empty() {
            match open {
                Some(_) => self.held.insert(Arc::clone(key)),
                None => self.held.remove(key),
            };
        }
        let Some(inhibited) = self.inhibits.get(&rule.name) else {
            return Vec::new();
        };
        match (open, self.scopes.contains_key(key)) {
            (Some(open), false) => {
                let scopes = scopes_of(rule, key, open);
                for scope in &scopes {
                    self.by_scope.entry(scope.clone()).or_default().insert(Arc::clone(key));
                }
                self.scopes.insert(Arc::clone(key), scopes);
            }
            (None, true) => {
                for scope in self.scopes.remove(key).unwrap_or_default() {
                    if let Some(keys) = self.by_scope.get_mut(&scope) {
                        keys.remove(key);
                        if keys.is_empty() {
                            self.by_scope.remove(&scope);
                        }
                    }
                }
            }
            _ => return Vec::new(),
        }
        let place = Place::of(key);
        let subject = rule.options.subject.as_str();
        let mut touched = Vec::new();
        for inhibited in inhibited {
            // Only what is about places holds back more of its own kind than the same subject.
            if inhibited.subject == subject && !matches!(subject, "site" | "zone") {
                touched.extend(self.held.get(place.key(&inhibited.rule).as_str()).cloned());
                continue;
            }
            let prefix = Place::prefix(&inhibited.rule, place.site);
            let from: Arc<str> = Arc::from(prefix.as_str());
            let held = self.held.range(from..).take_while(|key| key.starts_with(&prefix));
            touched.extend(held.cloned());
        }
        touched
    }

    /// The rules of which an alert stands that holds back this one.
    pub(super) fn inhibitors(
        &self,
        rule: &Rule,
        key: &str,
        zone: Option<&str>,
        kind_of: impl Fn(&str) -> Option<Arc<Rule>>,
        places: &Places,
    ) -> Vec<String> {
        let place = Place::of(key);
        let stands = |other: &str, kind: ScopeKind, id: &str| {
            self.by_scope
                .contains_key(&(Arc::from(other), place.site.to_owned(), kind, id.to_owned()))
        };
        let holds_back = |other: &str| {
            let same_kind = kind_of(other).is_some_and(|other| other.options.subject == rule.options.subject);
            if stands(other, ScopeKind::Site, "") {
                return true;
            }
            if same_kind && stands(other, ScopeKind::Subject, &own_name(place)) {
                return true;
            }
            let Some(zone) = zone else { return false };
            if !same_kind && stands(other, ScopeKind::InZone, zone) {
                return true;
            }
            let mut around = Some(zone);
            for _ in 0..PARENTS_MAX {
                let Some(zone) = around else { break };
                if stands(other, ScopeKind::Zone, zone) {
                    return true;
                }
                around = places.zone(place.site, zone).and_then(|zone| zone.parent.as_deref());
            }
            false
        };
        let names = rule.options.inhibited_by.iter().map(|name| name.value.as_str());
        names.filter(|name| holds_back(name)).map(str::to_owned).collect()
    }

    /// Notes the group that an alert is in, and the rank of its severity.
    pub(super) fn note_group(&mut self, key: &Arc<str>, group: Option<(&Arc<str>, usize)>) -> Regrouped {
        let mut regrouped = Regrouped::default();
        let before = match group {
            Some((group, rank)) => self.group_of.insert(Arc::clone(key), (Arc::clone(group), rank)),
            None => self.group_of.remove(key),
        };
        if let Some((before, rank)) = before
            && let Some(members) = self.members.get_mut(&before)
        {
            let names_others = members.remove(key, rank);
            if members.count() == 0 {
                self.members.remove(&before);
            }
            regrouped.left = Some((before, names_others));
        }
        if let Some((group, rank)) = group {
            let members = self.members.entry(Arc::clone(group)).or_default();
            regrouped.names_others = members.add(key, rank);
        }
        regrouped
    }

    /// The members of a group; none of one that has none.
    pub(super) fn members(&self, group: &str) -> Option<&Members> {
        self.members.get(group)
    }
}

/// A subject's name with its zone, where that belongs to it.
fn own_name(place: Place<'_>) -> String {
    format!("{}/{}", place.zone, place.subject)
}

/// Where an alert holds others back: of the same kind the same subject, of another kind what is in the same zone. One about
/// a zone holds back all in it, and one about a site all of it.
fn scopes_of(rule: &Rule, key: &str, open: &Open) -> Vec<Scope> {
    let place = Place::of(key);
    let scope = |kind, id: &str| (Arc::clone(&rule.name), place.site.to_owned(), kind, id.to_owned());
    match rule.options.subject.as_str() {
        "site" => vec![scope(ScopeKind::Site, "")],
        "zone" => vec![scope(ScopeKind::Zone, place.subject)],
        _ => {
            let zone = open.alert.zone.as_deref().map(|zone| scope(ScopeKind::InZone, zone));
            let subject = scope(ScopeKind::Subject, &own_name(place));
            std::iter::once(subject).chain(zone).collect()
        }
    }
}
