//! What of identity is remembered over a restart: the links, each with its number.

use std::sync::Arc;

use super::{Group, Identity, Link, Pair, Regrouping};
use crate::capture::{Capture, Entries, Parts};

/// The part of the links.
const LINKS: &str = "links";
/// The part of the next link's number, and of how many were refused.
const NUMBERS: &str = "links_numbers";

impl Identity {
    /// Takes links that changed since the last checkpoint, about `room` of them, ahead of the next one.
    pub fn gather(&mut self, room: &mut usize) {
        self.changes.gather(room, &self.links);
    }

    /// For a checkpoint: what changed since the last one.
    pub(crate) fn capture(&mut self, capture: &mut Capture) {
        capture.rows(LINKS, self.changes.take(&self.links));
        let numbers = (self.next, self.refused);
        capture.whole(NUMBERS, move || {
            postcard::to_stdvec(&numbers).map_err(|error| error.to_string())
        });
    }

    /// The next capture is to hold everything.
    pub fn capture_anew(&mut self) {
        self.changes.begin_anew();
    }

    /// Takes back what was captured. Checkpoints from before there were links have none.
    ///
    /// # Errors
    /// In words, when the bytes are something else.
    pub(crate) fn restore(&mut self, parts: &Parts) -> Result<(), String> {
        let links: Entries<Pair, Link> = parts.rows(LINKS)?;
        if !parts.segments(NUMBERS).is_empty() {
            (self.next, self.refused) = parts.value(NUMBERS)?;
        }
        for (key, link) in links {
            match link {
                Some(link) => self.links.insert(key, link),
                None => self.links.remove(&key),
            };
        }
        let standing = self.links.iter().filter(|(_, link)| link.since.is_some());
        let standing: Vec<Pair> = standing.map(|(pair, _)| pair.clone()).collect();
        for (one, other) in &standing {
            self.connect(one, other);
        }
        self.standing = standing.len();
        let mut names: Vec<Arc<str>> = self.neighbours.keys().cloned().collect();
        names.sort_unstable();
        let mut after: Vec<Group> = Vec::new();
        let mut seen: rustc_hash::FxHashSet<Arc<str>> = rustc_hash::FxHashSet::default();
        for name in names {
            if seen.contains(&name) {
                continue;
            }
            let group = self.connected(&name);
            seen.extend(group.names.iter().cloned());
            after.push(group);
        }
        let before = Vec::new();
        self.aliases.apply(&Regrouping { before, after });
        Ok(())
    }
}
