//! An aggregate as a window that several queries share.

use std::any::Any;

use arrow::array::RecordBatch;
use datafusion::common::Result;

use super::{Aggregate, AggregatePlan};
use crate::operator::{Footprint, Operator};
use crate::shared_window::WindowOperator;
use crate::slot::Slot;

impl WindowOperator for Aggregate {
    fn plan(&self) -> &AggregatePlan {
        &self.plan
    }

    fn has_windows_of(&self, other: &dyn WindowOperator) -> bool {
        let other: &dyn Any = other;
        // Windows that are merged from panes and such that are not may differ in the rounding of a sum.
        other
            .downcast_ref::<Self>()
            .is_some_and(|other| self.plan.window == other.plan.window && self.panes == other.panes)
    }

    fn anew(&self, plan: AggregatePlan) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Self::new(plan)?))
    }

    fn is_untouched(&self) -> bool {
        self.watermark == i64::MIN
            && self.slots.is_empty()
            && self.waiting.is_empty()
            && self.said_until == i64::MIN
            && self.next_emit == i64::MIN
    }

    fn keep_part(&mut self, keys: &[usize], calls: &[usize]) -> Result<RecordBatch> {
        self.keep(keys, calls)
    }

    fn footprint_of(&self, calls: &[usize]) -> Footprint {
        let slots = self.slots.values().chain(self.pool.slots());
        Footprint {
            keys: self.keys.len(),
            windows: if self.plan.window.is_some() {
                self.slots.len()
            } else {
                0
            },
            bytes: self.keys.bytes()
                + slots.map(|slot: &Slot| slot.bytes(calls)).sum::<usize>()
                + self.sliding.as_ref().map_or(0, |sliding| sliding.bytes(calls))
                + self.merging.as_ref().map_or(0, |merging| merging.bytes(calls))
                + self.waiting.bytes(calls),
        }
    }

    fn describe_part(&self, keys: &[usize], calls: &[usize]) -> String {
        let window = match (&self.plan.window, self.panes) {
            (Some(window), Some(hop)) => format!(
                "{} on {}, panes of {}",
                window.spec,
                window.time,
                humantime::format_duration(std::time::Duration::from_micros(hop.pane_us().unsigned_abs()))
            ),
            (Some(window), None) => format!("{} on {}", window.spec, window.time),
            (None, _) => "running".to_owned(),
        };
        format!("Aggregate: {window}; {}", self.plan.describe(keys, calls))
    }
}
