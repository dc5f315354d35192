//! DataFusion's row accumulators, one a group, for every aggregate without a native one.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::Accumulator;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::GroupAccumulator;
use crate::keys::Group;

/// DataFusion's row accumulators, one a group, for every aggregate without a native one.
pub(super) struct RowAccumulators {
    expr: Arc<AggregateFunctionExpr>,
    groups: Vec<Option<Box<dyn Accumulator>>>,
}

impl RowAccumulators {
    pub(super) fn new(expr: Arc<AggregateFunctionExpr>) -> Self {
        Self {
            expr,
            groups: Vec::new(),
        }
    }

    fn accumulator(&mut self, group: Group) -> Result<&mut Box<dyn Accumulator>> {
        let slot = &mut self.groups[group as usize];
        if slot.is_none() {
            *slot = Some(self.expr.create_accumulator()?);
        }
        match slot {
            Some(accumulator) => Ok(accumulator),
            None => internal_err!("an accumulator was just put there"),
        }
    }
}

impl GroupAccumulator for RowAccumulators {
    fn resize(&mut self, groups: usize) {
        if self.groups.len() < groups {
            self.groups.resize_with(groups, || None);
        }
    }
    fn update(&mut self, groups: &[Group], rows: &[u32], args: &[ArrayRef]) -> Result<()> {
        let mut order: Vec<u32> = rows.to_vec();
        order.sort_by_key(|row| groups[*row as usize]); // stable: the rows of a group stay in their order
        for run in order.chunk_by(|a, b| groups[*a as usize] == groups[*b as usize]) {
            let indices = UInt32Array::from_iter_values(run.iter().copied());
            let taken = args
                .iter()
                .map(|array| Ok(take(array, &indices, None)?))
                .collect::<Result<Vec<_>>>()?;
            self.accumulator(groups[run[0] as usize])?.update_batch(&taken)?;
        }
        Ok(())
    }
    fn merge(&mut self, _other: &dyn GroupAccumulator, _groups: &[Group]) -> Result<()> {
        internal_err!("row accumulators are kept a window and never merged")
    }
    fn evaluate(&mut self, groups: &[Group]) -> Result<ArrayRef> {
        let values = groups
            .iter()
            .map(|group| self.accumulator(*group)?.evaluate())
            .collect::<Result<Vec<_>>>()?;
        if values.is_empty() {
            return Ok(arrow::array::new_empty_array(self.expr.field().data_type()));
        }
        ScalarValue::iter_to_array(values)
    }
    fn state(&mut self, groups: &[Group]) -> Result<Vec<ArrayRef>> {
        let fields = self.expr.state_fields()?;
        let mut columns: Vec<Vec<ScalarValue>> = vec![Vec::with_capacity(groups.len()); fields.len()];
        for group in groups {
            // Taking the state may empty an accumulator, so a new one takes it over.
            let state = self.accumulator(*group)?.state()?;
            let arrays = state.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>>>()?;
            let mut fresh = self.expr.create_accumulator()?;
            fresh.merge_batch(&arrays)?;
            self.groups[*group as usize] = Some(fresh);
            for (column, value) in columns.iter_mut().zip(state) {
                column.push(value);
            }
        }
        columns
            .into_iter()
            .zip(&fields)
            .map(|(column, field)| {
                if column.is_empty() {
                    Ok(arrow::array::new_empty_array(field.data_type()))
                } else {
                    ScalarValue::iter_to_array(column)
                }
            })
            .collect()
    }
    fn restore(&mut self, groups: &[Group], state: &[ArrayRef]) -> Result<()> {
        for (row, group) in groups.iter().enumerate() {
            let slices: Vec<ArrayRef> = state.iter().map(|column| column.slice(row, 1)).collect();
            self.accumulator(*group)?.merge_batch(&slices)?;
        }
        Ok(())
    }
    fn clear(&mut self, group: Group) {
        self.groups[group as usize] = None;
    }
    fn state_width(&self) -> usize {
        self.expr.state_fields().map_or(0, |fields| fields.len())
    }
    fn is_mergeable(&self) -> bool {
        false
    }
    fn bytes(&self) -> usize {
        self.groups
            .iter()
            .flatten()
            .map(|accumulator| accumulator.size())
            .sum::<usize>()
            + self.groups.capacity() * 16
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
