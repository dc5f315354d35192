//! Waiting: late rows for windows that are being said, and rows that met a later watermark than windows have come to, are
//! let in when these windows are said.
//!
//! A window is merged from panes that other windows share, so that no pane may change while it is; and to finish it at once
//! would keep everybody waiting. What waits is added up by pane and group. Aggregates of panes are the same in whatever order
//! rows come, so that it makes no difference to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use datafusion::common::Result;
use rustc_hash::FxHashMap;

use super::plan::Arguments;
use super::{Aggregate, Columns, Noted};
use crate::aggregate::AggregatePlan;
use crate::flow::Flow;
use crate::keys::{Group, KeyStore};
use crate::operator::Progress;
use crate::picked::Picked;
use crate::row::{Row, Rows};
use crate::slot::Slot;
use crate::window::{Hop, Span};

/// The rows that wait.
#[derive(Default)]
pub(super) struct Waiting {
    /// Those that are judged alike, by the turn that follows the watermark they met.
    parties: BTreeMap<i64, Party>,
    /// How many entries there were.
    numbered: Group,
}

/// Rows that are let in at the same turn.
struct Party {
    /// A watermark that one of them met; the others met such that are judged alike.
    met: i64,
    entries: Vec<Entry>,
    /// Where each entry stands among them.
    places: FxHashMap<(Span, Group), Group>,
    /// What they come to, at an entry's place rather than at its group.
    sums: Slot,
}

/// The rows of one pane and group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pane: Span,
    group: Group,
    /// What captures know it by.
    number: Group,
}

/// A pane's waiting rows in snapshots and captures: no pane is that short.
fn kept_at(pane: Span) -> Span {
    Span {
        end: pane.start,
        start: pane.start,
    }
}

/// Whether what a snapshot keeps at this span are rows that wait.
pub(super) fn is_of_waiting(kept_at: Span) -> bool {
    kept_at.start == kept_at.end
}

impl Entry {
    /// Where it is in snapshots and captures, and as what.
    pub(super) fn kept_as(&self) -> (Span, Group) {
        (kept_at(self.pane), self.number)
    }
}

impl Party {
    fn new(met: i64, plan: &AggregatePlan) -> Self {
        Self {
            met,
            entries: Vec::new(),
            places: FxHashMap::default(),
            sums: Slot::new(plan),
        }
    }

    /// The place of a pane's group.
    fn place(&mut self, pane: Span, group: Group, numbered: &mut Group, keys: &mut KeyStore) -> Group {
        *self.places.entry((pane, group)).or_insert_with(|| {
            // From the greatest down: the numbers of groups, which a capture tells of as well, begin at 0.
            *numbered = numbered.wrapping_add(1);
            let number = Group::MAX - *numbered;
            self.entries.push(Entry { pane, group, number });
            keys.hold(group);
            (self.entries.len() - 1) as Group
        })
    }

    /// Takes out the last entries, at most so many, with their places.
    fn take(&mut self, most: usize) -> Vec<(Group, Entry)> {
        let from = self.entries.len().saturating_sub(most);
        let taken = self.entries.split_off(from);
        for entry in &taken {
            self.places.remove(&(entry.pane, entry.group));
        }
        (from as Group..).zip(taken).collect()
    }
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.parties.is_empty()
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.parties.values().map(|party| party.entries.len()).sum()
    }

    /// The first watermark at which any of them is to be let in, where the next turn is `turn`.
    pub(super) fn next_due(&self, turn: i64) -> i64 {
        match self.parties.first_key_value() {
            None => i64::MAX,
            Some((of_party, _)) if *of_party <= turn => i64::MIN,
            Some((_, party)) => party.met,
        }
    }

    /// The panes for which rows wait, as they are kept, each at least once.
    pub(super) fn kept_at(&self) -> impl Iterator<Item = Span> {
        let entries = self.parties.values().flat_map(|party| &party.entries);
        entries.map(|entry| kept_at(entry.pane))
    }

    pub(super) fn bytes(&self, calls: &[usize]) -> usize {
        let of_one = |party: &Party| {
            party.sums.bytes(calls)
                + party.entries.capacity() * size_of::<Entry>()
                + party.places.capacity() * (size_of::<(Span, Group, Group)>() + 1)
        };
        self.parties.values().map(of_one).sum()
    }

    /// Those that are judged alike as rows which met `met`.
    fn party(&mut self, turn: i64, met: i64, plan: &AggregatePlan) -> (&mut Party, &mut Group) {
        let party = self.parties.entry(turn).or_insert_with(|| Party::new(met, plan));
        (party, &mut self.numbered)
    }
}

impl Aggregate {
    /// The turn after which a row that belongs to a pane may be let in, where it has to wait. The windows that the pane
    /// lies in end in the order of time, from `first` on.
    pub(super) fn waits_for(&self, hop: Hop, pane: Span, group: Group, met: i64) -> Option<i64> {
        let judged = self.watermark.max(met);
        // The pane may be in a window that is being said.
        let is_closing = self.closing.is_left && pane.end <= self.watermark;
        let first = hop.span(hop.first_start_ending_behind(pane.start));
        // It is too late for one that may not have been said.
        let is_late_for_some = || judged > self.watermark && self.is_final(first, judged);
        if is_closing || is_late_for_some() {
            let turn = self.turn_after(judged);
            if is_closing || turn > self.turn {
                return Some(turn);
            }
        }
        // Rows of the same pane and group come in one after the other.
        let party = self.waiting.parties.get(&self.turn)?;
        party.places.contains_key(&(pane, group)).then_some(self.turn)
    }

    /// Lets a row wait.
    pub(super) fn hold_row(
        &mut self,
        (turn, pane): (i64, Span),
        group: Group,
        row: &Row,
        arguments: &Arguments,
    ) -> Result<()> {
        let judged = self.watermark.max(row.watermark);
        let (party, numbered) = self.waiting.party(turn, judged, &self.plan);
        let place = party.place(pane, group, numbered, &mut self.keys);
        if self.plan.keeps_causes {
            party.sums.causes[place as usize] = row.cause.clone();
        }
        self.plan.update_one(&mut party.sums.accumulators, place, arguments)
    }

    /// Lets rows wait, each with the turn and the pane it waits for.
    pub(super) fn hold(&mut self, rows: &[(usize, i64, Span)], flow: &Flow, columns: &Columns) -> Result<()> {
        let mut of_turns: BTreeMap<i64, Picked> = BTreeMap::new();
        let mut places: Vec<Group> = vec![0; if rows.is_empty() { 0 } else { flow.num_rows() }];
        for (row, turn, pane) in rows.iter().copied() {
            let judged = self.watermark.max(flow.watermarks.value(row));
            let (party, numbered) = self.waiting.party(turn, judged, &self.plan);
            let place = party.place(pane, columns.groups[row], numbered, &mut self.keys);
            if self.plan.keeps_causes {
                let cause = flow.causes.is_valid(row).then(|| Arc::from(flow.causes.value(row)));
                party.sums.causes[place as usize] = cause;
            }
            places[row] = place;
            of_turns.entry(turn).or_insert_with(Picked::none).extend(row..row + 1);
        }
        for (turn, rows) in of_turns {
            if let Some(party) = self.waiting.parties.get_mut(&turn) {
                columns.calls.update(&mut party.sums.accumulators, &places, &rows)?;
            }
        }
        Ok(())
    }

    /// A watermark before `watermark` at which rows that wait are to be let in.
    pub(super) fn on_the_way_to(&self, watermark: i64) -> i64 {
        self.waiting.next_due(self.turn).min(watermark)
    }

    /// Lets in rows that waited for windows that are said by now, and says again what they amend.
    pub(super) fn let_in(&mut self, room: &mut usize, out: &mut Vec<Rows>) -> Result<Progress> {
        let Some(hop) = self.panes else {
            return Ok(Progress::Done);
        };
        while let Some(mut party) = self.waiting.parties.first_entry()
            && *party.key() <= self.turn
        {
            if *room == 0 {
                return Ok(Progress::Left);
            }
            let cost = self.plan.amending_costs(hop);
            let taken = party.get_mut().take((*room / cost).max(1));
            *room = room.saturating_sub(taken.len() * cost);
            let (turn, mut party) = party.remove_entry();
            self.enter_panes(&mut party.sums, taken)?;
            self.amend_panes(hop, party.met, self.watermark, out)?;
            if !party.entries.is_empty() {
                self.waiting.parties.insert(turn, party);
            }
        }
        Ok(Progress::Done)
    }

    /// Adds what entries come to to their panes.
    fn enter_panes(&mut self, sums: &mut Slot, mut entries: Vec<(Group, Entry)>) -> Result<()> {
        entries.sort_by_key(|(_, entry)| entry.pane);
        for of_pane in entries.chunk_by(|(_, one), (_, other)| one.pane == other.pane) {
            let pane = of_pane[0].1.pane;
            let (places, groups): (Vec<Group>, Vec<Group>) =
                of_pane.iter().map(|(place, entry)| (*place, entry.group)).unzip();
            self.unslide(pane);
            let noted = self.noted_changes(pane);
            if noted != Noted::None {
                self.changed.insert(pane);
            }
            // What is merged stands beside what it is merged into for a moment.
            let lent = self.keys.lend(groups.len());
            let (plan, keys, slot) = self.slot(pane);
            for (into, from) in slot.accumulators.iter_mut().zip(&mut sums.accumulators) {
                into.restore(&lent, &from.state(&places)?)?;
                for (group, lent) in groups.iter().zip(&lent) {
                    into.absorb(*group, *lent)?;
                }
                into.clear(&lent);
            }
            keys.take_back(lent);
            for (place, group) in places.iter().zip(&groups) {
                if slot.enter(*group) {
                    keys.hold(*group);
                }
                keys.release(*group);
                if noted.holds(slot, *group) {
                    slot.note_change(*group);
                }
                slot.note(*group);
                if plan.keeps_causes {
                    slot.causes[*group as usize] = sums.causes[*place as usize].take();
                }
            }
            sums.clear(&places);
            if let Some(noting) = &mut self.noting {
                for (_, entry) in of_pane {
                    let (kept_at, number) = entry.kept_as();
                    noting.note_gone(kept_at, number);
                }
            }
        }
        Ok(())
    }

    /// Calls `each` with the entries of rows that wait: with what was met, the entries, their groups and places, and with
    /// what they come to.
    pub(super) fn each_party(
        &mut self,
        mut each: impl FnMut(&KeyStore, i64, &[Entry], (&[Group], &[Group]), &mut Slot) -> Result<RecordBatch>,
    ) -> Result<Vec<RecordBatch>> {
        let parties = self.waiting.parties.values_mut().map(|party| {
            let groups: Vec<Group> = party.entries.iter().map(|entry| entry.group).collect();
            let places: Vec<Group> = (0..).take(groups.len()).collect();
            each(
                &self.keys,
                party.met,
                &party.entries,
                (&groups, &places),
                &mut party.sums,
            )
        });
        parties.collect()
    }

    /// Takes back an entry that a snapshot kept; the slot and the place for what its rows come to.
    pub(super) fn restore_waiting(&mut self, kept_at: Span, group: Group, met: i64) -> Option<(&mut Slot, Group)> {
        let pane = self.panes?.pane(kept_at.start);
        let turn = self.turn_after(met);
        let (party, numbered) = self.waiting.party(turn, met, &self.plan);
        let place = party.place(pane, group, numbered, &mut self.keys);
        Some((&mut party.sums, place))
    }
}

impl AggregatePlan {
    /// How much is merged to amend one group of a pane: in how many windows that may be said again, of how many panes.
    fn amending_costs(&self, hop: Hop) -> usize {
        if self.lateness_us == 0 {
            return 1;
        }
        let windows = (self.lateness_us / hop.slide_us + 1).min(hop.size_us / hop.slide_us + 1);
        let panes = hop.size_us / hop.pane_us();
        usize::try_from(windows.saturating_mul(panes))
            .unwrap_or(usize::MAX)
            .max(1)
    }
}
