//! Rows put into windows without being grouped: a row for each window it lies in.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray, TimestampMicrosecondArray, UInt32Array};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use datafusion::common::Result;

use crate::aggregate::WindowPlan;
use crate::operator::{Context, Operator, batch_of};
use crate::row::Rows;
use crate::window::{Assigner, Span};

/// Puts rows into windows without grouping them: a row for each window it lies in.
pub(crate) struct AssignWindows {
    window: WindowPlan,
    schema: SchemaRef,
}

impl AssignWindows {
    pub(crate) fn new(window: WindowPlan, schema: SchemaRef) -> Self {
        Self { window, schema }
    }
}

impl Operator for AssignWindows {
    fn push(&mut self, rows: Rows, _context: &mut Context<'_>, out: &mut Vec<Rows>) -> Result<()> {
        let flow = rows.flow();
        let times = self.window.time.column(&flow.batch)?;
        let sites = self
            .window
            .site
            .as_ref()
            .map(|site| site.column(&flow.batch))
            .transpose()?;
        let (rows, columns) = in_windows(&times, sites.as_ref(), &self.window.windows);
        if rows.is_empty() {
            return Ok(());
        }
        let taken = flow.taken(&rows)?;
        let batch = batch_of(
            &self.schema,
            [taken.batch.columns(), &columns].concat(),
            taken.num_rows(),
        )?;
        out.push(Rows::Many(taken.with_batch(batch)));
        Ok(())
    }

    fn reads_watermarks(&self) -> bool {
        false
    }

    fn lag_us(&self) -> i64 {
        self.window.windows.longest_us()
    }

    fn next_due(&self) -> i64 {
        i64::MAX
    }

    fn describe(&self) -> String {
        format!("Window: {} on {}", self.window.spec, self.window.time)
    }
}

/// Which row goes into which window: indices of rows (repeated; those without a time in none), and the window's own
/// columns beside them.
pub(crate) fn in_windows(
    times: &ArrayRef,
    sites: Option<&ArrayRef>,
    windows: &Assigner,
) -> (UInt32Array, Vec<ArrayRef>) {
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let sites: Option<&StringArray> = sites.map(|sites| sites.as_string::<i32>());
    let (mut rows, mut spans) = (Vec::with_capacity(times.len()), Vec::with_capacity(times.len()));
    for row in (0..times.len()).filter(|row| times.is_valid(*row)) {
        let site = sites.and_then(|sites| sites.is_valid(row).then(|| sites.value(row)));
        windows.each(times.value(row), site, |span| {
            rows.push(row as u32);
            spans.push(span);
        });
    }
    (UInt32Array::from(rows), window_columns(&spans))
}

/// The columns that a window adds to its input, for rows of which nothing more will be said.
pub(crate) fn window_columns(spans: &[Span]) -> Vec<ArrayRef> {
    let times = |of: fn(&Span) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(spans.iter().map(of)))
    };
    vec![
        times(|span| span.start),
        times(|span| span.end),
        Arc::new(BooleanArray::from(vec![true; spans.len()])),
        Arc::new(BooleanArray::from(vec![false; spans.len()])),
    ]
}
