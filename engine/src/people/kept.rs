//! What of people is remembered over a restart: who changed since the last checkpoint, taken ahead in parts; and the acts
//! whose time has not been passed yet.

use std::sync::Arc;

use imbl::OrdMap;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use super::act::Act;
use super::figures::Figures;
use super::{HeldKey, People, Repairing, Repairs};
use crate::capture::{Entries, Rows, Since};
use crate::changes::Chain;
use crate::event::Source;
use crate::identity::Aliases;

/// What is known of a person; nothing in checkpoints from before there were purposes, of someone who does not want to be known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Known(Option<Box<Figures>>);

impl Known {
    fn of(figures: &Figures) -> Self {
        Self(Some(Box::new(figures.clone())))
    }
}

/// What checkpoints of form 3 have of a person; `None` of someone who does not want to be known, which alone is still read.
#[derive(Debug, Serialize, Deserialize)]
pub struct KnownOfForm3(Option<FiguresOfForm3>);

/// First and last seen, last day, days, events, events by channel, dwell, last sighting, score, since when, gap.
type FiguresOfForm3 = (i64, i64, i32, u32, u64, [u32; 3], i64, i64, f64, i64, i32);

/// Who did not want to be known by a checkpoint of form 3.
pub fn opted_out_of_form_3(rows: Entries<Arc<str>, KnownOfForm3>) -> FxHashSet<Arc<str>> {
    let mut opted_out = FxHashSet::default();
    for (person, known) in rows {
        match known {
            Some(KnownOfForm3(None)) => opted_out.insert(person),
            Some(KnownOfForm3(Some(_))) | None => opted_out.remove(&person),
        };
    }
    opted_out
}

/// Who did not want to be known by a checkpoint of form 4, which has of people what is kept today.
pub fn opted_out_of_form_4(rows: Entries<Arc<str>, Known>) -> FxHashSet<Arc<str>> {
    let mut opted_out = FxHashSet::default();
    for (person, known) in rows {
        match known {
            Some(Known(None)) => opted_out.insert(person),
            Some(Known(Some(_))) | None => opted_out.remove(&person),
        };
    }
    opted_out
}

/// How far people have come, and what waits for its time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Waiting {
    reached_us: i64,
    /// Shared with who goes on: to copy all that comes within the delay would hold events up.
    held: OrdMap<HeldKey, Act>,
}

/// What was captured since the last checkpoint, ahead of the next one.
#[derive(Debug)]
pub(super) struct Taking {
    begins_anew: bool,
    /// Places up to here were taken once; what changes in them afterwards is noted.
    walked: usize,
    pub(super) noted: Vec<u32>,
    pub(super) rows: Rows<Arc<str>, Known>,
    chain: Chain,
}

impl People {
    /// Takes people who changed since the last checkpoint, about `room` of them, ahead of the next one; at first everybody.
    pub fn gather(&mut self, room: &mut usize) {
        let taking = self.taking.get_or_insert_with(|| Taking {
            begins_anew: true,
            walked: 0,
            noted: Vec::new(),
            rows: Rows::default(),
            chain: Chain::default(),
        });
        let to = taking.walked.saturating_add(*room).min(self.people.len());
        for place in taking.walked..to {
            if let Some(person) = self.people.get_mut(place) {
                person.is_noted = false;
                let known = Some(Known::of(&person.figures));
                taking.rows.push((Arc::clone(&person.name), known));
            }
        }
        *room -= to - taking.walked;
        taking.walked = to;
        while *room > 0
            && let Some(place) = taking.noted.pop()
        {
            // Whose place it is by now, if anybody's, and whether they were taken meanwhile.
            if let Some(person) = self.people.get_mut(place as usize)
                && std::mem::take(&mut person.is_noted)
            {
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
            if !taking.chain.goes_on(since.rows.len(), self.places.len()) {
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

    /// Takes back what was captured; gives who did not want to be known, by a checkpoint from before there were purposes.
    pub fn restore(&mut self, rows: Entries<Arc<str>, Known>, waiting: Waiting) -> Vec<Arc<str>> {
        let mut opted_out = Vec::new();
        let mut all: FxHashMap<Arc<str>, Known> = FxHashMap::default();
        for (person, known) in rows {
            match known {
                Some(known) => all.insert(person, known),
                None => all.remove(&person),
            };
        }
        let mut sources = FxHashSet::default();
        for (person, Known(figures)) in all {
            match figures {
                Some(mut figures) => {
                    figures.fit(&self.rules);
                    figures.sources().for_each(|source| share(source, &mut sources));
                    self.put(person, *figures);
                }
                None => opted_out.push(person),
            }
        }
        self.reached_us = waiting.reached_us;
        for (mut key, mut act) in waiting.held {
            share(&mut act.source, &mut sources);
            key.source = Arc::clone(&act.source);
            self.held.insert(key, act);
        }
        opted_out.sort_unstable();
        opted_out
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As form 3 had them.
    #[derive(Serialize)]
    struct Known3(Option<Figures3>);

    #[derive(Serialize)]
    struct Figures3 {
        first_us: i64,
        last_us: i64,
        last_day: i32,
        days: u32,
        events: u64,
        channels: [u32; 3],
        dwell_us: i64,
        last_sighting_us: i64,
        score: f64,
        score_us: i64,
        gap_days: i32,
    }

    #[test]
    fn who_opted_out_is_known_from_a_checkpoint_of_form_3() {
        let figures = || Figures3 {
            first_us: 1_772_409_600_000_000,
            last_us: 1_772_409_600_000_001,
            last_day: 20_514,
            days: 1,
            events: 2,
            channels: [1, 1, 0],
            dwell_us: 3,
            last_sighting_us: 4,
            score: 0.5,
            score_us: 5,
            gap_days: -1,
        };
        let rows = [
            ("ada", Some(Known3(Some(figures())))),
            ("ben", Some(Known3(None))),
            ("cleo", Some(Known3(None))),
            ("ada", Some(Known3(None))),
            // Wanted to be known again.
            ("cleo", None),
            ("dana", Some(Known3(Some(figures())))),
        ];
        let bytes = postcard::to_stdvec(&rows.into_iter().collect::<Vec<_>>()).expect("it can be written");
        let rows: Entries<Arc<str>, KnownOfForm3> = postcard::from_bytes(&bytes).expect("it can be read");
        let opted_out = opted_out_of_form_3(rows);
        let is_out = ["ada", "ben", "cleo", "dana"].map(|person| opted_out.contains(person));
        assert_eq!(is_out, [true, true, false, false]);
    }
}
