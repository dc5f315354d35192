//! What of people is remembered over a restart: who changed since the last checkpoint, taken ahead in parts; and the acts
//! whose time has not been passed yet.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;
use indexmap::IndexSet;
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use super::act::Act;
use super::figures::Figures;
use super::{HeldKey, People, Repairing, Repairs};
use crate::capture::{Entries, Rows, Since};
use crate::changes::Chain;
use crate::event::Source;
use crate::identity::Aliases;

/// What is known of a person.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Known(Box<Figures>);

impl Known {
    fn of(figures: &Figures) -> Self {
        Self(Box::new(figures.clone()))
    }
}

/// How far people have come, and what waits for its time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Waiting {
    reached_us: i64,
    /// Shared with who goes on: to copy all that comes within the delay would hold events up.
    held: OrdMap<HeldKey, Act>,
}

impl Waiting {
    /// Written down in pieces of so many acts, each of which is read as a [`Waiting`] of its own: what comes within the delay may be
    /// tens of megabytes, and is never there a second time as bytes.
    pub fn pieces(self, acts: usize) -> impl Iterator<Item = Result<Vec<u8>, String>> + use<> {
        let mut behind = Some(Bound::Unbounded);
        std::iter::from_fn(move || {
            let rest = self.held.range((behind.take()?, Bound::Unbounded));
            let some: Vec<(&HeldKey, &Act)> = rest.take(acts).collect();
            if some.len() == acts {
                behind = some.last().map(|(key, _)| Bound::Excluded((*key).clone()));
            }
            // A map is written as the list of what is in it.
            let piece = (self.reached_us, some);
            Some(postcard::to_stdvec(&piece).map_err(|error| error.to_string()))
        })
    }
}

/// What was captured since the last checkpoint, ahead of the next one.
#[derive(Debug)]
pub(super) struct Taking {
    begins_anew: bool,
    /// Places up to here were taken once; what changes in them afterwards is noted.
    walked: usize,
    noted: IndexSet<u32, FxBuildHasher>,
    pub(super) rows: Rows<Arc<str>, Known>,
    chain: Chain,
}

impl Taking {
    /// Whoever is at a place has changed.
    pub(super) fn note(&mut self, place: u32) {
        if (place as usize) < self.walked {
            self.noted.insert(place);
        }
    }
}

impl People {
    /// Takes people who changed since the last checkpoint, about `room` of them, ahead of the next one; at first everybody.
    pub fn gather(&mut self, room: &mut usize) {
        let taking = self.taking.get_or_insert_with(|| Taking {
            begins_anew: true,
            walked: 0,
            noted: IndexSet::default(),
            rows: Rows::default(),
            chain: Chain::default(),
        });
        let to = taking.walked.saturating_add(*room).min(self.people.len());
        for place in taking.walked..to {
            #[allow(clippy::cast_possible_truncation)] // shelves give out a u32
            if let Some(person) = self.people.get(place as u32) {
                let known = Some(Known::of(&person.figures));
                taking.rows.push((Arc::clone(&person.name), known));
            }
        }
        *room -= to - taking.walked;
        taking.walked = to;
        while *room > 0
            && let Some(place) = taking.noted.pop()
        {
            // Whose place it is by now, if anybody's.
            if let Some(person) = self.people.get(place) {
                let known = Some(Known::of(&person.figures));
                taking.rows.push((Arc::clone(&person.name), known));
                *room -= 1;
            }
        }
    }

    /// For a checkpoint: who changed since the last one.
    pub fn capture(&mut self) -> Since<Arc<str>, Known> {
        let mut room = usize::MAX;
        self.gather(&mut room);
        let mut since = Since {
            begins_anew: true,
            rows: Rows::default(),
        };
        if let Some(taking) = &mut self.taking {
            since.begins_anew = std::mem::take(&mut taking.begins_anew);
            since.rows = std::mem::take(&mut taking.rows);
            if !taking.chain.goes_on(since.rows.len(), self.people.taken()) {
                self.taking = None;
            }
        }
        since
    }

    /// For a checkpoint: how far people have come, and what waits; as much as comes within the delay of the watermark.
    pub fn capture_waiting(&self) -> Waiting {
        Waiting {
            reached_us: self.reached_us,
            held: self.held.clone(),
        }
    }

    /// For a checkpoint: whose past is being made anew, and what was done since.
    pub fn capture_repairs(&self) -> Repairs {
        self.repairing.kept()
    }

    /// Takes back who is whose, and what [`People::capture_repairs`] gave; to be called before [`People::restore`].
    pub fn restore_repairs(&mut self, aliases: Aliases, repairs: Repairs) {
        self.aliases = aliases;
        self.repairing = Repairing::of(repairs);
    }

    /// The next capture is to hold everybody.
    pub fn capture_anew(&mut self) {
        self.taking = None;
    }

    /// Takes back what was captured: people, and the pieces of what waits.
    pub fn restore(&mut self, rows: Entries<Arc<str>, Known>, waiting: Vec<Waiting>) {
        let mut all: FxHashMap<Arc<str>, Known> = FxHashMap::default();
        for (person, known) in rows {
            match known {
                Some(known) => all.insert(person, known),
                None => all.remove(&person),
            };
        }
        let mut sources = FxHashSet::default();
        for (person, Known(mut figures)) in all {
            figures.fit(&self.rules);
            figures.sources().for_each(|source| share(source, &mut sources));
            self.put(person, *figures);
        }
        for piece in waiting {
            self.reached_us = piece.reached_us;
            for (mut key, mut act) in piece.held {
                share(&mut act.source, &mut sources);
                key.source = Arc::clone(&act.source);
                self.held.insert(key, act);
            }
        }
    }
}

/// Of sources that are the same one is kept.
fn share(source: &mut Arc<Source>, sources: &mut FxHashSet<Arc<Source>>) {
    match sources.get(source) {
        Some(shared) => *source = Arc::clone(shared),
        None => {
            sources.insert(Arc::clone(source));
        }
    }
}
