//! A slot holds the groups of one window or pane: an accumulator a group and aggregate, and what was said of it.

use std::sync::Arc;

use crate::accumulator::GroupAccumulator;
use crate::aggregate::AggregatePlan;
use crate::keys::Group;

const PRESENT: u8 = 1;
const CHANGED: u8 = 2;
const TOLD: u8 = 4;

/// The groups of one window or pane.
pub(crate) struct Slot {
    pub(crate) accumulators: Vec<Box<dyn GroupAccumulator>>,
    /// Bits a group: whether it is there, whether it changed since it was last said, whether it was said at all.
    flags: Vec<u8>,
    pub(crate) members: Vec<Group>,
    pub(crate) changed: Vec<Group>,
    pub(crate) causes: Vec<Option<Arc<str>>>,
    /// The watermark at each group's last row; kept only with a time to live.
    pub(crate) touched: Vec<i64>,
    pub(crate) said: bool,
}

impl Slot {
    /// An empty one for the aggregates of `plan`.
    pub(crate) fn new(plan: &AggregatePlan) -> Self {
        Self {
            accumulators: plan.aggregates.iter().map(|call| call.kind.create()).collect(),
            flags: Vec::new(),
            members: Vec::new(),
            changed: Vec::new(),
            causes: Vec::new(),
            touched: Vec::new(),
            said: false,
        }
    }

    /// Makes room for groups below `groups`.
    pub(crate) fn resize(&mut self, groups: usize, plan: &AggregatePlan) {
        if self.flags.len() >= groups {
            return;
        }
        // Grow in large steps: a flood of new keys must not resize at each batch.
        let groups = groups.next_power_of_two();
        self.flags.resize(groups, 0);
        for accumulator in &mut self.accumulators {
            accumulator.resize(groups);
        }
        if plan.keeps_causes {
            self.causes.resize(groups, None);
        }
        if plan.ttl_us.is_some() {
            self.touched.resize(groups, i64::MIN);
        }
    }

    /// Whether a row of the group is here.
    pub(crate) fn has(&self, group: Group) -> bool {
        self.flags.get(group as usize).is_some_and(|flags| flags & PRESENT != 0)
    }

    /// A row of the group is here now; true when it is the first.
    pub(crate) fn enter(&mut self, group: Group) -> bool {
        let flags = &mut self.flags[group as usize];
        let is_new = *flags & PRESENT == 0;
        if is_new {
            *flags |= PRESENT;
            self.members.push(group);
        }
        is_new
    }

    /// The group is to be said again.
    pub(crate) fn note_change(&mut self, group: Group) {
        let flags = &mut self.flags[group as usize];
        if *flags & CHANGED == 0 {
            *flags |= CHANGED;
            self.changed.push(group);
        }
    }

    /// Whether the group is to be said again.
    pub(crate) fn has_changed(&self, group: Group) -> bool {
        self.flags[group as usize] & CHANGED != 0
    }

    /// Whether the group was said before.
    pub(crate) fn was_told(&self, group: Group) -> bool {
        self.flags[group as usize] & TOLD != 0
    }

    /// The group was said.
    pub(crate) fn note_told(&mut self, group: Group) {
        self.flags[group as usize] |= TOLD;
    }

    /// The groups that changed since they were last said.
    pub(crate) fn take_changed(&mut self) -> Vec<Group> {
        let changed = std::mem::take(&mut self.changed);
        for group in &changed {
            self.flags[*group as usize] &= !CHANGED;
        }
        changed
    }

    /// Sets a group back to nothing that stays where it is.
    pub(crate) fn reset_group(&mut self, group: Group) {
        for accumulator in &mut self.accumulators {
            accumulator.clear(group);
        }
        if let Some(cause) = self.causes.get_mut(group as usize) {
            *cause = None;
        }
    }

    /// Forgets a group.
    pub(crate) fn clear_group(&mut self, group: Group) {
        self.flags[group as usize] = 0;
        self.reset_group(group);
        if let Some(touched) = self.touched.get_mut(group as usize) {
            *touched = i64::MIN;
        }
    }

    /// Empties the slot for another window; keeps the memory.
    pub(crate) fn recycle(&mut self) {
        for group in std::mem::take(&mut self.members) {
            self.clear_group(group);
        }
        self.changed.clear();
        self.said = false;
    }

    /// Bytes kept, estimated.
    pub(crate) fn bytes(&self) -> usize {
        self.accumulators
            .iter()
            .map(|accumulator| accumulator.bytes())
            .sum::<usize>()
            + self.flags.capacity()
            + (self.members.capacity() + self.changed.capacity()) * 4
            + self.causes.capacity() * 16
            + self.causes.iter().flatten().map(|cause| cause.len()).sum::<usize>()
            + self.touched.capacity() * 8
    }
}
