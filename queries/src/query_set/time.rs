//! Time moves on in steps that all queries take, each a part at a time, so that events between two parts need not wait.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::QuerySet;
use crate::budget::Budget;
use crate::operator::{Context, LateRow, Progress};
use crate::query::{Output, Passed, Query};

/// Rows of a shared window that make a part at least, however many share it.
const LEAST_SHARED_ROWS: usize = 4;

/// A row that is taken by itself, or kept by itself in a join, takes as long as so many that are taken together, at least.
const SINGLY: usize = 16;

/// A row of an alert counts as so many others that are said: whoever is handed it finds out what has become of its subject.
const OF_ALERT: usize = 16;

/// How far queries have come in time.
#[derive(Debug, Default)]
pub(super) struct Time {
    /// The watermark that all queries have reached.
    reached: Option<i64>,
    /// The one that they are being moved on to; the same when the step is done.
    pub(super) moved_to: Option<i64>,
    /// The one that was asked for last.
    wanted: Option<i64>,
    /// The query whose turn is next.
    pub(super) next: usize,
    /// How many rounds of turns have begun.
    round: u64,
    /// Queries that have something left in this round of turns, or read one that has.
    pub(super) waiting: Vec<usize>,
    /// For each query, those that it reads.
    sources: Vec<Vec<usize>>,
    /// For each stream, the queries in which its rows meet windows of other queries or branches.
    pub(super) meetings: FxHashMap<Arc<str>, Arc<[usize]>>,
    /// For each of these queries all that it reads and it itself, in order; for others nothing.
    pub(super) met: Vec<Arc<[usize]>>,
    /// For each query, whether events meet windows in it or in any that it reads.
    mixed: Vec<bool>,
    /// For each query, whether one that reads it, directly or through others, takes or keeps rows one by one, or it does so
    /// itself.
    singly: Vec<bool>,
    /// For each query, whether it reads what people were sent, directly or through others.
    pub(super) follows: Vec<bool>,
    /// Up to which watermark these were told of it; `None` where they go on with the others.
    pub(super) told_until: Option<i64>,
    /// How many pushes there were while time was being moved on.
    pub(super) pushes: u64,
}

impl Time {
    /// After a restart at `watermark`: queries may have stood in the middle of a step.
    pub(super) fn restored(&mut self, watermark: Option<i64>) {
        (self.reached, self.moved_to, self.wanted) = (None, watermark, watermark);
        self.told_until = self.told_until.map(|_| i64::MIN);
        self.begin_round();
    }

    /// Whether a step is under way.
    pub(super) fn is_moving(&self) -> bool {
        self.reached != self.moved_to
    }

    fn begin_round(&mut self) {
        self.round += 1;
        self.next = 0;
        self.waiting.clear();
    }
}

impl QuerySet {
    /// Moves time on to `watermark`: windows close, keys are forgotten. A watermark never goes back; an earlier one
    /// changes nothing.
    pub fn advance(&mut self, watermark: i64, out: &mut Vec<Output>) {
        self.advance_within(watermark, Budget::unlimited(), out);
    }

    /// As [`QuerySet::advance`] while the budget lasts; [`QuerySet::work`] does the rest.
    pub fn advance_within(&mut self, watermark: i64, budget: Budget, out: &mut Vec<Output>) {
        if watermark > i64::MIN {
            self.time.wanted = self.time.wanted.max(Some(watermark));
        }
        self.work(budget, out);
    }

    /// Whether something is left of moving time on.
    pub fn has_work(&self) -> bool {
        self.time.reached < self.time.wanted
    }

    /// Goes on with moving time on while the budget lasts.
    pub fn work(&mut self, mut budget: Budget, out: &mut Vec<Output>) {
        let mut late = Vec::new();
        while self.has_work() {
            if !self.time.is_moving() {
                self.time.moved_to = self.time.wanted;
                self.time.begin_round();
            }
            if !self.take_turns(&mut budget, &mut late, out) {
                break;
            }
        }
        self.deliver_late(late, out);
    }

    /// The watermark that all queries have reached, microseconds: all that was due by it has been said.
    pub fn reached(&self) -> Option<i64> {
        self.time.reached
    }

    /// The queries that say rows of events as well as of windows, so that those of a later watermark may come first while
    /// time is being moved on.
    pub fn mixed(&self) -> impl Iterator<Item = &Query> {
        let queries = self.queries.iter().zip(&self.time.mixed);
        queries.filter(|(_, is_mixed)| **is_mixed).map(|(query, _)| query)
    }

    /// One round in which each query says a part of what is due, and then lets in a part of the rows that wait in front of
    /// it; those that read one that has something left wait for it. False when the budget is spent.
    fn take_turns(&mut self, budget: &mut Budget, late: &mut Vec<(Arc<str>, LateRow)>, out: &mut Vec<Output>) -> bool {
        while self.time.next < self.queries.len() {
            let index = self.time.next;
            self.time.next += 1;
            let waits = |source: &usize| self.time.waiting.contains(source);
            if !self.time.waiting.is_empty() && self.time.sources[index].iter().any(waits) {
                self.time.waiting.push(index);
                continue;
            }
            let is_due = self.is_due(index) && !self.windows.take_turn(index, self.time.round);
            if !is_due && !self.queries[index].holds_rows() {
                continue;
            }
            let before = out.len();
            let part = |is_singly: bool| (budget.part() / if is_singly { SINGLY } else { 1 }).max(1);
            let is_singly = self.time.singly[index];
            if is_due {
                let left = self.advance_with_sharers(index, part(is_singly), late, out);
                self.time.waiting.extend(left);
            }
            if self.queries[index].holds_rows() && !self.time.waiting.contains(&index) {
                self.let_in(index, part(is_singly), late, out);
                if self.queries[index].holds_rows() {
                    self.time.waiting.push(index);
                }
            }
            let cost = |output: &Output| output.rows.len() * if output.judgement.is_some() { OF_ALERT } else { 1 };
            budget.spend(out[before..].iter().map(cost).sum());
            if budget.is_spent() {
                self.end_round();
                return false;
            }
        }
        self.end_round();
        true
    }

    fn end_round(&mut self) {
        if self.time.next < self.queries.len() {
            return;
        }
        if self.time.waiting.is_empty() && !self.queries.iter().any(Query::holds_rows) {
            self.time.reached = self.time.moved_to;
            self.forget_versions(self.time.reached.unwrap_or(i64::MIN));
        }
        self.time.begin_round();
    }

    pub(super) fn is_due(&self, index: usize) -> bool {
        let watermark = self.until(index);
        let due = self.queries[index].due().min(self.windows.due(index));
        due <= watermark.saturating_sub(self.lags[index])
    }

    /// Moves one query on, or all that share its window: they take each part of it together. Tells of those that have
    /// something left.
    pub(super) fn advance_with_sharers(
        &mut self,
        index: usize,
        part: usize,
        late: &mut Vec<(Arc<str>, LateRow)>,
        out: &mut Vec<Output>,
    ) -> Vec<usize> {
        let sharers = self.windows.sharers(index);
        let mut left = Vec::new();
        if sharers.is_empty() {
            if self.advance_one(index, part, late, out) == Progress::Left {
                left.push(index);
            }
            return left;
        }
        let watermark = self.until(index);
        let behind = watermark.saturating_sub(self.lags[index]);
        // Each of them takes every row.
        let part = (part / sharers.len()).max(LEAST_SHARED_ROWS.min(part));
        let mut progress = Progress::Done;
        if self.windows.due(index) <= behind {
            let started = Instant::now();
            progress = self.windows.advance(index, behind, part, &self.references);
            self.queries[sharers[0]].note_shared(started.elapsed());
        }
        for sharer in &sharers {
            // What is above the window follows when that has said all that was due.
            let of_sharer = match progress {
                Progress::Left => self.tell_one(*sharer, late, out),
                Progress::Done => self.advance_one(*sharer, part, late, out),
            };
            if of_sharer == Progress::Left {
                left.push(*sharer);
            }
        }
        self.windows.forget_said(index);
        left
    }

    /// Hands a query what the window that it shares has said.
    fn tell_one(&mut self, index: usize, late: &mut Vec<(Arc<str>, LateRow)>, out: &mut Vec<Output>) -> Progress {
        let lag_us = self.lags[index];
        self.stepped(index, late, out, |query, context| {
            (query.push_shared(Passed::default(), lag_us, context), Progress::Left)
        })
    }

    fn advance_one(
        &mut self,
        index: usize,
        part: usize,
        late: &mut Vec<(Arc<str>, LateRow)>,
        out: &mut Vec<Output>,
    ) -> Progress {
        let watermark = self.until(index);
        let lag_us = self.lags[index];
        self.stepped(index, late, out, |query, context| {
            query.advance(watermark, lag_us, part, context)
        })
    }

    fn stepped(
        &mut self,
        index: usize,
        late: &mut Vec<(Arc<str>, LateRow)>,
        out: &mut Vec<Output>,
        step: impl FnOnce(&mut Query, &mut Context<'_>) -> (Vec<Output>, Progress),
    ) -> Progress {
        let mut rows = Vec::new();
        let mut context = Context {
            references: &self.references,
            late: &mut rows,
        };
        let (said, progress) = step(&mut self.queries[index], &mut context);
        if !said.is_empty() || !rows.is_empty() {
            let name = Arc::clone(self.queries[index].name());
            late.extend(rows.into_iter().map(|row| (Arc::clone(&name), row)));
            self.pass_on(&name, said, &mut None, late, out);
        }
        progress
    }

    /// Learns which queries read which, after queries came, went or changed.
    pub(super) fn learn_sources(&mut self) {
        self.time.sources.clear();
        self.time.follows = self
            .queries
            .iter()
            .map(|query| self.catalog.follows(query.name()))
            .collect();
        self.time.met.clear();
        self.time.mixed.clear();
        self.time.singly.clear();
        let mut meetings: FxHashMap<Arc<str>, Vec<usize>> = FxHashMap::default();
        let positions: FxHashMap<Arc<str>, usize> = self
            .queries
            .iter()
            .enumerate()
            .map(|(index, query)| (Arc::clone(query.name()), index))
            .collect();
        let position = |name: &str| positions.get(name).copied();
        let mut upstream: Vec<BTreeSet<usize>> = Vec::new();
        for (index, query) in self.queries.iter().enumerate() {
            let sources: Vec<usize> = query.sources().filter_map(position).collect();
            let mut above: BTreeSet<usize> = sources.iter().copied().collect();
            // A query stands behind those it reads; where they read each other in a circle, none of them runs.
            above.extend(sources.iter().filter_map(|source| upstream.get(*source)).flatten());
            above.insert(index);
            let mut met: Arc<[usize]> = Arc::default();
            if query.has_meetings(self.lags[index]) {
                let streams: BTreeSet<&str> = above
                    .iter()
                    .flat_map(|index| self.queries[*index].sources())
                    .filter(|source| position(source).is_none())
                    .collect();
                for stream in streams {
                    meetings.entry(stream.into()).or_default().push(index);
                }
                met = above.iter().copied().collect();
            }
            let is_mixed = !met.is_empty() || sources.iter().any(|source| self.time.mixed.get(*source) == Some(&true));
            self.time.mixed.push(is_mixed);
            if query.is_one_by_one() || !met.is_empty() {
                above.range(..index).for_each(|index| self.time.singly[*index] = true);
            }
            self.time.singly.push(query.is_one_by_one() || !met.is_empty());
            self.time.met.push(met);
            upstream.push(above);
            self.time.sources.push(sources);
        }
        let meetings = meetings.into_iter();
        self.time.meetings = meetings.map(|(stream, queries)| (stream, queries.into())).collect();
        self.time.begin_round();
    }
}
