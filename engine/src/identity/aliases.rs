//! Aliases tell of a name which person has it, and of a person which names it has.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Regrouping;

/// Which names are whose. Of persons with one name nothing is kept.
#[derive(Debug, Clone, Default)]
pub struct Aliases {
    /// Of each name that is not how its person is called.
    person_of: FxHashMap<Arc<str>, Arc<str>>,
    /// Of each person with several names, all of them in their order.
    names_of: FxHashMap<Arc<str>, Vec<Arc<str>>>,
}

impl Aliases {
    /// Whether everybody has one name.
    pub fn is_empty(&self) -> bool {
        self.person_of.is_empty()
    }

    /// How the person is called that has this name.
    pub fn person<'a>(&'a self, name: &'a Arc<str>) -> &'a Arc<str> {
        self.person_of.get(name).unwrap_or(name)
    }

    /// The same of a name that is not shared.
    pub fn resolve<'a>(&'a self, name: &'a str) -> &'a str {
        self.person_of.get(name).map_or(name, AsRef::as_ref)
    }

    /// Whether a name is another than how its person is called.
    pub fn is_alias(&self, name: &str) -> bool {
        self.person_of.contains_key(name)
    }

    /// The names of a person, its own among them.
    pub fn names<'a>(&'a self, person: &'a Arc<str>) -> &'a [Arc<str>] {
        self.names_of
            .get(person)
            .map_or(std::slice::from_ref(person), Vec::as_slice)
    }

    /// The names of a person that has several; none of one that has not.
    pub fn names_of(&self, person: &str) -> &[Arc<str>] {
        self.names_of.get(person).map_or(&[], Vec::as_slice)
    }

    /// How many names a person has beside its own.
    pub fn also(&self, person: &str) -> usize {
        self.names_of.get(person).map_or(0, |names| names.len() - 1)
    }

    /// Who is who from now on.
    pub fn apply(&mut self, regrouping: &Regrouping) {
        for group in &regrouping.before {
            self.names_of.remove(&group.person);
            for name in &group.names {
                self.person_of.remove(name);
            }
        }
        for group in regrouping.after.iter().filter(|group| group.names.len() > 1) {
            for name in group.names.iter().filter(|name| **name != group.person) {
                self.person_of.insert(Arc::clone(name), Arc::clone(&group.person));
            }
            self.names_of.insert(Arc::clone(&group.person), group.names.clone());
        }
    }
}
