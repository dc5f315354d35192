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
        let weight = row_weight(&self.accumulators);
        let mut taken = Ok(());
        while taken.is_ok() && *room > 0 && (noting.all_from.is_some() || !noting.groups.is_empty()) {
            // Bit by bit also where there is room for all: to copy one long batch is no shorter than several short ones.
            let mut part = (*room / weight).clamp(1, PART_MAX);
            let of_part = part;
            taken = self.take_of(&mut noting, &mut part);
            *room -= ((of_part - part) * weight).clamp(1, *room);
        }
        self.noting = Some(noting);
        taken
    }

    fn take_of(&mut self, noting: &mut Noting, room: &mut usize) -> Result<()> {
        let groups = match noting.all_from {
            Some(from) => {
                let to = from.saturating_add(*room).min(self.runs.end());
                noting.all_from = (to < self.runs.end()).then_some(to);
                *room -= to - from;
                for is_noted in noting.is_noted.iter_mut().take(to).skip(from) {
                    *is_noted = false;
                }
                let has_runs = |group: &Group| !self.runs[*group as usize].is_empty();
                (from as Group..to as Group).filter(has_runs).collect()
            }
            None => {
                let mut groups = noting.groups.split_off(noting.groups.len().saturating_sub(*room));
                *room -= groups.len();
                // One may be here twice: it changed, was gone through with all others, and changed again.
                groups.retain(|group| {
                    let is_noted = noting.is_noted.get_mut(*group as usize);
                    is_noted.is_some_and(std::mem::take)
                });
                groups
            }
        };
        if groups.is_empty() {
            return Ok(());
        }
        let turn = noting.taken.next_turn();
        let (mut open, mut gone) = (Vec::new(), Vec::new());
        for group in groups {
            let has_runs = !self.runs[group as usize].is_empty();
            if has_runs { &mut open } else { &mut gone }.push(group);
        }
        let (keys, calls) = (self.plan.all_keys(), self.plan.all_calls());
        let of_pieces = self.pieces_of(open);
        let rows = of_pieces.len();
        let kept = self.piece_columns(&of_pieces, &keys, &calls)?;
        let groups = of_pieces.iter().map(|piece| (NOWHEN, piece.group));
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
            let mut columns = placed(groups, turn, false);
            columns.extend(kept);
            noting.taken.push(named_batch(columns, rows)?)?;
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
