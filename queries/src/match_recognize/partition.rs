//! A partition is the rows that patterns are looked for in together: those still needed, and what has begun in them.

use std::sync::Arc;

use datafusion::common::{DataFusionError, Result, exec_datafusion_err};

use super::operand::{KeptRows, Memory, Operand, PatternRow};
use super::prepared::{Input, Prepared};
use crate::capture::noting::Mark;
use crate::row_pattern::Variable;
use crate::row_pattern::attempt::{Failure, Judge, MAX_WAYS, Match};
use crate::row_pattern::search::{Found, Search};
use crate::rows::{json_of, time_to_text};
use crate::value::Value;

/// A partial match that spans more rows than this is given up: it would keep them all.
pub(super) const MAX_ROWS: u64 = 10_000;
/// With more ways open than this in one partition the oldest partial match is given up: each row is tried with each.
const MAX_WAYS_OF_ALL: usize = 10_000;

/// One partition.
#[derive(Debug)]
pub(super) struct Partition {
    /// The values of PARTITION BY.
    pub(super) values: Vec<Value>,
    pub(super) rows: KeptRows,
    pub(super) search: Search<Vec<Memory>>,
    /// How many matches it has had.
    pub(super) matches: i64,
    /// The time under which it stands among those that are due.
    pub(super) due: Option<i64>,
    /// No other has it, not even one of the same values that was before.
    pub(super) id: u64,
    /// What captures know of how far it is.
    pub(super) mark: Mark,
}

impl Partition {
    /// No row yet.
    pub(super) fn new(prepared: &Prepared, values: Vec<Value>, id: u64) -> Self {
        Self {
            values,
            rows: KeptRows::default(),
            // Matches are numbered in the order in which they begin.
            search: Search::new(prepared.skip, prepared.numbers_matches, MAX_WAYS_OF_ALL),
            matches: 0,
            due: None,
            id,
            mark: Mark::New,
        }
    }

    /// Takes the next row.
    pub(super) fn push(&mut self, prepared: &Prepared, row: PatternRow, found: &mut Vec<Found>) -> Result<()> {
        let time = row.time;
        let number = self.rows.push(row);
        let mut judge = Judging {
            prepared,
            rows: &mut self.rows,
        };
        self.search
            .push(&prepared.automaton, &mut judge, number, found)
            .map_err(|failure| match failure {
                Failure::Condition(error) => error,
                // To give it up would be to say other matches from here on than the pattern means, and to say so of one
                // partition would help nobody: what leaves this one open leaves the next one open.
                Failure::TooManyWays => {
                    let of: Vec<String> = self.values.iter().map(|value| json_of(value).to_string()).collect();
                    exec_datafusion_err!(
                        "a partial match may go on in more than {MAX_WAYS} ways: DEFINE leaves open which row is which \
                         variable; make its conditions exclude each other (at the row of {}{}{})",
                        time_to_text(time),
                        if of.is_empty() { "" } else { ", PARTITION BY is " },
                        of.join(", ")
                    )
                }
            })?;
        while self.search.earliest().is_some_and(|first| number - first >= MAX_ROWS) {
            self.search.give_up_first(found);
        }
        Ok(())
    }

    /// Time has passed `due`: what began too long before it takes no more rows.
    pub(super) fn expire(&mut self, prepared: &Prepared, due: i64, found: &mut Vec<Found>) {
        let (Some(within), Some(first)) = (prepared.within_us, self.search.earliest()) else {
            return;
        };
        let is_over = |number: &u64| {
            let row = self.rows.get(*number);
            row.is_some_and(|row| row.time.saturating_add(within) <= due)
        };
        if let Some(last) = (first..self.rows.next()).take_while(is_over).last() {
            self.search.expire(last, found);
        }
    }

    /// When something happens in it that no row brings: a partial match is over, or all of it is forgotten.
    pub(super) fn next_due(&self, prepared: &Prepared) -> Option<i64> {
        match self.search.earliest() {
            Some(first) => {
                let within = prepared.within_us?;
                Some(self.rows.get(first)?.time.saturating_add(within))
            }
            None => Some(
                self.rows
                    .last()?
                    .time
                    .saturating_add(prepared.forgotten_after_us(self.matches)?),
            ),
        }
    }

    /// Whether there is nothing in it that a later row might need when time has passed `due`.
    pub(super) fn is_forgotten(&self, prepared: &Prepared, due: i64) -> bool {
        self.search.earliest().is_none()
            && (prepared.kept_back(self.matches) == 0 || self.next_due(prepared).is_some_and(|time| time <= due))
    }

    /// Forgets rows that nothing looks at any more; gives the number of each and what captures know of it.
    pub(super) fn tidy(&mut self, prepared: &Prepared) -> Vec<(u64, Mark)> {
        let needed = self.open_from();
        self.rows
            .forget_before(needed.saturating_sub(prepared.kept_back(self.matches)))
    }

    /// The first row at which matches may begin or have begun; those before it are only looked back at.
    pub(super) fn open_from(&self) -> u64 {
        self.search.earliest().unwrap_or_else(|| self.rows.next())
    }

    /// What MEASURES say of a match; `number` is NULL for one that timed out.
    pub(super) fn measure(&self, prepared: &Prepared, matched: &Match, number: &Value) -> Result<Vec<Value>> {
        let operands: Vec<Value> = prepared
            .measure_operands
            .iter()
            .map(|operand| match operand {
                Operand::MatchNumber => number.clone(),
                operand => {
                    let seen = operand.seen_of(matched, &self.rows);
                    operand.value(&seen, &self.rows, prepared.within_us, &prepared.variables)
                }
            })
            .collect();
        crate::computed::values(&prepared.measures, &operands)
    }

    /// The event that made a row.
    pub(super) fn cause(&self, row: u64) -> Option<Arc<str>> {
        self.rows.get(row).and_then(|row| row.cause.clone())
    }
}

/// Asks the conditions of DEFINE.
struct Judging<'a> {
    prepared: &'a Prepared,
    rows: &'a mut KeptRows,
}

impl Judging<'_> {
    fn holds(&self, seen: &[Memory], row: u64, variable: Variable) -> Result<bool> {
        let Some(condition) = &self.prepared.conditions[variable as usize] else {
            return Ok(true);
        };
        let within = self.prepared.within_us;
        let values: Vec<Value> = condition
            .inputs
            .iter()
            .map(|input| match input {
                Input::Current { argument, back } => self.rows.look(row, *back, *argument, within),
                Input::Seen(index) => {
                    self.prepared.seen[*index].value(&seen[*index], self.rows, within, &self.prepared.variables)
                }
            })
            .collect();
        condition.holds.holds(&values)
    }
}

impl Judge for Judging<'_> {
    type Seen = Vec<Memory>;
    type Error = DataFusionError;

    fn nothing(&self) -> Self::Seen {
        self.prepared.seen.iter().map(Operand::nothing).collect()
    }

    fn take(&mut self, seen: &Self::Seen, row: u64, variable: Variable) -> Result<Option<Self::Seen>> {
        let condition = &self.prepared.conditions[variable as usize];
        let is_of_row = condition.as_ref().is_none_or(|condition| condition.is_of_row);
        if is_of_row && condition.is_some() {
            let known = self.rows.get(row).and_then(|row| row.known[variable as usize]);
            let holds = match known {
                Some(holds) => holds,
                None => {
                    let holds = self.holds(seen, row, variable)?;
                    if let Some(row) = self.rows.get_mut(row) {
                        row.known[variable as usize] = Some(holds);
                    }
                    holds
                }
            };
            if !holds {
                return Ok(None);
            }
        }
        let mut seen = seen.clone();
        if let Some(row_seen) = self.rows.get(row) {
            for (operand, memory) in self.prepared.seen.iter().zip(&mut seen) {
                operand.see(memory, row, variable, &row_seen.arguments);
            }
        }
        if !is_of_row && !self.holds(&seen, row, variable)? {
            return Ok(None);
        }
        Ok(Some(seen))
    }
}
