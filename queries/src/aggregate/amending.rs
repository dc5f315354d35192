//! Amending: late rows change panes of windows that were said, and these are said again.
//!
//! Such windows overlap nearly altogether: of a day, a minute apart, with an hour's lateness they share 1,380 panes of 1,440.
//! What they all share is merged once; then what each half of them shares beside that, and so on down to each by itself.

use std::collections::BTreeMap;
use std::ops::Range;

use datafusion::common::Result;

use super::{Aggregate, Telling};
use crate::aggregate::AggregatePlan;
use crate::keys::Group;
use crate::row::Rows;
use crate::slot::Slot;
use crate::window::{Hop, Span};

/// Fewer windows share too little for it to be merged by itself.
const SHARING_MIN: usize = 3;

/// A window that is said again, and the groups of it that have changed.
type Amended = (i64, Vec<Group>);

/// What some windows share: the merge of the panes of these times, in two halves, since panes are merged in the order of time
/// and come in on both sides.
struct Shared {
    times: Range<i64>,
    earlier: Slot,
    later: Slot,
}

impl Aggregate {
    /// Says again the windows that were said and whose panes late rows have changed, where they are not final at the
    /// watermark `judged`. The last of the rows met `met`.
    pub(super) fn amend_panes(&mut self, hop: Hop, met: i64, judged: i64, out: &mut Vec<Rows>) -> Result<()> {
        let mut amended: BTreeMap<i64, Vec<Group>> = BTreeMap::new();
        for pane in std::mem::take(&mut self.changed) {
            let Some(slot) = self.slots.get_mut(&pane) else {
                continue;
            };
            let mut changed = slot.take_changed(usize::MAX);
            changed.sort_unstable();
            if let Some(noting) = &mut self.noting {
                noting.note_span(pane, slot);
            }
            for start in hop.starts(pane.start) {
                let span = hop.span(start);
                if span.end <= self.said_until && !self.is_final(span, judged) {
                    put_to(amended.entry(start).or_default(), &changed);
                }
            }
        }
        let windows: Vec<Amended> = amended.into_iter().filter(|(_, groups)| !groups.is_empty()).collect();
        self.amended += windows.iter().map(|(_, groups)| groups.len() as u64).sum::<u64>();
        let telling = Telling::now(met.max(self.watermark), true);
        let mut rest = windows.as_slice();
        while let Some((first, _)) = rest.first() {
            let end = first.saturating_add(hop.size_us);
            let overlap = rest.iter().take_while(|(start, _)| *start < end).count();
            let (windows, behind) = rest.split_at(overlap);
            self.amend_windows(hop, windows, telling, out)?;
            rest = behind;
        }
        Ok(())
    }

    /// Says again windows that have a pane in common.
    fn amend_windows(&mut self, hop: Hop, windows: &[Amended], telling: Telling, out: &mut Vec<Rows>) -> Result<()> {
        let mut groups = Vec::new();
        for (_, of_window) in windows {
            put_to(&mut groups, of_window);
        }
        if windows.len() < SHARING_MIN {
            for (start, groups) in windows {
                self.say_merged(hop.span(*start), Some(groups), telling, out)?;
            }
            return Ok(());
        }
        let Some((last, _)) = windows.last() else { return Ok(()) };
        let nothing = Shared {
            times: *last..*last,
            earlier: self.empty_slot(),
            later: self.empty_slot(),
        };
        self.amend_sharing(hop, windows, &groups, nothing, telling, out)
    }

    /// Says again windows that share what was merged so far, of all `groups` that have changed in any of them.
    fn amend_sharing(
        &mut self,
        hop: Hop,
        windows: &[Amended],
        groups: &[Group],
        mut shared: Shared,
        telling: Telling,
        out: &mut Vec<Rows>,
    ) -> Result<()> {
        let [(first, _), .., (last, _)] = windows else {
            // One by itself: all of it is merged.
            if let [(start, of_window)] = windows {
                self.share_panes(hop, *start..start.saturating_add(hop.size_us), groups, &mut shared)?;
                let Shared { mut earlier, later, .. } = shared;
                merge_here(&later, groups, &self.plan, &mut earlier, &mut Vec::new())?;
                Self::say(
                    &self.plan,
                    &self.keys,
                    hop.span(*start),
                    &mut earlier,
                    of_window,
                    telling,
                    out,
                )?;
                self.give_back(earlier);
                self.give_back(later);
            }
            return Ok(());
        };
        self.share_panes(hop, *last..first.saturating_add(hop.size_us), groups, &mut shared)?;
        let (those_first, those_last) = windows.split_at(windows.len() / 2);
        let mut copy = Shared {
            times: shared.times.clone(),
            earlier: self.empty_slot(),
            later: self.empty_slot(),
        };
        let mut here = Vec::new();
        merge_here(&shared.earlier, groups, &self.plan, &mut copy.earlier, &mut here)?;
        merge_here(&shared.later, groups, &self.plan, &mut copy.later, &mut here)?;
        self.amend_sharing(hop, those_first, groups, copy, telling, out)?;
        self.amend_sharing(hop, those_last, groups, shared, telling, out)
    }

    /// Merges what is missing of the panes of these times.
    fn share_panes(&mut self, hop: Hop, times: Range<i64>, groups: &[Group], shared: &mut Shared) -> Result<()> {
        let mut here = Vec::new();
        if times.start < shared.times.start {
            // What comes before goes first.
            let mut earlier = self.empty_slot();
            self.merge_panes(hop, times.start..shared.times.start, groups, &mut earlier)?;
            merge_here(&shared.earlier, groups, &self.plan, &mut earlier, &mut here)?;
            let before = std::mem::replace(&mut shared.earlier, earlier);
            self.give_back(before);
        }
        if shared.times.end < times.end {
            self.merge_panes(hop, shared.times.end..times.end, groups, &mut shared.later)?;
        }
        shared.times = times;
        Ok(())
    }

    /// Merges the panes of these times, in their order.
    fn merge_panes(&self, hop: Hop, times: Range<i64>, groups: &[Group], into: &mut Slot) -> Result<()> {
        let (first, last): (Span, Span) = (hop.pane(times.start), hop.pane(times.end - 1));
        let mut here = Vec::new();
        for (_, pane) in self.slots.range(first..=last) {
            merge_here(pane, groups, &self.plan, into, &mut here)?;
        }
        Ok(())
    }

    fn empty_slot(&mut self) -> Slot {
        self.pool.take(&self.plan)
    }

    fn give_back(&mut self, mut slot: Slot) {
        slot.recycle();
        self.pool.give(slot);
    }
}

/// Merges those of `groups` that are in a slot. `here` is to list them in.
fn merge_here(
    slot: &Slot,
    groups: &[Group],
    plan: &AggregatePlan,
    into: &mut Slot,
    here: &mut Vec<Group>,
) -> Result<()> {
    here.clear();
    here.extend(groups.iter().copied().filter(|group| slot.has(*group)));
    if here.is_empty() {
        return Ok(());
    }
    into.enter_all(here);
    into.merge(slot, here, plan)
}

/// Puts sorted groups to others that are.
fn put_to(all: &mut Vec<Group>, groups: &[Group]) {
    if all.is_empty() {
        all.extend_from_slice(groups);
    } else if all != groups {
        all.extend_from_slice(groups);
        all.sort_unstable();
        all.dedup();
    }
}
