//! Messages of several names: what becomes of them when names turn out to be one person's, or not.

use std::sync::Arc;

use usher_queries::purpose::Purpose;

use super::Messages;
use super::recipient::Recipient;
use crate::consent::Purposes;
use crate::identity::Regrouping;

impl Messages {
    /// Names are other persons' from now on. Each takes along what was found for it and sent to it; what was declined holds for
    /// all of them, and whether somebody comes back is seen of whoever keeps the name. `holding` is what may be done with what is
    /// known of them, `at_us` and `met_us` the event time at which that is found and the watermark then, in microseconds.
    pub(crate) fn regroup(&mut self, regrouping: &Regrouping, holding: Purposes, (at_us, met_us): (i64, i64)) {
        if !holding.has(Purpose::Service) {
            return self.regroup_withdrawn(regrouping, at_us, met_us);
        }
        let mut lifted: Vec<(Arc<str>, Recipient)> = Vec::new();
        for group in &regrouping.before {
            if let Some(recipient) = self.remove(&group.person) {
                lifted.push((Arc::clone(&group.person), recipient));
            }
        }
        self.aliases.apply(regrouping);
        let mut parts: Vec<(&Arc<str>, Recipient)> = Vec::new();
        for (from, mut recipient) in lifted {
            for group in &regrouping.after {
                let owners = &self.owners;
                let is_theirs = |id: &str| group.names.contains(owners.name(&from, id));
                let part = recipient.part(is_theirs, group.names.contains(&from));
                let moved: Vec<(String, Arc<str>)> = (part.ids())
                    .map(|id| (id.to_owned(), Arc::clone(owners.name(&from, id))))
                    .collect();
                for (id, name) in &moved {
                    self.owners.drop_of(&from, id);
                    self.owners.note(&group.person, id, name);
                }
                parts.push((&group.person, part));
            }
        }
        for (person, part) in parts {
            self.take_in(person, part);
        }
        for group in &regrouping.after {
            let recipient = self.recipients.get(&group.person);
            let is_kept = |id: &str| recipient.is_some_and(|recipient| recipient.ids().any(|known| known == id));
            self.owners.keep(&group.person, is_kept);
        }
    }

    /// Adds to what is kept of a person.
    fn take_in(&mut self, person: &Arc<str>, part: Recipient) {
        if part.is_nothing() {
            return;
        }
        let recipient = self.recipients.entry(Arc::clone(person)).or_default();
        recipient.join(part);
        let listed: Vec<(i64, String)> = recipient
            .messages()
            .map(|message| (message.at_us, message.id.clone()))
            .collect();
        for (at_us, id) in listed {
            self.list(person, at_us, &id);
        }
        self.note(person);
    }

    fn regroup_withdrawn(&mut self, regrouping: &Regrouping, at_us: i64, met_us: i64) {
        for group in &regrouping.before {
            self.withdraw(&group.person, at_us, met_us);
        }
        self.aliases.apply(regrouping);
    }
}
