//! Erasing a person: figures, the visit that is going on, and acts that wait.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::People;
use crate::erasure::Who;
use crate::identity::Regrouping;

impl People {
    /// Forgets all about somebody, as if nobody had ever been seen: who comes again is new. Gives how many there were.
    pub fn erase(&mut self, who: &Who) -> u64 {
        let named = match who.names() {
            Some(names) => names.to_vec(),
            None => who.among(self.people.iter().map(|person| &person.name)),
        };
        let mut erased: BTreeSet<Arc<str>> = BTreeSet::new();
        self.repairing.erase(who);
        self.left_out.retain(|name| !who.is(name));
        for name in named {
            if self.people.find(&name).is_some() {
                self.forget(&name);
                erased.insert(name);
            }
        }
        // Acts that wait have the name under which they were done.
        self.let_go_of_held(|act, aliases| {
            let person = aliases.person(&act.person);
            let is_theirs = who.is(&act.person) || who.is(person);
            if is_theirs {
                erased.insert(Arc::clone(person));
            }
            is_theirs
        });
        erased.len() as u64
    }

    /// Names are other persons' now that somebody was erased.
    pub fn rename(&mut self, regrouping: &Regrouping) {
        self.aliases.apply(regrouping);
    }
}
