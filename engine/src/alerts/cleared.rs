//! Cleared alerts are kept to show, the latest so many.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::watch::History;
use crate::alert::Alert;
use crate::capture::{Entries, Json, Since};
use crate::changes::{Changes, Noted};

/// An alert that is over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Over {
    pub(super) alert: Arc<Alert>,
    pub(super) history: Arc<History>,
}

/// Those that are kept, numbered in the order in which they were cleared.
#[derive(Debug, Default)]
pub(super) struct Cleared {
    /// The newest first; numbers have no gaps.
    over: VecDeque<Over>,
    next_number: u64,
    changes: Changes<u64, Json<Over>>,
}

impl Cleared {
    /// One more; beyond `most` the oldest go.
    pub(super) fn push(&mut self, over: Over, most: usize) {
        self.changes.note(&self.next_number);
        self.over.push_front(over);
        self.next_number += 1;
        while self.over.len() > most {
            let oldest = self.next_number - self.over.len() as u64;
            self.changes.note(&oldest);
            self.over.pop_back();
        }
    }

    /// Of some nothing is to be kept but that they were.
    pub(super) fn forget_measurements(&mut self, of: impl Fn(&Alert) -> bool) {
        for (behind, over) in self.over.iter_mut().enumerate() {
            if of(&over.alert) {
                Arc::make_mut(&mut over.alert).forget_measurements();
                Arc::make_mut(&mut over.history).forget_notes();
                self.changes.note(&(self.next_number - 1 - behind as u64));
            }
        }
    }

    /// Takes out those that are about somebody, and names out of the others; gives how many these were.
    pub(super) fn erase(&mut self, is_named: &dyn Fn(&str) -> bool) -> u64 {
        let before = self.over.len();
        self.over.retain(|over| !is_named(&over.alert.subject.id));
        let mut erased = before - self.over.len();
        for over in &mut self.over {
            let (mut alert, mut history) = ((*over.alert).clone(), (*over.history).clone());
            // Each of the two, whatever the other has.
            if alert.forget_names(is_named) | history.forget_names(is_named) {
                (over.alert, over.history) = (Arc::new(alert), Arc::new(history));
                erased += 1;
            }
        }
        if erased > 0 {
            // Numbers have no gaps, so that those before have others now.
            self.changes.begin_anew();
        }
        erased as u64
    }

    /// The newest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Over> {
        self.over.iter()
    }

    /// Takes those that came or went since the last checkpoint, about `room` of them, ahead of the next one.
    pub(super) fn gather(&mut self, room: &mut usize) {
        self.changes.gather(room, &Numbered(&self.over, self.next_number));
    }

    /// For a checkpoint: those that came or went since the last one.
    pub(super) fn capture(&mut self) -> Since<u64, Json<Over>> {
        self.changes.take(&Numbered(&self.over, self.next_number))
    }

    /// The next capture is to hold everything.
    pub(super) fn capture_anew(&mut self) {
        self.changes.begin_anew();
    }

    /// Takes back what was captured.
    pub(super) fn restore(&mut self, rows: Entries<u64, Json<Over>>) {
        let mut kept = std::collections::BTreeMap::new();
        for (number, over) in rows {
            match over {
                Some(Json(over)) => kept.insert(number, over),
                None => kept.remove(&number),
            };
        }
        self.next_number = kept.last_key_value().map_or(0, |(number, _)| number + 1);
        self.over = kept.into_values().rev().collect();
    }
}

/// As a checkpoint knows them, with the number of the next.
struct Numbered<'a>(&'a VecDeque<Over>, u64);

impl Numbered<'_> {
    fn oldest(&self) -> u64 {
        self.1 - self.0.len() as u64
    }
}

impl Noted for Numbered<'_> {
    type Key = u64;
    type Value = Json<Over>;

    fn entries(&self) -> usize {
        self.0.len()
    }
    fn entry(&self, number: &u64) -> Option<Json<Over>> {
        let behind = self.1.checked_sub(number + 1)?;
        self.0.get(usize::try_from(behind).ok()?).cloned().map(Json)
    }
    fn behind(&self, _walked: usize, last: Option<&u64>, most: usize) -> Vec<(u64, Json<Over>)> {
        let from = last.map_or(0, |last| last + 1).max(self.oldest());
        let numbers = (from..self.1).take(most);
        numbers
            .filter_map(|number| Some((number, self.entry(&number)?)))
            .collect()
    }
}
