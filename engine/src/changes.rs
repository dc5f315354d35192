//! Changes remember which entries of a part changed since they were last captured, so that a capture need not take all,
//! and can take them ahead of its moment, in turns.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;

use usher_queries::in_parts::InParts;

use crate::capture::{Rows, Since};

/// After so many captures all entries are taken once more.
const CAPTURES_MAX: usize = 32;
/// So many rows behind the first ones are too few for that.
const ROWS_MIN: usize = 1_024;

/// When a part that notes its changes hands over all it has once more.
#[derive(Debug, Default)]
pub struct Chain {
    captures: usize,
    rows: usize,
}

impl Chain {
    /// So many rows were handed over, of a part that has `entries`; whether the next capture goes on behind them.
    pub fn goes_on(&mut self, rows: usize, entries: usize) -> bool {
        self.captures += 1;
        self.rows += rows;
        self.captures < CAPTURES_MAX && self.rows < 2 * entries + ROWS_MIN
    }
}

/// The entries of a part that notes its changes, as [`Changes`] asks for them.
///
/// Contract, trusted: entries keep their order; what moves within it is noted.
pub trait Noted {
    /// What an entry is known by.
    type Key: Ord + Clone;
    /// What is written of it.
    type Value;

    /// How many there are.
    fn entries(&self) -> usize;
    /// One of them, if it is there.
    fn entry(&self, key: &Self::Key) -> Option<Self::Value>;
    /// In their order those behind the first `walked`, of which `last` is the last one, `most` at most.
    fn behind(&self, walked: usize, last: Option<&Self::Key>, most: usize) -> Vec<(Self::Key, Self::Value)>;
}

/// What has changed, and what of it was taken.
#[derive(Debug)]
pub struct Changes<K, V> {
    /// `None` where the next capture takes all there is.
    taking: Option<Taking<K, V>>,
}

#[derive(Debug)]
struct Taking<K, V> {
    begins_anew: bool,
    /// How many of the entries were gone through, and the last of these; `None` behind the end.
    walk: Option<(usize, Option<K>)>,
    noted: InParts<K>,
    /// In a tree, which grows a little at a time.
    is_noted: BTreeSet<K>,
    rows: Rows<K, V>,
    chain: Chain,
}

impl<K, V> Default for Changes<K, V> {
    fn default() -> Self {
        Self { taking: None }
    }
}

impl<K: Ord + Clone, V> Changes<K, V> {
    /// An entry changed, came or went.
    pub fn note(&mut self, key: &K) {
        if let Some(taking) = &mut self.taking
            && !taking.is_noted.contains(key)
        {
            taking.is_noted.insert(key.clone());
            taking.noted.push(key.clone());
        }
    }

    /// The next capture is to hold everything.
    pub fn begin_anew(&mut self) {
        self.taking = None;
    }

    /// Takes what has changed since the last capture, about `room` entries, ahead of the next one; at first all there are.
    pub fn gather(&mut self, room: &mut usize, entries: &impl Noted<Key = K, Value = V>) {
        let taking = self.taking.get_or_insert_with(|| Taking {
            begins_anew: true,
            walk: Some((0, None)),
            noted: InParts::default(),
            is_noted: BTreeSet::new(),
            rows: Rows::default(),
            chain: Chain::default(),
        });
        if let Some((walked, last)) = taking.walk.take_if(|_| *room > 0) {
            let rows = entries.behind(walked, last.as_ref(), *room);
            if rows.len() >= *room {
                let last = rows.last().map(|(key, _)| key.clone());
                taking.walk = Some((walked + rows.len(), last));
            }
            *room -= rows.len().min(*room);
            taking
                .rows
                .extend(rows.into_iter().map(|(key, value)| (key, Some(value))));
        }
        while *room > 0
            && let Some(key) = taking.noted.pop()
        {
            taking.is_noted.remove(&key);
            let value = entries.entry(&key);
            taking.rows.push((key, value));
            *room -= 1;
        }
    }

    /// What changed since the last call.
    pub fn take(&mut self, entries: &impl Noted<Key = K, Value = V>) -> Since<K, V> {
        let mut room = usize::MAX;
        self.gather(&mut room, entries);
        let mut since = Since {
            begins_anew: true,
            rows: Rows::default(),
        };
        if let Some(taking) = &mut self.taking {
            since.begins_anew = std::mem::take(&mut taking.begins_anew);
            since.rows = std::mem::take(&mut taking.rows);
            if !taking.chain.goes_on(since.rows.len(), entries.entries()) {
                self.taking = None;
            }
        }
        since
    }
}

/// Of a part that keeps its entries by key, in order.
impl<K: Ord + Clone, V: Clone> Noted for BTreeMap<K, V> {
    type Key = K;
    type Value = V;

    fn entries(&self) -> usize {
        self.len()
    }
    fn entry(&self, key: &K) -> Option<V> {
        self.get(key).cloned()
    }
    fn behind(&self, _walked: usize, last: Option<&K>, most: usize) -> Vec<(K, V)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = last.map_or(Unbounded, Excluded);
        let behind = self.range((from, Unbounded)).take(most);
        behind.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// Of a part that keeps them as they came. One that takes an entry out has to note the one that takes its place.
impl<K: Ord + Hash + Clone, V: Clone, S: std::hash::BuildHasher> Noted for indexmap::IndexMap<K, V, S> {
    type Key = K;
    type Value = V;

    fn entries(&self) -> usize {
        self.len()
    }
    fn entry(&self, key: &K) -> Option<V> {
        self.get(key).cloned()
    }
    fn behind(&self, walked: usize, _last: Option<&K>, most: usize) -> Vec<(K, V)> {
        let to = walked.saturating_add(most).min(self.len());
        let behind = self.get_range(walked.min(to)..to).into_iter().flatten();
        behind.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use indexmap::IndexMap;

    use super::{Changes, Noted};
    use crate::capture::{Entries, Since};

    fn check<E: Noted<Key = u64, Value = u64>>(
        mut entries: E,
        put: impl Fn(&mut E, u64, u64),
        take_out: impl Fn(&mut E, &mut Changes<u64, u64>, u64),
    ) {
        let mut random = 7u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let mut changes = Changes::default();
        let mut kept: Vec<Entries<u64, u64>> = Vec::new();
        let mut longest = 0;
        for round in 0..500 {
            for _ in 0..draw(20) {
                let key = draw(300);
                if draw(4) == 0 {
                    take_out(&mut entries, &mut changes, key);
                } else {
                    put(&mut entries, key, draw(1_000));
                }
                changes.note(&key);
                if draw(3) == 0 {
                    let mut room = draw(40) as usize;
                    changes.gather(&mut room, &entries);
                }
            }
            let Since { begins_anew, rows } = changes.take(&entries);
            if begins_anew {
                kept.clear();
            }
            kept.push(rows.into_iter().collect());
            longest = longest.max(kept.len());
            let mut read = BTreeMap::new();
            for (key, value) in kept.iter().flatten() {
                match value {
                    Some(value) => read.insert(*key, *value),
                    None => read.remove(key),
                };
            }
            let all: BTreeMap<u64, u64> = entries.behind(0, None, usize::MAX).into_iter().collect();
            assert_eq!(read, all, "round {round}");
            if draw(40) == 0 {
                changes.begin_anew();
            }
        }
        assert!((10..=32).contains(&longest), "{longest}");
    }

    #[test]
    fn rows_behind_one_another_are_what_there_is() {
        check(
            BTreeMap::new(),
            |entries, key, value| {
                entries.insert(key, value);
            },
            |entries, _, key| {
                entries.remove(&key);
            },
        );
        check(
            IndexMap::new(),
            |entries, key, value| {
                entries.insert(key, value);
            },
            |entries, changes, key| {
                if let Some((at, ..)) = entries.swap_remove_full(&key)
                    && let Some((moved, _)) = entries.get_index(at)
                {
                    changes.note(moved);
                }
            },
        );
    }

    #[test]
    fn what_did_not_change_is_not_taken_again() {
        let entries: BTreeMap<u64, u64> = (0..10_000).map(|key| (key, key)).collect();
        let mut changes = Changes::default();
        let mut turns = 0;
        loop {
            let mut room = 100;
            changes.gather(&mut room, &entries);
            turns += 1;
            if room > 0 {
                break;
            }
        }
        assert_eq!(turns, 101, "a turn takes what there is room for");
        assert_eq!(changes.take(&entries).rows.len(), 10_000);
        changes.note(&7);
        assert_eq!(changes.take(&entries).rows.len(), 1);
        assert_eq!(changes.take(&entries).rows.len(), 0);
    }
}
