//! What a query has cost and done so far.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Shorter differences than this are not told apart, nanoseconds: a clock reads no finer.
const LEAST_NS: u64 = 16;
/// Longer evaluations than this count as this long, nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;
/// Digits that percentiles are right to.
const DIGITS: u8 = 2;

/// What a query has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Counters {
    /// Rows that went in.
    pub rows_in: u64,
    /// Rows that came out.
    pub rows_out: u64,
    /// Rows that came too late and are in the stream `late`.
    pub late_rows: u64,
    /// Rows that were said in place of ones said before, because late rows changed them.
    pub amended_rows: u64,
    /// Evaluations: pushes and advances that did something.
    pub evaluations: u64,
    /// Time spent evaluating, nanoseconds.
    pub busy_ns: u64,
    /// Half of all evaluations took at most so long, microseconds.
    pub p50_us: f64,
    /// 99 of 100 evaluations took at most so long, microseconds.
    pub p99_us: f64,
}

/// Keeps the counters and how long evaluations took.
#[derive(Debug)]
pub(crate) struct Cost {
    pub(crate) rows_in: u64,
    pub(crate) rows_out: u64,
    pub(crate) late_rows: u64,
    /// What the operators of an earlier form of the query counted.
    pub(crate) amended_before: u64,
    busy_ns: u64,
    took: Histogram<u32>,
}

/// It grows as far as values go: room for a minute would be more than all else that most queries keep.
fn small_histogram() -> Histogram<u32> {
    let mut histogram =
        Histogram::new_with_bounds(LEAST_NS, 2 * LEAST_NS, DIGITS).expect("the bounds and digits are right");
    histogram.auto(true);
    histogram
}

impl Default for Cost {
    fn default() -> Self {
        Self {
            rows_in: 0,
            rows_out: 0,
            late_rows: 0,
            amended_before: 0,
            busy_ns: 0,
            took: small_histogram(),
        }
    }
}

impl Cost {
    /// An evaluation took so long.
    pub(crate) fn note(&mut self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.busy_ns = self.busy_ns.saturating_add(ns);
        self.took
            .record(ns.clamp(LEAST_NS, LONGEST_NS))
            .expect("it grows as far as its longest");
    }

    /// Time spent evaluating, nanoseconds.
    pub(crate) fn busy_ns(&self) -> u64 {
        self.busy_ns
    }

    /// As people read it; amended rows are counted by the operators.
    pub(crate) fn counters(&self, amended_rows: u64) -> Counters {
        #[allow(clippy::cast_precision_loss)] // two digits are right
        let percentile = |quantile: f64| self.took.value_at_quantile(quantile) as f64 / 1_000.0;
        Counters {
            rows_in: self.rows_in,
            rows_out: self.rows_out,
            late_rows: self.late_rows,
            amended_rows: self.amended_before + amended_rows,
            evaluations: self.took.len(),
            busy_ns: self.busy_ns,
            p50_us: percentile(0.5),
            p99_us: percentile(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Cost;

    #[test]
    fn percentiles_are_right_however_far_the_values_lie_apart() {
        let mut cost = Cost::default();
        for us in 1..=1_000 {
            cost.note(Duration::from_micros(us));
        }
        cost.note(Duration::ZERO);
        cost.note(Duration::from_secs(3_600));
        let counters = cost.counters(0);
        assert_eq!(counters.evaluations, 1_002);
        assert!((counters.p50_us / 500.0 - 1.0).abs() < 0.01, "{counters:?}");
        assert!((counters.p99_us / 992.0 - 1.0).abs() < 0.01, "{counters:?}");
    }
}
