//! Windows that are closed in turns while others come between these: what took longest.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use usher_queries::budget::Budget;
use usher_queries::flow::Flow;
use usher_queries::query_set::QuerySet;
use usher_queries::row::{Row, Rows};

use crate::many::TURN;

/// The longest of each, and how many turns there were.
#[derive(Default)]
pub(crate) struct Longest {
    pub(crate) turn: Duration,
    /// Taking a single row.
    pub(crate) row: Duration,
    /// Taking a batch.
    pub(crate) batch: Duration,
    /// All turns of a window.
    pub(crate) whole: Duration,
    pub(crate) turns: usize,
}

impl Longest {
    /// Moves time on to `end` in turns. After the turn with a number `between` gives what comes then, of which every third time
    /// all rows come at once, and else the first alone; it may look at the queries before.
    pub(crate) fn close(
        &mut self,
        queries: &mut QuerySet,
        end: i64,
        mut between: impl FnMut(usize, &mut QuerySet) -> RecordBatch,
    ) {
        let mut said = Vec::new();
        let began = Instant::now();
        queries.advance_within(end, Budget::lasting(TURN), &mut said);
        let mut turn = began.elapsed();
        // Looking at the queries is not among what is measured.
        let mut whole = turn;
        for number in 0.. {
            self.turn = self.turn.max(turn);
            self.turns += 1;
            said.clear();
            if !queries.has_work() {
                break;
            }
            let rows = Flow::at_watermark(between(number, queries), end);
            let (rows, longest) = match number % 3 {
                0 => (Rows::Many(rows), &mut self.batch),
                _ => (Rows::One(Row::of(&rows, 0)), &mut self.row),
            };
            let started = Instant::now();
            queries.push("gate", &rows, &mut said);
            let took = started.elapsed();
            *longest = took.max(*longest);
            said.clear();
            let started = Instant::now();
            queries.work(Budget::lasting(TURN), &mut said);
            turn = started.elapsed();
            whole += took + turn;
        }
        self.whole = self.whole.max(whole);
    }
}
