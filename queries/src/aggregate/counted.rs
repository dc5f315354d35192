//! The merge of a window's panes where each can be taken back exactly: moved on without the panes that leave and with
//! those that come.

use datafusion::common::Result;

use super::closing::Pool;
use super::sliding::Panes;
use crate::grouped::Grouped;
use crate::keys::Group;
use crate::operator::Progress;
use crate::slot::{Slot, Walk};
use crate::window::Span;

/// The merge of all panes within a span.
pub(super) struct Counted {
    span: Span,
    merged: Slot,
    /// In how many of the panes each group is.
    held: Grouped<u32>,
    /// Where the pane stands that enters or leaves next.
    walk: Walk,
    is_any_gone: bool,
}

impl Counted {
    /// Of no panes yet, before `time`. `merged` is empty.
    pub(super) fn before(time: i64, merged: Slot) -> Self {
        Self {
            span: Span { end: time, start: time },
            merged,
            held: Grouped::default(),
            walk: Walk::default(),
            is_any_gone: false,
        }
    }

    pub(super) fn span(&self) -> Span {
        self.span
    }

    /// Takes out the panes that lie before the window `to`, and in those that it has not.
    pub(super) fn move_to(&mut self, to: Span, panes: &Panes<'_>, room: &mut usize) -> Result<Progress> {
        while let Some((pane, slot)) = panes.within(self.span.start, to.start).next() {
            if *room == 0 || self.leave(*pane, slot, room)? == Progress::Left {
                return Ok(Progress::Left);
            }
        }
        while let Some((pane, slot)) = panes.within(self.span.end, to.end).next() {
            if *room == 0 {
                return Ok(Progress::Left);
            }
            let entering = self.walk.next(&slot.members, room);
            self.merged.enter_all(entering);
            self.held.for_each(entering, |held| *held += 1);
            self.merged.merge(slot, entering, panes.plan)?;
            if self.walk.is_at_start() {
                self.span.end = pane.end;
            }
        }
        self.span = to;
        Ok(Progress::Done)
    }

    /// Takes a pane out, the first that it holds.
    pub(super) fn leave(&mut self, pane: Span, slot: &Slot, room: &mut usize) -> Result<Progress> {
        let leaving = self.walk.next(&slot.members, room);
        for (into, from) in self.merged.accumulators.iter_mut().zip(&slot.accumulators) {
            into.take_back(from.as_ref(), leaving)?;
        }
        self.held.for_each(leaving, |held| *held -= 1);
        if !self.held.all(leaving, |held| *held > 0) {
            let is_gone = |group: &&Group| self.held[**group as usize] == 0;
            let gone: Vec<Group> = leaving.iter().filter(is_gone).copied().collect();
            self.merged.clear(&gone);
            self.is_any_gone = true;
        }
        if !self.walk.is_at_start() {
            return Ok(Progress::Left);
        }
        if std::mem::take(&mut self.is_any_gone) {
            let held = &self.held;
            self.merged.members.retain(|group| held[*group as usize] > 0);
        }
        self.span.start = pane.end;
        Ok(Progress::Done)
    }

    pub(super) fn merged(&mut self) -> &mut Slot {
        &mut self.merged
    }

    pub(super) fn give_up(self, pool: &mut Pool) {
        pool.give_to_empty(self.merged);
    }

    pub(super) fn bytes(&self, calls: &[usize]) -> usize {
        self.merged.bytes(calls) + self.held.bytes()
    }
}
