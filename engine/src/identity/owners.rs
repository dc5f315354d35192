//! Owners tell of what a person has under which of its names it came, so that it goes back there when the name is another
//! person's again. What is not listed came under the name by which the person is called.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::capture::{Capture, Entries, Parts};
use crate::changes::Changes;
use crate::erasure::Who;

/// Of each person with such things, their ids and names.
type Whose = BTreeMap<String, Arc<str>>;

/// Whose things are, by person.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    of: BTreeMap<Arc<str>, Whose>,
    changes: Changes<Arc<str>, Whose>,
}

impl Owners {
    /// Under which name something came that `person` has.
    pub(crate) fn name<'a>(&'a self, person: &'a Arc<str>, id: &str) -> &'a Arc<str> {
        self.of.get(person).and_then(|whose| whose.get(id)).unwrap_or(person)
    }

    /// Something that `person` has came under that name.
    pub(crate) fn note(&mut self, person: &Arc<str>, id: &str, name: &Arc<str>) {
        if person == name {
            self.drop_of(person, id);
            return;
        }
        let whose = self.of.entry(Arc::clone(person)).or_default();
        whose.insert(id.to_owned(), Arc::clone(name));
        self.changes.note(person);
    }

    /// A person has something no longer.
    pub(crate) fn drop_of(&mut self, person: &Arc<str>, id: &str) {
        if let Some(whose) = self.of.get_mut(person)
            && whose.remove(id).is_some()
        {
            if whose.is_empty() {
                self.of.remove(person);
            }
            self.changes.note(person);
        }
    }

    /// Keeps of a person's things those that it still has.
    pub(crate) fn keep(&mut self, person: &Arc<str>, is_there: impl Fn(&str) -> bool) {
        if let Some(whose) = self.of.get_mut(person) {
            let before = whose.len();
            whose.retain(|id, _| is_there(id));
            if whose.len() == before {
                return;
            }
            if whose.is_empty() {
                self.of.remove(person);
            }
            self.changes.note(person);
        }
    }

    /// Forgets whoever is to be erased: what they have, and what came under a name of theirs.
    pub(crate) fn erase(&mut self, who: &Who) {
        let theirs = |(person, whose): &(&Arc<str>, &Whose)| who.is(person) || whose.values().any(|name| who.is(name));
        let touched: Vec<Arc<str>> = self
            .of
            .iter()
            .filter(theirs)
            .map(|(person, _)| Arc::clone(person))
            .collect();
        for person in touched {
            if let Some(whose) = self.of.get_mut(&person) {
                whose.retain(|_, name| !who.is(&person) && !who.is(name));
                if whose.is_empty() {
                    self.of.remove(&person);
                }
            }
            self.changes.note(&person);
        }
    }

    /// Takes what changed since the last checkpoint, about `room` persons, ahead of the next one.
    pub(crate) fn gather(&mut self, room: &mut usize) {
        self.changes.gather(room, &self.of);
    }

    /// For a checkpoint: what changed since the last one, as the part of that name.
    pub(crate) fn capture(&mut self, part: &str, capture: &mut Capture) {
        capture.rows(part, self.changes.take(&self.of));
    }

    /// The next capture is to hold everything.
    pub(crate) fn capture_anew(&mut self) {
        self.changes.begin_anew();
    }

    /// Takes back what was captured; nothing where there is no such part.
    ///
    /// # Errors
    /// In words, when the bytes are something else.
    pub(crate) fn restore(&mut self, part: &str, parts: &Parts) -> Result<(), String> {
        let rows: Entries<Arc<str>, Whose> = parts.rows(part)?;
        for (person, whose) in rows {
            match whose {
                Some(whose) => self.of.insert(person, whose),
                None => self.of.remove(&person),
            };
        }
        Ok(())
    }
}
