//! Steps that were told are known by their ids when the log is gone through again.

use std::collections::{HashSet, VecDeque};

use super::step::StepId;

/// The ids of the newest steps, some tens of bytes each.
#[derive(Debug, Default)]
pub(super) struct Known {
    ids: HashSet<StepId>,
    /// With the numbers of their steps, the oldest first.
    order: VecDeque<(u64, StepId)>,
}

impl Known {
    /// Learns the id of a step that comes behind all others; false when it is known.
    pub(super) fn insert(&mut self, number: u64, id: StepId) -> bool {
        let is_new = self.ids.insert(id);
        if is_new {
            self.order.push_back((number, id));
        }
        is_new
    }

    /// Forgets the steps before this one.
    pub(super) fn forget_before(&mut self, number: u64) {
        while let Some((_, id)) = self.order.pop_front_if(|(first, _)| *first < number) {
            self.ids.remove(&id);
        }
    }

    /// How many are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }
}
