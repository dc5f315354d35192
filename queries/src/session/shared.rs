//! Sessions as windows that several queries share.

use std::any::Any;

use arrow::array::RecordBatch;
use datafusion::common::Result;

use super::{Piece, Run, Sessions};
use crate::aggregate::AggregatePlan;
use crate::keys::Group;
use crate::operator::{Footprint, Operator};
use crate::shared_window::WindowOperator;
use crate::window::WindowSpec;

impl WindowOperator for Sessions {
    fn plan(&self) -> &AggregatePlan {
        &self.plan
    }

    fn has_windows_of(&self, other: &dyn WindowOperator) -> bool {
        let other: &dyn Any = other;
        other
            .downcast_ref::<Self>()
            .is_some_and(|other| self.time == other.time && self.gap == other.gap)
    }

    fn anew(&self, plan: AggregatePlan) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Self::new(plan, self.time.clone(), self.gap)?))
    }

    fn is_untouched(&self) -> bool {
        self.watermark == i64::MIN && self.due.is_empty()
    }

    fn keep_part(&mut self, keys: &[usize], calls: &[usize]) -> Result<RecordBatch> {
        self.keep(keys, calls)
    }

    fn footprint_of(&self, calls: &[usize]) -> Footprint {
        let causes = self.causes.places().filter_map(|(_, cause)| cause.as_ref());
        let accumulators = calls.iter().map(|call| self.accumulators[*call].bytes());
        Footprint {
            keys: self.keys.len(),
            windows: self.due.len(),
            bytes: self.keys.bytes()
                + accumulators.sum::<usize>()
                + self.runs.bytes()
                + self.due.len() * (size_of::<Run>() + size_of::<Piece>() + 2 * size_of::<(i64, Group, i64)>())
                + self.causes.bytes()
                + causes.map(|cause| cause.len()).sum::<usize>(),
        }
    }

    fn describe_part(&self, keys: &[usize], calls: &[usize]) -> String {
        format!(
            "Sessions: {} on {}; {}",
            WindowSpec::Session(self.gap),
            self.time,
            self.plan.describe(keys, calls)
        )
    }
}
