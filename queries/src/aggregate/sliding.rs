//! A sliding window: the merge of the panes of the window that was said last, moved on pane by pane.
//!
//! What a window costs does not depend on how many panes it has: see [`Counted`] and [`Stacked`]. It is merged and said a
//! part at a time.

use std::collections::BTreeMap;

use datafusion::common::Result;

use super::closing::Pool;
use super::counted::Counted;
use super::stacked::Stacked;
use super::{Aggregate, Telling};
use crate::aggregate::AggregatePlan;
use crate::keys::Group;
use crate::operator::Progress;
use crate::row::Rows;
use crate::slot::Slot;
use crate::window::{Hop, Span};

/// So many members of a pane are put in order in the time in which one is said.
const PUT_IN_ORDER: usize = 64;

/// The merge of the panes of a window.
pub(super) enum Sliding {
    /// Panes that leave are taken back.
    Counted(Box<Counted>),
    /// None can be taken back.
    Stacked(Box<Stacked>),
}

/// The panes of an aggregate.
pub(super) struct Panes<'a> {
    pub(super) slots: &'a BTreeMap<Span, Slot>,
    pub(super) hop: Hop,
    pub(super) plan: &'a AggregatePlan,
}

impl Panes<'_> {
    /// Those from one time to another, both on the panes' grid.
    pub(super) fn within(&self, from: i64, to: i64) -> impl DoubleEndedIterator<Item = (&Span, &Slot)> {
        let range = (from < to).then(|| self.slots.range(self.hop.pane(from)..self.hop.pane(to)));
        range.into_iter().flatten()
    }
}

/// A window on its way to be said.
pub(super) struct Merging {
    to: Span,
    sliding: Sliding,
    /// The panes that come in and end by this are in order.
    in_order_until: i64,
    /// Its groups, once all panes are merged, and how many of them have been said.
    members: Option<(Vec<Group>, usize)>,
}

impl Sliding {
    /// Of no panes yet, before `time`.
    fn before(time: i64, can_take_back: bool, pool: &mut Pool, plan: &AggregatePlan) -> Self {
        if can_take_back {
            Self::Counted(Box::new(Counted::before(time, pool.take(plan))))
        } else {
            Self::Stacked(Box::new(Stacked::before(time, pool, plan)))
        }
    }

    fn span(&self) -> Span {
        match self {
            Self::Counted(counted) => counted.span(),
            Self::Stacked(stacked) => stacked.span(),
        }
    }

    /// Makes `merged` the merge of the panes of the window `to`, which begins where this one does or later.
    fn move_to(&mut self, to: Span, panes: &Panes<'_>, pool: &mut Pool, room: &mut usize) -> Result<Progress> {
        match self {
            Self::Counted(counted) => counted.move_to(to, panes, room),
            Self::Stacked(stacked) => stacked.move_to(to, panes, pool, room),
        }
    }

    fn merged(&mut self) -> &mut Slot {
        match self {
            Self::Counted(counted) => counted.merged(),
            Self::Stacked(stacked) => stacked.merged(),
        }
    }

    fn give_up(self, pool: &mut Pool) {
        match self {
            Self::Counted(counted) => counted.give_up(pool),
            Self::Stacked(stacked) => stacked.give_up(pool),
        }
    }

    pub(super) fn bytes(&self, calls: &[usize]) -> usize {
        match self {
            Self::Counted(counted) => counted.bytes(calls),
            Self::Stacked(stacked) => stacked.bytes(calls),
        }
    }
}

impl Merging {
    /// The groups that have been said.
    pub(super) fn said(&self) -> &[Group] {
        self.members.as_ref().map_or(&[], |(members, said)| &members[..*said])
    }

    pub(super) fn bytes(&self, calls: &[usize]) -> usize {
        self.sliding.bytes(calls) + self.members.as_ref().map_or(0, |(members, _)| members.capacity() * 4)
    }
}

impl Aggregate {
    /// Whether what leaves the windows of `plan` can be taken back.
    pub(super) fn can_take_back(plan: &AggregatePlan) -> bool {
        // Which event came last can't.
        !plan.keeps_causes && plan.aggregates.iter().all(|call| call.kind.create().is_invertible())
    }

    /// Merges the panes of a window and says it, going on with what was done of it before.
    pub(super) fn say_window(
        &mut self,
        span: Span,
        telling: Telling,
        hop: Hop,
        room: &mut usize,
        out: &mut Vec<Rows>,
    ) -> Result<Progress> {
        let mut merging = match self.merging.take() {
            Some(merging) if merging.to == span => merging,
            _ => self.begin_merging(span),
        };
        if merging.members.is_none() {
            if self.put_in_order(&mut merging, hop, room) == Progress::Left {
                self.merging = Some(merging);
                return Ok(Progress::Left);
            }
            let panes = Panes {
                slots: &self.slots,
                hop,
                plan: &self.plan,
            };
            if merging.sliding.move_to(span, &panes, &mut self.pool, room)? == Progress::Left {
                self.merging = Some(merging);
                return Ok(Progress::Left);
            }
            let mut members = merging.sliding.merged().members.clone();
            let already_said = std::mem::take(&mut self.already_said);
            if !already_said.is_empty() {
                // Those that were said before a restart stand first again, for the next snapshot.
                members.retain(|group| !already_said.contains(group));
                members.splice(..0, already_said.iter().copied());
            }
            merging.members = Some((members, already_said.len()));
        }
        if let Some((members, said)) = &mut merging.members {
            let to = said.saturating_add(*room).min(members.len());
            let merged = merging.sliding.merged();
            Self::say(&self.plan, &self.keys, span, merged, &members[*said..to], telling, out)?;
            *room -= to - *said;
            *said = to;
            if to < members.len() {
                self.merging = Some(merging);
                return Ok(Progress::Left);
            }
        }
        if let Sliding::Stacked(stacked) = &mut merging.sliding {
            stacked.note_said(&mut self.pool, &self.plan);
        }
        self.sliding = Some(merging.sliding);
        Ok(Progress::Done)
    }

    fn begin_merging(&mut self, to: Span) -> Merging {
        let sliding = match self.sliding.take() {
            Some(sliding) if sliding.span().start <= to.start && to.start <= sliding.span().end => sliding,
            before => {
                if let Some(before) = before {
                    before.give_up(&mut self.pool);
                }
                Sliding::before(to.start, self.can_take_back, &mut self.pool, &self.plan)
            }
        };
        Merging {
            to,
            in_order_until: sliding.span().end,
            sliding,
            members: None,
        }
    }

    /// Puts the panes in order that come in. A pane is gone through when it comes and, long after, when it leaves: by then it
    /// is in no cache.
    fn put_in_order(&mut self, merging: &mut Merging, hop: Hop, room: &mut usize) -> Progress {
        while merging.in_order_until < merging.to.end {
            let coming = hop.pane(merging.in_order_until)..hop.pane(merging.to.end);
            let Some((span, pane)) = self.slots.range_mut(coming).next() else {
                break;
            };
            if *room == 0 {
                return Progress::Left;
            }
            pane.put_in_order();
            *room = room.saturating_sub(pane.members.len().div_ceil(PUT_IN_ORDER));
            merging.in_order_until = span.end;
        }
        Progress::Done
    }

    /// Takes a pane out of the sliding window before it is dropped and its keys may be forgotten.
    pub(super) fn slide_past(&mut self, pane: Span, room: &mut usize) -> Result<Progress> {
        let is_in = |sliding: &&mut Sliding| sliding.span().start < pane.end && pane.start < sliding.span().end;
        let is_held = match (self.sliding.as_mut().filter(is_in), self.slots.get(&pane)) {
            (Some(Sliding::Counted(counted)), Some(slot)) => return counted.leave(pane, slot, room),
            (Some(Sliding::Stacked(stacked)), _) => !stacked.drop_until(pane.end, &mut self.pool),
            _ => false,
        };
        if is_held {
            self.unslide(pane);
        }
        Ok(Progress::Done)
    }

    /// A pane that the sliding window holds changes or goes: the window begins anew at the next close.
    pub(super) fn unslide(&mut self, pane: Span) {
        if let Some(sliding) = self.sliding.take_if(|sliding| pane.start < sliding.span().end) {
            sliding.give_up(&mut self.pool);
        }
    }
}
