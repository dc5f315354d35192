//! What of an aggregate is captured: the groups that changed since the last capture, and which windows there are.

use std::collections::BTreeSet;

use arrow::array::new_null_array;
use datafusion::common::Result;

use super::Aggregate;
use super::waiting::Entry;
use crate::capture::{CapturedHead, CapturedOperator, Head, Taken, named_batch, placed};
use crate::in_parts::InParts;
use crate::keys::Group;
use crate::slot::Slot;
use crate::window::Span;

/// What is noted between two captures.
pub(super) struct Noting {
    taken: Taken,
    /// Slots in which groups were noted.
    spans: BTreeSet<Span>,
    /// Groups that were forgotten while their window goes on.
    gone: InParts<(Span, Group)>,
}

impl Noting {
    /// Groups of a slot have changed, or are about to: the slot notes which.
    pub(super) fn note_span(&mut self, span: Span, slot: &mut Slot) {
        slot.begin_noting();
        self.spans.insert(span);
    }

    /// A group was forgotten while its window goes on.
    pub(super) fn note_gone(&mut self, span: Span, group: Group) {
        self.gone.push((span, group));
    }
}

impl Aggregate {
    /// Takes groups that have changed, about `room` of them; at first all there are.
    pub(super) fn take_noted(&mut self, room: &mut usize) -> Result<()> {
        let noting = match &mut self.noting {
            Some(noting) => noting,
            none => {
                self.slots.values_mut().for_each(Slot::note_all);
                none.insert(Noting {
                    taken: Taken::new(),
                    spans: self.slots.keys().copied().collect(),
                    gone: InParts::default(),
                })
            }
        };
        if noting.gone.is_empty() && noting.spans.is_empty() {
            return Ok(());
        }
        let (keys, calls) = (self.plan.all_keys(), self.plan.all_calls());
        while *room > 0 && !noting.gone.is_empty() {
            let gone = noting.gone.take(*room);
            *room -= gone.len();
            let turn = noting.taken.next_turn();
            let groups: Vec<Group> = Vec::new();
            // Of the columns' types, without rows.
            let mut empty = Slot::new(&self.plan);
            let kept = Self::group_columns(&self.keys, (&mut empty, &groups), &groups, &keys, &calls)?;
            let mut columns = placed(gone.iter().copied(), turn, true);
            columns.extend(
                kept.into_iter()
                    .map(|(name, column)| (name, new_null_array(column.data_type(), gone.len()))),
            );
            noting.taken.push(named_batch(columns, gone.len())?)?;
        }
        let turn = noting.taken.next_turn();
        while *room > 0
            && let Some(span) = noting.spans.first().copied()
        {
            let Some(slot) = self.slots.get_mut(&span) else {
                noting.spans.remove(&span);
                continue;
            };
            let groups = slot.take_noted(room);
            if !slot.has_noted() {
                noting.spans.remove(&span);
            }
            if groups.is_empty() {
                continue;
            }
            let mut columns = placed(groups.iter().map(|group| (span, *group)), turn, false);
            columns.extend(Self::group_columns(
                &self.keys,
                (slot, &groups),
                &groups,
                &keys,
                &calls,
            )?);
            let rows = named_batch(columns, groups.len())?;
            noting
                .taken
                .push_whole(rows, groups.iter().map(|group| (span, *group)))?;
        }
        Ok(())
    }

    /// Takes what has changed since the last capture and was not taken yet; all of it is handed over.
    pub(super) fn take_capture(&mut self) -> Result<CapturedOperator> {
        let mut room = usize::MAX;
        self.take_noted(&mut room)?;
        self.take_waiting()?;
        let head = self.head();
        let kept = self.slots.values().map(|slot| slot.members.len()).sum::<usize>() + self.waiting.len();
        let Some(noting) = &mut self.noting else {
            return datafusion::common::internal_err!("what changes is noted from the first capture on");
        };
        Ok(noting.taken.capture(head, kept))
    }

    /// Takes all rows that wait, each time: they are few, and wait for a moment.
    fn take_waiting(&mut self) -> Result<()> {
        let Some(turn) = self.noting.as_mut().map(|noting| noting.taken.next_turn()) else {
            return Ok(());
        };
        let (keys, calls) = (self.plan.all_keys(), self.plan.all_calls());
        let parties = self.each_party(|store, met, entries, (groups, places), sums| {
            let mut columns = placed(entries.iter().map(Entry::kept_as), turn, false);
            columns.extend(Self::waiting_columns(
                store,
                met,
                (groups, places),
                sums,
                &keys,
                &calls,
            )?);
            named_batch(columns, entries.len())
        })?;
        if let Some(noting) = &mut self.noting {
            parties.into_iter().try_for_each(|party| noting.taken.push(party))?;
        }
        Ok(())
    }

    /// The next capture begins anew; until then nothing is noted.
    pub(super) fn end_noting(&mut self) {
        self.noting = None;
        self.slots.values_mut().for_each(Slot::end_noting);
    }

    fn head(&self) -> CapturedHead {
        let mut said = Vec::new();
        if self.panes.is_some() {
            // The window that is being said is merged from panes, and none of these.
            let groups = self.merging.iter().flat_map(|merging| merging.said().iter());
            let groups = groups.chain(&self.already_said).copied();
            said.push((i64::MIN, i64::MIN, groups.collect()));
        } else {
            let partly = self.slots.iter().filter(|(_, slot)| slot.is_partly_said());
            said.extend(partly.map(|(span, slot)| (span.start, span.end, slot.said_members().to_vec())));
        }
        let windows = self.slots.iter().map(|(span, slot)| (span.start, span.end, slot.said));
        let waiting: BTreeSet<Span> = self.waiting.kept_at().collect();
        let windows = windows.chain(waiting.iter().map(|span| (span.start, span.end, false)));
        let head = Head {
            windows: windows.collect(),
            said,
            has_windows: true,
        };
        head.with(self.times())
    }
}
