//! A slot holds the groups of one window or pane: an accumulator a group and aggregate, and what was said of it.

use std::sync::Arc;

use datafusion::common::Result;

use crate::accumulator::GroupAccumulator;
use crate::aggregate::AggregatePlan;
use crate::grouped::Grouped;
use crate::keys::Group;
use crate::operator::Progress;

const PRESENT: u8 = 1;
const CHANGED: u8 = 2;
const TOLD: u8 = 4;
const NOTED: u8 = 8;

/// Bytes of a row that is neither short nor long.
const ROW_BYTES: usize = 256;

/// How many ordinary rows that of a group with these aggregates is as long as: some are a number, some a sketch of 16 KiB, and
/// some all that were counted as different.
pub(crate) fn row_weight(accumulators: &[Box<dyn GroupAccumulator>], group: Group) -> usize {
    let bytes = accumulators.iter().map(|accumulator| accumulator.row_bytes(group));
    1 + bytes.sum::<usize>() / ROW_BYTES
}

/// How many of a slot's members something has gone through, part by part.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Walk(usize);

impl Walk {
    /// The next members, as many as there is room for; behind the last it stands at the start again.
    pub(crate) fn next<'a>(&mut self, members: &'a [Group], room: &mut usize) -> &'a [Group] {
        let to = self.0.saturating_add(*room).min(members.len());
        let next = &members[self.0..to];
        *room -= next.len();
        self.0 = if to == members.len() { 0 } else { to };
        next
    }

    /// Whether it has gone through all members, or through none yet.
    pub(crate) fn is_at_start(self) -> bool {
        self.0 == 0
    }

    /// Merges the next members of `from`, whose rows came later, into `into`.
    pub(crate) fn merge(
        &mut self,
        into: &mut Slot,
        from: &Slot,
        plan: &AggregatePlan,
        room: &mut usize,
    ) -> Result<Progress> {
        if *room == 0 {
            return Ok(Progress::Left);
        }
        let groups = self.next(&from.members, room);
        into.enter_all(groups);
        into.merge(from, groups, plan)?;
        Ok(if self.is_at_start() {
            Progress::Done
        } else {
            Progress::Left
        })
    }
}

/// The groups of one window or pane.
pub(crate) struct Slot {
    pub(crate) accumulators: Vec<Box<dyn GroupAccumulator>>,
    /// Bits a group: whether it is there, whether it changed since it was last said, whether it was said at all.
    flags: Grouped<u8>,
    pub(crate) members: Vec<Group>,
    pub(crate) changed: Vec<Group>,
    pub(crate) causes: Grouped<Option<Arc<str>>>,
    /// The watermark at each group's last row; kept only with a time to live.
    pub(crate) touched: Grouped<i64>,
    pub(crate) said: bool,
    /// How many of the members were said, of a window that is being said in parts.
    cursor: usize,
    /// Groups that are to be captured; `None` where nobody captures them.
    noted: Option<Noted>,
}

/// The groups of a slot that are to be captured.
#[derive(Default)]
struct Noted {
    /// All from this one on, in the order of their numbers; `None` behind the last. What begins anew is gone through so,
    /// for to list a million groups at once would hold up events.
    all_from: Option<usize>,
    /// Those that have changed, each once.
    changed: Vec<Group>,
}

impl Slot {
    /// An empty one for the aggregates of `plan`.
    pub(crate) fn new(plan: &AggregatePlan) -> Self {
        Self {
            accumulators: plan.aggregates.iter().map(|call| call.kind.create()).collect(),
            flags: Grouped::default(),
            members: Vec::new(),
            changed: Vec::new(),
            causes: Grouped::default(),
            touched: Grouped::filled(|places| vec![i64::MIN; places]),
            said: false,
            cursor: 0,
            noted: None,
        }
    }

    /// Changes are noted from now on.
    pub(crate) fn begin_noting(&mut self) {
        self.noted.get_or_insert_default();
    }

    /// All groups are to be captured, and what changes from now on.
    pub(crate) fn note_all(&mut self) {
        // What was noted before stays marked until it is gone through.
        self.noted = Some(Noted {
            all_from: Some(0),
            changed: Vec::new(),
        });
    }

    /// Changes are no longer noted, until all groups are noted again.
    pub(crate) fn end_noting(&mut self) {
        self.noted = None;
    }

    /// The group has changed.
    pub(crate) fn note(&mut self, group: Group) {
        if let Some(noted) = &mut self.noted {
            let flags = &mut self.flags[group as usize];
            if *flags & NOTED == 0 {
                *flags |= NOTED;
                noted.changed.push(group);
            }
        }
    }

    /// Groups that are to be captured, as many as there is room for by their weights, or one; none where it took long to find
    /// none. There has to be room, and some of it is used in any case.
    pub(crate) fn take_noted(&mut self, room: &mut usize) -> Vec<Group> {
        /// Where few of the numbers are this slot's, so many are looked at for each row that there is room for.
        const LOOKED_AT: usize = 32;
        let mut taken = Vec::new();
        let Some(noted) = &mut self.noted else {
            return taken;
        };
        let (before, mut left) = (*room, *room);
        if let Some(from) = noted.all_from {
            let to = from
                .saturating_add(before.saturating_mul(LOOKED_AT))
                .min(self.flags.end());
            let mut next = from;
            while next < to && left > 0 {
                let flags = &mut self.flags[next];
                *flags &= !NOTED;
                if *flags & PRESENT != 0 {
                    let group = next as Group;
                    taken.push(group);
                    left = left.saturating_sub(row_weight(&self.accumulators, group));
                }
                next += 1;
            }
            noted.all_from = (next < self.flags.end()).then_some(next);
        } else {
            while left > 0
                && let Some(group) = noted.changed.pop()
            {
                // A group may be here twice, or no more, where it was forgotten in between.
                let flags = &mut self.flags[group as usize];
                if *flags & (NOTED | PRESENT) == NOTED | PRESENT {
                    taken.push(group);
                    left = left.saturating_sub(row_weight(&self.accumulators, group));
                }
                *flags &= !NOTED;
            }
        }
        *room = left.min(before.saturating_sub(1));
        taken
    }

    /// Whether groups are to be captured.
    pub(crate) fn has_noted(&self) -> bool {
        self.noted
            .as_ref()
            .is_some_and(|noted| noted.all_from.is_some() || !noted.changed.is_empty())
    }

    /// Whether a row of the group is here.
    pub(crate) fn has(&self, group: Group) -> bool {
        self.flags[group as usize] & PRESENT != 0
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

    /// Rows of the groups, each there once, are here now.
    pub(crate) fn enter_all(&mut self, groups: &[Group]) {
        if self.members.is_empty() {
            self.flags.for_each(groups, |flags| *flags |= PRESENT);
            self.members.extend_from_slice(groups);
        } else if !self.flags.all(groups, |flags| flags & PRESENT != 0) {
            for group in groups {
                self.enter(*group);
            }
        }
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
        self.note(group);
    }

    /// Groups that changed since they were last said, at most so many.
    pub(crate) fn take_changed(&mut self, most: usize) -> Vec<Group> {
        let mut changed = if most < self.changed.len() {
            self.changed.split_off(self.changed.len() - most)
        } else {
            std::mem::take(&mut self.changed)
        };
        // A group may be here twice, or no more, where it was forgotten in between.
        changed.retain(|group| {
            let flags = &mut self.flags[*group as usize];
            let has_changed = *flags & CHANGED != 0;
            *flags &= !CHANGED;
            has_changed
        });
        for group in &changed {
            self.note(*group);
        }
        changed
    }

    /// The next members to be said, at most so many; those before them were.
    pub(crate) fn next_members(&mut self, most: usize) -> Vec<Group> {
        let to = self.cursor.saturating_add(most).min(self.members.len());
        let next = self.members[self.cursor..to].to_vec();
        self.cursor = to;
        next
    }

    /// Whether all members were said.
    pub(crate) fn is_at_end(&self) -> bool {
        self.cursor == self.members.len()
    }

    /// Whether some members were said and others are to be.
    pub(crate) fn is_partly_said(&self) -> bool {
        self.cursor > 0
    }

    /// How many members were said, where others are to be.
    pub(crate) fn cursor(&self) -> usize {
        self.cursor
    }

    /// The members that were said, where others are to be.
    pub(crate) fn said_members(&self) -> &[Group] {
        &self.members[..self.cursor]
    }

    /// Takes back what `cursor` gave.
    pub(crate) fn set_cursor(&mut self, cursor: usize) {
        self.cursor = cursor.min(self.members.len());
    }

    /// The members are to be said from the first on the next time.
    pub(crate) fn begin_again(&mut self) {
        self.cursor = 0;
    }

    /// Adds what a pane holds of `groups`, which are here already; panes come in the order of time.
    pub(crate) fn merge(&mut self, pane: &Self, groups: &[Group], plan: &AggregatePlan) -> Result<()> {
        for (into, from) in self.accumulators.iter_mut().zip(&pane.accumulators) {
            into.merge(from.as_ref(), groups)?;
        }
        if plan.keeps_causes {
            // The newest event stays.
            for group in groups {
                if let Some(cause) = &pane.causes[*group as usize] {
                    self.causes[*group as usize] = Some(Arc::clone(cause));
                }
            }
        }
        Ok(())
    }

    /// Puts the members in the order of their numbers: whoever goes through them then reads memory in one direction.
    pub(crate) fn put_in_order(&mut self) {
        if self.members.is_sorted() {
            return;
        }
        if self.members.len() < self.flags.end() / 16 {
            self.members.sort_unstable();
            return;
        }
        self.members.clear();
        let present = self.flags.places().filter(|(_, flags)| **flags & PRESENT != 0);
        self.members.extend(present.map(|(group, _)| group));
    }

    /// Takes members out, at most so many.
    pub(crate) fn take_members(&mut self, most: usize) -> Vec<Group> {
        self.members.split_off(self.members.len().saturating_sub(most))
    }

    /// Sets groups back to nothing that stay where they are.
    pub(crate) fn reset(&mut self, groups: &[Group]) {
        for accumulator in &mut self.accumulators {
            accumulator.clear(groups);
        }
        self.causes.for_each_there(groups, |cause| *cause = None);
    }

    /// Forgets groups.
    pub(crate) fn clear(&mut self, groups: &[Group]) {
        self.flags.for_each_there(groups, |flags| *flags = 0);
        self.reset(groups);
        self.touched.for_each_there(groups, |touched| *touched = i64::MIN);
    }

    /// Empties the slot for another window; keeps the memory.
    pub(crate) fn recycle(&mut self) {
        let mut members = std::mem::take(&mut self.members);
        self.clear(&members);
        members.clear();
        self.members = members;
        self.changed.clear();
        self.said = false;
        self.cursor = 0;
        self.noted = None;
    }

    /// Bytes kept for some of the aggregates, estimated.
    pub(crate) fn bytes(&self, calls: &[usize]) -> usize {
        let causes = self.causes.places().filter_map(|(_, cause)| cause.as_ref());
        calls.iter().map(|call| self.accumulators[*call].bytes()).sum::<usize>()
            + self.flags.bytes()
            + (self.members.capacity()
                + self.changed.capacity()
                + self.noted.as_ref().map_or(0, |noted| noted.changed.capacity()))
                * 4
            + self.causes.bytes()
            + causes.map(|cause| cause.len()).sum::<usize>()
            + self.touched.bytes()
    }
}
