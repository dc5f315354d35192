//! Lookups keep who looked a person up, when and what for: the other way round, the person's business too.
//!
//! They come out of the log, change nothing else, and are kept in bounded memory; the log has all of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use usher_queries::rows::time_to_text;

use crate::capture::{Entries, Since};
use crate::changes::Changes;
use crate::erasure::Who;

/// Lookups kept over all; beyond it the oldest go. Some hundred bytes each.
const LOOKS_MAX: usize = 50_000;
/// Persons named in them, over all.
const NAMED_MAX: usize = 250_000;
/// Lookups kept of a person, so that a script that asks for one all the time leaves those of the others.
const OF_PERSON_MAX: usize = 1_000;

/// Somebody was shown what is known of people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Their pseudonyms, each once.
    pub persons: Vec<Arc<str>>,
    /// Who it was shown to, as they said.
    pub by: String,
    /// When, by our clock, microseconds since 1970.
    pub at_us: i64,
    /// What: `person`, `points`, `messages`, `consent`, `lookups`, `query`, `trial`, `export` or `erasure`.
    pub what: String,
    /// What for, where they said so.
    pub reason: Option<String>,
}

/// A lookup as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct LookView {
    /// Consecutive over all lookups.
    pub number: u64,
    /// Who looked, as they said; `unknown` where they did not.
    pub by: String,
    /// When, RFC 3339.
    pub at: String,
    /// What was shown: `person`, `points`, `messages`, `consent`, `lookups`, `query`, `trial`, `export` or `erasure`.
    pub what: String,
    /// What for, where they said so.
    pub reason: Option<String>,
    /// How many persons were shown together.
    pub persons: usize,
}

/// The lookups of all people.
#[derive(Debug, Default)]
pub struct Lookups {
    looks: BTreeMap<u64, Arc<Look>>,
    /// The numbers of each person's, oldest first.
    of: BTreeMap<Arc<str>, VecDeque<u64>>,
    named: usize,
    changes: Changes<u64, Arc<Look>>,
}

impl Lookups {
    /// Nobody was looked up yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one more.
    pub fn take(&mut self, look: Look) {
        let number = self.looks.last_key_value().map_or(0, |(last, _)| last + 1);
        let look = Arc::new(look);
        self.looks.insert(number, Arc::clone(&look));
        self.changes.note(&number);
        self.index(number, &look);
        for person in &look.persons {
            if let Some(numbers) = self.of.get_mut(person)
                && numbers.len() > OF_PERSON_MAX
                && let Some(oldest) = numbers.pop_front()
            {
                self.leave_out(oldest, person);
            }
        }
        while self.looks.len() > LOOKS_MAX || self.named > NAMED_MAX {
            let Some((oldest, look)) = self.looks.pop_first() else {
                break;
            };
            self.changes.note(&oldest);
            self.named -= look.persons.len();
            for person in &look.persons {
                self.unindex(oldest, person);
            }
        }
    }

    fn index(&mut self, number: u64, look: &Look) {
        self.named += look.persons.len();
        for person in &look.persons {
            self.of.entry(Arc::clone(person)).or_default().push_back(number);
        }
    }

    fn unindex(&mut self, number: u64, person: &str) {
        if let Some(numbers) = self.of.get_mut(person) {
            numbers.retain(|of| *of != number);
            if numbers.is_empty() {
                self.of.remove(person);
            }
        }
    }

    /// Leaves a person out of a lookup, which goes with the last one in it.
    fn leave_out(&mut self, number: u64, person: &str) {
        let Some(look) = self.looks.get_mut(&number) else {
            return;
        };
        let look = Arc::make_mut(look);
        look.persons.retain(|named| &**named != person);
        self.named -= 1;
        if look.persons.is_empty() {
            self.looks.remove(&number);
        }
        self.changes.note(&number);
    }

    /// A person is forgotten, and so is who looked.
    pub fn forget(&mut self, person: &str) {
        for number in self.of.remove(person).unwrap_or_default() {
            self.leave_out(number, person);
        }
    }

    /// Forgets whom whoever is to be erased was shown to, of what is kept of a lookup: that somebody looked, and when, stays.
    /// Gives how many lookups there were.
    pub fn erase(&mut self, who: &Who) -> u64 {
        let mut erased = BTreeSet::new();
        for person in who.among(self.of.keys()) {
            for number in self.of.remove(&person).unwrap_or_default() {
                if let Some(look) = self.looks.get_mut(&number) {
                    Arc::make_mut(look).persons.retain(|named| *named != person);
                    self.named -= 1;
                    self.changes.note(&number);
                    erased.insert(number);
                }
            }
        }
        erased.len() as u64
    }

    /// A person's, newest first.
    pub fn of(&self, person: &str) -> Vec<LookView> {
        self.of_all(&[Arc::from(person)])
    }

    /// Those of a person with all these names, newest first.
    pub fn of_all(&self, names: &[Arc<str>]) -> Vec<LookView> {
        let numbers = names.iter().filter_map(|name| self.of.get(name)).flatten();
        let numbers: BTreeSet<&u64> = numbers.collect();
        let numbers = numbers.into_iter().rev();
        let views = numbers.filter_map(|number| {
            let look = self.looks.get(number)?;
            Some(LookView {
                number: *number,
                by: look.by.clone(),
                at: time_to_text(look.at_us),
                what: look.what.clone(),
                reason: look.reason.clone(),
                persons: look.persons.len(),
            })
        });
        views.collect()
    }

    /// Takes lookups that changed since the last checkpoint, about `room` of them, ahead of the next one.
    pub fn gather(&mut self, room: &mut usize) {
        self.changes.gather(room, &self.looks);
    }

    /// For a checkpoint: the lookups that changed since the last one.
    pub fn capture(&mut self) -> Since<u64, Arc<Look>> {
        self.changes.take(&self.looks)
    }

    /// The next capture is to hold everything.
    pub fn capture_anew(&mut self) {
        self.changes.begin_anew();
    }

    /// Takes back what was captured.
    pub fn restore(&mut self, rows: Entries<u64, Arc<Look>>) {
        for (number, look) in rows {
            match look {
                Some(look) => self.looks.insert(number, look),
                None => self.looks.remove(&number),
            };
        }
        (self.named, self.of) = (0, BTreeMap::new());
        for (number, look) in self.looks.clone() {
            self.index(number, &look);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(persons: &[&str], by: &str, at: i64) -> Look {
        Look {
            persons: persons.iter().map(|person| Arc::from(*person)).collect(),
            by: by.to_owned(),
            at_us: at * 1_000_000,
            what: "person".to_owned(),
            reason: None,
        }
    }

    fn by(lookups: &Lookups, person: &str) -> Vec<(u64, String)> {
        let views = lookups.of(person).into_iter();
        views.map(|view| (view.number, view.by)).collect()
    }

    fn named(pairs: &[(u64, &str)]) -> Vec<(u64, String)> {
        pairs.iter().map(|(number, by)| (*number, (*by).to_owned())).collect()
    }

    #[test]
    fn a_person_is_told_who_looked_the_newest_first() {
        let mut lookups = Lookups::new();
        lookups.take(look(&["p_a"], "Li", 1));
        lookups.take(look(&["p_b", "p_a"], "Wang", 2));
        lookups.take(look(&["p_b"], "Zhao", 3));
        assert_eq!(by(&lookups, "p_a"), named(&[(1, "Wang"), (0, "Li")]));
        assert_eq!(by(&lookups, "p_b"), named(&[(2, "Zhao"), (1, "Wang")]));
        let first = &lookups.of("p_a")[0];
        assert_eq!((first.at.as_str(), first.persons), ("1970-01-01T00:00:02Z", 2));

        let mut restored = Lookups::new();
        restored.restore(lookups.capture().rows.into_iter().collect());
        // Who is forgotten leaves the others' lookups as they were, but for the number of those shown.
        lookups.forget("p_a");
        restored.restore(lookups.capture().rows.into_iter().collect());
        for lookups in [&lookups, &restored] {
            assert_eq!(by(lookups, "p_a"), []);
            assert_eq!(by(lookups, "p_b"), named(&[(2, "Zhao"), (1, "Wang")]));
            assert_eq!(
                (lookups.of("p_b")[1].persons, lookups.named, lookups.looks.len()),
                (1, 2, 2)
            );
        }
        assert_eq!(restored.looks, lookups.looks);
    }

    #[test]
    fn of_whoever_is_erased_stays_that_somebody_looked() {
        let mut lookups = Lookups::new();
        lookups.take(look(&["p_a"], "Li", 1));
        lookups.take(look(&["p_b", "p_a", "p_c"], "Wang", 2));
        lookups.take(look(&["p_c"], "Zhao", 3));
        let all = [Arc::from("p_a"), Arc::from("p_c")];
        let numbers: Vec<u64> = lookups.of_all(&all).iter().map(|view| view.number).collect();
        assert_eq!(numbers, [2, 1, 0], "of both names, each once");

        assert_eq!(lookups.erase(&Who::known(&all)), 3);
        assert!(lookups.of_all(&all).is_empty());
        let mut replayed = Lookups::new();
        for left in [look(&[], "Li", 1), look(&["p_b"], "Wang", 2), look(&[], "Zhao", 3)] {
            replayed.take(left);
        }
        assert_eq!((lookups.looks.clone(), lookups.named), (replayed.looks.clone(), 1));
        assert_eq!(by(&lookups, "p_b"), named(&[(1, "Wang")]));
        assert_eq!(lookups.erase(&Who::known(&all)), 0);
    }

    #[test]
    fn there_is_an_end_to_them_and_one_person_takes_no_room_of_others() {
        let mut lookups = Lookups::new();
        lookups.take(look(&["p_quiet"], "first", 0));
        for at in 1..=1_500 {
            lookups.take(look(&["p_busy"], "script", at));
        }
        assert_eq!(lookups.of("p_busy").len(), OF_PERSON_MAX);
        assert_eq!(by(&lookups, "p_quiet"), named(&[(0, "first")]));
        assert_eq!(
            lookups.looks.len(),
            OF_PERSON_MAX + 1,
            "what nobody is named in is gone"
        );
        for person in 0..LOOKS_MAX {
            lookups.take(look(&[&format!("p_{person}")], "list", 2_000));
        }
        assert_eq!((lookups.looks.len(), lookups.named), (LOOKS_MAX, LOOKS_MAX));
        assert!(lookups.of("p_quiet").is_empty() && lookups.of("p_busy").is_empty());
        assert_eq!(lookups.of.len(), LOOKS_MAX, "who is in none is not kept");
    }
}
