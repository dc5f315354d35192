//! The merge of a window's panes where none can be taken back (averages of floats, extremes, first and last rows, whatever
//! can be merged): two stacks.
//!
//! The older panes are kept as merges of each of them with all that follow up to a boundary, so that one is given up
//! with its pane; the panes behind the boundary are one merge. A window is the merge of two, and when the last of the older
//! panes has gone, all are merged anew. So a pane is merged a few times, however many windows it lies in.
//!
//! A merge for each pane of a day would be as large as the day again and out of every cache when its turn comes. So panes are
//! merged in blocks first, as many as a block has panes, and those of a block are told apart when it is the oldest.

use datafusion::common::Result;

use super::closing::Pool;
use super::sliding::Panes;
use crate::aggregate::AggregatePlan;
use crate::operator::Progress;
use crate::slot::{Slot, Walk};
use crate::window::Span;

/// The two stacks.
pub(super) struct Stacked {
    span: Span,
    /// Each pane of the oldest block with all that follow it up to the boundary, the earliest pane last.
    older: Vec<(Span, Slot)>,
    /// Each block behind it with all that follow it up to the boundary, the earliest block last.
    blocks: Vec<(Span, Slot)>,
    boundary: i64,
    /// All panes behind the boundary.
    newer: Slot,
    /// What is being put on one of the two.
    rising: Option<Rising>,
    /// The window: where both stacks are merged.
    merged: Slot,
    /// Where the slot stands that is merged next.
    walk: Walk,
    stage: Stage,
}

/// A pane or a block on its way to its stack.
struct Rising {
    span: Span,
    slot: Slot,
    /// Its panes before this are merged.
    taken_until: i64,
}

/// What of moving on to a window is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begun,
    /// The older panes have gone: all are merged anew, in blocks.
    Stacking,
    /// The oldest block has gone: the panes of the next are merged each by itself.
    Unfolding,
    /// The newest panes come in.
    Entering,
    MergingOlder,
    MergingNewer,
}

impl Rising {
    fn new(span: Span, panes: &Panes<'_>, pool: &mut Pool) -> Self {
        Self {
            span,
            slot: pool.take(panes.plan),
            taken_until: span.start,
        }
    }

    /// Merges its panes, and then what follows it.
    fn rise(
        &mut self,
        later: Option<&(Span, Slot)>,
        panes: &Panes<'_>,
        walk: &mut Walk,
        room: &mut usize,
    ) -> Result<Progress> {
        while let Some((pane, slot)) = panes.within(self.taken_until, self.span.end).next() {
            if walk.merge(&mut self.slot, slot, panes.plan, room)? == Progress::Left {
                return Ok(Progress::Left);
            }
            self.taken_until = pane.end;
        }
        match later {
            Some((_, later)) => walk.merge(&mut self.slot, later, panes.plan, room),
            None => Ok(Progress::Done),
        }
    }
}

impl Stacked {
    /// Of no panes yet, before `time`.
    pub(super) fn before(time: i64, pool: &mut Pool, plan: &AggregatePlan) -> Self {
        Self {
            span: Span { end: time, start: time },
            older: Vec::new(),
            blocks: Vec::new(),
            boundary: time,
            newer: pool.take(plan),
            rising: None,
            merged: pool.take(plan),
            walk: Walk::default(),
            stage: Stage::Begun,
        }
    }

    pub(super) fn span(&self) -> Span {
        self.span
    }

    /// Makes `merged` the merge of the panes of the window `to`.
    pub(super) fn move_to(
        &mut self,
        to: Span,
        panes: &Panes<'_>,
        pool: &mut Pool,
        room: &mut usize,
    ) -> Result<Progress> {
        loop {
            let progress = match self.stage {
                Stage::Begun => {
                    self.drop_until(to.start, pool);
                    self.stage = if self.boundary <= to.start {
                        pool.exchange(&mut self.newer, panes.plan);
                        self.blocks.drain(..).for_each(|(_, slot)| pool.give(slot));
                        (self.boundary, self.span.end) = (to.end, to.end);
                        Stage::Stacking
                    } else {
                        Stage::Unfolding
                    };
                    Progress::Done
                }
                Stage::Stacking => self.stack(to, panes, pool, room)?,
                Stage::Unfolding => self.unfold(to, panes, pool, room)?,
                Stage::Entering => self.enter(to, panes, room)?,
                Stage::MergingOlder => {
                    let next_start = to.start.saturating_add(panes.hop.slide_us);
                    if let Some((_, slot)) = self.older.pop_if(|(pane, _)| pane.start < next_start) {
                        // No window that follows has its pane.
                        pool.give(std::mem::replace(&mut self.merged, slot));
                        self.stage = Stage::MergingNewer;
                        continue;
                    }
                    let progress = match self.older.last().or(self.blocks.last()) {
                        Some((_, slot)) => self.walk.merge(&mut self.merged, slot, panes.plan, room)?,
                        None => Progress::Done,
                    };
                    if progress == Progress::Done {
                        self.stage = Stage::MergingNewer;
                    }
                    progress
                }
                Stage::MergingNewer => {
                    let progress = self.walk.merge(&mut self.merged, &self.newer, panes.plan, room)?;
                    if progress == Progress::Done {
                        self.stage = Stage::Begun;
                        self.span = to;
                        return Ok(Progress::Done);
                    }
                    progress
                }
            };
            if progress == Progress::Left {
                return Ok(Progress::Left);
            }
        }
    }

    /// Merges the panes of a window in blocks, the latest block first, all but the oldest.
    fn stack(&mut self, to: Span, panes: &Panes<'_>, pool: &mut Pool, room: &mut usize) -> Result<Progress> {
        let size = panes.within(to.start, to.end).count().isqrt();
        loop {
            if self.rising.is_none() {
                let before = self.folded_from();
                let mut left = panes.within(to.start, before).rev();
                let (Some((first, _)), Some(_)) = (left.nth(size.saturating_sub(1)), left.next()) else {
                    break;
                };
                let span = Span {
                    end: before,
                    start: first.start,
                };
                self.rising = Some(Rising::new(span, panes, pool));
            }
            if let Some(rising) = &mut self.rising
                && rising.rise(self.blocks.last(), panes, &mut self.walk, room)? == Progress::Left
            {
                return Ok(Progress::Left);
            }
            let risen = self.rising.take();
            self.blocks.extend(risen.map(|rising| (rising.span, rising.slot)));
        }
        self.stage = Stage::Unfolding;
        Ok(Progress::Done)
    }

    /// Merges the panes of the oldest block each by itself with what follows it, where that is not done yet.
    fn unfold(&mut self, to: Span, panes: &Panes<'_>, pool: &mut Pool, room: &mut usize) -> Result<Progress> {
        loop {
            if self.rising.is_none() {
                while self.older.is_empty()
                    && self.blocks.last().is_some_and(|(block, _)| block.start <= to.start)
                    && let Some((_, slot)) = self.blocks.pop()
                {
                    pool.give(slot);
                }
                let before = self.older.last().map_or(self.folded_from(), |(pane, _)| pane.start);
                let Some((pane, _)) = panes.within(to.start, before).next_back() else {
                    break;
                };
                self.rising = Some(Rising::new(*pane, panes, pool));
            }
            let later = self.older.last().or(self.blocks.last());
            if let Some(rising) = &mut self.rising
                && rising.rise(later, panes, &mut self.walk, room)? == Progress::Left
            {
                return Ok(Progress::Left);
            }
            let risen = self.rising.take();
            self.older.extend(risen.map(|rising| (rising.span, rising.slot)));
        }
        self.stage = Stage::Entering;
        Ok(Progress::Done)
    }

    /// Where the blocks begin.
    fn folded_from(&self) -> i64 {
        self.blocks.last().map_or(self.boundary, |(block, _)| block.start)
    }

    fn enter(&mut self, to: Span, panes: &Panes<'_>, room: &mut usize) -> Result<Progress> {
        while let Some((pane, slot)) = panes.within(self.span.end, to.end).next() {
            if self.walk.merge(&mut self.newer, slot, panes.plan, room)? == Progress::Left {
                return Ok(Progress::Left);
            }
            self.span.end = pane.end;
        }
        self.stage = Stage::MergingOlder;
        Ok(Progress::Done)
    }

    /// Gives up the older panes that end by `time`; false where one that ends so is among the newer.
    pub(super) fn drop_until(&mut self, time: i64, pool: &mut Pool) -> bool {
        while let Some((pane, _)) = self.older.last()
            && pane.end <= time
        {
            if let Some((_, slot)) = self.older.pop() {
                pool.give(slot);
            }
        }
        self.span.start = self.span.start.max(time);
        time <= self.boundary
    }

    pub(super) fn merged(&mut self) -> &mut Slot {
        &mut self.merged
    }

    /// The window was said: what it was merged in is given up.
    pub(super) fn note_said(&mut self, pool: &mut Pool, plan: &AggregatePlan) {
        pool.exchange(&mut self.merged, plan);
    }

    /// All its slots, given up.
    pub(super) fn give_up(self, pool: &mut Pool) {
        let older = self.older.into_iter().chain(self.blocks).map(|(_, slot)| slot);
        let rising = self.rising.into_iter().map(|rising| rising.slot);
        for slot in older.chain(rising).chain([self.newer, self.merged]) {
            pool.give_to_empty(slot);
        }
    }

    pub(super) fn bytes(&self, calls: &[usize]) -> usize {
        let older = self.older.iter().chain(&self.blocks).map(|(_, slot)| slot);
        let rising = self.rising.iter().map(|rising| &rising.slot);
        let slots = older.chain(rising).chain([&self.newer, &self.merged]);
        slots.map(|slot| slot.bytes(calls)).sum()
    }
}
