//! Balances are how many people are inside each zone by all passages until now, which each passage is told with.
//!
//! It is what the shipped query `occupancy` counts, an event earlier: who comes to a full room is known when they come.

use std::sync::Arc;

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use crate::capture::{Entries, Since};
use crate::changes::Changes;
use crate::event::Source;

/// A site and a zone of it.
type Place = (Arc<str>, Arc<str>);

/// The balance of each zone.
#[derive(Debug, Default)]
pub struct Balances {
    inside: IndexMap<Place, i64, FxBuildHasher>,
    changes: Changes<Place, i64>,
}

impl Balances {
    /// So many people passed into the zone of `source` and out of it; gives how many were inside before, never fewer than
    /// none: counters drift.
    pub fn pass(&mut self, source: &Source, (entered, exited): (i64, i64)) -> i64 {
        let place = (Arc::clone(&source.site), Arc::clone(&source.zone));
        self.changes.note(&place);
        let inside = self.inside.entry(place).or_default();
        let before = *inside;
        *inside = before.saturating_add(entered).saturating_sub(exited);
        before.max(0)
    }

    /// Takes zones that were passed into since the last checkpoint, about `room` of them, ahead of the next one.
    pub fn gather(&mut self, room: &mut usize) {
        self.changes.gather(room, &self.inside);
    }

    /// For a checkpoint: the zones that were passed into since the last one.
    pub fn capture(&mut self) -> Since<Place, i64> {
        self.changes.take(&self.inside)
    }

    /// The next capture is to hold everything.
    pub fn capture_anew(&mut self) {
        self.changes.begin_anew();
    }

    /// Takes back what was captured.
    pub fn restore(&mut self, rows: Entries<Place, i64>) {
        for (place, inside) in rows {
            match inside {
                Some(inside) => self.inside.insert(place, inside),
                None => self.inside.swap_remove(&place),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Balances;
    use crate::event::{Kind, Source};

    #[test]
    fn a_passage_is_told_with_who_was_inside_before_it() {
        let door = |zone: &str| Source {
            site: "s".into(),
            zone: zone.into(),
            kind: Kind::Gate,
            device: "d".into(),
        };
        let mut balances = Balances::default();
        assert_eq!(balances.pass(&door("hall"), (9, 0)), 0);
        assert_eq!(balances.pass(&door("cafe"), (1, 0)), 0);
        assert_eq!(balances.pass(&door("hall"), (3, 2)), 9);
        assert_eq!(balances.pass(&door("hall"), (0, 12)), 10);
        assert_eq!(balances.pass(&door("hall"), (3, 0)), 0, "nobody is less than no one");
        let mut restored = Balances::default();
        restored.restore(balances.capture().rows.into_iter().collect());
        // 9 + 3 − 2 − 12 + 3 = 1.
        assert_eq!(restored.pass(&door("hall"), (0, 0)), 1);
    }
}
