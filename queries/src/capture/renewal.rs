//! Renewal is when an operator hands over all that it keeps once more, so that its chain of captures begins anew.

/// After so many captures an operator should hand over all that it keeps once more, and the chain begin anew.
const CHAIN_MAX: usize = 32;
/// And when the chain has so many rows for each that is kept.
const ROWS_FOR_ONE: usize = 2;
/// So many rows behind the first ones are too few to begin anew for.
const ROWS_MIN: usize = 1_024;
/// A chain that is so many times as long as it should be begins anew whatever else does.
const TOO_LONG: usize = 2;
/// Of all rows that are kept about one of so many is handed over once more for one capture.
const RENEWED_IN: usize = 8;

/// How much was handed over of an operator since it began anew.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chain {
    /// Captures.
    pub(super) captures: usize,
    /// Rows of them.
    pub(super) rows: usize,
    /// Rows that are kept by now.
    pub(super) kept: usize,
}

impl Chain {
    /// Whether it is longer than it is worth, `times` over.
    fn is_long(&self, times: usize) -> bool {
        self.captures >= times * CHAIN_MAX || self.rows >= times * (ROWS_FOR_ONE * self.kept + ROWS_MIN)
    }
}

/// Which operators hand over for the next capture all that they keep once more.
///
/// What is kept of the same events becomes as many rows in the same time, so that the chains of all large operators get long at
/// once. One that began anew with all others would make a capture that takes as long as several and holds events up for as
/// long, and all that is kept would be in memory a second time.
#[derive(Debug, Default)]
pub(crate) struct Renewal {
    /// Operators that were asked for in this capture, and the first of them that may begin anew: those before it may have done so
    /// for the captures before.
    asked: usize,
    from: usize,
    /// The one behind the last that there was room for; `None` where there is room for all.
    full_at: Option<usize>,
    /// Rows that are kept in the operators asked for, and in all of them at the capture before.
    kept: usize,
    kept_before: usize,
    /// Rows that begin anew.
    renewed: usize,
}

impl Renewal {
    /// Of the next capture.
    pub(crate) fn begin(&mut self) {
        *self = Self {
            from: self.full_at.unwrap_or_default(),
            kept_before: self.kept,
            ..Self::default()
        };
    }

    /// Whether the operator of this chain begins anew. To be asked of each that has changed, in their order.
    pub(crate) fn is_for(&mut self, chain: Chain) -> bool {
        self.asked += 1;
        self.kept += chain.kept;
        let has_turn = self.asked > self.from && self.full_at.is_none();
        let is_renewed = chain.is_long(1) && has_turn || chain.is_long(TOO_LONG);
        if is_renewed {
            self.renewed += chain.kept;
            if self.full_at.is_none() && self.renewed > self.kept_before / RENEWED_IN {
                self.full_at = Some(self.asked);
            }
        }
        is_renewed
    }
}
