//! Mail is what went out to persons and which of it they accepted and declined in time, as their figures tell it.
//!
//! Messages decide that and tell it here, where it is counted: what somebody replies says nothing by itself, for anybody can
//! name a message that was never sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::{People, note};
use crate::erasure::Who;
use crate::identity::Group;

/// What became of one message to a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfMessage {
    /// It went out.
    Sent,
    /// The first answer in time was yes.
    Accepted,
    /// It was no.
    Declined,
}

/// What became of messages to a person: how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OfMessages {
    /// Those that went out.
    pub(super) sent: u32,
    /// Those of them that were accepted in time.
    pub(super) accepted: u32,
    /// And declined.
    pub(super) declined: u32,
}

impl OfMessages {
    /// No message.
    pub(super) const NONE: Self = Self {
        sent: 0,
        accepted: 0,
        declined: 0,
    };

    /// With one more.
    pub(super) fn with(mut self, what: OfMessage) -> Self {
        let sum = match what {
            OfMessage::Sent => &mut self.sent,
            OfMessage::Accepted => &mut self.accepted,
            OfMessage::Declined => &mut self.declined,
        };
        *sum = sum.saturating_add(1);
        self
    }

    /// Of both.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent.saturating_add(other.sent),
            accepted: self.accepted.saturating_add(other.accepted),
            declined: self.declined.saturating_add(other.declined),
        }
    }

    /// Without those of another.
    fn less(self, other: Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(other.sent),
            accepted: self.accepted.saturating_sub(other.accepted),
            declined: self.declined.saturating_sub(other.declined),
        }
    }
}

/// What of messages stands beside the figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Mail {
    /// Of messages under names that are not how their persons are called; in the sums of these persons too.
    of_names: BTreeMap<Arc<str>, OfMessages>,
    /// Of messages to persons of whom nothing has been taken yet: what they did waits for the watermark, and a query was faster.
    of_unseen: BTreeMap<Arc<str>, OfMessages>,
}

impl Mail {
    /// What became of messages to a person who has no figures yet.
    pub(super) fn of_unseen(&self, person: &str) -> OfMessages {
        self.of_unseen.get(person).copied().unwrap_or_default()
    }

    /// The same, and the person has figures from now on.
    pub(super) fn take_unseen(&mut self, person: &str) -> OfMessages {
        self.of_unseen.remove(person).unwrap_or_default()
    }

    /// Sets what became of messages to a person who has no figures.
    fn set_unseen(&mut self, person: &Arc<str>, messages: OfMessages) {
        set(&mut self.of_unseen, person, messages);
    }

    /// Forgets a name.
    pub(super) fn forget(&mut self, name: &str) {
        self.of_names.remove(name);
        self.of_unseen.remove(name);
    }

    /// Forgets whoever is to be erased.
    pub(super) fn erase(&mut self, who: &Who) {
        self.of_names.retain(|name, _| !who.is(name));
        self.of_unseen.retain(|name, _| !who.is(name));
    }

    /// What became of messages under each name of these persons, of whom `of` tells what became of all of theirs.
    pub(super) fn by_name(
        &self,
        groups: &[Group],
        of: impl Fn(&Arc<str>) -> OfMessages,
    ) -> FxHashMap<Arc<str>, OfMessages> {
        let mut own: FxHashMap<Arc<str>, OfMessages> = FxHashMap::default();
        for group in groups {
            let mut of_person = of(&group.person);
            for name in group.names.iter().filter(|name| **name != group.person) {
                let messages = self.of_names.get(name).copied().unwrap_or_default();
                of_person = of_person.less(messages);
                own.insert(Arc::clone(name), messages);
            }
            own.insert(Arc::clone(&group.person), of_person);
        }
        own
    }

    /// Sets what became of messages under the names of a person; gives the sum.
    pub(super) fn set(&mut self, group: &Group, own: &FxHashMap<Arc<str>, OfMessages>) -> OfMessages {
        let mut sum = OfMessages::NONE;
        for name in &group.names {
            let messages = own.get(name).copied().unwrap_or_default();
            sum = sum.plus(messages);
            let of_another = if *name == group.person {
                OfMessages::NONE
            } else {
                messages
            };
            set(&mut self.of_names, name, of_another);
        }
        sum
    }
}

fn set(all: &mut BTreeMap<Arc<str>, OfMessages>, name: &Arc<str>, messages: OfMessages) {
    match messages == OfMessages::NONE {
        true => all.remove(name),
        false => all.insert(Arc::clone(name), messages),
    };
}

impl People {
    /// Something became of a message that was found under a name of a person.
    pub fn note_message(&mut self, person: &Arc<str>, name: &Arc<str>, what: OfMessage) {
        self.repairing.note_message(person, what);
        let mail = &mut self.repairing.mail;
        if name != person {
            let of_name = mail.of_names.entry(Arc::clone(name)).or_default();
            *of_name = of_name.with(what);
        }
        match self.people.find(person) {
            Some(place) => {
                if let Some(known) = self.people.get_mut(place) {
                    known.figures.set_messages(known.figures.messages().with(what));
                    note(&mut self.taking, place);
                }
            }
            None => mail.set_unseen(person, mail.of_unseen(person).with(what)),
        }
    }

    /// What became of messages to a person.
    pub(super) fn messages_to(&self, person: &str) -> OfMessages {
        let of_unseen = || self.repairing.mail.of_unseen(person);
        self.figures(person)
            .map_or_else(of_unseen, super::figures::Figures::messages)
    }

    /// Keeps what became of messages to a person where there are no figures to keep it.
    pub(super) fn keep_unseen(&mut self, person: &Arc<str>, messages: OfMessages) {
        let is_seen = self.people.find(person).is_some();
        let of_unseen = if is_seen { OfMessages::NONE } else { messages };
        self.repairing.mail.set_unseen(person, of_unseen);
    }
}
