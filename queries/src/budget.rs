//! A budget says how long time may be moved on at once: a large window is said in parts, so that events between two of
//! them do not wait for all of it.

use std::time::{Duration, Instant};

/// Groups, sessions or rows of a part where others wait: some tens of microseconds.
const PART_ROWS: usize = 256;
/// Rows that are said at most before others have their turn: whoever takes them has work with them too.
const TURN_ROWS: usize = 1_024;

/// How much may be done before others have their turn.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    until: Until,
    part: usize,
    /// Rows that may still be said.
    rows: usize,
}

#[derive(Debug, Clone, Copy)]
enum Until {
    AllIsDone,
    Instant(Instant),
    #[cfg(test)]
    OnePart,
}

impl Budget {
    /// Everything that is due, at once.
    pub fn unlimited() -> Self {
        Self {
            until: Until::AllIsDone,
            part: usize::MAX,
            rows: usize::MAX,
        }
    }

    /// So long from now, and a part beyond it at most.
    pub fn lasting(time: Duration) -> Self {
        Self {
            until: Until::Instant(Instant::now() + time),
            part: PART_ROWS,
            rows: TURN_ROWS,
        }
    }

    /// One part of so many rows.
    #[cfg(test)]
    pub(crate) fn one_part(part: usize) -> Self {
        Self {
            until: Until::OnePart,
            part,
            rows: usize::MAX,
        }
    }

    /// How many rows make a part.
    pub(crate) fn part(&self) -> usize {
        self.part
    }

    /// So many rows were said.
    pub(crate) fn spend(&mut self, rows: usize) {
        self.rows = self.rows.saturating_sub(rows);
    }

    /// Whether others have their turn now.
    pub fn is_spent(&self) -> bool {
        if self.rows == 0 {
            return true;
        }
        match self.until {
            Until::AllIsDone => false,
            Until::Instant(until) => Instant::now() >= until,
            #[cfg(test)]
            Until::OnePart => true,
        }
    }
}
