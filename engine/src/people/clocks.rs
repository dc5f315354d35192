//! Clocks say who is to be looked at when, so that nobody has to look at all.
//!
//! Everybody has a clock, which stands among all others in a tree. Whoever comes is to be looked at earlier, when the visit is over: to
//! move the clock there and back would take walks through a tree of a million that is in no cache. So it stays where it is, and those
//! who are there stand in a queue beside it: most visits would end in the order in which they began. What else is near, as somebody who
//! is still there and is to be looked at again before others who came meanwhile, stands in a second tree, which is as small as few are
//! there at a time.

use std::collections::{BTreeSet, VecDeque};

/// Looks that lie together in memory: the queue grows by so many, for to move a long one would hold up events.
const TOGETHER: usize = 4_096;

/// A look at somebody beside the own clock.
#[derive(Debug)]
struct Look {
    place: u32,
    /// Microseconds since the look before it.
    since_us: u32,
}

/// What it was that rang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rings {
    /// The person's own clock, which is no longer set.
    Own,
    /// A look beside it.
    Beside,
}

/// Everybody's clock.
#[derive(Debug)]
pub(super) struct Clocks {
    /// How far ahead somebody is looked at beside the own clock, microseconds: until a visit is over.
    near_us: i64,
    own: BTreeSet<(i64, u32)>,
    /// Looks that are not in the queue.
    others: BTreeSet<(i64, u32)>,
    /// The queue of looks.
    beside: VecDeque<Vec<Look>>,
    /// How many of those that lie together in front are over.
    over: usize,
    /// When the first and the last look of the queue are due, microseconds.
    first_us: i64,
    last_us: i64,
}

impl Clocks {
    /// Of nobody yet; visits are over when nothing was heard for `visit_gap_us`.
    pub(super) fn new(visit_gap_us: i64) -> Self {
        Self {
            near_us: visit_gap_us,
            own: BTreeSet::new(),
            others: BTreeSet::new(),
            beside: VecDeque::new(),
            over: 0,
            first_us: i64::MIN,
            last_us: i64::MIN,
        }
    }

    /// When the first of them rings.
    pub(super) fn first(&self) -> Option<i64> {
        let trees = [&self.own, &self.others].into_iter();
        let trees = trees.filter_map(|tree| tree.first().map(|(at_us, _)| *at_us));
        let beside = (!self.beside.is_empty()).then_some(self.first_us);
        trees.chain(beside).min()
    }

    /// Who is to be looked at at this very time; gives each once.
    pub(super) fn pop(&mut self, at_us: i64) -> Option<(u32, Rings)> {
        for (tree, rings) in [(&mut self.own, Rings::Own), (&mut self.others, Rings::Beside)] {
            if tree.first().is_some_and(|(first_us, _)| *first_us == at_us) {
                return tree.pop_first().map(|(_, place)| (place, rings));
            }
        }
        if self.first_us != at_us {
            return None;
        }
        let place = self.beside.front()?.get(self.over)?.place;
        self.over += 1;
        if self.beside.front().is_some_and(|together| together.len() == self.over) {
            self.beside.pop_front();
            self.over = 0;
        }
        if let Some(next) = self.beside.front().and_then(|together| together.get(self.over)) {
            self.first_us += i64::from(next.since_us);
        }
        Some((place, Rings::Beside))
    }

    /// Sets the own clock of somebody who has none.
    pub(super) fn set(&mut self, rings_us: i64, place: u32) {
        self.own.insert((rings_us, place));
    }

    /// Takes away the own clock.
    pub(super) fn remove(&mut self, rings_us: i64, place: u32) {
        self.own.remove(&(rings_us, place));
    }

    /// By the time `now_us` somebody is to be looked at at `due_us` as well; false where that is too far away, and the own clock
    /// has to be moved.
    pub(super) fn look(&mut self, now_us: i64, due_us: i64, place: u32) -> bool {
        // Further than any visit of now lasts: all who come would have to stand before it.
        if due_us.saturating_sub(now_us) > self.near_us {
            return false;
        }
        if self.beside.is_empty() {
            (self.first_us, self.last_us) = (due_us, due_us);
        }
        // Before the last of the queue, or more than an hour behind it.
        let Ok(since_us) = u32::try_from(due_us.saturating_sub(self.last_us)) else {
            self.others.insert((due_us, place));
            return true;
        };
        let look = Look { place, since_us };
        match self.beside.back_mut().filter(|together| together.len() < TOGETHER) {
            Some(together) => together.push(look),
            None => {
                // The first few take no more room than they need: most houses have no others.
                let mut together = Vec::with_capacity(if self.beside.is_empty() { 0 } else { TOGETHER });
                together.push(look);
                self.beside.push_back(together);
            }
        }
        self.last_us = due_us;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{Clocks, Rings};

    impl Clocks {
        /// How many looks there are.
        pub(in super::super) fn looks(&self) -> usize {
            self.others.len() + self.beside.iter().map(Vec::len).sum::<usize>() - self.over
        }
    }

    /// All that ring up to a time, in the order in which they do.
    fn ringing(clocks: &mut Clocks, until_us: i64) -> Vec<(i64, u32, Rings)> {
        let mut all = Vec::new();
        while let Some(at_us) = clocks.first().filter(|at_us| *at_us < until_us) {
            let (place, rings) = clocks.pop(at_us).expect("one rings then");
            all.push((at_us, place, rings));
        }
        all
    }

    #[test]
    fn a_look_that_is_far_away_is_not_taken() {
        let mut clocks = Clocks::new(140);
        assert!(clocks.look(0, 100, 1) && clocks.look(0, 100, 2) && clocks.look(10, 150, 3));
        assert!(clocks.look(10, 149, 4), "before the last");
        assert!(!clocks.look(10, 151, 5), "no visit of now lasts so long");
        clocks.set(120, 6);
        let expected = [
            (100, 1, Rings::Beside),
            (100, 2, Rings::Beside),
            (120, 6, Rings::Own),
            (149, 4, Rings::Beside),
            (150, 3, Rings::Beside),
        ];
        assert_eq!(ringing(&mut clocks, 1_000), expected);
        assert_eq!(clocks.first(), None);
        assert!(clocks.look(0, 5, 7), "the queue has come to its end and begins anew");
        assert_eq!(clocks.first(), Some(5));
    }

    proptest! {
        #[test]
        fn everybody_is_looked_at_when_asked_for(
            asked in prop::collection::vec((0..50_i64, 0..100_i64, any::<bool>()), 0..30_000), near in 50..120_i64,
            step in prop_oneof![1..40_i64, Just(100_000_000)],
        ) {
            let mut clocks = Clocks::new(near * step);
            let mut expected: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
            let (mut now_us, mut heard) = (0, BTreeMap::<i64, Vec<u32>>::new());
            for (place, (later, due, is_own)) in (0..).zip(asked) {
                now_us += later;
                for (at_us, place, _) in ringing(&mut clocks, now_us) {
                    heard.entry(at_us).or_default().push(place);
                }
                let due_us = now_us + due * step;
                expected.entry(due_us).or_default().push(place);
                if is_own || !clocks.look(now_us, due_us, place) {
                    clocks.set(due_us, place);
                }
            }
            for (at_us, place, _) in ringing(&mut clocks, i64::MAX) {
                heard.entry(at_us).or_default().push(place);
            }
            heard.values_mut().for_each(|places| places.sort_unstable());
            prop_assert_eq!(heard, expected);
        }
    }
}
