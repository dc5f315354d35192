//! What is remembered of messages over a restart: who changed since the last checkpoint, and the two sides of each rule.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::recipient::Recipient;
use super::uplift::Sides;
use super::{LISTED_MAX, Listed, Messages};
use crate::capture::{Capture, Entries, Parts, Since};
use crate::identity::Aliases;

/// The part of the names under which messages were found or sent.
const OWNERS: &str = "messages_owners";

impl Messages {
    /// Takes people who changed since the last checkpoint, about `room` of them, ahead of the next one.
    pub fn gather(&mut self, room: &mut usize) {
        self.changes.gather(room, &self.recipients);
        self.sides_changes.gather(room, &self.sides);
        self.owners.gather(room);
    }

    /// For a checkpoint: who changed since the last one.
    pub(crate) fn capture(&mut self, capture: &mut Capture) {
        let recipients: Since<Arc<str>, Recipient> = self.changes.take(&self.recipients);
        capture.rows("messages", recipients);
        capture.rows("uplift", self.sides_changes.take(&self.sides));
        self.owners.capture(OWNERS, capture);
    }

    /// The next capture is to hold everything.
    pub fn capture_anew(&mut self) {
        self.changes.begin_anew();
        self.sides_changes.begin_anew();
        self.owners.capture_anew();
    }

    /// Takes back what was captured. Checkpoints from before there were messages have none.
    ///
    /// # Errors
    /// In words, when the bytes are something else.
    pub(crate) fn restore(&mut self, parts: &Parts) -> Result<(), String> {
        let recipients: Entries<Arc<str>, Recipient> = parts.rows("messages")?;
        for (person, recipient) in recipients {
            match recipient {
                // Those who keep what persons decided know of them.
                Some(recipient) if !recipient.was_opted_out => self.recipients.insert(person, recipient),
                Some(_) | None => self.recipients.swap_remove(&person),
            };
        }
        let sides: Entries<String, Sides> = parts.rows("uplift")?;
        for (rule, sides) in sides {
            match sides {
                Some(sides) => self.sides.insert(rule, sides),
                None => self.sides.remove(&rule),
            };
        }
        for recipient in self.recipients.values_mut() {
            recipient.due_us = recipient.next_due(&self.terms);
        }
        let due = |(person, recipient): (&Arc<str>, &Recipient)| Some((recipient.due_us?, Arc::clone(person)));
        self.due = self.recipients.iter().filter_map(due).collect();
        let all = self.recipients.iter().flat_map(|(person, recipient)| {
            let messages = recipient.messages();
            messages.map(move |message| (message.at_us, Arc::clone(person), message.id.clone()))
        });
        let mut listed: BTreeSet<Listed> = all.collect();
        while listed.len() > LISTED_MAX {
            listed.pop_first();
        }
        self.listed = listed;
        self.owners.restore(OWNERS, parts)
    }

    /// Takes back who is whose.
    pub(crate) fn restore_aliases(&mut self, aliases: Aliases) {
        self.aliases = aliases;
    }
}
