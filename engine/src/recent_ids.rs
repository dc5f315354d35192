//! Recent ids know an event that came before, in a memory that does not grow.

use rustc_hash::FxHashSet;

/// The newest ids, in two generations: when the younger is full it becomes the older, and the older is forgotten.
/// At least the last half of the capacity is known, at most all of it. 17 to 40 bytes an id.
#[derive(Debug)]
pub struct RecentIds {
    young: FxHashSet<u128>,
    old: FxHashSet<u128>,
    generation: usize,
}

impl RecentIds {
    /// Knows the last `capacity / 2` ids for sure, and `capacity` at most.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            young: FxHashSet::default(),
            old: FxHashSet::default(),
            generation: (capacity / 2).max(1),
        }
    }

    /// Ids known at most.
    pub fn capacity(&self) -> usize {
        2 * self.generation
    }

    /// Remembers an id; true when it was not known.
    pub fn insert(&mut self, key: u128) -> bool {
        if self.young.contains(&key) || self.old.contains(&key) {
            return false;
        }
        if self.young.len() >= self.generation {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key)
    }
}

#[cfg(test)]
mod tests {
    use super::RecentIds;

    #[test]
    fn what_came_within_half_the_capacity_is_known() {
        let mut ids = RecentIds::with_capacity(100);
        for key in 0..1_000_u128 {
            assert!(ids.insert(key), "{key} is new");
            for back in key.saturating_sub(49)..=key {
                assert!(!ids.insert(back), "{back} came {} before", key - back);
            }
        }
        assert!(ids.insert(0), "what is long gone is forgotten");
    }
}
