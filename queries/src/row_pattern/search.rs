//! A search is all attempts of one partition: which of them count, in which order, and where the next may begin.

use std::collections::VecDeque;
use std::hash::Hash;

use super::attempt::{Attempt, Failure, Judge, Match};
use super::automaton::Automaton;

/// Where the next match may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Skip {
    /// Behind the match.
    PastLastRow,
    /// At the row behind the match's first.
    ToNextRow,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Rows that match; no further row can change it.
    Match(Match),
    /// Rows that had begun to match when their time was over.
    TimedOut(Match),
    /// What began at this row was given up because too much was open.
    GivenUp(u64),
}

/// The attempts of one partition, by the row they began at.
#[derive(Debug, Clone)]
pub(crate) struct Search<S> {
    attempts: VecDeque<Attempt<S>>,
    skip: Skip,
    /// Whether a match waits for those that began before it, though none of them can touch it.
    in_order: bool,
    /// With more ways than this the oldest attempt is given up: each row is tried with each of them.
    max_ways: usize,
    /// The last row it was given.
    last_row: u64,
}

impl<S: Clone + Eq + Hash> Search<S> {
    /// Nothing begun yet.
    pub(crate) fn new(skip: Skip, in_order: bool, max_ways: usize) -> Self {
        Self {
            attempts: VecDeque::new(),
            skip,
            in_order,
            max_ways,
            last_row: 0,
        }
    }

    /// Takes the next row; what can't change any more is appended to `found`.
    pub(crate) fn push<J: Judge<Seen = S>>(
        &mut self,
        automaton: &Automaton,
        judge: &mut J,
        row: u64,
        found: &mut Vec<Found>,
    ) -> Result<(), Failure<J::Error>> {
        self.last_row = row;
        for attempt in &mut self.attempts {
            if !attempt.is_settled() {
                attempt.push(automaton, judge, row)?;
            }
        }
        if let Some(attempt) = Attempt::begin(automaton, judge, row)? {
            self.attempts.push_back(attempt);
        }
        self.settle(found);
        // Counted anew each time: giving one up may settle others.
        while self.attempts.iter().map(Attempt::ways).sum::<usize>() > self.max_ways {
            self.give_up_first(found);
        }
        Ok(())
    }

    /// What began at `row` or before takes no further row.
    pub(crate) fn expire(&mut self, row: u64, found: &mut Vec<Found>) {
        for attempt in &mut self.attempts {
            if attempt.first() > row {
                break;
            }
            attempt.stop(self.last_row);
        }
        self.settle(found);
    }

    /// There are no further rows; what is only begun is forgotten.
    pub(crate) fn end(&mut self, found: &mut Vec<Found>) {
        let from = found.len();
        self.expire(u64::MAX, found);
        let mut index = from;
        while index < found.len() {
            if matches!(found[index], Found::TimedOut(_)) {
                found.remove(index);
            } else {
                index += 1;
            }
        }
    }

    /// Gives up the oldest attempt: what it matched so far stands.
    pub(crate) fn give_up_first(&mut self, found: &mut Vec<Found>) {
        let Some(attempt) = self.attempts.front_mut() else {
            return;
        };
        let first = attempt.first();
        attempt.stop(self.last_row);
        if attempt.best_end().is_none() {
            found.push(Found::GivenUp(first));
            self.attempts.pop_front();
        }
        self.settle(found);
    }

    /// The row at which the oldest attempt began; rows before it are looked at no more.
    pub(crate) fn earliest(&self) -> Option<u64> {
        self.attempts.front().map(Attempt::first)
    }

    /// How many attempts there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.attempts.len()
    }

    /// Bytes kept, estimated; `of_seen` tells what the conditions of one way keep beside themselves.
    pub(crate) fn bytes(&self, of_seen: impl Fn(&S) -> usize) -> usize {
        self.attempts.iter().map(|attempt| attempt.bytes(&of_seen)).sum()
    }

    fn settle(&mut self, found: &mut Vec<Found>) {
        if self.skip == Skip::ToNextRow && !self.in_order {
            if self.attempts.iter().any(Attempt::is_settled) {
                for attempt in std::mem::take(&mut self.attempts) {
                    if attempt.is_settled() {
                        tell(attempt, found);
                    } else {
                        self.attempts.push_back(attempt);
                    }
                }
            }
            return;
        }
        while self.attempts.front().is_some_and(Attempt::is_settled) {
            let Some(attempt) = self.attempts.pop_front() else {
                break;
            };
            let end = tell(attempt, found);
            self.skip_to(end, 0);
        }
        // Whatever the oldest attempt comes to, it ends no earlier than it might now.
        if let Some(end) = self.attempts.front().map(Attempt::best_end) {
            self.skip_to(end, 1);
        }
    }

    /// Drops attempts that lie in a match which ends at `end`, from the attempt `from` on.
    fn skip_to(&mut self, end: Option<u64>, from: usize) {
        if self.skip != Skip::PastLastRow {
            return;
        }
        let Some(end) = end else { return };
        while self.attempts.get(from).is_some_and(|attempt| attempt.first() <= end) {
            self.attempts.remove(from);
        }
    }
}

/// Says what a settled attempt came to; gives the last row of its match.
fn tell<S: Clone + Eq + Hash>(attempt: Attempt<S>, found: &mut Vec<Found>) -> Option<u64> {
    match attempt.into_result() {
        (Some(matched), _) => {
            let end = matched.last;
            found.push(Found::Match(matched));
            Some(end)
        }
        (None, Some(partial)) => {
            found.push(Found::TimedOut(partial));
            None
        }
        (None, None) => None,
    }
}
