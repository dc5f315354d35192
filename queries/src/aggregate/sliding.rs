//! A sliding window: the merge of the panes of the window that was said last, moved on pane by pane.
//!
//! Where every aggregate can be taken back exactly (counts, and sums of integers), the next window is this one without
//! the panes that leave and with those that come: what a window costs does not depend on how many panes it has.

use datafusion::common::Result;

use super::Aggregate;
use crate::aggregate::AggregatePlan;
use crate::keys::Group;
use crate::slot::Slot;
use crate::window::{Hop, Span};

/// The merge of all panes within a span.
pub(super) struct Sliding {
    span: Span,
    merged: Slot,
    /// In how many of the panes each group is.
    held: Vec<u32>,
}

impl Sliding {
    /// Whether the windows of `plan` can be moved on.
    pub(super) fn is_possible(plan: &AggregatePlan) -> bool {
        // Which event came last can't be taken back.
        !plan.keeps_causes && plan.aggregates.iter().all(|call| call.kind.create().is_invertible())
    }

    fn enter(&mut self, pane: &Slot) -> Result<()> {
        for group in &pane.members {
            self.merged.enter(*group);
            self.held[*group as usize] += 1;
        }
        for (into, from) in self.merged.accumulators.iter_mut().zip(&pane.accumulators) {
            into.merge(from.as_ref(), &pane.members)?;
        }
        Ok(())
    }

    fn leave(&mut self, pane: &Slot) -> Result<()> {
        for (into, from) in self.merged.accumulators.iter_mut().zip(&pane.accumulators) {
            into.take_back(from.as_ref(), &pane.members)?;
        }
        let mut is_any_gone = false;
        for group in &pane.members {
            let held = &mut self.held[*group as usize];
            *held -= 1;
            if *held == 0 {
                self.merged.clear_group(*group);
                is_any_gone = true;
            }
        }
        if is_any_gone {
            let held = &self.held;
            self.merged.members.retain(|group| held[*group as usize] > 0);
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.merged.bytes() + self.held.capacity() * 4
    }
}

impl Aggregate {
    /// The sliding window moved on to `span`, with its groups; `None` where it can't be.
    pub(super) fn slide_to(&mut self, span: Span, hop: Hop) -> Result<Option<(Sliding, Vec<Group>)>> {
        if !self.can_slide {
            return Ok(None);
        }
        let mut sliding = match self.sliding.take() {
            Some(sliding) if sliding.span.start <= span.start && span.start <= sliding.span.end => sliding,
            before => {
                let mut merged = match before {
                    Some(before) => before.merged,
                    None => Slot::new(&self.plan),
                };
                merged.recycle();
                Sliding {
                    span: Span {
                        end: span.start,
                        start: span.start,
                    },
                    merged,
                    held: Vec::new(),
                }
            }
        };
        let capacity = self.keys.capacity();
        sliding.merged.resize(capacity, &self.plan);
        sliding.held.resize(capacity.max(sliding.held.len()), 0);
        for (_, pane) in self.within(sliding.span.start, span.start, hop) {
            sliding.leave(pane)?;
        }
        for (_, pane) in self.within(sliding.span.end, span.end, hop) {
            sliding.enter(pane)?;
        }
        sliding.span = span;
        let members = sliding.merged.members.clone();
        Ok(Some((sliding, members)))
    }

    /// The panes from one time to another, both on the panes' grid.
    fn within(&self, from: i64, to: i64, hop: Hop) -> impl Iterator<Item = (&Span, &Slot)> {
        let range = (from < to).then(|| self.slots.range(hop.pane(from)..hop.pane(to)));
        range.into_iter().flatten()
    }

    /// Takes a pane out of the sliding window before it is dropped and its keys may be forgotten.
    pub(super) fn slide_past(&mut self, pane: Span) -> Result<()> {
        if let (Some(sliding), Some(slot)) = (&mut self.sliding, self.slots.get(&pane))
            && sliding.span.start < pane.end
            && pane.start < sliding.span.end
        {
            sliding.leave(slot)?;
            sliding.span.start = pane.end;
        }
        Ok(())
    }

    /// A row goes into a pane: where the sliding window holds it, that begins anew at the next close.
    pub(super) fn unslide(&mut self, pane: Span) {
        if self
            .sliding
            .as_ref()
            .is_some_and(|sliding| pane.start < sliding.span.end)
        {
            self.sliding = None;
        }
    }

    /// Puts the sliding window back after it was said.
    pub(super) fn keep_sliding(&mut self, sliding: Sliding) {
        self.sliding = Some(sliding);
    }
}

impl Sliding {
    /// The slot in which the merge is.
    pub(super) fn merged(&mut self) -> &mut Slot {
        &mut self.merged
    }
}
