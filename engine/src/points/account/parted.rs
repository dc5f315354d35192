//! Parted is what goes from one account to another, where names turn out to be one person's, or not.

use std::sync::Arc;

use super::{Account, EntryKind, Lot, SPENDINGS_MAX, Spending};

/// Lots on their way to another account.
#[derive(Debug)]
pub(in crate::points) struct Parted {
    lots: Vec<Lot>,
    spendings: Vec<Spending>,
    left: i64,
}

impl Parted {
    /// The ids of the lots.
    pub(in crate::points) fn lots(&self) -> impl Iterator<Item = &str> {
        self.lots.iter().map(|lot| lot.id.as_str())
    }

    pub(in crate::points) fn is_empty(&self) -> bool {
        self.lots.is_empty()
    }
}

impl Account {
    /// Lots that are somebody else's, with what was spent of them. What is left of them goes as one entry.
    pub(in crate::points) fn part(&mut self, is_theirs: impl Fn(&str) -> bool, id: &str, at_us: i64) -> Parted {
        let (theirs, own): (Vec<Lot>, Vec<Lot>) = std::mem::take(&mut self.lots)
            .into_iter()
            .partition(|lot| is_theirs(&lot.id));
        self.lots = own;
        let mut spendings = Vec::new();
        for spending in &mut self.spendings {
            let (of_theirs, of_own): (Vec<_>, Vec<_>) = std::mem::take(&mut spending.taken)
                .into_iter()
                .partition(|(lot, _)| is_theirs(lot));
            spending.taken = of_own;
            if !of_theirs.is_empty() {
                spendings.push(Spending {
                    taken: of_theirs,
                    ..spending.clone()
                });
            }
        }
        self.spendings.retain(|spending| !spending.taken.is_empty());
        let left: i64 = theirs.iter().map(|lot| i64::from(lot.left)).sum();
        self.move_points(id, -left, at_us);
        Parted {
            lots: theirs,
            spendings,
            left,
        }
    }

    /// Takes in what [`Account::part`] gave.
    pub(in crate::points) fn join(&mut self, parted: Parted, id: &str, at_us: i64) {
        self.move_points(id, parted.left, at_us);
        self.lots.extend(parted.lots);
        self.lots.sort_by(|a, b| a.rank().cmp(&b.rank()));
        for spending in parted.spendings {
            let same = |other: &&mut Spending| {
                other.entry.id == spending.entry.id && other.is_reversed == spending.is_reversed
            };
            match self.spendings.iter_mut().find(same) {
                Some(other) => other.taken.extend(spending.taken),
                None => self.spendings.push_back(spending),
            }
        }
        let order = |spending: &Spending| (spending.entry.at_us, spending.entry.id.clone());
        self.spendings.make_contiguous().sort_by_cached_key(order);
        while self.spendings.len() > SPENDINGS_MAX {
            self.spendings.pop_front();
        }
        self.forget_empty_lots();
    }

    fn move_points(&mut self, id: &str, points: i64, at_us: i64) {
        if points != 0 && !self.entries.iter().any(|entry| entry.id == id) {
            self.enter(id.to_owned(), EntryKind::Moved, points, Arc::from("moved"), at_us);
        }
    }
}
