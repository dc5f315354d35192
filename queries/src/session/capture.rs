//! What of sessions is captured: the runs of the keys that changed since the last capture.

use std::collections::HashMap;

use arrow::array::new_null_array;
use datafusion::common::{Result, internal_err};

use super::Sessions;
use crate::capture::{CapturedOperator, Head, Taken, named_batch, placed};
use crate::keys::Group;
use crate::slot::row_weight;
use crate::window::Span;

/// Runs are in no window: they have their times among their columns.
const NOWHEN: Span = Span { end: 0, start: 0 };

/// Keys that are taken at once.
const PART_MAX: usize = 4_096;

/// What is noted between two captures.
pub(super) struct Noting {
    taken: Taken,
    /// All keys from this one on are to be taken; `None` behind the last.
    all_from: Option<usize>,
    /// Keys whose runs have changed.
    groups: Vec<Group>,
    /// Of each key, whether it has changed since it was taken.
    is_noted: Vec<bool>,
}

impl Noting {
    /// The runs of a key have changed.
    pub(super) fn note(&mut self, group: Group) {
        let at = group as usize;
        if self.is_noted.len() <= at {
            self.is_noted.resize((at + 1).next_power_of_two(), false);
        }
        if !std::mem::replace(&mut self.is_noted[at], true) {
            self.groups.push(group);
        }
    }
}

impl Sessions {
    /// Takes keys whose runs have changed, about `room` of them; at first all there are.
    pub(super) fn take_noted(&mut self, room: &mut usize) -> Result<()> {
        if self.noting.is_none() {
            self.noting = Some(Noting {
                taken: Taken::new(),
                all_from: Some(0),
                groups: Vec::new(),
                is_noted: Vec::new(),
            });
        }
        let Some(mut noting) = self.noting.take() else {
            return Ok(());
        };
        let mut taken = Ok(());
        while taken.is_ok() && *room > 0 && (noting.all_from.is_some() || !noting.groups.is_empty()) {
            // Bit by bit also where there is room for all: to copy one long batch is no shorter than several short ones.
            let of_part = (*room).min(PART_MAX);
            let mut part = of_part;
            taken = self.take_of(&mut noting, &mut part);
            *room -= of_part - part;
        }
        self.noting = Some(noting);
        taken
    }

    /// How many ordinary rows those of a key's runs are as long as; a key without runs is one.
    fn weight(&self, group: Group) -> usize {
        let pieces = self.runs[group as usize].iter().flat_map(|run| &run.pieces);
        let weights = pieces.map(|piece| row_weight(&self.accumulators, piece.id));
        weights.sum::<usize>().max(1)
    }

    /// Takes keys for as much room as there is, or one.
    fn take_of(&mut self, noting: &mut Noting, room: &mut usize) -> Result<()> {
        let mut take_noted = |group: usize| noting.is_noted.get_mut(group).is_some_and(std::mem::take);
        let (mut open, mut gone) = (Vec::new(), Vec::new());
        if let Some(from) = noting.all_from {
            let mut next = from;
            while next < self.runs.end() && *room > 0 {
                take_noted(next);
                let group = next as Group;
                *room = room.saturating_sub(self.weight(group));
                if !self.runs[next].is_empty() {
                    open.push(group);
                }
                next += 1;
            }
            noting.all_from = (next < self.runs.end()).then_some(next);
        } else {
            while *room > 0
                && let Some(group) = noting.groups.pop()
            {
                *room = room.saturating_sub(self.weight(group));
                // One may be here twice: it changed, was gone through with all others, and changed again.
                if take_noted(group as usize) {
                    let has_runs = !self.runs[group as usize].is_empty();
                    if has_runs { &mut open } else { &mut gone }.push(group);
                }
            }
        }
        if open.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let turn = noting.taken.next_turn();
        let (keys, calls) = (self.plan.all_keys(), self.plan.all_calls());
        let of_pieces = self.pieces_of(open);
        let rows = of_pieces.len();
        let kept = self.piece_columns(&of_pieces, &keys, &calls)?;
        let groups: Vec<(Span, Group)> = of_pieces.iter().map(|piece| (NOWHEN, piece.group)).collect();
        if !gone.is_empty() {
            let nothing = kept.iter().map(|(name, column)| {
                let nothing = new_null_array(column.data_type(), gone.len());
                (name.clone(), nothing)
            });
            let mut columns = placed(gone.iter().map(|group| (NOWHEN, *group)), turn, true);
            columns.extend(nothing);
            noting.taken.push(named_batch(columns, gone.len())?)?;
        }
        if rows > 0 {
            let mut columns = placed(groups.iter().copied(), turn, false);
            columns.extend(kept);
            noting
                .taken
                .push_whole(named_batch(columns, rows)?, groups.into_iter())?;
        }
        Ok(())
    }

    /// Takes what has changed since the last capture and was not taken yet; all of it is handed over.
    pub(super) fn take_capture(&mut self) -> Result<CapturedOperator> {
        let mut room = usize::MAX;
        self.take_noted(&mut room)?;
        let head = Head {
            windows: Vec::new(),
            said: Vec::new(),
            has_windows: false,
        };
        let head = head.with(self.times());
        let kept = self.due.len();
        let Some(noting) = &mut self.noting else {
            return internal_err!("what changes is noted from the first capture on");
        };
        Ok(noting.taken.capture(head, kept))
    }

    /// What sessions have to remember of time.
    pub(super) fn times(&self) -> HashMap<String, String> {
        HashMap::from([
            ("watermark".to_owned(), self.watermark.to_string()),
            ("before".to_owned(), self.before.to_string()),
        ])
    }
}
