//! Parts of a batch: the rows of it that go into each window or pane.

use rustc_hash::FxHashMap;

use super::Aggregate;
use crate::picked::Picked;
use crate::window::Span;

/// So many stretches are remembered: rows that are out of order go back and forth between few windows or panes.
const STRETCHES: usize = 8;

/// Times whose rows go into the same windows, none of which is final below a watermark.
pub(super) struct Stretch {
    times: Span,
    limit: i64,
}

impl Stretch {
    fn holds(&self, time: i64, watermark: i64) -> bool {
        self.times.holds(time) && watermark < self.limit
    }
}

/// The rows of each window, the window of the earliest row first.
#[derive(Default)]
pub(super) struct Parts {
    parts: Vec<(Span, Picked)>,
    /// Where each window is among them.
    places: FxHashMap<Span, usize>,
    /// The stretches that were met last, with the places of their windows.
    stretches: Vec<(Stretch, Vec<usize>)>,
}

impl Parts {
    /// Puts rows from `from` on into their windows as long as they lie in a stretch that is known; the row behind them.
    /// `times` and `met` are those of all rows, `watermark` is the operator's.
    pub(super) fn take_alike(&mut self, from: usize, times: &[i64], met: &[i64], watermark: i64) -> usize {
        let mut from = from;
        while from < times.len() {
            let is_alike = |stretch: &Stretch, row: usize| stretch.holds(times[row], met[row].max(watermark));
            let Some((stretch, places)) = self.stretches.iter().find(|(stretch, _)| is_alike(stretch, from)) else {
                break;
            };
            let rows = times[from..].iter().zip(&met[from..]);
            let alike = rows
                .take_while(|(time, met)| stretch.holds(**time, (**met).max(watermark)))
                .count();
            for place in places {
                self.parts[*place].1.extend(from..from + alike);
            }
            from += alike;
        }
        from
    }

    /// Puts one row into its windows, and remembers the stretch it lies in.
    pub(super) fn take(&mut self, row: usize, spans: &[Span], stretch: Option<Stretch>) {
        let mut places = Vec::with_capacity(spans.len());
        for span in spans {
            let place = *self.places.entry(*span).or_insert_with(|| {
                self.parts.push((*span, Picked::none()));
                self.parts.len() - 1
            });
            self.parts[place].1.extend(row..row + 1);
            places.push(place);
        }
        if let Some(stretch) = stretch {
            self.stretches.truncate(STRETCHES - 1);
            self.stretches.insert(0, (stretch, places));
        }
    }

    /// The parts, taken out.
    pub(super) fn drain(&mut self) -> Vec<(Span, Picked)> {
        self.places.clear();
        self.stretches.clear();
        std::mem::take(&mut self.parts)
    }
}

impl Aggregate {
    /// The stretch that holds a row of this time which meets this watermark; `None` where one of its windows is final,
    /// where it lies in none, or where that hangs on more than the time.
    pub(super) fn stretch(&self, time: i64, watermark: i64) -> Option<Stretch> {
        let window = self.plan.window.as_ref()?;
        let times = window.windows.alike(time)?;
        let first_end = match self.panes {
            Some(hop) => hop.span(hop.first_start_ending_behind(time)).end,
            None => {
                let mut first = None;
                window.windows.each(time, None, |span| {
                    first.get_or_insert(span.end);
                });
                first?
            }
        };
        let limit = first_end.saturating_add(self.plan.lateness_us);
        Some(Stretch { times, limit }).filter(|stretch| stretch.holds(time, watermark))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{Parts, Stretch};
    use crate::window::{Assigner, Hop, Span};

    /// The windows of 20, each 10 a new one, that hold a time and are open at a watermark; the end of the first that holds it.
    fn judge(time: i64, watermark: i64) -> (Vec<Span>, i64) {
        let hop = Hop {
            size_us: 20,
            slide_us: 10,
            offset_us: 3,
        };
        let mut all = Vec::new();
        Assigner::Hop(hop).each(time, None, |span| all.push(span));
        let first = all[0].end;
        all.retain(|span| watermark < span.end);
        (all, first)
    }

    fn pane(time: i64) -> Span {
        Span::from((time - 3).div_euclid(10) * 10 + 3, 10)
    }

    proptest! {
        #[test]
        fn rows_go_where_each_of_them_goes_by_itself(
            rows in prop::collection::vec((0..150_i64, 0..150_i64), 0..200),
            spread in 1..150_i64,
            watermark in -1..60_i64,
        ) {
            let times: Vec<i64> = rows.iter().map(|(time, _)| time % spread).collect();
            let met: Vec<i64> = rows.iter().map(|(_, met)| met % spread).collect();
            let mut parts = Parts::default();
            let mut expected: BTreeMap<Span, Vec<usize>> = BTreeMap::new();
            for row in 0..rows.len() {
                for span in judge(times[row], met[row].max(watermark)).0 {
                    expected.entry(span).or_default().push(row);
                }
            }
            let mut row = 0;
            loop {
                row = parts.take_alike(row, &times, &met, watermark);
                if row == times.len() {
                    break;
                }
                let now = met[row].max(watermark);
                let (spans, limit) = judge(times[row], now);
                let stretch = Stretch { times: pane(times[row]), limit };
                parts.take(row, &spans, Some(stretch).filter(|stretch| stretch.holds(times[row], now)));
                row += 1;
            }
            let mut found = BTreeMap::new();
            for (span, picked) in parts.drain() {
                let mut rows = Vec::new();
                picked.for_each(|row| rows.push(row));
                prop_assert!(found.insert(span, rows).is_none(), "a window has one part");
            }
            prop_assert_eq!(found, expected);
        }
    }
}
