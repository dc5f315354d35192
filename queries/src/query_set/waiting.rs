//! Rows of events that meet windows which are half said wait in front of the queries in which they do, and of nobody else.
//!
//! A query has such rows let in when all that it reads has come to the end of the step in time, in the order in which they
//! came. Whoever reads it waits for that as it waits for windows: what it reads itself meanwhile waits in front of it.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{Handed, QuerySet};
use crate::operator::LateRow;
use crate::query::{Held, Output, Place};

/// How many of the rows that wait in front of a query are let in where so many more come for it: half as many again, so they
/// come to an end, however many come. Where many wait already, and what they wait for is not all said, as many are said of that
/// as come: it comes to an end by itself.
fn for_coming(rows: usize) -> usize {
    rows + rows.div_ceil(2)
}

impl QuerySet {
    /// Whether rows wait in front of any query.
    pub fn holds_rows(&self) -> bool {
        // Only while time is being moved on.
        self.time.is_moving() && self.queries.iter().any(|query| query.holds_rows())
    }

    /// So many rows of a stream are about to come: tells where they stand among others that wait; `None` when none have to. Where
    /// many wait already, a part of what these wait for is said before, and where they take too much memory all of it.
    pub(super) fn begin_push(
        &mut self,
        stream: &str,
        rows: usize,
        late: &mut Vec<(Arc<str>, LateRow)>,
        out: &mut Vec<Output>,
    ) -> Option<Place> {
        if !self.time.is_moving() {
            return None;
        }
        let meeting = self.time.meetings.get(stream).map(Arc::clone)?;
        for index in meeting.iter().copied() {
            if self.queries[index].has_no_room() {
                self.settle(index, late, out);
            } else if self.queries[index].is_crowded() {
                self.hasten(index, rows, late, out);
            }
        }
        self.time.pushes += 1;
        Some(Place {
            push: self.time.pushes,
            through: Vec::new(),
        })
    }

    /// Pushes are numbered on behind those of which rows wait.
    pub(super) fn number_pushes(&mut self) {
        let held = self.queries.iter().filter_map(|query| query.last_push_held()).max();
        self.time.pushes = self.time.pushes.max(held.unwrap_or(0));
    }

    /// Whether rows of events have to wait in front of a query: windows that they meet in it are not all said.
    pub(super) fn has_to_wait(&self, index: usize) -> bool {
        self.time.is_moving() && self.time.met[index].iter().any(|met| self.has_left(*met))
    }

    /// Whether something is left of the step in time: to say, or rows to let in.
    fn has_left(&self, index: usize) -> bool {
        self.time.waiting.contains(&index)
            || self.queries[index].holds_rows()
            || index >= self.time.next && self.is_due(index)
    }

    /// Lets rows wait in front of a query.
    pub(super) fn hold(
        &mut self,
        index: usize,
        handed: &Handed<'_>,
        place: Place,
        late: &mut Vec<(Arc<str>, LateRow)>,
        out: &mut Vec<Output>,
    ) {
        self.queries[index].hold(Held {
            place,
            source: handed.source.into(),
            rows: handed.rows.clone(),
        });
        let is_left = |met: &usize| *met != index && self.has_left(*met);
        if !self.is_due(index) && !self.time.met[index].iter().any(is_left) {
            self.let_in(index, for_coming(handed.rows.len()), late, out);
        }
    }

    /// Lets in rows that wait in front of a query, `most` at most.
    pub(super) fn let_in(
        &mut self,
        index: usize,
        mut most: usize,
        late: &mut Vec<(Arc<str>, LateRow)>,
        out: &mut Vec<Output>,
    ) {
        while most > 0
            && let Some(held) = self.queries[index].take_held(most)
        {
            most = most.saturating_sub(held.rows.len());
            let mut handed = Handed::new(&held.source, &held.rows);
            let step = self.windows.begin();
            self.hand_over(step, index, &mut handed, &mut Some(held.place), late, out);
            self.windows.end(step);
        }
    }

    /// So many rows are about to come for a query of which many wait: says as many of what these wait for, of the first query of
    /// which any are left, for those that read it wait for all of them.
    fn hasten(&mut self, index: usize, coming: usize, late: &mut Vec<(Arc<str>, LateRow)>, out: &mut Vec<Output>) {
        let met = Arc::clone(&self.time.met[index]);
        for met in met.iter().copied() {
            if self.is_due(met) {
                let left = self.advance_with_sharers(met, coming, late, out);
                // Its turn in this round may have come before anything was left.
                self.time.waiting.extend(left);
                return;
            }
            if met != index && self.queries[met].holds_rows() {
                self.let_in(met, for_coming(coming), late, out);
                return;
            }
        }
    }

    /// Says at once what rows that wait in front of a query wait for, and lets them in.
    fn settle(&mut self, index: usize, late: &mut Vec<(Arc<str>, LateRow)>, out: &mut Vec<Output>) {
        let met = Arc::clone(&self.time.met[index]);
        for met in met.iter().copied() {
            // All of it in one part.
            if self.is_due(met) {
                self.advance_with_sharers(met, usize::MAX, late, out);
            }
            self.let_in(met, usize::MAX, late, out);
        }
        self.time.waiting.retain(|index| !met.contains(index));
    }
}
