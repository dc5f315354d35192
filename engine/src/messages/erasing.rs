//! Erasing a person: what was found, sent and answered, and what would have come of it.

use std::sync::Arc;

use super::{MessageStep, Messages};
use crate::erasure::Who;
use crate::identity::Regrouping;

impl Messages {
    /// Forgets all about somebody, as if nothing had ever been found; what was counted of rules stays. Gives how many messages
    /// there were.
    pub fn erase(&mut self, who: &Who) -> u64 {
        let named = match who.names() {
            Some(names) => names.to_vec(),
            None => who.among(self.recipients.keys()),
        };
        self.grants.retain(|grant| !who.is(&grant.person));
        self.noted
            .retain(|noted| !who.is(&noted.person) && !who.is(&noted.name));
        self.acts.retain(|placed| !who.is(&placed.person));
        self.said.retain(|said| !who.is(said.person()));
        self.unsaid.retain(|step| match step {
            MessageStep::Turned(message) => !who.is(&message.person),
            MessageStep::Withdrawn { .. } | MessageStep::Refused { .. } => true,
        });
        let mut erased = 0;
        for person in named {
            let Some(recipient) = self.recipients.get(&person) else {
                continue;
            };
            let open = recipient.messages().filter(|message| message.state.is_open());
            let open: Vec<String> = open.map(|message| message.id.clone()).collect();
            erased += recipient.len() as u64;
            self.remove(&person);
            // They may have gone out under any of the names.
            for name in self.aliases.names(&person) {
                self.unsaid.push(MessageStep::Withdrawn {
                    person: Arc::clone(name),
                    open: open.clone(),
                });
            }
        }
        self.owners.erase(who);
        erased + self.forget_names(&|text| who.is_in(text))
    }

    /// Names are other persons' now that somebody was erased.
    pub fn rename(&mut self, regrouping: &Regrouping) {
        self.aliases.apply(regrouping);
    }

    /// Takes names out of messages to others; gives out of how many.
    fn forget_names(&mut self, is_named: &dyn Fn(&str) -> bool) -> u64 {
        let mut forgotten = 0;
        for (person, recipient) in &mut self.recipients {
            let of_one = recipient.forget_names(is_named);
            if of_one > 0 {
                self.changes.note(person);
                forgotten += of_one;
            }
        }
        for step in &mut self.unsaid {
            if let MessageStep::Turned(message) = step {
                Arc::make_mut(message).forget_names(is_named);
            }
        }
        forgotten
    }
}
