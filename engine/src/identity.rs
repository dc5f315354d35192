//! Identity knows which names are one person: a card, a tag, a web login and a device, each known by its pseudonym only, and
//! the links between them; docs/IDENTITY.md.
//!
//! A person is what links connect, directly or through others. It is called by the `person` of the first link that stands
//! among its names, whichever that was; so who is who, and how each is called, follows from the links that stand, and not
//! from how they came to stand.

mod aliases;
mod erasing;
mod kept;
mod owners;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

pub use self::aliases::Aliases;
pub(crate) use self::owners::Owners;
pub use self::table::{IDENTITIES, IdentityTable, check_table};
use crate::changes::Changes;
use crate::event::IdentifyAction;

/// Names of one person at most. A library gives a card, a tag and a login; what links more of them together is a mistake, or
/// a device that calls everybody by the same name.
pub const NAMES_MAX: usize = 32;
/// Links at most, over all persons; about 200 bytes each.
pub const LINKS_MAX: usize = 1_000_000;

/// Two names, the lesser first.
type Pair = (Arc<str>, Arc<str>);
/// Two names as they were said: `person` and `also`.
type Said = (Arc<str>, Arc<str>);

/// How the reference table has changed between two starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableChange {
    /// `person` and `also` of links that are new.
    pub link: Vec<(Arc<str>, Arc<str>)>,
    /// Of those that are gone.
    pub unlink: Vec<(Arc<str>, Arc<str>)>,
}

impl TableChange {
    /// Links at most that are told in one record of the log, some hundred kilobytes.
    const PART: usize = 4_096;

    /// The same in parts, what goes first; none where nothing has changed.
    pub fn in_parts(self) -> Vec<Self> {
        let unlink = self.unlink.chunks(Self::PART).map(|part| Self {
            unlink: part.to_vec(),
            ..Self::default()
        });
        let link = self.link.chunks(Self::PART).map(|part| Self {
            link: part.to_vec(),
            ..Self::default()
        });
        unlink.chain(link).collect()
    }
}

/// What is kept of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Which link it is, counted from the first; `None` where it does not stand.
    since: Option<u64>,
    /// Whether the lesser of the two names was said to be the `person`.
    is_lesser: bool,
    /// Whether the reference table has it.
    in_table: bool,
}

/// A person: how it is called, and by which names it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// One of the names.
    pub person: Arc<str>,
    /// All of them, in their order.
    pub names: Vec<Arc<str>>,
}

/// Who was who before a link or an unlink, and who is who after it; the names of both are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regrouping {
    /// Persons as they were.
    pub before: Vec<Group>,
    /// Persons as they are.
    pub after: Vec<Group>,
}

impl Regrouping {
    /// Each name, how its person was called, and how it is called now.
    pub fn moves(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, &Arc<str>)> {
        let before = self.before.iter();
        before.flat_map(|group| {
            group.names.iter().filter_map(|name| {
                let now = self.after.iter().find(|after| after.names.contains(name))?;
                Some((name, &group.person, &now.person))
            })
        })
    }

    /// Who was a person under a name that is nobody's any more.
    pub fn gone(&self) -> impl Iterator<Item = &Arc<str>> {
        let is_there = |person: &Arc<str>| self.after.iter().any(|group| group.person == *person);
        let before = self.before.iter().map(|group| &group.person);
        before.filter(move |person| !is_there(person))
    }
}

/// All links, and the persons they make.
#[derive(Debug, Default)]
pub struct Identity {
    links: BTreeMap<Pair, Link>,
    /// The other ends of the links that stand.
    neighbours: FxHashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// How many links stand.
    standing: usize,
    aliases: Aliases,
    /// The number of the next link.
    next: u64,
    /// Links that were not made because a person would have had too many names, or there were too many links.
    refused: u64,
    changes: Changes<Pair, Link>,
}

impl Identity {
    /// Everybody has one name.
    pub fn new() -> Self {
        Self::default()
    }

    /// Which names are whose.
    pub fn aliases(&self) -> &Aliases {
        &self.aliases
    }

    /// Links that stand.
    pub fn links(&self) -> usize {
        self.standing
    }

    /// Links that were not made since the state began, for want of room.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Whether something is said of two names that would change who is who, or which links stand.
    pub fn is_news(&self, person: &Arc<str>, also: &Arc<str>, action: IdentifyAction) -> bool {
        person != also
            && match action {
                IdentifyAction::Link => !self.stands(person, also),
                IdentifyAction::Unlink => self.aliases.person(person) == self.aliases.person(also),
            }
    }

    /// `person` and `also` are one person from now on; what that changes, if anything.
    pub fn link(&mut self, person: &Arc<str>, also: &Arc<str>) -> Option<Regrouping> {
        if person == also || self.stands(person, also) {
            return None;
        }
        let before = [self.group(person), self.group(also)];
        let is_one = before[0].person == before[1].person;
        let names = before[0].names.len() + before[1].names.len();
        if !is_one && names > NAMES_MAX || self.links.len() >= LINKS_MAX {
            self.refuse(names);
            return None;
        }
        let key = pair(person, also);
        let is_lesser = key.0 == *person;
        let in_table = self.links.get(&key).is_some_and(|link| link.in_table);
        let link = Link {
            since: Some(self.next),
            is_lesser,
            in_table,
        };
        self.next += 1;
        self.put(key, link);
        if is_one {
            return None;
        }
        let after = vec![self.connected(person)];
        Some(self.regroup(before.to_vec(), after))
    }

    /// `person` and `also` are not one person: the link between them goes; where others still connect them, `also` leaves with
    /// all its links. What that changes, if anything.
    pub fn unlink(&mut self, person: &Arc<str>, also: &Arc<str>) -> Option<Regrouping> {
        let before = self.group(person);
        if person == also || !before.names.contains(also) {
            return None;
        }
        self.cut(person, also);
        if self.connected(person).names.contains(also) {
            let all: Vec<Arc<str>> = self.neighbours.get(also).into_iter().flatten().cloned().collect();
            for other in &all {
                self.cut(also, other);
            }
        }
        let mut after: Vec<Group> = Vec::new();
        for name in &before.names {
            if !after.iter().any(|group| group.names.contains(name)) {
                after.push(self.connected(name));
            }
        }
        Some(self.regroup(vec![before], after))
    }

    /// The reference table has this link, or has it no longer. The link itself is another matter.
    pub fn note_in_table(&mut self, person: &Arc<str>, also: &Arc<str>, in_table: bool) {
        let key = pair(person, also);
        let found = self.links.get(&key).copied();
        let link = found.unwrap_or(Link {
            since: None,
            is_lesser: key.0 == *person,
            in_table: false,
        });
        self.put(key, Link { in_table, ..link });
    }

    /// All names of the person that has this one: first how it is called, then the others.
    pub fn names_of(&self, name: &str) -> Vec<Arc<str>> {
        let person: Arc<str> = Arc::from(self.aliases.resolve(name));
        let others = self.aliases.names_of(&person).iter().filter(|name| **name != person);
        [Arc::clone(&person)].into_iter().chain(others.cloned()).collect()
    }

    /// What has to be said so that the links are those of the reference table as it is now: those that it did not have when it
    /// was last looked at, and those that it has no longer, in their order.
    pub fn differences(&self, table: &IdentityTable) -> TableChange {
        let is_new = |(person, also): &&Said| !self.links.get(&pair(person, also)).is_some_and(|link| link.in_table);
        let listed: BTreeSet<Pair> = table.links().iter().map(|(person, also)| pair(person, also)).collect();
        let former = self
            .links
            .iter()
            .filter(|(key, link)| link.in_table && !listed.contains(*key));
        TableChange {
            link: table.links().iter().filter(is_new).cloned().collect(),
            unlink: former
                .map(|((lesser, greater), link)| match link.is_lesser {
                    true => (Arc::clone(lesser), Arc::clone(greater)),
                    false => (Arc::clone(greater), Arc::clone(lesser)),
                })
                .collect(),
        }
    }

    /// The person that has this name.
    fn group(&self, name: &Arc<str>) -> Group {
        let person = self.aliases.person(name);
        Group {
            person: Arc::clone(person),
            names: self.aliases.names(person).to_vec(),
        }
    }

    fn stands(&self, one: &Arc<str>, other: &Arc<str>) -> bool {
        self.neighbours.get(one).is_some_and(|others| others.contains(other))
    }

    fn put(&mut self, key: Pair, link: Link) {
        let (one, other) = &key;
        self.standing += usize::from(link.since.is_some());
        self.standing -= usize::from(self.stands(one, other));
        match link.since {
            Some(_) => self.connect(one, other),
            None => {
                for (one, other) in [(one, other), (other, one)] {
                    if let Some(others) = self.neighbours.get_mut(one) {
                        others.remove(other);
                        if others.is_empty() {
                            self.neighbours.remove(one);
                        }
                    }
                }
            }
        }
        self.changes.note(&key);
        if link.since.is_some() || link.in_table {
            self.links.insert(key, link);
        } else {
            self.links.remove(&key);
        }
    }

    /// Each is a neighbour of the other.
    fn connect(&mut self, one: &Arc<str>, other: &Arc<str>) {
        for (one, other) in [(one, other), (other, one)] {
            let others = self.neighbours.entry(Arc::clone(one)).or_default();
            others.insert(Arc::clone(other));
        }
    }

    fn cut(&mut self, one: &Arc<str>, other: &Arc<str>) {
        let key = pair(one, other);
        if let Some(link) = self.links.get(&key).copied() {
            self.put(key, Link { since: None, ..link });
        }
    }

    /// The names that links connect with `name`, and how their person is called.
    fn connected(&self, name: &Arc<str>) -> Group {
        let mut names = BTreeSet::from([Arc::clone(name)]);
        let mut ahead = VecDeque::from([Arc::clone(name)]);
        let mut first: Option<(u64, Arc<str>)> = None;
        while let Some(name) = ahead.pop_front() {
            for other in self.neighbours.get(&name).into_iter().flatten() {
                let key = pair(&name, other);
                if let Some(link) = self.links.get(&key)
                    && let Some(since) = link.since
                    && first.as_ref().is_none_or(|(first, _)| since < *first)
                {
                    first = Some((since, if link.is_lesser { key.0 } else { key.1 }));
                }
                if names.insert(Arc::clone(other)) {
                    ahead.push_back(Arc::clone(other));
                }
            }
        }
        Group {
            person: first.map_or_else(|| Arc::clone(name), |(_, person)| person),
            names: names.into_iter().collect(),
        }
    }

    fn regroup(&mut self, before: Vec<Group>, after: Vec<Group>) -> Regrouping {
        let regrouping = Regrouping { before, after };
        self.aliases.apply(&regrouping);
        regrouping
    }

    fn refuse(&mut self, names: usize) {
        self.refused += 1;
        metrics::counter!("usher_links_refused_total").increment(1);
        if self.refused == 1 {
            tracing::warn!(
                names,
                "a link is not made: a person has {NAMES_MAX} names at most, and there are {LINKS_MAX} links at most; \
                 usher_links_refused_total counts further ones"
            );
        }
    }
}

fn pair(one: &Arc<str>, other: &Arc<str>) -> Pair {
    let (lesser, greater) = if one <= other { (one, other) } else { (other, one) };
    (Arc::clone(lesser), Arc::clone(greater))
}
