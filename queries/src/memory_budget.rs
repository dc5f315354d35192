//! A memory budget tells when what a query keeps is to be measured, so that it never keeps much more than it may.
//!
//! To measure goes through all windows, some through all keys, so it is not done for every row. Between two measurements a query keeps about as
//! much of each byte that it takes in or says as it kept of those before.

use crate::operator::Footprint;

/// What a query keeps is measured after so many rows at least, after an eighth as many as it has keys, and after so many
/// times its windows: a day of them a minute apart takes longer to go through than ten thousand rows.
const MEASURED_ROWS: u64 = 4_096;
const ROWS_A_WINDOW: u64 = 256;
/// Within these parts of what it may keep it is measured once more: what goes beyond is about as much.
const PARTS: usize = 16;

/// What a query may keep, and when to look.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    memory: usize,
    rows_left: u64,
    bytes_left: usize,
    /// Bytes that went in and out since the last measurement.
    passed: usize,
    kept: usize,
    /// Bytes kept of each that passed, from above.
    kept_of_one: usize,
}

impl MemoryBudget {
    /// Nothing kept yet, of so many bytes that may be.
    pub(crate) fn new(memory: usize) -> Self {
        Self {
            memory,
            rows_left: MEASURED_ROWS,
            bytes_left: memory / PARTS,
            passed: 0,
            kept: 0,
            kept_of_one: 1,
        }
    }

    /// Bytes that may be kept.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// Rows of so many bytes went in and out; true when it is time to measure.
    pub(crate) fn pass(&mut self, rows: u64, bytes: usize) -> bool {
        self.rows_left = self.rows_left.saturating_sub(rows);
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.passed = self.passed.saturating_add(bytes);
        self.rows_left == 0 || self.bytes_left == 0
    }

    /// What is kept was measured; false when it is more than may be.
    pub(crate) fn keeps_to(&mut self, footprint: &Footprint) -> bool {
        let more = footprint.bytes.saturating_sub(self.kept);
        // What was once kept of a byte may be again: windows that closed in between hide it.
        self.kept_of_one = more.div_ceil(self.passed.max(1)).max(self.kept_of_one / 2).max(1);
        (self.kept, self.passed) = (footprint.bytes, 0);
        let (keys, windows) = (footprint.keys as u64, footprint.windows as u64);
        self.rows_left = MEASURED_ROWS.max(keys / 8).max(windows * ROWS_A_WINDOW);
        self.bytes_left = (self.memory / PARTS / self.kept_of_one).max(1);
        footprint.bytes <= self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::{MemoryBudget, PARTS};
    use crate::operator::Footprint;

    /// Whatever is kept of each byte, it is noticed before a part more than may be is kept, but for one step.
    #[test]
    fn little_more_is_kept_than_may_be() {
        let memory = 1 << 20;
        for (step, kept_of_one) in [(100, 1), (100, 30), (10_000, 1), (10_000, 4), (64, 700)] {
            let mut budget = MemoryBudget::new(memory);
            let (mut kept, mut measured) = (0, 0);
            loop {
                kept += step * kept_of_one;
                if budget.pass(1, step) {
                    measured += 1;
                    let footprint = Footprint {
                        bytes: kept,
                        ..Footprint::default()
                    };
                    if !budget.keeps_to(&footprint) {
                        break;
                    }
                }
            }
            // The first time nobody knows how much is kept of a byte.
            let first = memory / PARTS * kept_of_one;
            let most = (memory + memory / PARTS).max(first) + step * kept_of_one;
            assert!(kept <= most, "{step} × {kept_of_one}: {kept} of {memory}");
            assert!(
                measured <= 2 * PARTS + 2,
                "{step} × {kept_of_one}: measured {measured} times"
            );
        }
    }
}
