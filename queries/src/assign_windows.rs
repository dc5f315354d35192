//! Rows put into windows without being grouped: a row for each window it lies in.

use arrow::array::{AsArray, UInt32Array};
use arrow::compute::{filter_record_batch, is_not_null};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use datafusion::common::Result;

use crate::computed::Computed;
use crate::flow::Flow;
use crate::operator::{Context, Judges, Operator, batch_of};
use crate::row::Rows;
use crate::window::WindowSpec;

/// Puts rows into windows without grouping them: a row for each window it lies in.
pub(crate) struct AssignWindows {
    time: Computed,
    spec: WindowSpec,
    schema: SchemaRef,
}

impl AssignWindows {
    pub(crate) fn new(time: Computed, spec: WindowSpec, schema: SchemaRef) -> Self {
        Self { time, spec, schema }
    }
}

impl Operator for AssignWindows {
    fn push(&mut self, rows: Rows, _context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        if let Some(windowed) = assign_windows(&rows.flow(), &self.time, self.spec, &self.schema)? {
            out.push(Rows::Many(windowed));
        }
        Ok(())
    }

    fn judges(&self) -> Judges {
        Judges::Nothing
    }

    fn describe(&self) -> String {
        format!("Window: {} on {}", self.spec, self.time)
    }
}

fn assign_windows(flow: &Flow, time: &Computed, spec: WindowSpec, schema: &SchemaRef) -> Result<Option<Flow>> {
    let array = time.column(&flow.batch)?;
    let mask = is_not_null(&array)?;
    let times = arrow::compute::filter(&array, &mask)?;
    let kept = filter_record_batch(&flow.batch, &mask)?;
    let flow = if kept.num_rows() < flow.num_rows() {
        flow.filtered(&mask)?
    } else {
        flow.clone()
    };
    let (rows, starts, ends) = crate::window::expand(times.as_primitive::<TimestampMicrosecondType>().values(), spec);
    if UInt32Array::len(&rows) == 0 {
        return Ok(None);
    }
    let taken = flow.taken(&rows)?;
    let mut columns = taken.batch.columns().to_vec();
    columns.push(starts);
    columns.push(ends);
    let batch = batch_of(schema, columns, taken.num_rows())?;
    Ok(Some(taken.with_batch(batch)))
}
